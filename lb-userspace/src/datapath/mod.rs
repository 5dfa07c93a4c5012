//! The kernel side, as userspace sees it. The only importer of aya.

pub mod addresses;
pub mod attach;
mod batch;
pub mod clients;
pub mod clock;
mod clsact;
mod copy;
pub mod counts;
pub mod diag;
pub mod events;
pub mod features;
pub mod filter;
pub mod flows;
mod generation;
pub mod handshake;
mod hold;
pub mod interfaces;
mod layout;
mod links;
pub mod macs;
mod mapping;
pub mod maps;
pub mod neighbours;
pub mod object;
pub mod others;
pub mod source_ranges;

pub mod pin;
mod privileges;
pub mod provoke;
mod raw;
pub mod refusal;
pub mod repin;
pub mod roles;
pub mod routes;
mod segment;
pub mod snat;
pub mod sockets;
pub mod steps;
pub mod sweeper;
mod tables;
pub mod tracked;
mod trial;

pub use clock::Clock;
pub use maps::Maps;

/// What the kernel refused, and what to do about it. One line each.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message is the documentation of each variant and names its fields")]
pub enum DatapathError {
    #[error("this binary was built without its BPF object; build it with: cargo xtask build --release")]
    NoObject,
    #[error("no permission for BPF; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    NoPermission,
    #[error(
        "pin_dir {path} is not on a BPF file system; mount one: mount -t bpf bpf /sys/fs/bpf \
         (inside `ip netns exec` it is hidden: use nsenter --net=... instead)"
    )]
    NotBpffs { path: String },
    #[error(
        "sockets: no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup/unified, or leave scope = \"off\""
    )]
    NoCgroup2,
    #[error(
        "sockets.cgroup {path} is not a directory of a cgroup2 file system; leave it out to have the one that is mounted"
    )]
    NotCgroup2 { path: String },
    #[error("pin_dir {path} belongs to user {owner}; remove it, or choose another one")]
    Foreign { path: String, owner: u32 },
    #[error("another agent is using pin_dir {path}{holder}; stop it, or give this one a pin_dir of its own")]
    Locked { path: String, holder: String },
    #[error(
        "{path}/maps has no {map} any more, though its other maps are in use; stop the agent and remove {path} to start \
         afresh (open connections are cut)"
    )]
    MapGone { path: String, map: String },
    #[error(
        "the maps in {path} bear the mark {found:#018x}, this build's {wanted:#018x}: a build made them that says nothing of \
         what lies in them. Nothing was touched, and the programs there go on; run that build again, or stop the agent and \
         remove {path} to start afresh (open connections are cut)"
    )]
    Unknown { path: String, found: u64, wanted: u64 },
    #[error(
        "the maps in {path}, made by version {made_by}, can't be taken over: {map}{}{why}. Nothing was touched, and the \
         programs there go on; run version {made_by} again, or stop the agent and remove {path} to start afresh (open \
         connections are cut)",
        if map.is_empty() { "" } else { ": " }
    )]
    NotTakenOver { path: String, map: String, made_by: String, why: String },
    #[error("program {program} is refused by this kernel: {reason}")]
    Refused { program: String, reason: String },
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("{what}: {error}")]
    Kernel { what: String, error: String },
}

impl DatapathError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
    pub(crate) fn kernel<E: std::error::Error>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        // aya's errors name the call; the cause below them names the reason.
        move |error| {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            Self::Kernel { what, error: text.lines().next().unwrap_or_default().to_string() }
        }
    }
}
