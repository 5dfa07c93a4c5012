//! What the four formats have in common: services with frontends, backends, checks and times, each with the item
//! that says it. It can say more than Flowpin does: [`fit`](crate::fit) takes out what it doesn't.

mod check;

use std::{net::IpAddr, time::Duration};

pub use self::check::{Check, Command, Database, Http, Probe, Statuses, Step};
use crate::{
    access::Access,
    account::{Account, Id, Note, Said},
};

/// All that a file says.
#[derive(Debug, Default)]
pub struct Draft {
    /// In the file's order.
    pub services: Vec<Service>,
    /// On what is no service's.
    pub notes: Vec<Note>,
    /// Every item.
    pub account: Account,
}

impl Draft {
    /// A note on what is no service's.
    pub fn note(&mut self, at: Id, remedy: impl Into<String>) {
        self.notes.push(Note::new(at, remedy));
    }
}

/// A pool of backends, and where clients reach it.
#[derive(Clone, Debug)]
pub struct Service {
    /// As in the file.
    pub name: String,
    /// What begins it.
    pub at: Id,
    /// Where clients connect to.
    pub frontends: Vec<Frontend>,
    /// Who serves them.
    pub backends: Vec<Backend>,
    /// How one is chosen; `None`: as Flowpin does.
    pub algorithm: Option<Said<Algorithm>>,
    /// Do clients stay with their backend?
    pub affinity: Option<Affinity>,
    /// When connections are over.
    pub timeouts: Timeouts,
    /// How packets get to backends; `None`: `nat`.
    pub forward: Option<Forward>,
    /// Who says so, where the file does.
    pub forward_at: Option<Id>,
    /// Whom it is for, unless a frontend says so itself.
    pub access: Access,
    /// How its backends are checked, unless they say so themselves.
    pub check: Option<Check>,
    /// Most connections of all its backends together.
    pub max_connections: Option<Said<u32>>,
    /// What healthy backends weigh together, at least, or else its backups take their place.
    pub quorum: Option<Said<u32>>,
    /// How long a backend takes to get all its share.
    pub slow_start: Option<Said<Duration>>,
    /// Are connections of a backend that fails its checks reset?
    pub reset_unhealthy: Option<Id>,
    /// Why it can't be in force as it is; then it is printed as a comment.
    pub off: Option<Note>,
    /// On what it is about.
    pub notes: Vec<Note>,
}

impl Service {
    /// Without anything.
    pub fn new(name: impl Into<String>, at: Id) -> Self {
        Self {
            name: name.into(),
            at,
            frontends: Vec::new(),
            backends: Vec::new(),
            algorithm: None,
            affinity: None,
            timeouts: Timeouts::default(),
            forward: None,
            forward_at: None,
            access: Access::default(),
            check: None,
            max_connections: None,
            quorum: None,
            slow_start: None,
            reset_unhealthy: None,
            off: None,
            notes: Vec::new(),
        }
    }

    /// A note on what it is about.
    pub fn note(&mut self, at: Id, remedy: impl Into<String>) {
        self.notes.push(Note::new(at, remedy));
    }

    /// It can't be in force, for this reason, or an earlier one.
    pub fn turn_off(&mut self, at: Id, reason: impl Into<String>) {
        match self.off {
            None => self.off = Some(Note::new(at, reason)),
            Some(_) => self.note(at, reason),
        }
    }

    /// Has it ports of UDP, and of nothing else?
    pub fn is_udp(&self) -> bool {
        let mut ports = self.frontends.iter().map(|frontend| frontend.ports.protocol);
        !self.frontends.is_empty() && ports.all(|protocol| protocol == Protocol::Udp)
    }
}

/// Layer-4 protocols that the formats know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, which Flowpin hasn't.
    Sctp,
}

impl Protocol {
    /// As in a list of ports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Ports `first..=last`, `1 <= first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, included.
    pub last: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

impl Ports {
    /// One.
    pub const fn one(port: u16, protocol: Protocol) -> Self {
        Self { first: port, last: port, protocol }
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        u32::from(self.last).saturating_sub(self.first.into()) + 1
    }

    /// Does it share one with another?
    pub fn overlaps(self, other: Self) -> bool {
        self.protocol == other.protocol && self.first <= other.last && other.first <= self.last
    }
}

/// An address with ports, where clients connect to.
#[derive(Clone, Debug)]
pub struct Frontend {
    /// Unspecified: all of the node's.
    pub address: IpAddr,
    /// Which ports.
    pub ports: Ports,
    /// Who says so.
    pub at: Id,
    /// Whom it is for; `None`: whom the service is for.
    pub access: Option<Access>,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The one with the fewest connections.
    LeastConnections,
    /// By a hash of the flow, or of the client with affinity.
    ConsistentHash,
    /// One after the other.
    RoundRobin,
    /// By lot.
    WeightedRandom,
}

/// Clients stay with their backend.
#[derive(Clone, Debug)]
pub struct Affinity {
    /// Who says so.
    pub at: Id,
    /// How long a client is remembered; `None`: as Flowpin does.
    pub timeout: Option<Said<Duration>>,
    /// Bits of an IPv6 address that make a client; `None`: all.
    pub ipv6_prefix: Option<Said<u8>>,
}

/// How packets get to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The destination is replaced.
    Nat,
    /// The source as well.
    Snat,
    /// The MAC address is.
    DsrL2,
    /// The packet is put in another.
    DsrIpip,
}

impl Forward {
    /// As in Flowpin's file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Snat => "snat",
            Self::DsrL2 => "dsr-l2",
            Self::DsrIpip => "dsr-ipip",
        }
    }

    /// Do backends answer past the node?
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::DsrL2 | Self::DsrIpip)
    }
}

/// When connections are over.
#[derive(Clone, Debug, Default)]
pub struct Timeouts {
    /// Open and silent both ways.
    pub idle: Option<Said<Duration>>,
    /// Not open yet.
    pub half_open: Option<Said<Duration>>,
    /// Closed by one side, and silent.
    pub half_closed: Option<Said<Duration>>,
    /// UDP, silent both ways.
    pub udp: Option<Said<Duration>>,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name, or whatever else the format takes.
    Name(String),
}

/// Who serves clients.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The server's name in the file, for people.
    pub name: Option<String>,
    /// What declares it.
    pub at: Id,
    /// Where it is.
    pub host: Host,
    /// Its port; `None`: the one that the client used.
    pub port: Option<u16>,
    /// Its share.
    pub weight: Option<Said<u64>>,
    /// Most connections.
    pub max_connections: Option<Said<u64>>,
    /// Used only when the others are down.
    pub backup: Option<Id>,
    /// Not to be used.
    pub down: Option<Id>,
    /// How it is checked.
    pub check: Option<Check>,
    /// How packets get to it.
    pub forward: Option<Said<Forward>>,
    /// How long it takes to get all its share.
    pub slow_start: Option<Said<Duration>>,
    /// What says that its name is looked up again and again: in Flowpin all are.
    pub resolve: Vec<Id>,
    /// Are its connections reset when it fails its checks?
    pub reset_unhealthy: Option<Id>,
    /// Why it can't be in force as it is; then it is printed as a comment.
    pub off: Option<Note>,
    /// On what it is about.
    pub notes: Vec<Note>,
}

impl Backend {
    /// With nothing but its place.
    pub const fn new(at: Id, host: Host, port: Option<u16>) -> Self {
        Self {
            name: None,
            at,
            host,
            port,
            weight: None,
            max_connections: None,
            backup: None,
            down: None,
            check: None,
            forward: None,
            slow_start: None,
            resolve: Vec::new(),
            reset_unhealthy: None,
            off: None,
            notes: Vec::new(),
        }
    }

    /// A note on what it is about.
    pub fn note(&mut self, at: Id, remedy: impl Into<String>) {
        self.notes.push(Note::new(at, remedy));
    }

    /// It can't be in force, for this reason, or an earlier one.
    pub fn turn_off(&mut self, at: Id, reason: impl Into<String>) {
        match self.off {
            None => self.off = Some(Note::new(at, reason)),
            Some(_) => self.note(at, reason),
        }
    }

    /// As in Flowpin's file.
    pub fn address(&self) -> String {
        match (&self.host, self.port) {
            (Host::Address(address), None) => address.to_string(),
            (Host::Address(IpAddr::V6(address)), Some(port)) => format!("[{address}]:{port}"),
            (Host::Address(address), Some(port)) => format!("{address}:{port}"),
            (Host::Name(name), None) => name.clone(),
            (Host::Name(name), Some(port)) => format!("{name}:{port}"),
        }
    }
}
