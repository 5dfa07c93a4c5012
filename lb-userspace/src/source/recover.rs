//! What was declared, as the maps tell: for a source that can't be read. What is live stays live, drains included.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use lb_common::abi::{Forward, List, PoolBlock, Proto, Service, Source, SourceRanges, Stray};

use super::{
    Good, Sources,
    decl::{AffinityDecl, BackendDecl, ForwardDecl, FrontendDecl, ServiceDecl, Time},
    runtime::{Runtime, RuntimeDrain},
};
use crate::{
    model::{
        AdminState, AffinitySpec, AlgorithmKind, ForwardKind, Forwarding, Lists, Origin, OwnAddresses, Scope,
        ServiceSpec,
    },
    reconcile::{Actual, ActualService},
};

/// What a frontend is besides its addresses and ports.
type Kind = (u8, [u8; 2], BTreeSet<IpNet>);
/// Protocol, port, and the port that it leads to (0: itself).
type Ports = BTreeSet<(Proto, u16, u16)>;

/// What the command line must have said for the maps to be what they are, besides what is `declared`. `drain`: what is noted of a drain, since
/// nobody knows when it began.
pub fn runtime(
    actual: &Actual,
    own: &OwnAddresses,
    declared: &BTreeMap<&str, &ServiceSpec>,
    drain: &RuntimeDrain,
) -> Runtime {
    let groups: BTreeMap<u64, &str> = declared
        .values()
        .filter_map(|spec| {
            let affinity = spec.affinity.as_ref()?;
            Some((affinity.number(&spec.name), affinity.group.as_deref()?))
        })
        .collect();
    let mut runtime = Runtime::default();
    for service in actual.services().values() {
        let name = &service.name;
        let known = declared.get(name.as_str());
        // Without an entry it is only kept for its last flows.
        if known.is_none() && service.ports.is_empty() {
            continue;
        }
        if known.is_none() {
            runtime.services.insert(name.clone(), decl(actual, own, service, &groups));
        }
        for (backend, id) in &service.backends {
            let live = actual.backend(*id).is_some_and(|record| !record.is_retired());
            let Some(block) = actual.block(id.block()).filter(|_| live) else { continue };
            let (weight, limit) = (block.weight[id.slot()], block.limit[id.slot()]);
            let v6 = actual.backend(*id).and_then(|b| b.address()).is_some_and(|a| a.is_ipv6());
            // Its service's address of that family may be another's by now: it takes nobody new.
            if known.is_none() && !has_family(service, v6) {
                continue;
            }
            if known.is_none_or(|spec| !spec.backends.contains_key(backend)) {
                // While it started slowly its weight was counted in hundredths.
                let weight = if weight > u32::from(u16::MAX) { weight / 100 } else { weight };
                let added = BackendDecl {
                    backup: false,
                    address: String::new(),
                    weight: Some(weight.clamp(1, u16::MAX.into()).into()),
                    max_connections: (limit != u32::MAX).then_some(limit.into()),
                    local: block.lists[List::new(v6, true).index()] & 1 << id.slot() != 0,
                };
                runtime.backends.entry(name.clone()).or_default().insert(backend.clone(), added);
            }
            if block.weight[id.slot()] == 0 {
                runtime.drains.entry(name.clone()).or_default().insert(backend.clone(), drain.clone());
            }
        }
    }
    runtime
}

/// Is a service at any address of a family?
fn has_family(service: &ActualService, v6: bool) -> bool {
    service.ports.keys().any(|(vip, ..)| vip.is_ipv6() == v6)
}

/// A service that was recovered, as the file's.
pub fn spec(runtime: &Runtime, name: &str) -> Option<ServiceSpec> {
    let good = Good::default();
    let declared = Sources::local(&[], &good, runtime).one(name, &mut Vec::new())?;
    let mut spec = ServiceSpec::clone(declared.spec.as_ref().ok()?);
    spec.origin = Origin::File;
    spec.backends.values_mut().for_each(|backend| {
        backend.origin = Origin::File;
        backend.admin = AdminState::Active;
    });
    Some(spec)
}

/// A service that was recovered, as a cluster's: with the lists that its backends are on.
pub fn of_cluster(runtime: &Runtime, name: &str, actual: &Actual) -> Option<ServiceSpec> {
    let good = Good::default();
    let sources = Sources::local(&[], &good, runtime);
    let mut spec = ServiceSpec::clone(sources.one(name, &mut Vec::new())?.spec.as_ref().ok()?);
    spec.origin = Origin::Kubernetes;
    let ids = &actual.service(name)?.backends;
    for (backend, spec) in &mut spec.backends {
        spec.origin = Origin::Kubernetes;
        let id = ids.get(backend)?;
        let block = actual.block(id.block())?;
        let on = |local| block.lists[List::new(spec.address.is_ipv6(), local).index()] & 1 << id.slot() != 0;
        spec.lists = Some(Lists { all: on(false), local: on(true) });
    }
    Some(spec)
}

fn decl(
    actual: &Actual,
    own: &OwnAddresses,
    service: &ActualService,
    groups: &BTreeMap<u64, &str>,
) -> ServiceDecl {
    let mut places: BTreeMap<(Kind, IpAddr), Ports> = BTreeMap::new();
    let mut except = BTreeSet::new();
    let mut anywhere = [false; 2];
    for ((vip, proto, port), entry) in &service.ports {
        // Who names an address has a VIP of it; at the node's others a service is with all of them.
        let named = actual.vips().contains_key(vip) || !own.contains(vip);
        anywhere[usize::from(vip.is_ipv6())] |= !named;
        let at = match (named, vip) {
            (true, _) => *vip,
            (false, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (false, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        places.entry((kind(actual, entry), at)).or_default().insert((*proto, *port, entry.target.get()));
    }
    for address in own.iter().filter(|a| anywhere[usize::from(a.is_ipv6())] && !actual.vips().contains_key(a))
    {
        if !service.ports.keys().any(|(vip, ..)| vip == address) {
            except.insert(address.to_string());
        }
    }
    let mut frontends: BTreeMap<(Kind, Ports), Vec<IpAddr>> = BTreeMap::new();
    for ((kind, at), ports) in places {
        frontends.entry((kind, ports)).or_default().push(at);
    }
    let mut decls = frontends.into_iter().map(|(what, addresses)| frontend(what, addresses));
    let first = decls.next().unwrap_or_default();
    let mut addresses = first.addresses.into_iter();
    let entry = service.ports.values().next().copied().unwrap_or_default();
    ServiceDecl {
        vip: addresses.next(),
        vips: addresses.collect(),
        vip_except: except.into_iter().collect(),
        source_ranges: first.source_ranges.unwrap_or_default(),
        ports: first.ports.unwrap_or_default(),
        scope: first.scope,
        forward: first.forward,
        stray: Some(stray(entry).into()),
        algorithm: Some(AlgorithmKind::of(entry.algorithm).name().into()),
        affinity: affinity(actual, service, entry, groups),
        service_max_connections: service_limit(actual, entry),
        frontends: decls.collect(),
        ..ServiceDecl::default()
    }
}

/// A limit of the service as a whole.
fn service_limit(actual: &Actual, entry: Service) -> Option<i64> {
    actual.limit(entry.limited_id()).map(|limit| limit.most.into())
}

fn kind(actual: &Actual, entry: &Service) -> Kind {
    let sources = match entry.source_ranges {
        SourceRanges::OPEN => BTreeSet::new(),
        _ => actual.ranges().get(&entry.ranges).cloned().unwrap_or_default(),
    };
    (entry.local, [entry.forward(Source::ELSEWHERE).0, entry.forward(Source::POD).0], sources)
}

fn frontend((kind, ports): (Kind, Ports), addresses: Vec<IpAddr>) -> FrontendDecl {
    let (local, [elsewhere, pod], sources) = kind;
    let sources = of_families(sources, &addresses);
    let scopes = [Scope::All, Scope::Local, Scope::LocalOnly];
    let scope = scopes.into_iter().find(|scope| scope.code() == local).unwrap_or_default();
    let forwarding = Forwarding { pod: forward(pod), elsewhere: forward(elsewhere) };
    FrontendDecl {
        addresses: addresses.iter().map(ToString::to_string).collect(),
        ports: Some(ranges(&ports)),
        scope: Some(scope.name().into()),
        source_ranges: Some(sources.iter().map(ToString::to_string).collect()),
        // Who was denied is in none of the prefixes.
        deny_ranges: None,
        forward: Some(ForwardDecl::from(forwarding)),
    }
}

/// Source ranges, as far as they are of the addresses' families: another service may have the other family's. Where that leaves none, nobody is let
/// in, as before.
fn of_families(sources: BTreeSet<IpNet>, addresses: &[IpAddr]) -> BTreeSet<IpNet> {
    let has = |v6: bool| addresses.iter().any(|address| address.is_ipv6() == v6);
    let all = sources.len();
    let mut own: BTreeSet<IpNet> = sources.into_iter().filter(|range| has(range.addr().is_ipv6())).collect();
    if own.is_empty() && all > 0 {
        let nobody: IpAddr =
            if has(true) { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        own.insert(nobody.into());
    }
    own
}

fn forward(code: u8) -> ForwardKind {
    let kinds = [ForwardKind::Nat, ForwardKind::Snat, ForwardKind::DsrL2, ForwardKind::DsrIpip];
    kinds.into_iter().find(|kind| kind.code() == Forward(code)).unwrap_or_default()
}

fn stray(entry: Service) -> &'static str {
    match entry.stray {
        Stray::FORWARD => "forward",
        Stray::PASS => "pass",
        _ => "reset",
    }
}

/// Ports as they are written: in ranges, as far as they follow each other and so do those that they lead to.
fn ranges(ports: &Ports) -> Vec<String> {
    let mut written: Vec<(Proto, [u16; 2], u16)> = Vec::new();
    for (proto, port, target) in ports {
        if let Some((last_proto, [first, last], to)) = written.last_mut()
            && last_proto == proto
            && last.checked_add(1) == Some(*port)
            && *target == if *to == 0 { 0 } else { *to + (port - *first) }
        {
            *last = *port;
            continue;
        }
        written.push((*proto, [*port, *port], *target));
    }
    let text = |(proto, [first, last], to): (Proto, [u16; 2], u16)| {
        let proto = if proto == Proto::UDP { "udp" } else { "tcp" };
        let range = |a: u16, b: u16| if a == b { a.to_string() } else { format!("{a}-{b}") };
        match to {
            0 => format!("{}/{proto}", range(first, last)),
            to => format!("{}:{}/{proto}", range(first, last), range(to, to + (last - first))),
        }
    };
    written.into_iter().map(text).collect()
}

fn affinity(
    actual: &Actual,
    service: &ActualService,
    entry: Service,
    groups: &BTreeMap<u64, &str>,
) -> Option<AffinityDecl> {
    let block = service.blocks.first().and_then(|id| actual.block(*id)).filter(|_| entry.affine != 0)?;
    let PoolBlock { client_bits, group, remember, bound, by_port, .. } = *block;
    let alone = AffinitySpec {
        timeout: Duration::from_millis(remember.into()),
        group: None,
        by_port: by_port != 0,
        ipv6_prefix: u8::try_from(client_bits).unwrap_or(128),
        bound: None,
    };
    // A group whose name nobody says any more goes on under another.
    let known = || groups.get(&group).map_or_else(|| format!("group-{group:x}"), ToString::to_string);
    let group = (alone.number(&service.name) != group).then(known);
    Some(AffinityDecl {
        client_ip: true,
        timeout: Some(Time::Text(format!("{remember}ms"))),
        by: (by_port != 0 && group.is_none()).then(|| "port".into()),
        group,
        ipv6_prefix: Some(alone.ipv6_prefix.into()),
        bound: (bound != u32::MAX).then_some(bound.into()),
    })
}

#[cfg(test)]
mod tests;
