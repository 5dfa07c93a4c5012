//! Promise: what others have on the node stays and goes on working beside Flowpin.

use std::time::Duration;

use aya::{
    EbpfLoader,
    programs::{SchedClassifier, TcAttachType},
};
use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    netfilter::load,
    paths::object,
    server::Server,
    topology::Family::V4,
};
use lb_common::abi::{limits, maps, programs};

/// A service of kube-proxy's: chains as it writes them, two backends by chance.
const KUBE: &str = "*nat\n\
    :KUBE-SERVICES - [0:0]\n:KUBE-SVC-OTHER - [0:0]\n:KUBE-SEP-ONE - [0:0]\n:KUBE-SEP-TWO - [0:0]\n\
    -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
    -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
    -A KUBE-SERVICES -d 10.96.0.99/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-OTHER\n\
    -A KUBE-SVC-OTHER -m statistic --mode random --probability 0.5 -j KUBE-SEP-ONE\n\
    -A KUBE-SVC-OTHER -j KUBE-SEP-TWO\n\
    -A KUBE-SEP-ONE -p tcp -m tcp -j DNAT --to-destination 10.2.0.2:80\n\
    -A KUBE-SEP-TWO -p tcp -m tcp -j DNAT --to-destination 10.2.1.2:80\n\
    COMMIT\n\
    *filter\n\
    :KUBE-FORWARD - [0:0]\n\
    -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
    -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    COMMIT\n";

/// Both kinds of services, from a client and from the node, and the others' counters say that they were at work.
fn beside_kube_proxy(how: &str) {
    let net = Net::new(2);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    // As every node has one; without, the node's own connections to a service end before any rule sees them.
    net.node.ip("route add default via 10.1.0.2");
    load(&net.node, V4, KUBE);
    let targets = [V4.backend(0), V4.backend(1)];
    let config = "[sockets]\nscope = \"host\"\n".to_string()
        + &interfaces(&[("c0", how), ("b*", how)])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &targets, "");
    let agent = Agent::start(&net.node, &config);
    for ns in [&net.client, &net.node] {
        ns.run(|| {
            // From ports of their own: by both ways from one port to one backend is more than nf_conntrack could tell
            // apart, which doesn't see ours where they go past the stack.
            let open = |first: u16, to: &str| -> Vec<Conn> {
                let from = |port| Conn::open_from(at("0.0.0.0", port), at(to, 80));
                (first..first + 20)
                    .map(|port| from(port).unwrap_or_else(|e| panic!("to {to}: {e}")))
                    .collect()
            };
            let mut ours = open(21_000, &V4.vip(0));
            let mut others = open(22_000, "10.96.0.99");
            ours.iter_mut().chain(&mut others).for_each(|c| c.exchange(100_000).expect("its own bytes"));
            assert_eq!(agent.active("app"), [10, 10], "and none of the others'");
        });
        eventually("closed connections don't count", Duration::from_secs(60), || match agent.active("app") {
            counts if counts == [0, 0] => Ok(()),
            counts => Err(format!("{counts:?}")),
        });
    }
    let rules = net.node.must("iptables -t nat -nvxL KUBE-SERVICES");
    let line = rules.lines().find(|l| l.contains("KUBE-SVC-OTHER")).expect("the rule");
    assert_eq!(line.split_whitespace().next(), Some("40"), "one look a connection: {rules}");
}

#[test]
fn rules_of_kube_proxy_by_tc() {
    beside_kube_proxy("tc");
}

#[test]
fn rules_of_kube_proxy_by_xdp() {
    beside_kube_proxy("xdp");
}

#[test]
fn rules_of_kube_proxy_past_the_stack() {
    beside_kube_proxy("fast");
}

/// Ids of the TCX programs where clients' packets come in.
fn there(net: &Net) -> Vec<u32> {
    let query = || SchedClassifier::query_tcx("c0", TcAttachType::Ingress).expect("TCX");
    net.node.run(|| query().1.iter().map(aya::programs::ProgramInfo::id).collect())
}

#[test]
fn a_filter_that_is_there_stays_where_it_is() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let mut loader = EbpfLoader::new();
    for name in maps::ALL {
        loader.map_max_entries(name, if name == maps::EVENTS { limits::EVENT_BYTES } else { 1 });
    }
    // A program that lets everything pass, and is nobody's that the agent knows.
    let mut strange = loader.load_file(object()).expect("object");
    let program: &mut SchedClassifier =
        strange.program_mut(programs::EGRESS).expect("a program").try_into().expect("TC");
    program.load().expect("loads");
    let id = program.info().expect("info").id();
    net.node.run(|| program.attach("c0", TcAttachType::Ingress).expect("attaches"));
    assert_eq!(there(&net), [id]);
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "");
    let mut agent = Agent::start(&net.node, &config);
    let both = there(&net);
    assert_eq!((both.len(), both.first()), (2, Some(&id)), "who came first looks first");
    let mut conn = net.client.run(|| Conn::open(at(&V4.vip(0), 80)).expect("answered"));
    conn.exchange(10_000).expect("its own bytes");
    agent.end(nix::sys::signal::Signal::SIGTERM);
    agent.spawn(&["--detach-on-exit"]);
    // Whoever is still loading programs is ended in the middle of it.
    eventually("the agent is ready", Duration::from_secs(120), || {
        let status = agent.cli(&["status"]);
        if status.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&status.stderr).into_owned())
        }
    });
    assert!(agent.end(nix::sys::signal::Signal::SIGTERM).success());
    assert_eq!(there(&net), [id]);
}

#[test]
fn an_xdp_program_that_is_there_stays_and_is_named() {
    let net = Net::new(1);
    let first = Agent::start(&net.node, &interfaces(&[("c0", "xdp")]));
    let text = net.node.ip("-j link show c0");
    let links: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let program = links[0]["xdp"]["prog"]["id"].as_u64().unwrap_or_else(|| panic!("no program: {text}"));
    // Another pin directory, another agent: for it the first one's program is a stranger's.
    let mut second = Agent::prepare(&net.backends[0], "");
    let config = std::fs::read_to_string(second.config()).expect("config").replace("9479", "9480");
    std::fs::write(second.config(), config + &interfaces(&[("c0", "xdp")])).expect("config");
    second.move_to(&net.node);
    second.spawn(&[]);
    second.answers();
    let status = second.json(&["status"]);
    let error = status["interfaces"][0]["error"].as_str().unwrap_or_else(|| panic!("{status}"));
    assert!(error.contains(&format!("another XDP program (id {program}")), "{error}");
    assert!(error.contains("remove it, or use attach = \"tc\""), "{error}");
    let links: serde_json::Value = serde_json::from_str(&net.node.ip("-j link show c0")).expect("JSON");
    assert_eq!(links[0]["xdp"]["prog"]["id"].as_u64(), Some(program), "the first one's stays");
    assert!(first.cli(&["status"]).status.success());
}
