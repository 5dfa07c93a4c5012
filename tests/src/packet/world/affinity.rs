//! Affinity: declared, and looked at.

use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::programs::Program;
use lb_common::{
    abi::{
        AffinityKey, Algorithm, BackendId, HostKey, Proto, Service, Stray, affinity::ForgetRequest, programs,
        sweep::HEADER,
    },
    affinity::Binding,
};

use super::{Added, Member, World};
use crate::packet::run::{load_xdp, test_run};

/// How a service with affinity binds its clients.
#[derive(Clone, Copy, Debug)]
pub struct Affinity {
    /// Not 0.
    pub group: u64,
    /// Milliseconds.
    pub remember: u32,
    /// Flows of one client.
    pub bound: u32,
    /// How backends are chosen.
    pub algorithm: Algorithm,
}

impl Affinity {
    /// Least-connections, an hour, without a bound.
    pub const fn group(group: u64) -> Self {
        Self { group, remember: 3_600_000, bound: u32::MAX, algorithm: Algorithm::LEAST_CONNECTIONS }
    }
}

impl World {
    /// Adds a service with affinity.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_bound(
        &mut self,
        vip: IpAddr,
        ports: &[(Proto, u16)],
        members: &[Member],
        binding: Affinity,
    ) -> Result<Added> {
        let added = self.add(vip, ports, members)?;
        if binding.algorithm == Algorithm::CONSISTENT_HASH {
            self.publish(added.id, binding.algorithm, members, &added.backends)?;
        }
        let first = added.backends.first().context("at least one backend")?.block();
        let mut block = self.pools.get(&first, 0)?;
        (block.group, block.remember, block.bound) = (binding.group, binding.remember, binding.bound);
        self.pools.set(first, block, 0)?;
        for id in &added.backends {
            let addr = self.backends.get(&id.0, 0)?.addr;
            self.hosts.insert(HostKey { service: added.id, addr }, id, 0)?;
        }
        self.next_service -= 1;
        let (algorithm, stray) = (binding.algorithm, Stray::RESET);
        self.declare(
            vip,
            ports,
            Service {
                id: added.id,
                first_block: first,
                algorithm,
                stray,
                affine: 1,
                limited: self.limit.is_some().into(),
                ..Service::default()
            },
        )?;
        Ok(added)
    }

    /// Every binding.
    pub fn bindings(&self) -> Vec<(AffinityKey, Binding)> {
        self.affinity
            .iter()
            .filter_map(Result::ok)
            .map(|(key, entry)| (key, Binding(entry.binding)))
            .collect()
    }

    /// Clients of a backend.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn clients(&self, id: BackendId) -> Result<u32> {
        Ok(self.clients.get(&id.block(), 0)?.count[id.slot()])
    }

    /// Asks for clients to be forgotten; how many were.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget(&mut self, force: bool, bindings: &[(AffinityKey, Binding)]) -> Result<u32> {
        let fd = match self.ebpf.program(programs::FORGET) {
            Some(Program::Xdp(p)) if p.fd().is_ok() => p.fd()?.try_clone()?,
            _ => load_xdp(&mut self.ebpf, programs::FORGET)?,
        };
        let mut packet = vec![0u8; HEADER];
        packet[0] = force.into();
        for (key, binding) in bindings {
            let request = ForgetRequest { key: *key, binding: binding.0 };
            // SAFETY: requests are plain data without padding, asserted where they are defined.
            packet.extend_from_slice(unsafe {
                std::slice::from_raw_parts((&raw const request).cast::<u8>(), size_of::<ForgetRequest>())
            });
        }
        test_run(std::os::fd::AsFd::as_fd(&fd), &packet, &mut self.out, 0)
    }
}
