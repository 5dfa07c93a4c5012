//! Promise: what a kernel or a link lacks or has in excess is coped with: clsact where there is no TCX, frames of 9,000 bytes, and
//! the agent's neighbours get the words they wait for.

use std::{os::unix::net::UnixDatagram, time::Duration};

use flowpin::{
    datapath::{
        attach::{Attachments, Mode},
        interfaces::Interface,
        object::{Object, Wanted},
        pin::PinDir,
    },
    source::Variant,
};
use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{V4, V6},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

#[test]
fn clsact_where_there_is_no_tcx() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let config = service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "");
    // An agent makes and fills the maps; then the same maps get programs by the older way.
    let mut agent = Agent::start(&net.node, &config);
    agent.end(Signal::SIGTERM);
    let filters = |way: &str| net.node.must(&format!("tc filter show dev c0 {way}"));
    net.node.run(|| {
        let pins = PinDir::open(agent.pins()).unwrap();
        let wanted = Wanted {
            max_flows: 1024,
            max_clients: 1024,
            hash_seed: 1,
            shares: false,
            netns: 0,
            sockets_led: 0,
            log: false,
        };
        let mut object = Object::load(&pins, &wanted).unwrap();
        let attachments = Attachments::new(&pins);
        for name in ["c0", "b0", "c0", "b0"] {
            let index = nix::net::if_::if_nametoindex(name).unwrap();
            let interface = Interface {
                mac: None,
                index,
                name: name.into(),
                unfit: None,
                partial_checksums: true,
                veth: true,
                leads_out: true,
                tunnel: false,
                above: None,
                xdp: None,
            };
            for mode in [Mode::Clsact, Mode::ClsactEgress] {
                assert_eq!(
                    attachments.attach_tc(&mut object, &interface, Variant::Egress, [mode]).unwrap(),
                    mode
                );
            }
        }
    });
    for way in ["ingress", "egress"] {
        let found = filters(way);
        assert_eq!(found.matches("direct-action").count(), 1, "the second time it is replaced: {found}");
    }
    net.client.run(|| {
        let mut conn = Conn::open(at(&V4.vip(0), 80)).expect("filters stay when their maker is gone");
        conn.exchange(100_000).unwrap();
    });
}

#[test]
fn jumbo_frames_through_xdp() {
    let net = Net::new(1);
    for (ns, name) in
        [(&net.node, "c0"), (&net.client, "eth0"), (&net.node, "b0"), (&net.backends[0], "eth0")]
    {
        ns.ip(&format!("link set {name} mtu 9000"));
    }
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let config = interfaces(&[("c0", "xdp"), ("b0", "xdp")])
        + &service("four", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "")
        + &service("six", &V6.vip(0), "\"80/tcp\"", &[V6.backend(0)], "");
    let agent = Agent::start(&net.node, &config);
    for (family, name) in [(V4, "four"), (V6, "six")] {
        let _conn = net.client.run(|| {
            let mut conn = Conn::open(at(&family.vip(0), 80)).unwrap();
            (0..50).for_each(|_| conn.exchange(16_000).unwrap());
            conn
        });
        let backend = agent.json(&["service", "show", name])["backends"][0].clone();
        let mean = |bytes: &str, packets: &str| {
            backend[bytes].as_f64().unwrap() / backend[packets].as_f64().unwrap()
        };
        // Acknowledgements are among them, so the mean is well below the largest; beyond 1,500 they were jumbo frames.
        let (sent, received) = (mean("bytes_in", "packets_in"), mean("bytes_out", "packets_out"));
        assert!(sent > 2_000.0 && received > 2_000.0, "{name}: {sent:.0} and {received:.0} bytes a packet");
    }
}

/// What systemd hears of a service.
struct Systemd {
    dir: TempDir,
    socket: UnixDatagram,
}

impl Systemd {
    /// Whoever hears waits for half a minute.
    fn listen() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { dir, socket }
    }

    /// Where it listens, for the environment.
    fn address(&self) -> (String, String) {
        ("NOTIFY_SOCKET".into(), self.dir.path().join("notify").display().to_string())
    }

    fn hear(&self) -> std::io::Result<String> {
        let mut buffer = [0; 256];
        let n = self.socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
    }
}

#[test]
fn systemd_is_told_and_flows_are_logged() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let config = interfaces(&[("c0", "tc"), ("b0", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "");
    let mut agent = Agent::prepare(&net.node, &config);
    let systemd = Systemd::listen();
    let heard = || systemd.hear().expect("a word from the agent");
    agent.env = vec![systemd.address(), ("RUST_LOG".into(), "info,flowpin::flows=debug".into())];
    agent.spawn(&[]);
    assert!(heard().contains("READY=1"));
    net.client.run(|| Conn::open(at(&V4.vip(0), 80)).unwrap());
    eventually("the flow is logged", Duration::from_secs(60), || {
        let log = agent.log();
        if log.contains("new flow: service 0, client port ") { Ok(()) } else { Err(log) }
    });
    agent.signal(Signal::SIGHUP);
    assert!(heard().contains("RELOADING=1"));
    assert!(heard().contains("READY=1"));
    agent.end(Signal::SIGTERM);
    assert!(heard().contains("STOPPING=1"));
}

#[test]
fn systemd_is_told_that_the_agent_goes_on() {
    let net = Net::new(1);
    let mut agent = Agent::prepare(&net.node, &interfaces(&[("c0", "tc")]));
    let systemd = Systemd::listen();
    let heard = || systemd.hear().map_err(|e| e.kind());
    agent.env = vec![systemd.address(), ("WATCHDOG_USEC".into(), "400000".into())];
    agent.spawn(&[]);
    assert!(heard().unwrap().contains("READY=1"));
    for _ in 0..5 {
        assert_eq!(heard().as_deref(), Ok("WATCHDOG=1\n"));
    }
    // It makes no progress: nothing is said.
    agent.signal(Signal::SIGSTOP);
    eventually("it is stopped", Duration::from_secs(30), || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        if status.contains("T (stopped)") { Ok(()) } else { Err(status) }
    });
    systemd.socket.set_nonblocking(true).unwrap();
    while heard().is_ok() {}
    systemd.socket.set_nonblocking(false).unwrap();
    systemd.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert_eq!(heard(), Err(std::io::ErrorKind::WouldBlock));
    systemd.socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    agent.signal(Signal::SIGCONT);
    assert_eq!(heard().as_deref(), Ok("WATCHDOG=1\n"));
}
