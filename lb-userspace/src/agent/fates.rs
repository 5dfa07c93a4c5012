//! Open connections of backends that are not to be used any more: keeps them, or resets both ends, as the service says.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_common::abi::BackendId;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{
    down,
    handle::Handle,
    shared::{Shared, State},
};
use crate::model::{AdminState, Fate, ServiceSpec};

/// How often somebody looks. A deadline is kept within twice this.
const LOOK: Duration = Duration::from_secs(1);

/// Looks until told to stop.
pub async fn run(handle: Handle, stopped: watch::Receiver<bool>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = look.tick() => {}
        }
        let due = due(&handle.shared);
        if due.is_empty() {
            continue;
        }
        let backends = due.len();
        match handle.close_backends(due).await {
            Ok(closed) => tracing::info!(closed = closed.closed, backends, "connections closed"),
            Err(e) => tracing::error!(backends, "connections can't be closed: {e:?}"),
        }
    }
}

/// Backends whose connections are to be closed now, and that have some.
fn due(shared: &Shared) -> HashSet<BackendId> {
    let state = shared.read();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let services =
        state.desired.services().values().map(Arc::as_ref).filter(|s| s.fates != Default::default());
    let departed = state.departed.iter().filter_map(|name| state.actual.service(name));
    services
        .flat_map(|service| of_service(&state, service, now))
        .chain(departed.flat_map(|service| service.backends.values().copied()))
        .filter(|id| shared.maps.active(*id) > 0)
        .collect()
}

fn of_service(state: &State, service: &ServiceSpec, now: Duration) -> Vec<BackendId> {
    let Some(actual) = state.actual.service(&service.name) else { return Vec::new() };
    let over = |(name, id): &(&String, &BackendId)| {
        let fate = match service.backends.get(*name) {
            None => service.fates.removal,
            // Its name is declared, and somebody else has it: this one is on its way out.
            Some(_) if state.actual.backend(**id).is_some_and(|b| b.retired != 0) => service.fates.removal,
            Some(backend) => match backend.admin {
                AdminState::Draining { since, deadline: Some(deadline) } if now >= since + deadline => {
                    service.fates.deadline
                }
                _ if !state.standings.of(&service.name, name).healthy => service.fates.unhealthy,
                _ => Fate::Keep,
            },
        };
        fate == Fate::Reset
    };
    actual.backends.iter().filter(over).map(|(_, id)| *id).collect()
}
