//! Which endpoints a Service's port leads to on this node: CategorizeEndpoints of Kubernetes' pkg/proxy/topology.go,
//! and what comes before it, the endpoints of all slices put together.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    record::{Flags, Port, Slice},
    zones::Zones,
};

/// An endpoint of one port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What is said of it.
    pub flags: Flags,
    /// See [`super::record::Endpoint`].
    pub zones: u32,
    /// Of its slice.
    pub weight: u16,
}

/// Endpoints of one port and family, sorted.
pub type Candidates = BTreeMap<SocketAddr, Candidate>;

/// Endpoints of a port and family in all of a Service's slices, which are sorted by name. One that is in several of
/// them is in flux: what says that it isn't going away goes first.
pub fn merge<'a>(slices: impl IntoIterator<Item = &'a Slice>, port: &Port, v6: bool) -> Candidates {
    let mut all = Candidates::new();
    for slice in slices.into_iter().filter(|slice| slice.v6 == v6) {
        let ports = slice.ports.iter().filter(|p| p.name == port.name && p.transport == port.transport);
        for number in ports.map(|p| p.port) {
            for endpoint in &slice.endpoints {
                let candidate =
                    Candidate { flags: endpoint.flags, zones: endpoint.zones, weight: slice.weight };
                let known = all.entry(SocketAddr::new(endpoint.address, number));
                let known = known.or_insert(candidate);
                if !candidate.flags.is_terminating() {
                    *known = candidate;
                }
            }
        }
    }
    all
}

/// Which lists of endpoints a port needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses {
    /// Those of the whole cluster.
    pub cluster: bool,
    /// Those of this node.
    pub local: bool,
}

/// Where this node is, and what endpoints say of zones.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The node's zone; empty: it has none.
    pub zone: &'a str,
    /// Lists of zones by number.
    pub zones: &'a Zones,
}

/// Clients that are to be kept near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// They aren't.
    Anywhere,
    /// On their node.
    SameNode,
    /// In their zone.
    SameZone,
}

/// Which lists an endpoint is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct On {
    /// That of the whole cluster.
    pub cluster: bool,
    /// That of this node.
    pub local: bool,
}

/// Which endpoints are on which list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Categories {
    /// By endpoint, in their order.
    pub on: Vec<On>,
    /// Is there any anywhere that could take a client? If not, clients are refused.
    pub any: bool,
    /// How near clients are kept.
    pub topology: Topology,
}

impl Categories {
    /// Is there any on the list of this node?
    pub fn any_local(&self) -> bool {
        self.on.iter().any(|on| on.local)
    }
}

/// See the module.
pub fn categorize(endpoints: &Candidates, uses: Uses, place: Place<'_>) -> Categories {
    let all = || endpoints.values();
    let ready = |e: &Candidate| e.flags.is_ready();
    let last = |e: &Candidate| e.flags.is_serving() && e.flags.is_terminating();
    let topology = if uses.cluster { topology(endpoints, place) } else { Topology::Anywhere };
    let near = |e: &Candidate| match topology {
        Topology::Anywhere => true,
        Topology::SameNode => e.flags.is_for_me(),
        Topology::SameZone => place.zones.contains(e.zones, place.zone),
    };
    let cluster_ready = all().any(|e| ready(e) && near(e));
    let local_ready = all().any(|e| ready(e) && e.flags.is_local());
    let on = |e: &Candidate| On {
        cluster: uses.cluster && if cluster_ready { ready(e) && near(e) } else { last(e) },
        local: uses.local && e.flags.is_local() && if local_ready { ready(e) } else { last(e) },
    };
    Categories { on: all().map(on).collect(), any: all().any(|e| ready(e) || last(e)), topology }
}

/// Hints are followed if every ready endpoint has one, and one of them is for clients here.
fn topology(endpoints: &Candidates, place: Place<'_>) -> Topology {
    let ready = || endpoints.values().filter(|e| e.flags.is_ready());
    if ready().all(|e| e.flags.has_nodes()) && ready().any(|e| e.flags.is_for_me()) {
        return Topology::SameNode;
    }
    if ready().all(|e| e.zones != 0) && ready().any(|e| place.zones.contains(e.zones, place.zone)) {
        return Topology::SameZone;
    }
    Topology::Anywhere
}

#[cfg(test)]
mod tests;
