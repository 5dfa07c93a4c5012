use super::*;
use crate::frame::{Ack, Alive, Ask, Greeting, Leave, Report, Total};

const SERVICE: ServiceKey = ServiceKey(7);
const OWNER: NodeId = NodeId(99);
const EPOCH: u64 = 5;
const A: BackendKey = BackendKey(10);
const B: BackendKey = BackendKey(11);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn me() -> NodeId {
    NodeId::of("node-1")
}

/// An agent with one connection to `A`, at 0, that has subscribed.
fn agent() -> Agent {
    let mut agent = Agent::new("node-1", "c", EPOCH);
    agent.set_aggregators(ms(0), Aggregators::new([OWNER]).unwrap());
    agent.counted(ms(0), SERVICE, 2, 1, &[(A, 1)]);
    agent
}

fn totals(seq: u64, whole: bool, counts: &[(BackendKey, u64)], ack: Option<(u64, u64)>) -> Totals {
    let counts = counts.iter().map(|(backend, open)| Total { backend: *backend, open: *open }).collect();
    let ack = ack.map(|(epoch, seq)| Ack { node: me(), epoch, seq });
    Totals {
        owner: OWNER,
        epoch: 1,
        service: SERVICE,
        seq,
        whole,
        settling: false,
        rate: 0.0,
        gap: 2_000,
        counts,
        acks: ack.into_iter().collect(),
    }
}

fn hear(agent: &mut Agent, now: Duration, totals: Totals) {
    agent.receive(now, OWNER, &Frame::Totals(totals)).unwrap();
}

fn alive(agent: &mut Agent, now: Duration, epoch: u64) {
    agent.receive(now, OWNER, &Frame::Alive(Alive { owner: OWNER, epoch, greeting: None })).unwrap();
}

fn others(agent: &Agent, now: Duration) -> [Option<u64>; 2] {
    [A, B].map(|backend| agent.others(now, SERVICE, backend))
}

/// Number, base and counts of a report.
type Said = (u64, u64, Vec<(u64, u32)>);

/// Reports among what is sent.
fn reports(out: Vec<(NodeId, Frame)>) -> Vec<Said> {
    let report = |(_, frame)| match frame {
        Frame::Report(Report { seq, base, counts, .. }) => {
            Some((seq, base, counts.iter().map(|own| (own.backend.0, own.open)).collect()))
        }
        _ => None,
    };
    out.into_iter().filter_map(report).collect()
}

/// That agent, after the owner has taken its first report: `A` has 4 in all, `B` 2.
fn sharing() -> Agent {
    let mut agent = agent();
    agent.poll(ms(0));
    hear(&mut agent, ms(3), totals(1, true, &[(A, 3), (B, 2)], Some((0, 0))));
    hear(&mut agent, ms(4), totals(2, false, &[(A, 4)], Some((EPOCH, 1))));
    agent
}

#[test]
fn a_service_is_subscribed_to_with_its_first_flow() {
    let mut agent = Agent::new("node-1", "c", EPOCH);
    agent.set_aggregators(ms(0), Aggregators::new([OWNER]).unwrap());
    agent.counted(ms(0), SERVICE, 2, 0, &[(A, 0), (B, 0)]);
    assert_eq!((agent.poll(ms(0)), agent.deadline()), (vec![], None));
    agent.counted(ms(0), SERVICE, 2, 1, &[(A, 1), (B, 0)]);
    let kinds = agent.poll(ms(0));
    let [(OWNER, Frame::Hello(hello)), (OWNER, Frame::Subscribe(_)), (OWNER, Frame::Report(report))] =
        kinds.as_slice()
    else {
        panic!("{kinds:?}")
    };
    assert_eq!((hello.node.as_str(), hello.cluster.as_str()), ("node-1", "c"));
    assert_eq!((report.seq, report.base, report.pool), (1, 0, 2));
    assert!(!agent.view(ms(0), SERVICE).unwrap().shared);
}

/// The next one is picked by what others have.
#[test]
fn a_connection_that_has_come_and_gone_is_a_first_one_too() {
    let mut agent = Agent::new("node-1", "c", EPOCH);
    agent.set_aggregators(ms(0), Aggregators::new([OWNER]).unwrap());
    agent.counted(ms(0), SERVICE, 2, 1, &[]);
    let subscribed = |out: Vec<(NodeId, Frame)>| out.iter().any(|(_, it)| matches!(it, Frame::Subscribe(_)));
    assert!(subscribed(agent.poll(ms(0))));
    hear(&mut agent, ms(3), totals(1, true, &[(A, 3)], Some((0, 0))));
    assert_eq!(others(&agent, ms(3)), [Some(3), Some(0)]);
    // After an hour without any it leaves, and no change of the pool makes it listen again: only a connection does.
    let mut now = ms(3);
    while agent.view(now, SERVICE).is_some() {
        now = now.max(agent.deadline().unwrap());
        alive(&mut agent, now, 1);
        agent.poll(now);
    }
    agent.counted(now, SERVICE, 3, 1, &[]);
    assert!(!subscribed(agent.poll(now)));
    agent.counted(now, SERVICE, 3, 2, &[]);
    assert!(subscribed(agent.poll(now)));
}

#[test]
fn others_are_the_totals_without_what_is_its_own_in_them() {
    let mut agent = agent();
    agent.poll(ms(0));
    hear(&mut agent, ms(3), totals(1, true, &[(A, 3), (B, 2)], Some((0, 0))));
    assert_eq!(others(&agent, ms(3)), [Some(3), Some(2)]);
    hear(&mut agent, ms(4), totals(2, false, &[(A, 4)], Some((EPOCH, 1))));
    assert_eq!(others(&agent, ms(4)), [Some(3), Some(2)]);
    // Two more reports on the way: what comes back contains the first of them.
    agent.counted(ms(10), SERVICE, 2, 2, &[(A, 2)]);
    assert_eq!(reports(agent.poll(ms(10))), [(2, 1, vec![(10, 2)])]);
    agent.counted(ms(20), SERVICE, 2, 3, &[(B, 1)]);
    // All that isn't acknowledged is said again.
    assert_eq!(reports(agent.poll(ms(20))), [(3, 1, vec![(10, 2), (11, 1)])]);
    hear(&mut agent, ms(21), totals(3, false, &[(A, 6)], Some((EPOCH, 2))));
    assert_eq!(others(&agent, ms(21)), [Some(4), Some(2)]);
    hear(&mut agent, ms(22), totals(4, false, &[(B, 3)], Some((EPOCH, 3))));
    assert_eq!(others(&agent, ms(22)), [Some(4), Some(2)]);
    let view = agent.view(ms(22), SERVICE).unwrap();
    assert_eq!((view.shared, view.age, view.contradictions), (true, Some(ms(0)), 0));
}

#[test]
fn frames_that_come_again_or_late_change_nothing() {
    let mut agent = sharing();
    for late in [
        totals(1, true, &[(A, 9)], Some((0, 0))),
        totals(2, false, &[(A, 9)], None),
        totals(1, false, &[(B, 9)], None),
    ] {
        hear(&mut agent, ms(5), late);
        assert_eq!(others(&agent, ms(5)), [Some(3), Some(2)]);
    }
}

#[test]
fn a_missing_number_is_asked_for_once_and_again() {
    let mut agent = sharing();
    let asks = |out: Vec<(NodeId, Frame)>| out.iter().filter(|(_, it)| matches!(it, Frame::Ask(_))).count();
    hear(&mut agent, ms(10), totals(4, false, &[(A, 9)], None));
    assert_eq!(asks(agent.poll(ms(10))), 1);
    hear(&mut agent, ms(12), totals(5, false, &[(A, 10)], None));
    assert_eq!(asks(agent.poll(ms(12))), 0);
    assert_eq!(others(&agent, ms(12)), [Some(3), Some(2)]);
    assert_eq!(asks(agent.poll(ms(211))), 1);
    hear(&mut agent, ms(215), totals(5, true, &[(A, 10), (B, 2)], Some((EPOCH, 1))));
    assert_eq!(others(&agent, ms(215)), [Some(9), Some(2)]);
}

#[test]
fn a_silent_owner_is_not_relied_on() {
    let mut agent = sharing();
    assert!(others(&agent, ms(1_003))[0].is_some());
    agent.take_rewrites();
    assert_eq!(agent.deadline(), Some(ms(1_000)));
    agent.poll(ms(1_000));
    assert_eq!(agent.take_rewrites().len(), 0);
    assert_eq!(agent.deadline(), Some(ms(1_004)));
    agent.poll(ms(1_004));
    // What is written says nothing of others any more.
    assert_eq!(agent.take_rewrites().len(), 1);
    assert_eq!(others(&agent, ms(1_004)), [None, None]);
    let pool = Pool::new(&[(A, 1), (B, 1)]);
    let alone = agent.words(ms(1_004), SERVICE, &pool, &[1, 0], 0);
    assert!(!alone.shared && alone.words.iter().all(|word| *word <= lb_common::ranked::ORDER));
    // It is back: what it has said meanwhile is asked for.
    alive(&mut agent, ms(1_010), 1);
    assert!(agent.poll(ms(1_010)).iter().any(|(_, frame)| matches!(frame, Frame::Ask(_))));
    hear(&mut agent, ms(1_012), totals(2, true, &[(A, 4), (B, 2)], Some((EPOCH, 1))));
    assert_eq!(agent.take_rewrites().len(), 1);
    assert_eq!(others(&agent, ms(1_012)), [Some(3), Some(2)]);
}

#[test]
fn what_is_too_old_for_the_rate_is_not_relied_on() {
    let mut agent = sharing();
    // Eight connections that nobody has told of are 80 ms, after a gap of 2.
    hear(&mut agent, ms(100), Totals { rate: 100.0, ..totals(3, false, &[], None) });
    assert!(agent.view(ms(181), SERVICE).unwrap().shared);
    assert!(!agent.view(ms(182), SERVICE).unwrap().shared);
    agent.take_rewrites();
    agent.poll(ms(182));
    assert_eq!(agent.take_rewrites().len(), 1);
}

#[test]
fn what_an_earlier_life_has_reported_is_not_guessed() {
    let mut agent = agent();
    agent.poll(ms(0));
    hear(&mut agent, ms(3), totals(8, true, &[(A, 3), (B, 2)], Some((EPOCH - 1, 40))));
    assert_eq!(others(&agent, ms(3)), [None, None]);
    hear(&mut agent, ms(4), totals(9, false, &[(A, 3)], Some((EPOCH, 1))));
    assert_eq!(others(&agent, ms(4)), [Some(2), Some(2)]);
}

#[test]
fn an_owner_in_a_new_life_is_told_all_of_it() {
    let mut agent = sharing();
    agent.counted(ms(50), SERVICE, 2, 2, &[(B, 1)]);
    agent.poll(ms(50));
    alive(&mut agent, ms(60), 2);
    assert_eq!(others(&agent, ms(60)), [None, None]);
    let out = agent.poll(ms(60));
    assert!(matches!(out[0].1, Frame::Subscribe(_)), "{out:?}");
    assert_eq!(reports(out), [(3, 0, vec![(10, 1), (11, 1)])]);
    // A frame of the old one is late.
    hear(&mut agent, ms(61), totals(3, false, &[(A, 9)], None));
    let settling =
        Totals { epoch: 2, settling: true, ..totals(1, true, &[(A, 1), (B, 1)], Some((EPOCH, 3))) };
    hear(&mut agent, ms(62), settling);
    assert_eq!(others(&agent, ms(62)), [None, None]);
    hear(&mut agent, ms(63), Totals { epoch: 2, ..totals(2, false, &[(A, 5)], None) });
    assert_eq!(others(&agent, ms(63)), [Some(4), Some(0)]);
}

#[test]
fn an_owner_that_has_forgotten_the_node_is_told_all_of_it() {
    for forgotten in [
        Frame::Totals(totals(3, false, &[(A, 3)], Some((0, 0)))),
        Frame::Ask(Ask { from: OWNER, service: SERVICE }),
    ] {
        let mut agent = sharing();
        agent.receive(ms(20), OWNER, &forgotten).unwrap();
        assert_eq!(others(&agent, ms(20)), [Some(3), Some(2)]);
        let mut now = ms(20);
        let said = loop {
            now = now.max(agent.deadline().unwrap());
            let said = reports(agent.poll(now));
            if !said.is_empty() {
                break said;
            }
        };
        assert!(now <= ms(220), "{now:?}");
        assert_eq!(said, [(2, 0, vec![(10, 1)])]);
    }
}

#[test]
fn an_owner_that_has_met_the_node_anew_is_asked_for_all_of_it() {
    let mut agent = sharing();
    for (met, asks) in [(3, 1), (3, 0), (2, 0), (4, 1)] {
        let greeting = Some(Greeting { node: me(), met });
        let alive = Frame::Alive(Alive { owner: OWNER, epoch: 1, greeting });
        agent.receive(ms(20), OWNER, &alive).unwrap();
        let asked = agent.poll(ms(20)).iter().filter(|(_, frame)| matches!(frame, Frame::Ask(_))).count();
        assert_eq!(asked, asks, "{met}");
        hear(&mut agent, ms(21), totals(2, true, &[(A, 4), (B, 2)], Some((EPOCH, 1))));
    }
}

#[test]
fn a_new_owner_takes_over_what_the_old_one_has_said() {
    let mut agent = sharing();
    let next = NodeId(98);
    agent.set_aggregators(ms(20), Aggregators::new([next]).unwrap());
    let out = agent.poll(ms(20));
    assert!(out.iter().any(|(to, frame)| *to == OWNER && matches!(frame, Frame::Leave(_))));
    assert!(out.iter().any(|(to, frame)| *to == next && matches!(frame, Frame::Subscribe(_))));
    hear(&mut agent, ms(21), totals(3, false, &[(A, 50)], None));
    assert_eq!(others(&agent, ms(21)), [Some(3), Some(2)]);
    let first = Totals { owner: next, ..totals(1, true, &[(A, 6)], Some((0, 0))) };
    agent.receive(ms(22), next, &Frame::Totals(first)).unwrap();
    assert_eq!(others(&agent, ms(22)), [Some(6), Some(0)]);
    // If it says nothing, the old one's word is good for a second.
    let mut agent = sharing();
    agent.set_aggregators(ms(20), Aggregators::new([next]).unwrap());
    assert_eq!(others(&agent, ms(1_019)), [Some(3), Some(2)]);
    assert_eq!(others(&agent, ms(1_020)), [None, None]);
}

#[test]
fn connections_under_way_are_a_random_part_of_what_is_to_be_expected() {
    let mut agent = sharing();
    let pool = Pool::new(&[(A, 1), (B, 1)]);
    let poured = |agent: &Agent, chance| {
        let words = agent.words(ms(100), SERVICE, &pool, &[1, 0], chance).words;
        words.iter().map(|word| word >> lb_common::ranked::ORDER_BITS).sum::<u32>() - 5
    };
    // A report has taken 4 ms, so that of 1,000 a second 8 come in twice that.
    hear(&mut agent, ms(100), Totals { rate: 1_000.0, ..totals(3, false, &[], None) });
    assert_eq!(agent.view(ms(100), SERVICE).unwrap().delay, Some(ms(4) - Duration::from_micros(875)));
    assert_eq!([0, u32::MAX / 2, u32::MAX].map(|chance| poured(&agent, chance)), [0, 3, 6]);
    hear(&mut agent, ms(100), Totals { rate: 10.0, ..totals(4, false, &[], None) });
    assert_eq!(poured(&agent, u32::MAX), 0);
}

#[test]
fn a_node_without_connections_listens_for_a_while() {
    let mut agent = sharing();
    agent.counted(ms(100), SERVICE, 2, 1, &[(A, 0)]);
    assert_eq!(reports(agent.poll(ms(150))), [(2, 1, vec![(10, 0)])]);
    hear(&mut agent, ms(151), totals(3, false, &[(A, 3)], Some((EPOCH, 2))));
    let mut now = ms(151);
    let left = loop {
        now = now.max(agent.deadline().unwrap());
        alive(&mut agent, now, 1);
        if agent.poll(now).iter().any(|(_, frame)| matches!(frame, Frame::Leave(_))) {
            break now;
        }
    };
    assert_eq!((left, agent.view(left, SERVICE)), (LINGER, None));
    // If the owner hasn't heard that, it says something again; numbers go on.
    hear(&mut agent, left, totals(4, false, &[], None));
    let leave = Leave { node: me(), service: SERVICE, epoch: EPOCH, seq: 2 };
    assert!(agent.poll(left).contains(&(OWNER, Frame::Leave(leave))));
    agent.counted(left, SERVICE, 2, 2, &[(A, 1)]);
    assert_eq!(reports(agent.poll(left)), [(3, 0, vec![(10, 1)])]);
}

#[test]
fn what_speaks_for_others_is_refused() {
    let mut agent = sharing();
    let said = agent.receive(ms(5), me(), &Frame::Totals(totals(3, false, &[(A, 9)], None))).unwrap_err();
    assert!(said.to_string().ends_with("an owner says what it has added up itself"), "{said}");
    let hello = Frame::Hello(Hello { node: "n".into(), cluster: "c".into(), epoch: 1 });
    assert_eq!(agent.receive(ms(5), OWNER, &hello), Err(Refusal::Direction(OWNER)));
    assert_eq!(others(&agent, ms(5)), [Some(3), Some(2)]);
}

/// A whole report says what is gone as well: if it is lost, the next, which adds to the one before, says it again.
#[test]
fn what_has_gone_is_said_until_the_owner_has_it() {
    let mut agent = agent();
    agent.poll(ms(0));
    agent.counted(ms(2), SERVICE, 2, 2, &[(A, 0), (B, 1)]);
    assert_eq!(reports(agent.poll(ms(2))), [(2, 0, vec![(10, 0), (11, 1)])]);
    hear(&mut agent, ms(3), totals(1, true, &[(A, 1)], Some((EPOCH, 1))));
    agent.counted(ms(4), SERVICE, 2, 3, &[(B, 2)]);
    assert_eq!(reports(agent.poll(ms(4))), [(3, 1, vec![(10, 0), (11, 2)])]);
}

#[test]
fn backends_of_others_are_listed_while_they_are_known() {
    let agent = sharing();
    let count = |backend, own, others| Count { backend, own, others };
    assert_eq!(agent.counts(ms(5), SERVICE), [count(A, 1, Some(3)), count(B, 0, Some(2))]);
    assert_eq!(agent.counts(ms(2_000), SERVICE), [count(A, 1, None)]);
    assert_eq!(agent.services().collect::<Vec<_>>(), [SERVICE]);
}
