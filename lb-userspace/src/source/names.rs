//! Hosts by name: the addresses that are known of each, what an answer of the DNS makes of them, and the backends that
//! they are. Pure but for the file in which addresses are kept over a restart; it doesn't know how the DNS is asked.
//!
//! What is known stays until something else is: no failure takes an address away, and neither does an answer without any.

pub mod dns;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    SourceError,
    merge::check_room,
    runtime::{read, replace},
};
use crate::{
    model::{BackendSpec, ModelError, ServiceSpec},
    reconcile::Rejection,
};

/// The shortest time until a host is looked up again, whatever the TTL: a name with TTL 0 is no reason to ask all the
/// time.
pub const SHORTEST: Duration = Duration::from_secs(5);
/// The longest: what has moved is followed within minutes, also where a zone gives its records a day.
pub const LONGEST: Duration = Duration::from_secs(300);
/// The longest after failures of a host that has known addresses; the first is followed by [`SHORTEST`], each further one
/// by twice as much. One without any may be a name that isn't there: then that is [`LONGEST`].
pub const LONGEST_AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Version of the file's form.
const VERSION: u32 = 1;

/// What the DNS says of a name's addresses of one IP version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These.
    Found {
        /// Never empty.
        addresses: BTreeSet<IpAddr>,
        /// For how long this holds: the least of the records' TTLs.
        ttl: Duration,
    },
    /// There are none, in the words of a sentence's end.
    None(String),
    /// It can't be known: nobody answers, or not so that it can be understood. Likewise.
    Failed(String),
}

/// What follows from answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The addresses to use from now on.
    pub addresses: BTreeSet<IpAddr>,
    /// Why these may not be what the DNS has, one sentence.
    pub problem: Option<String>,
    /// When to ask again.
    pub again: Duration,
}

/// What follows from the answers for IPv4 and IPv6; `None`: that wasn't asked for, since nobody can use it. `failures`:
/// how many times in a row there was a problem before.
///
/// An IP version without addresses is one if the other has some. That no version has any is taken for a mistake: known
/// addresses stay.
pub fn conclude(
    host: &str,
    known: &BTreeSet<IpAddr>,
    answers: &[Option<Answer>; 2],
    failures: u32,
) -> Conclusion {
    let some = answers.iter().flatten().any(|answer| matches!(answer, Answer::Found { .. }));
    let (mut addresses, mut why, mut valid) = (BTreeSet::new(), Vec::new(), LONGEST);
    for (answer, v6) in answers.iter().zip([false, true]) {
        let record = if v6 { "AAAA" } else { "A" };
        match answer {
            None => {}
            Some(Answer::Found { addresses: found, ttl }) => {
                addresses.extend(found);
                valid = valid.min(*ttl);
            }
            Some(Answer::None(_)) if some => {}
            Some(Answer::None(said) | Answer::Failed(said)) => {
                addresses.extend(known.iter().filter(|address| address.is_ipv6() == v6));
                why.push(format!("{record}: {said}"));
            }
        }
    }
    let valid = valid.max(SHORTEST);
    if why.is_empty() {
        return Conclusion { addresses, problem: None, again: valid };
    }
    let why = why.join(", ");
    let problem = match addresses.len() {
        0 => format!("host {host} has no known address, so it is no backend: {why}"),
        _ if some => format!("host {host} can be looked up in part; its other addresses stay: {why}"),
        1 => format!("host {host} can't be looked up; its last address stays: {why}"),
        n => format!("host {host} can't be looked up; its last {n} addresses stay: {why}"),
    };
    let longest = if addresses.is_empty() { LONGEST } else { LONGEST_AFTER_FAILURE };
    let pause = SHORTEST.saturating_mul(1 << failures.min(8)).min(longest);
    Conclusion { addresses, problem: Some(problem), again: pause.min(valid) }
}

/// The last addresses that were known of each host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Names(BTreeMap<Arc<str>, BTreeSet<IpAddr>>);

/// None of any.
pub const NO_NAMES: &Names = &Names(BTreeMap::new());

/// As they are kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    hosts: Names,
}

impl Names {
    /// Of one host.
    pub fn of(&self, host: &str) -> Option<&BTreeSet<IpAddr>> {
        self.0.get(host)
    }

    /// These are a host's from now on. False: they were before.
    pub fn set(&mut self, host: &Arc<str>, addresses: BTreeSet<IpAddr>) -> bool {
        if self.of(host).map_or(addresses.is_empty(), |before| *before == addresses) {
            return false;
        }
        self.0.insert(host.clone(), addresses);
        true
    }

    /// Forgets hosts. False: there are none of these.
    pub fn keep(&mut self, wanted: impl Fn(&str) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|host, _| wanted(host));
        self.0.len() != before
    }

    /// Makes backends of a service's hosts, in their order. A backend that is there already stays what it is, which is said
    /// in `notes`. An address that the service can't have is no backend and goes to `aside`; one of an IP version of which
    /// the service has no VIP is left out.
    pub fn enter(&self, spec: &mut ServiceSpec, aside: &mut Vec<Rejection>, notes: &mut Vec<String>) {
        for host in spec.hosts.clone() {
            let known = self.of(&host.host).into_iter().flatten();
            for backend in known.map(|address| host.at(*address)) {
                if !spec.has_family(backend.address.is_ipv6()) {
                    continue;
                }
                let name = backend.name();
                if let Some(other) = spec.backends.get(&name) {
                    let wins = other.host.as_ref().map_or("it is declared by its address".into(), |other| {
                        format!("it is one of host {other}, which is declared first")
                    });
                    let note = format!(
                        "backend {name} of service \"{}\" is one of {host}: {wins}",
                        spec.name,
                        host = host.host
                    );
                    if !notes.contains(&note) {
                        notes.push(note);
                    }
                    continue;
                }
                if let Err(error) = add(spec, backend) {
                    aside.push(Rejection {
                        service: spec.name.clone(),
                        backend: Some(name),
                        origin: host.origin,
                        error: error.to_string(),
                        kept: false,
                        alone: true,
                        address_of: Some(host.host.clone()),
                    });
                }
            }
        }
    }

    /// Where they are kept.
    pub fn path(state_file: &Path) -> PathBuf {
        state_file.with_file_name("names.json")
    }

    /// Reads them. None, if there is no file. `Err`: it is there and can't be used, and why.
    pub fn load(path: &Path) -> Result<Self, String> {
        Ok(read::<Kept>(path, VERSION)?.map(|kept| kept.hosts).unwrap_or_default())
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// The disk refused; the old file is untouched.
    pub fn save(&self, path: &Path) -> Result<(), SourceError> {
        let kept = Kept { version: VERSION, hosts: self.clone() };
        let written = serde_json::to_vec_pretty(&kept).map_err(std::io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            replace(path, &text)
        });
        written.map_err(|error| SourceError::SaveNames { path: path.display().to_string(), error })
    }
}

/// Adds a backend, if the service can have it.
fn add(spec: &mut ServiceSpec, backend: BackendSpec) -> Result<(), ModelError> {
    spec.check_backend(&backend)?;
    check_room(spec)?;
    spec.check_backend_beside(&backend, spec)?;
    spec.add(backend)
}

#[cfg(test)]
mod tests;
