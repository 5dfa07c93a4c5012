//! Writes lines, a block at a time, where they are wanted. What can't be written is kept in hand and tried again; more doesn't leave
//! the queue meanwhile.

use std::{
    io, panic,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use lb_common::abi::BackendId;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    ConnectionLog, LogSpec, Target, Why, block::Block, file::LogFile, journal::Journal, line::Around,
    otlp::Collector, queue,
};
use crate::agent::down;

/// Lines that are written together: 400 KiB of them, more or less.
const BATCH: usize = 1024;
/// When what has failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The same where the other end only has to take what it has.
const SOON: Duration = Duration::from_millis(10);
/// How long the last records may take when the agent ends or the log is switched off. The agent waits for its tasks a
/// little longer.
const LAST: Duration = Duration::from_secs(2);
/// How long of that is waited for whoever reads the ring.
const RING: Duration = Duration::from_millis(500);

/// What the writer needs of the agent.
pub struct Hands {
    /// Open connections of a backend.
    pub active: Box<dyn Fn(BackendId) -> u32 + Send + Sync>,
    /// Told how it stands when that changes: what is wrong, or that nothing is any more.
    pub note: Box<dyn Fn(Result<(), String>) + Send + Sync>,
}

/// Why something isn't written.
pub enum Failure {
    /// It may be later.
    Later(io::Error),
    /// So many never will, the others are.
    Never {
        /// How many, at most.
        refused: u64,
        /// Why.
        why: String,
    },
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Later(error)
    }
}

/// Where lines go.
enum Sink {
    File(LogFile),
    Journal(Journal),
    Otlp(Collector),
}

impl Sink {
    fn new(spec: &LogSpec) -> Self {
        match &spec.connections {
            Target::File(path) => Self::File(LogFile::new(path.clone())),
            Target::Journal => Self::Journal(Journal::default()),
            Target::Otlp(uri) => Self::Otlp(Collector::new(uri.clone(), spec.node.as_deref())),
        }
    }

    /// Writes the block, as far as it can be, where that holds nobody up. `anew`: what is open is opened anew before.
    async fn write(self, mut block: Block, anew: bool) -> (Self, Block, Result<(), Failure>) {
        if let Self::Otlp(mut collector) = self {
            let result = collector.write(&mut block).await;
            return (Self::Otlp(collector), block, result);
        }
        let mut sink = self;
        let work = tokio::task::spawn_blocking(move || {
            let result = match &mut sink {
                Self::File(file) if anew => file.reopen().and_then(|()| file.write(&mut block)),
                Self::File(file) => file.write(&mut block),
                Self::Journal(journal) => {
                    if anew {
                        journal.forget();
                    }
                    journal.write(&mut block)
                }
                Self::Otlp(_) => Ok(()),
            };
            (sink, block, result.map_err(Failure::Later))
        });
        match work.await {
            Ok(done) => done,
            Err(e) if e.is_panic() => panic::resume_unwind(e.into_panic()),
            // The runtime ends.
            Err(_) => std::future::pending().await,
        }
    }
}

struct Writer<'a> {
    log: &'a ConnectionLog,
    hands: &'a Hands,
    spec: Option<Arc<LogSpec>>,
    sink: Option<Sink>,
    /// What couldn't be written so far.
    held: Option<Block>,
    /// Connections among what is being written.
    writing: u64,
    /// Since when nothing can be.
    failing: Option<Instant>,
    /// Does the agent say so?
    noted: bool,
}

/// Goes on until told to stop, and then until what is known by then is written, or there is no more time for it.
pub async fn run(log: Arc<ConnectionLog>, hands: Hands, stopped: watch::Receiver<bool>) {
    let mut writer = Writer {
        log: &log,
        hands: &hands,
        spec: None,
        sink: None,
        held: None,
        writing: 0,
        failing: None,
        noted: false,
    };
    let late = async {
        down(stopped.clone()).await;
        sleep(LAST).await;
    };
    // Whatever is waited for by then: a collector that doesn't answer, or a disk that stands still.
    tokio::select! {
        () = writer.work(stopped.clone()) => {}
        () = late => {}
    }
    writer.give_up();
}

impl Writer<'_> {
    async fn work(&mut self, stopped: watch::Receiver<bool>) {
        let log = self.log;
        let mut specs = log.spec.subscribe();
        specs.mark_changed();
        let stop = down(stopped);
        tokio::pin!(stop);
        let mut again = None;
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = specs.changed() => {
                    let spec = specs.borrow_and_update().clone();
                    again = self.follow(spec).await;
                }
                () = log.queue.news(), if again.is_none() && self.sink.is_some() => again = self.round(false).await,
                () = sleep(again.unwrap_or_default()), if again.is_some() => again = self.round(false).await,
            }
        }
        self.finish().await;
    }

    /// Lines go there from now on. When to try again.
    async fn follow(&mut self, spec: Option<Arc<LogSpec>>) -> Option<Duration> {
        let target = |spec: &Option<Arc<LogSpec>>| spec.as_ref().map(|spec| spec.connections.clone());
        let same = target(&self.spec) == target(&spec);
        if spec.is_none() && self.spec.is_some() {
            let _ = timeout(LAST, self.finish()).await;
            self.give_up();
            self.well();
        }
        self.spec = spec;
        if !same {
            self.failing = None;
            self.sink = self.spec.as_deref().map(Sink::new);
            let shown = self.spec.as_ref().map_or("nowhere".into(), |spec| spec.connections.to_string());
            tracing::info!("lines of ended connections go to {shown}");
        }
        self.round(true).await
    }

    /// Writes a block, if there is one. When to try again what couldn't be written. `anew`: see [`Sink::write`].
    async fn round(&mut self, anew: bool) -> Option<Duration> {
        let (spec, sink) = (self.spec.clone()?, self.sink.take()?);
        let block = self.held.take().unwrap_or_else(|| {
            let around = Around { node: spec.node.as_deref(), active: &self.hands.active };
            Block::new(self.log.queue.take(BATCH), &around)
        });
        let (before, wanted) = block.connections();
        self.writing = wanted;
        let (sink, block, result) = sink.write(block, anew).await;
        (self.sink, self.writing) = (Some(sink), 0);
        let written = block.connections().0 - before;
        match result {
            Ok(()) => {
                self.log.written.fetch_add(written, Relaxed);
                self.well();
                None
            }
            Err(Failure::Later(error)) => {
                self.log.written.fetch_add(written, Relaxed);
                self.held = Some(block).filter(|block| !block.is_done());
                let full = error.kind() == io::ErrorKind::WouldBlock;
                let since = *self.failing.get_or_insert_with(Instant::now);
                if !full || since.elapsed() >= AGAIN {
                    self.ill(&spec, &error.to_string(), "it is tried again, and what comes meanwhile waits");
                }
                Some(if full { SOON } else { AGAIN })
            }
            Err(Failure::Never { refused, why }) => {
                let refused = refused.min(wanted);
                self.log.written.fetch_add(wanted - refused, Relaxed);
                if refused > 0 {
                    self.log.lost.fetch_add(refused, Relaxed);
                    self.log.queue.lose(refused, Why::Refused);
                }
                self.ill(&spec, &why, "what it refuses is lost; what comes meanwhile waits");
                Some(AGAIN)
            }
        }
    }

    /// Writes what there is, once nothing more comes. Where the other end only has to take what it has, it is tried again
    /// and again.
    async fn finish(&mut self) {
        // Whoever reads the ring takes what is in it before.
        let _ = timeout(RING, self.log.queue.closed()).await;
        while self.sink.is_some() && (self.held.is_some() || !self.log.queue.is_empty()) {
            match self.round(false).await {
                Some(SOON) => sleep(SOON).await,
                Some(_) if self.held.is_some() => return,
                _ => {}
            }
        }
    }

    /// What isn't written by now never will be.
    fn give_up(&mut self) {
        let held = self.held.take().map_or(0, |block| block.connections().1);
        let left = held + std::mem::take(&mut self.writing) + self.log.queue.clear();
        if left > 0 {
            self.log.lost.fetch_add(left, Relaxed);
            tracing::warn!("{left} lines of ended connections couldn't be written and are lost");
        }
    }

    fn well(&mut self) {
        self.failing = None;
        if std::mem::take(&mut self.noted) {
            tracing::info!("the connection log is written again");
            (self.hands.note)(Ok(()));
        }
    }

    fn ill(&mut self, spec: &LogSpec, error: &str, meanwhile: &str) {
        self.failing.get_or_insert_with(Instant::now);
        if std::mem::replace(&mut self.noted, true) {
            return;
        }
        let problem = format!(
            "connection log {}: {error}; {meanwhile}, up to {} records: mend it, or name another one in [log] and reload",
            spec.connections,
            queue::ROOM
        );
        tracing::warn!("{problem}");
        (self.hands.note)(Err(problem));
    }
}

#[cfg(test)]
mod tests;
