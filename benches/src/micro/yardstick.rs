//! The least that each step takes, by hand in C: `benches/c/yardstick.bpf.c`.

use std::path::Path;

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData},
    programs::{ProgramFd, SchedClassifier, Xdp},
};
use lb_common::abi::{Addr4, FlowKey};

use super::{
    Subject, YARDSTICK,
    driver::{Driver, Hook, Kind, fd},
    flowpin::{BACKEND, BACKEND_PORT, key},
};

/// The programs, and their flow table.
pub struct Yardstick {
    established: ProgramFd,
    /// The same for what leaves, by TC.
    reply: ProgramFd,
    miss: ProgramFd,
    miss_out: ProgramFd,
    anew: ProgramFd,
    flows: HashMap<MapData, FlowKey<Addr4>, [u64; 8]>,
    active: Array<MapData, [u32; 16]>,
    _ebpf: Ebpf,
}

impl Yardstick {
    /// Loads them, with a table for so many flows.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn load(directory: &Path, hook: Hook, flows: u32) -> Result<Self> {
        let mut ebpf =
            EbpfLoader::new().map_max_entries("FLOWS", 2 * flows).load_file(directory.join("yardstick.o"))?;
        for name in ["established", "miss", "anew"] {
            let xdp = ebpf.program_mut(&format!("{name}_xdp")).context(name)?;
            <&mut Xdp>::try_from(xdp)?.load()?;
            let tc = ebpf.program_mut(&format!("{name}_tc")).context(name)?;
            <&mut SchedClassifier>::try_from(tc)?.load()?;
        }
        Ok(Self {
            established: fd(&ebpf, hook, "established")?,
            reply: fd(&ebpf, Hook::Tc, "established")?,
            miss: fd(&ebpf, hook, "miss")?,
            miss_out: fd(&ebpf, Hook::Tc, "miss")?,
            anew: fd(&ebpf, hook, "anew")?,
            flows: ebpf.take_map("FLOWS").context("FLOWS")?.try_into()?,
            active: ebpf.take_map("ACTIVE").context("ACTIVE")?.try_into()?,
            _ebpf: ebpf,
        })
    }
}

impl Subject for Yardstick {
    fn name(&self) -> String {
        YARDSTICK.into()
    }

    fn select(&mut self, driver: &mut Driver, kind: Kind) -> Result<()> {
        let program = match kind {
            Kind::Established => &self.established,
            Kind::Reply | Kind::SynAck => &self.reply,
            Kind::Open => &self.anew,
            Kind::Foreign => &self.miss,
            Kind::ForeignOut => &self.miss_out,
        };
        driver.select(program, kind)
    }

    fn establish(&mut self, driver: &mut Driver, flows: u32) -> Result<()> {
        // All to the first backend, the one that replies come from.
        let mut counts = [u32::MAX; 16];
        counts[0] = 0;
        self.active.set(0, counts, 0)?;
        self.select(driver, Kind::Open)?;
        driver.walk(Kind::Open, flows)?;
        Ok(self.active.set(0, [0; 16], 0)?)
    }

    fn forget(&mut self, from: u32, count: u32) -> Result<()> {
        for flow in from..from + count {
            let key = key(flow);
            let value = self.flows.get(&key, 0)?;
            // Number of the backend: the upper half of the fifth word.
            let number = (value[4] >> 32) as u32;
            let backend = Addr4(BACKEND.0.wrapping_add(number << 24));
            self.flows.remove(&FlowKey::new(backend, key.src, BACKEND_PORT, key.sport, key.proto))?;
            self.flows.remove(&key)?;
        }
        Ok(())
    }
}
