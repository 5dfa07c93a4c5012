//! Promise: a backend that is a host's name is all of its addresses; what the DNS takes back leaves, and a DNS that fails
//! changes nothing.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// What a DNS server says of any name.
#[derive(Clone)]
enum Says {
    /// These addresses, for five seconds.
    Addresses(Vec<String>),
    /// That it has failed (SERVFAIL, RFC 1035, section 4.1.1).
    Failure,
    Nothing,
}

/// A DNS server at a namespace's 127.0.0.1:53. Its thread ends with the process.
struct Dns(Arc<Mutex<Says>>);

impl Dns {
    fn start(ns: &Ns, says: Says) -> Self {
        let dns = Self(Arc::new(Mutex::new(says)));
        let own = dns.0.clone();
        let socket = ns.run(|| UdpSocket::bind("127.0.0.1:53")).expect("a port");
        std::thread::spawn(move || {
            let mut query = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let says = own.lock().expect("whole").clone();
                if let Some(answer) = answer(&query[..length], &says) {
                    socket.send_to(&answer, from).expect("an answer");
                }
            }
        });
        dns
    }

    fn says(&self, says: Says) {
        *self.0.lock().expect("whole") = says;
    }
}

/// Header, the question as it came, and a record for each address that points to its name (RFC 1035, section 4).
fn answer(query: &[u8], says: &Says) -> Option<Vec<u8>> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0)? + 1;
    let is_a = query[end..end + 2] == [0, 1];
    let (code, addresses): (u8, &[String]) = match says {
        Says::Addresses(addresses) if is_a => (0, addresses),
        Says::Addresses(_) => (0, &[]),
        Says::Failure => (2, &[]),
        Says::Nothing => return None,
    };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    answer.extend(&query[12..end + 4]);
    for address in addresses {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(address.parse::<Ipv4Addr>().expect("an address").octets());
    }
    Some(answer)
}

fn open(net: &Net, count: usize) -> Vec<Conn> {
    net.client.run(|| (0..count).map(|_| Conn::open(at(&V4.vip(0), 80)).expect("somebody answers")).collect())
}

fn on(conns: &[Conn]) -> [usize; 3] {
    ["b0", "b1", "b2"].map(|backend| conns.iter().filter(|conn| conn.backend == backend).count())
}

/// Waits until these are the backends.
fn await_backends(agent: &Agent, wanted: &[String]) {
    eventually("the backends are others", LIMIT, || {
        let list = agent.json(&["backend", "list", "app"]);
        let all = list.as_array().expect("a list");
        let active = |b: &&serde_json::Value| b["state"] == "active";
        let mut there: Vec<_> =
            all.iter().filter(active).map(|b| b["address"].as_str().expect("text").to_string()).collect();
        there.sort();
        if there == wanted { Ok(()) } else { Err(list.to_string()) }
    });
}

#[test]
fn a_hosts_addresses_are_backends() {
    let net = Net::new(3);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    net.node.ip("link set lo up");
    let addresses = |of: &[usize]| of.iter().map(|i| V4.backend(*i)).collect::<Vec<String>>();
    let named = |of: &[usize]| of.iter().map(|i| V4.target(*i, 80)).collect::<Vec<String>>();
    let dns = Dns::start(&net.node, Says::Addresses(addresses(&[0, 1])));
    // The agent has a file of its own in the place of /etc/resolv.conf.
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("a file");
    let mount = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", file.display());
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &["app.test:80".into()], "");
    let mut agent = Agent::prepare(&net.node, &config);
    agent.under = ["unshare", "--mount", "sh", "-c", &mount, "sh"].map(String::from).into();
    agent.up();
    await_backends(&agent, &named(&[0, 1]));
    let mut conns = open(&net, 20);
    assert_eq!(on(&conns), [10, 10, 0]);
    let list = agent.done(&["backend", "list", "app"]);
    assert!(list.contains("app.test"), "{list}");

    // One goes, one comes: nothing new goes where the name doesn't lead any more, and what is open stays.
    dns.says(Says::Addresses(addresses(&[1, 2])));
    await_backends(&agent, &named(&[1, 2]));
    let more = open(&net, 10);
    assert_eq!(on(&more), [0, 0, 10], "it has the fewest");
    conns.extend(more);

    // Who asks in vain goes on with what was said before, also an agent that begins anew.
    dns.says(Says::Failure);
    eventually("it is said", LIMIT, || {
        let status = agent.json(&["status"]);
        if status["problems"].to_string().contains("app.test") { Ok(()) } else { Err(status.to_string()) }
    });
    dns.says(Says::Nothing);
    agent.end(Signal::SIGKILL);
    agent.spawn(&[]);
    agent.answers();
    await_backends(&agent, &named(&[1, 2]));
    conns.extend(open(&net, 6));
    assert_eq!(on(&conns[30..]), [0, 3, 3]);
    net.client.run(|| {
        for conn in &mut conns {
            conn.exchange(1_000).expect("nobody is disturbed");
        }
    });
}
