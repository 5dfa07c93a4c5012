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
    for (name, id) in there.backends.iter().filter(|(_, id)| !over.contains(id)) {
        let declared = service.backends.get(name);
        // Its name is declared, and somebody else has it: this one is on its way out.
        let retired = || actual.backend(*id).is_some_and(Backend::is_retired);
        let left = match declared.filter(|_| !retired()) {
            None => Some((Cause::Removal, service.policies.removal)),
            Some(backend) => {
                let unhealthy = || (!healthy(name)).then_some((Cause::Unhealthy, service.policies.unhealthy));
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
mod tests {

    use super::*;
    use crate::{
        model::{Departure, Frontend, Origin, RemovalPolicies, service::make_backend},
        reconcile::Step,
    };

    const ID: BackendId = BackendId(16);
    const OTHER: BackendId = BackendId(17);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A service with two backends, the first as `admin` says.
    fn service(policies: RemovalPolicies, admin: AdminState) -> ServiceSpec {
        let (addresses, ports) = (vec!["10.96.0.1".parse().unwrap()], vec!["80/tcp".parse().unwrap()]);
        let frontend = Frontend { addresses, ports, ..Frontend::default() };
        let mut service = ServiceSpec::new("s", vec![frontend], Origin::Cli);
        service.policies = policies;
        for (i, address) in ["10.0.0.1:80", "10.0.0.2:80"].into_iter().enumerate() {
            let mut backend = make_backend("s", address, None, None, false, Origin::Cli).unwrap();
            if i == 0 {
                backend.admin = admin;
            }
            service.add(backend).unwrap();
        }
        service
    }

    fn actual() -> Actual {
        let mut actual = Actual::default();
        actual.apply(&Step::Name { service: 1, name: Some("s".into()) });
        for (id, address) in [(ID, "10.0.0.1"), (OTHER, "10.0.0.2")] {
            let value = Backend::new(address.parse().unwrap(), Some(80), 1);
            actual.apply(&Step::Backend { id, value });
        }
        actual
    }

    fn at(now: u64, service: ServiceSpec, healthy: bool) -> Due {
        let desired = Desired::new(vec![service]).unwrap();
        let mut health = HealthStates::default();
        health.entry("s", "10.0.0.2:80").healthy = healthy;
        due(&desired, &actual(), &health, &HashSet::new(), &Departures::new(), seconds(now))
    }

    #[test]
    fn a_deadline_is_due_when_it_is_and_not_before() {
        let policies = RemovalPolicies { deadline: RemovalPolicy::Reset, ..RemovalPolicies::default() };
        let drain = |deadline| AdminState::Draining { since: seconds(100), deadline };
        let early = at(107, service(policies, drain(Some(seconds(8)))), false);
        assert_eq!(early, Due { backends: Vec::new(), next: Some(seconds(108)) });
        let now = at(108, service(policies, drain(Some(seconds(8)))), false);
        assert_eq!(now, Due { backends: vec![(ID, Closing::all(Cause::Deadline))], next: None });
        assert_eq!(
            at(108, service(RemovalPolicies::default(), drain(Some(seconds(8)))), false),
            Due::default()
        );
        assert_eq!(at(u64::MAX, service(policies, drain(None)), false), Due::default());
        assert_eq!(at(108, service(policies, drain(Some(Duration::MAX))), false).next, Some(Duration::MAX));
    }

    #[test]
    fn who_is_unhealthy_or_gone_is_due_if_the_service_says_so() {
        let unhealthy = RemovalPolicies { unhealthy: RemovalPolicy::Reset, ..RemovalPolicies::default() };
        let removal = RemovalPolicies { removal: RemovalPolicy::Reset, ..RemovalPolicies::default() };
        let due = |policies, healthy| at(0, service(policies, AdminState::Active), healthy).backends;
        assert_eq!(due(unhealthy, false), [(OTHER, Closing::all(Cause::Unhealthy))]);
        assert_eq!(due(unhealthy, true), []);
        assert_eq!(due(removal, false), []);
        let mut one = service(removal, AdminState::Active);
        one.backends.remove("10.0.0.1:80");
        assert_eq!(at(0, one, true).backends, [(ID, Closing::all(Cause::Removal))]);
        let departed = HashSet::from(["s".to_string()]);
        let gone = super::due(
            &Desired::default(),
            &actual(),
            &HealthStates::default(),
            &departed,
            &Departures::new(),
            seconds(0),
        );
        let both = [ID, OTHER].map(|id| (id, Closing::all(Cause::Removal)));
        assert_eq!(gone.backends, both);
    }

    #[test]
    fn what_a_removed_backend_has_goes_on_until_its_deadline() {
        let policies = RemovalPolicies {
            removal: RemovalPolicy::Drain,
            removal_deadline: Some(seconds(8)),
            ..RemovalPolicies::default()
        };
        let mut one = service(policies, AdminState::Active);
        let both = Desired::new(vec![one.clone()]).unwrap();
        one.backends.remove("10.0.0.1:80");
        let one = Desired::new(vec![one]).unwrap();
        let departure = Departure { since: seconds(100), end: seconds(108) };
        let removals = Departures::from([("s".into(), [("10.0.0.1:80".into(), departure)].into())]);
        let due = |desired: &Desired, now| {
            let health = HealthStates::default();
            due(desired, &actual(), &health, &HashSet::new(), &removals, seconds(now))
        };
        let over = Due { backends: vec![(ID, Closing::all(Cause::Deadline))], next: None };
        assert_eq!(due(&one, 107), Due { backends: Vec::new(), next: Some(seconds(108)) });
        assert_eq!(due(&one, 108), over);
        assert_eq!(due(&both, 108), Due::default(), "it is declared again");
        // Its whole service is gone, and the agent that saw it go may be, too.
        assert_eq!(due(&Desired::default(), 107).next, Some(seconds(108)));
        assert_eq!(due(&Desired::default(), 108), over);
    }

    #[test]
    fn udp_flows_leave_for_a_backend_that_takes_them() {
        let udp = |unhealthy, admin| {
            let policies = RemovalPolicies { unhealthy, ..RemovalPolicies::default() };
            let mut service = service(policies, admin);
            service.frontends[0].ports.push("53/udp".parse().unwrap());
            service
        };
        let due = |service, healthy| at(200, service, healthy).backends;
        let datagrams = |cause| Closing { cause, datagrams: true };
        let usual = |admin| udp(RemovalPolicy::Usual, admin);
        assert_eq!(due(usual(AdminState::Active), false), [(OTHER, datagrams(Cause::Unhealthy))]);
        assert_eq!(due(usual(AdminState::Active), true), []);
        assert_eq!(due(udp(RemovalPolicy::Keep, AdminState::Active), false), [], "it is said that they stay");
        assert_eq!(due(service(RemovalPolicies::default(), AdminState::Active), false), [], "it has no UDP");
        // Nobody else takes them.
        let drains = AdminState::Draining { since: seconds(100), deadline: None };
        assert_eq!(due(usual(drains), false), []);
        let drained = AdminState::Draining { since: seconds(100), deadline: Some(seconds(8)) };
        assert_eq!(due(usual(drained), true), [(ID, datagrams(Cause::Deadline))]);
        assert_eq!(due(usual(drained), false), [], "the other is unhealthy");
        let mut one = usual(AdminState::Active);
        one.backends.remove("10.0.0.1:80");
        assert_eq!(due(one, true), [(ID, datagrams(Cause::Removal))]);
    }

    #[test]
    fn only_what_counts_is_closed_and_udp_is_forgotten() {
        use lb_common::flow_state::Phase;
        for (phase, proto, wanted) in [
            (Phase::ESTABLISHED, Proto::TCP, Some(How::Reset)),
            (Phase::UDP, Proto::UDP, Some(How::Forget)),
            (Phase::CLOSED, Proto::TCP, None),
            (Phase::RESET, Proto::TCP, None),
        ] {
            assert_eq!(How::close(Word::new(phase, 9), proto), wanted, "{phase:?}");
        }
    }
}
