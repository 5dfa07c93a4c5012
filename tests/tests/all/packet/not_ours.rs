//! Not ours, not touched: whatever is for no service passes as it came, and nothing is counted.

use super::{
    build::{ACK, RST, SYN, eth},
    stage::{Expect::*, TCP, UDP, everywhere},
    tcp::{Talk, reply, request},
};

#[test]
fn other_addresses_ports_and_protocols() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let net = s.net;
        for flags in [SYN, ACK, RST, SYN | ACK] {
            s.step("another address", request(net, flags).to(net.other, 80), Pass);
            s.step("another port", request(net, flags).to(net.vip, 81), Pass);
            s.step("another VIP", request(net, flags).to(net.vip2, 80), Pass);
            s.step("the backend itself", request(net, flags).to(net.backends[0], 8080), Pass);
            s.step("from the backend, no flow", reply(net, 0, flags), Pass);
        }
        s.step("UDP to the TCP port", eth().ip(net.client, net.vip).udp(40000, 80), Pass);
        s.step("TCP to the UDP port", eth().ip(net.client, net.vip).tcp(40000, 53, SYN), Pass);
        s.step("ping of another", eth().ip(net.client, net.other).icmp(8, 0).fill(56), Pass);
        for proto in [0u8, 1, 2, 4, 41, 47, 50, 58, 59, 89, 132, 136, 255] {
            if net.vip.is_ipv4() || !matches!(proto, 0 | 51 | 60) {
                s.step("another protocol", eth().ip(net.client, net.vip).proto(proto).fill(40), Pass);
            }
        }
        assert_eq!(s.world.entries(), 0);
    });
}

#[test]
fn other_ethernet() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let syn = request(net, SYN);
        for kind in [0x0806, 0x8847, 0x88cc, 0x8863, 0x0004, 0xffff] {
            s.step("not IP", syn.clone().ethertype(kind), Pass);
        }
        let other = if net.vip.is_ipv4() { 0x86dd } else { 0x0800 };
        s.step("says the other IP version", syn.clone().ethertype(other), Pass);
        s.step("nothing behind Ethernet", syn.clone().ethertype(0x88cc).cut(15), Pass);
        s.step("three tags", syn.clone().qinq(1).vlan(2).vlan(3), Pass);
    });
}

#[test]
fn without_any_service() {
    everywhere(|s| {
        let net = s.net;
        s.step("TCP", request(net, SYN), Pass);
        s.step("UDP", eth().ip(net.client, net.vip).udp(40000, 53), Pass);
        s.step("broken", request(net, SYN).data_offset(1), Pass);
    });
}

#[test]
fn beside_an_open_connection() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        Talk::open(s);
        s.step("the backend, from another port", reply(net, 0, ACK).from(net.backends[0], 8081), Pass);
        s.step("the backend, to another port", reply(net, 0, ACK).to(net.client, 40001), Pass);
        s.step("another backend", reply(net, 1, ACK), Pass);
        s.step("the client, to the backend itself", request(net, ACK).to(net.backends[0], 8080), Pass);
    });
}
