//! What an agent knows, for those who look.

use std::{collections::BTreeMap, time::Duration};

use super::Agent;
use crate::{BackendKey, NodeId, ServiceKey};

/// What is known of a service.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct View {
    /// Who adds it up.
    pub owner: Option<NodeId>,
    /// What others have is part of the choice.
    pub shared: bool,
    /// How old what is known is; `None`: nothing is.
    pub age: Option<Duration>,
    /// Connections opened a second, over all nodes.
    pub rate: f64,
    /// From a report to the totals that contain it, on average.
    pub delay: Option<Duration>,
    /// Totals that were less than the node's own part in them: an owner is at fault.
    pub contradictions: u64,
}

/// Connections with a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// With whom.
    pub backend: BackendKey,
    /// The node's own.
    pub own: u32,
    /// Those of other nodes; `None`: that isn't known.
    pub others: Option<u64>,
}

impl Agent {
    /// What is known of a service; `None`: the node has no connections of it.
    pub fn view(&self, now: Duration, key: ServiceKey) -> Option<View> {
        let service = self.services.get(&key)?;
        Some(View {
            owner: service.owner,
            shared: self.is_shared(now, service),
            age: service.age(now),
            rate: service.rate,
            delay: service.delay,
            contradictions: service.link.contradictions,
        })
    }

    /// Services that the node has connections of, or had of late.
    pub fn services(&self) -> impl Iterator<Item = ServiceKey> {
        self.services.keys().copied()
    }

    /// A service's backends with which the node has connections, or others, as far as that is known.
    pub fn counts(&self, now: Duration, key: ServiceKey) -> Vec<Count> {
        let Some(service) = self.services.get(&key) else { return Vec::new() };
        let shared = self.is_shared(now, service);
        let mut counts: BTreeMap<_, _> = service
            .own
            .iter()
            .map(|(backend, own)| {
                (*backend, Count { backend: *backend, own: *own, others: shared.then_some(0) })
            })
            .collect();
        if shared {
            for (backend, others) in service.all_others() {
                let count = counts.entry(backend).or_insert(Count { backend, own: 0, others: None });
                count.others = Some(others);
            }
        }
        counts.into_values().collect()
    }
}
