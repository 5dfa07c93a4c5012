//! Affinity: who is bound to whom, when a client moves, and what is counted of it.

use std::net::IpAddr;

use lb_common::{
    abi::{Addr4, BackendId, Flow, Reason},
    flow_state::Word,
};

use super::{
    build::{ACK, Frame, RST, SYN, eth},
    run::Hook,
    stage::{Expect::*, NET4, Stage, TCP, UDP, everywhere},
    tcp::{reply, request},
    world::{Added, Affinity, CLIENTS, Member, World},
};

fn members(s: &Stage<'_>, n: usize) -> Vec<Member> {
    s.net.backends[..n].iter().map(|b| Member::new(*b, 8080)).collect()
}

fn bound(s: &mut Stage<'_>, port: u16, n: usize, binding: Affinity) -> Added {
    let members = members(s, n);
    s.world.add_bound(s.net.vip, &[(TCP, port), (UDP, port)], &members, binding).expect("a service is added")
}

/// Client `i`, of the net's family.
pub fn client(s: &Stage<'_>, i: u8) -> IpAddr {
    if s.net.vip.is_ipv4() {
        IpAddr::from([198, 51, 100, i])
    } else {
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 7, u16::from(i)])
    }
}

fn syn(s: &Stage<'_>, who: u8, sport: u16, dport: u16) -> Frame {
    eth().ip(client(s, who), s.net.vip).tcp(sport, dport, SYN)
}

/// A flow of a client; the backend that it goes to.
fn open(s: &mut Stage<'_>, who: u8, sport: u16, dport: u16) -> usize {
    let backend = s.forwarded("SYN", &syn(s, who, sport, dport));
    let answer =
        eth().ip(s.net.backends[backend], client(s, who)).tcp(8080, sport, SYN | ACK).numbers(5000, 1001);
    s.step("SYN-ACK", &answer, Becomes(answer.clone().from(s.net.vip, dport)));
    let ack = eth().ip(client(s, who), s.net.vip).tcp(sport, dport, ACK).numbers(1001, 5001);
    assert_eq!(s.forwarded("ACK", &ack), backend);
    backend
}

fn end(s: &mut Stage<'_>, who: u8, sport: u16, dport: u16, backend: usize) {
    let rst = eth().ip(client(s, who), s.net.vip).tcp(sport, dport, RST);
    let out = rst.clone().to(s.net.backends[backend], 8080);
    s.step("RST", rst, Becomes(out));
}

fn clients(s: &Stage<'_>, added: &Added) -> Vec<u32> {
    added.backends.iter().map(|b| s.world.clients(*b).expect("counts are read")).collect()
}

/// Open flows of each client, in no order.
fn flows(s: &Stage<'_>) -> Vec<u32> {
    let mut open: Vec<u32> = s.world.bindings().iter().map(|(_, binding)| binding.open()).collect();
    open.sort_unstable();
    open
}

#[test]
fn flows_of_a_client_stay_together_and_clients_are_spread() {
    everywhere(|s| {
        let added = bound(s, 80, 3, Affinity::group(7));
        let first: Vec<usize> = (1..=3).map(|who| open(s, who, 40_000, 80)).collect();
        let mut all = first.clone();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2], "one client each");
        for who in 1..=3 {
            for sport in 40_001..40_004 {
                assert_eq!(open(s, who, sport, 80), first[usize::from(who) - 1]);
            }
        }
        // Its connections are many; its clients are as many as the others'.
        assert_eq!((clients(s, &added), flows(s)), (vec![1, 1, 1], vec![4, 4, 4]));
        s.active("each client's four", &added, &[4, 4, 4]);
        // UDP is another protocol and the same client.
        let query = eth().ip(client(s, 1), s.net.vip).udp(40_000, 80);
        assert_eq!(s.forwarded("query", &query), first[0]);
        end(s, 1, 40_000, 80, first[0]);
        end(s, 1, 40_001, 80, first[0]);
        assert_eq!((clients(s, &added), flows(s)), (vec![1, 1, 1], vec![3, 4, 4]));
    });
}

#[test]
fn a_client_without_flows_is_remembered_and_does_not_count() {
    everywhere(|s| {
        let added = bound(s, 80, 2, Affinity::group(7));
        let home = open(s, 1, 40_000, 80);
        end(s, 1, 40_000, 80, home);
        assert_eq!((clients(s, &added), flows(s)), (vec![0, 0], vec![0]));
        // Another one, who goes to either; then the first is back where it was.
        open(s, 2, 40_000, 80);
        assert_eq!(open(s, 1, 40_001, 80), home);
        // The flow is over once; the RST that comes again takes nothing off.
        end(s, 1, 40_001, 80, home);
        end(s, 1, 40_001, 80, home);
        assert_eq!(flows(s), [0, 1]);
    });
}

#[test]
fn a_client_moves_when_its_backend_takes_nothing_new() {
    everywhere(|s| {
        let added = bound(s, 80, 2, Affinity::group(7));
        let home = open(s, 1, 40_000, 80);
        s.world.set_backend(added.backends[home], 0, u32::MAX).unwrap();
        let other = 1 - home;
        assert_eq!(open(s, 1, 40_001, 80), other, "drained");
        assert_eq!(clients(s, &added)[other], 1, "it counts where it is bound now");
        assert_eq!(clients(s, &added)[home], 0);
        s.world.set_backend(added.backends[home], 1, u32::MAX).unwrap();
        assert_eq!(open(s, 1, 40_002, 80), other, "once moved, it stays");
        s.world.set_backend(added.backends[other], 1, 2).unwrap();
        assert_eq!(open(s, 1, 40_003, 80), home, "full");
        end(s, 1, 40_000, 80, home);
        end(s, 1, 40_001, 80, other);
        assert_eq!((flows(s), clients(s, &added)[home]), (vec![2], 1));
        // Nobody takes anything: refused, and nothing is counted.
        for id in &added.backends {
            s.world.set_backend(*id, 0, u32::MAX).unwrap();
        }
        let syn = syn(s, 1, 40_009, 80);
        let (verdict, _) = s.world.run(&syn.bytes()).unwrap();
        assert_eq!(verdict, super::run::Verdict::Back);
        assert_eq!(flows(s), [2]);
    });
}

#[test]
fn beyond_its_bound_a_client_is_balanced_like_any_other() {
    everywhere(|s| {
        let added = bound(s, 80, 2, Affinity { bound: 4, ..Affinity::group(7) });
        let home = open(s, 1, 40_000, 80);
        (1..4).for_each(|i| assert_eq!(open(s, 1, 40_000 + i, 80), home));
        (4..12).for_each(|i| {
            open(s, 1, 40_000 + i, 80);
        });
        s.active("twelve of one client", &added, &[6, 6]);
        assert_eq!((flows(s), clients(s, &added)[home]), (vec![12], 1));
    });
}

#[test]
fn by_consistent_hashing_clients_go_by_their_address_and_a_crowd_by_its_flows() {
    everywhere(|s| {
        let algorithm = lb_common::abi::Algorithm::CONSISTENT_HASH;
        let binding = Affinity { bound: 4, algorithm, ..Affinity::group(7) };
        bound(s, 80, 4, binding);
        let homes: Vec<usize> = (1..=6).map(|who| open(s, who, 40_000, 80)).collect();
        // Forgotten, and there again: an address leads where it led before.
        let seen = s.world.bindings();
        assert_eq!(s.world.forget(true, &seen).unwrap(), 6);
        let again: Vec<usize> = (1..=6).map(|who| open(s, who, 40_001, 80)).collect();
        assert_eq!(homes, again);
        let crowd: std::collections::BTreeSet<usize> = (2..40).map(|i| open(s, 1, 40_000 + i, 80)).collect();
        assert_eq!(crowd.len(), 4, "beyond its bound its flows go everywhere");
    });
}

#[test]
fn services_of_a_group_share_hosts_whatever_their_order() {
    everywhere(|s| {
        let one = bound(s, 80, 3, Affinity::group(7));
        let mut turned = members(s, 3);
        turned.reverse();
        let (vip, ports) = (s.net.vip2, [(TCP, 81)]);
        let two = s.world.add_bound(vip, &ports, &turned, Affinity::group(7)).unwrap();
        for who in 1..=6 {
            let home = open(s, who, 40_000, 80);
            let syn = eth().ip(client(s, who), vip).tcp(40_001, 81, SYN);
            assert_eq!(s.forwarded("the other service", &syn), home);
        }
        assert_eq!((clients(s, &one), clients(s, &two)), (vec![2; 3], vec![0; 3]));
        // And of another group it is another client.
        s.world.reset().unwrap();
        bound(s, 80, 3, Affinity::group(7));
        let alone = s.world.add_bound(vip, &ports, &turned[..1], Affinity::group(8)).unwrap();
        open(s, 1, 40_000, 80);
        let syn = eth().ip(client(s, 1), vip).tcp(40_001, 81, SYN);
        assert_eq!(s.forwarded("its only backend", &syn), 2);
        assert_eq!((clients(s, &alone), s.world.bindings().len()), (vec![1], 2));
    });
}

#[test]
fn a_full_table_turns_nobody_away() {
    everywhere(|s| {
        let added = bound(s, 80, 2, Affinity::group(7));
        let before = s.world.reasons().unwrap()[Reason::AffinityFull as usize];
        for who in 1..=CLIENTS as u8 + 2 {
            open(s, who, 40_000, 80);
        }
        let counted = s.world.reasons().unwrap()[Reason::AffinityFull as usize] - before;
        assert_eq!((s.world.bindings().len(), counted), (CLIENTS as usize, 2));
        assert_eq!(clients(s, &added).iter().sum::<u32>(), CLIENTS);
        // Those who aren't remembered take nothing off when they go.
        for who in CLIENTS as u8 + 1..=CLIENTS as u8 + 2 {
            let rst = eth().ip(client(s, who), s.net.vip).tcp(40_000, 80, RST);
            s.forwarded("RST", &rst);
        }
        assert_eq!(clients(s, &added).iter().sum::<u32>(), CLIENTS);
    });
}

#[test]
fn only_clients_without_flows_are_forgotten_unless_they_must() {
    everywhere(|s| {
        let added = bound(s, 80, 2, Affinity::group(7));
        let home = open(s, 1, 40_000, 80);
        open(s, 2, 40_000, 80);
        end(s, 1, 40_000, 80, home);
        let seen = s.world.bindings();
        assert_eq!(s.world.forget(false, &seen).unwrap(), 1);
        assert_eq!((flows(s), clients(s, &added).iter().sum::<u32>()), (vec![1], 1));
        // What has moved since it was looked at is left alone.
        let seen = s.world.bindings();
        open(s, 2, 40_001, 80);
        assert_eq!(s.world.forget(true, &seen).unwrap(), 0);
        let seen = s.world.bindings();
        assert_eq!(s.world.forget(true, &seen).unwrap(), 1);
        assert_eq!((s.world.bindings().len(), clients(s, &added)), (0, vec![0, 0]));
    });
}

#[test]
fn every_cpu_at_once_binds_a_client_once() {
    for hook in Hook::ALL {
        let mut world = World::with_flows(hook, 40_000).unwrap();
        let net = &NET4;
        let added = bound(&mut Stage { world: &mut world, net }, 80, 4, Affinity::group(7));
        let frame = |who: u8, sport: u16, flags| {
            eth().ip(IpAddr::from([198, 51, 100, who]), net.vip).tcp(sport, 80, flags).bytes()
        };
        // Each CPU opens flows of its own, of the same six clients, at the same instants.
        let each = |flags: u8| {
            std::thread::scope(|scope| {
                for cpu in 0..2u16 {
                    let (world, frame) = (&world, &frame);
                    scope.spawn(move || {
                        let mut out = Vec::new();
                        for i in 0..3_000u16 {
                            let sport = 10_000 + 20_000 * cpu + i;
                            world
                                .run_shared(&frame((i % 6) as u8 + 1, sport, flags), &mut out)
                                .expect("it runs");
                        }
                    });
                }
            });
        };
        each(SYN);
        let homes =
            |world: &World| -> Vec<BackendId> { world.bindings().iter().map(|(_, b)| b.home()).collect() };
        let open: u32 = world.bindings().iter().map(|(_, b)| b.open()).sum();
        let counted: u32 = added.backends.iter().map(|b| world.clients(*b).unwrap()).sum();
        assert_eq!((homes(&world).len(), open, counted), (6, 6_000, 6), "{hook:?}");
        let flows = world.flows4.entries();
        let forward: Vec<&Flow<Addr4>> = flows.iter().filter(|f| f.direction.is_forward()).collect();
        assert!(
            forward.iter().all(|f| Word(f.state).bound()),
            "{hook:?}: each counts in its client's binding"
        );
        assert!(forward.iter().all(|f| homes(&world).contains(&f.backend)), "{hook:?}");
        each(RST);
        let open: u32 = world.bindings().iter().map(|(_, b)| b.open()).sum();
        let counted: u32 = added.backends.iter().map(|b| world.clients(*b).unwrap()).sum();
        assert_eq!((open, counted), (0, 0), "{hook:?}: all have ended");
    }
}

#[test]
fn what_was_asked_and_said_is_marked() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let talk = super::tcp::Talk::open(s);
        let marks = |s: &Stage<'_>| -> (u32, u32) {
            let mark = |forward: bool| {
                let v4 = s
                    .world
                    .flows4
                    .entries()
                    .iter()
                    .find(|f| f.direction.is_forward() == forward)
                    .map(|f| f.mark);
                let v6 = s
                    .world
                    .flows6
                    .entries()
                    .iter()
                    .find(|f| f.direction.is_forward() == forward)
                    .map(|f| f.mark);
                v4.or(v6).expect("a flow")
            };
            (mark(true), mark(false))
        };
        assert_eq!(marks(s), (0, 0), "a handshake says nothing");
        talk.request(s, "a request", request(net, ACK).numbers(1001, 5001).fill(10));
        talk.reply(s, "a mere ACK", reply(net, 0, ACK).numbers(5001, 1011));
        assert_eq!(marks(s), (5001, 0));
        talk.reply(s, "an answer", reply(net, 0, ACK).numbers(5001, 1011).fill(100));
        assert_eq!(marks(s), (5001, 5101));
        talk.reply(s, "the same again", reply(net, 0, ACK).numbers(5001, 1011).fill(50));
        talk.request(s, "a mere ACK", request(net, ACK).numbers(1011, 5101));
        assert_eq!(marks(s), (5001, 5101));
        let counters = s.world.counters(BackendId(16)).unwrap();
        assert_eq!((counters.accepted, counters.refused, counters.unanswered), (1, 0, 0));
    });
}

#[test]
fn what_becomes_of_those_who_want_to_connect_is_counted() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let talk = super::tcp::Talk { backend: 0 };
        let unanswered = |s: &Stage<'_>| s.world.counters(added.backends[0]).unwrap().unanswered;
        talk.request(s, "SYN", request(net, SYN).numbers(1000, 0));
        talk.request(s, "at once again", request(net, SYN).numbers(1000, 0));
        assert_eq!(unanswered(s), 0, "who repeats himself at once says nothing about the backend");
        for i in 1..3 {
            s.world.age(750).unwrap();
            talk.request(s, "after a while", request(net, SYN).numbers(1000, 0));
            assert_eq!(unanswered(s), i);
        }
        talk.reply(s, "RST", reply(net, 0, RST | ACK).numbers(0, 1001));
        let counters = s.world.counters(added.backends[0]).unwrap();
        assert_eq!((counters.accepted, counters.refused, counters.unanswered), (0, 1, 2));
    });
}
