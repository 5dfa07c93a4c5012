//! Closes connections: the datapath is told, then both ends are made to say something, which it answers with a RST. At a rate, so
//! that a node isn't busy with it and servers aren't overrun by what comes back.

use std::{
    collections::HashSet,
    sync::PoisonError,
    time::{Duration, Instant},
};

use lb_common::abi::{BackendId, Flow, Proto};

use super::{
    handle::{Handle, blocking},
    shared::Shared,
};
use crate::{
    api::{
        error::ApiError,
        types::{Closed, ConnectionClose},
    },
    conntrack::ends,
    datapath::{
        DatapathError,
        flows::FlowTable,
        provoke::Provoker,
        sweeper::{self, Sweep},
    },
    observe::connections::{self, Victims},
};

/// Connections closed between two looks at the clock, at most.
const BATCH: usize = 32;
/// Connections a second, unless somebody says otherwise.
const RATE: u32 = 1_000;

impl Handle {
    /// Closes the connections that match, at a rate. Returns when all are.
    ///
    /// # Errors
    /// The filter is wrong, or matches everything.
    pub async fn close_connections(&self, close: ConnectionClose) -> Result<Closed, ApiError> {
        connections::check(&close.filter).map_err(ApiError::Invalid)?;
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
        let idle_for = Duration::from_secs(close.idle_seconds.unwrap_or(0));
        let shared = self.shared.clone();
        let filter = close.filter;
        let victims = blocking(move || shared.victims(&filter, idle_for)).await?;
        let closed = self.close_all(victims, rate).await?;
        tracing::info!(closed = closed.closed, "connections closed on request");
        Ok(closed)
    }

    /// Closes what belongs to these backends.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn close_backends(&self, backends: HashSet<BackendId>) -> Result<Closed, ApiError> {
        let shared = self.shared.clone();
        let victims = blocking(move || shared.victims_of(&backends)).await?;
        self.close_all(victims, RATE).await
    }

    async fn close_all(&self, victims: Victims, rate: u32) -> Result<Closed, ApiError> {
        let provoker = Provoker::open();
        let warning = provoker.as_ref().err().map(|e| {
            format!("without CAP_NET_RAW both ends hear of it only when they next say something ({e})")
        });
        let mut pace = Pace { started: Instant::now(), done: 0, rate };
        let mut closed = 0;
        let step = (rate as usize / 20).clamp(1, BATCH);
        for flows in victims.v4.chunks(step) {
            closed += some(&self.shared, &self.shared.tables.v4, flows, provoker.as_ref().ok())?;
            pace.wait(flows.len()).await;
        }
        for flows in victims.v6.chunks(step) {
            closed += some(&self.shared, &self.shared.tables.v6, flows, provoker.as_ref().ok())?;
            pace.wait(flows.len()).await;
        }
        Ok(Closed { closed, warning })
    }
}

/// A rate.
struct Pace {
    started: Instant,
    done: usize,
    rate: u32,
}

impl Pace {
    /// Waits until it is time for more.
    async fn wait(&mut self, done: usize) {
        self.done += done;
        let due = Duration::from_secs_f64(self.done as f64 / f64::from(self.rate));
        tokio::time::sleep_until((self.started + due).into()).await;
    }
}

/// Closes some; how many there still were.
fn some<A: Sweep>(
    shared: &Shared,
    table: &FlowTable<A>,
    flows: &[Flow<A>],
    provoker: Option<&Provoker>,
) -> Result<u64, ApiError> {
    let failed = |e: DatapathError| ApiError::Failed(e.to_string());
    let (tcp, udp): (Vec<&Flow<A>>, Vec<&Flow<A>>) = flows.iter().partition(|f| f.proto == Proto::TCP);
    let request = |flow: &&Flow<A>| sweeper::request(flow, table.reply(flow).as_ref());
    let asked = |flows: &[&Flow<A>]| flows.iter().map(request).collect::<Vec<_>>();
    let closed = {
        let object = shared.object.lock().unwrap_or_else(PoisonError::into_inner);
        sweeper::close(&object, &asked(&tcp)).map_err(failed)?
            + sweeper::remove(&object, &asked(&udp)).map_err(failed)?
    };
    if let Some(provoker) = provoker {
        tcp.into_iter().for_each(|flow| ends::tell(provoker, table, flow));
    }
    Ok(closed.into())
}
