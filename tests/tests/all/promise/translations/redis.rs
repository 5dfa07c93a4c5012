//! HAProxy before a Redis master and its replica, told apart by what they say of replication.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    net::TcpStream,
};

use flowpin_tests::harness::{
    Net, Ns, eventually,
    program::{Program, run},
    topology::Family::V4,
};

use super::{LIMIT, await_healthy, start, text, vip};

const PORTS: [u16; 2] = [6380, 6381];

struct Pair {
    net: Net,
    _servers: Vec<Program>,
}

impl Pair {
    fn start() -> Self {
        let net = Net::new(2);
        let start = |(ns, port): (&Ns, u16)| {
            let options = "--bind * -::* --protected-mode no --repl-diskless-sync-delay 0 --dir {dir} --port";
            let port_text = port.to_string();
            let args: Vec<&str> = options.split(' ').chain([&port_text as &str, "--save", ""]).collect();
            Program::start(ns, "redis-server", &args).listening(ns, port)
        };
        let servers = net.backends.iter().zip(PORTS).map(start).collect();
        Self { net, _servers: servers }
    }

    /// Tells one server something, past the VIP.
    fn tell(&self, number: usize, words: &[&str]) -> String {
        let port = PORTS[number].to_string();
        run(&self.net.backends[number], "redis-cli", &[&["-p", &port], words].concat())
    }

    /// One becomes the master, and then the other its replica, which has all that the master has.
    fn lead(&self, master: usize) {
        let replica = 1 - master;
        self.tell(master, &["replicaof", "no", "one"]);
        let port = PORTS[master].to_string();
        self.tell(replica, &["replicaof", &V4.backend(master), &port]);
        eventually("the replica follows", LIMIT, || {
            let info = self.tell(replica, &["info", "replication"]);
            if info.contains("master_link_status:up") { Ok(()) } else { Err(info) }
        });
    }

    /// What a client is told by way of the VIP.
    fn ask(&self, words: &[&str]) -> String {
        let vip = V4.vip(0);
        run(&self.net.client, "redis-cli", &[&["-h", &vip, "-p", "6379"], words].concat()).trim().into()
    }

    /// A client's connection by way of the VIP that has said something.
    fn session(&self) -> BufReader<TcpStream> {
        let stream =
            self.net.client.run(|| TcpStream::connect_timeout(&vip(6379), LIMIT)).expect("connected");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let mut session = BufReader::new(stream);
        session.get_mut().write_all(b"INCR sessions\r\n").expect("sent");
        let mut answer = String::new();
        session.read_line(&mut answer).expect("an answer");
        assert!(answer.starts_with(':'), "{answer}");
        session
    }
}

/// A session is reset.
fn is_cut(mut session: BufReader<TcpStream>) {
    let end = session.read_line(&mut String::new());
    assert_eq!(end.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
}

#[test]
fn clients_reach_the_master_whichever_it_is() {
    let pair = Pair::start();
    pair.lead(0);
    let agent = start(&pair.net, &text("redis", &[("interval = \"2s\"", "interval = \"300ms\"")]));
    let targets = [0, 1].map(|i| V4.target(i, PORTS[i]));
    await_healthy(&agent, "redis", &[&targets[0]]);
    assert_eq!(pair.ask(&["set", "colour", "green"]), "OK");

    // A failover, and back again.
    for master in [1, 0] {
        let session = pair.session();
        pair.lead(master);
        is_cut(session);
        await_healthy(&agent, "redis", &[&targets[master]]);
        assert_eq!(pair.ask(&["config", "get", "port"]), format!("port\n{}", PORTS[master]));
        assert_eq!(pair.ask(&["get", "colour"]), "green");
        assert_eq!(pair.ask(&["set", "colour", "green"]), "OK", "it is no replica, which would refuse");
    }
    assert_eq!(pair.ask(&["get", "sessions"]), "2");
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}
