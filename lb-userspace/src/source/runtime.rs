//! What the command line said: services it added, backends it added to any service, drains of any backend. Kept in a file
//! that is replaced whole.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::model::{ModelError, host::parse_host, readable::readable};

mod drain;
pub mod removals;

pub use drain::{LONGEST, RuntimeDrain};

use self::{drain::Now, removals::Removals};
use super::{
    SourceError,
    decl::{BackendDecl, ServiceDecl},
};

/// Version of the file's form.
const VERSION: u32 = 1;

/// The state. What is in it was valid when it was added; it is checked again when merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    version: u32,
    /// Services by name, without their backends.
    pub services: BTreeMap<String, ServiceDecl>,
    /// Backends by service and name, of services that any source declares.
    pub backends: BTreeMap<String, BTreeMap<String, BackendDecl>>,
    /// Drains by service and backend name.
    pub drains: BTreeMap<String, BTreeMap<String, RuntimeDrain>>,
    /// Backends that are no longer declared and whose connections have a deadline, by service and name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removals: Removals,
    /// Since when nothing is to be balanced, and how long what is open may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detached: Option<RuntimeDrain>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            version: VERSION,
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            drains: BTreeMap::new(),
            removals: Removals::new(),
            detached: None,
        }
    }
}

/// Replaces a file: written aside, synced, renamed, the directory synced. Only its owner may read it: what is declared may
/// have passwords in it.
///
/// # Errors
/// The disk refused; the old file is untouched.
pub(super) fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    // Of an agent that ended while it wrote.
    let _ = std::fs::remove_file(&aside);
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    // Half of one would take room that a full disk hasn't.
    written().inspect_err(|_| drop(std::fs::remove_file(&aside)))?;
    std::fs::File::open(dir)?.sync_all()
}

/// Reads a file of JSON that says which `version` of its form it has. `None`: there is none. `Err`: it is there and can't be used, and why.
pub(super) fn read<T: DeserializeOwned>(path: &Path, version: u32) -> Result<Option<T>, String> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    #[derive(Deserialize)]
    struct Form {
        version: u32,
    }
    match serde_json::from_slice::<Form>(&text) {
        Ok(form) if form.version != version => Err(format!(
            "version {} is not {version}; another version of this program wrote it",
            form.version
        )),
        _ => serde_json::from_slice(&text).map(Some).map_err(|e| readable(&e.to_string())),
    }
}

impl Runtime {
    /// Reads the state file. A missing one is an empty state. `Err`: it is there and can't be used, and why.
    pub fn load(path: &Path) -> Result<Self, String> {
        let Some(mut state) = read::<Self>(path, VERSION)? else { return Ok(Self::default()) };
        let now = Now::read();
        let drains = state.drains.values_mut().flat_map(BTreeMap::values_mut);
        let removals = state.removals.values_mut().flat_map(BTreeMap::values_mut);
        drains.chain(removals).chain(&mut state.detached).for_each(|drain| drain.adopt(&now));
        Ok(state)
    }

    /// Puts a state in the place of a file that can't be used (`why`), of which a copy is kept. The sentence says where.
    ///
    /// # Errors
    /// The disk refused; the file is as it was.
    pub fn put_aside(&self, path: &Path, why: &str) -> Result<String, SourceError> {
        let failed = |error| SourceError::Save { path: path.display().to_string(), error };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".corrupt-{now}"));
        let aside = Path::new(&aside);
        // First a copy, then what replaces it: should the agent die between the two, the next one finds what this one found.
        replace(aside, &std::fs::read(path).map_err(failed)?).map_err(failed)?;
        self.save(path)?;
        Ok(format!(
            "state file {} can't be used ({why}); it is kept as {}. What is in force was taken from the kernel instead: \
             drains without their deadlines, and what drains with weight 1; check \"flowpin service list\", or stop the agent, repair that file and put it back",
            path.display(),
            aside.display()
        ))
    }

    /// Replaces the state file.
    ///
    /// # Errors
    /// The disk refused; the old file is untouched.
    pub fn save(&self, path: &Path) -> Result<(), SourceError> {
        let written = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            replace(path, &text)
        });
        written.map_err(|error| SourceError::Save { path: path.display().to_string(), error })
    }

    /// Was such a backend added to a service, whether it is in force or not?
    pub fn has_backend(&self, service: &str, backend: &str) -> bool {
        self.backends.get(service).is_some_and(|of| of.contains_key(backend))
    }

    /// What is declared of a service, its backends with it.
    pub fn declared(&self, service: &str) -> Option<ServiceDecl> {
        let decl = self.services.get(service)?.clone();
        let added = self.backends.get(service).into_iter().flatten();
        let backends =
            decl.backends.iter().cloned().chain(added.map(|(name, decl)| decl.named(name))).collect();
        Some(ServiceDecl { backends, ..decl })
    }

    /// Declares a service anew. Backends that were added to one of that name, and wait for it, are its own.
    ///
    /// # Errors
    /// A backend can't be read.
    pub fn add(&mut self, service: &str, mut decl: ServiceDecl) -> Result<(), ModelError> {
        let given = decl.backends.iter().map(|backend| backend.key(service));
        let given = given.collect::<Result<Vec<String>, ModelError>>()?;
        let waiting =
            self.backends.get(service).into_iter().flatten().filter(|(name, _)| !given.contains(name));
        decl.backends.extend(waiting.map(|(name, decl)| decl.named(name)));
        self.declare(service, decl)
    }

    /// Declares a service, its backends with it, in the place of what was declared of it.
    ///
    /// # Errors
    /// A backend can't be read.
    pub fn declare(&mut self, service: &str, decl: ServiceDecl) -> Result<(), ModelError> {
        let mut backends = BTreeMap::new();
        for backend in &decl.backends {
            let name = backend.key(service)?;
            if backends.insert(name.clone(), backend.named("")).is_some() {
                return Err(ModelError::DuplicateBackend { service: service.into(), backend: name });
            }
        }
        if let Some(drains) = self.drains.get_mut(service) {
            let hosts = backends.keys().any(|name| parse_host(name).is_some());
            // An address of a host's isn't declared by itself.
            drains.retain(|backend, _| hosts || backends.contains_key(backend));
        }
        self.drains.retain(|_, m| !m.is_empty());
        self.backends.insert(service.into(), backends);
        self.backends.retain(|_, m| !m.is_empty());
        let decl = ServiceDecl { name: String::new(), backends: Vec::new(), ..decl };
        self.services.insert(service.into(), decl);
        Ok(())
    }

    /// Forgets what belongs to a backend.
    pub fn forget_backend(&mut self, service: &str, backend: &str) {
        if let Some(backends) = self.backends.get_mut(service) {
            backends.remove(backend);
        }
        if let Some(drains) = self.drains.get_mut(service) {
            drains.remove(backend);
        }
        self.backends.retain(|_, m| !m.is_empty());
        self.drains.retain(|_, m| !m.is_empty());
    }

    /// Forgets what belongs to a service.
    pub fn forget_service(&mut self, service: &str) {
        self.services.remove(service);
        self.backends.remove(service);
        self.drains.remove(service);
    }
}

#[cfg(test)]
mod tests;
