use std::sync::Arc;

use super::*;
use crate::source::kubernetes::{objects::EndpointSlice, record};

/// Endpoints in short, named `a`, `b`, ... by their order: `r` ready, `s` serving, `t` terminating; `@` on this
/// node; `n:x,y` for nodes; `z:x,y` for zones.
fn endpoints(text: &str, zones: &mut Zones) -> Candidates {
    let names =
        |list: &str| list.split(',').map(|name| format!("{{name: {name}}}")).collect::<Vec<_>>().join(", ");
    let mut yaml = String::from(
        "{metadata: {labels: {kubernetes.io/service-name: s}}, addressType: IPv4, ports: [{name: '', port: 80}], endpoints: [",
    );
    for (i, endpoint) in text.split_whitespace().enumerate() {
        let mut parts = endpoint.split(';');
        let flags = parts.next().unwrap();
        let is = |flag: char| flags.contains(flag);
        let mut hints = String::new();
        for (kind, list) in parts.filter_map(|hint| hint.split_once(':')) {
            hints += &format!("{}: [{}], ", if kind == "n" { "forNodes" } else { "forZones" }, names(list));
        }
        yaml += &format!(
            "{{addresses: [10.0.0.{i}], conditions: {{ready: {}, serving: {}, terminating: {}}}, nodeName: {}, hints: {{{hints}}}}}, ",
            is('r'),
            is('s') || is('r'),
            is('t'),
            if is('@') { "me" } else { "other" }
        );
    }
    yaml += "]}";
    let object: EndpointSlice = serde_yaml_ng::from_str(&yaml).unwrap();
    let key: Arc<str> = "d/s".into();
    let slice = Slice::parse(&key, &object, "me", zones, &mut Vec::new()).unwrap();
    let port = Port { name: "".into(), transport: record::Transport::Tcp, port: 80, node_port: None };
    merge([&slice], &port, false)
}

/// What comes out, in short: the cluster's list, this node's, whether there is any.
fn outcome(text: &str, uses: Uses, zone: &str) -> (String, String, bool) {
    let mut zones = Zones::default();
    let endpoints = endpoints(text, &mut zones);
    let categories = categorize(&endpoints, uses, Place { zone, zones: &zones });
    let names = |on: &dyn Fn(&On) -> bool| {
        let listed = categories.on.iter().zip('a'..).filter(|(one, _)| on(one));
        listed.map(|(_, name)| name).collect::<String>()
    };
    (names(&|on| on.cluster), names(&|on| on.local), categories.any)
}

const BOTH: Uses = Uses { cluster: true, local: true };
const CLUSTER: Uses = Uses { cluster: true, local: false };
const LOCAL: Uses = Uses { cluster: false, local: true };

#[test]
fn t1_t2_lists_and_their_last_resort() {
    for (about, text, uses, cluster, local, any) in [
        ("none", "", BOTH, "", "", false),
        ("only unready ones", "- @", BOTH, "", "", false),
        ("ready ones", "r @r r", BOTH, "abc", "b", true),
        ("no list that nobody asks for", "r @r r", CLUSTER, "abc", "", true),
        ("nor that of the cluster", "r @r r", LOCAL, "", "b", true),
        ("ready ones elsewhere only", "r r -", LOCAL, "", "", true),
        ("ready ones elsewhere only, both lists", "r r @-", BOTH, "ab", "", true),
        ("terminating ones are the last resort", "st @st -", BOTH, "ab", "b", true),
        ("not while one is ready", "st @st r", BOTH, "c", "b", true),
        ("each list by itself", "@st @r st", BOTH, "b", "b", true),
        ("this node's may be ready while", "@r @st st", BOTH, "a", "a", true),
        ("terminating ones elsewhere only", "st st", LOCAL, "", "", true),
        ("terminating, not serving", "t @t", BOTH, "", "", false),
        ("ready and terminating is ready", "rt @rt", BOTH, "ab", "b", true),
        ("serving, not terminating, not ready", "s @s", BOTH, "", "", false),
    ] {
        assert_eq!(outcome(text, uses, "z"), (cluster.into(), local.into(), any), "{about}");
    }
}

#[test]
fn t3_t4_hints_all_or_none() {
    for (about, text, zone, cluster) in [
        ("zones", "r;z:a r;z:b r;z:a,b", "a", "ac"),
        ("no zone here", "r;z:a r;z:b", "", "ab"),
        ("nothing for this zone", "r;z:a r;z:b", "c", "ab"),
        ("one without a hint", "r;z:a r r;z:b", "a", "abc"),
        ("an unready one without a hint doesn't count", "r;z:a - r;z:b", "a", "a"),
        ("an unready one for this zone doesn't either", "r;z:b -;z:a", "a", "a"),
        ("nor a terminating one", "r;z:a st r;z:b", "a", "a"),
        ("nodes", "r;n:me r;n:other r;n:me,other", "a", "ac"),
        ("nothing for this node, no zones", "r;n:x r;n:y", "a", "ab"),
        ("nothing for this node, but for its zone", "r;n:x;z:a r;n:y;z:b", "a", "a"),
        ("nodes go before zones", "r;n:me;z:b r;n:other;z:a", "a", "a"),
        ("one without a node", "r;n:me;z:b r;z:a", "a", "b"),
        ("all terminating: the whole cluster, hints or not", "st;z:a st;z:b", "a", "ab"),
    ] {
        assert_eq!(outcome(text, CLUSTER, zone).0, cluster, "{about}");
    }
    // Lists of this node don't go by hints.
    assert_eq!(outcome("@r;z:b r;z:a", BOTH, "a"), ("b".into(), "a".into(), true));
    assert_eq!(outcome("@r;n:x r;n:me", BOTH, "a"), ("b".into(), "a".into(), true));
}

#[test]
fn e6_what_is_local() {
    let mut zones = Zones::default();
    for (node, local) in
        [("nodeName: me", true), ("nodeName: other", false), ("nodeName: null", false), ("zone: me", false)]
    {
        let yaml = format!(
            "{{metadata: {{labels: {{kubernetes.io/service-name: s}}}}, addressType: IPv4, endpoints: [{{addresses: [192.0.2.1], {node}}}]}}"
        );
        let object: EndpointSlice = serde_yaml_ng::from_str(&yaml).unwrap();
        let slice = Slice::parse(&"d/s".into(), &object, "me", &mut zones, &mut Vec::new()).unwrap();
        assert_eq!(slice.endpoints[0].flags.is_local(), local, "{node}");
    }
}
