//! Connections move to backends that were added.

use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use flowpin_tests::{
    cluster::{LIMIT, Setting, World},
    harness::{
        client::Conn,
        eventually,
        grpc::Grpc,
        program::{Program, postgres},
    },
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::pooled::Pooled;

/// A minute in which nothing is moved since backends have changed, and one in which half of all are.
const PATIENCE: Duration = Duration::from_secs(200);
/// In which a budget holds.
const MINUTE: Duration = Duration::from_secs(60);

/// Has the other end reset it?
fn is_reset(conn: &mut Conn) -> bool {
    conn.stream.set_nonblocking(true).expect("a socket's option");
    let read = conn.stream.read(&mut [0]);
    conn.stream.set_nonblocking(false).expect("a socket's option");
    match read {
        Err(e) => e.kind() != ErrorKind::WouldBlock,
        Ok(_) => true,
    }
}

/// Does rebalancing stand so, as a node says? What others have may not be known for a moment.
fn stands(world: &World, node: usize, state: &str) -> Result<(), String> {
    let said = world.nodes[node].agent.cli(&["rebalance", "app", "--dry-run", "-o", "json"]);
    let view: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    let why = || format!("{:?} {view} {}", world.counts(), String::from_utf8_lossy(&said.stderr));
    if view["state"] == state { Ok(()) } else { Err(why()) }
}

/// Plain connections, of which two are busy, those of a pool and gRPC channels.
const CONNECTIONS: [usize; 3] = [360, 24, 16];

#[test]
fn idle_connections_get_to_backends_that_were_added() {
    let rebalance = "rebalance = { budget = \"50%/min\", idle = \"3s\", above = 1.1 }\n";
    let ports = "\"80/tcp\", \"5432/tcp\", \"50051/tcp\"";
    let setting = |weights| Setting { service: rebalance, ports, ..Setting::new(2, weights) };
    let world = World::of(&setting(&[1, 1, 1, 1, 0, 0, 0, 0]));
    let _databases: Vec<Program> = world.backends.iter().map(postgres).collect();
    let _servers: Vec<Grpc> = world.backends.iter().map(|ns| Grpc::start(ns, 50051)).collect();
    world.meet(2);
    let [plain, pooled, channels] = CONNECTIONS;
    let all = CONNECTIONS.iter().sum::<usize>();
    let herd = world.herd((0..plain - 2).map(|i| i % 2), Duration::from_secs(4));
    let mut idle: Vec<(usize, Conn)> = herd.into_iter().enumerate().collect();
    // With backends that have too many.
    let mut busy: Vec<Conn> = (0..2).map(|node| world.open(node)).collect();
    let clients = Pooled::start(&world.nodes[1].client, pooled, channels);
    (0..2).for_each(|node| world.knows(node, all as u64));
    let active = || -> Vec<u64> {
        let of_nodes = world.nodes.iter().map(|node| node.agent.active("app"));
        let add = |all: Vec<u64>, one: Vec<u64>| all.iter().zip(one).map(|(all, one)| all + one).collect();
        of_nodes.reduce(add).expect("nodes")
    };
    let before: Vec<u64> = active();
    for i in 0..2 {
        let agent = &world.nodes[i].agent;
        agent.write_config(&setting(&[1; 8]).config(world.certificates.path(), i));
        agent.signal(Signal::SIGHUP);
        eventually("backends are added", LIMIT, || {
            let view = agent.json(&["backend", "list", "app"]);
            if view[7]["weight"] == 1 { Ok(()) } else { Err(view.to_string()) }
        });
    }
    eventually("it keeps quiet", LIMIT, || stands(&world, 0, "quiet"));
    // What is without rebalancing: the new ones have nothing, for as long as nobody opens a connection.
    assert_eq!((&before[4..], &active()[4..]), (&[0; 4][..], &[0; 4][..]));
    let start = Instant::now();
    let mut moved = Vec::new();
    eventually("connections move", PATIENCE, || {
        for (node, conn) in &mut idle {
            if is_reset(conn) {
                moved.push(start.elapsed());
                *conn = world.open(*node % 2);
            }
        }
        for conn in &mut busy {
            conn.stream.write_all(b"12345678").expect("nobody busy is cut");
            conn.stream.read_exact(&mut [0; 8]).expect("nobody busy is cut");
        }
        stands(&world, 1, "even")
    });
    // Those that were moved last have come back.
    world.knows(0, all as u64);
    let counts = active();
    let answered = clients.end();
    println!(
        "plain ones moved after {:?} to {:?}, {}; {answered} requests answered; {counts:?}",
        moved.first(),
        moved.last(),
        moved.len()
    );
    // Nothing in the minute after the change, no more than needed, and all have their share.
    assert!(moved[0] >= Duration::from_secs(50), "{moved:?}");
    let half = all / 2;
    assert!(moved.len() <= half, "{}", moved.len());
    let minute = |from: &Duration| moved.iter().filter(|at| (*from..*from + MINUTE).contains(*at)).count();
    assert!(moved.iter().all(|from| minute(from) <= half), "the budget is that of a minute: {moved:?}");
    let fair = all as u64 / 8;
    assert!(counts.iter().all(|count| count.abs_diff(fair) <= fair / 10), "{counts:?}");
    // Ten rounds or so in the quiet minute, and as many while they move.
    assert!(answered >= 16 * (pooled + channels), "{answered} requests");
    let events = world.nodes.iter().map(|node| node.agent.done(&["events"])).collect::<String>();
    assert!(events.contains("idle connections moved"), "{events}");
}
