//! HAProxy before two PostgreSQL servers, with Patroni's own word at 8008 on which is the primary.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use flowpin_tests::harness::{Net, Ns, client::Conn, server::Server, topology::Family::V4};

use super::{are_cut, await_healthy, go_on, on, open, start, text, vip, web};

const WRITE: u16 = 5000;
const READ: u16 = 6000;
/// No server's number.
const NOBODY: usize = usize::MAX;

/// What Patroni says beside server `number`, by who is the primary.
fn patroni(ns: &Ns, number: usize, primary: &Arc<AtomicUsize>) {
    let primary = primary.clone();
    web(ns, 8008, move |path| {
        let leads = primary.load(Ordering::SeqCst) == number;
        match path {
            "/primary" if leads => 200,
            "/replica" if !leads => 200,
            _ => 503,
        }
    });
}

#[test]
fn writes_follow_the_primary_and_reads_the_replica() {
    let net = Net::new(2);
    let primary = Arc::new(AtomicUsize::new(0));
    let start_one = |(number, ns): (usize, &Ns)| {
        patroni(ns, number, &primary);
        Server::start(ns, &format!("b{number}"), [5432])
    };
    let _servers: Vec<Server> = net.backends.iter().enumerate().map(start_one).collect();
    let agent = start(&net, &text("patroni", &[("interval = \"3s\"", "interval = \"300ms\"")]));
    let [first, second] = [0, 1].map(|i| V4.target(i, 5432));
    await_healthy(&agent, "pg-write", &[&first]);
    await_healthy(&agent, "pg-read", &[&second]);
    let writers = open(&net, WRITE, 6);
    let mut readers = open(&net, READ, 6);
    assert_eq!((on(&writers, "b0"), on(&readers, "b1")), (6, 6));

    // The primary has stepped down, and nobody has taken over yet.
    primary.store(NOBODY, Ordering::SeqCst);
    are_cut(writers);
    await_healthy(&agent, "pg-write", &[]);
    let refused = net.client.run(|| Conn::open(vip(WRITE)).map(drop));
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::ConnectionRefused));
    await_healthy(&agent, "pg-read", &[&first, &second]);
    go_on(&mut readers);
    assert_eq!(on(&open(&net, READ, 6), "b0"), 6, "both are replicas, and the other has none yet");

    // The replica has taken over.
    primary.store(1, Ordering::SeqCst);
    are_cut(readers);
    await_healthy(&agent, "pg-write", &[&second]);
    await_healthy(&agent, "pg-read", &[&first]);
    let (mut writers, mut readers) = (open(&net, WRITE, 6), open(&net, READ, 6));
    assert_eq!((on(&writers, "b1"), on(&readers, "b0")), (6, 6));
    go_on(&mut writers);
    go_on(&mut readers);
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}
