//! What Flowpin takes, and how far: whatever else a draft says is taken out, with a note on what to do instead.
//! When Flowpin learns something, this is the place to say so.

mod backends;
mod health;
mod names;
mod sources;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    account::{Account, Id, Note, Said},
    model::{Draft, Forward, Frontend, Protocol, Service, Timeouts},
    values::show_time,
};

/// Shortest time that can be said, unless it is of checks.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest, by the stamps of the flow table.
const LONGEST: Duration = Duration::from_secs(20 * 86_400);
/// Ports of one IP version, a range counted port by port.
const MOST_PORTS: u32 = 262_144;
/// Services of a node.
const MOST_SERVICES: usize = 16_000;

/// Leaves what `flowpin check` accepts.
pub fn fit(draft: &mut Draft) {
    names::fit(&mut draft.services);
    for service in &mut draft.services {
        frontends(&draft.account, service);
        sources::fit(service);
        timeouts(service);
        if let Some(affinity) = &mut service.affinity {
            time("affinity.timeout", SHORTEST, &mut affinity.timeout, &mut service.notes);
        }
        time("slow_start", SHORTEST, &mut service.slow_start, &mut service.notes);
        health::fit(service);
        backends::fit(service);
    }
    shared(draft);
    backends::fit_vips(&mut draft.services);
}

/// A time within what Flowpin takes, or the nearest, with a note.
fn time(what: &str, shortest: Duration, said: &mut Option<Said<Duration>>, notes: &mut Vec<Note>) {
    let Some(said) = said else { return };
    let near = said.value.clamp(shortest, LONGEST);
    if near != said.value {
        let remedy = if near == shortest {
            format!("{what} is {0} at least: that is written instead.", show_time(near))
        } else {
            format!("{what} is 20 days at most: they are written instead.")
        };
        notes.push(Note::new(said.at, remedy));
        said.value = near;
    }
}

/// Can packets come to it as a VIP?
fn is_vip(address: IpAddr) -> bool {
    let odd = match address {
        IpAddr::V4(a) => a.is_broadcast() || !a.is_unspecified() && a.octets()[0] == 0,
        IpAddr::V6(a) => a.to_ipv4_mapped().is_some() || a.is_unicast_link_local(),
    };
    !odd && !address.is_multicast()
}

fn frontends(account: &Account, service: &mut Service) {
    let direct = service.forward.is_some_and(Forward::is_direct);
    let (mut kept, mut left): (Vec<Frontend>, Vec<Note>) = Default::default();
    for frontend in std::mem::take(&mut service.frontends) {
        let Frontend { address, ports, at, .. } = frontend;
        let overlaps = |other: &&Frontend| other.address == address && other.ports.overlaps(ports);
        let reason = if ports.protocol == Protocol::Sctp {
            "Flowpin balances TCP and UDP, not SCTP: keep this one where it is.".to_string()
        } else if !is_vip(address) {
            format!(
                "{address} can't be a VIP; use a unicast address, or 0.0.0.0 or :: for all of the node's own."
            )
        } else if direct && address.is_unspecified() {
            "Backends that answer past the node have the VIP themselves: name the address.".to_string()
        } else if let Some(other) = kept.iter().find(overlaps) {
            format!("Line {} has that address and port already.", account.item(other.at).line)
        } else {
            if address.is_loopback() {
                let only = "Only processes of the node get there, with [sockets] scope = \"host\".";
                left.push(Note::new(at, only));
            }
            kept.push(frontend);
            continue;
        };
        left.push(Note::new(at, reason));
    }
    if kept.is_empty() && service.off.is_none() {
        let nothing = "No address and port leads to it: give it a vip and ports, and uncomment it.";
        service.off = left.pop().or_else(|| Some(Note::new(service.at, nothing)));
    }
    service.notes.append(&mut left);
    service.frontends = kept;
}

fn timeouts(service: &mut Service) {
    let udp = service.is_udp();
    let Timeouts { idle, half_open, half_closed, udp: own } = &mut service.timeouts;
    let notes = &mut service.notes;
    time("timeouts.idle", SHORTEST, idle, notes);
    time("timeouts.half_open", SHORTEST, half_open, notes);
    time("timeouts.half_closed", SHORTEST, half_closed, notes);
    time("timeouts.udp", SHORTEST, own, notes);
    let no_udp = !service.frontends.iter().any(|frontend| frontend.ports.protocol == Protocol::Udp);
    if no_udp && let Some(Said { at, .. }) = own.take() {
        notes.push(Note::new(at, "It is about UDP, and the service has no UDP port."));
    }
    if udp {
        for Said { at, .. } in [half_open.take(), half_closed.take()].into_iter().flatten() {
            notes.push(Note::new(at, "It is about TCP, and the service has no TCP port."));
        }
    }
}

/// What services share: addresses with ports, and how many there may be.
fn shared(draft: &mut Draft) {
    let mut claims: BTreeMap<IpAddr, Vec<(Frontend, String)>> = BTreeMap::new();
    let (mut ports, mut count) = ([0_u32; 2], 0);
    for service in draft.services.iter_mut().filter(|service| service.off.is_none()) {
        let taken = |frontend: &Frontend| {
            let there = claims.get(&frontend.address)?;
            there
                .iter()
                .find(|(other, _)| other.ports.overlaps(frontend.ports))
                .map(|(other, name)| (other.at, name))
        };
        let first: Option<(Id, String)> = service.frontends.iter().find_map(|frontend| {
            let (at, name) = taken(frontend)?;
            let line = draft.account.item(at).line;
            Some((
                frontend.at,
                format!("Service {name:?} has that address and port (line {line}): give it another."),
            ))
        });
        if let Some((at, reason)) = first {
            service.turn_off(at, reason);
            continue;
        }
        let mut own = [0_u32; 2];
        for frontend in &service.frontends {
            own[usize::from(frontend.address.is_ipv6())] += frontend.ports.count();
        }
        if (0..2).any(|v| ports[v] + own[v] > MOST_PORTS) {
            let reason = "Ranges count port by port, and there may be 262144 ports in all: name those that are in \
                 use.";
            service.turn_off(service.at, reason);
            continue;
        }
        if count == MOST_SERVICES {
            service.turn_off(service.at, "There may be 16000 services on a node.");
            continue;
        }
        count += 1;
        (0..2).for_each(|v| ports[v] += own[v]);
        for frontend in &service.frontends {
            let claim = (frontend.clone(), service.name.clone());
            claims.entry(frontend.address).or_default().push(claim);
        }
    }
}
