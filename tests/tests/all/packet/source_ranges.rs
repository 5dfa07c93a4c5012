//! Source ranges: who is in none of a service's opens nothing there and learns nothing; open flows are nobody's business any more.

use lb_common::abi::{Reason, ServiceId, SourceRanges};

use super::{
    build::{ACK, FIN, RST, SYN, eth},
    stage::{Expect::*, Stage, TCP, UDP, everywhere},
    world::Member,
};

/// The first 24 or 64 bits of somebody's address are those of no other's in these tests.
fn network(s: &Stage<'_>) -> u32 {
    if s.net.client.is_ipv4() { 24 } else { 64 }
}

fn admit(s: &mut Stage<'_>, service: ServiceId, who: std::net::IpAddr, admitted: bool) {
    let bits = network(s);
    s.world.admit(service, who, bits, admitted).unwrap();
}

#[test]
fn who_is_in_no_range_is_dropped_whatever_it_sends() {
    everywhere(|s| {
        let net = s.net;
        s.world.source_ranges = SourceRanges::LISTED;
        let added = s.service(TCP, 80, 1);
        let queries = s.service(UDP, 53, 1);
        admit(s, added.id, net.client, true);
        admit(s, queries.id, net.client, true);
        for flags in [SYN, ACK, SYN | ACK, FIN | ACK, RST] {
            let packet = eth().ip(net.other, net.vip).tcp(40000, 80, flags);
            s.step("a stranger's", packet, Drop(Reason::SourceNotAllowed));
        }
        let query = eth().ip(net.other, net.vip).udp(40000, 53).fill(30);
        s.step("a stranger's query", query, Drop(Reason::SourceNotAllowed));
        s.active("nobody", &added, &[0]);
        let to = (net.backends[0], 8080);
        let syn = eth().ip(net.client, net.vip).tcp(40000, 80, SYN);
        s.step("a client's", syn.clone(), Becomes(syn.to(to.0, to.1)));
        let query = eth().ip(net.client, net.vip).udp(40000, 53).fill(30);
        s.step("a client's query", query.clone(), Becomes(query.to(to.0, to.1)));
        s.active("one", &added, &[1]);
    });
}

#[test]
fn ranges_are_each_service_s_own_and_overlap_as_they_like() {
    everywhere(|s| {
        let net = s.net;
        s.world.source_ranges = SourceRanges::LISTED_AND_NODE;
        let members = [Member::new(net.backends[0], 8080)];
        let one = s.world.add(net.vip, &[(TCP, 80)], &members).unwrap();
        let two = s.world.add(net.vip2, &[(TCP, 80)], &members).unwrap();
        let syn = |from, vip, port| eth().ip(from, vip).tcp(port, 80, SYN);
        admit(s, one.id, net.client, true);
        admit(s, two.id, net.other, true);
        let (a, b) = (syn(net.client, net.vip, 1000), syn(net.other, net.vip2, 1001));
        s.step("one's", a.clone(), Becomes(a.to(net.backends[0], 8080)));
        s.step("two's", b.clone(), Becomes(b.to(net.backends[0], 8080)));
        s.step("not one's", syn(net.other, net.vip, 1002), Drop(Reason::SourceNotAllowed));
        s.step("not two's", syn(net.client, net.vip2, 1003), Drop(Reason::SourceNotAllowed));
        // Everybody, and a single one among them.
        s.world.admit(one.id, net.other, 0, true).unwrap();
        let own = if net.other.is_ipv4() { 32 } else { 128 };
        s.world.admit(one.id, net.other, own, true).unwrap();
        let c = syn(net.other, net.vip, 1004);
        s.step("everybody", c.clone(), Becomes(c.to(net.backends[0], 8080)));
        s.world.admit(one.id, net.other, own, false).unwrap();
        let d = syn(net.backends[3], net.vip, 1005);
        s.step("still everybody", d.clone(), Becomes(d.to(net.backends[0], 8080)));
        s.active("of one", &one, &[3]);
    });
}

#[test]
fn open_flows_go_on_when_their_range_goes() {
    everywhere(|s| {
        let net = s.net;
        s.world.source_ranges = SourceRanges::LISTED;
        let added = s.service(TCP, 80, 1);
        admit(s, added.id, net.client, true);
        let client = |flags| eth().ip(net.client, net.vip).tcp(40000, 80, flags);
        s.step("opens", client(SYN), Becomes(client(SYN).to(net.backends[0], 8080)));
        admit(s, added.id, net.client, false);
        s.step("goes on", client(ACK).fill(50), Becomes(client(ACK).fill(50).to(net.backends[0], 8080)));
        let new = eth().ip(net.client, net.vip).tcp(40001, 80, SYN);
        s.step("another", new, Drop(Reason::SourceNotAllowed));
        s.active("the first", &added, &[1]);
    });
}
