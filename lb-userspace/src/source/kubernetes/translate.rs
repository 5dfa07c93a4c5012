//! From a Service and its endpoints to services of ours, one for each port. Pure.

mod backends;
mod frontends;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use self::frontends::spots;
pub(super) use self::frontends::{Way, way};
use self::{backends::Pool, frontends::wanted};
use super::{
    annotations::{AffinityScope, Knobs},
    categorize::{Candidates, Categories, Place, Uses, categorize, merge},
    claims::Claims,
    node::{Node, NodePorts},
    note::{Note, Reason},
    record::{PerFamily, Port, Service, Slice, Transport},
    zones::Zones,
};
use crate::model::{
    AffinitySpec, ForwardKind, Frontend, ModelError, Origin, OwnAddresses, Protocol, RemovalPolicy,
    ServiceSpec, StrayKind,
};

/// What the operator says of all Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where node ports are.
    pub node_ports: NodePorts,
    /// Are `externalIPs` served?
    pub external_ips: bool,
    /// Do all packets to cluster addresses get a source of the node's?
    pub masquerade_all: bool,
    /// What happens to TCP packets that belong to no connection; `None`: what suits the algorithm.
    pub stray: Option<StrayKind>,
    /// Ways that Services may ask for.
    pub forwarding_modes: Vec<ForwardKind>,
    /// Options of Services that say nothing.
    pub defaults: Knobs,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node_ports: NodePorts::default(),
            external_ips: true,
            masquerade_all: false,
            stray: None,
            forwarding_modes: vec![ForwardKind::Nat, ForwardKind::Snat],
            defaults: Knobs::default(),
        }
    }
}

/// What a translation depends on besides the Service.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// What the operator says.
    pub options: &'a Options,
    /// The own Node.
    pub node: &'a Node,
    /// Addresses of its interfaces.
    pub own: &'a OwnAddresses,
    /// Zones by number.
    pub zones: &'a Zones,
    /// Who has which address and port.
    pub claims: &'a Claims,
}

/// A Service with all that is known of it.
pub struct Input<'a> {
    /// `namespace/name`
    pub key: &'a Arc<str>,
    /// The Service.
    pub service: &'a Service,
    /// Its slices, sorted by name.
    pub slices: Vec<&'a Slice>,
    /// Annotations of its Namespace, without their prefix.
    pub namespace: &'a [(Box<str>, Box<str>)],
    /// Since when an endpoint is going away, by the uptime.
    pub since: &'a mut dyn FnMut(SocketAddr) -> Duration,
}

/// Where a load balancer asks for endpoints of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// The port.
    pub port: u16,
    /// How many of them are ready.
    pub local: usize,
}

/// What becomes of a Service.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// Services of ours.
    pub specs: Vec<ServiceSpec>,
    /// What is said of it.
    pub notes: Vec<Note>,
    /// Its health check.
    pub health: Option<HealthPort>,
    /// Ports whose clients are dropped for want of an endpoint on this node: those of the cluster, those from outside.
    pub without_local: [usize; 2],
}

/// See the module.
pub fn translate(input: Input<'_>, around: Around<'_>) -> Translated {
    let Input { key, service, slices, namespace, since } = input;
    let mut done = Translated::default();
    let knobs = knobs(key, service, namespace, around.options, &mut done.notes);
    let mut ready = [Vec::new(), Vec::new()];
    for port in &service.ports {
        let families = [false, true].map(|v6| Family::new(service, port, &slices, v6, around));
        for (family, ready) in families.iter().zip(&mut ready) {
            let here = family.candidates.iter().filter(|(_, c)| c.flags.is_ready() && c.flags.is_local());
            ready.extend(here.map(|(at, _)| at.ip()));
        }
        let Some(protocol) = protocol(port) else {
            let text = format!("port {} is SCTP, which isn't balanced; the other ports are", port.port);
            done.notes.push(Note::service(key, Reason::UnsupportedProtocol, text));
            continue;
        };
        let name = if port.name.is_empty() { key.to_string() } else { format!("{key}:{}", port.name) };
        let wanted = wanted(key, service, port, &families, &knobs, around, &mut done.notes);
        if wanted.is_empty() {
            continue;
        }
        let cats = families.iter().map(|family| &family.categories);
        let lacking = cats.filter(|c| c.any && !c.any_local()).count();
        done.without_local[0] += if service.internal_local { lacking } else { 0 };
        done.without_local[1] += if service.external_local { lacking } else { 0 };
        let base = ServiceSpec::new(&name, Vec::new(), Origin::Kubernetes);
        let mut spec = ServiceSpec {
            algorithm: knobs.algorithm,
            stray: around.options.stray,
            affinity: affinity(key, service, &knobs),
            timeouts: knobs.timeouts,
            slow_start: knobs.slow_start,
            policies: knobs.policies,
            ..base
        };
        let mut pool = Pool { knobs: &knobs, since: &mut *since, protocol, spec: &mut spec };
        pool.fill(&families);
        match settle(&mut spec, wanted) {
            Ok(refused) => {
                let note = |e: ModelError| {
                    let text = format!("forwarding-mode can't be as asked for, and isn't followed: {e}");
                    Note::service(key, Reason::InvalidAnnotation, text)
                };
                done.notes.extend(refused.map(note));
                done.specs.push(spec);
            }
            Err(error) => done.notes.push(Note::service(key, Reason::Refused, error.to_string())),
        }
    }
    done.health = service.health_port.map(|port| {
        let count = |mut addresses: Vec<_>| {
            addresses.sort_unstable();
            addresses.dedup();
            addresses.len()
        };
        HealthPort { port, local: ready.map(count).into_iter().max().unwrap_or(0) }
    });
    done
}

/// Endpoints of a port and family.
pub(super) struct Family {
    pub candidates: Candidates,
    pub categories: Categories,
}

impl Family {
    pub fn new(service: &Service, port: &Port, slices: &[&Slice], v6: bool, around: Around<'_>) -> Self {
        let index = usize::from(v6);
        let candidates = match service.cluster[index] {
            Some(_) => merge(slices.iter().copied(), port, v6),
            None => Candidates::new(),
        };
        let of_family = |addresses: &[std::net::IpAddr]| addresses.iter().any(|a| a.is_ipv6() == v6);
        let accessible =
            port.node_port.is_some() || of_family(&service.external) || of_family(&service.balancer);
        let uses = Uses {
            cluster: accessible || !service.internal_local,
            local: service.internal_local || accessible && service.external_local,
        };
        let place = Place { zone: &around.node.zone, zones: around.zones };
        let categories = categorize(&candidates, uses, place);
        Self { candidates, categories }
    }
}

type Families = PerFamily<Family>;

fn protocol(port: &Port) -> Option<Protocol> {
    match port.transport {
        Transport::Tcp => Some(Protocol::Tcp),
        Transport::Udp => Some(Protocol::Udp),
        Transport::Sctp => None,
    }
}

/// Options of a Service: its own, then its Namespace's, then the operator's.
fn knobs(
    key: &Arc<str>,
    service: &Service,
    namespace: &[(Box<str>, Box<str>)],
    options: &Options,
    notes: &mut Vec<Note>,
) -> Knobs {
    let mut knobs = options.defaults.clone();
    for (name, text) in namespace {
        // What is wrong there is the Namespace's, and said of it.
        let _ = knobs.set(name, text, &options.forwarding_modes);
    }
    for (name, text) in &service.annotations {
        if let Err(error) = knobs.set(name, text, &options.forwarding_modes) {
            notes.push(Note::service(key, Reason::InvalidAnnotation, format!("{error}; the rest is served")));
        }
    }
    let scope = knobs.affinity_scope;
    if scope == Some(AffinityScope::Group) && knobs.affinity_group.is_none() {
        let text =
            "affinity-scope is group, and no affinity-group is named; each port has clients of its own"
                .into();
        notes.push(Note::service(key, Reason::InvalidAnnotation, text));
    }
    let own = |name: &str| service.annotations.iter().any(|(known, _)| **known == *name);
    if service.affinity.is_none() && (own("affinity-scope") || own("affinity-group") || own("affinity-bound"))
    {
        let text = "affinity-... has no effect without sessionAffinity: ClientIP".into();
        notes.push(Note::service(key, Reason::InvalidAnnotation, text));
    }
    knobs
}

fn affinity(key: &Arc<str>, service: &Service, knobs: &Knobs) -> Option<AffinitySpec> {
    let timeout = Duration::from_secs(service.affinity?.into());
    let namespace = key.split('/').next().unwrap_or_default();
    let scope = knobs.affinity_scope.unwrap_or(match knobs.affinity_group {
        Some(_) => AffinityScope::Group,
        None => AffinityScope::Port,
    });
    let group = match (scope, &knobs.affinity_group) {
        (AffinityScope::Port, _) | (AffinityScope::Group, None) => None,
        (AffinityScope::Service, _) => Some(format!("service/{key}")),
        (AffinityScope::Group, Some(group)) => Some(format!("group/{namespace}/{group}")),
    };
    let (ipv6_prefix, bound) = (knobs.affinity_prefix, knobs.affinity_bound);
    Some(AffinitySpec { timeout, group, by_port: false, ipv6_prefix, bound })
}

/// Gives a service its frontends. If it can't have them as its annotations have it, it gets those of Kubernetes;
/// then what was wrong is returned.
fn settle(spec: &mut ServiceSpec, wanted: frontends::Wanted) -> Result<Option<ModelError>, ModelError> {
    let plain = |frontends: &[Frontend], spec: &mut ServiceSpec| {
        spec.frontends = frontends.to_vec();
        spec.validate()
    };
    let Some(asked) = &wanted.asked else { return plain(&wanted.plain, spec).map(|()| None) };
    match plain(asked, spec) {
        Ok(()) => Ok(None),
        Err(error) => plain(&wanted.plain, spec).map(|()| Some(error)),
    }
}

/// What becomes of a UDP flow whose endpoint doesn't serve any more: it moves at once, if there is where to.
const fn udp_removal(serving: bool) -> RemovalPolicy {
    if serving { RemovalPolicy::Reset } else { RemovalPolicy::Keep }
}
