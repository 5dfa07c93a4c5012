//! Links of every kind between the node and a neighbour.

use std::{
    fs::File,
    io::{self, PipeWriter, Read, Write},
    os::fd::AsRawFd,
    process::Stdio,
};

use super::{Ns, topology::can_solicit};

mod world;

pub use world::{Outcome, World, carries_or_says};

/// What a link is made of, on the node's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A veth pair.
    Veth,
    /// A bridge with the neighbour behind it, attached.
    Bridge,
    /// The same, its port attached.
    BridgePort,
    /// A tagged VLAN over a veth pair.
    Vlan,
    /// A macvlan over a veth pair.
    Macvlan,
    /// An ipvlan over a veth pair.
    Ipvlan,
    /// A bond of one veth pair.
    Bond,
    /// A VXLAN over a veth pair.
    Vxlan,
    /// A WireGuard tunnel over a veth pair, which has no Ethernet headers.
    Wireguard,
    /// A tunnel without Ethernet headers, carried by a process.
    Tun,
    /// The same with Ethernet headers.
    Tap,
}

/// A link from the node to a neighbour, which has its default route there. The node is 10.N.0.1 and fd0N::1, the
/// neighbour 10.N.0.2 and fd0N::2.
#[derive(Debug)]
pub struct Link {
    /// The node's interface to attach to.
    pub attach: String,
    /// The process that carries a tunnel ends when this is closed.
    _carrier: Option<PipeWriter>,
}

/// Makes a link with network `number` (1 to 9); the node's interfaces have names that begin with `name`.
///
/// # Errors
/// The kernel has no such kind of device.
pub fn connect(kind: Kind, node: &Ns, name: &str, far: &Ns, number: u8) -> Result<Link, String> {
    let (upper, lower) = (format!("{name}0"), format!("{name}l"));
    let mut carrier = None;
    let on = format!("link {lower} name {upper}");
    match kind {
        Kind::Veth => pair(node, &upper, far, "eth0"),
        Kind::Tun | Kind::Tap => carrier = Some(tunnel(kind == Kind::Tap, (node, &upper), (far, "eth0"))),
        Kind::Vlan => {
            pair(node, &lower, far, "lower");
            add(node, &format!("{on} type vlan id 5"))?;
            add(far, "link lower name eth0 type vlan id 5")?;
        }
        Kind::Vxlan => {
            pair(node, &lower, far, "lower");
            let [near_address, far_address] = underlay(node, &lower, far, number);
            let ends = |dev: &str, local: &str, remote: &str| {
                format!("type vxlan id {number} dev {dev} local {local} remote {remote} dstport 4789")
            };
            add(node, &format!("name {upper} {}", ends(&lower, &near_address, &far_address)))?;
            add(far, &format!("name eth0 {}", ends("lower", &far_address, &near_address)))?;
        }
        Kind::Wireguard => {
            pair(node, &lower, far, "lower");
            let addresses = underlay(node, &lower, far, number);
            add(node, &format!("name {upper} type wireguard"))?;
            add(far, "name eth0 type wireguard")?;
            keys([(node, &upper), (far, "eth0")], &addresses, number);
        }
        Kind::Bridge | Kind::BridgePort | Kind::Bond => {
            pair(node, &lower, far, "eth0");
            let kind = if kind == Kind::Bond { "bond mode active-backup" } else { "bridge" };
            add(node, &format!("name {upper} type {kind}"))?;
            node.ip(&format!("link set {lower} down"));
            node.ip(&format!("link set {lower} master {upper}"));
            node.ip(&format!("link set {lower} up"));
        }
        Kind::Macvlan | Kind::Ipvlan => {
            pair(node, &lower, far, "eth0");
            // Else the lower device answers for the upper one's address.
            node.must(&format!("sysctl -qw net.ipv4.conf.{lower}.arp_ignore=1"));
            let kind = if kind == Kind::Macvlan { "macvlan mode bridge" } else { "ipvlan mode l2" };
            add(node, &format!("{on} type {kind}"))?;
        }
    }
    for (ns, link, host) in [(node, upper.as_str(), 1), (far, "eth0", 2)] {
        ns.ip(&format!("addr add 10.{number}.0.{host}/24 dev {link}"));
        ns.ip(&format!("addr add fd0{number}::{host}/64 dev {link} nodad"));
        ns.ip(&format!("link set {link} up"));
    }
    far.ip(&format!("route add default via 10.{number}.0.1"));
    far.ip(&format!("route add default via fd0{number}::1"));
    [node, far].into_iter().for_each(can_solicit);
    Ok(Link { attach: if kind == Kind::BridgePort { lower } else { upper }, _carrier: carrier })
}

fn pair(node: &Ns, name: &str, far: &Ns, peer: &str) {
    node.ip(&format!("link add {name} type veth peer name {peer} netns {}", far.name));
    node.ip(&format!("link set {name} up"));
    far.ip(&format!("link set {peer} up"));
    // So that the veth takes what XDP_TX sends.
    far.must(&format!("ethtool -K {peer} gro on"));
}

/// Addresses of a veth pair that a tunnel goes over: the node's, the neighbour's.
fn underlay(node: &Ns, lower: &str, far: &Ns, number: u8) -> [String; 2] {
    let addresses = [1, 2].map(|host| format!("172.16.{number}.{host}"));
    node.ip(&format!("addr add {}/24 dev {lower}", addresses[0]));
    far.ip(&format!("addr add {}/24 dev lower", addresses[1]));
    addresses
}

/// Makes two ends of WireGuard each other's peer. `addresses`: where each of them is reached; `number`: that of their network, which has a
/// port of its own.
fn keys(ends: [(&Ns, &str); 2], addresses: &[String; 2], number: u8) {
    let port = 51_820 + u16::from(number);
    let directory = tempfile::TempDir::new().expect("a directory");
    let pairs = [0, 1].map(|end: usize| {
        let private = wg("genkey", "");
        let file = directory.path().join(end.to_string());
        std::fs::write(&file, &private).expect("a key");
        (file.display().to_string(), wg("pubkey", &private))
    });
    for (end, (ns, name)) in ends.into_iter().enumerate() {
        let ((key, _), (_, peer), address) = (&pairs[end], &pairs[1 - end], &addresses[1 - end]);
        ns.must(&format!(
            "wg set {name} listen-port {port} private-key {key} peer {peer} allowed-ips 0.0.0.0/0,::/0 \
             endpoint {address}:{port}"
        ));
    }
}

/// What `wg` makes of its input.
fn wg(verb: &str, input: &str) -> String {
    let mut child = std::process::Command::new("wg")
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("wg: scripts/setup installs it");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it is read");
    let out = child.wait_with_output().expect("wg");
    assert!(out.status.success(), "wg {verb}");
    String::from_utf8(out.stdout).expect("base64").trim().to_string()
}

/// `ip link add`. Only that the kernel doesn't know the kind is an error.
fn add(ns: &Ns, what: &str) -> Result<(), String> {
    let mut command = ns.command("ip");
    command.args(["link", "add"]).args(what.split_whitespace()).stdin(Stdio::null());
    let out = command.output().expect("ip");
    let said = String::from_utf8_lossy(&out.stderr);
    if said.contains("Unknown device type") {
        return Err(format!("this kernel has no such device: ip link add {what}: {}", said.trim()));
    }
    assert!(out.status.success(), "ip link add {what}: {said}");
    Ok(())
}

/// Two devices and a thread that carries what one sends to the other.
fn tunnel(ethernet: bool, near: (&Ns, &str), far: (&Ns, &str)) -> PipeWriter {
    let mut ends = [near, far].map(|(ns, name)| ns.run(|| open(name, ethernet)).expect(name));
    let (stop, end) = io::pipe().expect("a pipe");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            let fds = [ends[0].as_raw_fd(), ends[1].as_raw_fd(), stop.as_raw_fd()];
            let mut fds = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
            // SAFETY: so many entries are there, and the descriptors are open.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
            assert!(ready > 0, "poll: {}", io::Error::last_os_error());
            let readable = fds.map(|fd| fd.revents != 0);
            if readable[2] {
                return;
            }
            for (from, to) in [(0, 1), (1, 0)] {
                if readable[from]
                    && let Ok(length) = ends[from].read(&mut buffer)
                {
                    // An end that isn't up yet takes nothing: lost, as on any wire.
                    let _ = ends[to].write(&buffer[..length]);
                }
            }
        }
    });
    end
}

/// A tun or tap device, made in the namespace of the calling thread.
fn open(name: &str, ethernet: bool) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all bits 0 is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let kind = if ethernet { libc::IFF_TAP } else { libc::IFF_TUN };
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and the request outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}
