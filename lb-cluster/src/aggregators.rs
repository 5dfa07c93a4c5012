//! Which node adds up a service's counts.

use crate::{NodeId, ServiceKey, keys::hash};

/// Most aggregators: more would only mean more connections for each agent.
pub const MAX_AGGREGATORS: usize = 16;

/// The nodes that own services. Three or more, so that one may be gone; none, and each node is on its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Aggregators(Vec<NodeId>);

/// A list of aggregators is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} aggregators: name {MAX_AGGREGATORS} at most, 3 are enough")]
pub struct TooMany(pub usize);

impl Aggregators {
    /// These nodes, in any order.
    ///
    /// # Errors
    /// They are more than [`MAX_AGGREGATORS`].
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Result<Self, TooMany> {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.len() > MAX_AGGREGATORS { Err(TooMany(nodes.len())) } else { Ok(Self(nodes)) }
    }

    /// The owner of a service: the aggregator whose hash with it is the greatest (rendezvous hashing; Thaler,
    /// Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM ToN 1998). When one leaves, only its
    /// services move. `None`: there are no aggregators.
    pub fn owner(&self, service: ServiceKey) -> Option<NodeId> {
        let weight = |node: &NodeId| hash(b'o', &[&service.0.to_le_bytes(), &node.0.to_le_bytes()]);
        self.0.iter().copied().max_by_key(|node| (weight(node), *node))
    }

    /// All of them, sorted.
    pub fn nodes(&self) -> &[NodeId] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(n: u32) -> Vec<NodeId> {
        (0..n).map(|i| NodeId::of(&format!("node-{i}"))).collect()
    }

    fn services() -> impl Iterator<Item = ServiceKey> {
        (0..3_000).map(|i| ServiceKey::of("shop", &format!("service-{i}")))
    }

    #[test]
    fn only_the_services_of_one_that_leaves_move() {
        for n in [1, 3, 5, 16] {
            let all = Aggregators::new(nodes(n)).unwrap();
            let fewer = Aggregators::new(nodes(n).into_iter().skip(1)).unwrap();
            let gone = nodes(n)[0];
            for service in services() {
                let owner = all.owner(service).unwrap();
                if owner != gone {
                    assert_eq!(fewer.owner(service), Some(owner));
                }
            }
        }
        assert_eq!(Aggregators::default().owner(ServiceKey(1)), None);
    }

    #[test]
    fn each_has_its_part() {
        let all = Aggregators::new(nodes(5)).unwrap();
        for node in all.nodes() {
            let part = services().filter(|service| all.owner(*service) == Some(*node)).count();
            // 600; five standard deviations are 110.
            assert!((490..710).contains(&part), "{node}: {part} of 3,000");
        }
    }

    #[test]
    fn the_order_of_the_list_says_nothing() {
        let mut reversed = nodes(7);
        reversed.reverse();
        reversed.push(reversed[3]);
        assert_eq!(Aggregators::new(reversed), Aggregators::new(nodes(7)));
        assert_eq!(Aggregators::new(nodes(17)), Err(TooMany(17)));
    }
}
