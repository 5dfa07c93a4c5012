//! Reads the datapath's ring buffer, for those who follow and for the log of connections.

use std::{
    future::ready,
    iter,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lb_common::{
    abi::{Event, What, event::listen, limits},
    expiry,
};
use tokio::{io::unix::AsyncFd, sync::watch};

use crate::{
    agent::{down, handle::Handle, shared::Shared},
    api::types::EventView,
    connection_log::{Record, Standing, protocol, termination},
    conntrack::Directory,
    datapath::events::{Events, Lost, socket},
};

/// Records that are taken at a time.
const BATCH: usize = 256;
/// As many times [`BATCH`] are in the buffer at most.
const FULL: u32 = limits::EVENT_BYTES / (size_of::<Event>() * BATCH) as u32 + 1;
/// How often is looked whether anybody follows. Records that nobody waits for are taken as often: the buffer has room for those of
/// 400,000 connections that end in each second.
const LOOK: Duration = Duration::from_millis(100);

/// Hands on what the datapath tells, until told to stop.
pub async fn run(handle: Handle, events: Events, stopped: watch::Receiver<bool>) {
    // SAFETY: the reader owns its descriptor, always the same one, for as long as it lives.
    let mut events = match unsafe { AsyncFd::register(events) } {
        Ok(events) => events,
        Err(e) => return tracing::error!("events can't be read: {e}"),
    };
    let shared = &*handle.shared;
    let (mut listening, mut standing) = (None, Standing::default());
    let mut look = tokio::time::interval(LOOK);
    let stop = down(stopped);
    tokio::pin!(stop);
    let mut more = false;
    // Are records for the log? Switched on and off when it is looked.
    let mut kept = shared.connection_log.is_kept();
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = look.tick() => {
                if kept != shared.connection_log.is_kept() {
                    if kept {
                        // What has ended by now has its line.
                        hand_on_all(shared, events.get_mut(), kept);
                    }
                    shared.connection_log.close(kept);
                    kept = !kept;
                }
                let wanted = wanted(shared, kept);
                if listening != Some(wanted) {
                    match events.get_mut().listen(wanted) {
                        Ok(()) => listening = Some(wanted),
                        Err(e) => tracing::error!("events: {e}"),
                    }
                }
                if wanted != 0 {
                    more = hand_on(shared, events.get_mut(), kept);
                    tell_lost(shared, events.get_mut(), kept);
                }
                if let Some(totals) = shared.connection_log.totals()
                    && let Some(problem) = standing.look(totals, Instant::now())
                {
                    shared.write().note("lost records", problem);
                }
            }
            () = ready(()), if more => more = hand_on(shared, events.get_mut(), kept),
            readable = events.readable_mut(), if !more => {
                let Ok(mut readable) = readable else { break };
                more = hand_on(shared, readable.get_inner_mut(), kept);
                if !more {
                    readable.clear_ready();
                }
            }
        }
        if more {
            // Under a flood there always are, and others have their turn all the same.
            tokio::task::yield_now().await;
        }
    }
    // What ends from now on is for the next agent, if it keeps a log as well.
    let next = if shared.connection_log.is_kept() { listen::ENDED } else { 0 };
    hand_on_all(shared, events.get_mut(), kept);
    let _ = events.get_mut().listen(next);
    shared.connection_log.close(true);
}

/// What is wanted of the datapath.
fn wanted(shared: &Shared, kept: bool) -> u32 {
    match (shared.log.followed(), kept) {
        (true, _) => listen::OPENED | listen::ENDED,
        (false, true) => listen::ENDED,
        (false, false) => 0,
    }
}

/// Hands on all that there is by now.
fn hand_on_all(shared: &Shared, events: &mut Events, kept: bool) {
    let _ = (0..FULL).find(|_| !hand_on(shared, events, kept));
    tell_lost(shared, events, kept);
}

/// Hands on some of what there is; to the log, if one is `kept`. True: there may be more.
fn hand_on(shared: &Shared, events: &mut Events, kept: bool) -> bool {
    let Some(first) = events.take() else { return false };
    let (directory, moment) = (shared.directory(), Moment::now(shared));
    let followed = shared.log.followed();
    let mut ended = Vec::new();
    let mut taken = 0;
    for event in iter::once(first).chain(iter::from_fn(|| events.take())).take(BATCH) {
        taken += 1;
        if followed {
            // Who has gone meanwhile hears nothing.
            let _ = shared.log.followers.send(moment.view(&event, &directory));
        }
        // Flows past us are no service's.
        if kept && event.what != What::OPENED && event.backend.block() != 0 {
            ended.push(moment.record(event, &directory));
        }
    }
    if !ended.is_empty() {
        shared.connection_log.push(ended);
    }
    taken == BATCH
}

/// Tells whom it concerns of records that found no room.
fn tell_lost(shared: &Shared, events: &mut Events, kept: bool) {
    match events.lost() {
        Ok(Lost { opened: 0, ended: 0 }) => {}
        Ok(Lost { opened, ended }) => {
            shared.log.missed(opened + ended);
            if ended > 0 && kept {
                shared.connection_log.lose(ended);
            }
        }
        Err(e) => tracing::error!("events: {e}"),
    }
}

/// When records are looked at: by the clock on the wall, and by the kernel's.
struct Moment<'a> {
    shared: &'a Shared,
    wall: SystemTime,
    jiffies: u64,
}

impl<'a> Moment<'a> {
    fn now(shared: &'a Shared) -> Self {
        Self { shared, wall: SystemTime::now(), jiffies: shared.clock.now() }
    }

    /// When something happened, and how old the flow was then, in milliseconds.
    fn times(&self, event: &Event) -> (SystemTime, u64) {
        let (since, open) = expiry::ended(self.jiffies, event);
        let millis = |ticks| self.shared.clock.millis(ticks);
        (self.wall.checked_sub(Duration::from_millis(millis(since))).unwrap_or(self.wall), millis(open))
    }

    fn record(&self, event: Event, directory: &Directory) -> Record {
        let ((ended, open), (service, host)) = (self.times(&event), directory.owner(event.backend));
        Record { event, service, host, ended, open }
    }

    fn view(&self, event: &Event, directory: &Directory) -> EventView {
        let opened = event.what == What::OPENED;
        let (at, open) = self.times(event);
        EventView {
            time: at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            kind: if opened { "open" } else { "close" }.into(),
            service: directory.name(event.backend).to_string(),
            backend: socket(event, event.target, event.target_port).to_string(),
            detail: None,
            client: Some(socket(event, event.client, event.client_port).to_string()),
            vip: Some(socket(event, event.vip, event.vip_port).to_string()),
            protocol: Some(protocol(event.proto).into()),
            reason: Some(termination(event.what).to_string()).filter(|reason| !reason.is_empty()),
            duration_seconds: (!opened).then_some(open as f64 / 1000.0),
            bytes_in: (!opened).then_some(event.bytes_in),
            bytes_out: (!opened).then_some(event.bytes_out),
        }
    }
}
