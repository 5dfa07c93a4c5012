//! Connections that are to be closed, whatever they do: walks over the flow tables, and over sockets of the node's
//! processes.

use std::{collections::HashMap, time::Duration};

use lb_common::{
    abi::{BackendId, Flow, ServiceId, sweep::Request},
    expiry::idle,
    flow_state::{Phase, Word},
};

use super::{
    Directory,
    matches::{Filter, Match, Place, each},
    select::{Cause, Closing, How, Pinned, Victim},
    sockets,
};
use crate::{
    api::types::ConnectionFilter,
    datapath::{
        flows::FlowTable,
        sweeper::{self, Sweep},
    },
};

/// Victims with one cause, of one service.
type ByService = HashMap<(Cause, ServiceId), Vec<Victim>>;

/// Connections that count and belong to these backends, in one walk.
pub fn of_backends(place: Place<'_>, backends: &HashMap<BackendId, Closing>) -> ByService {
    let Place { tables, directory, .. } = place;
    let mut found = ByService::new();
    collect(&tables.v4, directory, backends, Pinned::V4, &mut found);
    collect(&tables.v6, directory, backends, Pinned::V6, &mut found);
    for (cause, victim) in sockets::of_backends(place, backends) {
        found.entry((cause, victim.service)).or_default().push(victim);
    }
    found
}

fn collect<A: Sweep>(
    table: &FlowTable<A>,
    directory: &Directory,
    backends: &HashMap<BackendId, Closing>,
    pin: fn(Request<A>) -> Pinned,
    found: &mut ByService,
) {
    table.walk(
        |flows| {
            for flow in flows.iter().filter(|flow| flow.direction.is_forward()) {
                if let Some(closing) = backends.get(&flow.backend)
                    && let Some(victim) = victim(flow, directory, pin)
                    && closing.takes(victim.how)
                {
                    found.entry((closing.cause, victim.service)).or_default().push(victim);
                }
            }
        },
        std::thread::yield_now,
    );
}

/// Connections that count, match a filter that was [checked](super::matches::check), and have been silent for so long.
pub fn matching(place: Place<'_>, filter: &ConnectionFilter, idle_for: Duration) -> Vec<Victim> {
    let filter = Filter::new(filter);
    let mut found = Vec::new();
    let silent = |millis: u64| u128::from(millis) >= idle_for.as_millis();
    each(place, &place.tables.v4, &filter, |row| {
        found.extend(victim(row.flow, place.directory, Pinned::V4).filter(|_| silent(quiet(&row, idle_for))));
    });
    each(place, &place.tables.v6, &filter, |row| {
        found.extend(victim(row.flow, place.directory, Pinned::V6).filter(|_| silent(quiet(&row, idle_for))));
    });
    found.extend(matching_sockets(place, &filter, idle_for));
    found
}

/// Open TCP connections of a service that have been silent for so long, by backend. Sockets of the node's processes aren't among them: how
/// long those have been silent nobody knows.
pub fn unused_of(place: Place<'_>, service: &str, idle_for: Duration) -> HashMap<BackendId, Vec<Victim>> {
    let filter = ConnectionFilter { service: Some(service.into()), ..ConnectionFilter::default() };
    let filter = Filter::new(&filter);
    let mut found = HashMap::<_, Vec<_>>::new();
    each(place, &place.tables.v4, &filter, |row| {
        found.entry(row.flow.backend).or_default().extend(unused(&row, place, idle_for, Pinned::V4));
    });
    each(place, &place.tables.v6, &filter, |row| {
        found.entry(row.flow.backend).or_default().extend(unused(&row, place, idle_for, Pinned::V6));
    });
    found
}

fn unused<A: Sweep>(
    row: &Match<'_, A>,
    place: Place<'_>,
    idle_for: Duration,
    pin: fn(Request<A>) -> Pinned,
) -> Option<Victim> {
    let open = row.word().phase() == Phase::ESTABLISHED;
    let silent = || u128::from(row.clock.millis(row.idle(&row.reply()).into())) >= idle_for.as_millis();
    if open && silent() { victim(row.flow, place.directory, pin) } else { None }
}

/// Sockets likewise. How long a connected one has been silent nobody knows: it isn't taken for idle.
fn matching_sockets(place: Place<'_>, filter: &Filter<'_>, idle_for: Duration) -> Vec<Victim> {
    let Place { clock, directory, .. } = place;
    let now = clock.now() as u32;
    let mut found = Vec::new();
    sockets::each(place, filter, |row| {
        let silent = clock.millis(idle(now, row.socket.pin.last_seen).into());
        let unused = row.socket.pin.connected == 0 && u128::from(silent) >= idle_for.as_millis();
        if idle_for.is_zero() || unused {
            found.extend(sockets::victim(&row.socket, row.known.as_ref(), directory));
        }
    });
    found
}

/// Milliseconds that a connection has been silent; not looked at if it doesn't matter.
fn quiet<A: Sweep>(row: &Match<'_, A>, idle_for: Duration) -> u64 {
    if idle_for.is_zero() { 0 } else { row.clock.millis(row.idle(&row.reply()).into()) }
}

/// Its victim, if it counts. What a packet may have changed since doesn't matter: only whether it is the same flow.
fn victim<A: Sweep>(flow: &Flow<A>, directory: &Directory, pin: fn(Request<A>) -> Pinned) -> Option<Victim> {
    let how = How::close(Word(flow.state), flow.proto)?;
    let service = directory.service(flow.backend).unwrap_or(ServiceId::MAX);
    Some(Victim { service, how, flow: pin(sweeper::request(flow, None)) })
}
