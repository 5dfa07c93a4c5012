//! The whole desired state. What it refuses is in [`ModelError`].

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::abi::{BLOCK_SLOTS, limits};

pub use services::Services;

use super::{AffinitySpec, ModelError, OwnAddresses, PortRange, Protocol, ServiceSpec};

/// All services by name. Built by [`Desired::new`] and [`Admission`] only, so that whoever holds one holds a valid one.
/// A copy of the whole costs little, and a change of one service's backends doesn't look at the others.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Desired {
    services: Services,
    /// How many services name an address in their frontends.
    named: Arc<HashMap<IpAddr, u32>>,
    /// Blocks that the backends of all need at least.
    blocks: usize,
    /// Services that are at all of the node's addresses.
    anywhere: usize,
}

impl Desired {
    /// Checks services against each other and against the limits.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(services: Vec<ServiceSpec>) -> Result<Self, ModelError> {
        let own = OwnAddresses::new();
        let mut admission = Admission::new(&own);
        services.into_iter().try_for_each(|service| admission.admit(&Arc::new(service)))?;
        Ok(admission.done())
    }

    /// The same state with one service added, replaced or (`None`) removed. Checks only what can have become wrong by it.
    /// `own`: the node's addresses.
    ///
    /// # Errors
    /// The first thing that has; nothing is changed then.
    pub fn replace(
        &mut self,
        name: &str,
        service: Option<Arc<ServiceSpec>>,
        own: &OwnAddresses,
    ) -> Result<(), ModelError> {
        let Some(service) = service else {
            self.take(name);
            return Ok(());
        };
        service.validate()?;
        // Most changes are of backends and weights: then nobody else is concerned but whose VIP a backend's address is.
        let before = self.services.get(name);
        let same_place = before.is_some_and(|before| before.frontends == service.frontends);
        if !same_place || self.names_a_backend(before, &service) {
            self.check_beside(&service, same_place)?;
        }
        service.check_backends_beside(&service)?;
        let mut totals = Totals::default();
        if same_place && before.is_some_and(|before| before.affinity == service.affinity) {
            totals.blocks = self.blocks - before.map_or(0, |before| blocks(before));
            totals.check_blocks(&service)?;
        } else {
            self.services
                .values()
                .filter(|other| other.name != name)
                .for_each(|other| totals.add(other, own));
            totals.check(&service, own)?;
        }
        self.put(service);
        Ok(())
    }

    /// Does a service other than `before`, which is the same one as it was, name the address of a backend?
    fn names_a_backend(&self, before: Option<&Arc<ServiceSpec>>, service: &ServiceSpec) -> bool {
        service.backends.values().any(|backend| {
            let itself = before.is_some_and(|before| before.named().any(|vip| vip == backend.address));
            self.named.get(&backend.address).is_some_and(|count| *count > u32::from(itself))
        })
    }

    /// Does it go with the others? `same_place`: its frontends are in force already.
    fn check_beside(&self, service: &ServiceSpec, same_place: bool) -> Result<(), ModelError> {
        let backends: HashSet<IpAddr> = service.backends.values().map(|b| b.address).collect();
        let claims = if same_place { Vec::new() } else { service.claims() };
        let vips: HashSet<IpAddr> = claims.iter().map(|(vip, _)| *vip).collect();
        for other in self.services.values().filter(|o| o.name != service.name) {
            if other.named().any(|vip| backends.contains(&vip)) {
                service.check_backends_beside(other)?;
            }
            if same_place {
                continue;
            }
            if other.frontends.iter().flat_map(|f| &f.addresses).any(|vip| vips.contains(vip)) {
                for (vip, a) in other.claims() {
                    if let Some((_, b)) = claims.iter().find(|(own, b)| *own == vip && a.overlaps(*b)) {
                        return Err(overlap(other, service, vip, [a, *b]));
                    }
                }
            }
            if other.backends.values().any(|b| vips.contains(&b.address)) {
                other.check_backends_beside(service)?;
            }
        }
        Ok(())
    }

    /// Enters a service, in the place of what it was.
    fn put(&mut self, service: Arc<ServiceSpec>) {
        self.blocks += blocks(&service);
        self.anywhere += usize::from(service.is_anywhere());
        let before = self.services.insert(service.clone());
        if before.as_ref().is_none_or(|before| before.frontends != service.frontends) {
            let named = Arc::make_mut(&mut self.named);
            distinct(&service).into_iter().for_each(|vip| *named.entry(vip).or_default() += 1);
        }
        if let Some(before) = before {
            self.leave(&before, before.frontends != service.frontends);
        }
    }

    /// Removes the service of a name, if there is one.
    fn take(&mut self, name: &str) {
        if let Some(before) = self.services.remove(name) {
            self.leave(&before, true);
        }
    }

    /// Forgets what was noted of a service. `places`: also its addresses.
    fn leave(&mut self, before: &ServiceSpec, places: bool) {
        self.blocks -= blocks(before);
        self.anywhere -= usize::from(before.is_anywhere());
        if !places {
            return;
        }
        let named = Arc::make_mut(&mut self.named);
        for vip in distinct(before) {
            if let Entry::Occupied(mut count) = named.entry(vip) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// All services.
    pub const fn services(&self) -> &Services {
        &self.services
    }

    /// Is one of them at all of the node's addresses?
    pub const fn is_anywhere(&self) -> bool {
        self.anywhere > 0
    }
}

/// Services that are taken one after the other, each if it goes with those before it.
pub struct Admission<'a> {
    own: &'a OwnAddresses,
    desired: Desired,
    /// By the first port of each range.
    claims: BTreeMap<(IpAddr, Protocol, u16), (PortRange, Arc<ServiceSpec>)>,
    /// Addresses that are named, by whom; by services too that are still to come and have a place kept.
    vips: HashMap<IpAddr, Vec<Arc<ServiceSpec>>>,
    /// Addresses of backends, by whom.
    backends: HashMap<IpAddr, Vec<Arc<ServiceSpec>>>,
    totals: Totals,
}

impl<'a> Admission<'a> {
    /// None yet. `own`: the node's addresses, where services at all of them have their ports.
    pub fn new(own: &'a OwnAddresses) -> Self {
        Self {
            own,
            desired: Desired::default(),
            claims: BTreeMap::new(),
            vips: HashMap::new(),
            backends: HashMap::new(),
            totals: Totals::default(),
        }
    }

    /// Keeps a service's places free of others' backends until it comes.
    pub fn reserve(&mut self, service: &Arc<ServiceSpec>) {
        note(&mut self.vips, service.named(), service);
    }

    /// Takes one more.
    ///
    /// # Errors
    /// It isn't valid, or doesn't go with those that were taken before; it isn't taken then.
    pub fn admit(&mut self, service: &Arc<ServiceSpec>) -> Result<(), ModelError> {
        service.validate()?;
        if self.desired.services.contains_key(&service.name) {
            return Err(ModelError::DuplicateService { name: service.name.clone() });
        }
        let claims = service.claims();
        for (vip, range) in &claims {
            let before = (*vip, range.protocol(), range.last());
            let last = self.claims.range((*vip, range.protocol(), 0)..=before).next_back();
            if let Some((_, (taken, other))) = last.filter(|(_, (taken, _))| taken.overlaps(*range)) {
                return Err(overlap(other, service, *vip, [*taken, *range]));
            }
        }
        let named: HashSet<IpAddr> = service.named().collect();
        let addresses: HashSet<IpAddr> = service.backends.values().map(|b| b.address).collect();
        let at = |places: &'_ HashMap<IpAddr, Vec<Arc<ServiceSpec>>>,
                  of: &HashSet<IpAddr>|
         -> Vec<Arc<ServiceSpec>> {
            of.iter().filter_map(|address| places.get(address)).flatten().cloned().collect()
        };
        for other in at(&self.vips, &addresses).iter().filter(|other| other.name != service.name) {
            service.check_backends_beside(other)?;
        }
        service.check_backends_beside(service)?;
        at(&self.backends, &named).iter().try_for_each(|other| other.check_backends_beside(service))?;
        self.totals.check(service, self.own)?;
        self.totals.add(service, self.own);
        for (vip, range) in claims {
            self.claims.insert((vip, range.protocol(), range.first()), (range, service.clone()));
        }
        note(&mut self.vips, named, service);
        note(&mut self.backends, addresses, service);
        self.desired.put(service.clone());
        Ok(())
    }

    /// Those that were taken.
    pub fn done(self) -> Desired {
        self.desired
    }
}

/// Two services overlap; the port that is named is of the range that begins later.
fn overlap(a: &ServiceSpec, b: &ServiceSpec, vip: IpAddr, [one, two]: [PortRange; 2]) -> ModelError {
    let port = if one.first() > two.first() { one } else { two };
    ModelError::Overlap { a: a.name.clone(), b: b.name.clone(), vip, port }
}

/// Notes a service under its addresses.
fn note(
    places: &mut HashMap<IpAddr, Vec<Arc<ServiceSpec>>>,
    addresses: impl IntoIterator<Item = IpAddr>,
    service: &Arc<ServiceSpec>,
) {
    for address in addresses {
        let there = places.entry(address).or_default();
        if !there.last().is_some_and(|last| Arc::ptr_eq(last, service)) {
            there.push(service.clone());
        }
    }
}

/// The addresses that a service names, each once.
fn distinct(service: &ServiceSpec) -> BTreeSet<IpAddr> {
    service.named().collect()
}

/// Blocks that the backends of a service need at least.
fn blocks(service: &ServiceSpec) -> usize {
    service.backends.len().div_ceil(BLOCK_SLOTS)
}

/// What the maps hold of services in all.
#[derive(Default)]
struct Totals {
    services: usize,
    ports: [u64; 2],
    vips: [HashSet<IpAddr>; 2],
    prefixes: [usize; 2],
    blocks: usize,
    /// Who was the first of each affinity group, and what it means by it.
    groups: HashMap<String, (String, AffinitySpec)>,
}

impl Totals {
    fn add(&mut self, service: &ServiceSpec, own: &OwnAddresses) {
        self.services += 1;
        for v6 in [false, true] {
            self.ports[usize::from(v6)] += ports(service, own, v6);
            self.vips[usize::from(v6)].extend(service.named().filter(|vip| vip.is_ipv6() == v6));
            self.prefixes[usize::from(v6)] += prefixes(service, v6);
        }
        self.blocks += blocks(service);
        if let Some((group, affinity)) = group(service) {
            self.groups.entry(group.into()).or_insert_with(|| (service.name.clone(), affinity.clone()));
        }
    }

    /// Would one more be too much?
    fn check(&self, service: &ServiceSpec, own: &OwnAddresses) -> Result<(), ModelError> {
        let count = self.services + 1;
        if count > limits::MAX_SERVICES as usize {
            return Err(ModelError::TooManyServices { count });
        }
        for v6 in [false, true] {
            let i = usize::from(v6);
            let all = self.ports[i] + ports(service, own, v6);
            if all > limits::MAX_PORTS.into() {
                return Err(match service.is_anywhere() {
                    true => ModelError::TooManyPortsOfNode { ports: all, own: own.len() },
                    false => ModelError::TooManyPorts { ports: all },
                });
            }
            let more: HashSet<IpAddr> =
                service.named().filter(|vip| vip.is_ipv6() == v6 && !self.vips[i].contains(vip)).collect();
            let vips = self.vips[i].len() + more.len();
            if vips > limits::MAX_VIPS as usize {
                return Err(ModelError::TooManyVips { vips });
            }
            let prefixes = self.prefixes[i] + prefixes(service, v6);
            if prefixes > limits::MAX_SOURCE_RANGES as usize {
                return Err(ModelError::TooManyPrefixes { prefixes });
            }
        }
        if let Some((group, affinity)) = group(service)
            && let Some((first, other)) = self.groups.get(group)
            && other != affinity
        {
            let (a, b) = (first.clone(), service.name.clone());
            return Err(ModelError::Group { group: group.into(), a, b });
        }
        self.check_blocks(service)
    }

    fn check_blocks(&self, service: &ServiceSpec) -> Result<(), ModelError> {
        let blocks = self.blocks + blocks(service);
        if blocks >= limits::MAX_BLOCKS as usize {
            return Err(ModelError::TooManyBlocks { blocks });
        }
        Ok(())
    }
}

fn group(service: &ServiceSpec) -> Option<(&str, &AffinitySpec)> {
    let affinity = service.affinity.as_ref()?;
    Some((affinity.group.as_deref()?, affinity))
}

/// Entries of a family: one for each port at each address. All of the node's addresses are as many as it has, and one at least.
fn ports(service: &ServiceSpec, own: &OwnAddresses, v6: bool) -> u64 {
    let at = |frontend: &super::Frontend| {
        let named = frontend.named().filter(|vip| vip.is_ipv6() == v6).count();
        let anywhere = match frontend.is_anywhere_of(v6) {
            true => frontend.anywhere(own).filter(|vip| vip.is_ipv6() == v6).count().max(1),
            false => 0,
        };
        ((named + anywhere) * frontend.port_count()) as u64
    };
    service.frontends.iter().map(at).sum()
}

/// Source ranges of a family. Frontends of a service that are for the same clients have these once.
fn prefixes(service: &ServiceSpec, v6: bool) -> usize {
    let sets: BTreeSet<Cow<'_, BTreeSet<IpNet>>> = service.frontends.iter().map(|f| f.admitted()).collect();
    sets.iter().flat_map(|set| set.iter()).filter(|prefix| matches!(prefix, IpNet::V6(_)) == v6).count()
}

mod services;
#[cfg(test)]
mod tests;
