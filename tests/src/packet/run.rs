//! One packet through one program: `BPF_PROG_TEST_RUN`. Asked of the kernel directly, since aya offers no flags.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    programs::{ProgramFd, SchedClassifier, Xdp},
};
use flowpin::datapath::{refusal::Refusals, steps};
use lb_common::abi::programs;

const BPF_PROG_TEST_RUN: i32 = 10;
/// Gives the packet a checksum "by the device" and checks afterwards that it still fits (Linux 6.14).
pub const CHECKSUM_COMPLETE: u32 = 1 << 2;
/// The largest frame whose buffer leaves room for what is inserted.
const BUFFER: usize = 1 << 16;

/// Where a packet is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// XDP on a real device. Here and in the next two answers of backends are translated where they come in.
    Xdp,
    /// XDP on a veth, tun or tap.
    XdpVirtual,
    /// TC ingress.
    Tc,
    /// XDP on a real device, answers being left to where they leave.
    XdpIn,
    /// TC ingress, likewise.
    TcIn,
    /// TC egress.
    Out,
}

impl Hook {
    /// Those at which packets of both directions are seen to.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::XdpVirtual, Self::Tc];

    /// Is it one of the XDP programs?
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::Xdp | Self::XdpVirtual | Self::XdpIn)
    }

    /// The program's name in the object.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Xdp => programs::XDP_INGRESS,
            Self::XdpVirtual => programs::XDP_VIRTUAL_INGRESS,
            Self::Tc => programs::TC_INGRESS,
            Self::XdpIn => programs::XDP,
            Self::TcIn => programs::TC,
            Self::Out => programs::EGRESS,
        }
    }

    /// What a return value means here.
    fn verdict(self, value: u32) -> Verdict {
        match (self, value) {
            (Self::Tc | Self::TcIn | Self::Out, 0xffff_ffff)
            | (Self::Xdp | Self::XdpVirtual | Self::XdpIn, 2) => Verdict::Pass,
            (Self::Tc | Self::TcIn | Self::Out, 2) | (Self::Xdp | Self::XdpVirtual | Self::XdpIn, 1) => {
                Verdict::Drop
            }
            // Redirected to where it came from, but by XDP on a real device.
            (Self::Tc | Self::TcIn | Self::Out, 7) | (Self::Xdp | Self::XdpIn, 3) | (Self::XdpVirtual, 4) => {
                Verdict::Back
            }
            (_, other) => Verdict::Other(other),
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// On to the IP stack.
    Pass,
    /// Out where it came in.
    Back,
    /// Gone.
    Drop,
    /// Something a program of ours never says.
    Other(u32),
}

/// The head of the kernel's `union bpf_attr` for this command (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// Runs a program on a frame; its return value, and the frame as it leaves it in `out`.
///
/// # Errors
/// The kernel refuses.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], out: &mut Vec<u8>, flags: u32) -> Result<u32> {
    out.resize(BUFFER.max(frame.len() + 256), 0);
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        flags,
        ..TestRun::default()
    };
    // SAFETY: the attributes are those of this command, and both buffers are as long as they say.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<TestRun>() as libc::c_uint)
    };
    if done != 0 {
        bail!("BPF_PROG_TEST_RUN on {} bytes: {}", frame.len(), std::io::Error::last_os_error());
    }
    out.truncate(attr.data_size_out as usize);
    Ok(attr.retval)
}

/// A program that is loaded, and what its verdicts are called.
pub struct Runner {
    hook: Hook,
    fd: ProgramFd,
}

impl Runner {
    /// Loads the hook's program.
    ///
    /// # Errors
    /// The object doesn't have it, or the verifier refuses it.
    pub fn load(ebpf: &mut Ebpf, hook: Hook) -> Result<Self> {
        let name = hook.program();
        if let Some(kind) = steps::Kind::of(name) {
            steps::load(ebpf, kind, &mut Refusals::default())?;
        }
        let fd = if hook.is_xdp() { load_xdp(ebpf, name)? } else { load_tc(ebpf, name)? };
        Ok(Self { hook, fd })
    }

    /// The program.
    pub const fn program(&self) -> &ProgramFd {
        &self.fd
    }

    /// Runs the program on a frame.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&self, frame: &[u8], out: &mut Vec<u8>, flags: u32) -> Result<Verdict> {
        Ok(self.hook.verdict(test_run(self.fd.as_fd(), frame, out, flags)?))
    }
}

/// The program of this name that was loaded last, by whomever.
///
/// # Errors
/// There is none, or no permission.
pub fn program_named(name: &str) -> Result<ProgramFd> {
    let mut found = None;
    for program in aya::programs::loaded_programs() {
        let program = program?;
        if program.name_as_str() == Some(name) {
            found = Some(program);
        }
    }
    Ok(found.with_context(|| format!("no program {name} is loaded"))?.fd()?)
}

/// Loads a TC program that need not be attached.
///
/// # Errors
/// The object doesn't have it, or the verifier refuses it.
pub fn load_tc(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program: &mut SchedClassifier = ebpf.program_mut(name).context(name.to_string())?.try_into()?;
    if program.fd().is_err() {
        program.load().with_context(|| format!("loading {name}"))?;
    }
    Ok(program.fd()?.try_clone()?)
}

/// Loads an XDP program that need not be attached.
///
/// # Errors
/// The object doesn't have it, or the verifier refuses it.
pub fn load_xdp(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program: &mut Xdp = ebpf.program_mut(name).context(name.to_string())?.try_into()?;
    program.load().with_context(|| format!("loading {name}"))?;
    Ok(program.fd()?.try_clone()?)
}
