//! Who is to be closed, and why. Pure: what is known in, a decision out. It is the [closer](super::closer) that closes.

use std::{collections::HashSet, time::Duration};

use lb_common::{
    abi::{Addr4, Addr6, Backend, BackendId, Proto, ServiceId, sweep::Request},
    expiry::{Timeout, Verdict},
    flow_state::Word,
};

pub use super::sockets::SocketVictim;
use crate::{
    model::{AdminState, BackendSpec, Departures, Desired, HealthStates, RemovalPolicy, ServiceSpec},
    reconcile::Actual,
};

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its backend's drain or removal has reached its deadline.
    Deadline,
    /// Its backend fails its health checks.
    Unhealthy,
    /// Its backend or its service is no longer declared.
    Removal,
    /// An operator asked for it.
    Operator,
    /// It is idle, and its backend has more than its share.
    Rebalance,
    /// It has run into a timeout.
    Timeout(Timeout),
}

impl Cause {
    /// In words.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Deadline => "the deadline of a drain or a removal has passed",
            Self::Unhealthy => "the backend is unhealthy",
            Self::Removal => "the backend is no longer declared",
            Self::Operator => "an operator asked for it",
            Self::Rebalance => "rebalancing moves it to another backend",
            Self::Timeout(timeout) => timeout.name(),
        }
    }

    /// Classes of urgency: the most urgent is 0.
    pub const CLASSES: usize = 6;
    /// The class of those that are closed and whose ends are to be told again.
    pub const UNTOLD: usize = 5;

    /// How urgent it is.
    pub const fn class(self) -> usize {
        match self {
            Self::Deadline => 0,
            Self::Unhealthy => 1,
            Self::Removal => 2,
            Self::Operator | Self::Rebalance => 3,
            Self::Timeout(_) => 4,
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// Both ends are reset, whatever happens.
    Reset,
    /// Both ends are reset, unless something has happened since it was looked at.
    Expire,
    /// It is forgotten: UDP has nobody who could be told.
    Forget,
    /// It is closed, and not both ends have heard of it.
    Tell,
}

impl How {
    /// What becomes of a flow whose connection is to be closed whatever it does. `None`: it doesn't count any more.
    pub fn close(word: Word, proto: Proto) -> Option<Self> {
        word.counted().then_some(if proto == Proto::TCP { Self::Reset } else { Self::Forget })
    }

    /// What becomes of one by a verdict, and why; `None`: there is nothing to close.
    pub const fn expire(verdict: Verdict) -> Option<(Self, Timeout)> {
        match verdict {
            Verdict::Expire(timeout) => Some((Self::Expire, timeout)),
            Verdict::End(timeout) => Some((Self::Reset, timeout)),
            Verdict::Keep | Verdict::Remove(_) => None,
        }
    }
}

/// A flow, or a socket, as it was looked at.
#[derive(Clone, Copy, Debug)]
pub enum Pinned {
    /// IPv4.
    V4(Request<Addr4>),
    /// IPv6.
    V6(Request<Addr6>),
    /// A socket of a process of the node's.
    Socket(SocketVictim),
}

/// A connection to be closed.
#[derive(Clone, Copy, Debug)]
pub struct Victim {
    /// Whose it is.
    pub service: ServiceId,
    /// What is to be done.
    pub how: How,
    /// Which it is.
    pub flow: Pinned,
}

/// What is to be closed of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Why.
    pub cause: Cause,
    /// UDP flows only: their next datagram chooses another backend, and TCP connections stay.
    pub datagrams: bool,
}

impl Closing {
    /// All of it.
    const fn all(cause: Cause) -> Self {
        Self { cause, datagrams: false }
    }

    /// Is this one of those?
    pub const fn takes(self, how: How) -> bool {
        !self.datagrams || matches!(how, How::Forget)
    }
}

/// Whose connections are to be closed at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Backends, each once.
    pub backends: Vec<(BackendId, Closing)>,
    /// The next deadline, by the uptime.
    pub next: Option<Duration>,
}

impl Due {
    /// There is a deadline then.
    fn wait(&mut self, end: Duration) {
        self.next = Some(self.next.map_or(end, |next| next.min(end)));
    }
}

/// Backends whose connections are to be closed now, by what their services say. `departed`: services that are no longer
/// declared and whose connections go with them. `removals`: backends that aren't, and have a deadline. `now`: the uptime.
pub fn due(
    desired: &Desired,
    actual: &Actual,
    health: &HealthStates,
    departed: &HashSet<String>,
    removals: &Departures,
    now: Duration,
) -> Due {
    let mut due = Due::default();
    let over = of_removals(&mut due, desired, actual, removals, now);
    for service in desired.services().values().filter(|s| s.policies != Default::default() || s.serves_udp())
    {
        of_service(&mut due, service, actual, health, &over, now);
    }
    due.backends.extend(over.into_iter().map(|id| (id, Closing::all(Cause::Deadline))));
    for service in departed.iter().filter_map(|name| actual.service(name)) {
        due.backends.extend(service.backends.values().map(|id| (*id, Closing::all(Cause::Removal))));
    }
    due
}

/// Backends whose removal has reached its deadline. Of the others, notes when they will.
fn of_removals(
    due: &mut Due,
    desired: &Desired,
    actual: &Actual,
    removals: &Departures,
    now: Duration,
) -> HashSet<BackendId> {
    let mut over = HashSet::new();
    for (service, backends) in removals {
        let Some(there) = actual.service(service) else { continue };
        let declared = desired.services().get(service);
        for (name, departure) in backends {
            let back = declared.is_some_and(|spec| spec.backends.contains_key(name));
            match there.backends.get(name) {
                Some(id) if !back && now >= departure.end => drop(over.insert(*id)),
                Some(_) if !back => due.wait(departure.end),
                _ => {}
            }
        }
    }
    over
}

fn of_service(
    due: &mut Due,
    service: &ServiceSpec,
    actual: &Actual,
    health: &HealthStates,
    over: &HashSet<BackendId>,
    now: Duration,
) {
    let Some(there) = actual.service(&service.name) else { return };
    let udp = service.serves_udp();
    let healthy = |name: &str| health.of(&service.name, name).healthy;
    let met = [false, true].map(|v6| service.meets_quorum(v6, healthy));
    for (name, id) in there.backends.iter().filter(|(_, id)| !over.contains(id)) {
        let declared = service.backends.get(name);
        // Its name is declared, and somebody else has it: this one is on its way out.
        let retired = || actual.backend(*id).is_some_and(Backend::is_retired);
        let left = match declared.filter(|_| !retired()) {
            None => Some((Cause::Removal, service.policies.removal)),
            Some(backend) => {
                let assumed = || health.of(&service.name, name).assumed;
                let ill = || !healthy(name) && !assumed();
                let unhealthy = || ill().then_some((Cause::Unhealthy, service.policies.unhealthy));
                deadline(due, service, backend.admin, now, udp).or_else(unhealthy)
            }
        };
        let closing = left.and_then(|(cause, policy)| match policy {
            RemovalPolicy::Reset => Some(Closing::all(cause)),
            RemovalPolicy::Usual if udp => {
                let v4 = actual.backend(*id).and_then(Backend::address).is_some_and(|ip| ip.is_ipv4());
                let takes = |(other, spec): (&String, &BackendSpec)| {
                    (other != name || cause == Cause::Removal)
                        && spec.address.is_ipv4() == v4
                        && spec.takes_new()
                        && healthy(other)
                        && (spec.backup || met[usize::from(!v4)])
                };
                service.backends.iter().any(takes).then_some(Closing { cause, datagrams: true })
            }
            RemovalPolicy::Usual | RemovalPolicy::Keep | RemovalPolicy::Drain => None,
        });
        due.backends.extend(closing.map(|closing| (*id, closing)));
    }
}

/// Has a backend's drain reached its deadline, and what becomes of its connections then? If it hasn't, and it matters, notes when it will.
fn deadline(
    due: &mut Due,
    service: &ServiceSpec,
    admin: AdminState,
    now: Duration,
    udp: bool,
) -> Option<(Cause, RemovalPolicy)> {
    let AdminState::Draining { since, deadline: Some(deadline) } = admin else { return None };
    let policy = service.policies.deadline;
    if policy != RemovalPolicy::Reset && !(udp && policy == RemovalPolicy::Usual) {
        return None;
    }
    let end = since.saturating_add(deadline);
    if now >= end {
        return Some((Cause::Deadline, policy));
    }
    due.wait(end);
    None
}

#[cfg(test)]
mod tests;
