//! Packets and bytes, per backend and direction: IP header included, layer-2 padding not.

use lb_common::abi::{BackendCounters, Reason, Vip};

use super::{
    build::{ACK, PSH, SYN, eth},
    stage::{Expect::*, TCP, UDP, everywhere},
    tcp::{Talk, reply, request},
};

#[test]
fn each_packet_counts_once_with_its_ip_length() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let talk = Talk { backend: 0 };
        let there = [
            request(net, SYN).numbers(1000, 0).minimum(),
            request(net, ACK).numbers(1001, 5001).minimum(),
            request(net, ACK | PSH).numbers(1001, 5001).fill(777),
            request(net, ACK | PSH).numbers(1778, 5001).fill(1).vlan(5),
        ];
        let back = [
            reply(net, 0, SYN | ACK).numbers(5000, 1001),
            reply(net, 0, ACK | PSH).numbers(5001, 1778).fill(1400),
        ];
        let mut want = BackendCounters { connections: 1, ..Default::default() };
        for packet in there {
            want.packets_in += 1;
            want.bytes_in += packet.ip_len();
            talk.request(s, "to the backend", packet);
        }
        for packet in back {
            want.packets_out += 1;
            want.bytes_out += packet.ip_len();
            talk.reply(s, "to the client", packet);
        }
        assert_eq!(s.world.counters(added.backends[0]).unwrap(), want);
        if net.vip.is_ipv4() {
            let mut flows = s.world.flows4.entries();
            flows.sort_by_key(|f| f.direction.0);
            assert_eq!(flows.len(), 2);
            assert_eq!((flows[0].packets(), flows[0].bytes), (want.packets_in, want.bytes_in));
            assert_eq!((flows[1].packets(), flows[1].bytes), (want.packets_out, want.bytes_out));
        } else {
            let mut flows = s.world.flows6.entries();
            flows.sort_by_key(|f| f.direction.0);
            assert_eq!(flows.len(), 2);
            assert_eq!((flows[0].packets(), flows[0].bytes), (want.packets_in, want.bytes_in));
            assert_eq!((flows[1].packets(), flows[1].bytes), (want.packets_out, want.bytes_out));
        }
    });
}

#[test]
fn what_is_refused_counts_nowhere_but_under_its_reason() {
    everywhere(|s| {
        s.world.vip = Vip::OWNED;
        let added = s.service(UDP, 53, 1);
        let net = s.net;
        let later = eth().ip(net.client, net.vip).udp(1, 53).fragment(9);
        let later = if net.vip.is_ipv4() { later } else { later.fragment6(9, false) };
        s.step("a fragment without its first", later.fill(64), Drop(Reason::Fragment));
        assert_eq!(s.world.counters(added.backends[0]).unwrap(), BackendCounters::default());
    });
}

#[test]
fn connections_are_counted_when_pinned() {
    everywhere(|s| {
        let added = s.service(UDP, 53, 1);
        let net = s.net;
        for port in 1000..1010 {
            for _ in 0..3 {
                s.forwarded("query", &eth().ip(net.client, net.vip).udp(port, 53));
            }
        }
        let counters = s.world.counters(added.backends[0]).unwrap();
        assert_eq!((counters.connections, counters.packets_in, counters.packets_out), (10, 30, 0));
    });
}
