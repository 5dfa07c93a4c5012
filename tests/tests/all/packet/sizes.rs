//! From Ethernet's minimum to jumbo frames.

use super::{
    build::{ACK, PSH, eth},
    run::Hook,
    stage::{Expect::*, NET4, NET6, TCP, UDP, everywhere, on},
    tcp::{Talk, reply, request},
};

#[test]
fn from_minimum_to_a_page() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let net = s.net;
        let talk = Talk::open(s);
        for len in [0, 1, 2, 3, 6, 7, 63, 64, 65, 536, 1220, 1440, 1460, 2000, 3000] {
            talk.request(s, "TCP", request(net, ACK | PSH).numbers(1001, 5001).fill(len).minimum());
            talk.reply(s, "TCP back", reply(net, 0, ACK | PSH).numbers(5001, 1001).fill(len).minimum());
            let q = eth().ip(net.client, net.vip).udp(9, 53).fill(len).minimum();
            s.step("UDP", &q, Becomes(q.clone().to(net.backends[0], 8080)));
        }
    });
}

#[test]
fn jumbo_frames_in_several_buffers() {
    // TC's jumbo frames are shown with real traffic: a test run takes no more than a page there.
    for hook in [Hook::Xdp, Hook::XdpVirtual] {
        on(hook, &[&NET4, &NET6], &|s| {
            s.service(TCP, 80, 1);
            s.service(UDP, 53, 1);
            let net = s.net;
            let talk = Talk::open(s);
            for len in [4000, 8946, 8960, 20_000, 60_000] {
                talk.request(s, "TCP", request(net, ACK | PSH).numbers(1001, 5001).fill(len));
                talk.reply(s, "TCP back", reply(net, 0, ACK | PSH).numbers(5001, 1001).fill(len));
                let q = eth().ip(net.client, net.vip).udp(9, 53).fill(len);
                s.step("UDP", &q, Becomes(q.clone().to(net.backends[0], 8080)));
            }
        });
    }
}
