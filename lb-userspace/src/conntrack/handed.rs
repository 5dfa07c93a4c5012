//! Ports of connections whose service isn't ours any more: whoever has it now masquerades to ports of the node's, and must
//! not take one of theirs. nf_conntrack doesn't see them by their ports; so an entry there stands for each while it is open.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::{Duration, Instant},
};

use crate::datapath::tracked::{Tracked, Tuple};

/// How long an entry lasts when nobody renews it, because the agent has ended.
const LASTING: Duration = Duration::from_secs(600);
/// When it is renewed.
const RENEWED: Duration = Duration::from_secs(120);

/// Entries that were made.
#[derive(Default)]
pub struct Handed {
    way: Option<Tracked>,
    /// When each was made or renewed. `None`: another's connection has that port; there is nothing to keep.
    kept: HashMap<Tuple, Option<Instant>>,
    /// It was said that it can't be done.
    said: bool,
}

impl Handed {
    /// As a walk found them: new ones are entered, those that are there are renewed, others go.
    pub fn set(&mut self, found: &HashSet<Tuple>) {
        match self.try_to_set(found) {
            Ok(()) => self.said = false,
            Err(e) if !self.said => {
                tracing::warn!("others may be given the ports of connections that were handed over: {e}");
                self.said = true;
            }
            Err(_) => {}
        }
    }

    fn try_to_set(&mut self, found: &HashSet<Tuple>) -> io::Result<()> {
        if found.is_empty() && self.kept.is_empty() {
            return Ok(());
        }
        if self.way.is_none() {
            self.way = Tracked::open()?;
        }
        let Some(way) = &self.way else { return Ok(()) };
        let now = Instant::now();
        let over: Vec<Tuple> = self.kept.keys().filter(|tuple| !found.contains(tuple)).copied().collect();
        let made_by_us: Vec<Tuple> =
            over.iter().filter(|tuple| self.kept[*tuple].is_some()).copied().collect();
        way.remove(&made_by_us)?;
        over.iter().for_each(|tuple| {
            self.kept.remove(tuple);
        });
        let new: Vec<Tuple> = found.iter().filter(|tuple| !self.kept.contains_key(tuple)).copied().collect();
        for (tuple, made) in new.iter().zip(way.make(&new, LASTING)?) {
            self.kept.insert(*tuple, made.then_some(now));
        }
        let due = |since: &Option<Instant>| since.is_some_and(|since| now - since >= RENEWED);
        let old: Vec<Tuple> =
            self.kept.iter().filter(|(_, since)| due(since)).map(|(tuple, _)| *tuple).collect();
        for (tuple, there) in old.iter().zip(way.keep(&old, LASTING)?) {
            // Somebody has removed it: it is made again by the next walk.
            if there {
                self.kept.insert(*tuple, Some(now))
            } else {
                self.kept.remove(tuple)
            };
        }
        Ok(())
    }
}
