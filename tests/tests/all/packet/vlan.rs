//! Tags that lie in the frame: looked through, and left as they are.

use super::{
    build::{ACK, Frame, SYN},
    stage::{TCP, everywhere},
    tcp::{Talk, reply, request},
};

#[test]
fn one_and_two_tags() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let tags: [fn(Frame) -> Frame; 5] = [
            |f| f.vlan(1),
            |f| f.vlan(0xefff),
            |f| f.qinq(7),
            |f| f.qinq(100).vlan(200),
            |f| f.vlan(100).vlan(200),
        ];
        for tag in tags {
            let talk = Talk { backend: 0 };
            talk.request(s, "SYN", tag(request(net, SYN)));
            talk.reply(s, "SYN-ACK", tag(reply(net, 0, SYN | ACK).numbers(5000, 1001)).fill(11));
            talk.request(s, "padded", tag(request(net, ACK).numbers(1001, 5001).minimum()));
        }
    });
}
