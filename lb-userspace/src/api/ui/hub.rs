//! What viewers share: counts are read once for all who see the same, and no oftener than a small part of a core allows.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};

use super::{
    frame::{self, Frame, Text},
    view::View,
};
use crate::{
    api::{
        control::Control,
        error::{ApiError, Refusal},
    },
    observe::{Overview, overview::cpu_time},
};

/// Viewers at a time: fewer than the listener has connections, so that scrapers and probes are always answered.
pub const VIEWERS: usize = 32;
/// How often viewers are shown something new.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long it is good for others. A bit less, so that nobody's turn comes just before the end.
const GOOD: Duration = Duration::from_millis(900);
/// The overview is made so seldom that it takes less than one part in so many of a core.
const OVERVIEW: u32 = 100;
/// Each view likewise.
const VIEW: u32 = 400;
/// Views that are kept: those of all viewers, and some that they have gone on from.
const KEPT: usize = 2 * VIEWERS;

/// See the module.
pub struct Hub<C> {
    control: C,
    /// Until nobody keeps it.
    pub stopped: watch::Receiver<()>,
    began: Instant,
    kept: Mutex<Kept>,
    viewers: Arc<Semaphore>,
}

#[derive(Default)]
struct Kept {
    node: Option<Good<Vec<Text<&'static str>>>>,
    overview: Option<Good<(Overview, Text<&'static str>)>>,
    frames: HashMap<View, Good<Frame>>,
}

/// Something, and for how long it is good.
struct Good<T> {
    value: Arc<T>,
    until: Instant,
}

impl<T> Good<T> {
    /// `cost`: CPU time that it took; `share`: of a core, it may take one part in so many.
    fn new(value: T, cost: Duration, share: u32) -> Self {
        Self { value: Arc::new(value), until: Instant::now() + GOOD.max(cost * share) }
    }

    fn get(kept: Option<&Self>) -> Option<Arc<T>> {
        kept.filter(|good| good.until > Instant::now()).map(|good| good.value.clone())
    }
}

/// Somebody who looks. When the last one goes, nothing is kept.
pub struct Viewer<C: Control> {
    /// Where to look.
    pub hub: Arc<Hub<C>>,
    _permit: OwnedSemaphorePermit,
}

impl<C: Control> Drop for Viewer<C> {
    fn drop(&mut self) {
        let last = self.hub.viewers.available_permits() + 1 == VIEWERS;
        // If it is locked, there is another one.
        if last && let Ok(mut kept) = self.hub.kept.try_lock() {
            *kept = Kept::default();
        }
    }
}

impl<C: Control> Hub<C> {
    /// For nobody yet.
    pub fn new(control: C, stopped: watch::Receiver<()>) -> Self {
        let viewers = Arc::new(Semaphore::new(VIEWERS));
        Self { control, stopped, began: Instant::now(), kept: Mutex::default(), viewers }
    }

    /// For somebody more.
    ///
    /// # Errors
    /// There are as many as may be.
    pub fn admit(self: &Arc<Self>) -> Result<Viewer<C>, Refusal> {
        let permit = self.viewers.clone().try_acquire_owned().map_err(|_| Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: format!(
                "{VIEWERS} viewers have the stats page open, which is the most there may be; close one"
            ),
        })?;
        Ok(Viewer { hub: self.clone(), _permit: permit })
    }

    /// What a view shows.
    ///
    /// # Errors
    /// There is no such service, or the kernel refuses.
    pub async fn frame(&self, view: &View) -> Result<Arc<Frame>, ApiError> {
        let mut kept = self.kept.lock().await;
        if let Some(frame) = Good::get(kept.frames.get(view)) {
            return Ok(frame);
        }
        let node = match Good::get(kept.node.as_ref()) {
            Some(node) => node,
            None => {
                let (status, drops) = (self.control.status().await?, self.control.drops().await);
                let node = Good::new(frame::node(&status, &drops), Duration::ZERO, VIEW);
                kept.node.insert(node).value.clone()
            }
        };
        let overview = match Good::get(kept.overview.as_ref()) {
            Some(overview) => overview,
            None => {
                let at = self.now();
                let made = self.control.overview().await?;
                let (text, cost) = (frame::overview(at, &made), made.cost);
                kept.overview.insert(Good::new((made, text), cost, OVERVIEW)).value.clone()
            }
        };
        let (frame, cost) = self.make(view, &node, &overview).await?;
        let good = Good::new(frame, cost, VIEW);
        let frame = good.value.clone();
        if kept.frames.len() >= KEPT {
            kept.frames.clear();
        }
        kept.frames.insert(view.clone(), good);
        Ok(frame)
    }

    async fn make(
        &self,
        view: &View,
        node: &[Text<&'static str>],
        (overview, summary): &(Overview, Text<&'static str>),
    ) -> Result<(Frame, Duration), ApiError> {
        let began = cpu_time();
        let part = view.services(overview);
        let names = match &view.service {
            Some(service) => vec![service.clone()],
            None => part.items.iter().map(ToString::to_string).collect(),
        };
        let found = cpu_time().saturating_sub(began);
        let at = self.now();
        let shown = self.control.shown(names).await?;
        // Again: another thread may have gone on.
        let began = cpu_time();
        let mut frame = Frame { at, parts: node.to_vec(), rows: Vec::new() };
        frame.parts.push(summary.clone());
        match (&view.service, shown.services.first()) {
            (None, _) => {
                let (list, rows) = frame::services(view, &part, &shown);
                frame.parts.push(list);
                frame.rows = rows;
            }
            (Some(_), Some(service)) => {
                let (parts, rows) = frame::service(view, service, &shown.durations);
                frame.parts.extend(parts);
                frame.rows = rows;
            }
            (Some(name), None) => {
                // It says why.
                return Err(self.control.service(name.clone()).await.err().unwrap_or_else(|| {
                    ApiError::NotFound(format!("service \"{name}\" has just been declared; look again"))
                }));
            }
        }
        Ok((frame, found + shown.cost + cpu_time().saturating_sub(began)))
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}
