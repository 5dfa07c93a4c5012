//! TCP: the handshake, data, and what belongs to a flow and what opens one.

use super::{
    build::{ACK, Frame, PSH, SYN, eth},
    stage::{Expect::*, Net, Stage, TCP, everywhere},
};

/// From the client's port 40000 to the VIP's port 80.
pub fn request(net: &Net, flags: u8) -> Frame {
    eth().ip(net.client, net.vip).tcp(40000, 80, flags)
}

/// From backend `b`'s port 8080 to the client's port 40000.
pub fn reply(net: &Net, b: usize, flags: u8) -> Frame {
    eth().ip(net.backends[b], net.client).tcp(8080, 40000, flags)
}

/// Both ways of a connection through its first backend, step by step.
pub struct Talk {
    /// The backend.
    pub backend: usize,
}

impl Talk {
    /// Opens a connection: SYN, SYN-ACK, ACK.
    #[track_caller]
    pub fn open(s: &mut Stage<'_>) -> Self {
        let net = s.net;
        let backend = s.forwarded("SYN", &request(net, SYN).numbers(1000, 0));
        let talk = Self { backend };
        talk.reply(s, "SYN-ACK", reply(net, backend, SYN | ACK).numbers(5000, 1001));
        talk.request(s, "ACK", request(net, ACK).numbers(1001, 5001));
        talk
    }

    /// A packet of the client's that must reach the backend.
    #[track_caller]
    pub fn request(&self, s: &mut Stage<'_>, scene: &str, packet: Frame) {
        let out = packet.clone().to(s.net.backends[self.backend], 8080);
        s.step(scene, packet, Becomes(out));
    }

    /// A packet of the backend's that must reach the client.
    #[track_caller]
    pub fn reply(&self, s: &mut Stage<'_>, scene: &str, packet: Frame) {
        let out = packet.clone().from(s.net.vip, 80);
        s.step(scene, packet, Becomes(out));
    }
}

#[test]
fn handshake_and_data_are_translated_both_ways() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        let talk = Talk { backend: 0 };
        talk.request(s, "SYN with options", request(net, SYN).tcp_options(&options));
        s.active("after SYN", &added, &[1]);
        talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(5000, 1001).tcp_options(&options));
        talk.request(s, "ACK", request(net, ACK).numbers(1001, 5001));
        talk.request(s, "data", request(net, ACK | PSH).numbers(1001, 5001).fill(1000));
        talk.request(s, "odd number of bytes", request(net, ACK | PSH).numbers(2001, 5001).fill(333));
        talk.reply(s, "data back", reply(net, 0, ACK | PSH).numbers(5001, 2334).fill(1448));
        talk.reply(s, "one byte back", reply(net, 0, ACK).numbers(6449, 2334).fill(1));
        s.active("open", &added, &[1]);
    });
}

#[test]
fn only_addresses_port_and_checksums_change() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let odd = |p: Frame| p.ttl(1).tos(0xb9).id(0xbeef).window(7).fill(10);
        let talk = Talk { backend: 0 };
        talk.request(s, "SYN with everything unusual", odd(request(net, SYN)));
        talk.reply(s, "the same back", odd(reply(net, 0, SYN | ACK)));
        // ECN bits and urgent flag.
        talk.request(s, "CWR, ECE, URG", odd(request(net, ACK | 0x20 | 0x40 | 0x80)));
    });
}

#[test]
fn a_port_that_the_backend_does_not_name_is_kept() {
    everywhere(|s| {
        let net = s.net;
        let member = super::world::Member { port: None, ..super::world::Member::new(net.backends[0], 0) };
        s.world.add(net.vip, &[(TCP, 80)], &[member]).unwrap();
        let syn = request(net, SYN);
        s.step("SYN", &syn, Becomes(syn.clone().to(net.backends[0], 80)));
        let back = eth().ip(net.backends[0], net.client).tcp(80, 40000, SYN | ACK);
        s.step("SYN-ACK", &back, Becomes(back.clone().from(net.vip, 80)));
    });
}

#[test]
fn a_wrong_checksum_stays_wrong_by_as_much() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let right = request(net, SYN);
        let at = right.bytes().len() - 4;
        let field = |bytes: &[u8]| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        // Off by one in one's complement before, off by one after: whoever checks it will see it, as without us.
        let spoilt = |f: &Frame| {
            let check = field(&f.bytes());
            f.clone().l4_sum(super::build::Sum::Is(if check == 0xffff { 1 } else { check + 1 }))
        };
        let out = spoilt(&right.clone().to(net.backends[0], 8080));
        s.step("SYN with a bad checksum", spoilt(&right), Becomes(out));
    });
}

#[test]
fn a_retransmitted_syn_goes_where_the_first_went() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 4);
        let syn = request(s.net, SYN);
        let first = s.forwarded("SYN", &syn);
        for i in 1..8 {
            assert_eq!(s.forwarded("the same SYN", &syn), first, "retransmission {i}");
        }
        let mut counts = [0; 4];
        counts[first] = 1;
        s.active("one connection", &added, &counts);
        assert_eq!(s.world.entries(), 2);
    });
}

#[test]
fn a_syn_on_an_open_connection_belongs_to_it() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 4);
        let net = s.net;
        let talk = Talk::open(s);
        talk.request(s, "a late duplicate of the SYN", request(net, SYN).numbers(1000, 0));
        talk.request(s, "data goes on", request(net, ACK).numbers(1001, 5001).fill(5));
        assert_eq!(added.backends.iter().map(|b| s.world.active(*b).unwrap()).sum::<u32>(), 1);
    });
}

#[test]
fn connections_of_one_client_are_told_apart() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 4);
        let net = s.net;
        for port in 40000..40008 {
            s.forwarded("SYN", &eth().ip(net.client, net.vip).tcp(port, 80, SYN));
        }
        s.active("spread evenly", &added, &[2, 2, 2, 2]);
    });
}
