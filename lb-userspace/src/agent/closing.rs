//! The closer's working day: so many connections a second, for as long as any wait.

use std::{
    panic,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{down, shared::Shared};
use crate::{
    conntrack::closer::{Hands, PER_SECOND},
    datapath::provoke::Provoker,
};

/// Time between two batches.
const TICK: Duration = Duration::from_millis(10);
/// Time that may be made up for, if the machine is busy with other things.
const BEHIND: Duration = Duration::from_millis(200);

/// Closes until told to stop; who still waits then is told.
pub async fn run(shared: Arc<Shared>, stopped: watch::Receiver<bool>) {
    let stop = down(stopped);
    tokio::pin!(stop);
    let mut said = false;
    loop {
        tokio::select! {
            () = &mut stop => return shared.closer.end(),
            () = shared.closer.wanted() => {}
        }
        // Opened when it is wanted, since it may be refused today and granted tomorrow.
        let provoker = Provoker::open().inspect_err(|e| {
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(
                    "without CAP_NET_RAW ends of closed connections hear of it only when they next say something ({e})"
                );
            }
        });
        let provoker = provoker.ok().map(Arc::new);
        let mut paid = Instant::now() - TICK;
        loop {
            let now = Instant::now();
            paid = paid.max(now.checked_sub(BEHIND).unwrap_or(paid));
            let count = ((now - paid).as_secs_f64() * f64::from(PER_SECOND)) as usize;
            let (with, hand) = (shared.clone(), provoker.clone());
            let work = tokio::task::spawn_blocking(move || {
                let hands = Hands { object: &with.object, tables: &with.tables, provoker: hand.as_deref() };
                with.closer.work(count, &hands)
            });
            match work.await {
                Ok(done) if done < count => break,
                Ok(done) => paid += Duration::from_secs_f64(done as f64 / f64::from(PER_SECOND)),
                // Whoever asked was told when it let go of what it had.
                Err(e) if e.is_panic() => panic::resume_unwind(e.into_panic()),
                Err(_) => return,
            }
            tokio::select! {
                () = &mut stop => return shared.closer.end(),
                () = tokio::time::sleep(TICK) => {}
            }
        }
        // A few that come one by one are a batch as well.
        tokio::time::sleep(TICK).await;
    }
}
