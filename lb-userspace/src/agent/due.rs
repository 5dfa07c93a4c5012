//! Open connections of backends that are not to be used any more: kept, or reset at both ends, as the service says.
//! [`select::due`] knows whose are due, and the [closer](crate::conntrack::closer) closes them.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lb_common::abi::BackendId;
use tokio::sync::watch;

use super::{
    down,
    handle::{Handle, blocking},
    shared::Shared,
};
use crate::{
    conntrack::{
        select::{self, Cause, Closing, Due},
        victims,
    },
    model::uptime,
};

/// How often somebody looks, if no deadline is nearer.
const LOOK: Duration = Duration::from_secs(1);
/// When somebody looks again at backends of which no connection could be closed: connected sockets of pods can't.
const AGAIN: Duration = Duration::from_secs(10);

/// What was asked of the closer.
struct Asked {
    backends: HashSet<BackendId>,
    cause: Cause,
    result: Result<u64, String>,
}

/// Looks until told to stop.
pub async fn run(handle: Handle, stopped: watch::Receiver<bool>) {
    let mut asked: FuturesUnordered<BoxFuture<'static, Asked>> = FuturesUnordered::new();
    // Backends that need no look before then; `None`: not before the closer is done with them.
    let mut later: HashMap<BackendId, Option<Instant>> = HashMap::new();
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        later.retain(|_, until| until.is_none_or(|until| until > Instant::now()));
        let Due { backends, next } = due(&handle.shared);
        let open = |id: BackendId| handle.shared.maps.active(id) > 0;
        let due: HashMap<BackendId, Closing> =
            backends.into_iter().filter(|(id, _)| !later.contains_key(id) && open(*id)).collect();
        if !due.is_empty() {
            later.extend(due.keys().map(|id| (*id, Some(Instant::now() + LOOK))));
            for (backends, one) in ask(&handle, due).await {
                later.extend(backends.into_iter().map(|id| (id, None)));
                asked.push(one);
            }
        }
        let wait = next.map_or(LOOK, |next| next.saturating_sub(uptime::now()).min(LOOK));
        tokio::select! {
            () = &mut stop => return,
            Some(done) = asked.next() => note(done, &mut later),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn due(shared: &Shared) -> Due {
    let state = shared.read();
    let (known, actual) = (state.known(), state.actual());
    select::due(&known.desired, actual, &known.health, &known.departed, state.removals(), uptime::now())
}

/// Finds the connections of these backends, in one walk, and hands them to the closer, by cause and service.
async fn ask(
    handle: &Handle,
    due: HashMap<BackendId, Closing>,
) -> Vec<(Vec<BackendId>, BoxFuture<'static, Asked>)> {
    let shared = handle.shared.clone();
    let found = blocking(move || {
        let directory = shared.directory();
        let victims = victims::of_backends(shared.place(&directory), &due);
        (directory, due, victims)
    });
    let Ok((directory, due, mut victims)) = found.await else { return Vec::new() };
    let mut by: HashMap<_, HashSet<BackendId>> = HashMap::new();
    for (id, closing) in due {
        by.entry((closing.cause, directory.service(id))).or_default().insert(id);
    }
    let orders = by.into_iter().map(|((cause, service), backends)| {
        let victims = service.and_then(|service| victims.remove(&(cause, service))).unwrap_or_default();
        let (shared, ids) = (handle.shared.clone(), backends.iter().copied().collect());
        let order =
            async move { Asked { backends, cause, result: shared.closer.close(cause, victims).await } };
        (ids, order.boxed())
    });
    orders.collect()
}

fn note(Asked { backends, cause, result }: Asked, later: &mut HashMap<BackendId, Option<Instant>>) {
    let rest = match &result {
        Ok(0) => AGAIN,
        Ok(closed) => {
            tracing::info!(closed, backends = backends.len(), "connections closed: {}", cause.why());
            LOOK
        }
        Err(e) => {
            tracing::error!(backends = backends.len(), "connections can't be closed: {e}");
            LOOK
        }
    };
    later.extend(backends.into_iter().map(|id| (id, Some(Instant::now() + rest))));
}
