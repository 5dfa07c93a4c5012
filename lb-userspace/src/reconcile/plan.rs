//! The planner.
//!
//! Order, and why each moment between is correct:
//! 1. names, counters, backends: nothing points at them yet;
//! 2. blocks, last of the chain first: a backend's weight becomes positive when its record is there; a drain takes effect;
//! 3. hosts, tables: every backend in them has a record, and a weight;
//! 4. source ranges, VIPs, ports: clients reach a pool that is whole, and who is let in is known before anybody is asked;
//! 5. what is no longer declared, in reverse: ports, VIPs, source ranges, hosts, tables, blocks.
//!
//! Freeing ids is another pass ([`collect`]), run a while later: a packet may be on its way with an id that it read just
//! before, and a flow may be pinned.

mod affinity;
mod reach;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use lb_common::abi::{BLOCK_SLOTS, Backend, BackendId, BlockId, List, PoolBlock, ServiceId, limits};

use super::{Actual, ActualService, Plan, Step};
use crate::model::{AdminState, AlgorithmKind, BackendSpec, Desired, OwnAddresses, ServiceSpec, Standings};

/// What may have changed.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Anything.
    All,
    /// One service.
    Service(&'a str),
}

/// A plan can't be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Ids are kept while flows are pinned to what was removed.
    #[error(
        "no free {what}: what was removed is kept until its last connection ends; close some, or try again later"
    )]
    Exhausted {
        /// `service id` or `block of backends`.
        what: &'static str,
    },
    /// Services at all of the node's addresses have an entry for each of them.
    #[error(
        "{ports} ports in all, those of VIP 0.0.0.0 or :: counted for each of the node's {own} addresses, are too many; the limit is 262144 for \
         each IP version"
    )]
    TooManyPorts {
        /// So many.
        ports: usize,
        /// Of either family.
        own: usize,
    },
}

/// The steps that lead from `actual` to `desired`, given what is known of the backends' health and of the node's addresses now.
///
/// # Errors
/// Ids are exhausted. Limits were checked with the desired state, so it takes removed services with pinned flows to get here.
pub fn plan(
    desired: &Desired,
    actual: &Actual,
    standings: &Standings,
    own: &OwnAddresses,
    scope: Scope<'_>,
) -> Result<Plan, PlanError> {
    let anywhere = desired.services().values().any(ServiceSpec::is_anywhere);
    let mut planner = Planner {
        desired,
        actual,
        standings,
        own,
        anywhere,
        named: if anywhere { reach::named(desired.services().values(), own) } else { Vec::new() },
        now: Instant::now(),
        next_service: 0,
        next_block: 1,
        stages: Default::default(),
    };
    let scope = match scope {
        Scope::Service(name) if reach::touches_others(&planner, name) => Scope::All,
        scope => scope,
    };
    planner.check_ports()?;
    match scope {
        Scope::Service(name) => planner.service(name)?,
        Scope::All => {
            for name in desired.services().keys() {
                planner.service(name)?;
            }
            for service in actual.services().values() {
                if !desired.services().contains_key(&service.name) {
                    planner.service(&service.name)?;
                }
            }
        }
    }
    planner.vips(scope);
    Ok(Plan { steps: planner.stages.into_iter().flatten().collect() })
}

/// What a backend may be given.
#[derive(Clone, Copy)]
struct Share {
    weight: u32,
    limit: u32,
    v6: bool,
}

/// Stages of a plan, in order.
#[derive(Clone, Copy)]
enum Stage {
    Backends,
    Blocks,
    Hosts,
    Tables,
    AddSources,
    AddVips,
    AddPorts,
    RemovePorts,
    RemoveVips,
    RemoveSources,
    RemoveHosts,
    RemoveTables,
    RemoveBlocks,
}

struct Planner<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    standings: &'a Standings,
    own: &'a OwnAddresses,
    /// Is any service at all of those?
    anywhere: bool,
    /// If so, the services whose VIP is one of them.
    named: Vec<&'a ServiceSpec>,
    now: Instant,
    next_service: ServiceId,
    next_block: BlockId,
    stages: [Vec<Step>; 13],
}

impl Planner<'_> {
    fn push(&mut self, stage: Stage, step: Step) {
        self.stages[stage as usize].push(step);
    }

    fn service(&mut self, name: &str) -> Result<(), PlanError> {
        let empty = ActualService::default();
        let before = self.actual.service(name).unwrap_or(&empty);
        let Some(spec) = self.desired.services().get(name) else {
            if let Some(id) = self.actual.id(name) {
                self.retire(id, before);
            }
            return Ok(());
        };
        let id = match self.actual.id(name) {
            Some(id) => id,
            None => {
                let id = self.free_service()?;
                self.push(Stage::Backends, Step::ZeroDurations { service: id });
                self.push(Stage::Backends, Step::Name { service: id, name: Some(name.into()) });
                id
            }
        };
        let mut slots: BTreeMap<BackendId, Share> = BTreeMap::new();
        let mut blocks = before.blocks.clone();
        let mut ids: Vec<(&String, BackendId, u32)> = Vec::new();
        for (backend, own) in &spec.backends {
            let value = Backend::new(own.address, own.port, id);
            let weight = self.weight(spec, backend, own);
            let slot = match before.backends.get(backend) {
                Some(slot) => {
                    if self.actual.backend(*slot) != Some(&value) {
                        self.push(Stage::Backends, Step::Backend { id: *slot, value });
                    }
                    *slot
                }
                None => {
                    let slot = self.free_slot(&mut blocks, &slots)?;
                    self.push(Stage::Backends, Step::ZeroCounters { id: slot });
                    self.push(Stage::Backends, Step::Backend { id: slot, value });
                    slot
                }
            };
            slots.insert(
                slot,
                Share { weight, limit: own.max_connections.unwrap_or(u32::MAX), v6: own.address.is_ipv6() },
            );
            ids.push((backend, slot, weight));
        }
        self.retire_backends(before, |slot| slots.contains_key(&slot));
        self.blocks(&self.empty_block(id, Some(spec)), &blocks, &slots, Stage::Blocks);
        self.hosts(id, before, spec, &ids);
        self.table(id, before, spec, &ids);
        self.sources(id, before, Some(spec));
        self.ports(id, before, spec, blocks.first().copied().unwrap_or(0));
        Ok(())
    }

    /// Are so few of a service's backends healthy that all are to be used?
    fn panic(&self, service: &ServiceSpec) -> bool {
        let Some(health) = &service.health else { return false };
        let open = || service.backends.iter().filter(|(_, b)| b.admin == AdminState::Active);
        let healthy = open().filter(|(name, _)| self.standings.of(&service.name, name).healthy).count();
        healthy * 100 < open().count() * usize::from(health.panic)
    }

    /// The weight in force: none while draining or unhealthy, a part while it is starting slowly.
    fn weight(&self, service: &ServiceSpec, name: &str, spec: &BackendSpec) -> u32 {
        match spec.admin {
            AdminState::Active => {
                let (weight, slow) = (spec.weight.into(), service.slow_start);
                let panic = self.panic(service);
                self.standings.weight(&service.name, name, weight, slow, panic, self.now)
            }
            AdminState::Draining { .. } => 0,
        }
    }

    /// A service that is no longer declared.
    fn retire(&mut self, id: ServiceId, before: &ActualService) {
        self.retire_backends(before, |_| false);
        self.remove_ports(id, before, &BTreeSet::new());
        self.sources(id, before, None);
        if before.table.is_some() {
            self.push(
                Stage::RemoveTables,
                Step::Table { service: id, list: List::default(), members: Vec::new() },
            );
        }
        for address in before.hosts.keys() {
            self.push(Stage::RemoveHosts, Step::Host { service: id, address: *address, backend: None });
        }
        self.blocks(&self.empty_block(id, None), &before.blocks, &BTreeMap::new(), Stage::RemoveBlocks);
    }

    fn retire_backends(&mut self, before: &ActualService, kept: impl Fn(BackendId) -> bool) {
        for slot in before.backends.values().filter(|slot| !kept(**slot)) {
            if let Some(value) = self.actual.backend(*slot).filter(|b| b.retired == 0) {
                self.push(
                    Stage::Backends,
                    Step::Backend { id: *slot, value: Backend { retired: 1, ..*value } },
                );
            }
        }
    }

    fn blocks(
        &mut self,
        empty: &PoolBlock,
        blocks: &BTreeSet<BlockId>,
        slots: &BTreeMap<BackendId, Share>,
        stage: Stage,
    ) {
        let mut next = 0;
        for block in blocks.iter().rev() {
            let mut value = PoolBlock { next, ..*empty };
            for slot in 0..BLOCK_SLOTS {
                if let Some(share) = slots.get(&BackendId::new(*block, slot as u32)) {
                    value.put(slot, share.weight, share.limit, share.v6, false);
                }
            }
            let value = value.summed_up();
            if self.actual.block(*block) != Some(&value) {
                self.push(stage, Step::Block { block: *block, value });
            }
            next = *block;
        }
    }

    fn table(
        &mut self,
        service: ServiceId,
        before: &ActualService,
        spec: &ServiceSpec,
        ids: &[(&String, BackendId, u32)],
    ) {
        let members: Vec<(String, BackendId, u32)> = match spec.algorithm {
            AlgorithmKind::LeastConnections => Vec::new(),
            AlgorithmKind::ConsistentHash => ids
                .iter()
                .filter(|(_, _, weight)| *weight > 0)
                .map(|(name, id, weight)| ((*name).clone(), *id, *weight))
                .collect(),
        };
        if before.table.as_deref().unwrap_or_default() != members {
            let stage = if members.is_empty() { Stage::RemoveTables } else { Stage::Tables };
            let list = List::new(spec.vip.is_ipv6(), false);
            self.push(stage, Step::Table { service, list, members });
        }
    }

    fn free_service(&mut self) -> Result<ServiceId, PlanError> {
        while self.actual.services().contains_key(&self.next_service) {
            self.next_service += 1;
        }
        let id = self.next_service;
        self.next_service += 1;
        if id < limits::MAX_SERVICES { Ok(id) } else { Err(PlanError::Exhausted { what: "service id" }) }
    }

    /// A slot that no backend has, in the service's blocks or in a new one.
    fn free_slot(
        &mut self,
        blocks: &mut BTreeSet<BlockId>,
        taken: &BTreeMap<BackendId, Share>,
    ) -> Result<BackendId, PlanError> {
        let free = |id: &BackendId| !taken.contains_key(id) && self.actual.backend(*id).is_none();
        let in_block = |block: BlockId| (0..BLOCK_SLOTS as u32).map(move |slot| BackendId::new(block, slot));
        if let Some(id) = blocks.iter().flat_map(|b| in_block(*b)).find(free) {
            return Ok(id);
        }
        while self.actual.has_block(self.next_block) {
            self.next_block += 1;
        }
        let block = self.next_block;
        self.next_block += 1;
        if block >= limits::MAX_BLOCKS || blocks.len() >= limits::MAX_CHAIN as usize {
            return Err(PlanError::Exhausted { what: "block of backends" });
        }
        blocks.insert(block);
        Ok(BackendId::new(block, 0))
    }
}

/// The steps that free what is retired and has no pinned flow: backends, then the blocks and ids of services that are gone.
/// To be applied no sooner than a second after the plan that retired them. `busy`: is any flow, counted or lingering, pinned
/// to this backend?
pub fn collect(desired: &Desired, actual: &Actual, busy: impl Fn(BackendId) -> bool) -> Plan {
    let mut steps = Vec::new();
    for (id, service) in actual.services() {
        let mut left = 0;
        for backend in service.backends.values() {
            let retired = actual.backend(*backend).is_some_and(|b| b.retired != 0);
            if retired && !busy(*backend) {
                steps.push(Step::Backend { id: *backend, value: Backend::default() });
            } else {
                left += 1;
            }
        }
        if left == 0 && service.ports.is_empty() && !desired.services().contains_key(&service.name) {
            let blocks = service.blocks.iter();
            steps.extend(blocks.map(|block| Step::Block { block: *block, value: PoolBlock::FREE }));
            steps.push(Step::Name { service: *id, name: None });
        }
    }
    Plan { steps }
}

#[cfg(test)]
mod tests;
