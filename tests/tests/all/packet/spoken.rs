//! What a backend says by UDP outside of a flow: after it was forgotten, and from another port than it was asked at.

use super::{
    build::{Frame, eth},
    stage::{Expect::*, Net, Stage, UDP, everywhere},
    sweep::sweep,
    udp::query,
};

/// From a backend's port to the client's port 40000.
fn said(net: &Net, b: usize, port: u16) -> Frame {
    eth().ip(net.backends[b], net.client).udp(port, 40000).fill(60)
}

#[test]
fn a_backend_that_speaks_after_its_flow_was_forgotten() {
    everywhere(|s| {
        let added = s.service(UDP, 53, 4);
        let net = s.net;
        let b = s.forwarded("query", &query(net));
        s.step("answer", said(net, b, 8080), Becomes(said(net, b, 8080).from(net.vip, 53)));
        assert_eq!(sweep(s), 1);
        s.active("forgotten", &added, &[0; 4]);
        s.step("it speaks first", said(net, b, 8080), Becomes(said(net, b, 8080).from(net.vip, 53)));
        let mut counts = [0; 4];
        counts[b] = 1;
        s.active("that is a flow again", &added, &counts);
        assert_eq!(s.forwarded("the client answers", &query(net)), b);
        s.active("the same one", &added, &counts);
        assert_eq!(sweep(s), 1);
        s.step("and once more", said(net, b, 8080), Becomes(said(net, b, 8080).from(net.vip, 53)));
    });
}

#[test]
fn to_whom_has_never_asked_it_speaks_for_itself() {
    everywhere(|s| {
        s.service(UDP, 53, 4);
        let net = s.net;
        let b = answered(s);
        sweep(s);
        s.step("from another port", said(net, b, 8081), Pass);
        s.step("another backend", said(net, (b + 1) % 4, 8080), Pass);
        let elsewhere = eth().ip(net.backends[b], net.client).udp(8080, 40001);
        s.step("to another port", &elsewhere, Pass);
        let other = eth().ip(net.backends[b], net.other).udp(8080, 40000);
        s.step("to somebody else", &other, Pass);
        assert_eq!(s.world.entries(), 0);
    });
}

#[test]
fn a_client_that_is_with_another_backend_by_now() {
    everywhere(|s| {
        let added = s.service(UDP, 53, 2);
        let net = s.net;
        let b = answered(s);
        sweep(s);
        s.world.set_backend(added.backends[b], 0, u32::MAX).unwrap();
        assert_ne!(s.forwarded("query", &query(net)), b);
        s.step("who takes no flows opens none", said(net, b, 8080), Pass);
        s.world.set_backend(added.backends[b], 1, u32::MAX).unwrap();
        s.step("what it says late is its own", said(net, b, 8080), Pass);
        let mut counts = [1; 2];
        counts[b] = 0;
        s.active("nothing is counted", &added, &counts);
    });
}

/// A query and its answer; by which backend.
fn answered(s: &mut Stage<'_>) -> usize {
    let net = s.net;
    let b = s.forwarded("query", &query(net));
    s.step("answer", said(net, b, 8080), Becomes(said(net, b, 8080).from(net.vip, 53)));
    b
}

#[test]
fn what_nobody_answered_and_who_is_full() {
    everywhere(|s| {
        let added = s.service(UDP, 53, 1);
        let net = s.net;
        s.forwarded("query", &query(net));
        sweep(s);
        s.step("it has never answered", said(net, 0, 8080), Pass);
        answered(s);
        sweep(s);
        s.world.set_backend(added.backends[0], 1, 1).unwrap();
        s.forwarded("another client's", &eth().ip(net.other, net.vip).udp(40000, 53));
        s.step("it is full", said(net, 0, 8080), Pass);
        s.active("the other client's", &added, &[1]);
    });
}

fn tftp(s: &mut Stage<'_>) -> (Frame, usize) {
    let ask = eth().ip(s.net.client, s.net.vip).udp(40000, 69).fill(20);
    let b = s.forwarded("read request", &ask);
    (ask, b)
}

#[test]
fn tftp_answers_from_a_port_of_its_own() {
    everywhere(|s| {
        let added = s.service(UDP, 69, 4);
        let net = s.net;
        let (ask, b) = tftp(s);
        s.step("data", said(net, b, 3000), Becomes(said(net, b, 3000).from(net.vip, 3000)));
        let ack = eth().ip(net.client, net.vip).udp(40000, 3000).fill(4);
        s.step("acknowledgement", &ack, Becomes(ack.clone().to(net.backends[b], 3000)));
        s.step("more data", said(net, b, 3000), Becomes(said(net, b, 3000).from(net.vip, 3000)));
        let mut counts = [0; 4];
        counts[b] = 2;
        s.active("the request and the transfer", &added, &counts);
        s.step("another transfer", said(net, b, 3001), Becomes(said(net, b, 3001).from(net.vip, 3001)));
        s.step(
            "an error about the request",
            said(net, b, 8080),
            Becomes(said(net, b, 8080).from(net.vip, 69)),
        );
        s.step("another backend", said(net, (b + 1) % 4, 3000), Pass);
        assert_eq!(s.forwarded("the request again", &ask), b);
        assert_eq!(sweep(s), 3);
        let (_, b) = tftp(s);
        s.step(
            "by the same port once more",
            said(net, b, 3000),
            Becomes(said(net, b, 3000).from(net.vip, 3000)),
        );
    });
}

#[test]
fn whoever_is_no_tftp_server_answers_from_where_it_was_asked() {
    everywhere(|s| {
        s.service(UDP, 53, 4);
        let net = s.net;
        let b = s.forwarded("query", &query(net));
        s.step("from another port", said(net, b, 3000), Pass);
    });
}
