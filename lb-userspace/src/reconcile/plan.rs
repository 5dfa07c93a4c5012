//! The planner.
//!
//! Order, and why each moment between is correct:
//! 1. names, counters, backends: nothing points at them yet;
//! 2. the limit that counts blocks, then those, last of the chain first: a backend's weight becomes positive when its
//!    record is there; a drain takes effect. Before the first one, where a long chain is entered: all its other blocks
//!    are there;
//! 3. hosts, tables: every backend in them has a record, and a weight;
//! 4. addresses for source NAT, source ranges, ports, VIPs: clients reach a pool that is whole, who is let in is known before anybody is asked,
//!    and a VIP refuses what is no port's of it when its ports are there;
//! 5. what is no longer declared, in reverse: ports, VIPs, source ranges, hosts, tables, blocks.
//!
//! Freeing ids is another pass ([`collect`]), run a while later: a packet may be on its way with an id that it read just
//! before, and a flow may be pinned.

mod affinity;
mod limit;
mod pool;
mod reach;
mod source_ranges;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use lb_common::abi::{Backend, BackendId, BlockId, PoolBlock, ServiceId, limits};

use self::pool::{Member, Share, chain};
use super::{Actual, ActualService, Plan, Step};
use crate::model::{Desired, Frontend, HealthStates, OwnAddresses, SnatSpec};

/// What may have changed.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Anything.
    All,
    /// These services.
    Services(&'a [&'a str]),
}

/// No plan can be made for a service: ids are kept while flows are pinned to what was removed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "service \"{service}\": no free {what}: what was removed is kept until its last connection ends; close some, or try again later"
)]
pub struct Exhausted {
    /// Whose.
    pub service: String,
    /// `service id` or `block of backends`.
    pub what: &'static str,
}

/// What state a plan leads to.
#[derive(Clone, Copy, Debug)]
pub struct Goal<'a> {
    /// What is declared.
    pub desired: &'a Desired,
    /// What is known of the backends' health.
    pub health: &'a HealthStates,
    /// The node's addresses.
    pub own: &'a OwnAddresses,
    /// Addresses for source NAT; `None`: nobody knows yet, and they stay what they are.
    pub sources: Option<&'a SnatSpec>,
    /// When.
    pub now: Instant,
}

/// The steps that lead from `actual` to a goal.
///
/// # Errors
/// All services for which ids are exhausted. Limits were checked with the desired state, so it takes removed services with pinned flows to
/// get here.
pub fn plan(goal: Goal<'_>, actual: &Actual, scope: Scope<'_>) -> Result<Plan, Vec<Exhausted>> {
    let Goal { desired, health, own, sources, now } = goal;
    let services = || desired.services().values().map(Arc::as_ref);
    let anywhere = desired.is_anywhere();
    let mut planner = Planner {
        desired,
        actual,
        health,
        own,
        anywhere,
        named: if anywhere { reach::named(services(), own) } else { BTreeMap::new() },
        claimants: OnceCell::new(),
        now,
        next_service: 0,
        next_block: 1,
        next_ranges: 1,
        stages: Default::default(),
    };
    let scope = match scope {
        Scope::Services(names) if names.iter().any(|name| planner.touches_others(name)) => Scope::All,
        scope => scope,
    };
    if let Some(sources) = sources.filter(|sources| actual.sources() != Some(*sources)) {
        planner.push(Stage::Sources, Step::Sources { value: sources.clone() });
    }
    let mut exhausted = Vec::new();
    match scope {
        Scope::Services(names) => {
            exhausted.extend(names.iter().filter_map(|name| planner.service(name).err()));
        }
        Scope::All => {
            exhausted.extend(desired.services().keys().filter_map(|name| planner.service(name).err()));
            for service in actual.services().values() {
                if !desired.services().contains_key(&service.name) {
                    exhausted.extend(planner.service(&service.name).err());
                }
            }
            planner.forget_orphans();
        }
    }
    planner.vips(scope);
    if exhausted.is_empty() {
        return Ok(Plan { steps: planner.stages.into_iter().flatten().collect() });
    }
    Err(exhausted)
}

/// Stages of a plan, in order.
#[derive(Clone, Copy)]
enum Stage {
    Backends,
    Limits,
    Blocks,
    Hosts,
    Tables,
    Sources,
    AddRanges,
    AddPorts,
    AddVips,
    RemovePorts,
    RemoveVips,
    RemoveRanges,
    RemoveHosts,
    RemoveTables,
    RemoveBlocks,
    RemoveStarts,
    RemoveLimits,
}

struct Planner<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    health: &'a HealthStates,
    own: &'a OwnAddresses,
    /// Is any service at all of those?
    anywhere: bool,
    /// If so, the frontends that name one of them.
    named: BTreeMap<IpAddr, Vec<&'a Frontend>>,
    /// Who is to be at which entry; looked up when the first one is to be removed.
    claimants: OnceCell<reach::Claimants>,
    now: Instant,
    next_service: ServiceId,
    next_block: BlockId,
    next_ranges: u32,
    stages: [Vec<Step>; 17],
}

impl Planner<'_> {
    fn push(&mut self, stage: Stage, step: Step) {
        self.stages[stage as usize].push(step);
    }

    fn service(&mut self, name: &str) -> Result<(), Exhausted> {
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
                let id = self.free_service(name)?;
                self.push(Stage::Backends, Step::ZeroDurations { service: id });
                self.push(Stage::Backends, Step::Name { service: id, name: Some(name.into()) });
                id
            }
        };
        let shares = self.shares(spec);
        // Of a plan that was cut short there may be backends in a block that isn't written yet.
        let mut blocks = before.blocks.clone();
        blocks.extend(before.backends.values().map(|id| id.block()));
        let mut free = None;
        let mut members: Vec<Member<'_>> = Vec::with_capacity(spec.backends.len());
        for ((name, backend), share) in spec.backends.iter().zip(shares) {
            let on_node = self.own.contains(&backend.address);
            let value = Backend::new(backend.address, backend.port, id).on_node_if(on_node);
            let slot = match before.backends.get(name) {
                Some(slot) => {
                    if self.actual.backend(*slot) != Some(&value) {
                        self.push(Stage::Backends, Step::Backend { id: *slot, value });
                    }
                    *slot
                }
                None => {
                    let slot = self.free_slot(spec, &mut blocks, &mut free)?;
                    self.push(Stage::Backends, Step::ZeroCounters { id: slot });
                    self.push(Stage::Backends, Step::Backend { id: slot, value });
                    slot
                }
            };
            members.push(Member { name, id: slot, share });
        }
        let slots: BTreeMap<BackendId, Share> = members.iter().map(|m| (m.id, m.share)).collect();
        self.retire_backends(before, |slot| slots.contains_key(&slot));
        let chain = chain(&blocks, &slots);
        if chain.len() > limits::MAX_CHAIN as usize {
            return Err(Exhausted { service: name.into(), what: "block of backends in its pool" });
        }
        self.limit(id, spec, &blocks)?;
        self.blocks(&self.empty_block(id, Some(spec)), &blocks, &chain, &slots, Stage::Blocks);
        self.hosts(id, before, spec, &members);
        self.tables(id, before, spec, &members);
        self.ports(id, before, spec, chain.first().copied().unwrap_or(0));
        Ok(())
    }

    /// A service that is no longer declared.
    fn retire(&mut self, id: ServiceId, before: &ActualService) {
        self.retire_backends(before, |_| false);
        self.remove_ports(id, before, |_| false);
        self.forget_ranges(before);
        for list in before.tables.keys() {
            self.remove_table(id, *list);
        }
        for address in before.hosts.keys() {
            self.push(Stage::RemoveHosts, Step::Host { service: id, address: *address, backend: None });
        }
        self.remove_limit(id);
        let empty = self.empty_block(id, None);
        self.blocks(&empty, &before.blocks, &before.blocks, &BTreeMap::new(), Stage::RemoveBlocks);
    }

    fn retire_backends(&mut self, before: &ActualService, kept: impl Fn(BackendId) -> bool) {
        for slot in before.backends.values().filter(|slot| !kept(**slot)) {
            if let Some(value) = self.actual.backend(*slot).filter(|b| !b.is_retired()) {
                self.push(Stage::Backends, Step::Backend { id: *slot, value: value.retired() });
            }
        }
    }

    fn free_service(&mut self, name: &str) -> Result<ServiceId, Exhausted> {
        while self.actual.services().contains_key(&self.next_service) {
            self.next_service += 1;
        }
        let id = self.next_service;
        self.next_service += 1;
        if id < limits::MAX_SERVICES {
            return Ok(id);
        }
        Err(Exhausted { service: name.into(), what: "service id" })
    }
}

/// Blocks of a service that nothing leads to any more, and nobody has a slot in.
fn idle_blocks(actual: &Actual, service: &ActualService) -> Vec<BlockId> {
    let mut used: HashSet<BlockId> = service.ports.values().map(|entry| entry.first_block).collect();
    used.extend(service.backends.values().map(|id| id.block()));
    for block in &service.blocks {
        used.extend(actual.block(*block).map(|b| b.next));
        used.extend(actual.starts(*block).into_iter().flatten());
    }
    service.blocks.iter().copied().filter(|block| !used.contains(block)).collect()
}

/// The steps that free what is retired and has no pinned flow: backends, then the blocks and ids of services that are gone.
/// To be applied no sooner than a second after the plan that retired them. `busy`: is any flow, counted or lingering, pinned
/// to this backend?
pub fn collect(desired: &Desired, actual: &Actual, busy: impl Fn(BackendId) -> bool) -> Plan {
    let mut steps = Vec::new();
    for (id, service) in actual.services() {
        let mut left = 0;
        for backend in service.backends.values() {
            let retired = actual.backend(*backend).is_some_and(Backend::is_retired);
            if retired && !busy(*backend) {
                steps.push(Step::Backend { id: *backend, value: Backend::default() });
            } else {
                left += 1;
            }
        }
        if left == 0 && service.ports.is_empty() && !desired.services().contains_key(&service.name) {
            let blocks = service.blocks.iter();
            let starts = blocks.clone().filter(|block| actual.starts(**block).is_some());
            steps.extend(starts.map(|block| Step::Starts { block: *block, value: None }));
            steps.extend(actual.limit(*id).map(|_| Step::Limit { service: *id, value: None }));
            steps.extend(blocks.map(|block| Step::Block { block: *block, value: PoolBlock::FREE }));
            steps.push(Step::Name { service: *id, name: None });
        } else {
            let idle = idle_blocks(actual, service);
            steps.extend(limit::without(actual, *id, &idle));
            steps.extend(idle.into_iter().map(|block| Step::Block { block, value: PoolBlock::FREE }));
        }
    }
    Plan { steps }
}

#[cfg(test)]
pub(crate) mod tests;
