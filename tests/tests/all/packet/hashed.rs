//! Consistent hashing: the table decides, on every node alike; strays go where their flow went.

use lb_common::abi::{Algorithm, Reason};

use super::{
    build::{ACK, PSH, RST, SYN, eth},
    stage::{Expect::*, Stage, TCP, UDP, everywhere},
    tcp::request,
    world::{Added, Member},
};

fn hashed(s: &mut Stage<'_>) -> (Added, Vec<Member>) {
    let members: Vec<_> = s.net.backends.iter().map(|b| Member::new(*b, 8080)).collect();
    (s.world.add_hashed(s.net.vip, &[(TCP, 80), (UDP, 53)], &members).unwrap(), members)
}

#[test]
fn the_same_flow_goes_to_the_same_backend_after_the_table_is_lost() {
    everywhere(|s| {
        let net = s.net;
        hashed(s);
        let syn = |port| eth().ip(net.client, net.vip).tcp(port, 80, SYN);
        let first: Vec<_> = (30_000..30_200).map(|p| s.forwarded("SYN", &syn(p))).collect();
        for b in 0..4 {
            let n = first.iter().filter(|f| **f == b).count();
            assert!((25..75).contains(&n), "backend {b} got {n} of 200");
        }
        s.world.reset().unwrap();
        hashed(s);
        for (port, backend) in (30_000..30_200).zip(first) {
            let data = eth().ip(net.client, net.vip).tcp(port, 80, ACK | PSH).numbers(1001, 5001).fill(3);
            assert_eq!(s.forwarded("data of a connection that another node had", &data), backend);
        }
    });
}

#[test]
fn a_connection_taken_over_in_the_middle_owes_nobody_an_answer() {
    everywhere(|s| {
        let net = s.net;
        hashed(s);
        s.forwarded("data", &request(net, ACK | PSH).numbers(1001, 5001).fill(3));
        let marks = |forward: bool| {
            let v4 = s.world.flows4.entries().into_iter().find(|f| f.direction.is_forward() == forward);
            let v6 = s.world.flows6.entries().into_iter().find(|f| f.direction.is_forward() == forward);
            v4.map(|f| f.mark).or(v6.map(|f| f.mark)).expect("a flow")
        };
        assert!(!lb_common::flow_state::unanswered(marks(true), marks(false)));
        assert_eq!((marks(true), marks(false)), (5001, 5002));
    });
}

#[test]
fn a_stray_reset_or_synack_opens_nothing() {
    everywhere(|s| {
        let net = s.net;
        hashed(s);
        s.step("RST", request(net, RST).numbers(1001, 0), Drop(Reason::StrayReset));
        let rst =
            eth().reversed().ip(net.vip, net.client).fresh().tcp(80, 40000, RST).numbers(5001, 0).window(0);
        s.step("SYN-ACK", request(net, SYN | ACK).numbers(1001, 5001), Back(rst, Reason::Stray));
        assert_eq!(s.world.entries(), 0);
    });
}

#[test]
fn a_full_backend_is_passed_over() {
    everywhere(|s| {
        let net = s.net;
        let (added, _) = hashed(s);
        let first = s.forwarded("SYN", &request(net, SYN));
        s.world.set_backend(added.backends[first], 1, 1).unwrap();
        // A lot of flows, some of which hash to the full one.
        for port in 30_000..30_040 {
            assert_ne!(s.forwarded("SYN", &eth().ip(net.client, net.vip).tcp(port, 80, SYN)), first);
        }
        assert_eq!(s.world.active(added.backends[first]).unwrap(), 1);
    });
}

#[test]
fn a_backend_that_was_drained_a_moment_ago_is_passed_over() {
    everywhere(|s| {
        let net = s.net;
        let (added, members) = hashed(s);
        // The weight is 0 and the table still has it.
        s.world.set_backend(added.backends[1], 0, u32::MAX).unwrap();
        let to: Vec<_> = (30_000..30_040)
            .map(|p| s.forwarded("SYN", &eth().ip(net.client, net.vip).tcp(p, 80, SYN)))
            .collect();
        assert!(!to.contains(&1));
        // The next table hasn't.
        let mut members = members;
        members[1].weight = 0;
        s.world.publish(added.id, Algorithm::CONSISTENT_HASH, &members, &added.backends).unwrap();
        for (port, before) in (30_000..30_040).zip(to) {
            assert_eq!(
                s.forwarded("pinned is pinned", &eth().ip(net.client, net.vip).tcp(port, 80, SYN)),
                before
            );
        }
    });
}

#[test]
fn an_empty_table_refuses() {
    everywhere(|s| {
        let net = s.net;
        s.world.add_hashed(net.vip, &[(TCP, 80)], &[]).unwrap();
        let rst = eth()
            .reversed()
            .ip(net.vip, net.client)
            .fresh()
            .tcp(80, 40000, RST | ACK)
            .numbers(0, 1001)
            .window(0);
        s.step("SYN", request(net, SYN), Back(rst, Reason::NoBackend));
    });
}
