//! Where services are reached: ports and VIPs.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use lb_common::abi::{BlockId, PortBe, Proto, Service, ServiceId, SourceRanges, Vip};

use super::{Planner, Scope, Stage, source_ranges::NOBODY};
use crate::{
    model::{Desired, Frontend, OwnAddresses, PortRange, ServiceSpec},
    reconcile::{ActualService, Step, actual::PortKey},
};

/// Entries that a service is to have: of which of its frontends each is, and of which range of ports there.
pub(super) type Entries = BTreeMap<PortKey, (usize, PortRange)>;

/// Frontends that name an address of the node's, by address.
pub(super) fn named<'a>(
    services: impl Iterator<Item = &'a ServiceSpec>,
    own: &OwnAddresses,
) -> BTreeMap<IpAddr, Vec<&'a Frontend>> {
    let mut named: BTreeMap<IpAddr, Vec<&Frontend>> = BTreeMap::new();
    for frontend in services.flat_map(|spec| &spec.frontends) {
        for vip in frontend.named().filter(|vip| own.contains(vip)) {
            named.entry(vip).or_default().push(frontend);
        }
    }
    named
}

/// Who is to be where, for many lookups.
pub(super) struct Claimants {
    /// Frontends by each address that they name, and by `0.0.0.0` and `::`; with their services.
    at: HashMap<IpAddr, Vec<(Arc<ServiceSpec>, usize)>>,
}

impl Claimants {
    fn of(desired: &Desired) -> Self {
        let mut at: HashMap<IpAddr, Vec<(Arc<ServiceSpec>, usize)>> = HashMap::new();
        for spec in desired.services().values() {
            for (i, frontend) in spec.frontends.iter().enumerate() {
                for vip in &frontend.addresses {
                    at.entry(*vip).or_default().push((spec.clone(), i));
                }
            }
        }
        Self { at }
    }

    /// Is any service to have this entry, but the one with this name?
    fn claimed(&self, (vip, proto, port): &PortKey, own: &OwnAddresses, but: &str) -> bool {
        let all: IpAddr =
            if vip.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let found = [*vip, all].into_iter().filter_map(|vip| self.at.get(&vip)).flatten();
        found.filter(|(spec, _)| spec.name != but).any(|(spec, i)| {
            let frontend = &spec.frontends[*i];
            frontend.is_at(*vip, own) && serves(frontend, *proto, *port)
        })
    }
}

fn serves(frontend: &Frontend, proto: Proto, port: u16) -> bool {
    frontend.range(proto, port).is_some()
}

impl Planner<'_> {
    /// May a change of this service alone change where others are reached? Who names an address of the node's goes
    /// before those that are at all of them, and gives way to them.
    pub(super) fn touches_others(&self, name: &str) -> bool {
        if !self.anywhere {
            return false;
        }
        let on_node = |key: &&PortKey| self.own.contains(&key.0);
        let before = self.actual.service(name).map(|service| &service.ports);
        let before = before.into_iter().flat_map(BTreeMap::keys).filter(on_node);
        let entries = self.desired.services().get(name).map(|spec| self.entries(spec)).unwrap_or_default();
        before.ne(entries.keys().filter(on_node))
    }

    /// Where a service is to be reached.
    fn entries(&self, spec: &ServiceSpec) -> Entries {
        let mut entries = Entries::new();
        for (index, frontend) in spec.frontends.iter().enumerate() {
            let all = frontend.anywhere(self.own).map(|vip| (vip, self.named.get(&vip)));
            for (vip, others) in frontend.named().map(|vip| (vip, None)).chain(all) {
                for range in &frontend.ports {
                    let proto = range.protocol().proto();
                    for port in range.iter() {
                        let taken = others.into_iter().flatten().any(|other| serves(other, proto, port));
                        if !taken {
                            entries.insert((vip, proto, port), (index, *range));
                        }
                    }
                }
            }
        }
        entries
    }

    pub(super) fn ports(
        &mut self,
        id: ServiceId,
        before: &ActualService,
        spec: &ServiceSpec,
        first_block: BlockId,
    ) {
        let entries = self.entries(spec);
        let numbers = self.ranges(before, spec, &entries);
        let value = |(frontend, ranges): (&Frontend, u32)| Service {
            id,
            first_block,
            ranges,
            algorithm: spec.algorithm.code(),
            stray: spec.stray().code(),
            affine: spec.affinity.is_some().into(),
            forward: frontend.forward.code(),
            local: frontend.scope.code(),
            scarce: spec.is_limited().into(),
            limited: spec.max_connections.is_some().into(),
            #[cfg(feature = "next")]
            next: 7,
            ..Service::default()
        };
        let values: Vec<Service> = spec.frontends.iter().zip(numbers).map(value).collect();
        for (key, (frontend, range)) in &entries {
            let (vip, proto, port) = *key;
            let target = PortBe::new(range.target(port).unwrap_or(0));
            let source_ranges = self.source_ranges(&spec.frontends[*frontend], vip.is_ipv6());
            let mut value = Service { target, source_ranges, ..values[*frontend] };
            if vip.is_loopback() {
                // To the node's own processes alone: no packet is let in, and pods have a loopback of their own.
                value.source_ranges = SourceRanges::LISTED_AND_NODE;
                value.ranges = NOBODY;
            }
            if before.ports.get(key) != Some(&value) {
                self.push(Stage::AddPorts, Step::AddPort { vip, port: PortBe::new(port), proto, value });
            }
        }
        self.remove_ports(id, before, |key| entries.contains_key(key));
    }

    /// Whom an entry with an address of this IP version lets in. The node's own processes, if one of its addresses of that
    /// version is let in, and none is denied: which of them a process will have isn't known.
    fn source_ranges(&self, frontend: &Frontend, v6: bool) -> SourceRanges {
        let mut own = self.own.iter().filter(|address| address.is_ipv6() == v6);
        match frontend.is_open() {
            true => SourceRanges::OPEN,
            false if own.clone().any(|it| frontend.admits(*it)) && !own.any(|it| frontend.denies(*it)) => {
                SourceRanges::LISTED_AND_NODE
            }
            false => SourceRanges::LISTED,
        }
    }

    /// Takes out ports that the service has and should not, unless another service is getting them: that one's entry replaces
    /// this one's, without a moment between.
    pub(super) fn remove_ports(
        &mut self,
        id: ServiceId,
        before: &ActualService,
        wanted: impl Fn(&PortKey) -> bool,
    ) {
        for key in before.ports.keys().filter(|key| !wanted(key)) {
            let (vip, proto, port) = *key;
            let claimants = self.claimants.get_or_init(|| Claimants::of(self.desired));
            let own = self.actual.services().get(&id).map_or("", |service| service.name.as_str());
            if !claimants.claimed(key, self.own, own) {
                self.push(Stage::RemovePorts, Step::RemovePort { vip, port: PortBe::new(port), proto });
            }
        }
    }

    /// What an address that a frontend names is.
    fn vip(&self, vip: IpAddr) -> Vip {
        if self.own.contains(&vip) || vip.is_loopback() { Vip::SHARED } else { Vip::OWNED }
    }

    /// Addresses that frontends name. Of those at all of the node's addresses none is one: what is not a service's
    /// there is the node's.
    pub(super) fn vips(&mut self, scope: Scope<'_>) {
        let actual = self.actual;
        let known = |name: &&str| {
            let spec = self.desired.services().get(name);
            spec.is_none_or(|s| s.named().all(|vip| actual.vips().get(&vip) == Some(&self.vip(vip))))
        };
        if let Scope::Services(names) = scope
            && names.iter().all(known)
            && self.stages[Stage::RemovePorts as usize].is_empty()
        {
            return;
        }
        let services = self.desired.services().values().map(Arc::as_ref);
        let wanted: BTreeMap<IpAddr, Vip> =
            services.flat_map(ServiceSpec::named).map(|vip| (vip, self.vip(vip))).collect();
        for (vip, value) in wanted.iter().filter(|(vip, value)| actual.vips().get(vip) != Some(value)) {
            self.push(Stage::AddVips, Step::AddVip { vip: *vip, value: *value });
        }
        for vip in actual.vips().keys().filter(|vip| !wanted.contains_key(vip)) {
            self.push(Stage::RemoveVips, Step::RemoveVip { vip: *vip });
        }
    }
}
