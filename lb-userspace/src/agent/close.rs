//! Connections that an operator wants closed: found once, handed to the closer at the rate that was asked for.

use std::time::{Duration, Instant};

use super::handle::{Handle, blocking};
use crate::{
    api::{
        error::ApiError,
        types::{Closed, ConnectionClose},
    },
    conntrack::{closer::PER_SECOND, matches, select::Cause, victims},
    datapath::provoke::Provoker,
};

/// Parts of a second: what is due in one is handed in together.
const PARTS: u32 = 20;
/// Connections a second, unless somebody says otherwise.
const RATE: u32 = 1_000;

impl Handle {
    /// Closes the connections that match, at a rate. Returns when all are.
    ///
    /// # Errors
    /// The filter is wrong, or matches everything.
    pub async fn close_connections(&self, close: ConnectionClose) -> Result<Closed, ApiError> {
        matches::check(&close.filter).map_err(ApiError::Invalid)?;
        if close.filter == Default::default() {
            return Err(ApiError::Invalid(
                "closing every connection is not offered; name a service, a backend, a client or a state"
                    .into(),
            ));
        }
        if let Some(service) = &close.filter.service {
            self.service(service)?;
        }
        let rate = close.rate.unwrap_or(RATE);
        if rate == 0 {
            return Err(ApiError::Invalid("rate 0 closes nothing; use 1 or more a second".into()));
        }
        // The closer has no more for all who ask it.
        let rate = rate.min(PER_SECOND);
        let idle_for = Duration::from_secs(close.idle_seconds.unwrap_or(0));
        let shared = self.shared.clone();
        let found = move || {
            let directory = shared.directory();
            victims::matching(shared.place(&directory), &close.filter, idle_for)
        };
        let victims = blocking(found).await?;
        let warning = Provoker::open().err().map(|e| {
            format!("without CAP_NET_RAW both ends hear of it only when they next say something ({e})")
        });
        let began = Instant::now();
        let (mut done, mut closed) = (0, 0);
        for some in victims.chunks((rate / PARTS).max(1) as usize) {
            closed +=
                self.shared.closer.close(Cause::Operator, some.to_vec()).await.map_err(ApiError::Failed)?;
            done += some.len();
            let due = began + Duration::from_secs_f64(done as f64 / f64::from(rate));
            tokio::time::sleep_until(due.into()).await;
        }
        tracing::info!(closed, "connections closed on request");
        Ok(Closed { closed, warning })
    }
}
