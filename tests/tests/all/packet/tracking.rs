//! Flows from pin to removal: one place taken, one given back, whoever is at it at once.

use flowpin_tests::packet::{Frame, Outcome, build::flags::*};
use lb_common::{
    abi::{Addr4, Direction, Reason, sweep::Request},
    flow_state::{Phase, Word},
};
use nix::sched::{CpuSet, sched_setaffinity};

use super::*;

fn client(flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    to_vip(V4, flags).numbered(seq, ack).bytes()
}

fn backend(flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    Frame::tcp((V4.backend, 8080), (V4.client, 40_000), flags).numbered(seq, ack).bytes()
}

fn open(rig: &Rig, face: Face) {
    rig.run(face, &client(SYN, 100, 0));
    rig.run(face, &backend(SYN | ACK, 500, 101));
    rig.run(face, &client(ACK, 101, 501));
}

fn phase(rig: &Rig) -> Phase {
    let forward = rig.flows4().into_iter().find(|(_, f)| f.direction == Direction::FORWARD);
    Word(forward.expect("a flow").1.state).phase()
}

#[test]
fn a_life() {
    for face in FACES {
        let rig = rig();
        rig.run(face, &client(SYN, 100, 0));
        assert_eq!((phase(&rig), rig.active(0, 0)), (Phase::SYN_SENT, 1));
        rig.run(face, &client(SYN, 100, 0));
        assert_eq!((rig.active(0, 0), rig.counters(0, 0).connections), (1, 1), "a retransmitted SYN");
        rig.run(face, &backend(SYN | ACK, 500, 101));
        rig.run(face, &client(ACK, 101, 501));
        assert_eq!(phase(&rig), Phase::ESTABLISHED);
        rig.run(face, &client(FIN | ACK, 101, 501));
        rig.run(face, &backend(ACK, 501, 102));
        assert_eq!((phase(&rig), rig.active(0, 0)), (Phase::CLOSING, 1), "half closed counts");
        rig.run(face, &backend(FIN | ACK, 501, 102));
        rig.run(face, &client(ACK, 102, 502));
        assert_eq!((phase(&rig), rig.active(0, 0)), (Phase::CLOSED, 0));
        rig.run(face, &backend(FIN | ACK, 501, 102));
        assert_eq!(rig.active(0, 0), 0, "a retransmitted FIN");
        assert!(
            matches!(rig.run(face, &client(ACK, 102, 502)), Outcome::Pass(_)),
            "late packets get through"
        );
    }
}

#[test]
fn resets_from_either_side() {
    for face in FACES {
        for bytes in [client(RST, 101, 0), backend(RST | ACK, 501, 101)] {
            let rig = rig();
            open(&rig, face);
            rig.run(face, &bytes);
            rig.run(face, &bytes);
            assert_eq!((phase(&rig), rig.active(0, 0)), (Phase::CLOSED, 0));
        }
    }
}

#[test]
fn a_port_used_again_is_chosen_for_anew() {
    for face in FACES {
        let rig = rig();
        open(&rig, face);
        rig.run(face, &client(SYN, 900, 0));
        assert_eq!(rig.counters(0, 0).connections, 1, "a SYN on an open connection belongs to it");
        rig.run(face, &client(FIN | ACK, 101, 501));
        rig.run(face, &client(SYN, 900, 0));
        assert_eq!((phase(&rig), rig.active(0, 0)), (Phase::SYN_SENT, 1), "over a closing one it doesn't");
        rig.run(face, &client(RST, 901, 0));
        rig.run(face, &client(SYN, 950, 0));
        assert_eq!((rig.active(0, 0), rig.counters(0, 0).connections), (1, 3), "nor over a closed one");
        assert_eq!(rig.flows4().len(), 2);
    }
}

#[test]
fn one_client_port_two_vips_one_backend() {
    for face in FACES {
        let mut rig = rig();
        let pool = [(V4.backend, Some(8080), 1, NO_LIMIT)];
        rig.service(2, "10.96.0.99", &[(80, Proto::TCP)], Algorithm::LEAST_CONNECTIONS, &pool);
        open(&rig, face);
        let other = to_vip(V4, SYN).to(("10.96.0.99", 80)).bytes();
        assert!(matches!(rig.run(face, &other), Outcome::Back(_)), "replies could not be told apart");
        assert_eq!((rig.reason(Reason::PortConflict), rig.active(2, 0)), (1, 0));
        rig.run(face, &client(RST, 101, 0));
        assert!(matches!(rig.run(face, &other), Outcome::Pass(_)), "the first is over");
        assert_eq!((rig.active(0, 0), rig.active(2, 0)), (0, 1));
    }
}

#[test]
fn sweeping_removes_what_has_not_changed() {
    let rig = rig();
    open(&rig, Face::Xdp);
    let flows = rig.flows4();
    let (key, forward) = flows.iter().find(|(_, f)| f.direction == Direction::FORWARD).unwrap();
    let (_, reply) = flows.iter().find(|(_, f)| f.direction == Direction::REPLY).unwrap();
    let request = Request::<Addr4> {
        state: forward.state,
        key: *key,
        seen_forward: forward.last_seen,
        seen_reply: reply.last_seen,
    };
    let stale = [
        Request { state: forward.state ^ 1 << 20, ..request },
        Request { seen_forward: forward.last_seen.wrapping_sub(1), ..request },
        Request { seen_reply: reply.last_seen.wrapping_sub(1), ..request },
    ];
    assert_eq!(rig.sweep4(&stale), 0);
    assert_eq!((rig.flows4().len(), rig.active(0, 0)), (2, 1));
    assert_eq!(rig.sweep4(&[request, request]), 1);
    assert_eq!((rig.flows4().len(), rig.active(0, 0)), (0, 0));
}

#[test]
fn both_cpus_at_once_count_once() {
    let mut rig = Rig::new(65_536);
    let pool: Vec<String> = (0..4).map(|i| format!("10.2.{i}.2")).collect();
    let pool: Vec<_> = pool.iter().map(|b| (b.as_str(), Some(8080), 1, NO_LIMIT)).collect();
    rig.service(0, V4.vip, &[(80, Proto::TCP)], Algorithm::LEAST_CONNECTIONS, &pool);
    let cpus = std::thread::available_parallelism().unwrap().get();
    let barrier = std::sync::Barrier::new(cpus);
    let everywhere = |packet: &(dyn Fn(u16) -> Vec<u8> + Sync)| {
        std::thread::scope(|scope| {
            for cpu in 0..cpus {
                let (rig, barrier) = (&rig, &barrier);
                scope.spawn(move || {
                    let mut set = CpuSet::new();
                    set.set(cpu).unwrap();
                    sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
                    for port in 1..=20_000 {
                        if port % 64 == 1 {
                            barrier.wait();
                        }
                        rig.run(Face::Xdp, &packet(port));
                    }
                });
            }
        });
    };
    let active = || (0..4).map(|slot| rig.active(0, slot)).collect::<Vec<_>>();
    everywhere(&|port| Frame::tcp((V4.client, port), (V4.vip, 80), SYN).bytes());
    assert_eq!(active(), [5_000; 4], "retransmitted SYNs on every CPU");
    assert_eq!((0..4).map(|slot| rig.counters(0, slot).connections).sum::<u64>(), 20_000);
    everywhere(&|port| Frame::tcp((V4.client, port), (V4.vip, 80), RST).bytes());
    assert_eq!(active(), [0; 4], "resets on every CPU");
    assert_eq!(rig.flows4().len(), 40_000, "all of them linger");
}
