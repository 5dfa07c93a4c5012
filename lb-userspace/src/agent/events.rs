//! What happens, for those who follow: flows from the datapath, and what the agent itself concludes. Followers share one channel; the
//! datapath writes records only while there is one.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{
    StreamExt as _,
    future::ready,
    stream::{self, BoxStream},
};
use lb_common::{
    abi::{Event, Proto, What},
    expiry::age,
};
use tokio::{
    io::unix::AsyncFd,
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
};

use super::{down, handle::Handle, shared::Shared};
use crate::{
    api::{
        error::ApiError,
        types::{EventQuery, EventView},
    },
    datapath::events::{Events, socket},
};

/// Events that a follower may be behind.
const BEHIND: usize = 16_384;
/// The agent's own events that are kept for who comes later.
const KEPT: usize = 200;
/// Records that are taken at a time.
const BATCH: usize = 256;
/// How often is looked whether anybody follows.
const LOOK: Duration = Duration::from_millis(100);

/// The channel.
pub struct Log {
    followers: broadcast::Sender<EventView>,
    kept: Mutex<VecDeque<EventView>>,
}

impl Default for Log {
    fn default() -> Self {
        Self { followers: broadcast::channel(BEHIND).0, kept: Mutex::default() }
    }
}

impl Log {
    /// Something that the agent did or concluded about a backend.
    pub fn note(&self, kind: &str, service: &str, backend: &str, detail: impl Into<String>) {
        let event = EventView {
            time: now(),
            kind: kind.into(),
            service: service.into(),
            backend: backend.into(),
            detail: Some(detail.into()).filter(|d| !d.is_empty()),
            ..EventView::default()
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Nobody follows: nobody hears.
        let _ = self.followers.send(event);
    }

    /// The agent's own events of late, oldest first.
    pub fn kept(&self) -> Vec<EventView> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// All events from now on.
    pub fn follow(&self) -> broadcast::Receiver<EventView> {
        self.followers.subscribe()
    }

    fn followed(&self) -> bool {
        self.followers.receiver_count() > 0
    }
}

impl Handle {
    /// The agent's own events of late, or all events from now on.
    ///
    /// # Errors
    /// There is no such service.
    pub fn events(&self, query: EventQuery) -> Result<BoxStream<'static, EventView>, ApiError> {
        if let Some(service) = &query.service {
            self.service(service)?;
        }
        let wanted = move |event: &EventView| query.service.as_ref().is_none_or(|s| *s == event.service);
        if !query.follow {
            return Ok(stream::iter(self.shared.log.kept()).filter(move |e| ready(wanted(e))).boxed());
        }
        let all = stream::unfold(self.shared.log.follow(), |mut from| async {
            let event = match from.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(lost)) => {
                    let detail = Some(format!("{lost} events lost: they come faster than they are taken"));
                    EventView { time: now(), kind: "gap".into(), detail, ..EventView::default() }
                }
                Err(RecvError::Closed) => return None,
            };
            Some((event, from))
        });
        Ok(all.filter(move |e| ready(e.kind == "gap" || wanted(e))).boxed())
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Hands on what the datapath tells, until told to stop.
pub async fn run(handle: Handle, events: Events, stopped: watch::Receiver<bool>) {
    // SAFETY: the reader owns its descriptor, always the same one, for as long as it lives.
    let mut events = match unsafe { AsyncFd::register(events) } {
        Ok(events) => events,
        Err(e) => return tracing::error!("events can't be read: {e}"),
    };
    let mut listening = false;
    let mut look = tokio::time::interval(LOOK);
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        let more = tokio::select! {
            () = &mut stop => break,
            _ = look.tick() => {
                let followed = handle.shared.log.followed();
                if followed != listening {
                    listening = followed;
                    if let Err(e) = events.get_mut().listen(listening) {
                        tracing::error!("events: {e}");
                    }
                }
                false
            }
            ready = events.readable_mut() => {
                let Ok(mut ready) = ready else { break };
                let more = hand_on(&handle.shared, ready.get_inner_mut());
                if !more {
                    ready.clear_ready();
                }
                more
            }
        };
        if more {
            // Under a flood there always are, and others have their turn all the same.
            tokio::task::yield_now().await;
        }
    }
    let _ = events.get_mut().listen(false);
}

/// Hands on some of what there is. True: there may be more.
fn hand_on(shared: &Shared, events: &mut Events) -> bool {
    let directory = shared.directory();
    for _ in 0..BATCH {
        let Some(event) = events.take() else { return false };
        let service = directory.name(event.backend).to_string();
        // Nobody follows: nobody hears.
        let _ = shared.log.followers.send(view(shared, &event, service));
    }
    true
}

fn view(shared: &Shared, event: &Event, service: String) -> EventView {
    let opened = event.what == What::OPENED;
    let reason = match event.what {
        What::FINISHED => "finished",
        What::CLIENT_RESET => "client_reset",
        What::BACKEND_RESET => "backend_reset",
        What::CLOSED => "closed",
        What::REMOVED => "expired",
        _ => "",
    };
    EventView {
        time: now(),
        kind: if opened { "open" } else { "close" }.into(),
        service,
        backend: socket(event, event.target, event.target_port).to_string(),
        detail: None,
        client: Some(socket(event, event.client, event.client_port).to_string()),
        vip: Some(socket(event, event.vip, event.vip_port).to_string()),
        protocol: Some(if event.proto == Proto::TCP { "tcp" } else { "udp" }.into()),
        reason: Some(reason.to_string()).filter(|r| !r.is_empty()),
        duration_seconds: (!opened).then(|| shared.clock.seconds(age(shared.clock.now(), event.created))),
        bytes_in: (!opened).then_some(event.bytes_in),
        bytes_out: (!opened).then_some(event.bytes_out),
    }
}
