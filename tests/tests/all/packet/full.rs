//! A full flow table: new flows are refused, open ones go on, nothing is evicted.

use lb_common::abi::Reason;

use super::{
    build::{ACK, RST, SYN, eth},
    run::Hook,
    stage::{Expect::*, NET4, NET6, Stage, TCP, UDP},
    tcp::{Talk, request},
    world::World,
};

#[test]
fn new_flows_are_refused_and_open_ones_go_on() {
    for hook in Hook::ALL {
        for net in [&NET4, &NET6] {
            let mut world = World::with_flows(hook, 2).unwrap();
            let s = &mut Stage { world: &mut world, net };
            let added = s.service(TCP, 80, 2);
            let udp = s.service(UDP, 53, 2);
            let talk = Talk::open(s);
            s.world.stuff().unwrap();
            let before = s.world.entries();
            let rst = |port| {
                eth()
                    .reversed()
                    .ip(net.vip, net.client)
                    .fresh()
                    .tcp(80, port, RST | ACK)
                    .numbers(0, 1001)
                    .window(0)
            };
            for port in 50_000..50_010 {
                let syn = eth().ip(net.client, net.vip).tcp(port, 80, SYN);
                s.step("SYN", syn, Back(rst(port), Reason::TableFull));
                s.step("query", eth().ip(net.client, net.vip).udp(port, 53), Drop(Reason::TableFull));
            }
            assert_eq!(s.world.entries(), before, "no half flow stays behind");
            let mut counts = [0, 0];
            counts[talk.backend] = 1;
            s.active("only the open one counts", &added, &counts);
            s.active("nothing counts", &udp, &[0, 0]);
            talk.request(s, "it goes on", request(net, ACK).numbers(1001, 5001).fill(10));
        }
    }
}

#[test]
fn room_for_one_entry_is_not_room_for_a_flow() {
    for hook in Hook::ALL {
        for net in [&NET4, &NET6] {
            let mut world = World::with_flows(hook, 2).unwrap();
            let s = &mut Stage { world: &mut world, net };
            let added = s.service(TCP, 80, 2);
            s.world.stuff().unwrap();
            let before = s.world.entries();
            s.world.unstuff().unwrap();
            let rst = eth()
                .reversed()
                .ip(net.vip, net.client)
                .fresh()
                .tcp(80, 40000, RST | ACK)
                .numbers(0, 1001)
                .window(0);
            s.step("SYN", request(net, SYN), Back(rst, Reason::TableFull));
            s.active("nothing counts", &added, &[0, 0]);
            assert_eq!(s.world.entries(), before - 2, "what was made is taken back");
            s.world.unstuff().unwrap();
            s.forwarded("with two free, it fits", &request(net, SYN));
            assert_eq!(s.world.entries(), before - 2);
        }
    }
}
