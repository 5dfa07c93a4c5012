//! What the verifier said of a program.

use serde::{Deserialize, Serialize};

/// A program, tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name in the object.
    pub program: String,
    /// Its section: what kind it is.
    pub section: String,
    /// How long the kernel took, in milliseconds.
    pub millis: u64,
    /// Instructions that the verifier looked at, every way that leads to one counted. 0: it didn't say.
    pub instructions: u32,
    /// The deepest chain of calls, in bytes, each frame rounded up to 32. 0: it didn't say.
    pub stack: u32,
    /// Subprograms of that chain and the bytes of each, outermost first.
    pub chain: Vec<Frame>,
    /// All subprograms, in the kernel's order.
    pub frames: Vec<Frame>,
    /// Why it was refused; `None`: it was loaded.
    pub refused: Option<Refusal>,
}

/// A subprogram's part of the stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Function.
    pub name: String,
    /// Bytes, not rounded.
    pub bytes: u32,
    /// Instructions that the verifier looked at in it, without its callees. 0: it didn't say (before Linux 6.19 or so).
    pub instructions: u32,
}

/// Why a program was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The error.
    pub error: String,
    /// The end of the verifier's log.
    pub log: Vec<String>,
}

/// Lines of a refusal's log that are kept.
const LOG_LINES: usize = 15;
/// How lines of the log begin that [`Stats`] reads.
const FIGURES: [&str; 4] = ["verification time", "stack depth", "processed ", "subprog "];

impl Refusal {
    /// Keeps the end of the log.
    pub fn new(error: String, log: &str) -> Self {
        let said = |line: &&str| !line.is_empty() && !FIGURES.iter().any(|figure| line.starts_with(figure));
        let lines: Vec<String> = log.lines().filter(said).map(String::from).collect();
        Self { error, log: lines[lines.len().saturating_sub(LOG_LINES)..].to_vec() }
    }
}

/// Figures at the end of the verifier's log (`BPF_LOG_STATS`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instructions looked at.
    pub instructions: u32,
    /// Each subprogram's bytes of stack, and its own part of the instructions.
    pub frames: Vec<(u32, u32)>,
}

impl Stats {
    /// Reads them; what isn't there stays 0 or empty.
    pub fn of(log: &str) -> Self {
        let mut stats = Self::default();
        for line in log.lines() {
            if let Some(rest) = line.strip_prefix("processed ") {
                stats.instructions = rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default();
            } else if let Some(rest) = line.strip_prefix("stack depth ") {
                // One number a subprogram. The newest kernels say how deep it gets and tell of subprograms in lines of their own.
                let depths = rest.split(' ').next().unwrap_or_default();
                stats.frames = depths.split('+').filter_map(|n| Some((n.trim().parse().ok()?, 0))).collect();
            } else if line.starts_with("subprog ") {
                if line.starts_with("subprog 0 ") {
                    stats.frames.clear();
                }
                stats.frames.push((after(line, " stack "), after(line, " insns_self ")));
            }
        }
        stats
    }
}

/// The number that follows a word; 0: there is none.
fn after(line: &str, word: &str) -> u32 {
    let rest = line.split(word).nth(1).unwrap_or_default();
    rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_off_a_log() {
        let log = "verification time 2317 usec\nstack depth 16+0+128\nprocessed 1203 insns (limit 1000000) max_states_per_insn 3\n";
        assert_eq!(Stats::of(log), Stats { instructions: 1203, frames: vec![(16, 0), (0, 0), (128, 0)] });
        let log = "subprog 0 (flowpin_tc) global insns_self 97 insns_total 160 stack 16\n\
            subprog 1 (probe) static insns_self 63 insns_total 63 stack 0\nprocessed 160 insns (limit 1000000)\n";
        assert_eq!(Stats::of(log), Stats { instructions: 160, frames: vec![(16, 97), (0, 63)] });
        assert_eq!(Stats::of("invalid func unknown#187\n"), Stats::default());
    }
}
