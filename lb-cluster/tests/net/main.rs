//! Agents and owners over a network that loses, doubles, delays and reorders, while either is killed, cut off and
//! started again: in the end all counts are right, and on the way none is ever less than what is certain.

mod world;

use std::time::Duration;

use lb_cluster::{BackendKey, ServiceKey};
use proptest::prelude::*;
use world::{BACKENDS, Faults, NODES, OWNERS, SERVICES, World};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Clone, Debug)]
enum Event {
    Flow { node: usize, service: usize, backend: u64, open: bool },
    Herd { service: usize, connections: u64 },
    Wait(u64),
    Network(Faults),
    RestartAgent(usize),
    KillAgent(usize),
    KillNode(usize),
    RestartOwner(usize),
    KillOwner(usize),
    CutNode(usize),
    HealNode(usize),
    CutOwner(usize),
    HealOwner(usize),
    Aggregators(Vec<usize>),
}

fn event() -> impl Strategy<Value = Event> {
    let faults = (0u32..60, 0u32..40, 0u64..300);
    prop_oneof![
        8 => (0..NODES, 0..SERVICES.len(), 0..BACKENDS, prop::bool::weighted(0.6))
            .prop_map(|(node, service, backend, open)| Event::Flow { node, service, backend, open }),
        2 => (0..SERVICES.len(), 1u64..60).prop_map(|(service, connections)| Event::Herd { service, connections }),
        5 => (0u64..400).prop_map(Event::Wait),
        2 => (1_000u64..9_000).prop_map(Event::Wait),
        2 => faults.prop_map(|(lost, doubled, delay)| Event::Network(Faults { lost, doubled, delay })),
        1 => (0..NODES).prop_map(Event::RestartAgent),
        1 => (0..NODES).prop_map(Event::KillAgent),
        1 => (0..NODES).prop_map(Event::KillNode),
        1 => (0..OWNERS).prop_map(Event::RestartOwner),
        1 => (0..OWNERS).prop_map(Event::KillOwner),
        1 => (0..NODES).prop_map(Event::CutNode),
        1 => (0..NODES).prop_map(Event::HealNode),
        1 => (0..OWNERS).prop_map(Event::CutOwner),
        1 => (0..OWNERS).prop_map(Event::HealOwner),
        1 => prop::sample::subsequence((0..OWNERS).collect::<Vec<_>>(), 0..=OWNERS).prop_map(Event::Aggregators),
    ]
}

fn apply(world: &mut World, event: Event) {
    match event {
        Event::Flow { node, service, backend, open } => world.flow(node, SERVICES[service], backend, open),
        Event::Herd { service, connections } => {
            for i in 0..connections {
                world.flow(i as usize % NODES, SERVICES[service], i % BACKENDS, true);
                world.run(ms(1));
            }
        }
        Event::Wait(time) => world.run(ms(time)),
        Event::Network(faults) => world.faults = faults,
        Event::RestartAgent(node) => world.start_agent(node),
        Event::KillAgent(node) => world.kill_agent(node),
        Event::KillNode(node) => world.kill_node(node),
        Event::RestartOwner(owner) => world.start_owner(owner),
        Event::KillOwner(owner) => world.aggregators[owner].owner = None,
        Event::CutNode(node) => world.nodes[node].cut = world.nodes[node].cut.or(Some(world.now)),
        Event::HealNode(node) => world.nodes[node].cut = None,
        Event::CutOwner(owner) => world.aggregators[owner].cut = true,
        Event::HealOwner(owner) => world.aggregators[owner].cut = false,
        Event::Aggregators(chosen) => world.choose(chosen),
    }
}

/// What holds at any time.
fn check_always(world: &World) {
    for node in &world.nodes {
        let Some(agent) = &node.agent else { continue };
        for service in SERVICES {
            let Some(view) = agent.view(world.now, service) else { continue };
            assert_eq!(view.contradictions, 0, "node {} thinks that others have less than nothing", node.id);
            // A second after the last word, and one more if the owner is another just then.
            let cut_off = node.cut.is_some_and(|cut| world.now >= cut + ms(2_000));
            assert!(!(cut_off && view.shared), "node {} relies on somebody that it can't hear", node.id);
        }
    }
}

/// What holds when all is well again.
fn check_at_rest(world: &World) {
    for service in SERVICES {
        let truth = world.truth(service);
        let total = |backend| truth.get(&backend).copied().unwrap_or_default();
        let owner = world.owner(service).expect("there is an owner");
        assert_eq!(owner.totals(service).collect::<Vec<_>>(), truth.clone().into_iter().collect::<Vec<_>>());
        for (at, node) in world.nodes.iter().enumerate() {
            if !world.services(at).contains(&service) {
                continue;
            }
            let agent = node.agent.as_ref().expect("all agents are there");
            for backend in (0..BACKENDS).map(BackendKey) {
                let own = node.own.get(&(service, backend)).copied().unwrap_or_default();
                let others = agent.others(world.now, service, backend);
                assert_eq!(others, Some(total(backend) - u64::from(own)), "node {at}, backend {backend}");
            }
        }
    }
}

/// The network heals, and all start that are down.
fn mend(world: &mut World) {
    world.faults = Faults { delay: 5, ..Faults::default() };
    world.nodes.iter_mut().for_each(|node| node.cut = None);
    world.aggregators.iter_mut().for_each(|it| it.cut = false);
    for at in 0..OWNERS {
        if world.aggregators[at].owner.is_none() {
            world.start_owner(at);
        }
    }
    for at in 0..NODES {
        if world.nodes[at].agent.is_none() {
            world.start_agent(at);
        }
    }
    if world.chosen.is_empty() {
        world.choose((0..OWNERS).collect());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_is_lost_or_doubled_whatever_happens(seed: u64, events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new(seed);
        for event in events {
            apply(&mut world, event);
            check_always(&world);
        }
        mend(&mut world);
        // Nodes that are gone are forgotten after 15 s, totals are repeated every 30.
        world.run(ms(50_000));
        check_always(&world);
        check_at_rest(&world);
        // Not only by luck of the last moment: it goes on like this.
        for i in 0..40 {
            world.flow(i % NODES, SERVICES[i % 2], i as u64 % BACKENDS, i % 3 != 0);
            world.run(ms(7));
        }
        world.run(ms(500));
        check_at_rest(&world);
    }
}

/// A network without faults: who has opened something knows of all others within milliseconds.
#[test]
fn all_is_known_a_moment_after_it_happens() {
    let mut world = World::new(1);
    world.faults = Faults { delay: 2, ..Faults::default() };
    world.run(ms(2_000));
    for i in 0..50 {
        world.flow(i % NODES, SERVICES[0], i as u64 % BACKENDS, true);
        world.run(ms(20));
        if i > NODES {
            check_at_rest(&world);
        }
    }
}

#[test]
fn a_node_that_is_cut_off_counts_by_itself_and_then_with_all_again() {
    let mut world = World::new(2);
    world.faults = Faults { delay: 2, ..Faults::default() };
    let shared = |world: &World, node: usize, service: ServiceKey| {
        world.nodes[node].agent.as_ref().unwrap().view(world.now, service).unwrap().shared
    };
    for node in 0..NODES {
        world.flow(node, SERVICES[0], 0, true);
    }
    world.run(ms(2_000));
    assert!((0..NODES).all(|node| shared(&world, node, SERVICES[0])));
    world.nodes[1].cut = Some(world.now);
    world.run(ms(990));
    world.run(ms(20));
    assert!(!shared(&world, 1, SERVICES[0]) && shared(&world, 2, SERVICES[0]));
    // Its connections are kept for 5 s from its last word on, which is up to a second before the cut.
    let kept = |world: &World| {
        world.owner(SERVICES[0]).unwrap().totals(SERVICES[0]).map(|(_, open)| open).sum::<u64>()
    };
    world.run(ms(2_900));
    assert_eq!(kept(&world), 5);
    world.run(ms(1_400));
    assert_eq!(kept(&world), 4);
    world.nodes[1].cut = None;
    world.run(ms(1_000));
    assert!(shared(&world, 1, SERVICES[0]));
    check_at_rest(&world);
}
