//! The connection log: a line of JSON for each balanced connection that has ended, as `[log] connections` says where.
//!
//! ```text
//! datapath ─ring─▶ agent::events ─▶ queue ─▶ writer ─▶ file | journal | collector
//!             │                       │
//!             └ counts what finds no room ┘ and so does the queue: said in the log, in the status and in the metrics
//! ```
//!
//! Whoever reads the ring never waits for whoever writes the lines: between them is a [`queue`] of fixed length. What is in hand
//! when writing fails is kept and tried again; what then finds no room is lost, and counted.

mod block;
mod file;
mod journal;
mod line;
mod otlp;
pub mod queue;
mod standing;
mod target;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::watch;

use self::queue::Queue;
pub use self::{
    line::{protocol, termination},
    queue::{Entry, Record, Why},
    standing::Standing,
    target::{LogSpec, Target},
    writer::{Hands, run},
};

/// What the two ends share.
pub struct ConnectionLog {
    /// Where lines go; `None`: nowhere. Sent anew when files are to be opened anew.
    spec: watch::Sender<Option<Arc<LogSpec>>>,
    queue: Queue,
    written: AtomicU64,
    lost: AtomicU64,
}

/// Records of ended connections since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Lines of them are written.
    pub written: u64,
    /// There is none, and there won't be.
    pub lost: u64,
}

impl Default for ConnectionLog {
    fn default() -> Self {
        Self::with_room(queue::ROOM)
    }
}

impl ConnectionLog {
    fn with_room(room: usize) -> Self {
        Self {
            spec: watch::channel(None).0,
            queue: Queue::with_room(room),
            written: AtomicU64::default(),
            lost: AtomicU64::default(),
        }
    }

    /// Lines go there from now on; files are opened anew.
    pub fn set(&self, spec: Option<Arc<LogSpec>>) {
        self.spec.send_replace(spec);
    }

    /// Has files opened anew.
    pub fn reopen(&self) {
        self.spec.send_modify(|_| {});
    }

    /// Is a log kept?
    pub fn is_kept(&self) -> bool {
        self.spec.borrow().is_some()
    }

    /// Connections that have ended, to be written when there is time.
    pub fn push(&self, records: impl IntoIterator<Item = Record>) {
        let lost = self.queue.push(records);
        self.lost.fetch_add(lost, Relaxed);
    }

    /// So many ended of which the datapath couldn't tell.
    pub fn lose(&self, records: u64) {
        self.queue.lose(records, Why::Ring);
        self.lost.fetch_add(records, Relaxed);
    }

    /// Nothing more comes: the agent is to end, or the log is switched off. Or more does again.
    pub fn close(&self, closed: bool) {
        self.queue.close(closed);
    }

    /// What became of records so far; `None`: no log is kept, and none was.
    pub fn totals(&self) -> Option<Totals> {
        let totals = Totals { written: self.written.load(Relaxed), lost: self.lost.load(Relaxed) };
        (self.is_kept() || totals != Totals::default()).then_some(totals)
    }
}
