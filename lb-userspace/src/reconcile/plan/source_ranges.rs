//! Whose flows are taken: numbers of source ranges, and the prefixes under each.
//!
//! Frontends of a service that are for the same clients share a number. What a number means changes in place if the
//! entries that have it are those that are to have what it will mean, all of them and no others; otherwise they get
//! another one, so that nobody is let in for a moment whom neither the old nor the new declaration lets in, nor shut
//! out whom both let in. Numbers in use are read off the entries, so they survive restarts.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use ipnet::IpNet;
use lb_common::abi::SourceRanges;

use super::{Planner, Stage, reach::Entries};
use crate::{
    model::ServiceSpec,
    reconcile::{ActualService, Step, actual::PortKey},
};

/// Under this number nobody is, whose packets could be let in.
pub(super) const NOBODY: u32 = 0;

/// Numbers that entries of a service have now.
fn held(service: &ActualService) -> BTreeSet<u32> {
    service
        .ports
        .values()
        .filter(|value| value.source_ranges != SourceRanges::OPEN && value.ranges != NOBODY)
        .map(|value| value.ranges)
        .collect()
}

impl Planner<'_> {
    /// The number of each frontend; of one that everybody may use it means nothing.
    pub(super) fn ranges(
        &mut self,
        before: &ActualService,
        spec: &ServiceSpec,
        entries: &Entries,
    ) -> Vec<u32> {
        let actual = self.actual;
        // Of a frontend that is nowhere now nobody is asked.
        let used: BTreeSet<usize> = entries.values().map(|entry| entry.0).collect();
        let admitted: Vec<Cow<'_, BTreeSet<IpNet>>> = spec.frontends.iter().map(|f| f.admitted()).collect();
        let used = used.into_iter().map(|frontend| admitted[frontend].as_ref());
        let sets: BTreeSet<&BTreeSet<IpNet>> = used.filter(|set| !set.is_empty()).collect();
        let mut numbers: BTreeMap<&BTreeSet<IpNet>, u32> = BTreeMap::new();
        let mut left = held(before);
        for set in &sets {
            if let Some(number) = left.iter().copied().find(|n| actual.ranges().get(n) == Some(*set)) {
                left.remove(&number);
                numbers.insert(set, number);
            }
        }
        for set in sets {
            if numbers.contains_key(set) {
                continue;
            }
            let wants: BTreeSet<&PortKey> =
                entries.iter().filter(|(_, e)| *admitted[e.0] == *set).map(|(key, _)| key).collect();
            let holds = |number: u32| {
                let entries = before.ports.iter();
                let entries =
                    entries.filter(|(_, v)| v.source_ranges != SourceRanges::OPEN && v.ranges == number);
                entries.map(|(key, _)| key).eq(wants.iter().copied())
            };
            let own = left.iter().copied().find(|number| holds(*number));
            let number = own.unwrap_or_else(|| self.free_ranges());
            left.remove(&number);
            numbers.insert(set, number);
        }
        let nothing = BTreeSet::new();
        for (set, number) in &numbers {
            let there = actual.ranges().get(number).unwrap_or(&nothing);
            for prefix in set.difference(there) {
                self.push(Stage::AddRanges, Step::Admit { ranges: *number, prefix: *prefix, admitted: true });
            }
            self.unadmit(*number, there.difference(set));
        }
        for number in left {
            self.forget(number);
        }
        admitted.iter().map(|set| numbers.get(set.as_ref()).copied().unwrap_or(NOBODY)).collect()
    }

    /// What a service had that is no longer declared.
    pub(super) fn forget_ranges(&mut self, before: &ActualService) {
        for number in held(before) {
            self.forget(number);
        }
    }

    /// Numbers that no entry has: an agent died before it had made or removed the entries.
    pub(super) fn forget_orphans(&mut self) {
        let actual = self.actual;
        let held: BTreeSet<u32> = actual.services().values().flat_map(held).collect();
        for number in actual.ranges().keys().filter(|number| !held.contains(number)) {
            self.forget(*number);
        }
    }

    fn forget(&mut self, number: u32) {
        let actual = self.actual;
        self.unadmit(number, actual.ranges().get(&number).into_iter().flatten());
    }

    fn unadmit<'a>(&mut self, ranges: u32, prefixes: impl Iterator<Item = &'a IpNet>) {
        for prefix in prefixes {
            self.push(Stage::RemoveRanges, Step::Admit { ranges, prefix: *prefix, admitted: false });
        }
    }

    /// The smallest number that isn't in use.
    fn free_ranges(&mut self) -> u32 {
        while self.actual.ranges().contains_key(&self.next_ranges) {
            self.next_ranges += 1;
        }
        let number = self.next_ranges;
        self.next_ranges += 1;
        number
    }
}
