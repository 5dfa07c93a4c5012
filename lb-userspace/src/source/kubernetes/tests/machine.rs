//! Random sequences of events of objects: out of order, said twice, listed anew, broken off in the middle of a list.
//! What comes out is what a plain reading of Kubernetes' rules makes of the objects that are there.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::super::{Event, Options, State, objects};
use crate::model::AdminState;

/// Sequences.
const SEQUENCES: u64 = 100_000;
/// Events of one.
const EVENTS: usize = 12;

const SERVICES: usize = 2;
const SLICES: usize = 3;

/// An endpoint, its conditions and hints as the API has them: nothing, no, yes.
#[derive(Clone, Debug, PartialEq)]
struct End {
    number: u8,
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
    here: bool,
    zones: Vec<&'static str>,
    nodes: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sliced {
    service: usize,
    port: i32,
    ends: Vec<End>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Served {
    internal_local: bool,
    external: bool,
    external_local: bool,
}

/// What the API server has.
#[derive(Clone, Debug, Default, PartialEq)]
struct Server {
    services: BTreeMap<usize, Served>,
    slices: BTreeMap<usize, Sliced>,
    zone: Option<&'static str>,
}

fn service(number: usize, served: Served) -> objects::Service {
    let mut object = objects::Service::default();
    object.metadata.namespace = "d".into();
    object.metadata.name = format!("s{number}");
    object.spec.kind = if served.external { "NodePort" } else { "ClusterIP" }.into();
    object.spec.cluster_ip = format!("10.96.0.{number}");
    let node_port = if served.external { 30_000 + i32::try_from(number).unwrap() } else { 0 };
    object.spec.ports = vec![objects::ServicePort { port: 80, node_port, ..Default::default() }];
    let policy = |local: bool| if local { "Local" } else { "Cluster" }.to_string();
    object.spec.internal_traffic_policy = policy(served.internal_local);
    object.spec.external_traffic_policy = policy(served.external_local);
    object
}

fn slice(number: usize, sliced: &Sliced) -> objects::EndpointSlice {
    let mut object = objects::EndpointSlice { address_type: "IPv4".into(), ..Default::default() };
    object.metadata.namespace = "d".into();
    object.metadata.name = format!("slice{number}");
    object.metadata.labels.service = format!("s{}", sliced.service);
    object.ports = vec![objects::EndpointPort {
        name: Some(String::new()),
        port: Some(sliced.port),
        ..Default::default()
    }];
    let names = |names: &[&str]| names.iter().map(|name| objects::Name { name: (*name).into() }).collect();
    let end = |end: &End| objects::Endpoint {
        addresses: vec![format!("10.1.0.{}", end.number)],
        conditions: objects::Conditions {
            ready: end.ready,
            serving: end.serving,
            terminating: end.terminating,
        },
        node_name: end.here.then(|| "me".into()),
        hints: objects::Hints { for_zones: names(&end.zones), for_nodes: names(&end.nodes) },
    };
    object.endpoints = sliced.ends.iter().map(end).collect();
    object
}

fn node(zone: Option<&str>) -> objects::Node {
    let mut object = objects::Node::default();
    object.metadata.name = "me".into();
    object.metadata.labels.zone = zone.unwrap_or_default().into();
    object
}

fn random_slice(rng: &mut SmallRng) -> Sliced {
    let maybe = |rng: &mut SmallRng| [None, Some(true), Some(false)][rng.random_range(0..3)];
    let some = |rng: &mut SmallRng, of: [&'static str; 2]| match rng.random_range(0..4) {
        0 => vec![],
        1 => of.to_vec(),
        n => vec![of[n - 2]],
    };
    // Whole slices are often with or without hints.
    let (zones, nodes) = (rng.random_bool(0.5), rng.random_bool(0.3));
    let ends = (0..rng.random_range(0..4)).map(|_| End {
        number: rng.random_range(1..6),
        ready: maybe(rng),
        serving: maybe(rng),
        terminating: maybe(rng),
        here: rng.random_bool(0.4),
        zones: if zones { some(rng, ["a", "b"]) } else { vec![] },
        nodes: if nodes { some(rng, ["me", "other"]) } else { vec![] },
    });
    let ends = ends.collect();
    Sliced {
        service: rng.random_range(0..SERVICES),
        port: if rng.random_bool(0.8) { 8080 } else { 8081 },
        ends,
    }
}

fn random_service(rng: &mut SmallRng) -> Served {
    Served {
        internal_local: rng.random_bool(0.4),
        external: rng.random_bool(0.6),
        external_local: rng.random_bool(0.5),
    }
}

/// The lists of a Service's endpoints, by name, as they are to be: `c` on the cluster's, `l` on this node's.
type Lists = BTreeMap<SocketAddr, (bool, bool)>;

/// Section by section what Kubernetes says.
fn wanted(server: &Server, number: usize, served: Served) -> (Lists, bool) {
    let mut ends: BTreeMap<SocketAddr, &End> = BTreeMap::new();
    for sliced in server.slices.values().filter(|sliced| sliced.service == number) {
        for end in &sliced.ends {
            let at = format!("10.1.0.{}:{}", end.number, sliced.port).parse().unwrap();
            let known = ends.entry(at).or_insert(end);
            if end.terminating != Some(true) {
                *known = end;
            }
        }
    }
    let ready = |end: &End| end.ready != Some(false);
    let last = |end: &End| end.serving != Some(false) && end.terminating == Some(true);
    let all_ready: Vec<&End> = ends.values().copied().filter(|end| ready(end)).collect();
    let zone = server.zone.unwrap_or_default();
    let by_node =
        all_ready.iter().all(|e| !e.nodes.is_empty()) && all_ready.iter().any(|e| e.nodes.contains(&"me"));
    let by_zone = !by_node
        && all_ready.iter().all(|e| !e.zones.is_empty())
        && all_ready.iter().any(|e| e.zones.contains(&zone));
    let available = |end: &End| match (by_node, by_zone) {
        (true, _) => end.nodes.contains(&"me"),
        (_, true) => end.zones.contains(&zone),
        _ => true,
    };
    let uses_cluster = served.external || !served.internal_local;
    let uses_local = served.internal_local || served.external && served.external_local;
    let mut cluster: Vec<SocketAddr> = Vec::new();
    let mut local: Vec<SocketAddr> = Vec::new();
    let pick = |fits: &dyn Fn(&End) -> bool| -> Vec<SocketAddr> {
        ends.iter().filter(|(_, end)| fits(end)).map(|(at, _)| *at).collect()
    };
    if uses_cluster {
        cluster = pick(&|end| ready(end) && available(end));
        if cluster.is_empty() {
            cluster = pick(&last);
        }
    }
    if uses_local {
        local = pick(&|end| end.here && ready(end));
        if local.is_empty() {
            local = pick(&|end| end.here && last(end));
        }
    }
    let lists = ends.keys().map(|at| (*at, (cluster.contains(at), local.contains(at))));
    let any = ends.values().any(|end| ready(end) || last(end));
    (lists.filter(|(_, on)| *on != (false, false)).collect(), any)
}

/// What comes out is what is to.
fn check(state: &State, server: &Server, said: &dyn Fn() -> String) {
    let names: Vec<String> = server.services.keys().map(|number| format!("d/s{number}")).collect();
    let mut specs: Vec<_> = state.specs().collect();
    specs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>(), names, "{}", said());
    for (spec, (number, served)) in specs.into_iter().zip(&server.services) {
        let (lists, any) = wanted(server, *number, *served);
        let takes = spec.backends.values().filter(|b| b.admin == AdminState::Active);
        let found: Lists = takes
            .map(|b| {
                let on = b.lists.unwrap();
                (SocketAddr::new(b.address, b.port.unwrap()), (on.all, on.local))
            })
            .collect();
        assert_eq!(found, lists, "{}: {}", spec.name, said());
        let inside = spec.frontends[0].scope.is_local();
        assert_eq!(inside, served.internal_local && any, "{}: {}", spec.name, said());
    }
}

/// A watch of one kind: what is told of it, and whether a list is under way.
fn relist(state: &mut State, server: &Server, slices: bool, upto: Option<usize>, rng: &mut SmallRng) {
    let cache = &mut state.cache;
    if slices {
        cache.slice(Event::Init);
        let mut all: Vec<_> = server.slices.iter().collect();
        all.truncate(upto.unwrap_or(all.len()));
        // In any order, and some of them twice.
        all.sort_by_key(|_| rng.random::<u32>());
        for (number, sliced) in all.iter().chain(all.first()) {
            cache.slice(Event::InitApply(slice(**number, sliced)));
        }
    } else {
        cache.service(Event::Init);
        let upto = upto.unwrap_or(server.services.len());
        for (number, served) in server.services.iter().take(upto) {
            cache.service(Event::InitApply(service(*number, *served)));
        }
    }
    if upto.is_none() {
        if slices { cache.slice(Event::InitDone) } else { cache.service(Event::InitDone) }
    }
}

fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut server = Server { zone: Some("a"), ..Server::default() };
    let mut state = State::new("me", Options::default());
    state.set_own(&super::own());
    let mut log: Vec<String> = Vec::new();
    // Lists of all kinds that are needed, in any order; nothing comes out before the last of them.
    for number in 0..rng.random_range(0..=SERVICES) {
        server.services.insert(number, random_service(&mut rng));
    }
    for number in 0..rng.random_range(0..=SLICES) {
        server.slices.insert(number, random_slice(&mut rng));
    }
    let mut kinds = [0, 1, 2, 3];
    kinds.sort_by_key(|_| rng.random::<u32>());
    for kind in kinds {
        assert_eq!(state.follow(Duration::ZERO), None);
        match kind {
            0 => relist(&mut state, &server, false, None, &mut rng),
            1 => relist(&mut state, &server, true, None, &mut rng),
            2 => {
                state.cache.node_event(Event::Init);
                state.cache.node_event(Event::InitApply(node(server.zone)));
                state.cache.node_event(Event::InitDone);
            }
            _ => state.cache.namespaces.give_up(),
        }
    }
    assert!(state.follow(Duration::ZERO).unwrap().first);
    check(&state, &server, &|| format!("seed {seed}: {server:#?}"));
    for _ in 0..EVENTS {
        // What the watch has told so far; a list may also bring what it hasn't told.
        let before = server.clone();
        let what = rng.random_range(0..10);
        log.push(format!("{what}"));
        match what {
            0 | 1 => {
                let (number, served) = (rng.random_range(0..SERVICES), random_service(&mut rng));
                server.services.insert(number, served);
                state.cache.service(Event::Apply(service(number, served)));
            }
            2 => {
                let number = rng.random_range(0..SERVICES);
                let gone = server.services.remove(&number).unwrap_or_else(|| random_service(&mut rng));
                state.cache.service(Event::Delete(service(number, gone)));
            }
            3..=5 => {
                let (number, sliced) = (rng.random_range(0..SLICES), random_slice(&mut rng));
                state.cache.slice(Event::Apply(slice(number, &sliced)));
                if rng.random_bool(0.2) {
                    state.cache.slice(Event::Apply(slice(number, &sliced)));
                }
                server.slices.insert(number, sliced);
            }
            6 => {
                let number = rng.random_range(0..SLICES);
                let gone = server.slices.remove(&number).unwrap_or_else(|| random_slice(&mut rng));
                state.cache.slice(Event::Delete(slice(number, &gone)));
            }
            7 => {
                server.zone = [None, Some("a"), Some("b")][rng.random_range(0..3)];
                state.cache.node_event(Event::Apply(node(server.zone)));
            }
            _ => {
                // Out of sight, something has come and gone; then all is listed anew, perhaps not to the end at first.
                let slices = rng.random_bool(0.7);
                if slices {
                    server.slices.remove(&rng.random_range(0..SLICES));
                    server.slices.insert(rng.random_range(0..SLICES), random_slice(&mut rng));
                } else {
                    server.services.remove(&rng.random_range(0..SERVICES));
                    server.services.insert(rng.random_range(0..SERVICES), random_service(&mut rng));
                }
                if rng.random_bool(0.5) {
                    relist(&mut state, &server, slices, Some(rng.random_range(0..2)), &mut rng);
                    state.follow(Duration::ZERO).unwrap();
                    check(&state, &before, &|| {
                        format!("seed {seed}, half a list, after {log:?}: {before:#?}")
                    });
                }
                relist(&mut state, &server, slices, None, &mut rng);
            }
        }
        if rng.random_bool(0.7) {
            state.follow(Duration::ZERO).unwrap();
            check(&state, &server, &|| format!("seed {seed}, after {log:?}: {server:#?}"));
        }
    }
    state.follow(Duration::ZERO).unwrap();
    check(&state, &server, &|| format!("seed {seed}, at the end of {log:?}: {server:#?}"));
}

#[test]
fn t1_random_events_lead_to_the_lists_of_kubernetes() {
    // Debug builds take a part of them, in a few seconds; it is the seeds that matter, not the day.
    let sequences = if cfg!(debug_assertions) { SEQUENCES / 10 } else { SEQUENCES };
    (0..sequences).for_each(run);
}
