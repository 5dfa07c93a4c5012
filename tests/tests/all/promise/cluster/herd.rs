//! Connections that come from everywhere at once.

use std::time::Duration;

use flowpin_tests::{
    cluster::{Setting, Via, World, relay::Delay},
    harness::{client::Conn, server::PLEASE_CLOSE},
};

/// Of a herd's connections, this long from the first to the last.
const SECOND: Duration = Duration::from_secs(1);

/// Each node has used the service: it listens to what others have.
fn warm(world: &World) {
    drop(world.herd(0..world.nodes.len(), Duration::ZERO));
    world.rest();
}

/// Nodes of so many connections, in an order that isn't theirs.
fn mixed(nodes: usize, connections: usize) -> impl ExactSizeIterator<Item = usize> {
    (0..connections).map(move |i| (i * 5 + i / nodes * 3) % nodes)
}

/// Most connections of a backend.
fn fullest(world: &World) -> usize {
    world.counts().into_iter().max().unwrap_or_default()
}

/// Forty connections in a second are ten for each of four, nearly always.
fn forty_in_a_second(via: Via, runs: usize) {
    let world = World::of(&Setting { via, ..Setting::new(8, &[1; 4]) });
    world.meet(8);
    warm(&world);
    let mut even = 0;
    for run in 0..runs {
        let conns = world.herd(mixed(8, 40), SECOND);
        let counts = world.counts();
        assert!(fullest(&world) <= 11, "run {run}: {counts:?}");
        even += usize::from(counts == [10; 4]);
        drop(conns);
        world.rest();
    }
    println!("{even} of {runs} runs were even");
    assert!(even * 100 >= runs * 95, "{even} of {runs} runs were even");
}

// Of 50, on two cores, 50 were even.
#[test]
fn forty_connections_in_a_second_are_ten_for_each_of_four() {
    forty_in_a_second(Via::Tcp, 20);
}

#[test]
fn forty_connections_in_a_second_by_way_of_nats() {
    forty_in_a_second(Via::Nats, 20);
}

#[test]
fn a_connection_from_each_node_never_meets_another() {
    for backends in [17, 33] {
        let world = World::new(8, &vec![1; backends]);
        world.meet(8);
        let conns = world.herd(0..8, Duration::ZERO);
        assert_eq!(fullest(&world), 1, "{:?}", world.counts());
        drop(conns);
    }
}

#[test]
fn one_node_with_half_of_all_and_weights() {
    let world = World::new(8, &[1, 2, 4]);
    world.meet(8);
    warm(&world);
    let half = (0..70).map(|i| if i % 2 == 0 { 0 } else { 1 + i / 2 % 7 });
    let conns = world.herd(half, SECOND * 2);
    let counts = world.counts();
    let fair = [10, 20, 40];
    assert!(counts.iter().zip(fair).all(|(count, fair)| *count <= fair + 1), "{counts:?}");
    drop(conns);
}

/// The most of a backend over its fair part, while backends restart one after another and clients come back.
fn rolling_restart(world: &World) -> usize {
    let mut conns = world.herd(mixed(8, 400), SECOND * 4);
    let mut most = 0;
    for backend in ["b0", "b1", "b2", "b3"] {
        let (gone, stay): (Vec<Conn>, Vec<Conn>) = conns.into_iter().partition(|it| it.backend == backend);
        conns = stay;
        let count = gone.len();
        for mut conn in gone {
            std::io::Write::write_all(&mut conn.stream, &[PLEASE_CLOSE]).expect("it is open");
        }
        conns.extend(world.herd(mixed(8, count), SECOND));
        most = most.max(fullest(world));
    }
    most - conns.len().div_ceil(4)
}

#[test]
fn backends_restart_one_after_another() {
    let world = World::new(8, &[1; 4]);
    world.meet(8);
    warm(&world);
    let together = rolling_restart(&world);
    drop(world);
    let alone = rolling_restart(&World::of(&Setting { via: Via::Nothing, ..Setting::new(8, &[1; 4]) }));
    println!("the fullest over its fair part: {together}, nodes by themselves {alone}");
    assert!(together <= 1 && together <= alone, "{together}, nodes by themselves {alone}");
}

#[test]
fn nobody_herds_where_what_is_told_takes_its_time() {
    let via = Via::Relay(Delay { one_way: Duration::from_millis(20), lost: 100 });
    let world = World::of(&Setting { via, ..Setting::new(8, &[1; 4]) });
    world.meet(8);
    warm(&world);
    let mut most = Vec::new();
    for _ in 0..10 {
        let conns = world.herd(mixed(8, 40), SECOND);
        most.push(fullest(&world));
        drop(conns);
        world.rest();
    }
    println!("most of a backend: {most:?}");
    // What is lost comes again after 200 ms, in which eight connections open: once in 40 runs or so a backend gets 13.
    let close = most.iter().filter(|most| **most <= 12).count();
    assert!(close >= 9 && most.iter().all(|most| *most <= 14), "{most:?}");
}
