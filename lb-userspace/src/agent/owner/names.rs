//! What the DNS says of hosts comes into force, and is kept for an agent that starts while it says nothing.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Owner, Stopped, reload::FEW};
use crate::{
    model::ServiceSpec,
    reconcile::Declared,
    source::{
        FileService, Names,
        names::{Answer, Conclusion, conclude},
    },
};

/// What was concluded.
pub struct Learned {
    /// Something is wrong with the answers.
    pub problem: bool,
    /// When to ask again.
    pub again: Duration,
    /// Backends are others now, and reached past the IP stack's ways.
    pub direct: bool,
}

impl Owner {
    /// Takes what the DNS says of a host. `failures`: how many times in a row there was a problem before.
    ///
    /// # Errors
    /// The kernel refuses; then all is as it was.
    pub fn learn(
        &mut self,
        host: &Arc<str>,
        answers: &[Option<Answer>; 2],
        failures: u32,
    ) -> Result<Learned, String> {
        let known = self.names.of(host).cloned().unwrap_or_default();
        let Conclusion { addresses, problem, again } = conclude(host, &known, answers, failures);
        let concerned = self.services_of(host);
        let (before, shown) = (self.names.clone(), list(&addresses));
        let changed = self.names.set(host, addresses);
        if changed && !concerned.is_empty() {
            let start = Instant::now();
            if let Err(stopped) = self.enter_names(&concerned) {
                self.names = before;
                return Err(stopped.to_string());
            }
            self.shared.reconcile.observe(start.elapsed().as_secs_f64());
        }
        if changed {
            self.save_names();
        }
        self.note_host(host, &concerned, problem.as_deref(), changed.then_some(shown.as_str()));
        let direct = changed && concerned.iter().any(|spec| spec.is_direct());
        Ok(Learned { problem: problem.is_some(), again, direct })
    }

    /// Are addresses of a host known?
    pub fn knows(&self, host: &str) -> bool {
        self.names.of(host).is_some_and(|addresses| !addresses.is_empty())
    }

    /// Services in force that have this host.
    fn services_of(&self, host: &str) -> Vec<Arc<ServiceSpec>> {
        let has = |spec: &&Arc<ServiceSpec>| spec.hosts.iter().any(|one| *one.host == *host);
        self.shared.read().desired.services().values().filter(has).cloned().collect()
    }

    fn enter_names(&mut self, concerned: &[Arc<ServiceSpec>]) -> Result<(), Stopped> {
        // What is said of addresses that are declared twice is said of all at once.
        if concerned.len() <= FEW && self.shared.read().notes.is_empty() {
            let (sources, mut notes) = (self.sources(), Vec::new());
            let of = |spec: &Arc<ServiceSpec>| sources.one(&spec.name, &mut notes);
            let changed: Vec<Declared> = concerned.iter().filter_map(of).collect();
            if notes.is_empty()
                && let Some(entered) = self.enter_few(changed, &[])
            {
                return entered;
            }
        }
        self.settle()
    }

    /// Says once what is wrong with a host, that nothing is any more, and which addresses it has now if they are others.
    fn note_host(
        &self,
        host: &Arc<str>,
        concerned: &[Arc<ServiceSpec>],
        problem: Option<&str>,
        addresses: Option<&str>,
    ) {
        if concerned.is_empty() {
            // What is wrong is said when a service has it.
            return;
        }
        let mut state = self.shared.write();
        let before = match problem {
            Some(problem) => state.unresolved.insert(host.clone(), problem.into()),
            None => state.unresolved.remove(host),
        };
        drop(state);
        let (kind, detail) = match (problem, before, addresses) {
            (Some(problem), None, _) => ("unresolved", problem),
            (None, _, Some(addresses)) | (Some(_), Some(_), Some(addresses)) => ("resolved", addresses),
            (None, Some(_), None) => ("resolved", "the last addresses hold"),
            (Some(_), Some(_), None) | (None, None, None) => return,
        };
        match kind {
            "resolved" => tracing::info!("host {host}: {detail}"),
            _ => tracing::warn!("{detail}"),
        }
        for spec in concerned {
            for one in spec.hosts.iter().filter(|one| one.host == *host) {
                self.shared.log.note(kind, &spec.name, &one.name(), detail);
            }
        }
    }

    /// Forgets what is wrong with hosts that no service in force has any more, and addresses of those that nobody
    /// declares. While a file, or what it says of a service, can't be read nobody knows which those are: then all stay.
    pub fn keep_hosts(&mut self, followed: impl Fn(&str) -> bool) {
        let mut state = self.shared.write();
        state.unresolved.retain(|host, _| followed(host));
        let unread = ["config", "state file"].iter().any(|about| state.problems.contains_key(about));
        drop(state);
        let unknown =
            |service: &FileService| service.spec.is_err() && self.good.spec(&service.name).is_none();
        if unread || self.config.services.iter().any(unknown) {
            return;
        }
        let declared = self.sources().hosts();
        if self.names.keep(|host| followed(host) || declared.contains(host)) {
            self.save_names();
        }
    }

    /// Reads the addresses that an earlier agent knew.
    pub(super) fn recover_names(&mut self) {
        let path = Names::path(&self.config.state_file);
        match Names::load(&path) {
            Ok(names) => self.names = names,
            Err(why) => {
                let problem = format!(
                    "addresses of hosts {} can't be used, and are those of the next answers: {why}",
                    path.display()
                );
                tracing::error!("{problem}");
                self.shared.write().problems.insert("names", problem);
            }
        }
    }

    /// Has them written soon: see [`names`](crate::agent::names).
    fn save_names(&self) {
        self.shared.names.put((Names::path(&self.config.state_file), self.names.clone()));
    }

    /// The version in force of a service whose hosts have other addresses now: it goes on if those won't do.
    pub(super) fn last_of_hosts(&self, declared: &Declared) -> Option<Arc<ServiceSpec>> {
        let now = declared.spec.as_ref().ok().filter(|now| !now.hosts.is_empty())?;
        let state = self.shared.read();
        let before = state.desired.services().get(&declared.name)?;
        let same = before.hosts == now.hosts && before.frontends == now.frontends;
        (same && before != now).then(|| before.clone())
    }
}

/// In a line.
fn list(addresses: &BTreeSet<std::net::IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
