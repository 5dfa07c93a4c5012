//! Whose each backend is, and what its service says of its connections: as of one moment, for walks over the tables.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use lb_common::{
    abi::{BLOCK_SLOTS, BackendId, ServiceId},
    expiry::Timeouts,
};

use crate::{model::Desired, reconcile::Actual};

/// Nobody's.
const NOBODY: ServiceId = ServiceId::MAX;

/// See the module.
#[derive(Debug, Default)]
pub struct Directory {
    /// Services by backend id.
    services: Vec<ServiceId>,
    names: HashMap<ServiceId, Arc<str>>,
    /// Hosts whose addresses backends are.
    hosts: HashMap<BackendId, Arc<str>>,
    /// Timeouts of services that have their own.
    timeouts: HashMap<ServiceId, Timeouts>,
    /// Backends that are no longer declared.
    pub retired: HashSet<BackendId>,
    /// Services that are no longer declared: new connections aren't ours.
    handed: HashSet<ServiceId>,
    /// Is there anything that isn't declared any more?
    pub leftovers: bool,
}

impl Directory {
    /// As of now.
    pub fn new(desired: &Desired, actual: &Actual) -> Self {
        let mut directory = Self::default();
        for (id, backend) in actual.backends() {
            let at = id.0 as usize;
            if directory.services.len() <= at {
                directory.services.resize(at + 1, NOBODY);
            }
            directory.services[at] = backend.service;
            if backend.is_retired() {
                directory.retired.insert(id);
            }
        }
        for (id, service) in actual.services() {
            directory.names.insert(*id, service.name.as_str().into());
            let spec = desired.services().get(&service.name);
            if let Some(spec) = spec.filter(|spec| !spec.hosts.is_empty()) {
                let host = |name: &String| spec.backends.get(name)?.host.clone();
                let own = service.backends.iter().filter_map(|(name, id)| Some((*id, host(name)?)));
                directory.hosts.extend(own);
            }
            match spec {
                None => {
                    directory.leftovers = true;
                    directory.handed.insert(*id);
                }
                Some(spec) if spec.timeouts != Default::default() => {
                    directory.timeouts.insert(*id, spec.timeouts.limits());
                }
                Some(_) => {}
            }
        }
        directory.leftovers |= !directory.retired.is_empty();
        directory
    }

    /// Blocks of backends in use: up to the last one.
    pub fn blocks(&self) -> u32 {
        self.services.len().div_ceil(BLOCK_SLOTS) as u32
    }

    /// The service of a backend.
    pub fn service(&self, backend: BackendId) -> Option<ServiceId> {
        self.services.get(backend.0 as usize).copied().filter(|service| *service != NOBODY)
    }

    /// Is the service of a backend no longer ours?
    pub fn is_handed(&self, service: Option<ServiceId>) -> bool {
        service.is_some_and(|service| self.handed.contains(&service))
    }

    /// Its name; empty: nobody's.
    pub fn name(&self, backend: BackendId) -> &str {
        self.service(backend).and_then(|id| self.names.get(&id)).map_or("", AsRef::as_ref)
    }

    /// The same, and the host that the backend is an address of, if it is declared by one: to be kept for longer than all of this.
    pub fn owner(&self, backend: BackendId) -> (Arc<str>, Option<Arc<str>>) {
        let name = self.service(backend).and_then(|id| self.names.get(&id)).cloned();
        (name.unwrap_or_default(), self.hosts.get(&backend).cloned())
    }

    /// A service's name.
    pub fn name_of(&self, service: ServiceId) -> Option<&str> {
        self.names.get(&service).map(AsRef::as_ref)
    }

    /// Timeouts of a service's connections.
    pub fn timeouts(&self, service: Option<ServiceId>) -> &Timeouts {
        const DEFAULT: Timeouts = Timeouts::DEFAULT;
        service.and_then(|id| self.timeouts.get(&id)).unwrap_or(&DEFAULT)
    }
}
