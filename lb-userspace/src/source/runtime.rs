//! What the command line said: services it added, backends it added to any service, drains of any backend. Kept in a file
//! that is replaced whole.

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{SourceError, decl::ServiceDecl};

/// Version of the file's form.
const VERSION: u32 = 1;

/// The state. What is in it was valid when it was added; it is checked again when merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    version: u32,
    /// Services by name.
    pub services: BTreeMap<String, ServiceDecl>,
    /// Backends by service and name.
    pub backends: BTreeMap<String, BTreeMap<String, RuntimeBackend>>,
    /// Drains by service and backend name.
    pub drains: BTreeMap<String, BTreeMap<String, RuntimeDrain>>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            version: VERSION,
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            drains: BTreeMap::new(),
        }
    }
}

/// A backend that the command line added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeBackend {
    /// Weight.
    pub weight: u16,
    /// Limit.
    pub max_connections: Option<u32>,
    /// One of this node's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
}

/// A drain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeDrain {
    /// Seconds since the Unix epoch.
    pub since: f64,
    /// Seconds it may take.
    pub deadline: Option<u64>,
}

impl Runtime {
    /// Reads the state file. A missing one is an empty state. One that can't be understood is kept aside under another name, so
    /// that the agent starts and nothing is lost; the sentence says where.
    ///
    /// # Errors
    /// It is there and can't be read or moved.
    pub fn load(path: &Path) -> Result<(Self, Option<String>), SourceError> {
        let failed = |error| SourceError::Read { path: path.display().to_string(), error };
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Self::default(), None)),
            Err(e) => return Err(failed(e)),
        };
        let why = match serde_json::from_slice::<Self>(&text) {
            Ok(state) if state.version == VERSION => return Ok((state, None)),
            Ok(state) => format!("version {} is not {VERSION}", state.version),
            Err(e) => e.to_string(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".corrupt-{now}"));
        std::fs::rename(path, &aside).map_err(failed)?;
        let aside = Path::new(&aside).display();
        Ok((
            Self::default(),
            Some(format!(
                "state file {} can't be used ({why}); it is kept as {aside}, and what the command line added is gone: \
                 repair that file and put it back, or add it again",
                path.display()
            )),
        ))
    }

    /// Replaces the state file: written aside, synced, renamed, the directory synced.
    ///
    /// # Errors
    /// The disk refused; the old file is untouched.
    pub fn save(&self, path: &Path) -> Result<(), SourceError> {
        self.replace(path).map_err(|error| SourceError::Save { path: path.display().to_string(), error })
    }

    fn replace(&self, path: &Path) -> std::io::Result<()> {
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let mut file = std::fs::File::create(&aside)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        std::fs::File::open(dir)?.sync_all()
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
