use super::*;
use crate::frame::{Ack, Leave, Own, Subscribe, Total};

const SERVICE: ServiceKey = ServiceKey(7);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// An owner that has been one for a while.
fn owner() -> Owner {
    let mut owner =
        Owner::new(NodeId(99), 1, Settings { cluster: "c".into(), budget: 100_000.0 }, Duration::ZERO);
    owner.poll(ms(2_000));
    owner
}

fn report(node: u64, seq: u64, base: u64, counts: &[(u64, u32)]) -> Frame {
    let counts =
        counts.iter().map(|(backend, open)| Own { backend: BackendKey(*backend), open: *open }).collect();
    Frame::Report(Report { node: NodeId(node), service: SERVICE, epoch: 5, seq, base, pool: 40, counts })
}

fn subscribe(node: u64) -> Frame {
    Frame::Subscribe(Subscribe { node: NodeId(node), service: SERVICE })
}

fn send(owner: &mut Owner, now: Duration, node: u64, frame: &Frame) {
    owner.receive(now, NodeId(node), frame).unwrap();
}

fn totals(owner: &Owner) -> Vec<(u64, u64)> {
    owner.totals(SERVICE).map(|(backend, open)| (backend.0, open)).collect()
}

/// Totals that are sent, but for those that are whole.
fn news(out: Vec<(To, Frame)>) -> Vec<Totals> {
    let totals = |(_, frame)| match frame {
        Frame::Totals(totals) if !totals.whole => Some(totals),
        _ => None,
    };
    out.into_iter().filter_map(totals).collect()
}

#[test]
fn reports_add_up_whatever_becomes_of_them_on_the_way() {
    let mut owner = owner();
    let now = ms(2_000);
    send(&mut owner, now, 1, &report(1, 1, 0, &[(10, 3), (11, 1)]));
    send(&mut owner, now, 2, &report(2, 1, 0, &[(10, 2)]));
    assert_eq!(totals(&owner), [(10, 5), (11, 1)]);
    // The second is lost, the third says what it said; the first comes again.
    send(&mut owner, now, 1, &report(1, 3, 1, &[(10, 4), (12, 1)]));
    send(&mut owner, now, 1, &report(1, 1, 0, &[(10, 3), (11, 1)]));
    send(&mut owner, now, 1, &report(1, 2, 1, &[(10, 9)]));
    assert_eq!(totals(&owner), [(10, 6), (11, 1), (12, 1)]);
    // All of it: what isn't listed is gone.
    send(&mut owner, now, 1, &report(1, 4, 0, &[(12, 2)]));
    assert_eq!(totals(&owner), [(10, 2), (12, 2)]);
}

#[test]
fn what_adds_to_something_unknown_is_asked_for() {
    let mut owner = owner();
    send(&mut owner, ms(2_000), 1, &report(1, 9, 8, &[(10, 3)]));
    let asks = owner.poll(ms(2_000));
    assert!(asks.contains(&(To::Node(NodeId(1)), Frame::Ask(Ask { from: NodeId(99), service: SERVICE }))));
    assert_eq!(totals(&owner), []);
}

#[test]
fn who_subscribes_gets_all_of_it_and_then_what_changes() {
    let mut owner = owner();
    send(&mut owner, ms(2_000), 1, &report(1, 1, 0, &[(10, 3)]));
    owner.poll(ms(2_000));
    send(&mut owner, ms(2_010), 2, &subscribe(2));
    let out = owner.poll(ms(2_010));
    let [(To::Node(NodeId(2)), Frame::Totals(whole))] = out.as_slice() else { panic!("{out:?}") };
    assert!(whole.whole && !whole.settling);
    assert_eq!(whole.counts, [Total { backend: BackendKey(10), open: 3 }]);
    assert_eq!(whole.acks, [Ack { node: NodeId(2), epoch: 0, seq: 0 }]);
    send(&mut owner, ms(2_020), 2, &report(2, 1, 0, &[(11, 1)]));
    let news = news(owner.poll(ms(2_020)));
    assert_eq!(news[0].seq, whole.seq + 1);
    assert_eq!(news[0].counts, [Total { backend: BackendKey(11), open: 1 }]);
    assert_eq!(news[0].acks, [Ack { node: NodeId(2), epoch: 5, seq: 1 }]);
    assert_eq!(owner.subscribers(SERVICE).collect::<Vec<_>>(), [NodeId(1), NodeId(2)]);
}

#[test]
fn opens_are_told_at_once_but_for_the_gap_and_closes_may_wait() {
    let mut owner = owner();
    send(&mut owner, ms(2_000), 1, &subscribe(1));
    send(&mut owner, ms(2_000), 1, &report(1, 1, 0, &[(10, 2)]));
    assert_eq!(news(owner.poll(ms(2_000))).len(), 1);
    send(&mut owner, ms(2_001), 1, &report(1, 2, 1, &[(10, 3)]));
    assert_eq!(news(owner.poll(ms(2_001))).len(), 0);
    assert_eq!(owner.deadline(), ms(2_002));
    assert_eq!(news(owner.poll(ms(2_002))).len(), 1);
    send(&mut owner, ms(2_010), 1, &report(1, 3, 2, &[(10, 1)]));
    assert_eq!(owner.deadline(), ms(2_060));
    // An open takes them along.
    send(&mut owner, ms(2_020), 1, &report(1, 4, 3, &[(11, 1)]));
    let news = news(owner.poll(ms(2_020)));
    assert_eq!(news[0].counts.len(), 2);
}

#[test]
fn the_last_totals_are_repeated_so_that_a_loss_shows() {
    let mut owner = owner();
    send(&mut owner, ms(2_000), 1, &report(1, 1, 0, &[(10, 1)]));
    let mut times = Vec::new();
    let mut now = ms(2_000);
    while now < ms(40_000) {
        // The node says that it is there.
        send(&mut owner, now, 1, &subscribe(1));
        if news(owner.poll(now)).len() == 1 {
            times.push(now.as_millis());
        }
        now += ms(125);
    }
    assert_eq!(times, [2_000, 2_250, 2_750, 3_750, 33_750]);
}

#[test]
fn a_silent_node_is_kept_for_a_while_and_longer_if_only_its_agent_is_gone() {
    for (ended, kept) in [(false, 5_000), (true, 15_000)] {
        let mut owner = owner();
        send(&mut owner, ms(2_000), 1, &report(1, 1, 0, &[(10, 3)]));
        if ended {
            owner.disconnected(ms(2_000), NodeId(1));
        }
        let mut now = ms(2_000);
        while !totals(&owner).is_empty() {
            now = owner.deadline();
            owner.poll(now);
        }
        assert_eq!(now, ms(2_000 + kept), "ended: {ended}");
        assert_eq!(owner.members().count(), 0);
    }
}

/// What a node thinks that it has subscribed to is not to be relied on then.
#[test]
fn who_was_forgotten_learns_of_it_when_he_is_greeted() {
    let mut owner = owner();
    let name = "node-1";
    let hello = Frame::Hello(Hello { node: name.into(), cluster: "c".into(), epoch: 5 });
    let mut met = |now| {
        owner.poll(now);
        owner.receive(now, NodeId::of(name), &hello).unwrap();
        let greeting = |(_, frame)| match frame {
            Frame::Alive(Alive { greeting, .. }) => greeting,
            _ => None,
        };
        let greeting = owner.poll(now).into_iter().find_map(greeting).unwrap();
        assert_eq!(greeting.node, NodeId::of(name));
        greeting.met
    };
    let (first, again, later) = (met(ms(2_000)), met(ms(6_000)), met(ms(12_000)));
    assert!(first == again && again < later, "{first}, {again}, {later}");
}

#[test]
fn who_leaves_is_forgotten_unless_he_has_reported_since() {
    let mut owner = owner();
    let leave = |seq| Frame::Leave(Leave { node: NodeId(1), service: SERVICE, epoch: 5, seq });
    send(&mut owner, ms(2_000), 1, &report(1, 2, 0, &[(10, 3)]));
    send(&mut owner, ms(2_000), 1, &leave(1));
    assert_eq!(totals(&owner), [(10, 3)]);
    send(&mut owner, ms(2_000), 1, &leave(2));
    assert_eq!(totals(&owner), []);
}

#[test]
fn numbers_go_on_when_a_service_comes_back() {
    let mut owner = owner();
    let mut last = 0;
    for round in 1..4 {
        send(&mut owner, ms(2_000 * round), 1, &report(1, round, 0, &[(10, 3)]));
        let seq = news(owner.poll(ms(2_000 * round)))[0].seq;
        assert!(seq > last, "{seq} after {last}");
        last = seq;
        let leave = Leave { node: NodeId(1), service: SERVICE, epoch: 5, seq: round };
        send(&mut owner, ms(2_000 * round), 1, &Frame::Leave(leave));
    }
}

#[test]
fn a_new_owner_says_that_it_may_not_have_heard_of_everybody() {
    let settings = Settings { cluster: "c".into(), budget: 100_000.0 };
    let mut owner = Owner::new(NodeId(99), 1, settings, Duration::ZERO);
    send(&mut owner, ms(10), 1, &report(1, 1, 0, &[(10, 3)]));
    assert!(news(owner.poll(ms(10)))[0].settling);
    let settled = loop {
        let now = owner.deadline();
        if news(owner.poll(now)).iter().any(|totals| !totals.settling) {
            break now;
        }
    };
    assert_eq!(settled, SETTLE);
}

#[test]
fn what_is_another_s_or_nonsense_is_refused_and_changes_nothing() {
    let mut owner = owner();
    send(&mut owner, ms(2_000), 1, &report(1, 1, 0, &[(10, 3)]));
    let before = totals(&owner);
    let hello = |cluster: &str| Frame::Hello(Hello { node: "n".into(), cluster: cluster.into(), epoch: 1 });
    for (peer, frame, said) in [
        (
            NodeId(2),
            report(1, 2, 1, &[(10, 0)]),
            "node 0000000000000002 speaks for node 0000000000000001: a node reports what is its own",
        ),
        (
            NodeId::of("n"),
            hello("d"),
            "node n is of cluster \"d\", this is cluster \"c\": have each use its own aggregators",
        ),
        (
            NodeId(3),
            Frame::Alive(Alive { owner: NodeId(3), epoch: 1, greeting: None }),
            "node 0000000000000003 sends what isn't for owners",
        ),
    ] {
        assert_eq!(owner.receive(ms(2_000), peer, &frame).unwrap_err().to_string(), said);
        assert_eq!(owner.members().count(), 1);
    }
    assert_eq!(totals(&owner), before);
    let all = |from: u64| (from..from + 8_000).map(|key| (key, 1)).collect::<Vec<_>>();
    send(&mut owner, ms(2_000), 2, &report(2, 1, 0, &all(100)));
    let error = owner.receive(ms(2_000), NodeId(2), &report(2, 2, 1, &all(9_000))).unwrap_err();
    assert!(matches!(error, Refusal::Backends { backends: 16_000, .. }), "{error}");
    assert_eq!(totals(&owner), before);
}

/// One after another, so many milliseconds apart, and each ends when ten more have opened: how many totals are told within the last second of so many.
fn told_of(owner: &mut Owner, seconds: u64, apart: u64) -> usize {
    let mut told = 0;
    for i in 1..=seconds * 1_000 / apart {
        let now = ms(2_000 + i * apart);
        while owner.deadline() < now {
            let out = owner.poll(owner.deadline());
            told += if now > ms(1_000 + seconds * 1_000) { news(out).len() } else { 0 };
        }
        send(owner, now, 1, &report(1, i, i - 1, &[(10 + i % 20, 1), (10 + (i + 10) % 20, 0)]));
    }
    told
}

#[test]
fn each_of_a_herd_is_told_of_at_once_and_those_of_a_stream_by_twos() {
    assert_eq!(told_of(&mut owner(), 1, 25), 40 - 1, "the last is told of after the second");
    let told = told_of(&mut owner(), 60, 10);
    assert!((49..=51).contains(&told), "{told} times of 100 connections");
    // At a thousand a second no more than every 5 ms.
    let told = told_of(&mut owner(), 10, 1);
    assert!((160..=200).contains(&told), "{told} times of 1,000 connections");
}
