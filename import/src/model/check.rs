//! How backends are checked.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use super::Protocol;
use crate::account::{Id, Said};

/// How a backend is checked.
#[derive(Clone, Debug)]
pub struct Check {
    /// Who says that it is.
    pub at: Id,
    /// What is asked.
    pub probe: Probe,
    /// At which port, if it needn't be the backend's.
    pub port: Option<Said<u16>>,
    /// Who says that another address is checked than the backend's.
    pub elsewhere: Option<Id>,
    /// From one check to the next.
    pub interval: Option<Said<Duration>>,
    /// How long an answer may take.
    pub timeout: Option<Said<Duration>>,
    /// Good ones in a row that bring it back.
    pub rise: Option<Said<u32>>,
    /// Bad ones in a row that take it out.
    pub fall: Option<Said<u32>>,
    /// Items that say no more than that it is checked as it is.
    pub same: BTreeSet<Id>,
}

impl Check {
    /// Whether it takes connections.
    pub const fn tcp(at: Id) -> Self {
        Self {
            at,
            probe: Probe::Tcp,
            port: None,
            elsewhere: None,
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            same: BTreeSet::new(),
        }
    }
}

/// What a check asks.
#[derive(Clone, Debug)]
pub enum Probe {
    /// Does it take connections?
    Tcp,
    /// Does it answer HTTP?
    Http(Http),
    /// Does it refuse a datagram, or answer this text?
    Udp(Option<Said<String>>),
    /// Does it answer as a database does?
    Database(Said<Database>),
    /// Does it answer what is sent with what is expected? At least one step expects something.
    Talk(Vec<Said<Step>>),
    /// Does this program say that it is well, by status 0?
    Exec(Said<Command>),
}

impl Probe {
    /// What it is asked by; `None`: by whatever the program takes.
    pub const fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Tcp | Self::Http(_) | Self::Database(_) | Self::Talk(_) => Some(Protocol::Tcp),
            Self::Udp(_) => Some(Protocol::Udp),
            Self::Exec(_) => None,
        }
    }

    /// Who says what is asked.
    pub fn ids(&self) -> Vec<Id> {
        match self {
            Self::Tcp => Vec::new(),
            Self::Http(Http { tls: _, paths, host, status }) => {
                let texts = paths.iter().chain(host).map(|said| said.at);
                texts.chain(status.as_ref().map(|said| said.at)).collect()
            }
            Self::Udp(send) => send.iter().map(|said| said.at).collect(),
            Self::Database(said) => vec![said.at],
            Self::Talk(steps) => steps.iter().map(|said| said.at).collect(),
            Self::Exec(said) => vec![said.at],
        }
    }
}

/// See [`Probe`].
#[derive(Clone, Debug, Default)]
pub struct Http {
    /// With TLS.
    pub tls: bool,
    /// What is asked for; none: `/`.
    pub paths: Vec<Said<String>>,
    /// Of whom.
    pub host: Option<Said<String>>,
    /// The statuses that are good.
    pub status: Option<Said<Statuses>>,
}

/// Most paths of one check.
const MOST_PATHS: usize = 16;

impl Http {
    /// Takes a further request of the same check, which has one path, if it differs from the first by that alone. `same`:
    /// items that say no more than that.
    ///
    /// # Errors
    /// It differs otherwise: its items.
    pub fn join(&mut self, other: Self, same: &mut BTreeSet<Id>) -> Result<(), Vec<Id>> {
        fn value<T>(said: &Option<Said<T>>) -> Option<&T> {
            said.as_ref().map(|said| &said.value)
        }
        let alike = value(&self.host) == value(&other.host)
            && value(&self.status) == value(&other.status)
            && self.paths.len() < MOST_PATHS;
        let Self { tls: _, paths, host, status } = other;
        let more = host.map(|said| said.at).into_iter().chain(status.map(|said| said.at));
        if !alike {
            return Err(paths.into_iter().map(|said| said.at).chain(more).collect());
        }
        same.extend(more);
        for path in paths {
            match self.paths.iter().any(|said| said.value == path.value) {
                true => drop(same.insert(path.at)),
                false => self.paths.push(path),
            }
        }
        Ok(())
    }
}

/// A database that is asked by its own protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// Its type of checks.
    pub kind: &'static str,
    /// Who logs in.
    pub user: Option<String>,
}

/// A program by its path from `/`, and its arguments, in which `{address}` and `{port}` are the backend's.
pub type Command = Vec<String>;

/// A step of a conversation. Texts are as Flowpin's file has them, with `\r \n \xNN`.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Is sent.
    Send(String),
    /// Must be in the answer.
    Expect(String),
    /// A regular expression that must match something of the answer.
    Matches(String),
}

/// Statuses of HTTP, each range within 100 to 599; at least one.
pub type Statuses = Vec<RangeInclusive<u16>>;
