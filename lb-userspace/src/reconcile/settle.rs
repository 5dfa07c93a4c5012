//! Which of the services that sources declare go together. What is wrong with one is that one's: its last good version stays, and the rest
//! comes into force.

pub(super) mod hosts;

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{Admission, Desired, Origin, OwnAddresses, ServiceSpec, error::about_it};

/// A service as its source declares it, with all that the command line says of it.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its name; if that can't be read, where it is.
    pub name: String,
    /// Whose.
    pub origin: Origin,
    /// What it is to be, or what is wrong with it by itself.
    pub spec: Result<Arc<ServiceSpec>, String>,
    /// The last version that was good.
    pub good: Option<Arc<ServiceSpec>>,
    /// Backends of the command line's that the service can't have.
    pub aside: Vec<Rejection>,
}

/// What is declared and not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The service.
    pub service: String,
    /// One backend of it; `None`: the service as a whole.
    pub backend: Option<String>,
    /// Who declares it.
    pub origin: Origin,
    /// What is wrong, and the remedy.
    pub error: String,
    /// Is an earlier version in force?
    pub kept: bool,
    /// Whatever becomes of other services, it stays so.
    pub alone: bool,
    /// The host that has this address, as the DNS says. Only the address is left out: nobody has declared it.
    pub address_of: Option<Arc<str>>,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, backend, origin, error, kept, alone: _, address_of } = self;
        if let Some(host) = address_of {
            return write!(f, "host {host} has an address that is left out: {error}");
        }
        match backend {
            Some(backend) => write!(f, "backend {backend} of service \"{service}\"")?,
            None => write!(f, "service \"{service}\"")?,
        }
        let instead = if *kept { "the last good version is" } else { "it isn't" };
        write!(f, " of {origin} is refused, {instead} in force: {}", about_it(service, error))
    }
}

/// Versions that can't be planned, by service: how many of them, and why.
pub type Unplanned = BTreeMap<String, (usize, String)>;

struct Candidate<'a> {
    declared: &'a Declared,
    /// What is tried now.
    spec: Option<Arc<ServiceSpec>>,
    /// Why that isn't what is declared.
    error: Option<String>,
    /// Is it the last good version already?
    fell: bool,
}

impl Candidate<'_> {
    /// What was tried won't do. True: there is something else to try.
    fn fall(&mut self, error: String) -> bool {
        let tried = self.spec.take();
        if self.fell {
            return false;
        }
        self.fell = true;
        self.error = Some(error);
        self.spec = self.declared.good.clone().filter(|good| Some(good) != tried.as_ref());
        self.spec.is_some()
    }

    /// What is declared may do after all.
    fn try_again(&mut self, desired: &mut Desired, unplanned: &Unplanned, own: &OwnAddresses) {
        let Ok(spec) = &self.declared.spec else { return };
        if self.error.is_none() || unplanned.contains_key(&self.declared.name) {
            return;
        }
        if desired.replace(&spec.name, Some(spec.clone()), own).is_ok() {
            (self.spec, self.error) = (Some(spec.clone()), None);
        }
    }
}

/// The services that come into force, and what doesn't. Of two that don't go together the file's goes first, then the one that is where it
/// was (`holds`: a service has its addresses and ports now), then the one that is declared first. Addresses of [`hosts`]
/// are in nobody's way. `own`: the node's addresses.
pub fn settle(
    declared: &[Declared],
    unplanned: &Unplanned,
    own: &OwnAddresses,
    holds: impl Fn(&ServiceSpec) -> bool,
) -> (Desired, Vec<Rejection>) {
    let declared = hosts::give_way(declared);
    let mut candidates: Vec<Candidate<'_>> = declared.iter().map(|d| candidate(d, unplanned)).collect();
    let mut passes = 0;
    let mut desired = loop {
        passes += 1;
        let mut order: Vec<(Origin, bool, usize)> = Vec::with_capacity(candidates.len());
        for (i, candidate) in candidates.iter().enumerate() {
            if let Some(spec) = &candidate.spec {
                order.push((candidate.declared.origin, !(candidate.fell || holds(spec)), i));
            }
        }
        order.sort_unstable();
        let mut admission = Admission::new(own);
        for (.., i) in order.iter().filter(|(_, elsewhere, _)| !elsewhere) {
            candidates[*i].spec.iter().for_each(|spec| admission.reserve(spec));
        }
        let mut again = false;
        for (.., i) in order {
            let candidate = &mut candidates[i];
            let Some(spec) = &candidate.spec else { continue };
            if let Err(error) = admission.admit(spec) {
                again |= candidate.fall(error.to_string());
            }
        }
        // An earlier version goes before what has been taken in its place.
        if !again {
            break admission.done();
        }
    };
    // Who was in the way of one may have stepped back since.
    if passes > 1 || candidates.iter().any(|c| c.fell && c.spec.is_none()) {
        candidates.iter_mut().for_each(|candidate| candidate.try_again(&mut desired, unplanned, own));
    }
    let mut rejected = Vec::new();
    for Candidate { declared, spec, error, .. } in candidates {
        rejected.extend(declared.aside.iter().cloned());
        rejected.extend(error.map(|error| rejection(declared, error, spec.is_some())));
    }
    (desired, rejected)
}

/// A service isn't in force as it is declared.
pub fn rejection(declared: &Declared, error: String, kept: bool) -> Rejection {
    // A last good version that isn't in force either may be once others make way.
    let alone = declared.spec.is_err() && (kept || declared.good.is_none());
    Rejection {
        service: declared.name.clone(),
        backend: None,
        origin: declared.origin,
        error,
        kept,
        alone,
        address_of: None,
    }
}

fn candidate<'a>(declared: &'a Declared, unplanned: &Unplanned) -> Candidate<'a> {
    let spec = declared.spec.as_ref().ok().cloned();
    let mut candidate = Candidate { declared, spec, error: None, fell: false };
    if let Err(error) = &declared.spec {
        candidate.fall(error.clone());
    }
    if let Some((times, error)) = unplanned.get(&declared.name) {
        for _ in 0..*times {
            candidate.fall(error.clone());
        }
    }
    candidate
}

#[cfg(test)]
mod tests;
