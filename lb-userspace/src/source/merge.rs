//! The sources side by side, a service at a time. The file wins where both declare a name; what can't be is named, not guessed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Config, FileService, Good, Names, Runtime, names::NO_NAMES};
use crate::{
    model::{AdminState, Desired, Member, ModelError, Origin, OwnAddresses, ServiceSpec, host::parse_host},
    reconcile::{Declared, Rejection, settle::settle},
};

/// All that is declared, and what of the file was good last.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// What the file says now.
    pub file: &'a [FileService],
    /// Its last good version.
    pub good: &'a Good,
    /// What the command line said.
    pub runtime: &'a Runtime,
    /// What a cluster says.
    pub cluster: &'a Cluster,
    /// What is known of hosts.
    pub names: &'a Names,
}

/// Services of a cluster, by name.
pub type Cluster = BTreeMap<String, Arc<ServiceSpec>>;

/// Those of none.
pub const NO_CLUSTER: &Cluster = &Cluster::new();

impl<'a> Sources<'a> {
    /// Without a cluster, and without hosts whose addresses are known.
    pub fn local(file: &'a [FileService], good: &'a Good, runtime: &'a Runtime) -> Self {
        Self { file, good, runtime, cluster: NO_CLUSTER, names: NO_NAMES }
    }
}

impl Sources<'_> {
    /// All services: those of the file in its order, then the command line's by name, then a cluster's. Sentences on what was set aside go to `notes`.
    pub fn all(&self, notes: &mut Vec<String>) -> Vec<Declared> {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut declared: Vec<Declared> = Vec::with_capacity(self.file.len() + self.runtime.services.len());
        for service in self.file {
            match seen.get(service.name.as_str()) {
                None => {
                    seen.insert(&service.name, declared.len());
                    declared.push(self.of_file(service, notes));
                }
                // Which of them is meant? What was good goes on, or else the first.
                Some(first) => twice(&mut declared[*first]),
            }
        }
        let known =
            |name: &String| self.runtime.services.contains_key(name) || self.cluster.contains_key(name);
        for name in
            self.runtime.backends.keys().filter(|name| !known(name) && !seen.contains_key(name.as_str()))
        {
            notes.push(format!("service \"{name}\" is gone; the backends added to it wait for its return"));
        }
        for name in self.runtime.services.keys().filter(|name| !seen.contains_key(name.as_str())) {
            declared.extend(self.added(name, notes));
        }
        for (name, spec) in self.cluster {
            if seen.contains_key(name.as_str()) || self.runtime.services.contains_key(name) {
                notes.push(format!(
                    "service \"{name}\" of Kubernetes is declared here too, which wins over it"
                ));
                continue;
            }
            declared.push(self.of_cluster(spec, notes));
        }
        declared
    }

    /// One service; `None`: nobody declares it.
    pub fn one(&self, name: &str, notes: &mut Vec<String>) -> Option<Declared> {
        let mut found = self.file.iter().filter(|service| service.name == name);
        let Some(first) = found.next() else {
            let cluster = || self.cluster.get(name).map(|spec| self.of_cluster(spec, &mut Vec::new()));
            return self.added(name, notes).or_else(cluster);
        };
        let mut declared = self.of_file(first, notes);
        if found.next().is_some() {
            twice(&mut declared);
        }
        Some(declared)
    }

    /// Names that the file declares.
    pub fn names(&self) -> BTreeSet<&str> {
        self.file.iter().map(|service| service.name.as_str()).collect()
    }

    /// Hosts that are declared, whether their services are in force or not.
    pub fn hosts(&self) -> BTreeSet<Arc<str>> {
        let file = self.file.iter().filter_map(|service| service.spec.as_ref().ok());
        let good = self.file.iter().filter_map(|service| self.good.spec(&service.name));
        let specs = file.chain(good).chain(self.cluster.values());
        let of_specs = specs.flat_map(|spec| spec.hosts.iter().map(|host| host.host.clone()));
        let declared = self.runtime.services.values().flat_map(|decl| &decl.backends);
        let added = self.runtime.backends.values().flat_map(BTreeMap::keys);
        let added = added.chain(declared.map(|decl| &decl.address));
        of_specs.chain(added.filter_map(|name| parse_host(name)).map(|(host, _)| host)).collect()
    }

    fn of_file(&self, service: &FileService, notes: &mut Vec<String>) -> Declared {
        let name = &service.name;
        if self.runtime.services.contains_key(name) {
            notes.push(format!(
                "service \"{name}\" is declared by the config file, which wins over what was added"
            ));
        }
        let mut aside = Vec::new();
        let good = self.good.spec(name).map(|good| self.with_added(good, &mut aside, notes));
        let spec = service.spec.clone().map(|spec| {
            aside.clear();
            self.with_added(&spec, &mut aside, notes)
        });
        Declared { name: name.clone(), origin: Origin::File, spec, good, aside }
    }

    fn added(&self, name: &str, notes: &mut Vec<String>) -> Option<Declared> {
        let added = self.runtime.services.get(name)?;
        let mut aside = Vec::new();
        let spec = added.spec(name, Origin::Cli).and_then(|spec| spec.validate().map(|()| Arc::new(spec)));
        let spec = spec.map(|spec| self.with_added(&spec, &mut aside, notes)).map_err(|e| e.to_string());
        Some(Declared { name: name.into(), origin: Origin::Cli, spec, good: None, aside })
    }

    fn of_cluster(&self, spec: &Arc<ServiceSpec>, notes: &mut Vec<String>) -> Declared {
        let mut aside = Vec::new();
        let spec = self.with_added(spec, &mut aside, notes);
        Declared { name: spec.name.clone(), origin: Origin::Kubernetes, spec: Ok(spec), good: None, aside }
    }

    /// A service with the backends and drains that the command line added to it. Backends that it can't have go to `aside`.
    fn with_added(
        &self,
        base: &Arc<ServiceSpec>,
        aside: &mut Vec<Rejection>,
        notes: &mut Vec<String>,
    ) -> Arc<ServiceSpec> {
        let name = &base.name;
        let (backends, drains) = (self.runtime.backends.get(name), self.runtime.drains.get(name));
        if backends.is_none() && drains.is_none() && base.hosts.is_empty() {
            return base.clone();
        }
        let mut spec = ServiceSpec::clone(base);
        for (backend, added) in backends.into_iter().flatten() {
            if spec.backends.contains_key(backend) || spec.host(backend).is_some() {
                let note = format!(
                    "backend {backend} of service \"{name}\" is declared by {}, which wins over what was added",
                    spec.origin
                );
                if !notes.contains(&note) {
                    notes.push(note);
                }
                continue;
            }
            let made = added.named(backend).member(name, Origin::Cli);
            let fits = made.and_then(|made| {
                match &made {
                    Member::Address(made) => spec.check_backend(made)?,
                    Member::Host(made) => spec.check_host(made)?,
                }
                check_room(&spec)?;
                spec.add_member(made)
            });
            if let Err(error) = fits {
                aside.push(Rejection {
                    service: name.clone(),
                    backend: Some(backend.clone()),
                    origin: Origin::Cli,
                    error: error.to_string(),
                    kept: false,
                    alone: true,
                    address_of: None,
                });
            }
        }
        self.names.enter(&mut spec, aside, notes);
        for (backend, drain) in drains.into_iter().flatten() {
            if let Some(backend) = spec.backends.get_mut(backend) {
                let (since, deadline) = drain.by_uptime();
                backend.admin = AdminState::Draining { since, deadline };
            }
        }
        Arc::new(spec)
    }
}

/// What a file would bring into force by itself, and what not.
pub fn alone(config: &Config) -> (Desired, Vec<Rejection>) {
    let (good, runtime) = (Good::default(), Runtime::default());
    let all = Sources::local(&config.services, &good, &runtime).all(&mut Vec::new());
    settle(&all, &Default::default(), &OwnAddresses::new(), |_| true)
}

/// Has a service room for another backend?
///
/// # Errors
/// It hasn't.
pub(super) fn check_room(spec: &ServiceSpec) -> Result<(), ModelError> {
    let count = spec.backends.len() + 1;
    if count > lb_common::abi::limits::MAX_BACKENDS_PER_SERVICE as usize {
        return Err(ModelError::TooManyBackends { service: spec.name.clone(), count });
    }
    Ok(())
}

/// A service is declared more than once.
fn twice(declared: &mut Declared) {
    let error = ModelError::DuplicateService { name: declared.name.clone() }.to_string();
    let first = std::mem::replace(&mut declared.spec, Err(error)).ok();
    declared.good = declared.good.take().or(first);
}

#[cfg(test)]
mod tests;
