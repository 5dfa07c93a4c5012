//! The programs of the object that a node runs by default, with their maps filled by hand: packets come in by XDP or
//! TC, and leave by TC egress, where answers are translated.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use flowpin_tests::packet::{
    run,
    world::{Member, World},
};
use lb_common::abi::{
    Addr4, Algorithm, FlowKey, PortBe, Proto, Stray,
    sweep::{BATCH, Request},
};

use super::{
    Subject,
    driver::{Driver, Hook, Kind},
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The first backend; the others follow, by the last byte and then the one before.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);

/// As the driver has it.
pub const BACKEND: Addr4 = Addr4(u32::from_ne_bytes(FIRST.octets()));
/// As the driver has it.
pub const BACKEND_PORT: PortBe = PortBe(8080u16.to_be());

/// Key of a flow, as the driver has it.
pub fn key(flow: u32) -> FlowKey<Addr4> {
    let client = Ipv4Addr::from(0x0b00_0000 + (flow >> 10));
    let port = PortBe::new(1024 + (flow & 1023) as u16 * 61);
    FlowKey::new(client.into(), VIP.into(), port, PortBe::new(80), Proto::TCP)
}

/// A program and its maps.
pub struct Flowpin {
    name: String,
    world: World,
}

impl Flowpin {
    /// Loads it, with a table for so many flows and a service of so many backends.
    ///
    /// # Errors
    /// No object, no permission, or the kernel refuses.
    pub fn load(hook: Hook, flows: u32, backends: usize, algorithm: Algorithm) -> Result<Self> {
        let hook = if hook == Hook::Xdp { run::Hook::XdpIn } else { run::Hook::TcIn };
        Self::over(World::with_flows(hook, 2 * flows)?, backends, algorithm, "Flowpin, least-connections")
    }

    /// Loads it where nodes share their counts.
    ///
    /// # Errors
    /// As for [`Flowpin::load`].
    pub fn sharing(hook: Hook, flows: u32, backends: usize) -> Result<Self> {
        let hook = if hook == Hook::Xdp { run::Hook::XdpIn } else { run::Hook::TcIn };
        let world = World::sharing(hook, 2 * flows)?;
        Self::over(world, backends, Algorithm::LEAST_CONNECTIONS, "Flowpin, counts shared")
    }

    /// `least`: its name where backends are compared.
    fn over(mut world: World, backends: usize, algorithm: Algorithm, least: &str) -> Result<Self> {
        let members: Vec<Member> = (0..backends)
            .map(|i| Member::new(Ipv4Addr::from(u32::from(FIRST) + i as u32).into(), 8080))
            .collect();
        let ports = [(Proto::TCP, 80)];
        let hashing = algorithm == Algorithm::CONSISTENT_HASH;
        let stray = if hashing { Stray::FORWARD } else { Stray::RESET };
        world.add_with(IpAddr::V4(VIP), &ports, &members, algorithm, stray)?;
        let name = match (algorithm, backends) {
            (Algorithm::CONSISTENT_HASH, _) => "Flowpin, consistent-hash",
            (_, 1) => "Flowpin",
            _ => least,
        };
        Ok(Self { name: name.into(), world })
    }

    /// Adds so many other services.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn surround(&mut self, services: u32) -> Result<()> {
        for number in 1..=services {
            let vip = Ipv4Addr::from(u32::from(VIP) + number);
            let ports = [(Proto::TCP, 80)];
            self.world.add_with(vip.into(), &ports, &[], Algorithm::LEAST_CONNECTIONS, Stray::RESET)?;
        }
        Ok(())
    }

    /// Makes the flows `0..flows`, established, on whichever backends: a service with consistent hashing takes what is open.
    ///
    /// # Errors
    /// One was refused.
    pub fn adopt(&self, driver: &mut Driver, flows: u32) -> Result<()> {
        driver.select(self.world.program(), Kind::Established)?;
        let passed = driver.walk(Kind::Established, flows)?.passed;
        ensure!(passed, "the last of {flows} flows was refused: {:?}", self.world.reasons()?);
        Ok(())
    }
}

impl Subject for Flowpin {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn select(&mut self, driver: &mut Driver, kind: Kind) -> Result<()> {
        let program = if kind.leaves() { self.world.leaving()? } else { self.world.program() };
        driver.select(program, kind)
    }

    fn establish(&mut self, driver: &mut Driver, flows: u32) -> Result<()> {
        for kind in [Kind::Open, Kind::SynAck, Kind::Established] {
            self.select(driver, kind)?;
            let cost = driver.walk(kind, flows)?;
            ensure!(
                cost.passed,
                "{kind:?}: the last of {flows} flows was refused: {:?}",
                self.world.reasons()?
            );
        }
        Ok(())
    }

    fn forget(&mut self, from: u32, count: u32) -> Result<()> {
        let requests: Vec<_> = (from..from + count)
            .filter_map(|flow| {
                let key = key(flow);
                let forward = self.world.flows4.get(&key)?;
                let reply = self.world.flows4.get(&key.twin(&forward))?;
                Some(Request {
                    state: forward.state,
                    key,
                    seen_forward: forward.last_seen,
                    seen_reply: reply.last_seen,
                })
            })
            .collect();
        // A full table refuses one flow in millions.
        ensure!(requests.len() + 2 > count as usize, "{} of {count} flows were opened", requests.len());
        for batch in requests.chunks(BATCH) {
            ensure!(self.world.sweep4(batch)? == batch.len() as u32, "flows are left");
        }
        Ok(())
    }
}
