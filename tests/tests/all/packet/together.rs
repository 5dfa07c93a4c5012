//! Every CPU at once: the same SYNs, the same resets; each flow is counted once and taken off once.

use std::{
    os::fd::AsFd,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use lb_common::abi::Addr4;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    build::{ACK, RST, SYN, eth},
    run::{Hook, Verdict, test_run},
    stage::{NET4, Stage, TCP},
    world::World,
};

/// Flows; each in one table entry a direction.
const FLOWS: u32 = 20_000;
/// How often a flow is opened and ended.
const ROUNDS: u32 = 100_000;

/// The same packets on every CPU, each CPU beginning with every 64th at the same time.
fn everywhere(world: &World, packet: impl Fn(u16) -> Vec<u8> + Sync) {
    let cpus = std::thread::available_parallelism().expect("CPUs are counted").get();
    let barrier = Barrier::new(cpus);
    std::thread::scope(|scope| {
        for cpu in 0..cpus {
            let (barrier, packet) = (&barrier, &packet);
            scope.spawn(move || {
                pin_to(cpu);
                let mut out = Vec::new();
                for port in 1..=FLOWS as u16 {
                    if port % 64 == 1 {
                        barrier.wait();
                    }
                    world.run_shared(&packet(port), &mut out).expect("it runs");
                }
            });
        }
    });
}

#[test]
fn counted_once_and_taken_off_once() {
    for hook in Hook::ALL {
        let mut world = World::with_flows(hook, 4 * FLOWS).unwrap();
        let net = &NET4;
        let added = Stage { world: &mut world, net }.service(TCP, 80, 4);
        let from = |port, flags| eth().ip(net.client, net.vip).tcp(port, 80, flags).bytes();
        let active =
            |world: &World| added.backends.iter().map(|b| world.active(*b).unwrap()).collect::<Vec<_>>();

        everywhere(&world, |port| from(port, SYN));
        let counts = active(&world);
        assert_eq!(counts.iter().sum::<u32>(), FLOWS, "{hook:?}: {counts:?} after SYNs on every CPU");
        let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
        assert!(spread <= 3, "{hook:?}: {counts:?} differ by more than 3");
        let pinned: u64 = added.backends.iter().map(|b| world.counters(*b).unwrap().connections).sum();
        assert_eq!(pinned, u64::from(FLOWS), "{hook:?}");
        assert_eq!(world.entries(), 2 * FLOWS as usize, "{hook:?}");

        // Half of them are reset; then all are opened, which half of them are.
        everywhere(&world, |port| from(port, if port % 2 == 0 { RST } else { ACK }));
        assert_eq!(active(&world).iter().sum::<u32>(), FLOWS / 2, "{hook:?}: half closed");
        everywhere(&world, |port| from(port, SYN));
        assert_eq!(active(&world).iter().sum::<u32>(), FLOWS, "{hook:?}: ports used again");
        assert_eq!(world.entries(), 2 * FLOWS as usize, "{hook:?}");
        everywhere(&world, |port| from(port, RST));
        assert_eq!(active(&world), [0; 4], "{hook:?}: resets on every CPU");
        let forward = world.flows4.entries().iter().filter(|f| f.dst == addr(net.vip)).count();
        assert_eq!(forward, FLOWS as usize, "{hook:?}: all of them linger");
    }
}

/// Counts that change while they are compared are no reason to find nobody.
#[test]
fn nobody_is_refused_while_counts_change() {
    for hook in Hook::ALL {
        let mut world = World::with_flows(hook, 4 * FLOWS).unwrap();
        let net = &NET4;
        let added = Stage { world: &mut world, net }.service(TCP, 80, 2);
        let from = |flags| eth().ip(net.client, net.vip).tcp(1, 80, flags).bytes();
        let (opens, ends) = (from(SYN), from(RST));
        let program = world.program().try_clone().expect("a descriptor");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut out = Vec::new();
                for _ in 0..ROUNDS {
                    for frame in [&opens, &ends] {
                        test_run(program.as_fd(), frame, &mut out, 0).expect("it runs");
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
            // As if others opened and closed connections all the time.
            for count in (5..=9).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                world.set_active(added.backends[0], count).expect("a block");
            }
        });
        let reasons = world.reasons().unwrap();
        assert_eq!(reasons.iter().sum::<u64>(), 0, "{hook:?}: {reasons:?}");
    }
}

/// Each CPU opens a connection and ends it again, of a service that takes one at a time.
#[test]
fn never_more_than_the_service_takes() {
    for hook in Hook::ALL {
        let mut world = World::with_flows(hook, 4 * FLOWS).unwrap();
        let net = &NET4;
        world.limit = Some(1);
        let added = Stage { world: &mut world, net }.service(TCP, 80, 4);
        let cpus = std::thread::available_parallelism().expect("CPUs are counted").get();
        let (inside, opened) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for cpu in 0..cpus {
                let (world, inside, opened) = (&world, &inside, &opened);
                scope.spawn(move || {
                    pin_to(cpu);
                    let from = |flags| eth().ip(net.client, net.vip).tcp(1 + cpu as u16, 80, flags).bytes();
                    let (opens, ends, mut out) = (from(SYN), from(RST), Vec::new());
                    for _ in 0..ROUNDS {
                        if world.run_shared(&opens, &mut out).expect("it runs") == Verdict::Pass {
                            opened.fetch_add(1, Ordering::SeqCst);
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "{hook:?}: two are in");
                            inside.fetch_sub(1, Ordering::SeqCst);
                            world.run_shared(&ends, &mut out).expect("it runs");
                        }
                    }
                });
            }
        });
        let left: u32 = added.backends.iter().map(|b| world.active(*b).unwrap()).sum();
        assert_eq!(left, 0, "{hook:?}: a place is lost");
        let opened = opened.into_inner();
        assert!(opened > ROUNDS / 10, "{hook:?}: {opened} got in of {ROUNDS} that each CPU tried");
    }
}

/// This thread stays on a CPU.
fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU that there is");
    sched_setaffinity(Pid::from_raw(0), &set).expect("this thread may choose");
}

fn addr(ip: std::net::IpAddr) -> Addr4 {
    match ip {
        std::net::IpAddr::V4(a) => a.into(),
        std::net::IpAddr::V6(a) => panic!("{a} is IPv6"),
    }
}
