//! Walks over the flow tables for connections that are to be closed, whatever they do.

use std::{collections::HashMap, time::Duration};

use lb_common::{
    abi::{BackendId, Flow, ServiceId, sweep::Request},
    flow_state::Word,
};

use super::{
    Directory,
    matches::{Filter, Match, Place, each},
    select::{Cause, How, Pinned, Victim},
};
use crate::{
    api::types::ConnectionFilter,
    datapath::{
        flows::{FlowTable, FlowTables},
        sweeper::{self, Sweep},
    },
};

/// Victims with one cause, of one service.
type ByService = HashMap<(Cause, ServiceId), Vec<Victim>>;

/// Connections that count and belong to these backends, in one walk.
pub fn of_backends(
    tables: &FlowTables,
    directory: &Directory,
    backends: &HashMap<BackendId, Cause>,
) -> ByService {
    let mut found = ByService::new();
    collect(&tables.v4, directory, backends, Pinned::V4, &mut found);
    collect(&tables.v6, directory, backends, Pinned::V6, &mut found);
    found
}

fn collect<A: Sweep>(
    table: &FlowTable<A>,
    directory: &Directory,
    backends: &HashMap<BackendId, Cause>,
    pin: fn(Request<A>) -> Pinned,
    found: &mut ByService,
) {
    table.walk(
        |flows| {
            for flow in flows.iter().filter(|flow| flow.direction.is_forward()) {
                if let Some(cause) = backends.get(&flow.backend)
                    && let Some(victim) = victim(flow, directory, pin)
                {
                    found.entry((*cause, victim.service)).or_default().push(victim);
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
