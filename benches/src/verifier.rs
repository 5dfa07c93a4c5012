//! What the programs cost before the first packet: instructions, and the verifier's work on them. Those of hooks and
//! the agent's own; all programs are in `lb-ebpf/budget.md`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::{
    EbpfLoader, VerifierLogLevel,
    programs::{ProgramInfo, SchedClassifier, Xdp},
};
use flowpin_tests::harness::paths;
use lb_common::abi::{maps, programs};
use serde::Serialize;

/// A program, loaded.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Its name.
    pub program: String,
    /// Instructions, after the verifier took out what is never reached.
    pub instructions: u32,
    /// Bytes of machine code.
    pub machine_code: u32,
    /// Instructions that the verifier looked at, every way that leads to one counted.
    pub verified: u32,
    /// How long loading took.
    pub took: Duration,
}

/// Loads each program of the object with small maps.
///
/// # Errors
/// No object, no permission, or the kernel refuses a program.
pub fn costs() -> Result<Vec<Cost>> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in maps::ALL {
        loader.map_max_entries(name, 1);
    }
    let mut ebpf = loader.load_file(paths::object())?;
    let mut costs = Vec::new();
    for name in [
        programs::XDP,
        programs::XDP_VIRTUAL,
        programs::TC,
        programs::EGRESS,
        programs::SWEEP4,
        programs::SWEEP6,
        programs::CLOCK,
    ] {
        let start = Instant::now();
        let program = ebpf.program_mut(name).with_context(|| name.to_string())?;
        if [programs::TC, programs::EGRESS].contains(&name) {
            <&mut SchedClassifier>::try_from(&mut *program)?.load().with_context(|| name.to_string())?;
        } else {
            <&mut Xdp>::try_from(&mut *program)?.load().with_context(|| name.to_string())?;
        }
        let took = start.elapsed();
        let info: ProgramInfo = program.info()?;
        costs.push(Cost {
            program: name.into(),
            instructions: info.size_translated().unwrap_or(0) / 8,
            machine_code: info.size_jitted(),
            verified: info.verified_instruction_count().unwrap_or(0),
            took,
        });
    }
    Ok(costs)
}
