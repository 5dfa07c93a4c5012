//! The program that runs the others: `benches/c/driver.bpf.c`.

use std::path::Path;

use anyhow::{Context, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};

/// Which program type is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// XDP on a real device.
    Xdp,
    /// TC: ingress, and egress for what leaves.
    Tc,
}

impl Hook {
    /// As tables name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }

    /// What lets a packet go on.
    const fn pass(self) -> u32 {
        match self {
            Self::Xdp => 2,
            Self::Tc => u32::MAX,
        }
    }
}

/// What the packets are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// From the client, of a flow that is established.
    Established = 0,
    /// From the backend.
    Reply = 1,
    /// A SYN of a flow that isn't there.
    Open = 2,
    /// The backend's answer to it.
    SynAck = 3,
    /// For no service, as it comes in.
    Foreign = 4,
    /// For no service, as it leaves: a packet like the one before.
    ForeignOut = 5,
}

impl Kind {
    /// As tables name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Reply => "reply",
            Self::Open => "new flow",
            Self::SynAck => "answer",
            Self::Foreign => "not ours",
            Self::ForeignOut => "not ours, leaving",
        }
    }

    /// Is it met where packets leave, by TC in any case? Answers are translated there.
    pub const fn leaves(self) -> bool {
        matches!(self, Self::Reply | Self::SynAck | Self::ForeignOut)
    }

    /// Is it of no service?
    pub const fn is_foreign(self) -> bool {
        matches!(self, Self::Foreign | Self::ForeignOut)
    }
}

/// `struct plan` of the driver.
#[repr(C)]
#[derive(Clone, Copy)]
struct Plan {
    kind: u32,
    flows: u32,
    random: u32,
    next: u32,
    chance: u32,
    pad: u32,
}

// SAFETY: whole words, any bits are a plan.
unsafe impl Pod for Plan {}

/// What a run came to.
pub struct Cost {
    /// For each packet, driver and harness included.
    pub nanoseconds: f64,
    /// Did the last packet go on its way?
    pub passed: bool,
}

/// The driver, loaded.
pub struct Driver {
    hook: Hook,
    ebpf: Ebpf,
    plan: Array<MapData, Plan>,
    subjects: [ProgramArray<MapData>; 2],
    nothing: [ProgramFd; 2],
}

/// An Ethernet, an IPv4 and a TCP header, and six bytes of data: 60 bytes, the least that Ethernet carries.
fn frame() -> [u8; 60] {
    let mut frame = [0; 60];
    frame[12] = 8;
    // Version and length, total length, TTL, TCP.
    (frame[14], frame[17], frame[22], frame[23]) = (0x45, 46, 64, 6);
    // Data offset.
    frame[46] = 0x50;
    frame
}

impl Driver {
    /// Loads it for packets that come in by this hook.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn load(directory: &Path, hook: Hook) -> Result<Self> {
        let mut ebpf = Ebpf::load_file(directory.join("driver.o"))?;
        for name in ["drive", "nothing"] {
            let xdp: &mut Xdp = ebpf.program_mut(&format!("{name}_xdp")).context(name)?.try_into()?;
            xdp.load()?;
            let tc: &mut SchedClassifier =
                ebpf.program_mut(&format!("{name}_tc")).context(name)?.try_into()?;
            tc.load()?;
        }
        let nothing = [fd(&ebpf, Hook::Xdp, "nothing")?, fd(&ebpf, Hook::Tc, "nothing")?];
        let plan = ebpf.take_map("PLAN").context("PLAN")?.try_into()?;
        let xdp = ebpf.take_map("XDP_SUBJECT").context("XDP_SUBJECT")?.try_into()?;
        let tc = ebpf.take_map("TC_SUBJECT").context("TC_SUBJECT")?.try_into()?;
        Ok(Self { hook, ebpf, plan, subjects: [xdp, tc], nothing })
    }

    /// Which program type packets of this kind meet.
    pub const fn hook_of(&self, kind: Kind) -> Hook {
        if kind.leaves() { Hook::Tc } else { self.hook }
    }

    /// Calls this program for packets of this kind from now on.
    ///
    /// # Errors
    /// The kernel refuses: the program is of another type.
    pub fn select(&mut self, program: &ProgramFd, kind: Kind) -> Result<()> {
        let hook = self.hook_of(kind);
        Ok(self.subjects[hook as usize].set(0, program, 0)?)
    }

    /// Calls a program that does nothing for packets of this kind from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn select_nothing(&mut self, kind: Kind) -> Result<()> {
        let hook = self.hook_of(kind) as usize;
        Ok(self.subjects[hook].set(0, &self.nothing[hook], 0)?)
    }

    /// Runs the program on packets of flows `0..flows` in random order; `Kind::Open`: of new ones from `flows` on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&mut self, kind: Kind, flows: u32, runs: u32) -> Result<Cost> {
        let random = u32::from(kind != Kind::Open);
        let plan = Plan { kind: kind as u32, flows, random, next: flows, chance: 0x2545_f491, pad: 0 };
        self.drive(self.hook_of(kind), plan, runs)
    }

    /// Runs the program once on a packet of each of the flows `0..flows`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn walk(&mut self, kind: Kind, flows: u32) -> Result<Cost> {
        let plan = Plan { kind: kind as u32, flows, random: 0, next: 0, chance: 1, pad: 0 };
        self.drive(self.hook_of(kind), plan, flows)
    }

    fn drive(&mut self, hook: Hook, plan: Plan, runs: u32) -> Result<Cost> {
        self.plan.set(0, plan, 0)?;
        let frame = frame();
        let options = TestRunOptions { data_in: Some(&frame), repeat: runs, ..TestRunOptions::new() };
        // The kernel says how long a run took in whole nanoseconds, which is too coarse for packets that are nobody's.
        let before = own_time()?;
        let result = match hook {
            Hook::Xdp => {
                let program: &Xdp = self.ebpf.program("drive_xdp").context("drive")?.try_into()?;
                program.test_run(options)?
            }
            Hook::Tc => {
                let program: &SchedClassifier = self.ebpf.program("drive_tc").context("drive")?.try_into()?;
                program.test_run(options)?
            }
        };
        let took = own_time()? - before;
        Ok(Cost { nanoseconds: took * 1e9 / f64::from(runs), passed: result.return_value == hook.pass() })
    }
}

/// CPU time of this thread, in seconds.
fn own_time() -> Result<f64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(std::time::Duration::from(time).as_secs_f64())
}

/// A loaded program of an object.
///
/// # Errors
/// It isn't there or isn't loaded.
pub fn fd(ebpf: &Ebpf, hook: Hook, name: &str) -> Result<ProgramFd> {
    let name = format!("{name}_{}", hook.name());
    let program = ebpf.program(&name).with_context(|| name.clone())?;
    Ok(match hook {
        Hook::Xdp => <&Xdp>::try_from(program)?.fd()?.try_clone()?,
        Hook::Tc => <&SchedClassifier>::try_from(program)?.fd()?.try_clone()?,
    })
}
