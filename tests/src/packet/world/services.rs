//! Services and their backends.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData};
use lb_common::{
    abi::{
        Addr4, Addr6, Algorithm, BLOCK_SLOTS, Backend, BackendId, List, PoolBlock, PortBe, Proto, Service,
        ServiceId, ServiceKey, ServiceLimit, Stray, table,
    },
    maglev, turns,
};

use super::{Added, BLOCKS, INNER_MAP, Member, World};

impl World {
    /// Adds a service with least-connections.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add(&mut self, vip: IpAddr, ports: &[(Proto, u16)], members: &[Member]) -> Result<Added> {
        self.add_with(vip, ports, members, Algorithm::LEAST_CONNECTIONS, Stray::RESET)
    }

    /// Adds a service with consistent hashing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_hashed(&mut self, vip: IpAddr, ports: &[(Proto, u16)], members: &[Member]) -> Result<Added> {
        self.add_with(vip, ports, members, Algorithm::CONSISTENT_HASH, Stray::FORWARD)
    }

    /// Adds a service.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_with(
        &mut self,
        vip: IpAddr,
        ports: &[(Proto, u16)],
        members: &[Member],
        algorithm: Algorithm,
        stray: Stray,
    ) -> Result<Added> {
        let id = self.next_service;
        let blocks = members.len().div_ceil(BLOCK_SLOTS) as u32;
        let first = if blocks == 0 { 0 } else { self.next_block };
        ensure!(self.next_block + blocks <= BLOCKS, "more than {BLOCKS} blocks");
        self.next_block += blocks;
        let mut backends = Vec::new();
        for (i, part) in members.chunks(BLOCK_SLOTS).enumerate() {
            let block = first + i as u32;
            let next = if i as u32 + 1 < blocks { block + 1 } else { 0 };
            let mut value = PoolBlock { next, service: id, ..PoolBlock::FREE };
            for (slot, member) in part.iter().enumerate() {
                value.put(slot, member.weight, member.limit, member.addr.is_ipv6(), member.local);
                let backend = BackendId::new(block, slot as u32);
                self.filter.set_backend(backend, Some(member.addr))?;
                let record = Backend::new(member.addr, member.port, id).on_node_if(member.on_node);
                self.backends.set(backend.0, record, 0)?;
                backends.push(backend);
            }
            self.pools.set(block, value.summed_up(), 0)?;
        }
        if let Some(most) = self.limit {
            self.limit(id, most, (first..first + blocks).collect())?;
        }
        if algorithm != Algorithm::LEAST_CONNECTIONS {
            self.publish(id, algorithm, members, &backends)?;
        }
        self.declare(
            vip,
            ports,
            Service {
                id,
                first_block: first,
                algorithm,
                stray,
                ranges: id,
                forward: [self.forward, self.forward_of_pods],
                local: self.local.into(),
                scarce: (self.scarce || self.limit.is_some()).into(),
                limited: self.limit.is_some().into(),
                source_ranges: self.source_ranges,
                ..Service::default()
            },
        )?;
        Ok(Added { id, backends })
    }

    /// Says the limit of a service as a whole, and where its connections are counted.
    ///
    /// # Errors
    /// The kernel refuses, or they are too many blocks.
    pub fn limit(&mut self, id: ServiceId, most: u32, blocks: Vec<u32>) -> Result<()> {
        let limit = ServiceLimit::new(most, blocks).context("more blocks than a limit names")?;
        Ok(self.limits.insert(id, limit, 0)?)
    }

    /// Adds a service with one backend in its pool that `BACKENDS` has no place for.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_placeless(&mut self, vip: IpAddr, ports: &[(Proto, u16)]) -> Result<()> {
        let mut value = PoolBlock { service: 0, ..PoolBlock::FREE };
        value.put(0, 1, u32::MAX, vip.is_ipv6(), false);
        self.pools.set(1, value.summed_up(), 0)?;
        self.declare(vip, ports, Service { first_block: 1, ..Service::default() })
    }

    pub(super) fn declare(&mut self, vip: IpAddr, ports: &[(Proto, u16)], value: Service) -> Result<()> {
        self.next_service += 1;
        match vip {
            IpAddr::V4(vip) => self.vips4.insert(Addr4::from(vip), self.vip, 0)?,
            IpAddr::V6(vip) => self.vips6.insert(Addr6::from(vip), self.vip, 0)?,
        }
        self.filter.add_destination(vip)?;
        for (proto, port) in ports {
            let port = PortBe::new(*port);
            self.filter.add_port(vip, port, *proto)?;
            match vip {
                IpAddr::V4(vip) => {
                    self.services4.insert(ServiceKey::new(vip.into(), port, *proto), value, 0)?
                }
                IpAddr::V6(vip) => {
                    self.services6.insert(ServiceKey::new(vip.into(), port, *proto), value, 0)?
                }
            }
        }
        Ok(())
    }

    /// Builds and publishes the table of those members whose weight isn't 0.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn publish(
        &mut self,
        id: ServiceId,
        algorithm: Algorithm,
        members: &[Member],
        backends: &[BackendId],
    ) -> Result<()> {
        let v6 = members.first().is_some_and(|member| member.addr.is_ipv6());
        let names: Vec<String> = members.iter().map(|m| format!("{} {:?}", m.addr, m.port)).collect();
        let eligible: Vec<_> = (0..members.len())
            .filter(|i| members[*i].weight > 0)
            .map(|i| maglev::Member { name: &names[i], id: backends[i].0, weight: members[i].weight })
            .collect();
        let in_turn = algorithm == Algorithm::ROUND_ROBIN;
        let slots = if in_turn { turns::build(&eligible) } else { maglev::build(&eligible) };
        let words: Vec<u32> = std::iter::once(slots.len() as u32).chain(slots).collect();
        let chunks = words.len().div_ceil(table::CHUNK_WORDS) as u32;
        let mut inner: Array<MapData, table::Chunk> = Array::create(chunks, INNER_MAP)?;
        for (i, part) in words.chunks(table::CHUNK_WORDS).enumerate() {
            let mut chunk = table::Chunk([0; table::CHUNK_WORDS]);
            chunk.0[..part.len()].copy_from_slice(part);
            inner.set(i as u32, chunk, 0)?;
        }
        Ok(self.tables.set(table::index(id, List::new(v6, false)), &inner, 0)?)
    }

    /// Changes a backend's weight and limit, as the agent does.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_backend(&mut self, id: BackendId, weight: u32, limit: u32) -> Result<()> {
        let mut block = self.pools.get(&id.block(), 0)?;
        let v6 = self.backends.get(&id.0, 0)?.family == Backend::V6;
        let local = block.lists[List::new(v6, true).index()] >> id.slot() & 1 != 0;
        block.put(id.slot(), weight, limit, v6, local);
        Ok(self.pools.set(id.block(), block.summed_up(), 0)?)
    }
}
