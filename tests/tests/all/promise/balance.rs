//! Promise: open connections differ by at most one between equal backends, weights are kept, and nobody is favoured.

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    server::Server,
    topology::Family,
};

const V4: Family = Family::V4;

fn setup(backends: usize, more: &str) -> (Net, Vec<Server>, Agent) {
    let net = Net::new(backends);
    let servers =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let targets: Vec<String> = (0..backends).map(|i| V4.backend(i)).collect();
    let config =
        interfaces(&[("c0", "tc"), ("b*", "tc")]) + &service("app", &V4.vip(0), "\"80/tcp\"", &targets, more);
    let agent = Agent::start(&net.node, &config);
    (net, servers, agent)
}

fn spread(counts: &[u64]) -> u64 {
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

#[test]
fn a_thousand_one_after_the_other() {
    let (net, servers, agent) = setup(4, "");
    net.client.run(|| {
        let conns: Vec<Conn> = (0..1000).map(|_| Conn::open(at(&V4.vip(0), 80)).unwrap()).collect();
        let counts = agent.active("app");
        assert_eq!(counts.iter().sum::<u64>(), 1000);
        assert!(spread(&counts) <= 1, "{counts:?}");
        let open: Vec<u64> = servers.iter().map(|s| s.open() as u64).collect();
        assert_eq!(counts, open, "the backends' own sockets say otherwise");
        drop(conns);
    });
}

#[test]
fn sixty_four_clients_at_once() {
    let (net, _servers, agent) = setup(4, "");
    net.client.run(|| {
        let client = &net.client;
        let conns: Vec<Vec<Conn>> = std::thread::scope(|scope| {
            let open = || client.run(|| (0..10).map(|_| Conn::open(at(&V4.vip(0), 80)).unwrap()).collect());
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let counts = agent.active("app");
        assert_eq!(counts.iter().sum::<u64>(), 640);
        assert!(spread(&counts) <= 3, "{counts:?}");
        drop(conns);
    });
}

#[test]
fn weights_within_two_percent() {
    let net = Net::new(3);
    let servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let agent = Agent::start(&net.node, &interfaces(&[("c0", "tc"), ("b*", "tc")]));
    agent.done(&["service", "add", "app", "--vip", &V4.vip(0), "--port", "80/tcp"]);
    for (i, weight) in ["1", "2", "3"].iter().enumerate() {
        agent.done(&["backend", "add", "app", &V4.backend(i), "--weight", weight]);
    }
    net.client.run(|| {
        let conns: Vec<Conn> = (0..600).map(|_| Conn::open(at(&V4.vip(0), 80)).unwrap()).collect();
        for (server, wanted) in servers.iter().zip([100.0, 200.0, 300.0]) {
            let share = server.open() as f64 / wanted;
            assert!((0.98..=1.02).contains(&share), "{} connections where {wanted} belong", server.open());
        }
        drop(conns);
    });
}

#[test]
fn two_connections_five_backends_two_hundred_times() {
    let (net, _servers, agent) = setup(5, "");
    let mut first = [0u32; 5];
    net.client.run(|| {
        for trial in 0..200 {
            let a = Conn::open(at(&V4.vip(0), 80)).unwrap();
            let b = Conn::open(at(&V4.vip(0), 80)).unwrap();
            assert_ne!(a.backend, b.backend, "trial {trial}");
            first[a.backend[1..].parse::<usize>().unwrap()] += 1;
            a.reset().unwrap();
            b.reset().unwrap();
            // The next trial starts from nothing open: the resets have passed the node when it says so.
            flowpin_tests::harness::eventually("all closed", std::time::Duration::from_secs(60), || {
                let open: u64 = agent.active("app").iter().sum();
                if open == 0 { Ok(()) } else { Err(format!("{open} open")) }
            });
        }
    });
    let chi2: f64 = first.iter().map(|n| (f64::from(*n) - 40.0).powi(2) / 40.0).sum();
    assert!(
        chi2 < 18.5,
        "{first:?}: chi-square {chi2:.1}; beyond 18.5 is a chance of 1 in 1000 for 4 degrees of freedom"
    );
}

#[test]
fn limits_are_kept_under_a_rush() {
    let net = Net::new(4);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let agent = Agent::start(&net.node, &interfaces(&[("c0", "tc"), ("b*", "tc")]));
    agent.done(&["service", "add", "app", "--vip", &V4.vip(0), "--port", "80/tcp"]);
    for i in 0..4 {
        agent.done(&["backend", "add", "app", &V4.backend(i), "--max-connections", "25"]);
    }
    let client = &net.client;
    let (open, refused): (Vec<Conn>, usize) = std::thread::scope(|scope| {
        let rush = || client.run(|| (0..20).map(|_| Conn::open(at(&V4.vip(0), 80))).collect::<Vec<_>>());
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(rush)).collect();
        let results: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        let refused = results.iter().filter(|r| r.is_err()).count();
        for error in results.iter().filter_map(|r| r.as_ref().err()) {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionRefused,
                "refused at once, not left waiting"
            );
        }
        (results.into_iter().flatten().collect(), refused)
    });
    assert_eq!((open.len(), refused), (100, 100));
    assert_eq!(agent.active("app"), [25; 4]);
    assert_eq!(agent.json(&["stats"])["drops"]["backends_full"], 100);
}

/// Use case 2.
#[test]
fn after_a_scale_out_new_connections_go_to_the_new_ones_until_all_are_equal() {
    let net = Net::new(8);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let targets: Vec<String> = (0..4).map(|i| V4.backend(i)).collect();
    let config =
        interfaces(&[("c0", "tc"), ("b*", "tc")]) + &service("app", &V4.vip(0), "\"80/tcp\"", &targets, "");
    let agent = Agent::start(&net.node, &config);
    let open = |n: usize| -> Vec<Conn> {
        net.client.run(|| (0..n).map(|_| Conn::open(at(&V4.vip(0), 80)).unwrap()).collect())
    };
    let mut before = open(400);
    assert_eq!(agent.active("app"), [100; 4]);
    (4..8).for_each(|i| drop(agent.done(&["backend", "add", "app", &V4.backend(i)])));
    let catching_up = open(400);
    let old = ["b0", "b1", "b2", "b3"];
    assert!(
        catching_up.iter().all(|c| !old.contains(&c.backend.as_str())),
        "an old one got a new connection"
    );
    assert_eq!(agent.active("app"), [100; 8]);
    let after = open(80);
    assert_eq!(agent.active("app"), [110; 8]);
    before.iter_mut().for_each(|conn| conn.exchange(100).expect("nothing has moved"));
    drop(after);
}

#[test]
fn in_turn_and_by_lot_whatever_is_open() {
    let net = Net::new(3);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let agent = Agent::start(&net.node, &interfaces(&[("c0", "tc"), ("b*", "tc")]));
    let service = ["service", "add", "app", "--vip", &V4.vip(0), "--port", "80/tcp"];
    agent.done(&[&service[..], &["--algorithm", "round-robin"]].concat());
    for (i, weight) in ["1", "2", "3"].iter().enumerate() {
        agent.done(&["backend", "add", "app", &V4.backend(i), "--weight", weight]);
    }
    net.client.run(|| {
        let open = |n| (0..n).map(|_| Conn::open(at(&V4.vip(0), 80)).unwrap()).collect::<Vec<_>>();
        let of = |conns: &[Conn], b: &str| conns.iter().filter(|conn| conn.backend == b).count();
        let conns = open(60);
        assert_eq!([of(&conns, "b0"), of(&conns, "b1"), of(&conns, "b2")], [10, 20, 30]);
        // Least-connections would make up for these: turns don't.
        conns.into_iter().filter(|conn| conn.backend == "b2").for_each(|conn| conn.reset().unwrap());
        let conns = open(30);
        assert_eq!([of(&conns, "b0"), of(&conns, "b1"), of(&conns, "b2")], [5, 10, 15]);
        agent.done(&["service", "set", "app", "--algorithm", "weighted-random"]);
        let conns = open(300);
        let counts = [of(&conns, "b0"), of(&conns, "b1"), of(&conns, "b2")];
        // Five standard deviations.
        for (count, mean) in counts.into_iter().zip([50usize, 100, 150]) {
            assert!(count.abs_diff(mean) <= 44, "{counts:?}");
        }
        let explained = agent.done(&["explain", "10.9.9.9:4000", &format!("{}:80", V4.vip(0))]);
        assert!(explained.contains("by lot"), "{explained}");
    });
}
