//! Reads the kernel's counts of shared services, and says what has changed.

use std::collections::HashMap;

use lb_cluster::{BackendKey, ServiceKey, frame::Own};

use super::pools::{Pools, Shared};

/// What was said of a service last.
#[derive(Default)]
struct Said {
    /// Connections that the node has opened so far, as far as was seen: one that opens and ends between two looks isn't.
    opened: u64,
    pool: u32,
    counts: HashMap<BackendKey, u32>,
}

/// What was said so far.
#[derive(Default)]
pub struct Counts(HashMap<ServiceKey, Said>);

/// What is to be said of a service now.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub service: ServiceKey,
    /// Backends that take new connections.
    pub pool: u32,
    /// Connections that the node has opened so far.
    pub opened: u64,
    /// Counts that are others than before.
    pub counts: Vec<Own>,
}

impl Counts {
    /// Looks at a service; `None`: nothing has changed. `active`: a backend's connections now, by its place in the
    /// list. `has_opened`: the kernel says that it has got a connection, which may have ended since.
    pub fn look(
        &mut self,
        key: ServiceKey,
        shared: &Shared,
        has_opened: bool,
        active: impl Fn(usize) -> u32,
    ) -> Option<Change> {
        let pool = shared.eligible();
        let said = self.0.entry(key).or_default();
        let mut counts = Vec::new();
        let mut opened = 0;
        for (at, backend) in shared.backends.iter().enumerate() {
            let open = active(at);
            let before = said.counts.get(&backend.key).copied().unwrap_or_default();
            if open != before {
                said.counts.insert(backend.key, open);
                counts.push(Own { backend: backend.key, open });
                opened += u64::from(open.saturating_sub(before));
            }
        }
        if said.counts.len() > shared.backends.len() {
            let gone: Vec<_> = said
                .counts
                .keys()
                .copied()
                .filter(|key| !shared.backends.iter().any(|backend| backend.key == *key))
                .collect();
            for backend in gone {
                said.counts.remove(&backend);
                counts.push(Own { backend, open: 0 });
            }
        }
        said.opened += opened.max(u64::from(has_opened));
        let changed = !counts.is_empty() || has_opened || said.pool != pool;
        said.pool = pool;
        changed.then_some(Change { service: key, pool, opened: said.opened, counts })
    }

    /// Services that are no more: they have no connections any more.
    pub fn forget(&mut self, pools: &Pools) -> Vec<Change> {
        let gone: Vec<_> = self.0.keys().copied().filter(|key| pools.get(*key).is_none()).collect();
        let mut changes = Vec::new();
        for service in gone {
            if let Some(said) = self.0.remove(&service) {
                let counts = said.counts.into_keys().map(|backend| Own { backend, open: 0 }).collect();
                changes.push(Change { service, pool: 0, opened: said.opened, counts });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::BackendId;

    use super::*;
    use crate::cluster::pools::Member;

    fn shared(weights: &[(u64, u32)]) -> Shared {
        let member = |(at, (key, weight)): (usize, &(u64, u32))| Member {
            id: BackendId::new(1, at as u32),
            address: key.to_string(),
            key: BackendKey(*key),
            weight: *weight,
        };
        let backends = weights.iter().enumerate().map(member).collect();
        Shared { name: "app".into(), id: 3, backends }
    }

    fn own(backend: u64, open: u32) -> Own {
        Own { backend: BackendKey(backend), open }
    }

    #[test]
    fn what_has_changed_is_said_once() {
        let (mut counts, key) = (Counts::default(), ServiceKey(1));
        let pool = shared(&[(7, 1), (8, 1), (9, 0)]);
        let first = counts.look(key, &pool, false, |at| [2, 0, 1][at]).expect("new");
        assert_eq!((first.pool, first.opened), (2, 3));
        assert_eq!(first.counts, [own(7, 2), own(9, 1)]);
        assert_eq!(counts.look(key, &pool, false, |at| [2, 0, 1][at]), None);
        let ended = counts.look(key, &pool, false, |at| [1, 0, 1][at]).expect("one has ended");
        assert_eq!((ended.opened, ended.counts), (3, vec![own(7, 1)]));
        let short = counts.look(key, &pool, true, |at| [1, 0, 1][at]).expect("one has come and gone");
        assert_eq!((short.opened, short.counts), (4, vec![]));
        let drained = shared(&[(7, 0), (8, 1), (9, 0)]);
        assert_eq!(counts.look(key, &drained, false, |at| [1, 0, 1][at]).expect("a smaller pool").pool, 1);
    }

    #[test]
    fn who_is_gone_has_none() {
        let (mut counts, key) = (Counts::default(), ServiceKey(1));
        counts.look(key, &shared(&[(7, 1), (8, 1)]), false, |_| 1);
        let change = counts.look(key, &shared(&[(8, 1)]), false, |_| 1).expect("one is gone");
        assert_eq!(change.counts, [own(7, 0)]);
        let gone = counts.forget(&Pools::default());
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].counts, [own(8, 0)]);
        assert!(counts.forget(&Pools::default()).is_empty());
    }
}
