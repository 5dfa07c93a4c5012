//! What a cluster says, beside file and command line. Nothing of it is taken away before its API server has told of all
//! there is: until then it is what the maps hold, and what the last list has besides.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{Owner, Stopped, places::has_direct, reload::FEW};
use crate::{
    agent::seen::Seen,
    model::{Origin, OwnAddresses, ServiceSpec},
    reconcile::Declared,
    source::{
        KubernetesSpec, Runtime,
        kubernetes::{feed::Change, saved},
        merge::Cluster,
        recover,
    },
};

/// What a cluster says.
#[derive(Default)]
pub(super) struct ClusterSource {
    /// Its services.
    pub specs: Cluster,
    /// Those of which only the last list tells.
    listed: BTreeSet<String>,
    /// The API server has told of all there is.
    synced: bool,
    /// Something of it isn't in force, since the kernel refused.
    due: bool,
}

/// Is it the name of a Kubernetes Service's port: `namespace/name`, `namespace/name:port`?
fn is_of_cluster(name: &str) -> bool {
    name.split(':').next().is_some_and(|service| service.split('/').count() == 2)
}

impl ClusterSource {
    /// Takes what has changed. Returns the names of services that it may be another matter with now.
    fn take(&mut self, change: &Change) -> BTreeSet<String> {
        let delta = &change.delta;
        let mut concerned = BTreeSet::new();
        if !change.synced {
            if self.synced {
                // A feed that has begun again: its list is older than what was told since.
                return concerned;
            }
            for spec in &delta.changed {
                // What is known of the maps, or of the server, is newer than the list.
                if self.listed.contains(&spec.name) || !self.specs.contains_key(&spec.name) {
                    self.listed.insert(spec.name.clone());
                    self.put(spec, &mut concerned);
                }
            }
            return concerned;
        }
        self.synced = true;
        if delta.first {
            let all: BTreeSet<&str> = delta.changed.iter().map(|spec| spec.name.as_str()).collect();
            concerned.extend(self.specs.keys().filter(|name| !all.contains(name.as_str())).cloned());
        }
        concerned.extend(delta.removed.iter().cloned());
        for name in &concerned {
            self.specs.remove(name);
            self.listed.remove(name);
        }
        for spec in &delta.changed {
            self.listed.remove(&spec.name);
            self.put(spec, &mut concerned);
        }
        concerned
    }

    fn put(&mut self, spec: &Arc<ServiceSpec>, concerned: &mut BTreeSet<String>) {
        let before = self.specs.get(&spec.name);
        if before.is_some_and(|before| before == spec) {
            return;
        }
        self.specs.insert(spec.name.clone(), spec.clone());
        concerned.insert(spec.name.clone());
    }
}

impl Owner {
    /// Takes what has changed of the cluster's Services. True: where programs are attached has to be looked at again.
    ///
    /// # Errors
    /// The kernel refuses; it is tried again by [`settle_cluster`](Self::settle_cluster).
    pub fn follow_cluster(&mut self, change: &Change, seen: Option<&Seen>) -> Result<bool, String> {
        let start = Instant::now();
        let concerned = self.cluster.take(change);
        if concerned.is_empty() && !self.cluster.due {
            return Ok(false);
        }
        let before = self.needs_of_interfaces();
        if let Some(seen) = seen
            && !before[0]
        {
            // Before the first packet that XDP leaves to TC.
            self.attach_for(seen, true);
        }
        self.cluster.due = true;
        self.enter_cluster(&concerned).map_err(|stopped| stopped.to_string())?;
        self.cluster.due = false;
        self.shared.reconcile.observe(start.elapsed().as_secs_f64());
        Ok(before != self.needs_of_interfaces() || seen.is_some())
    }

    /// Brings into force what the kernel refused before.
    ///
    /// # Errors
    /// It still does.
    pub fn settle_cluster(&mut self) -> Result<(), String> {
        if self.cluster.due {
            self.settle().map_err(|stopped| stopped.to_string())?;
            self.cluster.due = false;
        }
        Ok(())
    }

    fn needs_of_interfaces(&self) -> [bool; 2] {
        let state = self.shared.read();
        [has_direct(&state.desired), self.sends_as_the_node(&state)]
    }

    fn enter_cluster(&mut self, concerned: &BTreeSet<String>) -> Result<(), Stopped> {
        // What waits since the kernel refused it may be of others.
        if concerned.len() <= FEW {
            let sources = self.sources();
            let mut changed: Vec<Declared> = Vec::with_capacity(concerned.len());
            let mut removed: Vec<&str> = Vec::new();
            for name in concerned {
                match sources.one(name, &mut Vec::new()) {
                    Some(declared) => changed.push(declared),
                    None => removed.push(name),
                }
            }
            if let Some(entered) = self.enter_few(changed, &removed) {
                return entered;
            }
        }
        self.settle()
    }

    /// The last version of a cluster's service that came into force.
    pub(super) fn last_of_cluster(&self, declared: &Declared) -> Option<Arc<ServiceSpec>> {
        let now = declared.spec.as_ref().ok()?;
        let state = self.shared.read();
        let before = state.desired.services().get(&declared.name)?;
        (before.origin == Origin::Kubernetes && before != now).then(|| before.clone())
    }

    /// Takes from what the maps tell the services that are the cluster's: they go on as they are. What isn't in maps is
    /// as the last list has it.
    pub(super) fn recover_cluster(&mut self, spec: &KubernetesSpec, own: &OwnAddresses, found: &mut Runtime) {
        let names: Vec<String> = found.services.keys().filter(|name| is_of_cluster(name)).cloned().collect();
        if names.is_empty() {
            return;
        }
        let saved = saved::path(&self.config.state_file);
        let listed: BTreeMap<String, Arc<ServiceSpec>> = match spec.node() {
            Ok(node) => saved::specs(&saved, &node, &spec.options, own).unwrap_or_else(|e| {
                tracing::error!("the last list {} can't be used: {e}", saved.display());
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        let state = self.shared.read();
        for name in names {
            let Some(mut spec) = recover::of_cluster(found, &name, state.actual()) else { continue };
            if let Some(listed) = listed.get(&name) {
                spec.timeouts = listed.timeouts;
                spec.slow_start = listed.slow_start;
                spec.policies = listed.policies;
            }
            self.cluster.specs.insert(name.clone(), Arc::new(spec));
            found.services.remove(&name);
            found.backends.remove(&name);
            found.drains.remove(&name);
        }
        tracing::info!(services = self.cluster.specs.len(), "Kubernetes Services as the maps have them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kubernetes::Delta;

    fn spec(name: &str, slow: Option<u64>) -> Arc<ServiceSpec> {
        let mut spec = ServiceSpec::new(name, Vec::new(), Origin::Kubernetes);
        spec.slow_start = slow.map(std::time::Duration::from_secs);
        Arc::new(spec)
    }

    fn change(synced: bool, first: bool, changed: &[Arc<ServiceSpec>], removed: &[&str]) -> Change {
        let removed = removed.iter().map(ToString::to_string).collect();
        let delta = Delta { first, changed: changed.to_vec(), removed, triggers: Vec::new() };
        Change { delta, synced, ..Change::default() }
    }

    #[test]
    fn only_a_server_that_has_told_all_takes_away() {
        let mut source = ClusterSource::default();
        for name in ["d/live", "d/gone"] {
            source.specs.insert(name.into(), spec(name, None));
        }
        let names = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>();
        // The last list: older than the maps, and all that is known of what isn't there.
        let listed = [spec("d/live", Some(9)), spec("d/old", None)];
        assert_eq!(names(source.take(&change(false, true, &listed, &["d/gone"]))), ["d/old"]);
        assert_eq!(source.specs["d/live"].slow_start, None);
        assert!(source.specs.contains_key("d/gone"));
        assert_eq!(names(source.take(&change(false, false, &[spec("d/old", Some(3))], &[]))), ["d/old"]);
        // The server: all of it.
        let all = [spec("d/live", Some(5)), spec("d/new", None)];
        assert_eq!(
            names(source.take(&change(true, true, &all, &[]))),
            ["d/gone", "d/live", "d/new", "d/old"]
        );
        assert_eq!(source.specs.keys().collect::<Vec<_>>(), ["d/live", "d/new"]);
        // A feed that begins again, without a server: what the last one told is newer.
        assert_eq!(names(source.take(&change(false, true, &listed[..1], &[]))), Vec::<String>::new());
        assert_eq!(names(source.take(&change(true, true, &all, &[]))), Vec::<String>::new());
        assert_eq!(names(source.take(&change(true, false, &[], &["d/new"]))), ["d/new"]);
    }

    #[test]
    fn names() {
        for (name, is) in [("d/a", true), ("d/a:http", true), ("a", false), ("a:b", false), ("a/b/c", false)]
        {
            assert_eq!(is_of_cluster(name), is, "{name}");
        }
    }
}
