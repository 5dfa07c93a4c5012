//! Checksums that somebody else is to finish, or has already summed up.

use super::{
    build::{ACK, PSH, SYN, Sum, eth},
    run::{CHECKSUM_COMPLETE, Hook, Verdict},
    stage::{Expect::*, NET4, NET6, TCP, UDP, on},
    tcp::{Talk, reply, request},
};

#[test]
fn a_partial_checksum_stays_partial_on_virtual_devices() {
    on(Hook::XdpVirtual, &[&NET4, &NET6], &|s| {
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let net = s.net;
        let talk = Talk { backend: 0 };
        talk.request(s, "SYN", request(net, SYN).l4_sum(Sum::Partial));
        talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).l4_sum(Sum::Partial).fill(77));
        talk.request(s, "a complete one in between", request(net, ACK).numbers(1001, 1001).fill(9));
        let q = eth().ip(net.client, net.vip).udp(9, 53).fill(30).l4_sum(Sum::Partial);
        s.step("UDP", &q, Becomes(q.clone().to(net.backends[0], 8080)));
    });
}

#[test]
fn a_sum_that_the_device_made_still_fits() {
    // The kernel sums the packet up beforehand and compares afterwards; a helper told wrongly makes it fail with EBADMSG.
    on(Hook::Tc, &[&NET4, &NET6], &|s| {
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let net = s.net;
        let frames = [
            request(net, SYN),
            request(net, ACK | PSH).numbers(1001, 5001).fill(999),
            eth().ip(net.client, net.vip).udp(9, 53).fill(31),
        ];
        for frame in frames {
            let (verdict, out) = s
                .world
                .run_flags(&frame.bytes(), CHECKSUM_COMPLETE)
                .unwrap_or_else(|e| panic!("{frame:?}: {e:#}"));
            assert_eq!(verdict, Verdict::Pass);
            super::stage::assert_same("request", &frame.clone().to(net.backends[0], 8080).bytes(), out);
        }
        let back = [reply(net, 0, SYN | ACK), reply(net, 0, ACK).fill(100)];
        for frame in back {
            let (verdict, out) = s
                .world
                .run_flags(&frame.bytes(), CHECKSUM_COMPLETE)
                .unwrap_or_else(|e| panic!("{frame:?}: {e:#}"));
            assert_eq!(verdict, Verdict::Pass);
            super::stage::assert_same("reply", &frame.clone().from(net.vip, 80).bytes(), out);
        }
    });
}

#[test]
fn a_sum_that_the_device_made_still_fits_where_udp_has_none() {
    on(Hook::Tc, &[&NET4, &NET6], &|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        let frame = eth().ip(net.client, net.vip).udp(9, 53).fill(31).l4_sum(Sum::Is(0));
        let (verdict, out) =
            s.world.run_flags(&frame.bytes(), CHECKSUM_COMPLETE).expect("the sum still fits");
        assert_eq!(verdict, Verdict::Pass);
        super::stage::assert_same("query", &frame.clone().to(net.backends[0], 8080).bytes(), out);
    });
}
