//! Network namespaces that go when their test does.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    sched::{CloneFlags, setns},
    sys::resource::{Resource, getrlimit, setrlimit},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace.
#[derive(Debug)]
pub struct Ns {
    /// As `ip netns` names it.
    pub name: String,
}

/// Runs a command and insists that it succeeds.
///
/// # Panics
/// With what it said, if it doesn't.
pub fn must(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    let out = Command::new(program).args(words).stdin(Stdio::null()).output().expect(line);
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

impl Ns {
    /// A new one, loopback up.
    ///
    /// # Panics
    /// Without root.
    pub fn new(tag: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and needs root: sudo scripts/test"
        );
        let name = format!("fp{}-{}-{tag}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        must(&format!("ip netns add {name}"));
        let ns = Self { name };
        must(&format!("ip -n {} link set lo up", ns.name));
        raise_file_limit();
        ns
    }

    /// The same, in which addresses can be used at once and packets may come in by another way than answers go out.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn lenient(tag: &str) -> Self {
        let ns = Self::new(tag);
        ns.must("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.rp_filter=0");
        ns.must("sysctl -qw net.ipv4.conf.default.rp_filter=0");
        ns
    }

    fn file(&self) -> File {
        File::open(format!("/run/netns/{}", self.name)).expect("the namespace is there")
    }

    /// Runs `f` on a thread that is in the namespace. Sockets made there stay there.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let file = self.file();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run in the namespace. Not by way of `ip netns exec`, which hides the BPF file system.
    pub fn command(&self, program: &str) -> Command {
        let file = self.file();
        let mut command = Command::new(program);
        // SAFETY: setns is async-signal-safe; nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(move || {
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                Ok(())
            });
        }
        command
    }

    /// `ip` in the namespace.
    pub fn ip(&self, args: &str) -> String {
        must(&format!("ip -n {} {args}", self.name))
    }

    /// A line in the namespace.
    ///
    /// # Panics
    /// If it fails.
    pub fn must(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let out = self
            .command(words.next().expect("a command"))
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect(line);
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{line}: {stdout}{stderr}");
        stdout.into_owned()
    }
}

/// Tests run side by side in one process, and both ends of their connections are in it.
fn raise_file_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
        setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the limit of open files");
    });
}

impl Drop for Ns {
    fn drop(&mut self) {
        // Servers' sockets keep a namespace for as long as the process lives. Its devices and their
        // neighbours, of which a machine has 1,024 in all, need not stay.
        let listed = Command::new("ip").args(["-n", &self.name, "-o", "link", "show"]).output();
        let listed = listed.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        for name in listed.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(str::trim) {
            if name != "lo" {
                // One may have gone with another, over which it was.
                let _ = Command::new("ip")
                    .args(["-n", &self.name, "link", "del", name])
                    .stderr(Stdio::null())
                    .status();
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
