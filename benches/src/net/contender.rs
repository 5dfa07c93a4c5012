//! Who is measured, and how each is set up with so many services.

use std::{fmt::Write as _, net::Ipv4Addr, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    programs::{Xdp, xdp::XdpMode},
};
use flowpin_tests::harness::{
    Agent, Ns,
    agent::{interfaces, service},
    program::Program,
};
use tempfile::TempDir;

use crate::micro::compile;

use super::{
    rules,
    server::{ECHO, PORTS},
    stage::{BACKENDS, VIP},
};

/// Processes of the node's are led.
const SOCKETS: &str = "[sockets]\nscope = \"host\"\n";
/// Connections that Flowpin's table and the proxies have room for.
pub const FLOWS: u32 = 524_288;

/// Who is on the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contender {
    /// Nobody: packets are routed, clients take the backends in turn. The limit.
    Plain,
    /// The same, with an XDP program that does nothing where clients' packets come in: what veth takes for that.
    Idle,
    /// Plain routing, with the kernel's conntrack looking at every packet: the floor of a Kubernetes node.
    Conntrack,
    /// The chains that kube-proxy writes.
    Iptables,
    /// The maps that kube-proxy writes.
    Nftables,
    /// `balance leastconn`, TCP mode.
    Haproxy,
    /// The same, with `option tcplog` to a file.
    HaproxyLogging,
    /// `stream`, `least_conn`.
    Nginx,
    /// Nobody, and clients are processes of the node's: the limit for those.
    Direct,
    /// Flowpin, likewise: sockets are led to backends when they connect.
    Socket,
    /// The same with a service for each backend, which clients take in turn, as they take backends without it. How connections are spread
    /// makes a difference of several percent either way: here it makes none, and what is left is what leading a socket costs.
    SocketInTurn,
    /// Flowpin.
    Flowpin {
        /// Where clients' packets come in; TC at the backends in any case, as pods' veths have it.
        way: Way,
        /// Consistent hashing instead of least-connections.
        hashing: bool,
    },
}

/// How clients' packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// By TC and the IP stack.
    Tc,
    /// By XDP and the IP stack.
    Xdp,
    /// By TC, past the IP stack both ways, and straight into pods.
    Fast,
}

/// Keeps a contender going.
pub enum Running {
    /// In the kernel, as long as the namespace lasts.
    Rules,
    /// A program.
    Program {
        /// Ends when this goes.
        running: Program,
    },
    /// A program of the kernel's, attached.
    Xdp {
        /// Goes when this does.
        _attached: Box<Ebpf>,
    },
    /// Flowpin's agent.
    Agent(Box<Agent>),
}

impl Contender {
    /// As tables name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain routing",
            Self::Idle => "idle XDP",
            Self::Conntrack => "conntrack",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Haproxy => "HAProxy",
            Self::HaproxyLogging => "HAProxy, tcplog",
            Self::Nginx => "nginx",
            Self::Direct => "direct, on the node",
            Self::Socket => "Flowpin socket",
            Self::SocketInTurn => "Flowpin socket, in turn",
            Self::Flowpin { way: Way::Tc, hashing: false } => "Flowpin TC LC",
            Self::Flowpin { way: Way::Tc, hashing: true } => "Flowpin TC CH",
            Self::Flowpin { way: Way::Xdp, hashing: false } => "Flowpin XDP LC",
            Self::Flowpin { way: Way::Xdp, hashing: true } => "Flowpin XDP CH",
            Self::Flowpin { way: Way::Fast, hashing: false } => "Flowpin fast LC",
            Self::Flowpin { way: Way::Fast, hashing: true } => "Flowpin fast CH",
        }
    }

    /// Do clients connect to a VIP?
    pub const fn balances(self) -> bool {
        !matches!(self, Self::Plain | Self::Idle | Self::Conntrack | Self::Direct | Self::SocketInTurn)
    }

    /// Are clients processes of the node's?
    pub const fn on_node(self) -> bool {
        matches!(self, Self::Direct | Self::Socket | Self::SocketInTurn)
    }

    /// Does it take datagrams to the service?
    pub const fn datagrams(self) -> bool {
        !matches!(self, Self::Haproxy | Self::HaproxyLogging | Self::Nginx)
    }

    /// Sets it up on the node.
    ///
    /// # Errors
    /// It isn't installed or refuses.
    pub fn start(self, node: &Ns, services: u32) -> Result<Running> {
        match self {
            Self::Plain | Self::Direct => {}
            Self::Idle => return idle(node),
            Self::Conntrack => feed(node, "nft -f -", rules::TRACK_ONLY)?,
            Self::Iptables => feed(node, "iptables-restore --noflush", &rules::iptables(services))?,
            Self::Nftables => feed(node, "nft -f -", &rules::nftables(services))?,
            Self::Haproxy | Self::HaproxyLogging => {
                let config = haproxy(self == Self::HaproxyLogging);
                return proxy(node, "haproxy", &["-db", "-f", "{dir}/config"], &config);
            }
            Self::Nginx => {
                let args = ["-p", "{dir}", "-c", "{dir}/config", "-e", "{dir}/error"];
                return proxy(node, "nginx", &args, &nginx());
            }
            Self::Socket => {
                return Ok(agent(node, SOCKETS.into(), "least-connections", services));
            }
            Self::SocketInTurn => {
                let one = |i| {
                    let backend = [format!("10.2.{i}.2")];
                    service(&format!("one{i}"), &in_turn(i).to_string(), &ports(), &backend, "")
                };
                let rules = SOCKETS.to_string() + &(0..BACKENDS).map(one).collect::<String>();
                return Ok(agent(node, rules, "least-connections", services));
            }
            Self::Flowpin { way, hashing } => {
                let (clients, backends) = match way {
                    Way::Tc => ("tc", "tc"),
                    Way::Xdp => ("xdp", "tc"),
                    Way::Fast => ("fast", "peer"),
                };
                let algorithm = if hashing { "consistent-hash" } else { "least-connections" };
                let rules = interfaces(&[("c0", clients), ("b*", backends)]);
                return Ok(agent(node, rules, algorithm, services));
            }
        }
        Ok(Running::Rules)
    }
}

/// Attaches the program that does nothing.
fn idle(node: &Ns) -> Result<Running> {
    let directory = compile::all()?;
    let mut ebpf = Ebpf::load_file(directory.path().join("driver.o"))?;
    let program: &mut Xdp = ebpf.program_mut("nothing_xdp").context("nothing_xdp")?.try_into()?;
    program.load()?;
    node.run(|| program.attach("c0", XdpMode::Driver))?;
    Ok(Running::Xdp { _attached: Box::new(ebpf) })
}

/// Gives a program its input.
///
/// # Errors
/// It isn't installed or refuses.
pub fn feed(node: &Ns, line: &str, input: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let mut child = node
        .command(words.next().context("a program")?)
        .args(words)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{line}: scripts/bench installs it"))?;
    std::io::Write::write_all(&mut child.stdin.take().context("stdin")?, input.as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

fn proxy(node: &Ns, program: &str, args: &[&str], config: &str) -> Result<Running> {
    node.ip(&format!("addr add {VIP}/32 dev lo"));
    let dir = TempDir::new()?;
    std::fs::write(dir.path().join("config"), config.replace("{dir}", &dir.path().display().to_string()))?;
    let started = Program::start_in(dir, node, program, args);
    // Listens on the VIP alone: connecting to it is what shows that it does.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while node.run(|| std::net::TcpStream::connect((VIP, ECHO))).is_err() {
        ensure!(std::time::Instant::now() < deadline, "{program} doesn't listen: {}", started.log());
        std::thread::yield_now();
    }
    Ok(Running::Program { running: started })
}

fn haproxy(logs: bool) -> String {
    let (to, what) =
        if logs { ("  log stdout format raw local0\n", "  log global\n  option tcplog\n") } else { ("", "") };
    let mut text = format!(
        "global\n  maxconn 7000\n  nbthread 2\n  stats socket {{dir}}/socket mode 600 level admin\n{to}\
         defaults\n  mode tcp\n{what}  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  balance leastconn\n",
    );
    for (port, _) in PORTS.into_iter().filter(|(_, tcp)| *tcp) {
        let _ = writeln!(text, "listen port{port}\n  bind {VIP}:{port}");
        for i in 0..BACKENDS {
            let _ = writeln!(text, "  server s{i} 10.2.{i}.2:{port}");
        }
    }
    text
}

fn nginx() -> String {
    let mut text = String::from(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nuser root;\nworker_processes 2;\n\
         worker_rlimit_nofile 16384;\npid {dir}/pid;\nevents { worker_connections 16000; }\nstream {\n  access_log off;\n  \
         error_log {dir}/error;\n  proxy_timeout 1h;\n",
    );
    for (port, _) in PORTS.into_iter().filter(|(_, tcp)| *tcp) {
        let _ = writeln!(text, "  upstream p{port} {{\n    zone p{port} 64k;\n    least_conn;");
        for i in 0..BACKENDS {
            let _ = writeln!(text, "    server 10.2.{i}.2:{port};");
        }
        let _ = writeln!(text, "  }}\n  server {{ listen {VIP}:{port}; proxy_pass p{port}; }}");
    }
    text + "}\n"
}

/// The ports of the service that is measured, as the configuration has them.
fn ports() -> String {
    PORTS.map(|(port, tcp)| format!("\"{port}/{}\"", if tcp { "tcp" } else { "udp" })).join(", ")
}

/// The VIP of the service that has this backend alone.
pub fn in_turn(backend: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(VIP) + 1000 + backend as u32)
}

fn agent(node: &Ns, rules: String, algorithm: &str, services: u32) -> Running {
    let mut text = format!("[conntrack]\nmax_flows = {FLOWS}\n{rules}");
    let line = format!("algorithm = \"{algorithm}\"");
    let backends: Vec<String> = (0..BACKENDS).map(|i| format!("10.2.{i}.2")).collect();
    text += &service("measured", &VIP.to_string(), &ports(), &backends, &line);
    for number in 1..services {
        let vip = rules::vip(number).to_string();
        text += &service(&format!("s{number}"), &vip, &format!("\"{ECHO}/tcp\""), &backends, &line);
    }
    Running::Agent(Box::new(Agent::start(node, &text)))
}
