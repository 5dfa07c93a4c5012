//! What else is done to the flow tables: swept, and stuffed.

use std::os::fd::AsFd;

use anyhow::Result;
use aya::programs::Program;
use lb_common::abi::{Addr4, Addr6, Flow, programs, sweep};

use super::World;
use crate::packet::run::{load_xdp, test_run};

impl World {
    /// Asks a sweep program to remove flows; returns how many it removed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn sweep4(&mut self, requests: &[sweep::Request<Addr4>]) -> Result<u32> {
        self.sweep(programs::SWEEP4, sweep::REMOVE, requests)
    }

    /// Asks a sweep program to close connections; returns how many it closed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn close4(&mut self, requests: &[sweep::Request<Addr4>]) -> Result<u32> {
        self.sweep(programs::SWEEP4, sweep::RESET, requests)
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn close6(&mut self, requests: &[sweep::Request<Addr6>]) -> Result<u32> {
        self.sweep(programs::SWEEP6, sweep::RESET, requests)
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn sweep6(&mut self, requests: &[sweep::Request<Addr6>]) -> Result<u32> {
        self.sweep(programs::SWEEP6, sweep::REMOVE, requests)
    }

    fn sweep<R: Copy>(&mut self, program: &str, what: u8, requests: &[R]) -> Result<u32> {
        let fd = match self.ebpf.program(program) {
            Some(Program::Xdp(p)) if p.fd().is_ok() => p.fd()?.try_clone()?,
            _ => load_xdp(&mut self.ebpf, program)?,
        };
        let mut packet = vec![0u8; sweep::HEADER];
        packet[0] = what;
        for request in requests {
            // SAFETY: requests are plain data without padding, asserted where they are defined.
            packet.extend_from_slice(unsafe {
                std::slice::from_raw_parts((&raw const *request).cast::<u8>(), size_of::<R>())
            });
        }
        test_run(fd.as_fd(), &packet, &mut self.out, 0)
    }

    /// Makes every flow as if its last packets had come so many ticks earlier.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn age(&mut self, ticks: u32) -> Result<()> {
        for flow in self.flows4.entries() {
            self.flows4.replace(Flow { last_seen: flow.last_seen.wrapping_sub(ticks), ..flow })?;
        }
        for flow in self.flows6.entries() {
            self.flows6.replace(Flow { last_seen: flow.last_seen.wrapping_sub(ticks), ..flow })?;
        }
        Ok(())
    }

    /// Fills what is left of the flow tables with foreign entries, so that the next flow finds no room.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stuff(&mut self) -> Result<()> {
        self.flows4.stuff()?;
        self.flows6.stuff()
    }

    /// Takes a foreign entry out of each table again.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unstuff(&mut self) -> Result<()> {
        self.flows4.unstuff()?;
        self.flows6.unstuff()
    }
}
