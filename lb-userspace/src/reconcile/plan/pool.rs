//! A service's pool: slots, blocks with weights and lists, where long chains are entered, tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    vec::IntoIter,
};

use lb_common::abi::{BLOCK_SLOTS, BackendId, BlockId, List, PoolBlock, ServiceId, limits, pool::STARTS};

use super::{Exhausted, Planner, Stage};
use crate::{
    model::{AdminState, AlgorithmKind, BackendSpec, Lists, ServiceSpec, health::ServiceHealth},
    reconcile::{ActualService, Step, TableSpec},
};

/// What a backend may be given.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub weight: u32,
    pub limit: u32,
    pub v6: bool,
    pub lists: Lists,
}

impl Share {
    /// Is the backend on a list, as long as it has a weight?
    fn is_on(self, list: List) -> bool {
        let there = if list.is_local() { self.lists.local } else { self.lists.all };
        there && list.index() & 1 == usize::from(self.v6)
    }
}

/// A backend in its slot.
pub(super) struct Member<'a> {
    pub name: &'a String,
    pub id: BackendId,
    pub share: Share,
}

/// Are so few of a service's backends healthy that all are to be used?
fn panics(service: &ServiceSpec, health: ServiceHealth<'_>) -> bool {
    let Some(checks) = &service.health else { return false };
    let open = || service.backends.iter().filter(|(_, b)| b.takes_new());
    let healthy = open().filter(|(name, _)| health.is_healthy(name)).count();
    healthy * 100 < open().count() * usize::from(checks.panic)
}

/// Blocks at even distances along a chain that is too long to be walked whole.
fn starts(chain: &BTreeSet<BlockId>) -> Option<[BlockId; STARTS]> {
    if chain.len() <= limits::MAX_WALK as usize {
        return None;
    }
    let chain: Vec<BlockId> = chain.iter().copied().collect();
    Some(std::array::from_fn(|i| chain[i * chain.len() / STARTS]))
}

/// The blocks that a pool's chain runs through: those with backends that are declared, and one at least. Blocks that only wait for the last
/// flows of removed backends don't make it longer.
pub(super) fn chain(blocks: &BTreeSet<BlockId>, slots: &BTreeMap<BackendId, Share>) -> BTreeSet<BlockId> {
    let chain: BTreeSet<BlockId> = slots.keys().map(|id| id.block()).collect();
    if chain.is_empty() { blocks.iter().copied().take(1).collect() } else { chain }
}

fn in_block(block: BlockId) -> impl Iterator<Item = BackendId> {
    (0..BLOCK_SLOTS as u32).map(move |slot| BackendId::new(block, slot))
}

impl Planner<'_> {
    /// What each backend of a service may be given, in their order: none while draining or unhealthy, or too few are healthy, or a backup that isn't
    /// needed, a part while it is starting slowly.
    pub(super) fn shares(&self, spec: &ServiceSpec) -> Vec<Share> {
        let health = self.health.of_service(&spec.name, spec.slow_start, self.now);
        let panic = panics(spec, health);
        let met = [false, true].map(|v6| spec.meets_quorum(v6, |name| health.is_healthy(name)));
        let weight = |name: &String, backend: &BackendSpec| match backend.admin {
            _ if !backend.backup && !met[usize::from(backend.address.is_ipv6())] => 0,
            AdminState::Active => health.weight(name, backend.weight.into(), panic),
            AdminState::Draining { .. } => 0,
        };
        let others = |v6| {
            let mut others = spec.backends.iter().filter(|(_, b)| !b.backup && b.address.is_ipv6() == v6);
            others.any(|(name, backend)| weight(name, backend) > 0)
        };
        // Of IPv4 and of IPv6: are there any that aren't backups, and take flows? Not asked where nobody is one.
        let any = spec.backends.values().any(|backend| backend.backup);
        let spared = [any && others(false), any && others(true)];
        let share = |(name, backend): (&String, &BackendSpec)| Share {
            weight: if backend.backup && spared[usize::from(backend.address.is_ipv6())] {
                0
            } else {
                weight(name, backend)
            },
            limit: backend.max_connections.unwrap_or(u32::MAX),
            v6: backend.address.is_ipv6(),
            lists: backend.lists(self.own),
        };
        spec.backends.iter().map(share).collect()
    }

    /// A slot that no backend has, in the service's blocks or in a new one. `free`: those that were found and not
    /// given yet; `None`: nobody has looked.
    pub(super) fn free_slot(
        &mut self,
        spec: &ServiceSpec,
        blocks: &mut BTreeSet<BlockId>,
        free: &mut Option<IntoIter<BackendId>>,
    ) -> Result<BackendId, Exhausted> {
        let actual = self.actual;
        let free = free.get_or_insert_with(|| {
            let slots = blocks.iter().flat_map(|block| in_block(*block));
            slots.filter(|id| actual.backend(*id).is_none()).collect::<Vec<_>>().into_iter()
        });
        if let Some(id) = free.next() {
            return Ok(id);
        }
        while actual.has_block(self.next_block) {
            self.next_block += 1;
        }
        let block = self.next_block;
        self.next_block += 1;
        if block >= limits::MAX_BLOCKS {
            return Err(Exhausted { service: spec.name.clone(), what: "block of backends" });
        }
        blocks.insert(block);
        *free = in_block(block).skip(1).collect::<Vec<_>>().into_iter();
        Ok(BackendId::new(block, 0))
    }

    /// Writes a pool's blocks. Those that `chain` leaves out lead into it, for whoever is on the way.
    pub(super) fn blocks(
        &mut self,
        empty: &PoolBlock,
        blocks: &BTreeSet<BlockId>,
        chain: &BTreeSet<BlockId>,
        slots: &BTreeMap<BackendId, Share>,
        stage: Stage,
    ) {
        let starts = starts(chain);
        let mut next = 0;
        for block in blocks.iter().rev() {
            let first = starts.filter(|_| chain.first() == Some(block));
            let mut value = PoolBlock { next, starts: first.map_or(0, |_| STARTS as u32), ..*empty };
            for slot in 0..BLOCK_SLOTS {
                if let Some(share) = slots.get(&BackendId::new(*block, slot as u32)) {
                    value.put(slot, share.weight, share.limit, share.v6, share.lists.local);
                    if !share.lists.all {
                        value.take_off(slot, List::new(share.v6, false));
                    }
                }
            }
            let value = value.summed_up();
            if self.actual.starts(*block) != first.as_ref() {
                let stage = if first.is_some() { stage } else { Stage::RemoveStarts };
                self.push(stage, Step::Starts { block: *block, value: first });
            }
            if self.actual.block(*block) != Some(&value) {
                self.push(stage, Step::Block { block: *block, value });
            }
            if chain.contains(block) {
                next = *block;
            }
        }
    }

    /// A table for each list that a frontend uses.
    pub(super) fn tables(
        &mut self,
        service: ServiceId,
        before: &ActualService,
        spec: &ServiceSpec,
        members: &[Member<'_>],
    ) {
        for index in 0..List::COUNT as u32 {
            let list = List(index);
            let v6 = list == List::new(true, list.is_local());
            let used = spec.algorithm.has_table()
                && spec
                    .frontends
                    .iter()
                    .any(|f| f.has_family(v6) && (f.scope.is_local() || !list.is_local()));
            let takes_part: Vec<(String, BackendId, u32)> = members
                .iter()
                .filter(|m| used && m.share.weight > 0 && m.share.is_on(list))
                .map(|m| (m.name.clone(), m.id, m.share.weight))
                .collect();
            let there = before.tables.get(&index);
            let wanted =
                TableSpec { in_turn: spec.algorithm == AlgorithmKind::RoundRobin, members: takes_part };
            if wanted.members.is_empty() && there.is_some() {
                self.remove_table(service, index);
            } else if !wanted.members.is_empty() && there != Some(&wanted) {
                self.push(Stage::Tables, Step::Table { service, list, table: wanted });
            }
        }
    }

    pub(super) fn remove_table(&mut self, service: ServiceId, list: u32) {
        let table = TableSpec::default();
        self.push(Stage::RemoveTables, Step::Table { service, list: List(list), table });
    }
}
