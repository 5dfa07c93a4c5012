//! What happens, for those who follow: flows from the datapath, and what the agent itself concludes. Followers share one channel; the
//! datapath writes records only while there is one, or a log of connections is kept.

mod ring;

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use futures::{
    StreamExt as _,
    future::ready,
    stream::{self, BoxStream},
};
use tokio::sync::broadcast::{self, error::RecvError};

pub use self::ring::run;
use super::handle::Handle;
use crate::api::{
    error::ApiError,
    types::{EventQuery, EventView},
};

/// Events that a follower may be behind.
const BEHIND: usize = 16_384;
/// The agent's own events that are kept for who comes later.
const KEPT: usize = 200;

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

    /// So many flows of which the datapath couldn't tell.
    fn missed(&self, events: u64) {
        // Nobody follows: nobody misses them.
        let _ = self.followers.send(gap(events));
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
                Err(RecvError::Lagged(lost)) => gap(lost),
                Err(RecvError::Closed) => return None,
            };
            Some((event, from))
        });
        Ok(all.filter(move |e| ready(e.kind == "gap" || wanted(e))).boxed())
    }
}

/// What a follower is told of events that he doesn't get.
fn gap(lost: u64) -> EventView {
    let detail = Some(format!("{lost} events lost: they come faster than they are taken"));
    EventView { time: now(), kind: "gap".into(), detail, ..EventView::default() }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
