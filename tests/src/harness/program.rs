//! Programs that others wrote, as servers in a namespace.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};
use tempfile::TempDir;

use super::{Ns, eventually};

/// Seconds of CPU that a process has had (proc(5): utime and stime).
///
/// # Panics
/// There is no such process.
pub fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let second = sysconf(SysconfVar::CLK_TCK).expect("ticks").expect("a number") as f64;
    [11, 12].iter().map(|i| fields[*i].parse::<f64>().expect("a number")).sum::<f64>() / second
}

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

    /// Seconds of CPU that it has had.
    pub fn cpu(&self) -> f64 {
        cpu(self.child.id())
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

/// A NATS server in a namespace, at port 4222, that lets anybody say anything.
///
/// # Panics
/// It isn't installed.
pub fn nats_server(ns: &Ns) -> Program {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let binary = cache.expect("HOME").join("flowpin/nats/nats-server");
    Program::start(ns, binary.to_str().expect("UTF-8"), &["-a", "0.0.0.0", "-p", "4222"]).listening(ns, 4222)
}

/// PostgreSQL in a namespace, at port 5432, for whoever comes as `postgres`.
///
/// # Panics
/// It isn't installed.
pub fn postgres(ns: &Ns) -> Program {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8").to_string();
    finish(Command::new("chown").args(["postgres", &path]));
    let data = format!("{path}/data");
    let initdb = as_postgres(&find("initdb"));
    let how = ["-D", &data, "-A", "trust", "--no-sync", "-U", "postgres"];
    finish(ns.command("setpriv").args(&initdb).args(how));
    let write = |file: &str, text: &str| std::fs::write(format!("{data}/{file}"), text).expect("a file");
    let conf = "listen_addresses = '*'\nfsync = off\nshared_buffers = '16MB'\nmax_connections = 60\n";
    write("postgresql.auto.conf", conf);
    write("pg_hba.conf", "host all all all trust\nlocal all all trust\n");
    let server = as_postgres(&find("postgres"));
    let args: Vec<&str> =
        server.iter().map(String::as_str).chain(["-D", "{dir}/data", "-k", "{dir}"]).collect();
    let program = Program::start_in(dir, ns, "setpriv", &args).listening(ns, 5432);
    eventually("PostgreSQL takes connections", Duration::from_secs(20), || {
        let mut psql = ns.command("psql");
        let out = psql.args(["-h", "127.0.0.1", "-U", "postgres", "-c", "select 1"]).output().expect("psql");
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    });
    program
}

/// A command as the user `postgres`, which is the only one that the server accepts to be.
fn as_postgres(program: &Path) -> [String; 4] {
    ["--reuid=postgres", "--regid=postgres", "--clear-groups", program.to_str().expect("UTF-8")]
        .map(String::from)
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
