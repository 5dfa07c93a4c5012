//! Processes of the node: programs on a cgroup, and what sockets are pinned to.
//!
//! One program a hook, each by a link that is pinned under `pin_dir/sockets`, so that sockets are led and counted whether or not the agent
//! runs. When a build's program takes another's place both are there for an instant; the second finds nothing to do.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering, fence},
};

use lb_common::{
    abi::{
        Addr4, Addr6, Backend, SocketPin, SocketPlace, maps, programs,
        socket::{SocketRequest, led},
        sweep::{REMOVE, RESET},
    },
    socket_table::{counts, owner},
};
use nix::sys::statfs::{self, CGROUP2_SUPER_MAGIC};

use super::{DatapathError, links, mapping::Mapping, object::Object, pin::PinDir, sweeper};
use crate::source::{Config, Role, SocketScope, SocketSpec};

/// What sockets are pinned to.
pub struct SocketPins {
    places: Mapping<SocketPlace>,
    pins: Mapping<SocketPin>,
}

/// One of them, as it was when it was looked at.
#[derive(Clone, Copy)]
pub struct PinnedSocket {
    at: u32,
    state: u64,
    /// Where it was led.
    pub pin: SocketPin,
}

impl PinnedSocket {
    /// By which the kernel knows the socket.
    pub const fn cookie(&self) -> u64 {
        owner(self.state)
    }

    /// To let go of it.
    pub const fn request(&self) -> SocketRequest {
        SocketRequest { state: self.state, at: self.at, last_seen: self.pin.last_seen }
    }
}

impl SocketPins {
    /// Opens the maps by their pins.
    ///
    /// # Errors
    /// One is missing or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        let places = Mapping::new(&pins.data(maps::SOCKETS)?, maps::SOCKETS)?;
        let pins = Mapping::new(&pins.data(maps::SOCKET_PINS)?, maps::SOCKET_PINS)?;
        Ok(Self { places, pins })
    }

    /// Every pin that counts. Those that come or go meanwhile may or may not be among them.
    pub fn iter(&self) -> impl Iterator<Item = PinnedSocket> {
        (0..self.places.len().min(self.pins.len())).filter_map(|at| {
            // SAFETY: within the mappings, aligned; pins are plain data that any bytes are valid for. Others write meanwhile: a copy
            // counts only if the place was in the same state before and after.
            let (state, pin, after) = unsafe {
                let state = AtomicU64::from_ptr(&raw mut (*self.places.at(at)).state);
                let before = state.load(Ordering::Acquire);
                if !counts(before) {
                    return None;
                }
                let pin = self.pins.at(at).read_volatile();
                fence(Ordering::Acquire);
                (before, pin, state.load(Ordering::Relaxed))
            };
            (state == after).then_some(PinnedSocket { at, state, pin })
        })
    }

    /// Lets go of all of them, for when nobody would notice that their sockets are closed.
    ///
    /// # Errors
    /// The kernel refuses.
    fn clear(&self, object: &Object) -> Result<(), DatapathError> {
        let all: Vec<_> = self.iter().map(|socket| socket.request()).collect();
        let_go(object, &all).map(drop)
    }
}

/// Lets go of pins that have not changed since the requests were made. Returns how many there were.
///
/// # Errors
/// The kernel refuses.
pub fn release(object: &Object, requests: &[SocketRequest]) -> Result<u32, DatapathError> {
    sweeper::release(object, REMOVE, requests)
}

/// Lets go of pins that are still the same sockets' at the same backends, in use or not. Returns how many there were.
///
/// # Errors
/// The kernel refuses.
pub fn let_go(object: &Object, requests: &[SocketRequest]) -> Result<u32, DatapathError> {
    sweeper::release(object, RESET, requests)
}

/// An address of a pin's.
pub fn address(words: [u32; 4], family: u8) -> IpAddr {
    if family == Backend::V4 {
        IpAddr::V4(Ipv4Addr::from(Addr4(words[0])))
    } else {
        IpAddr::V6(Ipv6Addr::from(Addr6(words)))
    }
}

/// Whose sockets are to be led. Where it is said that there are interfaces of pods, their packets are seen, and some of their
/// sockets need not be led.
pub fn whose(config: &Config) -> u32 {
    let pods_are_seen = config.interfaces.iter().any(|rule| rule.role == Some(Role::Pod));
    match config.sockets.scope {
        SocketScope::Off | SocketScope::Host => led::OF_THE_NODE,
        SocketScope::All if pods_are_seen => led::ALL_BESIDE_PACKETS,
        SocketScope::All => led::ALL,
    }
}

/// The programs on the cgroup.
pub struct Hooks {
    links: PathBuf,
    attached: bool,
}

impl Hooks {
    /// Nothing is looked at yet.
    pub fn new(pins: &PinDir) -> Self {
        Self { links: pins.sockets(), attached: false }
    }

    /// Attaches the programs, if they are wanted; takes them off, if not. Does nothing once that is done, unless pins have vanished.
    ///
    /// # Errors
    /// There is no cgroup2, or the kernel refuses. Tried again by the next call, but for a program that was refused.
    pub fn keep(
        &mut self,
        object: &mut Object,
        pins: &SocketPins,
        spec: &SocketSpec,
    ) -> Result<(), DatapathError> {
        let before = names().all(|name| self.links.join(name).exists());
        // Pins may have vanished, and what they kept attached with them.
        if self.attached && (before || spec.scope == SocketScope::Off) {
            return Ok(());
        }
        if spec.scope != SocketScope::Off {
            // All of them before the first is attached: a socket that only half of them know would be led, and
            // counted for ever.
            Self::load(object, spec)?;
        }
        if spec.scope == SocketScope::Off || !before {
            for name in names() {
                links::remove(&self.links.join(name))?;
            }
            // Sockets may have been closed since without anybody's noticing.
            pins.clear(object)?;
        }
        if spec.scope != SocketScope::Off {
            let path = cgroup(spec.cgroup.as_deref())?;
            let cgroup = File::open(&path).map_err(DatapathError::io(path.display().to_string()))?;
            std::fs::create_dir_all(&self.links)
                .map_err(DatapathError::io(self.links.display().to_string()))?;
            // The end of sockets first: no socket is led whose end isn't noticed.
            for name in [programs::SOCKET_RELEASE].into_iter().chain(programs::SOCKET_ADDRESS) {
                let (pin, new) = (self.links.join(name), self.links.join(format!("{name}-new")));
                links::remove(&new)?;
                links::keep(object.attach_to_cgroup(name, &cgroup)?, &new)?;
                std::fs::rename(&new, &pin).map_err(DatapathError::io(pin.display().to_string()))?;
            }
            tracing::info!(cgroup = %path.display(), scope = spec.scope.name(), "the node's own processes are balanced");
        }
        self.attached = true;
        Ok(())
    }

    /// Loads the programs, if they are wanted.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn load(object: &mut Object, spec: &SocketSpec) -> Result<(), DatapathError> {
        match spec.scope {
            SocketScope::Off => Ok(()),
            _ => names().try_for_each(|name| object.load_for_cgroup(name)),
        }
    }

    /// Takes the programs off.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn detach(&self) -> Result<(), DatapathError> {
        match std::fs::remove_dir_all(&self.links) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(DatapathError::io(self.links.display().to_string())(e))
            }
            _ => Ok(()),
        }
    }
}

/// The programs.
fn names() -> impl Iterator<Item = &'static str> {
    programs::SOCKET_ADDRESS.into_iter().chain([programs::SOCKET_RELEASE])
}

/// Where cgroup2 is mounted, or what the configuration says.
///
/// # Errors
/// It isn't mounted, or what is configured is something else.
pub fn cgroup(configured: Option<&Path>) -> Result<PathBuf, DatapathError> {
    if let Some(path) = configured {
        let shown = path.display().to_string();
        let kind = statfs::statfs(path).map_err(|e| DatapathError::io(shown.clone())(e.into()))?;
        if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(DatapathError::NotCgroup2 { path: shown });
        }
        return Ok(path.into());
    }
    let mounts =
        std::fs::read_to_string("/proc/self/mounts").map_err(DatapathError::io("/proc/self/mounts"))?;
    mounted(&mounts).ok_or(DatapathError::NoCgroup2)
}

/// `cgroup2 /sys/fs/cgroup cgroup2 rw,relatime 0 0` among others (fstab(5)).
fn mounted(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| path.replace("\\040", " ").into())
    })
}

/// Cookie of this process's network namespace, by which the kernel's programs know it (Linux 5.14).
///
/// # Errors
/// The kernel is older.
pub fn own_netns() -> Result<u64, DatapathError> {
    let failed = DatapathError::io("asking for the cookie of the network namespace");
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)))
        .map_err(DatapathError::io("a socket"))?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option's value is a number of 64 bits, for which there is room.
    let done = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(cookie) } else { Err(failed(std::io::Error::last_os_error())) }
}

/// include/uapi/asm-generic/socket.h
const SO_NETNS_COOKIE: libc::c_int = 71;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_wherever_it_is_mounted() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/my\\040own cgroup2 rw,relatime 0 0\n";
        assert_eq!(mounted(mounts), Some("/sys/fs/cgroup/my own".into()));
        assert_eq!(mounted("proc /proc proc rw 0 0\n"), None);
    }
}
