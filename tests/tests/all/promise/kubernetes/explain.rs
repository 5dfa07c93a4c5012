//! Promise: `flowpin explain` says what of a Service decided.

use flowpin_tests::harness::{eventually, topology::Family::V4};
use serde_json::Value;

use super::{LIMIT, NODE, World, app};

#[test]
fn it_says_which_policies_hints_and_conditions_decided() {
    let world = World::new();
    let explain = |vip: &str| world.agent.json(&["explain", "10.1.0.2", vip]);
    let wait = |what: &str, vip: &str, wanted: &dyn Fn(&Value) -> bool| {
        eventually(what, LIMIT, || {
            Some(explain(vip)).filter(|said| wanted(said)).ok_or(explain(vip).to_string())
        })
    };
    let cluster = format!("{}:80", V4.vip(0));
    let said = explain(&cluster);
    let known = &said["kubernetes"];
    assert_eq!((&known["service"], &known["port"]), (&"d/a".into(), &"http".into()), "{said}");
    assert_eq!(known["policy"], "internalTrafficPolicy is Cluster: endpoints of all nodes", "{said}");
    assert_eq!(known["endpoints"][0]["why"], "ready", "{said}");
    // By hints: the one in the node's zone.
    let hinted = |i: usize, zone: &str| {
        format!("{{addresses: [{}], hints: {{forZones: [{{name: {zone}}}]}}}}", V4.backend(i))
    };
    let both = format!("endpoints: [{}, {}]", hinted(0, "a"), hinted(1, "b"));
    let plain = app("a", 0, &[], "");
    world.api.apply(&NODE.replace("name: me", "name: me, labels: {topology.kubernetes.io/zone: b}"));
    world.api.apply(&plain.replace("endpoints: []", &both));
    let said =
        wait("hints", &cluster, &|said| said["kubernetes"]["zone"] == "b" && said["backend"] != Value::Null);
    assert_eq!(said["kubernetes"]["hints"], "followed: endpoints that are for zone \"b\"", "{said}");
    world.served_by(0, &["b1"]);
    assert_eq!(explain(&cluster)["backend"], format!("{}:80", V4.backend(1)));
    // By policy: none of this node is to be had. The client's interface is a pod's, so its node port leads to all.
    let local = "type: NodePort, internalTrafficPolicy: Local, externalTrafficPolicy: Local";
    world.api.apply(&plain.replace("endpoints: []", &both).replace("type: NodePort", local));
    let dropped =
        "internalTrafficPolicy is Local, and no endpoint of this node can take a client: clients are dropped";
    let said = wait("the policy", &cluster, &|said| said["kubernetes"]["policy"] == dropped);
    let endpoint = &said["kubernetes"]["endpoints"][1];
    assert_eq!((&said["backend"], &endpoint["why"]), (&Value::Null, &"on another node".into()), "{said}");
    let said = explain("10.1.0.1:30080");
    let policy = "externalTrafficPolicy is Local, but the client is a pod or process of this node: endpoints of all nodes";
    assert_eq!(
        (&said["kubernetes"]["policy"], &said["kubernetes"]["frontend"]),
        (&policy.into(), &"node port".into())
    );
    assert_eq!(said["backend"], format!("{}:80", V4.backend(1)), "{said}");
    // By conditions: the last resort, and what only keeps its connections.
    let ends = |i: usize, serving: bool| {
        let conditions = format!("ready: false, serving: {serving}, terminating: true");
        format!("{{addresses: [{}], conditions: {{{conditions}}}}}", V4.backend(i))
    };
    let both = format!("endpoints: [{}, {}]", ends(0, true), ends(1, false));
    world.api.apply(&plain.replace("endpoints: []", &both));
    let last = "terminating, but none is ready, and it still serves";
    let said = wait("conditions", &cluster, &|said| said["kubernetes"]["endpoints"][0]["why"] == last);
    let gone = "terminating, and no longer serving";
    assert_eq!(said["kubernetes"]["endpoints"][1]["why"], gone, "{said}");
    world.served_by(0, &["b0"]);
    let candidates = explain(&cluster)["candidates"].clone();
    let of = candidates.as_array().unwrap().iter().find(|c| c["backend"] == format!("{}:80", V4.backend(1)));
    assert_eq!(of.map(|c| &c["note"]), Some(&gone.into()), "{candidates}");
    // A service of the file's is no cluster's.
    assert_eq!(explain(&format!("{}:80", V4.vip(7))).get("kubernetes"), None);
}
