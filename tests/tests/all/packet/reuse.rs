//! Ports used again: a SYN over what is over chooses anew; a SYN by way of another VIP to the same backend.

use lb_common::abi::Reason;

use super::{
    build::{ACK, FIN, RST, SYN, eth},
    stage::{Expect::*, TCP, UDP, everywhere},
    tcp::{Talk, reply, request},
    world::Member,
};

#[test]
fn a_syn_over_a_closed_connection_chooses_anew() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 2);
        let net = s.net;
        let talk = Talk::open(s);
        talk.request(s, "RST", request(net, RST).numbers(1001, 0));
        // The first choice takes no more: only a new choice can go to the other.
        s.world.set_backend(added.backends[talk.backend], 0, u32::MAX).unwrap();
        let again = s.forwarded("SYN from the same port", &request(net, SYN).numbers(77_000, 0));
        assert_eq!(again, 1 - talk.backend);
        let mut counts = [0, 0];
        counts[again] = 1;
        s.active("the new one", &added, &counts);
        assert_eq!(s.world.entries(), 2, "nothing is left of the old one");
        s.step("a late reply of the old one", reply(net, talk.backend, ACK), Pass);
    });
}

#[test]
fn a_syn_over_a_closing_connection_chooses_anew() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 2);
        let net = s.net;
        let talk = Talk::open(s);
        talk.request(s, "FIN", request(net, FIN | ACK).numbers(1001, 5001));
        s.world.set_backend(added.backends[talk.backend], 0, u32::MAX).unwrap();
        let again = s.forwarded("SYN from the same port", &request(net, SYN).numbers(77_000, 0));
        assert_eq!(again, 1 - talk.backend);
        let mut counts = [0, 0];
        counts[again] = 1;
        s.active("counted once", &added, &counts);
    });
}

#[test]
fn the_same_port_by_way_of_another_vip_is_refused_while_the_first_is_open() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let second = s.world.add(net.vip2, &[(TCP, 80)], &[Member::new(net.backends[0], 8080)]).unwrap();
        let talk = Talk::open(s);
        let syn = eth().ip(net.client, net.vip2).tcp(40000, 80, SYN).numbers(9, 0);
        let rst = eth()
            .turned()
            .ip(net.vip2, net.client)
            .fresh()
            .tcp(80, 40000, RST | ACK)
            .numbers(0, 10)
            .window(0);
        s.step("SYN by way of the other VIP", &syn, Back(rst, Reason::PortConflict));
        s.active("the second has nothing", &second, &[0]);
        talk.request(s, "the first goes on", request(net, ACK).numbers(1001, 5001).fill(9));
        s.active("the first is as it was", &added, &[1]);
        assert_eq!(s.world.entries(), 2);

        talk.request(s, "the first ends", request(net, RST).numbers(1010, 0));
        s.step("SYN once more", &syn, Becomes(syn.clone().to(net.backends[0], 8080)));
        s.active("now it has", &second, &[1]);
        let synack = reply(net, 0, SYN | ACK).numbers(5000, 10);
        s.step("its reply comes from its VIP", &synack, Becomes(synack.clone().from(net.vip2, 80)));
        assert_eq!(s.world.entries(), 2);
    });
}

#[test]
fn the_same_udp_port_by_way_of_another_vip_is_dropped() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        let second = s.world.add(net.vip2, &[(UDP, 53)], &[Member::new(net.backends[0], 8080)]).unwrap();
        s.forwarded("first", &eth().ip(net.client, net.vip).udp(40000, 53));
        s.step("second", eth().ip(net.client, net.vip2).udp(40000, 53), Drop(Reason::PortConflict));
        s.active("nothing is pinned", &second, &[0]);
    });
}
