//! The planner.
//!
//! Order, and why each moment between is correct:
//! 1. names, counters, backends: nothing points at them yet;
//! 2. blocks, last of the chain first: a backend's weight becomes positive when its record is there; a drain takes
//!    effect. Before the first one, where a long chain is entered: all its other blocks are there;
//! 3. hosts, tables: every backend in them has a record, and a weight;
//! 4. source ranges, ports, VIPs: clients reach a pool that is whole, who is let in is known before anybody is asked,
//!    and a VIP refuses what is no port's of it when its ports are there;
//! 5. what is no longer declared, in reverse: ports, VIPs, source ranges, hosts, tables, blocks.
//!
//! Freeing ids is another pass ([`collect`]), run a while later: a packet may be on its way with an id that it read just
//! before, and a flow may be pinned.

mod admission;
mod affinity;
mod pool;
mod reach;

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use lb_common::abi::{Backend, BackendId, BlockId, PoolBlock, ServiceId, limits};

use self::pool::{Member, Share};
use super::{Actual, ActualService, Plan, Step};
use crate::model::{Desired, Frontend, OwnAddresses, ServiceSpec, Standings};

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
        named: if anywhere { reach::named(desired.services().values(), own) } else { BTreeMap::new() },
        now: Instant::now(),
        next_service: 0,
        next_block: 1,
        next_ranges: 1,
        stages: Default::default(),
    };
    let scope = match scope {
        Scope::Service(name) if planner.touches_others(name) => Scope::All,
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
            planner.forget_orphans();
        }
    }
    planner.vips(scope);
    Ok(Plan { steps: planner.stages.into_iter().flatten().collect() })
}

/// Stages of a plan, in order.
#[derive(Clone, Copy)]
enum Stage {
    Backends,
    Blocks,
    Hosts,
    Tables,
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
}

struct Planner<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    standings: &'a Standings,
    own: &'a OwnAddresses,
    /// Is any service at all of those?
    anywhere: bool,
    /// If so, the frontends that name one of them.
    named: BTreeMap<IpAddr, Vec<&'a Frontend>>,
    now: Instant,
    next_service: ServiceId,
    next_block: BlockId,
    next_ranges: u32,
    stages: [Vec<Step>; 14],
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
        let shares = self.shares(spec);
        let mut blocks = before.blocks.clone();
        let mut free = None;
        let mut members: Vec<Member<'_>> = Vec::with_capacity(spec.backends.len());
        for ((name, backend), share) in spec.backends.iter().zip(shares) {
            let value = Backend::new(backend.address, backend.port, id);
            let slot = match before.backends.get(name) {
                Some(slot) => {
                    if self.actual.backend(*slot) != Some(&value) {
                        self.push(Stage::Backends, Step::Backend { id: *slot, value });
                    }
                    *slot
                }
                None => {
                    let slot = self.free_slot(&mut blocks, &mut free)?;
                    self.push(Stage::Backends, Step::ZeroCounters { id: slot });
                    self.push(Stage::Backends, Step::Backend { id: slot, value });
                    slot
                }
            };
            members.push(Member { name, id: slot, share });
        }
        let slots: BTreeMap<BackendId, Share> = members.iter().map(|m| (m.id, m.share)).collect();
        self.retire_backends(before, |slot| slots.contains_key(&slot));
        self.blocks(&self.empty_block(id, Some(spec)), &blocks, &slots, Stage::Blocks);
        self.hosts(id, before, spec, &members);
        self.tables(id, before, spec, &members);
        self.ports(id, before, spec, blocks.first().copied().unwrap_or(0));
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

    fn free_service(&mut self) -> Result<ServiceId, PlanError> {
        while self.actual.services().contains_key(&self.next_service) {
            self.next_service += 1;
        }
        let id = self.next_service;
        self.next_service += 1;
        if id < limits::MAX_SERVICES { Ok(id) } else { Err(PlanError::Exhausted { what: "service id" }) }
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
            let starts = blocks.clone().filter(|block| actual.starts(**block).is_some());
            steps.extend(starts.map(|block| Step::Starts { block: *block, value: None }));
            steps.extend(blocks.map(|block| Step::Block { block: *block, value: PoolBlock::FREE }));
            steps.push(Step::Name { service: *id, name: None });
        }
    }
    Plan { steps }
}

#[cfg(test)]
mod tests;
