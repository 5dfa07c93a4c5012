//! The sweeper: walks the tables in batches and has flows removed that were silent for too long.
//!
//! It only proposes. The kernel's side removes a flow if neither its state nor its stamps have changed since it was looked at,
//! by the same compare-and-swap that packets use.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lb_common::{
    abi::{BackendId, Direction, ServiceId},
    expiry::{Timeouts, idle},
    flow_state::{Phase, Word},
};

use super::Census;
use crate::datapath::{
    Clock, DatapathError,
    flows::{FlowTable, FlowTables},
    object::Object,
    sweeper::{self, Sweep},
};

/// Shortest time between passes.
const INTERVAL: Duration = Duration::from_secs(1);
/// A pass may take one part in so many of the time.
const SHARE: u32 = 20;

/// How long to wait after a pass that took `took`.
pub fn pause(took: Duration) -> Duration {
    INTERVAL.max(took * SHARE)
}

/// What a pass goes by.
pub struct Pass<'a> {
    /// Programs.
    pub object: &'a Mutex<Object>,
    /// Tables.
    pub tables: &'a FlowTables,
    /// Kernel time.
    pub clock: Clock,
    /// Idle timeouts of services that have their own, in milliseconds.
    pub idle: &'a HashMap<ServiceId, u64>,
    /// Services by backend.
    pub services: &'a HashMap<BackendId, ServiceId>,
}

impl Pass<'_> {
    /// Walks both tables, removes what is over, and counts.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&self) -> Result<(Census, Duration), DatapathError> {
        let start = Instant::now();
        let mut census = Census::default();
        self.table(&self.tables.v4, &mut census)?;
        self.table(&self.tables.v6, &mut census)?;
        Ok((census, start.elapsed()))
    }

    fn table<A: Sweep>(&self, table: &FlowTable<A>, census: &mut Census) -> Result<(), DatapathError> {
        let mut failure = None;
        table.walk(
            |flows| {
                let now = self.clock.now() as u32;
                let mut requests = Vec::new();
                for flow in flows {
                    if flow.direction != Direction::FORWARD {
                        continue;
                    }
                    census.flows += 1;
                    *census.pinned.entry(flow.backend).or_default() += 1;
                    let word = Word(flow.state);
                    if word.counted() {
                        *census.counted.entry(flow.backend).or_default() += 1;
                    }
                    let Some(limit) = self.limit(word, flow.backend) else { continue };
                    if self.millis(now, flow.last_seen) < limit {
                        continue;
                    }
                    let request = sweeper::request(table, flow);
                    if self.millis(now, request.seen_reply) >= limit {
                        requests.push(request);
                    }
                }
                if !requests.is_empty() {
                    let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
                    failure = failure.take().or(sweeper::remove(&object, &requests).err());
                }
            },
            std::thread::yield_now,
        );
        failure.map_or(Ok(()), Err)
    }

    fn millis(&self, now: u32, seen: u32) -> u64 {
        self.clock.millis(u64::from(idle(now, seen)))
    }

    fn limit(&self, word: Word, backend: BackendId) -> Option<u64> {
        let own = || self.services.get(&backend).and_then(|s| self.idle.get(s)).copied();
        match word.phase() {
            Phase::ESTABLISHED | Phase::UDP => own().or(Timeouts::DEFAULT.limit(word)),
            _ => Timeouts::DEFAULT.limit(word),
        }
    }
}
