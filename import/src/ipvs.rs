//! What IPVS's words are here: its schedulers, ways of forwarding and persistence. One table for what reads
//! `ipvsadm-save`'s and keepalived's files, and for `flowpin ipvsadm`.

use std::time::Duration;

pub use crate::model::{Algorithm, Forward};

/// How far what Flowpin does is what a scheduler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// As far as anybody can tell.
    Same,
    /// But for what these sentences say.
    Except(&'static str),
    /// It also spreads connections over all servers, by another measure. What differs, as a sentence without its end.
    Near(&'static str),
    /// It has another purpose than to spread connections over all servers: what that is, likewise, and what to do.
    Unlike(&'static str, &'static str),
}

/// A scheduler of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// As after `-s`.
    pub name: &'static str,
    /// What is the same here, or comes nearest.
    pub algorithm: Algorithm,
    /// Is a server chosen by the client's address, so that the client stays with it?
    pub by_client: bool,
    /// How near it comes.
    pub likeness: Likeness,
}

const fn least(name: &'static str, likeness: Likeness) -> Scheduler {
    Scheduler { name, algorithm: Algorithm::LeastConnections, by_client: false, likeness }
}

const fn turns(name: &'static str, likeness: Likeness) -> Scheduler {
    Scheduler { name, algorithm: Algorithm::RoundRobin, by_client: false, likeness }
}

const fn hash(name: &'static str) -> Scheduler {
    Scheduler { name, algorithm: Algorithm::ConsistentHash, by_client: true, likeness: Likeness::Same }
}

const NO_LOOK_AHEAD: Likeness = Likeness::Near("Flowpin doesn't look ahead by a connection");
const FOR_CACHES: Likeness = Likeness::Unlike("It is for caches, by the destination's address", "");
const FIRST: Likeness = Likeness::Unlike(
    "It gives all clients to the server with the highest weight",
    "Write backup = true for the others: they get clients while none of the rest is healthy.",
);
const FILLS: Likeness = Likeness::Unlike(
    "It fills the server with the highest weight before the next one, and Flowpin has no such order",
    "",
);

/// All that Linux has.
pub const SCHEDULERS: [Scheduler; 14] = [
    turns("rr", Likeness::Except("Weights count here. Leave them out where rr didn't look at them.")),
    turns("wrr", Likeness::Same),
    least("lc", Likeness::Except("Weights count here. Leave them out where lc didn't look at them.")),
    least("wlc", Likeness::Same),
    least("lblc", FOR_CACHES),
    least("lblcr", FOR_CACHES),
    least("dh", FOR_CACHES),
    hash("sh"),
    least("sed", NO_LOOK_AHEAD),
    least("nq", NO_LOOK_AHEAD),
    least("fo", FIRST),
    least("ovf", FILLS),
    hash("mh"),
    least("twos", Likeness::Near("It compares two backends, Flowpin all")),
];

/// A scheduler by its name; `None`: it isn't one of Linux's.
pub fn scheduler(name: &str) -> Option<&'static Scheduler> {
    SCHEDULERS.iter().find(|scheduler| scheduler.name == name)
}

/// What `-b` says of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// The client's port is part of what is hashed: it is what consistent-hash does without affinity.
    ByPort,
    /// A server that can't take a client is passed over: it is always so here.
    Fallback,
}

/// A flag of `-b`; `None`: it is of none of the schedulers that have an equal here.
pub fn flag(name: &str) -> Option<Flag> {
    match name {
        "sh-port" | "mh-port" => Some(Flag::ByPort),
        "sh-fallback" | "mh-fallback" => Some(Flag::Fallback),
        _ => None,
    }
}

/// How packets get to a server, by its option.
pub fn forward(option: &str) -> Option<Forward> {
    match option {
        "-g" => Some(Forward::DsrL2),
        "-i" => Some(Forward::DsrIpip),
        "-m" => Some(Forward::Nat),
        _ => None,
    }
}

/// Where a command says nothing of it.
pub const DEFAULT_FORWARD: Forward = Forward::DsrL2;

/// How long a client is remembered where `-p` doesn't say.
pub const PERSISTENCE: Duration = Duration::from_secs(300);
