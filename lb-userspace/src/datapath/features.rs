//! What this kernel and these interfaces can do.

use aya::{maps::MapType, programs::ProgramType, sys};
use nix::sys::statfs::{self, BPF_FS_MAGIC};

use super::{
    diag, handshake,
    interfaces::{self, Interface},
    sockets, trial,
};
use crate::host::{
    self, Found, Hint, Setup,
    cluster::{self, Finding, State},
};

/// Is a feature there?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Yes.
    Available,
    /// No, and something slower or less convenient takes its place.
    Fallback,
    /// No, and Flowpin needs it; or this kernel refuses it.
    Missing,
    /// It is there, and may keep packets from arriving.
    Warning,
}

impl Status {
    /// As shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Fallback => "fallback",
            Self::Missing => "missing",
            Self::Warning => "warning",
        }
    }
}

/// A feature.
#[derive(Clone, Debug)]
pub struct Feature {
    /// What.
    pub name: String,
    /// Is it there?
    pub status: Status,
    /// What follows, or what would help.
    pub detail: String,
}

fn feature(name: impl Into<String>, ok: bool, otherwise: Status, good: &str, bad: &str) -> Feature {
    let (status, detail) = if ok { (Status::Available, good) } else { (otherwise, bad) };
    Feature { name: name.into(), status, detail: detail.into() }
}

/// Is this kernel of that version, or newer?
pub(crate) fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release =
        nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).filter_map(|p| p.parse::<u32>().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}

/// Does `bpf_fib_lookup` say which address of its own the node would have on a way (`BPF_FIB_LOOKUP_SRC`)? A packet in
/// another one needs it.
pub(crate) fn knows_source_of_routes() -> bool {
    kernel_at_least(6, 7)
}

fn sysctl_is_on(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|v| v.trim() != "0")
}

/// Probes. `servers`: addresses of a cluster's API server. Changes nothing; takes seconds, in which all programs are loaded for trial. Interfaces come last.
pub async fn probe(servers: &[String]) -> Vec<Feature> {
    use Status::{Fallback, Missing};
    let maps = [MapType::Hash, MapType::Array, MapType::PerCpuArray, MapType::ArrayOfMaps];
    let bpffs = statfs::statfs("/sys/fs/bpf").is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC);
    let program = |kind| sys::is_program_supported(kind).unwrap_or(false);
    let permitted = program(ProgramType::Xdp);
    let mut features = vec![
        feature(
            "kernel 6.1",
            kernel_at_least(6, 1),
            Missing,
            "the oldest that is tried",
            "update the kernel: older ones refuse programs, or were never tried",
        ),
        feature(
            "dsr-ipip",
            knows_source_of_routes(),
            Fallback,
            "forward = \"dsr-ipip\"",
            "services with forward = \"dsr-ipip\" are refused; they need Linux 6.7",
        ),
        feature(
            "BPF permitted",
            permitted,
            Missing,
            "programs can be loaded",
            "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        ),
        feature(
            "kernel BTF",
            std::path::Path::new("/sys/kernel/btf/vmlinux").exists(),
            Fallback,
            "types for the verifier's messages",
            "messages of the verifier are harder to read",
        ),
        feature(
            "bpffs",
            bpffs,
            Missing,
            "maps and links outlive the agent",
            "mount -t bpf bpf /sys/fs/bpf (inside `ip netns exec` it is hidden: use nsenter --net)",
        ),
        feature(
            "map types",
            maps.iter().all(|m| sys::is_map_supported(*m).unwrap_or(false)),
            Missing,
            "hash, array, per-CPU array, array of maps",
            "see \"BPF permitted\"; otherwise update the kernel",
        ),
        feature(
            "TC programs",
            program(ProgramType::SchedClassifier),
            Missing,
            "",
            "build the kernel with CONFIG_NET_CLS_BPF",
        ),
        feature(
            "TCX",
            kernel_at_least(6, 6),
            Fallback,
            "links on TC hooks, replaced without a gap",
            "clsact filters are used instead (TCX came with Linux 6.6)",
        ),
        feature(
            "IPv4 forwarding",
            sysctl_is_on("/proc/sys/net/ipv4/ip_forward"),
            Missing,
            "",
            "sysctl -w net.ipv4.ip_forward=1 (backends elsewhere can't be reached without)",
        ),
        feature(
            "IPv6 forwarding",
            sysctl_is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
            Fallback,
            "",
            "sysctl -w net.ipv6.conf.all.forwarding=1, if there are IPv6 services",
        ),
    ];
    features.push(of_cgroup());
    features.push(of_diag());
    features.push(of_handshakes());
    if permitted {
        features.extend(trial::run().unwrap_or_else(|e| {
            vec![Feature { name: "programs".into(), status: Missing, detail: e.to_string() }]
        }));
    }
    let listed = match interfaces::connect() {
        Ok(handle) => interfaces::list(&handle).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    features.extend(of_host(&listed).await);
    let names: Vec<String> = listed.iter().map(|i| i.name.clone()).collect();
    features.extend(cluster::look(servers, &names).await.into_iter().map(of_cluster));
    features.extend(listed.iter().map(of_interface));
    features
}

fn of_cluster(found: Finding) -> Feature {
    let status = match found.state {
        State::Good => Status::Available,
        State::Warning => Status::Warning,
        State::Missing => Status::Missing,
    };
    Feature { name: found.about.into(), status, detail: found.text }
}

/// Where programs at the sockets of the node's processes are attached.
fn of_cgroup() -> Feature {
    let name = "cgroup2".into();
    let path = match sockets::cgroup(None) {
        Ok(path) => path,
        Err(e) => {
            return Feature {
                name,
                status: Status::Fallback,
                detail: format!("{e}; only packets are balanced"),
            };
        }
    };
    // The root of all has no type (Documentation/admin-guide/cgroup-v2.rst).
    let part = path.join("cgroup.type").exists();
    let (status, more) = match part {
        false => (Status::Available, ": [sockets] can lead the node's own processes"),
        true => (
            Status::Warning,
            " is a part of the node's: processes outside it aren't led. Mount the node's own, and name it in [sockets] cgroup",
        ),
    };
    Feature { name, status, detail: format!("{}{more}", path.display()) }
}

/// Whether sockets can be ended that were led to a backend.
fn of_diag() -> Feature {
    let can = diag::can_end();
    let bad = can.as_ref().err().map_or_else(String::new, |why| {
        format!(
            "{why}; connected sockets of the node's processes stay at a backend that is gone until they are connected anew"
        )
    });
    let good = "connected sockets of the node's processes leave a backend that is gone";
    feature("SOCK_DESTROY", can.is_ok(), Status::Fallback, good, &bad)
}

fn of_handshakes() -> Feature {
    let can = handshake::can_ask();
    let bad = can.as_ref().err().map_or_else(String::new, |why| {
        format!("{why}; backends that answer past the node are checked at their own addresses only")
    });
    let good = "backends that answer past the node are checked at VIPs as well";
    feature("checks at VIPs", can.is_ok(), Status::Fallback, good, &bad)
}

/// What rules of the host's may get in the way of. Without a configuration to go by, it is said when they do.
async fn of_host(interfaces: &[Interface]) -> Vec<Feature> {
    let names = interfaces.iter().filter(|i| i.unfit.is_none()).map(|i| i.name.clone()).collect();
    let hints = host::hints::hints(&Setup::unknown(names), &Found::look().await);
    let of = |hint: Hint| Feature {
        name: hint.about.into(),
        status: Status::Warning,
        detail: format!("with fast or reply = \"ingress\": {}; {}", hint.text, hint.remedy),
    };
    hints.into_iter().map(of).collect()
}

fn of_interface(interface: &Interface) -> Feature {
    let name = format!("interface {}", interface.name);
    if let Some(why) = interface.unfit {
        return feature(name, false, Status::Fallback, "", why);
    }
    let driver = std::fs::read_link(format!("/sys/class/net/{}/device/driver", interface.name))
        .ok()
        .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()));
    let detail = match (interface.partial_checksums, driver) {
        _ if interface.veth => {
            "virtual: attach = \"tc\" is the better choice. With xdp, refusals (RST, ICMP) to clients are lost unless its \
             other end has GRO on, there: ethtool -K PEER gro on"
                .into()
        }
        (true, _) => "virtual: attach = \"tc\" is the better choice; xdp works".into(),
        (false, Some(driver)) => {
            format!("driver {driver}: xdp, native if the driver has it, else generic; or tc")
        }
        (false, None) => "xdp (generic if the driver has no native) or tc".into(),
    };
    Feature { name, status: Status::Available, detail }
}
