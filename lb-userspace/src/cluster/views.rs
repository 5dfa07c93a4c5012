//! What is shown of a cluster.

use std::collections::BTreeMap;

use lb_mesh::{Member, PeerState, Service, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pools::Pools;
use crate::observe::now;

/// The cluster, as this node sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct ClusterView {
    /// Its name.
    pub cluster: String,
    /// This node's.
    pub node: String,
    /// This node and those that are connected, by name.
    pub members: Vec<MemberView>,
    /// Addresses of peers that aren't connected, or of NATS servers that can't be used, and why.
    pub unreachable: Vec<UnreachableView>,
    /// Names of the nodes that add up.
    pub aggregators: Vec<String>,
    /// Services that this node has connections of, or had within an hour.
    pub services: Vec<SharedView>,
    /// What was refused since the start, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Frames received and sent since the start.
    pub frames: [u64; 2],
    /// Their bytes.
    pub bytes: [u64; 2],
    /// Why the files of certificates or credentials can't be used as they are now; `null`: they can.
    pub certificate_problem: Option<String>,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// It is this one.
    pub itself: bool,
    /// Where it is; `null`: this node isn't connected to it, or is by NATS.
    pub address: Option<String>,
    /// For how long it has been connected; `null`: it isn't.
    pub connected_seconds: Option<f64>,
    /// How long ago it was heard of; `null`: never.
    pub heard_seconds: Option<f64>,
    /// Is it connected to this node? If not, nothing that it says gets here.
    pub incoming: bool,
}

/// A peer that isn't connected.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct UnreachableView {
    /// As it is configured.
    pub peer: String,
    /// One of its addresses; `null`: it has none.
    pub address: Option<String>,
    /// Why.
    pub why: String,
}

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct SharedView {
    /// Its name.
    pub name: String,
    /// Who adds it up; `null`: nobody.
    pub owner: Option<String>,
    /// What others have counts here. If not, this node counts by itself.
    pub shared: bool,
    /// How old what is known is; `null`: nothing is.
    pub age_seconds: Option<f64>,
    /// Connections opened a second, over all nodes.
    pub rate: f64,
    /// From a report to the totals that contain it, on average; `null`: not known.
    pub delay_seconds: Option<f64>,
    /// The most loaded backend's connections over the mean, by weight, over all nodes; `null`: not known.
    pub imbalance: Option<f64>,
    /// Backends.
    pub backends: Vec<CountView>,
}

/// Connections with a backend.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct CountView {
    /// Its address.
    pub address: String,
    /// This node's connections.
    pub own: u32,
    /// Those of other nodes; `null`: not known.
    pub others: Option<u64>,
}

impl ClusterView {
    /// Of a mesh's view. `pools`: names of services and backends.
    pub fn new(view: &View, pools: &Pools) -> Self {
        let mut services: Vec<_> =
            view.services.iter().filter_map(|service| SharedView::new(service, pools)).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let unreachable = view.peers.iter().filter_map(|peer| {
            let why = match &peer.state {
                PeerState::Failing(why) => why.clone(),
                PeerState::Connecting => "not reached yet".into(),
                PeerState::Connected(_) | PeerState::Elsewhere(_) | PeerState::Itself => return None,
            };
            let address = peer.address.map(|address| address.to_string());
            Some(UnreachableView { peer: peer.peer.clone(), address, why })
        });
        Self {
            cluster: view.cluster.clone(),
            node: view.node.clone(),
            members: view.members.iter().map(MemberView::new).collect(),
            unreachable: unreachable.collect(),
            aggregators: view.aggregators.clone(),
            services,
            refused: view.refused.iter().map(|(reason, count)| (reason.label().into(), *count)).collect(),
            frames: [view.traffic.frames_in, view.traffic.frames_out],
            bytes: [view.traffic.bytes_in, view.traffic.bytes_out],
            certificate_problem: view.identity.clone(),
        }
    }
}

impl MemberView {
    fn new(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            itself: member.itself,
            address: member.address.map(|address| address.to_string()),
            connected_seconds: member.connected.map(|time| time.as_secs_f64()),
            heard_seconds: member.heard.map(|time| time.as_secs_f64()),
            incoming: member.itself || member.incoming != 0,
        }
    }
}

impl SharedView {
    /// How old what counts of others is, in seconds; `None`: nothing of them counts.
    pub fn age(&self) -> Option<f64> {
        self.age_seconds.filter(|_| self.shared)
    }

    fn new(service: &Service, pools: &Pools) -> Option<Self> {
        let pool = pools.get(service.service)?;
        let counts: BTreeMap<_, _> =
            service.counts.iter().map(|count| (count.backend, (count.own, count.others))).collect();
        let mut backends: Vec<_> = pool
            .backends
            .iter()
            .map(|backend| {
                let nothing = (0, service.shared.then_some(0));
                let (own, others) = counts.get(&backend.key).copied().unwrap_or(nothing);
                (backend.weight, CountView { address: backend.address.clone(), own, others })
            })
            .collect();
        let imbalance = imbalance(&backends);
        backends.sort_by(|a, b| a.1.address.cmp(&b.1.address));
        Some(Self {
            name: pool.name.clone(),
            owner: service.owner.clone(),
            shared: service.shared,
            age_seconds: service.age.map(|age| age.as_secs_f64()),
            rate: service.rate,
            delay_seconds: service.delay.map(|delay| delay.as_secs_f64()),
            imbalance,
            backends: backends.into_iter().map(|(_, count)| count).collect(),
        })
    }
}

/// [`now::imbalance`] over all nodes; `None` also if others' connections aren't known.
fn imbalance(backends: &[(u32, CountView)]) -> Option<f64> {
    let in_use = backends.iter().filter(|(weight, _)| *weight != 0);
    let counts = in_use.map(|(weight, count)| Some((f64::from(count.own) + count.others? as f64, *weight)));
    now::imbalance(counts.collect::<Option<Vec<_>>>()?.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(u32, u32, Option<u64>)]) -> Option<f64> {
        let view = |(weight, own, others): &(u32, u32, Option<u64>)| {
            (*weight, CountView { address: String::new(), own: *own, others: *others })
        };
        imbalance(&counts.iter().map(view).collect::<Vec<_>>())
    }

    #[test]
    fn imbalance_is_by_weight_and_over_all_nodes() {
        assert_eq!(of(&[(1, 1, Some(4)), (1, 2, Some(3))]), Some(1.0));
        assert_eq!(of(&[(1, 0, Some(9)), (2, 0, Some(9))]), Some(1.5));
        // Who takes no new connections is no part of it.
        assert_eq!(of(&[(1, 5, Some(0)), (0, 90, Some(0))]), Some(1.0));
        assert_eq!(of(&[(1, 0, Some(0))]), None, "nobody has any");
        assert_eq!(of(&[(1, 5, None)]), None, "others aren't known");
    }
}
