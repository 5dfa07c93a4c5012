//! The sweeper's working day: sweeps, counts and frees, until told to stop.

use std::{
    panic,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::handle::Handle;
use crate::{
    conntrack::{
        census::Recount,
        clients,
        handed::Handed,
        sweep::{self, Pass, Passed},
    },
    datapath::DatapathError,
};

/// How often the affinity table is looked through.
const CLIENTS: Duration = Duration::from_secs(2);

/// See the module.
pub async fn run(handle: Handle, mut stopped: watch::Receiver<bool>) {
    let (mut recount, mut handed) = (Recount::default(), Handed::default());
    let (mut wait, mut clients_due) = (Duration::ZERO, Instant::now());
    loop {
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            () = tokio::time::sleep(wait) => {}
        }
        let (shared, directory) = (handle.shared.clone(), handle.shared.directory());
        let look_at_clients = clients_due <= Instant::now();
        let (by, began) = (directory.clone(), Instant::now());
        let pass = tokio::task::spawn_blocking(move || {
            let (object, clock) = (&shared.object, shared.clock);
            let (tables, sockets) = (&shared.tables, &shared.sockets);
            let before = shared.maps.all_active(by.blocks())?;
            let Passed { mut census, found, handed: open, took } =
                Pass { object, tables, sockets, clock, directory: &by }.run()?;
            let after = shared.maps.all_active(by.blocks())?;
            let total = |id| shared.maps.counters(id).connections;
            census.drift = recount.drift(&before, &after, &census.counted, total);
            census.generation = shared.census().generation + 1;
            shared.closer.replace(found);
            shared.set_census(census, &by);
            if look_at_clients {
                let clients = clients::sweep(object, &shared.clients, clock, &shared.groups())?;
                shared.bound.store(clients, Ordering::Relaxed);
            }
            handed.set(&open);
            Ok::<_, DatapathError>((recount, handed, took))
        });
        match pass.await {
            Ok(Ok((again, kept, took))) => {
                (recount, handed) = (again, kept);
                wait = sweep::pause(took);
                if look_at_clients {
                    clients_due = Instant::now() + CLIENTS.max(began.elapsed() * 20);
                }
                let lacking = handle.shared.read().lacks_anything();
                if directory.leftovers || lacking {
                    let mut owner = handle.owner().lock().await;
                    owner.collect(&directory.retired);
                    owner.retry();
                }
            }
            Ok(Err(e)) => {
                tracing::error!("sweep: {e}");
                (recount, handed) = (Recount::default(), Handed::default());
                wait = sweep::pause(Duration::from_secs(1));
            }
            Err(e) if e.is_panic() => panic::resume_unwind(e.into_panic()),
            Err(_) => return,
        }
    }
}
