//! Programs that this kernel refuses: each is tried once, its reason is logged once and kept, and whoever wants it
//! later hears the same at once. The verifier may take seconds to refuse a program, on slow machines minutes.

use std::collections::BTreeMap;

use aya::{
    VerifierLogLevel,
    programs::{Program, ProgramError},
};
use lb_common::abi::programs;

use super::{DatapathError, links};

/// What the verifier is asked to say of a program that it refuses: its last words and its statistics. aya asks after
/// a refusal only, and again with a longer buffer until all fits; with each instruction in the log that would be five
/// more verifications instead of one.
pub(super) const LOG: VerifierLogLevel = VerifierLogLevel::STATS;

/// Longest reason, in characters.
const LONGEST: usize = 240;

/// Refused programs and the kernel's reasons, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<String, String>);

impl Refusals {
    /// Loads a program with `load`, unless it was refused before.
    ///
    /// # Errors
    /// The kernel refuses it, now or earlier, or this process may not load programs.
    pub(super) fn attempt(
        &mut self,
        program: &str,
        load: impl FnOnce() -> Result<(), ProgramError>,
    ) -> Result<(), DatapathError> {
        self.check(program)?;
        let Err(error) = load() else { return Ok(()) };
        if links::errno(&error) == Some(libc::EPERM) {
            return Err(DatapathError::NoPermission);
        }
        let reason = reason(&error);
        tracing::error!(program, "refused by this kernel: {reason}");
        self.0.insert(program.into(), reason);
        self.check(program)
    }

    /// Says so if a program was refused.
    ///
    /// # Errors
    /// It was.
    pub(super) fn check(&self, program: &str) -> Result<(), DatapathError> {
        self.0.get(program).map_or(Ok(()), |reason| {
            Err(DatapathError::Refused { program: program.into(), reason: reason.clone() })
        })
    }

    /// Was it refused?
    pub fn has(&self, program: &str) -> bool {
        self.0.contains_key(program)
    }

    /// All of them: program and reason.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(program, reason)| (program.as_str(), reason.as_str()))
    }

    /// Forgets them, so that each is tried once more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Has the kernel take a program, of whatever type. It gives up when a signal comes for the thread (EAGAIN of `do_check`,
/// kernel/bpf/verifier.c), and is asked again then, as often as libbpf does.
pub(super) fn load(program: &mut Program) -> Result<(), ProgramError> {
    const ATTEMPTS: usize = 5;
    let mut result = load_once(program);
    for _ in 1..ATTEMPTS {
        match &result {
            Err(e) if links::errno(e) == Some(libc::EAGAIN) => result = load_once(program),
            _ => break,
        }
    }
    result
}

fn load_once(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// For the sweeper: what a refused program would have done stays undone. The refusal was said when it was loaded.
///
/// # Errors
/// Anything but a refusal.
pub fn unless_refused<T: Default>(result: Result<T, DatapathError>) -> Result<T, DatapathError> {
    match result {
        Err(DatapathError::Refused { .. }) => Ok(T::default()),
        other => other,
    }
}

/// What is missed without one of the agent's own programs.
pub fn missed(program: &str) -> &'static str {
    match program {
        programs::SWEEP4 => "IPv4 flows that are over stay in the table, and connections can't be closed",
        programs::SWEEP6 => "IPv6 flows that are over stay in the table, and connections can't be closed",
        programs::SWEEP_SOCKETS => {
            "what unconnected sockets of the node's processes were led to is kept until they are closed"
        }
        programs::FORGET => "clients with affinity are never forgotten",
        _ => "what it is for is not done",
    }
}

/// Why a program was refused, in one line.
pub(super) fn reason(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return error.to_string() };
    let text = telling(&verifier_log.to_string()).unwrap_or_else(|| io_error.to_string());
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The last line of a verifier's log that says what is wrong: neither statistics nor the program's own code.
fn telling(log: &str) -> Option<String> {
    /// How lines of statistics begin (`print_verification_stats` in kernel/bpf/verifier.c), and notes on functions.
    const AFTER: [&str; 6] =
        ["processed ", "verification time", "stack depth", "insns_self", "mark_precise", "func#"];
    let code = |line: &str| {
        let number = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len());
        number > 0 && (line[number..].starts_with(": ") || line[number..].starts_with(" ("))
    };
    let telling = |line: &&str| {
        !line.is_empty()
            && !line.starts_with(';')
            && !code(line)
            && !AFTER.iter().any(|word| line.starts_with(word))
    };
    log.lines().map(str::trim).rfind(telling).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_line_is_found() {
        for (log, wanted) in [
            (
                "BPF program is too large. Processed 1000001 insn\nverification time 812345 usec\nstack depth 64+32\n\
                 processed 1000001 insns (limit 1000000) max_states_per_insn 24 total_states 9 peak_states 9\n",
                "BPF program is too large. Processed 1000001 insn",
            ),
            (
                "; let a = b; @ main.rs:7\n12: (71) r1 = *(u8 *)(r2 +0)\n\
                 R1 min value is negative, either use unsigned index or do a if (index >=0) check.\n\
                 13 (bf)\nprocessed 13 insns (limit 1000000) max_states_per_insn 0\n",
                "R1 min value is negative, either use unsigned index or do a if (index >=0) check.",
            ),
            (
                "combined stack size of 6 calls is 544. Too large\n",
                "combined stack size of 6 calls is 544. Too large",
            ),
            ("invalid func unknown#187\nprocessed 0 insns\n\n", "invalid func unknown#187"),
        ] {
            assert_eq!(telling(log).as_deref(), Some(wanted));
        }
        assert_eq!(telling("processed 0 insns\n"), None);
        assert_eq!(telling(""), None);
    }

    fn refusal() -> Result<(), ProgramError> {
        let io_error = std::io::Error::from_raw_os_error(libc::EINVAL);
        Err(ProgramError::SyscallError(aya::sys::SyscallError { call: "bpf_prog_load", io_error }))
    }

    #[test]
    fn a_refused_program_is_not_tried_again() {
        let mut refusals = Refusals::default();
        let refused =
            |result| matches!(result, Err(DatapathError::Refused { program, .. }) if program == "a");
        assert!(refused(refusals.attempt("a", refusal)));
        assert!(refused(refusals.attempt("a", || panic!("tried again"))));
        refusals.attempt("b", || Ok(())).expect("another one");
        assert!(refusals.has("a") && !refusals.has("b"));
        refusals.clear();
        refusals.attempt("a", || Ok(())).expect("tried anew");
    }

    #[test]
    fn a_lack_of_permission_is_no_refusal() {
        let mut refusals = Refusals::default();
        let denied = || {
            let io_error = std::io::Error::from_raw_os_error(libc::EPERM);
            Err(ProgramError::SyscallError(aya::sys::SyscallError { call: "bpf_prog_load", io_error }))
        };
        assert!(matches!(refusals.attempt("a", denied), Err(DatapathError::NoPermission)));
        assert!(!refusals.has("a"));
    }
}
