//! How servers are chosen: `-s`, `-b`, `-p` and `-M`, as algorithm and affinity, and back.

use std::time::Duration;

use flowpin_import::ipvs::{self, Algorithm, Flag, Likeness};

use crate::Refusal;

/// How long clients are remembered where a scheduler goes by their address and `-p` isn't given: Flowpin's default.
const BY_ADDRESS: Duration = Duration::from_secs(3 * 3_600);

/// Bits of an IPv6 address that make a client, if nobody says otherwise.
pub const ALL_BITS: u8 = 128;

/// Clients stay with their backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// How long they are remembered.
    pub timeout: Duration,
    /// Bits of an IPv6 address that make a client, 1 to 128.
    pub ipv6_prefix: u8,
}

/// How a service's servers are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How one is chosen for a new connection.
    pub algorithm: Algorithm,
    /// Do clients stay with theirs?
    pub affinity: Option<Affinity>,
    /// What is different from what was asked for, a sentence each.
    pub notes: Vec<String>,
}

/// What was given of them.
#[derive(Debug, Default)]
pub struct Given<'a> {
    /// `-s`
    pub scheduler: Option<&'a str>,
    /// `-b`
    pub flags: Option<&'a str>,
    /// `-p`
    pub persistence: Option<Duration>,
    /// `-M`, of an IPv6 service.
    pub ipv6_prefix: Option<u8>,
}

const USED: &str = "least-connections comes nearest, and is used";

/// What they are here.
///
/// # Errors
/// There is nothing near a scheduler, or a flag isn't its own.
pub fn read(given: &Given<'_>) -> Result<Settings, Refusal> {
    let name = given.scheduler.unwrap_or("wlc");
    let Some(scheduler) = ipvs::scheduler(name) else {
        return Err(Refusal::failed(format!(
            "scheduler \"{name}\" isn't known; use wlc (least-connections), wrr (round-robin) or mh \
             (consistent-hash)"
        )));
    };
    let mut notes = Vec::new();
    match scheduler.likeness {
        Likeness::Same => {}
        Likeness::Except(text) => notes.push(format!("-s {name}: {text}")),
        Likeness::Near(differs) => notes.push(format!("-s {name}: {differs}: {USED}.")),
        Likeness::Unlike(purpose, instead) => {
            let waiting = match instead {
                "" => "",
                _ => ", and add backends that are to wait for others with \"flowpin backend add --backup\"",
            };
            return Err(Refusal::failed(format!(
                "scheduler \"{name}\" has no equal here. {purpose}; use wlc (least-connections){waiting}"
            )));
        }
    }
    let mut by_port = false;
    for word in given.flags.into_iter().flat_map(|flags| flags.split(',')) {
        if !scheduler.by_client || word.split('-').next() != Some(name) {
            return Err(Refusal::failed(format!(
                "flag \"{word}\" isn't one of scheduler {name}'s; use sh-port, sh-fallback, mh-port or mh-fallback with \
                 the scheduler that it names"
            )));
        }
        match ipvs::flag(word) {
            Some(Flag::ByPort) => by_port = true,
            Some(Flag::Fallback) => {}
            None => {
                return Err(Refusal::failed(format!(
                    "flag \"{word}\" isn't known; scheduler {name} has {name}-port and {name}-fallback"
                )));
            }
        }
    }
    if by_port && given.persistence.is_some() {
        notes.push(format!("-b {name}-port: with -p a client stays at one server, whatever its ports."));
    }
    let timeout = given.persistence.or((scheduler.by_client && !by_port).then_some(BY_ADDRESS));
    if given.ipv6_prefix.is_some_and(|bits| bits != ALL_BITS) && timeout.is_none() {
        return Err(Refusal::failed(
            "-M says which clients stay together, and without -p none do; give -p, or leave -M out",
        ));
    }
    let ipv6_prefix = given.ipv6_prefix.unwrap_or(ALL_BITS);
    let affinity = timeout.map(|timeout| Affinity { timeout, ipv6_prefix });
    Ok(Settings { algorithm: scheduler.algorithm, affinity, notes })
}

/// As ipvsadm's words say it.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// After `-s`.
    pub scheduler: &'static str,
    /// After `-b`.
    pub flag: Option<&'static str>,
    /// After `-p`, in seconds, at least 1.
    pub persistence: Option<u64>,
    /// After `-M`, unless all bits count.
    pub ipv6_prefix: Option<u8>,
}

/// The words for what a service does.
pub fn say(algorithm: Algorithm, affinity: Option<&Affinity>) -> Said {
    let hashed = algorithm == Algorithm::ConsistentHash;
    // Affinity is what hashing by address is said with; only another timeout is worth a word.
    let spoken = affinity.filter(|affinity| !hashed || affinity.timeout != BY_ADDRESS);
    let seconds = |affinity: &Affinity| {
        let whole = affinity.timeout.as_secs();
        whole.saturating_add(u64::from(affinity.timeout.subsec_nanos() > 0)).max(1)
    };
    Said {
        scheduler: match algorithm {
            Algorithm::LeastConnections => "wlc",
            Algorithm::ConsistentHash => "mh",
            // Weights count with both; chance is said to be left out.
            Algorithm::RoundRobin | Algorithm::WeightedRandom => "wrr",
        },
        flag: (hashed && affinity.is_none()).then_some("mh-port"),
        persistence: spoken.map(seconds),
        ipv6_prefix: affinity.map(|affinity| affinity.ipv6_prefix).filter(|bits| *bits != ALL_BITS),
    }
}
