//! When something is to be done for each of many.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A moment for each key, the earliest first.
#[derive(Clone, Debug)]
pub(crate) struct Timers<K> {
    at: BTreeMap<K, Duration>,
    queue: BTreeSet<(Duration, K)>,
}

impl<K: Copy + Ord> Timers<K> {
    pub(crate) const fn new() -> Self {
        Self { at: BTreeMap::new(), queue: BTreeSet::new() }
    }

    /// At this moment, instead of any other; `None`: not at all.
    pub(crate) fn set(&mut self, key: K, at: Option<Duration>) {
        let before = match at {
            Some(at) => self.at.insert(key, at),
            None => self.at.remove(&key),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.queue.remove(&(before, key));
        }
        if let Some(at) = at {
            self.queue.insert((at, key));
        }
    }

    /// The next that is due, which it isn't any more then.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<K> {
        let (at, key) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.queue.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_first_and_the_last_word_counts() {
        let at = Duration::from_millis;
        let mut timers = Timers::new();
        timers.set('a', Some(at(5)));
        timers.set('b', Some(at(3)));
        timers.set('c', Some(at(4)));
        timers.set('b', Some(at(9)));
        timers.set('c', None);
        assert_eq!(timers.next(), Some(at(5)));
        assert_eq!(timers.take_due(at(4)), None);
        assert_eq!(timers.take_due(at(10)), Some('a'));
        assert_eq!(timers.take_due(at(10)), Some('b'));
        assert_eq!(timers.take_due(at(10)), None);
        assert_eq!(timers.next(), None);
    }
}
