//! Promise: nodes that share their counts go by the connections of all of them; whoever can't be heard of counts by itself, and nobody's connections
//! are disturbed.

mod cut;
mod herd;
mod moving;
mod pooled;

use std::process::Stdio;

use flowpin_tests::{
    cluster::{LIMIT, Setting, World, keygen},
    harness::{client::Conn, eventually},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

fn talk(conns: &mut [Conn]) {
    conns.iter_mut().for_each(|conn| conn.exchange(1_000).expect("it goes on"));
}

/// What is told takes its time, for which a few connections that may be under way are added by chance: one more or less is none of a defect.
fn close_to(counts: &[usize], wanted: &[usize]) {
    let near = counts.iter().zip(wanted).all(|(count, wanted)| count.abs_diff(*wanted) <= 1);
    assert!(
        near && counts.iter().sum::<usize>() == wanted.iter().sum::<usize>(),
        "{counts:?}, not about {wanted:?}"
    );
}

#[test]
fn all_nodes_together_go_by_the_fewest() {
    let world = World::new(5, &[1; 4]);
    world.meet(5);
    let mut conns = world.open_all(40);
    close_to(&world.counts(), &[10; 4]);
    talk(&mut conns);
    // Each agent's own counts are exact whatever is shared.
    let own: u64 = world.nodes.iter().map(|node| node.agent.active("app").iter().sum::<u64>()).sum();
    assert_eq!(own, 40);
}

#[test]
fn what_another_node_has_decides() {
    let world = World::new(2, &[1; 4]);
    world.meet(2);
    let mut conns: Vec<Conn> = (0..20).map(|_| world.open(0)).collect();
    assert_eq!(world.counts(), [5; 4]);
    // With its first the other node begins to listen.
    conns.push(world.open(1));
    conns.retain(|conn| conn.backend != "b0" && conn.backend != "b1");
    for _ in 0..7 {
        world.knows(1, conns.len() as u64);
        conns.push(world.open(1));
    }
    // By itself it would have two with each. Where the machine is busy, some that may be under way are added by chance.
    let counts = world.counts();
    assert!(counts[0] + counts[1] >= 5, "{counts:?}");
}

#[test]
fn weights_hold_over_all_nodes() {
    let world = World::new(3, &[1, 2, 4]);
    world.meet(3);
    let conns = world.open_all(42);
    close_to(&world.counts(), &[6, 12, 24]);
    drop(conns);
}

#[test]
fn agents_are_killed_and_come_back() {
    let mut world = World::new(3, &[1, 1, 1]);
    world.meet(3);
    let mut conns = world.open_all(18);
    close_to(&world.counts(), &[6; 3]);
    let view = world.nodes[0].agent.json(&["cluster"]);
    let owner = view["services"][0]["owner"].as_str().expect("an owner").to_string();
    let owner = (0..3).find(|i| owner == format!("node-{i}")).expect("one of them");
    for dead in [owner, (owner + 1) % 3] {
        world.nodes[dead].agent.end(Signal::SIGKILL);
        // Nothing in the kernel waits for anybody.
        talk(&mut conns);
        conns.push(world.open(dead));
        conns.push(world.open((dead + 1) % 3));
        world.nodes[dead].agent.up();
        for node in 0..3 {
            world.knows(node, conns.len() as u64);
        }
    }
    talk(&mut conns);
    let before = conns.len();
    for i in 0..6 {
        world.knows(i % 3, conns.len() as u64);
        conns.push(world.open(i % 3));
    }
    let counts = world.counts();
    assert_eq!(counts.iter().sum::<usize>(), before + 6);
    assert!(counts.iter().max() <= counts.iter().min().map(|it| it + 2).as_ref(), "{counts:?}");
}

#[test]
fn who_has_another_authority_s_certificate_is_refused() {
    let mut world = World::new(3, &[1, 1]);
    world.meet(3);
    let other = TempDir::new().expect("a directory");
    keygen(other.path(), 3);
    let stranger = &mut world.nodes[2].agent;
    stranger.end(Signal::SIGTERM);
    stranger.write_config(&Setting::new(3, &[1, 1]).config(other.path(), 2));
    stranger.up();
    eventually("it is refused", LIMIT, || {
        let view = world.nodes[0].agent.json(&["cluster"]);
        let members = view["members"].as_array().map_or(0, Vec::len);
        let refused = view["refused"]["certificate"].as_u64().unwrap_or(0)
            + view["refused"]["handshake"].as_u64().unwrap_or(0);
        if members == 2 && refused > 0 { Ok(()) } else { Err(view.to_string()) }
    });
    // It counts by itself, and nobody counts its connections.
    let mut conns: Vec<Conn> = (0..4).map(|_| world.open(2)).collect();
    assert_eq!(world.counts(), [2, 2]);
    conns.push(world.open(0));
    conns.push(world.open(1));
    for node in [0, 1] {
        world.knows(node, 2);
    }
    let alone = world.nodes[2].agent.json(&["cluster"]);
    assert_eq!(alone["members"].as_array().map(Vec::len), Some(1), "{alone}");
    talk(&mut conns);
}

#[test]
fn a_backend_drains_at_all_nodes() {
    let world = World::new(3, &[1, 1, 1]);
    world.meet(3);
    let mut conns = world.open_all(18);
    let drain = ["backend", "drain", "app", "10.3.0.100", "--cluster", "--wait"];
    let mut waiting = world.nodes[0].agent.spawn_cli(&drain, Stdio::piped());
    for node in &world.nodes {
        eventually("it drains at all nodes", LIMIT, || {
            let view = node.agent.json(&["backend", "list", "app"]);
            // Drained where it had none.
            if view[0]["state"] != "active" { Ok(()) } else { Err(view.to_string()) }
        });
    }
    let there = world.counts()[0];
    conns.extend((0..6).map(|i| world.open(i % 3)));
    assert_eq!(world.counts()[0], there, "nobody new");
    talk(&mut conns);
    assert!(waiting.try_wait().expect("it runs").is_none(), "connections are left");
    conns.retain(|conn| conn.backend != "b0");
    let ended = waiting.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("0 connections left over all nodes"), "{said}");
    assert!((0..3).all(|i| said.contains(&format!("node-{i}"))), "{said}");
    world.nodes[1].agent.done(&["backend", "undrain", "app", "10.3.0.100", "--cluster"]);
    for node in 0..3 {
        world.knows(node, conns.len() as u64);
        conns.push(world.open(node));
    }
    assert_eq!(world.counts()[0], 3, "they go there again");
    talk(&mut conns);
}
