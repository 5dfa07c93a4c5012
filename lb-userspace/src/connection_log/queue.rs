//! What is to be written, between who hears of it and who writes: of fixed length, so that neither waits for the other and a
//! disk that stands still costs so much memory and no more.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use lb_common::abi::Event;
use tokio::sync::Notify;

/// Records that may wait: six seconds of 10,000 in each, and 8 MiB.
pub const ROOM: usize = 65_536;

/// A connection that has ended.
#[derive(Clone, Debug)]
pub struct Record {
    /// What the datapath has told.
    pub event: Event,
    /// Whose its backend was then; empty: nobody's. The name alone: a whole directory held by each record would be without bound.
    pub service: Arc<str>,
    /// The host that the backend was an address of, if it was declared by one.
    pub host: Option<Arc<str>>,
    /// When it ended.
    pub ended: SystemTime,
    /// How long it was open, in milliseconds.
    pub open: u64,
}

/// Where records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The datapath's ring buffer was full: the agent didn't come by in time.
    Ring,
    /// The queue was: what is to be written to takes less than comes.
    Queue,
    /// What is written to has refused them, for good.
    Refused,
}

impl Why {
    /// As in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring_full",
            Self::Queue => "queue_full",
            Self::Refused => "refused",
        }
    }
}

/// What becomes a line.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A connection.
    Ended(Record),
    /// Some of which no more is known.
    Lost {
        /// When the first of them was missed.
        since: SystemTime,
        /// How many.
        records: u64,
        /// Where.
        why: Why,
    },
}

/// See the module.
pub struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
    room: usize,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// Nothing more comes.
    closed: bool,
}

impl Queue {
    /// An empty one for so many records.
    pub fn with_room(room: usize) -> Self {
        Self { waiting: Mutex::default(), news: Notify::new(), room }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts records in, as far as there is room. How many were lost is among the entries, and returned.
    pub fn push(&self, records: impl IntoIterator<Item = Record>) -> u64 {
        let mut waiting = self.waiting();
        let mut lost = 0;
        for record in records {
            if waiting.entries.len() < self.room {
                waiting.entries.push_back(Entry::Ended(record));
            } else {
                waiting.lose(record.ended, 1, Why::Queue);
                lost += 1;
            }
        }
        drop(waiting);
        self.news.notify_one();
        lost
    }

    /// Notes that records were lost elsewhere.
    pub fn lose(&self, records: u64, why: Why) {
        self.waiting().lose(SystemTime::now(), records, why);
        self.news.notify_one();
    }

    /// The first so many entries.
    pub fn take(&self, most: usize) -> Vec<Entry> {
        let mut waiting = self.waiting();
        let count = waiting.entries.len().min(most);
        let taken = waiting.entries.drain(..count).collect();
        if waiting.entries.is_empty() {
            // What a stall has taken is given back.
            waiting.entries.shrink_to(most);
        }
        taken
    }

    /// Is there nothing to take?
    pub fn is_empty(&self) -> bool {
        self.waiting().entries.is_empty()
    }

    /// Throws away what there is. How many connections were among it.
    pub fn clear(&self) -> u64 {
        let entries = std::mem::take(&mut self.waiting().entries);
        entries.iter().filter(|entry| matches!(entry, Entry::Ended(_))).count() as u64
    }

    /// Done when there is something to take.
    pub async fn news(&self) {
        loop {
            let news = self.news.notified();
            if !self.is_empty() {
                return;
            }
            news.await;
        }
    }

    /// Nothing more comes, or more does again.
    pub fn close(&self, closed: bool) {
        self.waiting().closed = closed;
        self.news.notify_one();
    }

    /// Done when it was said that nothing more comes.
    pub async fn closed(&self) {
        loop {
            let news = self.news.notified();
            if self.waiting().closed {
                return;
            }
            news.await;
        }
    }
}

impl Waiting {
    /// One entry for all that are lost in a row, so that a queue that is full stays as long as it is.
    fn lose(&mut self, when: SystemTime, more: u64, reason: Why) {
        match self.entries.back_mut() {
            Some(Entry::Lost { records, why, .. }) if *why == reason => *records += more,
            _ => self.entries.push_back(Entry::Lost { since: when, records: more, why: reason }),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use lb_common::abi::What;

    use super::*;

    /// A connection that sent so many bytes, at the beginning of time.
    pub fn record(bytes: u64) -> Record {
        let event = Event { bytes_in: bytes, what: What::FINISHED, ..Event::default() };
        Record { event, service: Arc::default(), host: None, ended: SystemTime::UNIX_EPOCH, open: 7 }
    }

    fn said(entries: &[Entry]) -> Vec<String> {
        let word = |entry: &Entry| match entry {
            Entry::Ended(record) => record.event.bytes_in.to_string(),
            Entry::Lost { records, why, .. } => format!("{records} {}", why.name()),
        };
        entries.iter().map(word).collect()
    }

    #[test]
    fn what_finds_no_room_is_counted_where_it_is_missing() {
        let queue = Queue::with_room(3);
        assert_eq!(queue.push((0..5).map(record)), 2);
        assert_eq!(queue.push([record(5)]), 1);
        queue.lose(7, Why::Ring);
        queue.lose(1, Why::Ring);
        assert_eq!(said(&queue.take(2)), ["0", "1"]);
        assert_eq!(queue.push([record(6), record(7)]), 2, "what was lost takes room as well");
        assert_eq!(said(&queue.take(9)), ["2", "3 queue_full", "8 ring_full", "2 queue_full"]);
        assert_eq!(queue.push([record(8)]), 0);
        assert_eq!(said(&queue.take(9)), ["8"]);
        assert!(queue.take(9).is_empty());
    }

    #[tokio::test]
    async fn who_writes_is_told_of_what_there_is_and_of_the_end() {
        let queue = Queue::with_room(2);
        queue.push([record(1)]);
        queue.news().await;
        queue.news().await;
        queue.take(9);
        let mut news = Box::pin(queue.news());
        assert!(futures::poll!(&mut news).is_pending());
        queue.push([record(2)]);
        news.await;
        let mut end = Box::pin(queue.closed());
        assert!(futures::poll!(&mut end).is_pending());
        queue.close(true);
        end.await;
        queue.close(false);
        assert!(futures::poll!(Box::pin(queue.closed())).is_pending());
    }
}
