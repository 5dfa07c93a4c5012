//! Backends from which nothing comes back: clients ask and ask again, and no packet of an answer passes the node, while
//! a check from the node itself may well be good.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use lb_common::abi::{BackendCounters, BackendId};
use tokio::sync::watch;

use super::{
    down,
    handle::Handle,
    shared::{Shared, State},
};
use crate::model::{Frontend, Protocol};

/// How often somebody looks.
const EVERY: Duration = Duration::from_secs(5);
/// The same while there is such a backend, so that it is known soon when it answers.
const SOON: Duration = Duration::from_secs(1);
/// So many SYNs were repeated, and nothing has come back since before the first: then nothing does.
const ENOUGH: u64 = 3;

/// What was seen of a backend when something had come back last, or first.
#[derive(Clone, Copy)]
struct Seen {
    out: u64,
    unanswered: u64,
}

/// See the module. By backends.
#[derive(Default)]
struct Watch(HashMap<BackendId, Seen>);

impl Watch {
    /// A backend's counters are these now. Does nothing come back from it?
    fn observe(&mut self, backend: BackendId, counters: &BackendCounters) -> bool {
        let BackendCounters { packets_out: out, unanswered, .. } = *counters;
        // Nothing ever came: then all of them count. Of what was before the first look nothing else is known.
        let first = Seen { out, unanswered: if out == 0 { 0 } else { unanswered } };
        let seen = self.0.entry(backend).or_insert(first);
        if seen.out != out {
            *seen = Seen { out, unanswered };
        }
        unanswered.saturating_sub(seen.unanswered) >= ENOUGH
    }
}

/// Looks until told to stop.
pub async fn run(handle: Handle, stopped: watch::Receiver<bool>) {
    let mut watch = Watch::default();
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        let pause = if handle.shared.read().one_way.is_empty() { EVERY } else { SOON };
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(pause) => look(&handle.shared, &mut watch),
        }
    }
}

/// A backend by name, of a service.
type Name = (String, String);

fn look(shared: &Shared, watch: &mut Watch) {
    let (candidates, before) = {
        let state = shared.read();
        (candidates(shared, &state), state.one_way.clone())
    };
    let ids: Vec<BackendId> = candidates.iter().map(|(id, _)| *id).collect();
    let counters = match shared.maps.counters_of(&ids) {
        Ok(counters) => counters,
        Err(e) => return tracing::error!("backends' answers aren't watched: {e}"),
    };
    let found = candidates.iter().zip(&counters).filter(|((id, _), counters)| watch.observe(*id, counters));
    let now: BTreeSet<Name> = found.map(|((_, name), _)| name.clone()).collect();
    let known: BTreeSet<BackendId> = ids.into_iter().collect();
    watch.0.retain(|id, _| known.contains(id));
    if now == before {
        return;
    }
    for (service, backend) in now.difference(&before) {
        tracing::warn!(service, backend, "one-way: clients ask, and nothing comes back");
        shared.log.note("one-way", service, backend, "clients ask, and nothing comes back");
    }
    for (service, backend) in before.difference(&now) {
        tracing::info!(service, backend, "no longer one-way");
        shared.log.note("answers", service, backend, "no longer one-way");
    }
    shared.write().set_one_way(now);
}

/// Backends that clients use now, or that were one-way: of services whose answers come back by the node. Whether a
/// datagram is to be answered nobody knows.
fn candidates(shared: &Shared, state: &State) -> Vec<(BackendId, Name)> {
    let mut found = Vec::new();
    for spec in state.desired.services().values().filter(|spec| !spec.is_direct()) {
        let tcp = |frontend: &Frontend| frontend.ports.iter().any(|port| port.protocol() == Protocol::Tcp);
        let Some(actual) = state.actual().service(&spec.name).filter(|_| spec.frontends.iter().any(tcp))
        else {
            continue;
        };
        for (backend, id) in &actual.backends {
            let name = || (spec.name.clone(), backend.clone());
            // Who fails its checks is known to be gone.
            if !state.health.of(&spec.name, backend).healthy {
                continue;
            }
            if shared.maps.active(*id) > 0 || (!state.one_way.is_empty() && state.one_way.contains(&name())) {
                found.push((*id, name()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_three_that_ask_again_and_nothing_that_comes_back() {
        let mut watch = Watch::default();
        let mut see = |packets_out, unanswered| {
            let counters = BackendCounters { packets_out, unanswered, ..BackendCounters::default() };
            watch.observe(BackendId::new(1, 0), &counters)
        };
        assert!(!see(7, 500), "long ago");
        assert!(!see(7, 502));
        assert!(see(7, 503));
        assert!(see(7, 503), "it stays so while nothing comes");
        assert!(!see(8, 503));
        assert!(!see(9, 600), "something came meanwhile");
        assert!(see(9, 603));
        let never = BackendCounters { unanswered: 3, ..BackendCounters::default() };
        assert!(watch.observe(BackendId::new(2, 0), &never), "it has never said anything");
    }
}
