//! What follows from what is known of the cluster: services of ours by Service, and what has changed of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use super::{
    cache::Cache,
    claims::Claims,
    explain::{self, Question},
    note::Note,
    record::Service,
    translate::{Around, HealthPort, Input, Options, Translated, spots, translate},
};
use crate::{
    api::types::EndpointsView,
    model::{OwnAddresses, ServiceSpec},
};

/// What is kept of a Service's translation.
#[derive(Debug, Default)]
struct Kept {
    specs: Vec<Arc<ServiceSpec>>,
    notes: Vec<Note>,
    health: Option<HealthPort>,
    without_local: [usize; 2],
}

/// See the module.
#[derive(Debug)]
pub struct State {
    /// What is known.
    pub cache: Cache,
    options: Options,
    own: OwnAddresses,
    claims: Claims,
    kept: HashMap<Arc<str>, Kept>,
    /// Since when endpoints with a deadline are going away, by Service.
    going: HashMap<Arc<str>, HashMap<SocketAddr, Duration>>,
    started: bool,
}

/// What has changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Everything there is is among `changed`; what isn't is to go.
    pub first: bool,
    /// Services of ours that are new or others now.
    pub changed: Vec<Arc<ServiceSpec>>,
    /// Names of those that are gone.
    pub removed: Vec<String>,
    /// When what caused it happened, by EndpointSlice, in milliseconds since the Unix epoch.
    pub triggers: Vec<u64>,
}

impl Delta {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        !self.first && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl State {
    /// Nothing is known yet.
    pub fn new(me: &str, options: Options) -> Self {
        Self {
            cache: Cache::new(me, &options.forwarding_modes),
            options,
            own: OwnAddresses::new(),
            claims: Claims::default(),
            kept: HashMap::new(),
            going: HashMap::new(),
            started: false,
        }
    }

    /// What follows is to be told of as if nothing had been told yet.
    pub fn begin_again(&mut self) {
        self.kept.clear();
        self.started = false;
        self.cache.touch();
    }

    /// Takes what the operator says now.
    pub fn set_options(&mut self, options: Options) {
        if self.options != options {
            self.options = options;
            self.cache.touch();
        }
    }

    /// Takes the node's addresses.
    pub fn set_own(&mut self, own: &OwnAddresses) {
        if self.own != *own {
            self.own = own.clone();
            self.cache.touch();
        }
    }

    /// All services of ours.
    pub fn specs(&self) -> impl Iterator<Item = &Arc<ServiceSpec>> {
        self.kept.values().flat_map(|kept| &kept.specs)
    }

    /// What is said of objects.
    pub fn notes(&self) -> BTreeSet<&Note> {
        self.cache.notes().chain(self.kept.values().flat_map(|kept| &kept.notes)).collect()
    }

    /// Where load balancers ask for endpoints of this node, by Service.
    pub fn health(&self) -> BTreeMap<&Arc<str>, HealthPort> {
        self.kept.iter().filter_map(|(key, kept)| Some((key, kept.health?))).collect()
    }

    /// How many ports drop clients for want of an endpoint on this node: those of the cluster, those from outside.
    pub fn without_local(&self) -> [usize; 2] {
        self.kept.values().fold([0, 0], |[a, b], kept| [a + kept.without_local[0], b + kept.without_local[1]])
    }

    /// Why a service of ours leads where it does. `None`: nothing is known of it.
    pub fn explain(&self, question: &Question) -> Option<EndpointsView> {
        let (key, _) = explain::parts(&question.service);
        let service = self.cache.services.get(key)?;
        let node = self.cache.node();
        let (options, own, claims, zones) = (&self.options, &self.own, &self.claims, &self.cache.zones);
        let around = Around { options, node: &node, own, zones, claims };
        explain::explain(question, service, &self.cache.slices_of(key), around)
    }

    /// What follows from what has changed since the last time. `None`: not everything has been listed yet, and
    /// nobody knows what isn't there. `now`: the uptime.
    pub fn follow(&mut self, now: Duration) -> Option<Delta> {
        if !self.cache.is_ready() {
            return None;
        }
        let dirty = self.cache.take();
        let first = !self.started;
        self.started = true;
        let triggers = if first { Vec::new() } else { dirty.triggers };
        let mut delta = Delta { first, triggers, ..Delta::default() };
        let mut due: BTreeSet<Arc<str>> = match dirty.all || first {
            true => self.cache.services.iter().map(|(key, _)| key).chain(self.kept.keys()).cloned().collect(),
            false => dirty.services.into_keys().collect(),
        };
        for key in due.clone() {
            due.extend(self.claim(&key));
        }
        for key in due {
            self.follow_one(&key, now, &mut delta);
        }
        Some(delta)
    }

    /// Notes where a Service wants to be. Returns the others that this concerns.
    fn claim(&mut self, key: &Arc<str>) -> BTreeSet<Arc<str>> {
        let node = self.cache.node();
        let (spots, created) = match self.cache.services.get(key) {
            None => (Vec::new(), 0),
            Some(service) => {
                let (options, own) = (&self.options, &self.own);
                let (zones, claims) = (&self.cache.zones, &self.claims);
                (spots(service, Around { options, node: &node, own, zones, claims }), service.created)
            }
        };
        self.claims.set(key, &spots, created)
    }

    fn follow_one(&mut self, key: &Arc<str>, now: Duration, delta: &mut Delta) {
        let translated = match self.cache.services.get(key) {
            None => {
                self.going.remove(key);
                Translated::default()
            }
            Some(service) => translated(
                &self.cache,
                &self.claims,
                &self.options,
                &self.own,
                &mut self.going,
                key,
                service,
                now,
            ),
        };
        let before = self.kept.remove(key).unwrap_or_default();
        let Translated { specs, notes, health, without_local } = translated;
        let mut kept = Kept { specs: Vec::with_capacity(specs.len()), notes, health, without_local };
        for spec in specs {
            match before.specs.iter().find(|known| ***known == spec) {
                Some(known) => kept.specs.push(known.clone()),
                None => {
                    kept.specs.push(Arc::new(spec));
                    delta.changed.extend(kept.specs.last().cloned());
                }
            }
        }
        let names: HashSet<&str> = kept.specs.iter().map(|spec| spec.name.as_str()).collect();
        let gone = before.specs.iter().filter(|spec| !names.contains(spec.name.as_str()));
        delta.removed.extend(gone.map(|spec| spec.name.clone()));
        if self.cache.services.get(key).is_some() {
            self.kept.insert(key.clone(), kept);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a State, one of them to be changed")]
fn translated(
    cache: &Cache,
    claims: &Claims,
    options: &Options,
    own: &OwnAddresses,
    going: &mut HashMap<Arc<str>, HashMap<SocketAddr, Duration>>,
    key: &Arc<str>,
    service: &Service,
    now: Duration,
) -> Translated {
    let node = cache.node();
    let around = Around { options, node: &node, own, zones: &cache.zones, claims };
    let before = going.remove(key).unwrap_or_default();
    let mut still = HashMap::new();
    let mut since = |at: SocketAddr| *still.entry(at).or_insert(before.get(&at).copied().unwrap_or(now));
    let namespace = cache.words_of(key.split('/').next().unwrap_or_default());
    let slices = cache.slices_of(key);
    let translated = translate(Input { key, service, slices, namespace, since: &mut since }, around);
    if !still.is_empty() {
        going.insert(key.clone(), still);
    }
    translated
}
