//! Backends: addresses that packets can be sent to, each once, with weights and limits in range.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_text::is_host;

use crate::{
    account::{Note, Said},
    model::{Backend, Forward, Host, Ports, Service},
};

/// Most backends of a service.
const MOST: usize = 8_192;
/// Most connections that a limit can say.
const MOST_CONNECTIONS: u64 = u32::MAX as u64 - 1;
/// Highest weight.
const HEAVIEST: u64 = u16::MAX as u64;

/// Leaves those of a service that can be in force; the others become comments.
pub fn fit(service: &mut Service) {
    let direct = service.forward.filter(|forward| forward.is_direct());
    let ports: Vec<Ports> = service.frontends.iter().map(|frontend| frontend.ports).collect();
    let families = [false, true].map(|v6| {
        let of = |address: IpAddr| address.is_ipv6() == v6;
        service.frontends.is_empty() || service.frontends.iter().any(|frontend| of(frontend.address))
    });
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut kept = 0;
    for backend in &mut service.backends {
        place(backend, families, &ports);
        if let Some(forward) = direct {
            direct_port(backend, forward, &ports);
        }
        numbers(backend);
        down(backend);
        if backend.off.is_some() {
            continue;
        }
        let address = backend.address().to_ascii_lowercase();
        if seen.contains(&address) {
            backend.turn_off(
                backend.at,
                format!("{address} is a backend of this service already: raise its weight instead."),
            );
        } else if kept == MOST {
            backend.turn_off(backend.at, "A service may have 8192 backends.");
        } else {
            seen.insert(address);
            kept += 1;
        }
    }
    let takes = |backend: &Backend| {
        backend.off.is_none() && backend.weight.as_ref().is_none_or(|weight| weight.value > 0)
    };
    if service.off.is_none() && !service.backends.iter().any(takes) {
        service.note(
            service.at,
            "No backend is left that gets new connections: the service refuses them until there is one.",
        );
    }
}

/// Can packets be sent there?
fn place(backend: &mut Backend, families: [bool; 2], ports: &[Ports]) {
    let at = backend.at;
    let address = match &backend.host {
        Host::Name(_) if backend.off.is_some() => return,
        Host::Name(_) => return named(backend, ports),
        Host::Address(address) => *address,
    };
    let odd = match address {
        IpAddr::V4(a) => a.is_broadcast() || a.octets()[0] == 0,
        IpAddr::V6(a) => a.to_ipv4_mapped().is_some() || a.is_unicast_link_local(),
    };
    if address.is_loopback() {
        backend.turn_off(
            at,
            format!(
                "Packets can't be sent to {address}: have the server listen at an address of the node's, \
                 write that, and uncomment it."
            ),
        );
    } else if odd || address.is_unspecified() || address.is_multicast() {
        backend.turn_off(
            at,
            format!("Packets can't be sent to {address}: write the server's address, and uncomment it."),
        );
    } else if !families[usize::from(address.is_ipv6())] {
        let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
        backend.turn_off(
            at,
            format!(
                "Flowpin translates within an IP version, and the service has no {family} address: add \
                 one to its vips, and uncomment it."
            ),
        );
    }
}

/// Is it the name of a host, and is the port known? It is the service's, if that has one.
fn named(backend: &mut Backend, ports: &[Ports]) {
    let (at, Host::Name(name)) = (backend.at, &backend.host) else { return };
    if name.starts_with('_') {
        let reason =
            "Flowpin asks for addresses, not for SRV records: write the names and ports of the servers.";
        return backend.turn_off(at, reason);
    }
    if !is_host(name) {
        let reason =
            format!("{name:?} is neither an address nor a host's name: write one, and uncomment it.");
        return backend.turn_off(at, reason);
    }
    let one = ports.first().filter(|one| {
        one.first == one.last && ports.iter().all(|all| all.first == one.first && all.last == one.last)
    });
    backend.port = backend.port.or(one.map(|one| one.first));
    if backend.port.is_none() {
        let reason =
            format!("A host's name needs a port in Flowpin: write it behind {name:?}, and uncomment it.");
        backend.turn_off(at, reason);
    }
}

/// Where backends answer past the node they can't have a port of their own.
fn direct_port(backend: &mut Backend, forward: Forward, ports: &[Ports]) {
    let (Some(port), named) = (backend.port, matches!(backend.host, Host::Name(_))) else { return };
    if ports.iter().any(|range| range.first != port || range.last != port) {
        let reason = format!(
            "With forward = {:?} ports stay what they are: have the server listen at the service's port, \
             and uncomment it.",
            forward.name()
        );
        backend.turn_off(backend.at, reason);
    } else if !named {
        backend.port = None;
    }
}

/// Weight and limit.
fn numbers(backend: &mut Backend) {
    let mut notes = Vec::new();
    if let Some(weight) = backend.weight.as_mut().filter(|weight| weight.value > HEAVIEST) {
        notes.push(Note::new(weight.at, "weight is 65535 at most: that is written instead."));
        weight.value = HEAVIEST;
    }
    if let Some(limit) = &mut backend.max_connections {
        if limit.value == 0 {
            notes
                .push(Note::new(limit.at, "0 is no limit there; here that is to leave max_connections out."));
            backend.max_connections = None;
        } else if limit.value > MOST_CONNECTIONS {
            notes
                .push(Note::new(limit.at, "max_connections is 4294967294 at most: that is written instead."));
            limit.value = MOST_CONNECTIONS;
        }
    }
    backend.notes.append(&mut notes);
}

/// One that is there for later gets nothing new until then.
fn down(backend: &mut Backend) {
    let Some(at) = backend.down else { return };
    if let Some(weight) = backend.weight.replace(Said::new(0, at)) {
        backend.note(weight.at, "It isn't in use, which is weight 0: write this one when it is to be.");
    }
}

/// No backend is at an address and port that a service is at.
pub fn fit_vips(services: &mut [Service]) {
    let mut claims: BTreeMap<IpAddr, Vec<(Ports, String)>> = BTreeMap::new();
    for service in services.iter().filter(|service| service.off.is_none()) {
        for frontend in &service.frontends {
            let claim = (frontend.ports, service.name.clone());
            claims.entry(frontend.address).or_default().push(claim);
        }
    }
    for service in services.iter_mut().filter(|service| service.off.is_none()) {
        let own: Vec<Ports> = service.frontends.iter().map(|frontend| frontend.ports).collect();
        for backend in service.backends.iter_mut().filter(|backend| backend.off.is_none()) {
            let Host::Address(address) = backend.host else { continue };
            let Some(there) = claims.get(&address) else { continue };
            let led = |ports: &Ports| backend.port.map_or(*ports, |port| Ports::one(port, ports.protocol));
            let taken = there.iter().find(|(ports, _)| own.iter().any(|own| led(own).overlaps(*ports)));
            if let Some((_, name)) = taken {
                let reason = format!("That is where service {name:?} is: name the server behind it.");
                backend.turn_off(backend.at, reason);
            }
        }
    }
}
