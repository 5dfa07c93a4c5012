//! Programs of a packet's further steps: loaded before the programs that call them, and put where those look for them.
//!
//! An array of programs is emptied when nobody has it open any more (`prog_array_map_clear`, kernel/bpf/arraymap.c). So each agent pins its own, under a
//! name of its own, for as long as a program that calls into it is attached, and removes those of earlier ones when all of theirs have been replaced.

use std::path::PathBuf;

use aya::{Ebpf, maps::ProgramArray, programs::ProgramFd};
use lb_common::abi::{maps, programs};

use super::{DatapathError, object, pin::PinDir, refusal::Refusals};

/// The arrays of programs, in the order in which they are pinned.
const ARRAYS: [&str; 2] = [maps::XDP_TAILS, maps::TC_TAILS];

/// Which programs call each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// XDP on real devices.
    Xdp,
    /// XDP on veth, tun and tap.
    XdpVirtual,
    /// TC.
    Tc,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::XdpVirtual, Self::Tc];

    /// Whose steps a program of a hook goes on with; `None`: it has none.
    pub fn of(program: &str) -> Option<Self> {
        match program {
            programs::XDP | programs::XDP_INGRESS | programs::XDP_FAST => Some(Self::Xdp),
            programs::XDP_VIRTUAL | programs::XDP_VIRTUAL_INGRESS | programs::XDP_VIRTUAL_FAST => {
                Some(Self::XdpVirtual)
            }
            programs::TC
            | programs::TC_INGRESS
            | programs::TC_FAST
            | programs::TC_BESIDES
            | programs::EGRESS => Some(Self::Tc),
            _ => None,
        }
    }

    /// The map, and its programs with their indices.
    pub fn steps(self) -> (&'static str, impl Iterator<Item = (u32, &'static str)>) {
        let (map, names, half) = match self {
            Self::Xdp => (maps::XDP_TAILS, programs::XDP_STEPS.as_slice(), 0),
            Self::XdpVirtual => (maps::XDP_TAILS, programs::XDP_STEPS.as_slice(), 1),
            Self::Tc => (maps::TC_TAILS, programs::TC_STEPS.as_slice(), 0),
        };
        let count = programs::STEPS * 2;
        (map, (0..).zip(names.iter().copied()).skip((half * count) as usize).take(count as usize))
    }
}

impl Kind {
    /// Are its steps loaded?
    pub fn is_loaded(self, ebpf: &Ebpf) -> bool {
        self.steps().1.filter_map(|(_, name)| ebpf.program(name)).any(|program| program.fd().is_ok())
    }
}

/// Loads the steps of a kind, if they aren't yet, and puts them in their array.
///
/// # Errors
/// The object doesn't have one, or the kernel refuses it.
pub fn load(ebpf: &mut Ebpf, kind: Kind, refusals: &mut Refusals) -> Result<(), DatapathError> {
    let (map, steps) = kind.steps();
    let loaded = steps
        .map(|(index, name)| Ok((index, load_one(ebpf, name, refusals)?)))
        .collect::<Result<Vec<(u32, ProgramFd)>, DatapathError>>()?;
    let failed = || DatapathError::kernel(map);
    let array = ebpf.map_mut(map).ok_or(DatapathError::NoObject)?;
    let mut array: ProgramArray<_> = array.try_into().map_err(failed())?;
    loaded.iter().try_for_each(|(index, program)| array.set(*index, program, 0).map_err(failed()))
}

fn load_one(ebpf: &mut Ebpf, name: &str, refusals: &mut Refusals) -> Result<ProgramFd, DatapathError> {
    let program = object::loaded(ebpf, name, refusals)?;
    program.fd().map_err(object::refused(name))?.try_clone().map_err(DatapathError::io(name))
}

/// This agent's arrays of programs, by their pins.
pub struct Arrays {
    own: Vec<PathBuf>,
    /// Where those of all agents are.
    all: PathBuf,
    /// May a program that calls into them be attached?
    used: bool,
}

impl Arrays {
    /// Pins both under a name that no earlier agent's has.
    ///
    /// # Errors
    /// The kernel or the file system refuses.
    pub fn pin(ebpf: &Ebpf, pins: &PinDir) -> Result<Self, DatapathError> {
        let own: u64 = rand::random();
        let mut arrays = Self { own: Vec::new(), all: pins.programs(), used: false };
        for name in ARRAYS {
            let path = arrays.all.join(format!("{own:016x}-{name}"));
            let map = ebpf.map(name).ok_or(DatapathError::NoObject)?;
            map.pin(&path).map_err(DatapathError::kernel(name))?;
            arrays.own.push(path);
        }
        Ok(arrays)
    }

    /// Their names and pins.
    pub fn pins(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        ARRAYS.into_iter().zip(self.own.iter().cloned())
    }

    /// A program that calls into them is about to be attached: from now on they outlive this agent.
    pub const fn keep(&mut self) {
        self.used = true;
    }

    /// Removes the pins of earlier agents' arrays: nothing that calls into them is attached any more.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget_earlier(&self) -> Result<(), DatapathError> {
        let entries = std::fs::read_dir(&self.all).map_err(DatapathError::io("programs"))?;
        for entry in entries.flatten().filter(|entry| !self.own.contains(&entry.path())) {
            std::fs::remove_file(entry.path()).map_err(DatapathError::io("programs"))?;
        }
        Ok(())
    }
}

impl Drop for Arrays {
    fn drop(&mut self) {
        if self.used {
            return;
        }
        for path in &self.own {
            // A start that failed: what stays is removed by the next agent.
            let _ = std::fs::remove_file(path);
        }
    }
}
