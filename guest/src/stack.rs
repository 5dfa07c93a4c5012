//! How deep a program's stack gets: its subprograms, who calls whom, and the deepest chain of calls.

use std::collections::BTreeMap;

use aya_obj::generated::{BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC, bpf_insn};

/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_LD | BPF_IMM | BPF_DW`, the first half of a 64-bit constant.
const LOAD: u8 = 0x18;
/// What a frame is rounded up to, in bytes, before Linux 6.12 or so. An empty frame costs as much.
const ROUNDED: u32 = 32;

/// Who calls whom: a list of callees for each subprogram, in the kernel's order, which is that of their first instructions.
#[derive(Debug)]
pub struct CallGraph {
    /// First instruction of each subprogram.
    pub starts: Vec<usize>,
    /// Callees of each.
    callees: Vec<Vec<usize>>,
}

/// A chain of calls and what it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Bytes, each frame rounded up.
    pub bytes: u32,
    /// Subprograms, outermost first.
    pub frames: Vec<usize>,
}

impl CallGraph {
    /// Reads calls, and addresses of functions that are given to helpers, off a linked program.
    pub fn of(instructions: &[bpf_insn]) -> Self {
        let targets: Vec<(usize, usize)> = instructions
            .iter()
            .enumerate()
            .filter(|(_, instruction)| is_call(instruction))
            .filter_map(|(at, instruction)| Some((at, at.checked_add_signed(instruction.imm as isize + 1)?)))
            .collect();
        let mut starts: Vec<usize> = targets.iter().map(|(_, to)| *to).chain([0]).collect();
        starts.sort_unstable();
        starts.dedup();
        let holds = |at: usize| starts.partition_point(|start| *start <= at) - 1;
        let mut callees = vec![Vec::new(); starts.len()];
        for (at, to) in targets {
            callees[holds(at)].push(holds(to));
        }
        for list in &mut callees {
            list.sort_unstable();
            list.dedup();
        }
        Self { starts, callees }
    }

    /// The deepest chain from the program's entry. `frames`: bytes of each subprogram, as the verifier tells them.
    pub fn deepest(&self, frames: &[u32]) -> Chain {
        self.deepest_from(0, frames, &mut BTreeMap::new())
    }

    /// There is no recursion: the verifier refuses it, and a chain through itself is cut here.
    fn deepest_from(&self, from: usize, frames: &[u32], known: &mut BTreeMap<usize, Chain>) -> Chain {
        if let Some(chain) = known.get(&from) {
            return chain.clone();
        }
        known.insert(from, Chain::default());
        let own = frames.get(from).copied().unwrap_or_default().max(1).next_multiple_of(ROUNDED);
        let below = self.callees[from]
            .iter()
            .map(|callee| self.deepest_from(*callee, frames, known))
            .max_by_key(|chain| chain.bytes)
            .unwrap_or_default();
        let mut chain = Chain { bytes: own + below.bytes, frames: vec![from] };
        chain.frames.extend(below.frames);
        known.insert(from, chain.clone());
        chain
    }
}

fn is_call(instruction: &bpf_insn) -> bool {
    let source = u32::from(instruction.src_reg());
    match instruction.code {
        CALL => source == BPF_PSEUDO_CALL,
        LOAD => source == BPF_PSEUDO_FUNC,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, source: u32, imm: i32) -> bpf_insn {
        // SAFETY: plain data, for which zeroes are good.
        let mut made: bpf_insn = unsafe { std::mem::zeroed() };
        made.code = code;
        made.set_src_reg(source as u8);
        made.imm = imm;
        made
    }

    #[test]
    fn the_deepest_chain_counts_callbacks_and_rounds_each_frame() {
        let exit = instruction(0x95, 0, 0);
        let program = [
            instruction(CALL, BPF_PSEUDO_CALL, 4), // 0: entry calls the one at 5
            instruction(LOAD, BPF_PSEUDO_FUNC, 5), // 1: and hands the one at 7 to a helper
            instruction(0, 0, 0),                  // 2
            instruction(CALL, 0, 181),             // 3: a helper is no subprogram
            exit,                                  // 4
            instruction(CALL, BPF_PSEUDO_CALL, 2), // 5: calls the one at 8
            exit,                                  // 6
            exit,                                  // 7
            exit,                                  // 8
        ];
        let graph = CallGraph::of(&program);
        assert_eq!(graph.starts, [0, 5, 7, 8]);
        assert_eq!(graph.deepest(&[16, 33, 0, 8]), Chain { bytes: 32 + 64 + 32, frames: vec![0, 1, 3] });
        assert_eq!(graph.deepest(&[16, 0, 200, 8]), Chain { bytes: 32 + 224, frames: vec![0, 2] });
    }
}
