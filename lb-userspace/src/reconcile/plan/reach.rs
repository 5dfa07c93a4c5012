//! Where services are reached and by whom: ports, VIPs, source ranges.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::abi::{Algorithm, BlockId, Guard, PortBe, Service, ServiceId, Stray, limits};

use super::{PlanError, Planner, Scope, Stage};
use crate::{
    model::{AlgorithmKind, ServiceSpec},
    reconcile::{ActualService, Step, actual::PortKey},
};

/// May a change of this service alone change where others are reached? A VIP that is one of the node's addresses goes before services that
/// are at all of them, and gives way to them.
pub(super) fn touches_others(planner: &Planner<'_>, name: &str) -> bool {
    let services = planner.desired.services();
    if !planner.anywhere {
        return false;
    }
    let empty = ActualService::default();
    let before = &planner.actual.service(name).unwrap_or(&empty).ports;
    let named = |vip: &IpAddr| planner.own.contains(vip);
    let Some(spec) = services.get(name).filter(|spec| !spec.is_anywhere()) else {
        return !services.contains_key(name) && before.keys().any(|key| named(&key.0));
    };
    let same =
        before.len() == spec.port_count() && before.keys().all(|key| key.0 == spec.vip && has(spec, key));
    !same && (named(&spec.vip) || before.keys().any(|key| named(&key.0)))
}

/// Services whose VIP is one of the node's addresses.
pub(super) fn named<'a>(
    services: impl Iterator<Item = &'a ServiceSpec>,
    own: &BTreeSet<IpAddr>,
) -> Vec<&'a ServiceSpec> {
    services.filter(|spec| own.contains(&spec.vip)).collect()
}

fn has(spec: &ServiceSpec, key: &PortKey) -> bool {
    let (_, proto, port) = *key;
    spec.ports
        .iter()
        .any(|range| range.protocol().proto() == proto && (range.first()..=range.last()).contains(&port))
}

impl Planner<'_> {
    pub(super) fn ports(
        &mut self,
        id: ServiceId,
        before: &ActualService,
        spec: &ServiceSpec,
        first_block: BlockId,
    ) {
        let (algorithm, stray) = match spec.algorithm {
            AlgorithmKind::LeastConnections => (Algorithm::LEAST_CONNECTIONS, Stray::RESET),
            AlgorithmKind::ConsistentHash => (Algorithm::CONSISTENT_HASH, Stray::FORWARD),
        };
        let value = Service {
            id,
            first_block,
            ranges: id,
            algorithm,
            stray,
            affine: spec.affinity.is_some().into(),
            forward: [spec.forward.code(); 2],
            guard: self.guard(spec),
            ..Service::default()
        };
        let mut wanted = BTreeSet::new();
        for vip in spec.addresses(self.own) {
            for range in &spec.ports {
                for port in range.iter() {
                    let key = (vip, range.protocol().proto(), port);
                    if spec.is_anywhere()
                        && self.named.iter().any(|other| other.vip == vip && has(other, &key))
                    {
                        continue;
                    }
                    wanted.insert(key);
                    if before.ports.get(&key) != Some(&value) {
                        let (vip, proto, port) = (key.0, key.1, PortBe::new(port));
                        self.push(Stage::AddPorts, Step::AddPort { vip, port, proto, value });
                    }
                }
            }
        }
        self.remove_ports(id, before, &wanted);
    }

    fn guard(&self, spec: &ServiceSpec) -> Guard {
        match spec.sources.is_empty() {
            true => Guard::OPEN,
            false if self.own.iter().any(|address| spec.admits(*address)) => Guard::LISTED_AND_NODE,
            false => Guard::LISTED,
        }
    }

    /// Takes out ports that the service has and should not, unless another service is getting them: that one's entry replaces
    /// this one's, without a moment between.
    pub(super) fn remove_ports(&mut self, id: ServiceId, before: &ActualService, wanted: &BTreeSet<PortKey>) {
        for key in before.ports.keys().filter(|key| !wanted.contains(key)) {
            let (vip, proto, port) = *key;
            let mut others = self.desired.services().values();
            let claimed =
                others.any(|s| s.is_at(vip, self.own) && self.actual.id(&s.name) != Some(id) && has(s, key));
            if !claimed {
                self.push(Stage::RemovePorts, Step::RemovePort { vip, port: PortBe::new(port), proto });
            }
        }
    }

    /// Source ranges: the new ones before anybody is asked for them, the old ones when nobody is any more.
    pub(super) fn sources(&mut self, service: ServiceId, before: &ActualService, spec: Option<&ServiceSpec>) {
        let empty = BTreeSet::new();
        let wanted = spec.map_or(&empty, |spec| &spec.sources);
        for prefix in wanted.difference(&before.sources) {
            self.push(Stage::AddSources, Step::Source { service, prefix: *prefix, admitted: true });
        }
        for prefix in before.sources.difference(wanted) {
            self.push(Stage::RemoveSources, Step::Source { service, prefix: *prefix, admitted: false });
        }
    }

    /// Addresses of the node's are none of these: what is not a service's there is the node's.
    pub(super) fn vips(&mut self, scope: Scope<'_>) {
        let actual = self.actual;
        if let Scope::Service(name) = scope
            && let Some(spec) = self.desired.services().get(name)
            && actual.vips().contains(&spec.vip)
            && self.stages[Stage::RemovePorts as usize].is_empty()
        {
            return;
        }
        let services = self.desired.services().values();
        let wanted: BTreeSet<IpAddr> = services.filter(|s| !s.is_anywhere()).map(|s| s.vip).collect();
        for vip in wanted.difference(actual.vips()) {
            self.push(Stage::AddVips, Step::AddVip { vip: *vip });
        }
        for vip in actual.vips().difference(&wanted) {
            self.push(Stage::RemoveVips, Step::RemoveVip { vip: *vip });
        }
    }

    /// Do the maps hold it? What services at all of the node's addresses need depends on how many there are.
    pub(super) fn check_ports(&self) -> Result<(), PlanError> {
        if !self.anywhere {
            return Ok(());
        }
        for v6 in [false, true] {
            let of_family = self.desired.services().values().filter(|s| s.vip.is_ipv6() == v6);
            let ports: usize = of_family.map(|s| s.addresses(self.own).count() * s.port_count()).sum();
            if ports > limits::MAX_PORTS as usize {
                return Err(PlanError::TooManyPorts { ports, own: self.own.len() });
            }
        }
        Ok(())
    }
}
