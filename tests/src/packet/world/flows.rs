//! What else is done to the flow tables: swept, and stuffed.

use std::os::fd::AsFd;

use anyhow::Result;
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
    programs::Program,
};
use lb_common::abi::{Addr, Addr4, Addr6, Flow, FlowKey, PortBe, Proto, programs, sweep};

use super::World;
use crate::packet::run::{load_xdp, test_run};

impl World {
    /// Asks a sweep program to remove flows; returns how many it removed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn sweep4(&mut self, requests: &[sweep::Request<Addr4>]) -> Result<u32> {
        self.sweep(programs::SWEEP4, requests)
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn sweep6(&mut self, requests: &[sweep::Request<Addr6>]) -> Result<u32> {
        self.sweep(programs::SWEEP6, requests)
    }

    fn sweep<R: Copy>(&mut self, program: &str, requests: &[R]) -> Result<u32> {
        let fd = match self.ebpf.program(program) {
            Some(Program::Xdp(p)) if p.fd().is_ok() => p.fd()?.try_clone()?,
            _ => load_xdp(&mut self.ebpf, program)?,
        };
        let mut packet = vec![0u8; sweep::HEADER];
        for request in requests {
            // SAFETY: requests are plain data without padding, asserted where they are defined.
            packet.extend_from_slice(unsafe {
                std::slice::from_raw_parts((&raw const *request).cast::<u8>(), size_of::<R>())
            });
        }
        test_run(fd.as_fd(), &packet, &mut self.out, 0)
    }

    /// Fills what is left of the flow tables with foreign entries, so that the next flow finds no room.
    ///
    /// # Errors
    /// The kernel refuses for another reason than being full.
    pub fn stuff(&mut self) -> Result<()> {
        let mut i = 0;
        while insert(&mut self.flows4, stuffing4(i))? {
            i += 1;
        }
        let mut i = 0;
        while insert(&mut self.flows6, stuffing6(i))? {
            i += 1;
        }
        Ok(())
    }

    /// Takes `n` foreign entries out of each table again.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unstuff(&mut self, n: usize) -> Result<()> {
        let keys: Vec<_> = self.flows4.keys().collect::<Result<_, _>>()?;
        for key in keys.iter().filter(|k| k.proto == FOREIGN).take(n) {
            self.flows4.remove(key)?;
        }
        let keys: Vec<_> = self.flows6.keys().collect::<Result<_, _>>()?;
        for key in keys.iter().filter(|k| k.proto == FOREIGN).take(n) {
            self.flows6.remove(key)?;
        }
        Ok(())
    }
}

/// A protocol that is never balanced: "use for experimentation" (RFC 3692).
const FOREIGN: Proto = Proto(253);

fn stuffing4(i: u32) -> FlowKey<Addr4> {
    FlowKey::new(Addr4(1), Addr4(i), PortBe(1), PortBe(1), FOREIGN)
}

fn stuffing6(i: u32) -> FlowKey<Addr6> {
    FlowKey::new(Addr6([1, 0, 0, 0]), Addr6([i, 0, 0, 0]), PortBe(1), PortBe(1), FOREIGN)
}

/// Puts an entry into a table; false: it is full.
fn insert<A: Addr>(table: &mut HashMap<MapData, FlowKey<A>, Flow<A>>, key: FlowKey<A>) -> Result<bool>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    match table.insert(key, Flow::default(), 0) {
        Ok(()) => Ok(true),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::E2BIG) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
