//! What affinity adds to a plan: how a pool's blocks bind clients, and where a service finds its hosts.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::abi::{BackendId, PoolBlock, ServiceId};

use super::{Member, Planner, Stage};
use crate::{
    model::ServiceSpec,
    reconcile::{ActualService, Step},
};

impl Planner<'_> {
    /// A block of a service's pool without backends. Of one that is no longer declared, the affinity is what it was: clients leave.
    pub(super) fn empty_block(&self, service: ServiceId, spec: Option<&ServiceSpec>) -> PoolBlock {
        let block = PoolBlock { service, ..PoolBlock::FREE };
        let Some(spec) = spec else {
            let id = self.actual.services().get(&service).and_then(|s| s.blocks.first());
            let Some(before) = id.and_then(|id| self.actual.block(*id)) else { return block };
            let PoolBlock { client_bits, group, remember, bound, by_port, .. } = *before;
            return PoolBlock { client_bits, group, remember, bound, by_port, ..block };
        };
        let Some(affinity) = &spec.affinity else { return block };
        PoolBlock {
            client_bits: affinity.ipv6_prefix.into(),
            group: affinity.number(&spec.name),
            remember: u32::try_from(affinity.timeout.as_millis()).unwrap_or(u32::MAX),
            bound: affinity.bound.unwrap_or(u32::MAX),
            by_port: affinity.by_port.into(),
            ..block
        }
    }

    pub(super) fn hosts(
        &mut self,
        service: ServiceId,
        before: &ActualService,
        spec: &ServiceSpec,
        members: &[Member<'_>],
    ) {
        let mut wanted: BTreeMap<IpAddr, BackendId> = BTreeMap::new();
        if spec.affinity.is_some() {
            for Member { name, id, .. } in members {
                if let Some(backend) = spec.backends.get(*name) {
                    // Of several on one host the first, whatever their order.
                    wanted
                        .entry(backend.address)
                        .and_modify(|first| *first = (*first).min(*id))
                        .or_insert(*id);
                }
            }
        }
        for (address, id) in wanted.iter().filter(|(address, id)| before.hosts.get(address) != Some(id)) {
            let backend = Some(*id);
            self.push(Stage::Hosts, Step::Host { service, address: *address, backend });
        }
        for address in before.hosts.keys().filter(|address| !wanted.contains_key(address)) {
            self.push(Stage::RemoveHosts, Step::Host { service, address: *address, backend: None });
        }
    }
}
