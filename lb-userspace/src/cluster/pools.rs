//! Services whose connections are shared, and where their backends lie in the kernel.

use std::collections::HashMap;

use lb_cluster::{BackendKey, ServiceKey, agent::Pool};
use lb_common::abi::{BLOCK_SLOTS, BackendId, List, PoolBlock, ServiceId};

use crate::{agent::state::State, reconcile::Actual};

/// A service as other nodes know it, and as the kernel does.
#[derive(Debug, PartialEq, Eq)]
pub struct Shared {
    /// Its name.
    pub name: String,
    /// Its number in the kernel.
    pub id: ServiceId,
    /// Its backends, those included that only keep what they have.
    pub backends: Vec<Member>,
}

/// A backend of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in the kernel.
    pub id: BackendId,
    /// Its address, and its port if it has one of its own.
    pub address: String,
    /// The same on all nodes.
    pub key: BackendKey,
    /// 0: it takes no new connections.
    pub weight: u32,
}

impl Shared {
    /// The backends as who shares their counts wants them.
    pub fn pool(&self) -> Pool {
        let backends: Vec<_> = self.backends.iter().map(|backend| (backend.key, backend.weight)).collect();
        Pool::new(&backends)
    }

    /// Backends that take new connections.
    pub fn eligible(&self) -> u32 {
        self.backends.iter().filter(|backend| backend.weight != 0).count() as u32
    }
}

/// All services that are shared, as of one moment.
#[derive(Debug, Default)]
pub struct Pools(HashMap<ServiceKey, Shared>);

impl Pools {
    /// As of now: those that go by the least connections. Where clients are bound or hashed, it is known where they
    /// go.
    pub fn of(state: &State) -> Self {
        let services = state.desired.services().values().filter(|spec| spec.goes_by_connections());
        Self(services.filter_map(|spec| one(state.actual(), &spec.name)).collect())
    }

    /// A service.
    pub fn get(&self, key: ServiceKey) -> Option<&Shared> {
        self.0.get(&key)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceKey, &Shared)> {
        self.0.iter().map(|(key, shared)| (*key, shared))
    }
}

/// A service that is in force, whatever it goes by.
pub fn one(actual: &Actual, name: &str) -> Option<(ServiceKey, Shared)> {
    let id = actual.id(name)?;
    let service = actual.service(name)?;
    let members = service.backends.iter().filter_map(|(name, id)| {
        let backend = actual.backend(*id)?;
        let weight = actual.block(id.block()).map_or(0, |block| weight(block, id.slot()));
        Some(Member {
            id: *id,
            address: name.clone(),
            key: BackendKey::of(backend.address()?, backend.port()),
            weight,
        })
    });
    let backends = members.collect();
    Some((ServiceKey::of("", name), Shared { name: name.into(), id, backends }))
}

/// The weight of a slot for new connections.
fn weight(block: &PoolBlock, slot: usize) -> u32 {
    let slot = slot & (BLOCK_SLOTS - 1);
    let listed = (0..List::COUNT).any(|list| block.lists[list] >> slot & 1 != 0);
    if listed { block.weight[slot] } else { 0 }
}
