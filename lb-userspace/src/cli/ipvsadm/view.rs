//! What the API shows, as `lb-ipvsadm` lists it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use flowpin_import::ipvs::{Algorithm, Forward};
use lb_common::expiry::Timeouts as Limits;
use lb_ipvsadm::{
    Affinity, Protocol, Table, Timeouts,
    print::{Connection, State},
    table::{Counts, Frontend, Server, Service},
};

use super::Failure;
use crate::{
    api::types::{
        AffinityDecl, BackendView, ConnectionView, ForwardDecl, FrontendView, ServiceDecl, ServiceView,
        TimeoutsDecl,
    },
    model::{self, AlgorithmKind, ForwardKind, Origin, PortRange, TimeoutSpec, service::parse_backend},
};

/// The agent said something that no version of this command line understands.
fn odd(what: &str) -> Failure {
    Failure::Said(format!("the agent named {what:?}; are agent and command of the same version?"))
}

/// All services.
///
/// # Errors
/// The agent's words aren't understood.
pub fn table(services: &[ServiceView]) -> Result<Table, Failure> {
    Ok(Table { services: services.iter().map(service).collect::<Result<_, _>>()? })
}

fn service(view: &ServiceView) -> Result<Service, Failure> {
    let mut frontends = Vec::new();
    for frontend in &view.frontends {
        frontends.append(&mut places(frontend)?);
    }
    let algorithm = match AlgorithmKind::parse(&view.algorithm).map_err(|_| odd(&view.algorithm))? {
        AlgorithmKind::LeastConnections => Algorithm::LeastConnections,
        AlgorithmKind::ConsistentHash => Algorithm::ConsistentHash,
        AlgorithmKind::RoundRobin => Algorithm::RoundRobin,
        AlgorithmKind::WeightedRandom => Algorithm::WeightedRandom,
    };
    let affinity = view.declared.affinity.as_ref().map(AffinityDecl::spec).transpose();
    let affinity = affinity.map_err(|_| odd("affinity"))?.flatten();
    Ok(Service {
        name: view.name.clone(),
        elsewhere: elsewhere(&view.origin),
        unsaid: unsaid(view, &frontends, algorithm),
        frontends,
        algorithm,
        affinity: affinity.map(|a| Affinity { timeout: a.timeout, ipv6_prefix: a.ipv6_prefix }),
        servers: view.backends.iter().map(|b| server(&view.name, b)).collect::<Result<_, _>>()?,
    })
}

/// Who declares it, if it isn't the command line.
fn elsewhere(origin: &str) -> Option<String> {
    Some(origin.to_string()).filter(|origin| origin != Origin::Cli.name())
}

/// Each address with each of the ports.
fn places(view: &FrontendView) -> Result<Vec<Frontend>, Failure> {
    let forward = view.forward.spec().map_err(|_| odd("forward"))?.elsewhere;
    let forward = match forward {
        ForwardKind::Nat => Forward::Nat,
        ForwardKind::Snat => Forward::Snat,
        ForwardKind::DsrL2 => Forward::DsrL2,
        ForwardKind::DsrIpip => Forward::DsrIpip,
    };
    let mut all = Vec::new();
    for address in &view.addresses {
        for text in &view.ports {
            let ports: PortRange = text.parse().map_err(|_| odd(text))?;
            all.push(Frontend {
                protocol: protocol(ports.protocol()),
                address: *address,
                first: ports.first(),
                last: ports.last(),
                to: ports.target(ports.first()),
                forward,
            });
        }
    }
    Ok(all)
}

const fn protocol(protocol: model::Protocol) -> Protocol {
    match protocol {
        model::Protocol::Tcp => Protocol::Tcp,
        model::Protocol::Udp => Protocol::Udp,
    }
}

fn server(service: &str, view: &BackendView) -> Result<Server, Failure> {
    let (address, port) = parse_backend(service, &view.address).map_err(|_| odd(&view.address))?;
    Ok(Server {
        name: view.address.clone(),
        elsewhere: elsewhere(&view.origin),
        address,
        port,
        weight: view.weight,
        draining: view.state != "active",
        unhealthy: !view.healthy,
        limit: view.max_connections,
        active: view.active_connections,
        clients: view.clients.unwrap_or(0),
        counts: Counts {
            connections: view.total_connections,
            packets_in: view.packets_in,
            packets_out: view.packets_out,
            bytes_in: view.bytes_in,
            bytes_out: view.bytes_out,
        },
    })
}

/// What ipvsadm has no words for.
fn unsaid(view: &ServiceView, frontends: &[Frontend], algorithm: Algorithm) -> Vec<String> {
    let ServiceDecl { health, timeouts, slow_start, stray, affinity, vip_except, .. } = &view.declared;
    let decl = &view.declared;
    let policies = [decl.on_removal.is_some(), decl.on_unhealthy.is_some(), decl.on_deadline.is_some()];
    let shared = affinity.as_ref().is_some_and(|a| a.group.is_some() || a.by.is_some() || a.bound.is_some());
    let by_source = |f: &FrontendView| matches!(f.forward, ForwardDecl::BySource(_));
    let all = [
        (frontends.len() > 1, "its frontends become services of their own"),
        (view.frontends.iter().any(by_source), "forward by source"),
        (frontends.iter().any(|f| f.forward == Forward::Snat), "source NAT"),
        (view.frontends.iter().any(|f| f.scope == "local"), "scope"),
        (view.frontends.iter().any(|f| !f.source_ranges.is_empty()), "source ranges"),
        (view.frontends.iter().any(|f| !f.deny_ranges.is_empty()), "deny ranges"),
        (algorithm == Algorithm::WeightedRandom, "weighted-random"),
        (decl.quorum.is_some(), "quorum"),
        (decl.rebalance.is_some(), "rebalance"),
        (!vip_except.is_empty(), "vip_except"),
        (shared, "affinity's group, by and bound"),
        (health.is_some(), "health checks"),
        (timeouts.is_some(), "timeouts"),
        (slow_start.is_some(), "slow start"),
        (stray.is_some(), "stray"),
        (policies.contains(&true), "what becomes of open connections"),
        (view.backends.iter().any(|b| b.backup), "backups"),
    ];
    all.into_iter().filter(|(is, _)| *is).map(|(_, what)| what.to_string()).collect()
}

/// When connections of a service are over.
fn limits(view: &ServiceView) -> Limits {
    let spec = view.declared.timeouts.as_ref().map(TimeoutsDecl::spec).and_then(Result::ok);
    spec.as_ref().map_or(Limits::DEFAULT, TimeoutSpec::limits)
}

/// What services agree on, or else the defaults; and whether they do.
pub fn timeouts(services: &[ServiceView]) -> (Timeouts, bool) {
    let of = |limits: &Limits| [limits.idle, limits.half_closed, limits.udp];
    let mut all = services.iter().map(|view| of(&limits(view)));
    let first = all.next().unwrap_or(of(&Limits::DEFAULT));
    let alike = all.all(|other| other == first);
    let [tcp, tcp_fin, udp] = if alike { first } else { of(&Limits::DEFAULT) };
    let [tcp, tcp_fin, udp] = [tcp, tcp_fin, udp].map(|millis| Some(Duration::from_millis(millis)));
    (Timeouts { tcp, tcp_fin, udp }, alike)
}

/// Connections.
///
/// # Errors
/// The agent's words aren't understood.
pub fn connections(services: &[ServiceView], list: &[ConnectionView]) -> Result<Vec<Connection>, Failure> {
    let limits: BTreeMap<&str, Limits> = services.iter().map(|s| (s.name.as_str(), limits(s))).collect();
    let one = |view: &ConnectionView| {
        let limits = limits.get(view.service.as_str()).unwrap_or(&Limits::DEFAULT);
        connection(view, limits)
    };
    list.iter().map(one).collect()
}

fn connection(view: &ConnectionView, limits: &Limits) -> Result<Connection, Failure> {
    let (state, limit) = match view.state.as_str() {
        "syn-sent" => (State::Opening, limits.half_open),
        "established" => (State::Open, limits.idle),
        "closing" => (State::Closing, limits.half_closed),
        "closed" => (State::Closed, limits.closed),
        "active" => (State::Datagrams, limits.udp),
        "unconfirmed" => (State::Unconfirmed, Limits::UNCONFIRMED),
        other => return Err(odd(other)),
    };
    let left = |limit: u64, since: f64| {
        Duration::from_millis(limit).saturating_sub(Duration::try_from_secs_f64(since).unwrap_or_default())
    };
    let silent = left(limit, view.idle_seconds);
    let old = limits.max_age.filter(|_| view.protocol == "tcp").map(|age| left(age, view.age_seconds));
    let place = |text: &str| text.parse::<SocketAddr>().map_err(|_| odd(text));
    Ok(Connection {
        protocol: if view.protocol == "udp" { Protocol::Udp } else { Protocol::Tcp },
        expires: old.map_or(silent, |old| old.min(silent)),
        state,
        client: place(&view.client)?,
        service: place(&view.vip)?,
        server: place(&view.backend)?,
    })
}
