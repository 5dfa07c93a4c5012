//! What ends, or can't be reached, and comes back.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use flowpin_tests::{
    cluster::{LIMIT, Setting, World},
    harness::{client::Conn, eventually},
};
use nix::sys::signal::Signal;

use super::talk;

/// How long nodes don't hear of each other.
const CUT: Duration = Duration::from_secs(30);

/// Packets of the mesh are dropped at all nodes, or are let through again.
fn cut(world: &World, cut: bool) {
    let what = if cut { "-I" } else { "-D" };
    for node in &world.nodes {
        node.ns.must(&format!("iptables {what} OUTPUT -p tcp --dport 7473 -j DROP"));
    }
}

/// Waits until every node counts by itself.
fn isolated(world: &World) {
    for node in &world.nodes {
        eventually("the node counts by itself", LIMIT, || {
            let view = node.agent.json(&["cluster"]);
            if view["services"][0]["shared"] == false { Ok(()) } else { Err(view.to_string()) }
        });
    }
}

#[test]
fn nodes_that_do_not_hear_of_each_other_for_half_a_minute() {
    let weights = |new| [1, 1, 1, 1, new];
    let world = World::new(4, &weights(0));
    world.meet(4);
    let mut conns = world.open_all(40);
    cut(&world, true);
    let start = Instant::now();
    isolated(&world);
    // A backend is added meanwhile.
    for i in 0..4 {
        let config = Setting::new(4, &weights(1)).config(world.certificates.path(), i);
        world.nodes[i].agent.write_config(&config);
        world.nodes[i].agent.signal(Signal::SIGHUP);
        eventually("it takes connections", LIMIT, || {
            let view = world.nodes[i].agent.json(&["backend", "list", "app"]);
            if view[4]["weight"] == 1 { Ok(()) } else { Err(view.to_string()) }
        });
    }
    conns.extend(world.herd((0..60).map(|i| i % 4), CUT.saturating_sub(start.elapsed())));
    // Each has ten of the old ones and fifteen new ones: by itself it gives the new backend a fifth of all.
    let counts = world.counts();
    assert!(counts[4] <= 20 + 4, "{counts:?}");
    cut(&world, false);
    let healed = Instant::now();
    (0..4).for_each(|node| world.knows(node, 100));
    println!("all is known {:?} after the cut", healed.elapsed());
    // What comes now goes where the fewest are.
    for i in 0..8 {
        world.knows(i % 4, conns.len() as u64);
        conns.push(world.open(i % 4));
    }
    let counts = world.counts();
    assert!(counts.iter().max() <= counts.iter().min().map(|it| it + 4).as_ref(), "{counts:?}");
    talk(&mut conns);
}

/// What is killed, one after the other.
const KILLS: usize = 50;

#[test]
fn agents_and_nodes_end_under_churn() {
    let mut world = World::new(4, &[1; 3]);
    world.meet(4);
    let mut conns = world.open_all(24);
    for kill in 0..KILLS {
        let owner = world.nodes[kill % 4].agent.json(&["cluster"])["services"][0]["owner"].clone();
        let owner = (0..4).find(|i| owner == format!("node-{i}")).expect("an owner");
        // The owner, another's agent, or a whole node.
        let dead = if kill % 3 == 0 { owner } else { (owner + 1 + kill % 2) % 4 };
        let node_dies = kill % 3 == 2;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for node in (0..4).filter(|node| *node != dead) {
                let (world, over) = (&world, &over);
                scope.spawn(move || {
                    while !over.load(Relaxed) {
                        drop((0..3).map(|_| world.open(node)).collect::<Vec<Conn>>());
                    }
                });
            }
            let node = &world.nodes[dead];
            if node_dies {
                node.ns.ip("link set eth0 down");
            }
            node.agent.signal(Signal::SIGKILL);
            for node in (0..4).filter(|node| node_dies && *node != dead) {
                eventually("the node is forgotten", LIMIT, || {
                    let view = world.nodes[node].agent.json(&["cluster"]);
                    let members = view["members"].as_array().map_or(0, Vec::len);
                    if members == 3 { Ok(()) } else { Err(view.to_string()) }
                });
            }
            over.store(true, Relaxed);
        });
        if node_dies {
            // Its connections are nobody's any more.
            (0..4).filter(|node| *node != dead).for_each(|node| world.knows(node, 18));
            world.nodes[dead].ns.ip("link set eth0 up");
        }
        let agent = &mut world.nodes[dead].agent;
        agent.end(Signal::SIGKILL);
        agent.up();
        // Nothing is lost and nothing counts twice: all nodes' connections are what all nodes say.
        (0..4).for_each(|node| world.knows(node, 24));
        let own: u64 = world.nodes.iter().map(|node| node.agent.active("app").iter().sum::<u64>()).sum();
        assert_eq!((own, conns.len()), (24, 24));
        talk(&mut conns);
    }
}
