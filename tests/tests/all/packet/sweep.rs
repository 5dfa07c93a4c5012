//! The sweep programs remove what the agent asks for, if nothing has happened since it looked; and account for it.

use lb_common::{
    abi::{Addr4, Addr6, Direction, Reason, sweep::Request},
    flow_state::Word,
};

use super::{
    build::{ACK, FIN, RST, SYN, eth},
    run::Hook,
    stage::{Expect::*, NET4, Stage, TCP, UDP, everywhere, on},
    tcp::{Talk, reply, request},
    world::Added,
};

/// A request per flow in the IPv4 table, as the agent would make it now.
fn requests4(s: &Stage<'_>) -> Vec<Request<Addr4>> {
    let entries = s.world.flows4.entries();
    let forward = entries.iter().filter(|f| f.direction == Direction::FORWARD);
    forward
        .map(|flow| {
            let key = flow.key();
            let reply = s.world.flows4.get(&key.twin(flow)).map_or(0, |r| r.last_seen);
            Request { state: flow.state, key, seen_forward: flow.last_seen, seen_reply: reply }
        })
        .collect()
}

fn requests6(s: &Stage<'_>) -> Vec<Request<Addr6>> {
    let entries = s.world.flows6.entries();
    let forward = entries.iter().filter(|f| f.direction == Direction::FORWARD);
    forward
        .map(|flow| {
            let key = flow.key();
            let reply = s.world.flows6.get(&key.twin(flow)).map_or(0, |r| r.last_seen);
            Request { state: flow.state, key, seen_forward: flow.last_seen, seen_reply: reply }
        })
        .collect()
}

/// Asks for all flows to be removed, as they are now; how many were.
pub fn sweep(s: &mut Stage<'_>) -> u32 {
    if s.net.vip.is_ipv4() {
        let requests = requests4(s);
        requests.chunks(32).map(|r| s.world.sweep4(r).unwrap()).sum()
    } else {
        let requests = requests6(s);
        requests.chunks(32).map(|r| s.world.sweep6(r).unwrap()).sum()
    }
}

fn many(s: &mut Stage<'_>, n: u16) -> Added {
    let added = s.service(TCP, 80, 4);
    let net = s.net;
    for port in 30_000..30_000 + n {
        s.forwarded("SYN", &eth().ip(net.client, net.vip).tcp(port, 80, SYN));
    }
    added
}

#[test]
fn open_and_closed_flows_go_and_are_counted_once() {
    everywhere(|s| {
        let added = many(s, 100);
        let net = s.net;
        s.active("a hundred", &added, &[25; 4]);
        for port in 30_000..30_040 {
            // Closed ones have been subtracted already.
            s.world.run(&eth().ip(net.client, net.vip).tcp(port, 80, RST).bytes()).unwrap();
        }
        assert_eq!(sweep(s), 100);
        s.active("none", &added, &[0; 4]);
        assert_eq!(s.world.entries(), 0);
        assert_eq!(sweep(s), 0, "there is nothing left");
    });
}

#[test]
fn a_flow_that_moved_since_is_left_alone() {
    on(Hook::Tc, &[&NET4], &|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let talk = Talk::open(s);
        let old = requests4(s);
        talk.request(s, "FIN", request(net, FIN | ACK).numbers(1001, 5001));
        assert_eq!(s.world.sweep4(&old).unwrap(), 0, "its state is another");
        let now = requests4(s);
        let mut seen = now.clone();
        seen[0].seen_forward = seen[0].seen_forward.wrapping_sub(1);
        assert_eq!(s.world.sweep4(&seen).unwrap(), 0, "the client was heard since");
        let mut seen = now.clone();
        seen[0].seen_reply = seen[0].seen_reply.wrapping_sub(1);
        assert_eq!(s.world.sweep4(&seen).unwrap(), 0, "the backend was heard since");
        s.active("it is there", &added, &[1]);
        talk.reply(s, "and works", reply(net, 0, ACK).numbers(5001, 1002));
        assert_eq!(s.world.sweep4(&requests4(s)).unwrap(), 1);
        s.active("gone", &added, &[0]);
    });
}

#[test]
fn a_successor_under_the_same_key_is_left_alone() {
    on(Hook::Tc, &[&NET4], &|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let talk = Talk::open(s);
        talk.request(s, "RST", request(net, RST).numbers(1001, 0));
        let old = requests4(s);
        s.forwarded("SYN from the same port", &request(net, SYN).numbers(9, 0));
        let mut old = old;
        let now = requests4(s);
        (old[0].seen_forward, old[0].seen_reply) = (now[0].seen_forward, now[0].seen_reply);
        assert_ne!(Word(old[0].state).tag(), Word(now[0].state).tag());
        assert_eq!(s.world.sweep4(&old).unwrap(), 0);
        s.active("the new one is there", &added, &[1]);
    });
}

#[test]
fn a_flow_without_its_reply_entry_goes_too() {
    on(Hook::Tc, &[&NET4], &|s| {
        let added = s.service(TCP, 80, 1);
        Talk::open(s);
        let requests = requests4(s);
        for flow in s.world.flows4.entries() {
            if flow.direction == Direction::REPLY {
                s.world.flows4.remove(&flow.key()).unwrap();
            }
        }
        assert_eq!(s.world.sweep4(&requests).unwrap(), 1);
        s.active("gone", &added, &[0]);
        assert_eq!(s.world.entries(), 0);
    });
}

#[test]
fn what_is_removed_is_a_stray_from_then_on() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        Talk::open(s);
        assert_eq!(sweep(s), 1);
        let rst =
            eth().reversed().ip(net.vip, net.client).fresh().tcp(80, 40000, RST).numbers(5001, 0).window(0);
        s.step("data", request(net, ACK).numbers(1001, 5001).fill(4), Back(rst, Reason::Stray));
        s.step("a reply", reply(net, 0, ACK).numbers(5001, 1001), Pass);
    });
}

/// Asks for all connections to be closed; how many were.
pub fn close(s: &mut Stage<'_>) -> u32 {
    if s.net.vip.is_ipv4() {
        let requests = requests4(s);
        s.world.close4(&requests).unwrap()
    } else {
        let requests = requests6(s);
        s.world.close6(&requests).unwrap()
    }
}

#[test]
fn who_speaks_on_a_connection_that_was_closed_is_reset_with_the_right_number() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 2);
        let net = s.net;
        let talk = Talk::open(s);
        talk.request(s, "data", request(net, ACK).numbers(1001, 5001).fill(100));
        assert_eq!(close(s), 1);
        s.active("no longer counted", &added, &[0, 0]);
        assert_eq!(close(s), 0, "there is nothing left to close");

        let rst = |from, to, sport, dport, number| {
            eth().reversed().ip(from, to).fresh().tcp(sport, dport, RST).numbers(number, 0).window(0)
        };
        let to_client = rst(net.vip, net.client, 80, 40000, 5001);
        s.step(
            "the client says more",
            request(net, ACK).numbers(1101, 5001).fill(10),
            Back(to_client, Reason::ConnectionClosed),
        );
        let to_backend = rst(net.client, net.backends[talk.backend], 40000, 8080, 1101);
        s.step(
            "the backend answers a probe",
            reply(net, talk.backend, ACK).numbers(5001, 1101),
            Back(to_backend, Reason::ConnectionClosed),
        );
        talk.request(s, "who ends it himself is let through", request(net, RST).numbers(1101, 0));
        talk.reply(s, "on either side", reply(net, talk.backend, RST).numbers(5001, 0));
        s.active("counted once", &added, &[0, 0]);

        // The same port again is a new connection.
        let talk = Talk::open(s);
        talk.reply(s, "data", reply(net, talk.backend, ACK).numbers(5001, 1001).fill(10));
        assert_eq!(s.world.active(added.backends[talk.backend]).unwrap(), 1);
    });
}

#[test]
fn only_tcp_connections_that_count_can_be_closed() {
    everywhere(|s| {
        let added = s.service(UDP, 53, 1);
        let net = s.net;
        s.forwarded("a question", &eth().ip(net.client, net.vip).udp(40000, 53));
        assert_eq!(close(s), 0, "UDP has nothing to close");
        s.active("still there", &added, &[1]);

        s.world.reset().unwrap();
        let added = s.service(TCP, 80, 1);
        let talk = Talk::open(s);
        talk.request(s, "RST", request(net, RST).numbers(1001, 0));
        assert_eq!(close(s), 0, "it is closed");
        s.active("counted once", &added, &[0]);
    });
}
