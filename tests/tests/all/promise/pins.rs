//! Promise: pins that are removed under a running agent are back within five seconds, and no connection is cut.

use std::{
    collections::BTreeSet,
    fs::remove_file,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};
use nix::sys::signal::Signal;

/// What is promised.
const WITHIN: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(60);
const OPEN: usize = 20;

/// Names of all files below.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        found.extend(if path.is_dir() { files(&path) } else { [path].into() });
    }
    found
}

fn removed(hook: &str) {
    let net = Net::new(2);
    let _servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let config = interfaces(&[("c0", hook), ("b*", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0), V4.backend(1)], "");
    let mut agent = Agent::start(&net.node, &config);
    let open = || Conn::open(at(&V4.vip(0), 80)).expect("answered");
    let mut conns: Vec<Conn> = net.client.run(|| (0..OPEN).map(|_| open()).collect());
    let pins = agent.pins().to_path_buf();
    let before = files(&pins);
    assert!(before.len() > 20, "{before:?}");
    let all = |dir: &str| files(&pins.join(dir)).into_iter().collect::<Vec<_>>();
    let cases: [(&str, Vec<PathBuf>); 5] = [
        ("a map", vec![pins.join("maps/BACKENDS")]),
        ("all maps", all("maps")),
        ("a link", all("links")[..1].into()),
        ("all links", all("links")),
        ("arrays of programs", all("programs")),
    ];
    let mut comes_back = |what: &str, remove: &dyn Fn()| {
        let logged = agent.log().matches("put").count();
        let began = Instant::now();
        remove();
        eventually(what, LIMIT, || {
            let lost: Vec<PathBuf> = before.difference(&files(&pins)).cloned().collect();
            if lost.is_empty() { Ok(()) } else { Err(format!("{lost:?} are missing\n{}", agent.log())) }
        });
        let took = began.elapsed();
        println!("{hook}, {what}: back after {took:?}");
        assert!(took <= WITHIN, "{hook}, {what}: {took:?}");
        // It is said once it is done.
        eventually("it is said", LIMIT, || {
            let said = agent.log().matches("put").count() > logged;
            if said { Ok(()) } else { Err(format!("{what}: nothing is said\n{}", agent.log())) }
        });
        conns.iter_mut().for_each(|conn| conn.exchange(100).expect(what));
        drop(net.client.run(open));
        // What is about to end when the programs are gone says so to nobody, and would count until its time is over.
        eventually("the new one is over", LIMIT, || match agent.active("app").iter().sum::<u64>() {
            count if count == OPEN as u64 => Ok(()),
            count => Err(count.to_string()),
        });
    };
    for (what, gone) in cases {
        assert!(!gone.is_empty(), "{what}");
        comes_back(what, &|| gone.iter().for_each(|pin| remove_file(pin).expect("it was there")));
    }
    comes_back("everything", &|| std::fs::remove_dir_all(&pins).expect("it was there"));
    let status = agent.json(&["status"]);
    assert_eq!((&status["state"], &status["accounting_drift"]), (&"ok".into(), &0.into()), "{status}");
    // The next agent takes over what was put back, and nobody else could have.
    agent.end(Signal::SIGKILL);
    agent.up();
    conns.iter_mut().for_each(|conn| conn.exchange(100).expect("after the next start"));
    assert_eq!(agent.active("app").iter().sum::<u64>(), OPEN as u64);
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn removed_pins_are_put_back_by_tc() {
    removed("tc");
}

#[test]
fn removed_pins_are_put_back_by_xdp() {
    removed("xdp");
}
