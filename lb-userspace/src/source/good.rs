//! The last good version of the config file, kept beside the state file: what each service said when it last came into force. An agent that
//! finds a broken file starts from it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Config, FileService, SourceError, config, runtime::replace};
use crate::model::ServiceSpec;

/// The last line. Without it some of the services may be missing, and nothing else would show it.
const END: &str = "# This is all of it.\n";

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Good {
    head: Arc<str>,
    services: BTreeMap<String, FileService>,
}

impl Good {
    /// Where it is kept.
    pub fn path(state_file: &Path) -> PathBuf {
        state_file.with_file_name("last-good.toml")
    }

    /// Reads it, as a whole config. `None`: there is none, or none that can be read.
    pub fn load(path: &Path) -> Option<Config> {
        let text = std::fs::read_to_string(path).ok().filter(|text| text.ends_with(END))?;
        config::read(&text, &path.display().to_string(), &[]).ok().filter(|config| config.broken.is_none())
    }

    /// Of a config that was good as a whole.
    pub fn of(config: &Config) -> Self {
        let mut good = Self::default();
        good.follow(config, |_| true);
        good
    }

    /// What a service said last.
    pub fn spec(&self, name: &str) -> Option<&Arc<ServiceSpec>> {
        self.services.get(name)?.spec.as_ref().ok()
    }

    /// What a service must have said, as the maps tell. It isn't written.
    pub fn put(&mut self, spec: ServiceSpec) {
        self.services.entry(spec.name.clone()).or_insert_with(|| FileService::unwritten(spec));
    }

    /// A config has come into force; `accepted`: a service of it as it is declared now.
    pub fn follow(&mut self, config: &Config, accepted: impl Fn(&str) -> bool) {
        let mut before = std::mem::take(&mut self.services);
        self.head = config.head.clone();
        for service in config.services.iter() {
            let name = &service.name;
            if self.services.contains_key(name) {
                continue;
            }
            let now = service.spec.is_ok() && accepted(name);
            let good = if now { Some(service.clone()) } else { before.remove(name) };
            self.services.extend(good.map(|good| (name.clone(), good)));
        }
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// The disk refused; the old file is untouched.
    pub fn save(&self, path: &Path) -> Result<(), SourceError> {
        let mut text = String::from("# What was last in force of the config file. Written by the agent.\n");
        for line in self.head.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(text, "{line}");
        }
        for service in self.services.values().filter(|service| !service.text.is_empty()) {
            let _ = writeln!(text, "{}", service.text.trim_end());
        }
        text.push_str(END);
        replace(path, text.as_bytes())
            .map_err(|error| SourceError::SaveGood { path: path.display().to_string(), error })
    }
}

#[cfg(test)]
mod tests;
