//! Why a Service's port leads to which endpoints on this node, in the words of Kubernetes: policies, hints, conditions.
//! Pure, and from the same lists as what is in force.

use std::net::SocketAddr;

use super::{
    categorize::{Candidate, Candidates, Categories, On, Topology},
    record::{Port, Service, Slice, Transport},
    translate::{Around, Family, Way, way},
};
use crate::api::types::{EndpointView, EndpointsView};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// A service of ours: `namespace/name:port`.
    pub service: String,
    /// Where the client connects to.
    pub vip: SocketAddr,
    /// By which protocol.
    pub transport: Transport,
    /// Does the client get endpoints of this node only? It depends on where it comes from.
    pub local: bool,
}

/// A port of a Service, with what decides about it.
struct Known<'a> {
    question: &'a Question,
    service: &'a Service,
    candidates: &'a Candidates,
    categories: &'a Categories,
    around: Around<'a>,
    way: Way,
}

/// `namespace/name` and the port's name, of a service of ours.
pub fn parts(service: &str) -> (&str, &str) {
    service.split_once(':').unwrap_or((service, ""))
}

/// See the module. `None`: the Service has no such port or address.
pub fn explain(
    question: &Question,
    service: &Service,
    slices: &[&Slice],
    around: Around<'_>,
) -> Option<EndpointsView> {
    let (key, name) = parts(&question.service);
    let of = |port: &&Port| *port.name == *name && port.transport == question.transport;
    let port = service.ports.iter().find(of)?;
    let way = way(service, port, question.vip, around)?;
    let family = Family::new(service, port, slices, question.vip.is_ipv6(), around);
    let (candidates, categories) = (&family.candidates, &family.categories);
    let known = Known { question, service, candidates, categories, around, way };
    let endpoints = candidates.iter().zip(&categories.on).map(|((at, c), on)| known.endpoint(*at, c, *on));
    let policy = |local: bool| if local { "Local" } else { "Cluster" }.to_string();
    Some(EndpointsView {
        service: key.into(),
        port: name.into(),
        frontend: way.name().into(),
        internal_traffic_policy: policy(service.internal_local),
        external_traffic_policy: policy(service.external_local),
        zone: Some(around.node.zone.to_string()).filter(|zone| !zone.is_empty()),
        policy: known.policy(),
        hints: known.hints(),
        endpoints: endpoints.collect(),
    })
}

impl Known<'_> {
    /// Is an endpoint on the list that the client gets?
    const fn is_listed(&self, on: On) -> bool {
        if self.question.local { on.local } else { on.cluster }
    }

    /// Does the client get ready endpoints, or those that still serve while they end?
    fn any_ready(&self) -> bool {
        let mut listed = self.candidates.values().zip(&self.categories.on);
        listed.any(|(c, on)| self.is_listed(*on) && c.flags.is_ready())
    }

    fn any_listed(&self) -> bool {
        self.categories.on.iter().any(|on| self.is_listed(*on))
    }

    fn policy(&self) -> String {
        let (name, local) = match self.way {
            Way::Cluster => ("internalTrafficPolicy", self.service.internal_local),
            _ => ("externalTrafficPolicy", self.service.external_local),
        };
        if !self.categories.any {
            return "no endpoint can take a client on any node: clients are refused".into();
        }
        match (local, self.question.local) {
            (true, true) if !self.any_listed() => {
                format!(
                    "{name} is Local, and no endpoint of this node can take a client: clients are dropped"
                )
            }
            (true, true) => format!("{name} is Local: endpoints of this node"),
            (true, false) => {
                format!(
                    "{name} is Local, but the client is a pod or process of this node: endpoints of all nodes"
                )
            }
            (false, _) => format!("{name} is Cluster: endpoints of all nodes"),
        }
    }

    fn hints(&self) -> String {
        if self.question.local {
            return "not looked at: only endpoints of this node are used".into();
        }
        let zone = &self.around.node.zone;
        match self.categories.topology {
            Topology::SameNode => return "followed: endpoints that are for this node".into(),
            Topology::SameZone => return format!("followed: endpoints that are for zone \"{zone}\""),
            Topology::Anywhere => {}
        }
        let ready = || self.candidates.iter().filter(|(_, c)| c.flags.is_ready());
        let hinted = |c: &Candidate| c.zones != 0 || c.flags.has_nodes();
        if !ready().any(|(_, c)| hinted(c)) {
            return "none: endpoints of all zones".into();
        }
        // Each kind counts only if all have it.
        if let Some((at, _)) = ready().find(|(_, c)| c.zones == 0) {
            format!("not followed, since ready endpoint {at} has none for zones: endpoints of all zones")
        } else if zone.is_empty() {
            "not followed, since this node has no label topology.kubernetes.io/zone: endpoints of all zones"
                .into()
        } else {
            format!("not followed, since no ready endpoint is for zone \"{zone}\": endpoints of all zones")
        }
    }

    fn endpoint(&self, at: SocketAddr, candidate: &Candidate, on: On) -> EndpointView {
        let flags = candidate.flags;
        let listed = self.is_listed(on);
        EndpointView {
            address: at.to_string(),
            ready: flags.is_ready(),
            serving: flags.is_serving(),
            terminating: flags.is_terminating(),
            on_this_node: flags.is_local(),
            zones: self.around.zones.list(candidate.zones).iter().map(ToString::to_string).collect(),
            for_this_node: flags.has_nodes().then(|| flags.is_for_me()),
            used: listed && candidate.weight > 0,
            why: match (listed, candidate.weight) {
                (true, 0) => "weight 0, by the annotation of its EndpointSlice".into(),
                (true, _) => self.used(candidate).into(),
                (false, _) => self.unused(candidate),
            },
        }
    }

    fn used(&self, candidate: &Candidate) -> &'static str {
        match (candidate.flags.is_ready(), self.question.local, self.categories.topology) {
            (false, true, _) => "terminating, but none of this node is ready, and it still serves",
            (false, false, _) => "terminating, but none is ready, and it still serves",
            (true, true, _) => "ready, on this node",
            (true, false, Topology::SameNode) => "ready, for this node",
            (true, false, Topology::SameZone) => "ready, for this zone",
            (true, false, Topology::Anywhere) => "ready",
        }
    }

    fn unused(&self, candidate: &Candidate) -> String {
        let flags = candidate.flags;
        if self.question.local && !flags.is_local() {
            "on another node".into()
        } else if flags.is_ready() {
            match self.categories.topology {
                Topology::SameNode => "for other nodes".into(),
                _ => "for other zones".into(),
            }
        } else if flags.is_terminating() && !flags.is_serving() {
            "terminating, and no longer serving".into()
        } else if flags.is_terminating() && self.any_ready() {
            "terminating, and others are ready".into()
        } else {
            "not ready".into()
        }
    }
}
