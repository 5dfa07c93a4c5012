//! How an agent starts, whatever its sources say: from the config file or its last good version, from the state file or what the maps tell.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{Field, Owner, TABLES};
use crate::{
    agent::{seen::Seen, shared::Shared},
    datapath::{
        DatapathError, Maps, attach::Attachments, macs::Macs, pin::PinDir, roles::Roles, sockets::Hooks,
    },
    model::ServiceSpec,
    reconcile::{Ground as _, Input, transition},
    source::{
        Config, Good, Names, Runtime, SourceError, Sources, config, merge::NO_CLUSTER, recover,
        runtime::RuntimeDrain,
    },
};

/// What an agent starts from.
pub struct Loaded {
    /// The file, or what stands in for it.
    pub config: Config,
    /// What each service said when it was last good.
    good: Good,
    /// Why the file isn't used.
    problem: Option<String>,
    /// Nothing stands in for it.
    blind: bool,
}

/// Reads the config file. A broken one is replaced by its last good version, and without one by as much of it as can be read.
///
/// # Errors
/// There is no such file, and there was none.
pub fn load(path: Option<&Path>) -> Result<Loaded, SourceError> {
    let Some(path) = path else { return Ok(taken(config::load(None)?)) };
    let shown = path.display().to_string();
    let (text, read) = match config::text(path) {
        Ok(text) => {
            let read = config::read(&text, &shown, &[]);
            (text, read)
        }
        Err(error) => (String::new(), Err(error)),
    };
    let error = match &read {
        Ok(Config { broken: None, .. }) => return Ok(taken(read?)),
        Ok(Config { broken: Some(error), .. }) => error.to_string(),
        Err(error) => error.to_string(),
    };
    let mut defaults = config::parse("", "defaults")?;
    let state_file = match &read {
        Ok(config) => config.state_file.clone(),
        Err(_) => config::guess(&text, "state_file").map_or_else(|| defaults.state_file.clone(), Into::into),
    };
    let kept = Good::path(&state_file);
    if let Some(config) = Good::load(&kept) {
        let problem = format!(
            "{error}; the last good config is in force, {}: mend the file and send SIGHUP",
            kept.display()
        );
        return Ok(Loaded { good: Good::of(&config), config, problem: Some(problem), blind: false });
    }
    match read {
        Ok(mut config) => {
            config.broken = None;
            let problem = format!("{error}; what can be read of it is in force: mend it and send SIGHUP");
            Ok(Loaded { config, good: Good::default(), problem: Some(problem), blind: false })
        }
        Err(SourceError::Read { .. }) if text.is_empty() => read.map(taken),
        Err(_) => {
            // Whose maps these are is all that matters.
            let set = |value: &mut std::path::PathBuf, key: &str| {
                value.clone_from(&config::guess(&text, key).map_or_else(|| value.clone(), Into::into));
            };
            set(&mut defaults.api_socket, "api_socket");
            set(&mut defaults.pin_dir, "pin_dir");
            set(&mut defaults.state_file, "state_file");
            let listen = config::guess(&text, "metrics_listen").and_then(|text| text.parse().ok());
            defaults.metrics_listen = listen.unwrap_or(defaults.metrics_listen);
            defaults.ui = !text.lines().filter_map(|line| line.split_once('=')).any(switches_off);
            let problem = format!("{error}; what is live stays as it is: mend the file and send SIGHUP");
            Ok(Loaded { config: defaults, good: Good::default(), problem: Some(problem), blind: true })
        }
    }
}

/// Does a line of `[agent]`, which nothing else has, leave out the stats page?
fn switches_off((key, value): (&str, &str)) -> bool {
    key.trim() == "ui" && value.trim_start().starts_with("false")
}

/// A file that can be read, with what its services said before.
fn taken(config: Config) -> Loaded {
    let good = Good::load(&Good::path(&config.state_file)).map(|good| Good::of(&good)).unwrap_or_default();
    Loaded { config, good, problem: None, blind: false }
}

impl Owner {
    /// Reads back what the maps hold. Nothing is changed yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(shared: Arc<Shared>, loaded: Loaded, pins: &PinDir) -> Result<Self, DatapathError> {
        let Loaded { config, good, problem, blind } = loaded;
        shared.exec_checks.store(config.exec_checks, Ordering::Relaxed);
        let mut maps = Maps::open(pins)?;
        let mut destinations = shared.tables.destinations();
        destinations.extend(&config.snat.addresses);
        destinations.extend(maps.sources().current()?);
        let actual = maps.read_actual(destinations)?;
        {
            let mut state = shared.write();
            *state.actual_mut() = actual;
            if let Some(problem) = problem {
                tracing::error!("{problem}");
                state.problems.insert("config", problem);
            }
        }
        Ok(Self {
            config,
            runtime: Runtime::default(),
            good,
            cluster: super::ClusterSource::default(),
            names: Names::default(),
            unreachable: BTreeMap::new(),
            pending: BTreeMap::new(),
            leaving: None,
            maps,
            roles: Roles::open(pins)?,
            macs: Macs::open(pins)?,
            attachments: Attachments::new(pins),
            hooks: Hooks::new(pins),
            config_path: shared.config_path.clone(),
            blind,
            tables_due: Instant::now() + TABLES,
            shared,
        })
    }

    /// Brings everything that is declared into force, and attaches. What the kernel refuses is tried again.
    ///
    /// # Errors
    /// The node's addresses can't be had, or the maps of another build can't be taken over.
    pub fn start(&mut self, seen: &Seen, pins: &PinDir) -> Result<(), anyhow::Error> {
        let start = Instant::now();
        if let Err(e) = &seen.addresses {
            anyhow::bail!("{e}");
        }
        self.recover(seen);
        let (own, sources) = (seen.own(), self.sources_due(seen));
        let all = self.declared();
        let (old, step) = {
            let state = self.shared.read();
            let input = Input::Declared { all: &all, own: &own, sources: Some(&sources) };
            (state.known().clone(), transition(state.known(), state.actual(), input, start)?)
        };
        let removals = self.removals_after(&old.desired, &step.next.desired);
        let steps = step.plan.steps.len();
        let mut field = Field { maps: &mut self.maps, shared: &self.shared };
        // Forward in any case: behind there is nothing that was known.
        if let Err(e) = field.apply(step.plan) {
            let problem = format!("the kernel refused a change, retrying: {e}");
            tracing::error!("{problem}");
            self.shared.write().problems.insert("reconcile", problem);
        }
        self.commit(&old, step.next);
        self.note_removals(removals);
        self.shared.reconcile.observe(start.elapsed().as_secs_f64());
        tracing::info!(steps, took = ?start.elapsed(), "reconciled");
        self.attach_first(seen, pins)?;
        self.go_on_leaving();
        self.keep_good();
        self.note_exposed();
        Ok(())
    }

    /// Reads the state file. If it can't be used, what the command line said is taken from the maps; and so are services of the file of which
    /// nothing can be read.
    fn recover(&mut self, seen: &Seen) {
        let (own, path) = (seen.own(), self.config.state_file.clone());
        self.recover_names();
        let loaded = Runtime::load(&path);
        self.runtime = loaded.as_ref().cloned().unwrap_or_default();
        let state = self.shared.read();
        let sources = Sources { cluster: NO_CLUSTER, ..self.sources() };
        let all = sources.all(&mut Vec::new());
        let spec = |d: &crate::reconcile::Declared| -> Option<Arc<ServiceSpec>> {
            d.spec.as_ref().ok().or(d.good.as_ref()).cloned()
        };
        let known: Vec<Arc<ServiceSpec>> = all.iter().filter_map(spec).collect();
        let known = known.iter().map(|spec| (spec.name.as_str(), spec.as_ref())).collect();
        let mut found = recover::runtime(state.actual(), &own, &known, &RuntimeDrain::begin(None));
        drop(state);
        if let Some(kubernetes) = self.config.kubernetes.clone() {
            self.recover_cluster(&kubernetes, &own, &mut found);
        }
        let sources = Sources { cluster: NO_CLUSTER, ..self.sources() };
        // Services that the file has, or may have.
        let names = sources.names();
        let of_file = |name: &String| names.contains(name.as_str()) || self.blind && loaded.is_ok();
        let lost: Vec<String> = found.services.keys().filter(|name| of_file(name)).cloned().collect();
        let specs: Vec<ServiceSpec> = lost.iter().filter_map(|name| recover::spec(&found, name)).collect();
        let blind = self.blind;
        for spec in specs {
            found.services.remove(&spec.name);
            found.backends.remove(&spec.name);
            match blind {
                true => self.config.put(spec),
                false => self.good.put(spec),
            }
        }
        if let Err(why) = loaded {
            let kept = found.put_aside(&path, &why);
            let problem = kept.unwrap_or_else(|e| {
                format!("state file {} can't be used ({why}), and can't be replaced: {e}", path.display())
            });
            tracing::error!("{problem}");
            self.runtime = found;
            self.shared.write().problems.insert("state file", problem);
        }
    }

    /// Warns of passwords in a file that all users of the node can read.
    pub(super) fn note_exposed(&self) {
        const KEY: &str = "passwords";
        let exposed = self.config_path.as_ref().and_then(|path| config::exposed(path, &self.config));
        let mut state = self.shared.write();
        match exposed {
            Some(problem) => {
                tracing::warn!("{problem}");
                state.problems.insert(KEY, problem);
            }
            None => drop(state.problems.remove(KEY)),
        }
    }

    /// Notes what has come into force of the file, for an agent that finds a broken one.
    pub(super) fn keep_good(&mut self) {
        let rejected = self.shared.read().rejected.clone();
        let rejected: HashSet<&str> =
            rejected.iter().filter(|r| r.backend.is_none()).map(|r| r.service.as_str()).collect();
        self.good.follow(&self.config, |name| !rejected.contains(name));
        if self.shared.read().problems.contains_key("config") || self.config_path.is_none() {
            return;
        }
        self.shared.good.put((Good::path(&self.config.state_file), self.good.clone()));
        // Nobody waits for the disk.
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || shared.save_good());
    }
}
