//! Programs that others wrote, as servers in a namespace.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{Ns, eventually};

/// A running program. Interrupted, and failing that killed, when it goes out of scope.
pub struct Program {
    child: Child,
    name: String,
    dir: TempDir,
}

impl Program {
    /// Starts a program in a namespace; what it says is kept in its directory. `{dir}` in an argument stands for the directory.
    ///
    /// # Panics
    /// The program isn't installed.
    pub fn start(ns: &Ns, program: &str, args: &[&str]) -> Self {
        Self::start_in(TempDir::new().expect("a directory"), ns, program, args)
    }

    /// The same in a directory that was prepared.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_in(dir: TempDir, ns: &Ns, program: &str, args: &[&str]) -> Self {
        let log = std::fs::File::create(dir.path().join("log")).expect("log");
        let mut command = ns.command(program);
        for arg in args {
            command.arg(arg.replace("{dir}", dir.path().to_str().expect("UTF-8")));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        let child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}; scripts/setup installs it"));
        Self { child, name: program.into(), dir }
    }

    /// Waits until it listens on a TCP port of its namespace.
    ///
    /// # Panics
    /// It ends, or doesn't within 20 s.
    pub fn listening(mut self, ns: &Ns, port: u16) -> Self {
        eventually(&format!("{} listens", self.name), Duration::from_secs(20), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended: {status}\n{}", self.name, self.log());
            }
            let connect = || std::net::TcpStream::connect(("127.0.0.1", port));
            ns.run(connect).map(drop).map_err(|e| format!("{e}\n{}", self.log()))
        });
        self
    }

    /// Kills it.
    ///
    /// # Panics
    /// It has ended by itself.
    pub fn kill(mut self) {
        assert!(matches!(self.child.try_wait(), Ok(None)), "{} ended by itself\n{}", self.name, self.log());
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.log());
        }
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT);
        for _ in 0..200 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            eventually::pass(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program is that packages put beside the usual paths (`/usr/lib/postgresql/*/bin`).
///
/// # Panics
/// It isn't installed.
pub fn find(name: &str) -> PathBuf {
    let beside = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        beside.map(|d| d.path().join("bin").join(name)).filter(|p| p.exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        let usual = Path::new("/usr/bin").join(name);
        assert!(usual.exists(), "{name} is not installed: scripts/setup installs it");
        usual
    })
}

/// Runs a program in a namespace to its end and insists on success; what it said.
///
/// # Panics
/// With what it said.
pub fn run(ns: &Ns, program: &str, args: &[&str]) -> String {
    finish(ns.command(program).args(args))
}

/// Runs a command to its end and insists on success; what it said.
///
/// # Panics
/// With what it said.
pub fn finish(command: &mut Command) -> String {
    let out = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; scripts/setup installs it"));
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{stdout}{stderr}", out.status);
    stdout.into_owned()
}
