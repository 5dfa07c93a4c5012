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
    assert_eq!(at(108, service(RemovalPolicies::default(), drain(Some(seconds(8)))), false), Due::default());
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
fn who_is_only_assumed_to_be_ill_keeps_what_it_has() {
    let policies = RemovalPolicies { unhealthy: RemovalPolicy::Reset, ..RemovalPolicies::default() };
    let desired = Desired::new(vec![service(policies, AdminState::Active)]).unwrap();
    let due = |assumed| {
        let mut health = HealthStates::default();
        let state = health.entry("s", "10.0.0.2:80");
        (state.healthy, state.assumed) = (false, assumed);
        due(&desired, &actual(), &health, &HashSet::new(), &Departures::new(), seconds(0)).backends
    };
    assert_eq!(due(true), []);
    assert_eq!(due(false), [(OTHER, Closing::all(Cause::Unhealthy))], "its checks have said so");
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
