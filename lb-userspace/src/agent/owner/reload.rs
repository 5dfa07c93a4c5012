//! The config file, read again: what is wrong with a service is that service's, what is wrong with the file leaves all as it was.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{Owner, Stopped, places::has_direct};
use crate::{
    agent::seen::{Hops, Seen},
    datapath::sockets,
    model::ServiceSpec,
    reconcile::{Declared, Input, Refused},
    source::{Config, FileService, KubernetesSpec, SourceError},
};

/// As many services that have changed are looked at alone.
pub(super) const FEW: usize = 64;

impl Owner {
    /// Takes what was read of the config file. Programs that the kernel refused are tried once more.
    ///
    /// # Errors
    /// What isn't in force, and why.
    pub fn reload(
        &mut self,
        read: Result<Config, SourceError>,
        hops: &Hops,
        seen: &Seen,
    ) -> Result<(), String> {
        self.retry_refused();
        let done = self.take(read, hops, seen);
        let mut state = self.shared.write();
        match &done {
            Ok(()) => {
                tracing::info!("config reloaded");
                state.problems.remove("config");
            }
            Err(e) => {
                tracing::error!("reload refused, nothing changed: {e}");
                let problem = format!("reload refused, the last good config is in force: {e}");
                state.problems.insert("config", problem);
            }
        }
        drop(state);
        if done.is_ok() {
            self.save_removals();
            self.keep_good();
            self.note_exposed();
            self.look(seen);
        }
        done
    }

    fn take(&mut self, read: Result<Config, SourceError>, hops: &Hops, seen: &Seen) -> Result<(), String> {
        let start = Instant::now();
        let config = read.map_err(|e| e.to_string())?;
        if let Some(broken) = &config.broken {
            return Err(broken.to_string());
        }
        let before = std::mem::replace(&mut self.config.services, config.services.clone());
        let snat = std::mem::replace(&mut self.config.snat, config.snat.clone());
        let rules = std::mem::replace(&mut self.config.interfaces, config.interfaces.clone());
        let (blind, unreachable) = (self.blind, std::mem::take(&mut self.unreachable));
        self.blind = false;
        self.unreachable = lost(&config.services, hops);
        if config.services.iter().any(|s| s.spec.as_ref().is_ok_and(|spec| spec.is_direct()))
            && !has_direct(&self.shared.read().desired)
        {
            // Before the first packet that XDP leaves to TC.
            self.attach_for(seen, true);
        }
        // Without a cluster, nothing is any cluster's.
        let left = config.kubernetes.is_none() && self.config.kubernetes.is_some();
        let cluster = left.then(|| std::mem::take(&mut self.cluster));
        let entered = match config.snat == snat && !left {
            true => self.follow(&before),
            false => self.follow_all(seen),
        };
        if let Err(stopped) = entered {
            self.cluster = cluster.unwrap_or_else(|| std::mem::take(&mut self.cluster));
            (self.config.services, self.config.snat, self.config.interfaces) = (before, snat, rules);
            (self.blind, self.unreachable) = (blind, unreachable);
            return Err(stopped.to_string());
        }
        let took = start.elapsed();
        self.shared.reconcile.observe(took.as_secs_f64());
        tracing::info!(?took, "reconciled");
        self.note_settled(&config);
        self.config.head = config.head;
        self.shared.exec_checks.store(config.exec_checks, Ordering::Relaxed);
        self.follow_other(config.kubernetes);
        self.shared.connection_log.set(config.log);
        self.shared.write().problems.remove("ways");
        Ok(())
    }

    /// Looks at the services that have changed, and at all if they may concern others.
    fn follow(&mut self, before: &Arc<Vec<FileService>>) -> Result<(), Stopped> {
        let now = self.config.services.clone();
        if let Some((changed, removed)) = few(before, &now) {
            let mut notes = Vec::new();
            let sources = self.sources();
            // Who goes from the file may be another's from now on.
            let others = |name: &&str| {
                sources.runtime.services.contains_key(*name) || sources.cluster.contains_key(*name)
            };
            let (left, removed): (Vec<&str>, Vec<&str>) = removed.into_iter().partition(others);
            let of = |name: &&str| sources.one(name, &mut notes);
            let declared: Vec<Declared> = changed.iter().chain(&left).filter_map(of).collect();
            if notes.is_empty()
                && let Some(entered) = self.enter_few(declared, &removed)
            {
                return entered;
            }
        }
        self.settle()
    }

    /// Looks at these services alone. `None`: they concern others, so that all have to be looked at.
    pub(super) fn enter_few(
        &mut self,
        mut changed: Vec<Declared>,
        removed: &[&str],
    ) -> Option<Result<(), Stopped>> {
        if self.is_leaving() {
            return Some(Ok(()));
        }
        changed.iter_mut().for_each(|declared| self.mark(declared));
        match self.enter(Input::Some { changed: &changed, removed }, |_, _| Ok(())) {
            Err(Stopped::Refused(Refused::NeedsAll | Refused::Exhausted(_))) => None,
            entered => Some(entered),
        }
    }

    fn follow_all(&mut self, seen: &Seen) -> Result<(), Stopped> {
        let (all, own, sources) = (self.declared(), seen.own(), self.sources_due(seen));
        self.enter(Input::Declared { all: &all, own: &own, sources: Some(&sources) }, |_, _| Ok(()))
    }

    /// Follows a cluster as the file has it now.
    fn follow_other(&mut self, kubernetes: Option<Arc<KubernetesSpec>>) {
        self.config.kubernetes.clone_from(&kubernetes);
        self.shared.kubernetes.send_if_modified(|followed| {
            let new = *followed != kubernetes;
            *followed = kubernetes;
            new
        });
    }

    /// Where the agent listens and keeps things is settled when it starts; says so of what has changed since.
    fn note_settled(&self, new: &Config) {
        let old = &self.config;
        let changed = [
            ("agent.api_socket", old.api_socket != new.api_socket),
            ("agent.metrics_listen", old.metrics_listen != new.metrics_listen),
            ("agent.ui", old.ui != new.ui),
            ("agent.pin_dir", old.pin_dir != new.pin_dir),
            ("agent.state_file", old.state_file != new.state_file),
            ("sockets", old.sockets != new.sockets),
            ("role = \"pod\" beside sockets.scope = \"all\"", sockets::whose(old) != sockets::whose(new)),
            ("agent.hash_seed", old.hash_seed != new.hash_seed),
            ("cluster", old.cluster != new.cluster),
            ("conntrack.max_flows", old.max_flows != new.max_flows),
        ];
        for (key, _) in changed.into_iter().filter(|(_, changed)| *changed) {
            tracing::warn!("{key} has changed in the file; that takes effect when the agent is restarted");
        }
    }
}

/// Services whose backends can't be reached as they are to be.
fn lost(services: &[FileService], hops: &Hops) -> BTreeMap<String, (Arc<ServiceSpec>, String)> {
    let of = |service: &FileService| {
        let spec = service.spec.as_ref().ok().filter(|spec| spec.is_direct())?;
        let error = hops.check(spec).err()?;
        Some((service.name.clone(), (spec.clone(), error.to_string())))
    };
    services.iter().filter_map(of).collect()
}

/// Names of the services that have changed, and of those that are gone, if they are few and no name is there twice.
fn few<'a>(before: &'a [FileService], now: &'a [FileService]) -> Option<(Vec<&'a str>, Vec<&'a str>)> {
    let mut old: HashMap<&str, &Arc<str>> = HashMap::with_capacity(before.len());
    for service in before {
        if old.insert(&service.name, &service.text).is_some() {
            return None;
        }
    }
    let (mut changed, mut seen) = (Vec::new(), HashSet::new());
    for service in now {
        let same = old.remove(service.name.as_str()).is_some_and(|text| Arc::ptr_eq(text, &service.text));
        if same {
            continue;
        }
        if changed.len() == FEW || !seen.insert(service.name.as_str()) {
            return None;
        }
        changed.push(service.name.as_str());
    }
    (old.len() <= FEW).then(|| (changed, old.into_keys().collect()))
}
