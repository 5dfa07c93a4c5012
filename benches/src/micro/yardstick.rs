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
    Subject,
    driver::{Driver, Hook, Kind, fd},
    flowpin::{BACKEND, BACKEND_PORT, key},
};

/// The three programs, and their flow table.
pub struct Yardstick {
    established: ProgramFd,
    miss: ProgramFd,
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
        for name in ["established", "miss", "anew"].map(|name| format!("{name}_{}", hook.name())) {
            let program = ebpf.program_mut(&name).context(name)?;
            match hook {
                Hook::Xdp => <&mut Xdp>::try_from(program)?.load()?,
                Hook::Tc => <&mut SchedClassifier>::try_from(program)?.load()?,
            }
        }
        Ok(Self {
            established: fd(&ebpf, hook, "established")?,
            miss: fd(&ebpf, hook, "miss")?,
            anew: fd(&ebpf, hook, "anew")?,
            flows: ebpf.take_map("FLOWS").context("FLOWS")?.try_into()?,
            active: ebpf.take_map("ACTIVE").context("ACTIVE")?.try_into()?,
            _ebpf: ebpf,
        })
    }
}

impl Subject for Yardstick {
    fn name(&self) -> String {
        "C".into()
    }

    fn select(&mut self, driver: &mut Driver, kind: Kind) -> Result<()> {
        driver.select(match kind {
            Kind::Established | Kind::Reply | Kind::SynAck => &self.established,
            Kind::Open => &self.anew,
            Kind::Foreign => &self.miss,
        })
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
