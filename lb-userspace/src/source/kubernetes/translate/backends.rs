//! The pool of a Service's port: endpoints that take clients, and those that only keep what they have.

use std::{net::SocketAddr, time::Duration};

use super::{Families, Family, udp_removal};
use crate::{
    model::{AdminState, BackendSpec, Lists, Origin, Protocol, RemovalPolicy, ServiceSpec},
    source::kubernetes::{
        annotations::Knobs,
        categorize::{Candidate, On},
    },
};

/// See the module.
pub(super) struct Pool<'a> {
    pub knobs: &'a Knobs,
    /// Since when an endpoint is going away.
    pub since: &'a mut dyn FnMut(SocketAddr) -> Duration,
    pub protocol: Protocol,
    pub spec: &'a mut ServiceSpec,
}

impl Pool<'_> {
    /// Declares the endpoints of both families.
    pub fn fill(&mut self, families: &Families) {
        let serves =
            |family: &Family| family.candidates.values().any(|candidate| candidate.flags.is_serving());
        if self.protocol == Protocol::Udp {
            self.spec.policies.removal = udp_removal(families.iter().any(serves));
        }
        for family in families {
            let serving = serves(family);
            for ((at, candidate), on) in family.candidates.iter().zip(&family.categories.on) {
                if on.cluster || on.local || self.keeps(candidate, serving) {
                    let backend = self.backend(*at, candidate, *on);
                    self.spec.backends.insert(backend.name(), backend);
                }
            }
        }
    }

    /// Is an endpoint declared that takes no clients from here? What isn't has its open connections treated as a
    /// removed one's.
    fn keeps(&self, candidate: &Candidate, serving: bool) -> bool {
        let flags = candidate.flags;
        match self.protocol {
            Protocol::Udp => flags.is_serving() || !serving,
            // Which is to leave them alone, unless somebody wants it otherwise: then only what is really gone is
            // removed.
            Protocol::Tcp => {
                flags.is_terminating()
                    || !flags.is_ready()
                    || self.spec.policies.removal == RemovalPolicy::Reset
            }
        }
    }

    fn backend(&mut self, at: SocketAddr, candidate: &Candidate, on: On) -> BackendSpec {
        let takes = (on.cluster || on.local) && candidate.weight > 0;
        let deadline = self.knobs.drain_deadline.filter(|_| candidate.flags.is_terminating());
        let admin = match (takes, deadline) {
            (true, _) => AdminState::Active,
            (false, None) => AdminState::Draining { since: Duration::ZERO, deadline: None },
            (false, Some(_)) => AdminState::Draining { since: (self.since)(at), deadline },
        };
        BackendSpec {
            address: at.ip(),
            port: Some(at.port()),
            weight: candidate.weight.max(1),
            max_connections: self.knobs.max_connections,
            local: candidate.flags.is_local(),
            backup: false,
            host: None,
            lists: Some(Lists { all: on.cluster, local: on.local }),
            admin,
            origin: Origin::Kubernetes,
        }
    }
}
