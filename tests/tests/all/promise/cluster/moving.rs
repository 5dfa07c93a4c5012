//! Connections move to backends that were added.

use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use flowpin_tests::harness::{client::Conn, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    close_to,
    world::{LIMIT, Setting, World},
};

/// A minute in which nothing is moved since backends have changed, and one in which it is.
const PATIENCE: Duration = Duration::from_secs(150);

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

#[test]
fn idle_connections_get_to_backends_that_were_added() {
    let rebalance = "rebalance = { budget = \"100%/min\", idle = \"3s\", above = 1.1 }\n";
    let setting = |weights| Setting { service: rebalance, ..Setting::new(2, weights) };
    let world = World::of(&setting(&[1, 1, 0, 0]));
    world.meet(2);
    let mut idle: Vec<(usize, Conn)> = world.open_all(20).into_iter().enumerate().collect();
    // Two that are busy, with backends that have too many.
    let mut busy: Vec<Conn> = (0..2).map(|node| world.open(node)).collect();
    close_to(&world.counts(), &[11, 11, 0, 0]);
    for i in 0..2 {
        let agent = &world.nodes[i].agent;
        agent.write_config(&setting(&[1; 4]).config(world.certificates.path(), i));
        agent.signal(Signal::SIGHUP);
        eventually("backends are added", LIMIT, || {
            let view = agent.json(&["backend", "list", "app"]);
            if view[3]["weight"] == 1 { Ok(()) } else { Err(view.to_string()) }
        });
    }
    eventually("it keeps quiet", LIMIT, || stands(&world, 0, "quiet"));
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
    println!("moved after {moved:?}");
    // Nothing in the minute after the change, no more than needed, and all have their share.
    assert!(moved[0] >= Duration::from_secs(50), "{moved:?}");
    assert!(moved.len() <= 12, "{moved:?}");
    close_to(&world.counts(), &[6, 6, 5, 5]);
    let events = world.nodes.iter().map(|node| node.agent.done(&["events"])).collect::<String>();
    assert!(events.contains("idle connections moved"), "{events}");
}
