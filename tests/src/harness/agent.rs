//! The real binary: start, kill, replace.

use std::{
    fs::DirEntry,
    mem::ManuallyDrop,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use flowpin::{
    datapath::{attach::Attachments, pin::PinDir},
    model::service::parse_backend,
};
use lb_common::abi::programs;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{Ns, eventually, program};

/// An agent in a namespace, with files and pins of its own that go when it does.
pub struct Agent {
    child: Option<Child>,
    /// Which binary is started next.
    pub binary: PathBuf,
    /// Environment it is started with, besides the test's own.
    pub env: Vec<(String, String)>,
    /// A program and its options that it is started by; none: it is started by itself.
    pub under: Vec<String>,
    ns: String,
    dir: TempDir,
    pin_dir: PathBuf,
}

/// The binary under test.
///
/// # Panics
/// If it isn't built.
pub fn binary() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/flowpin");
    let path = std::env::var_os("FLOWPIN_BIN").map_or(default, PathBuf::from);
    assert!(path.exists(), "{} is not there: cargo xtask build --release", path.display());
    path
}

/// What a later version may be: with a further reason and map, and longer records.
///
/// # Panics
/// If it isn't built.
pub fn next_version() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/next/flowpin");
    let path = std::env::var_os("FLOWPIN_NEXT").map_or(default, PathBuf::from);
    assert!(path.exists(), "{} is not there: cargo xtask build-next", path.display());
    path
}

/// Does everything go past the IP stack?
fn all_fast() -> bool {
    std::env::var_os("FLOWPIN_TEST_FAST").is_some()
}

/// The program on interfaces with `tc`.
pub fn tc_program() -> &'static str {
    if all_fast() { programs::TC_FAST } else { programs::TC }
}

/// `[[interface]]` tables. How to attach: `xdp`, `tc`, or past the IP stack: `fast` (by `tc`), `peer`, `xdp-fast`. With `FLOWPIN_TEST_FAST` in the
/// environment everything is. `tc-ingress`, `xdp-ingress`: answers are translated where they come in.
pub fn interfaces(rules: &[(&str, &str)]) -> String {
    let all = all_fast();
    let rule = |(name, how): &(&str, &str)| {
        let (how, fast) = match *how {
            "fast" => ("tc", "true"),
            "peer" => ("tc", "\"peer\""),
            "xdp-fast" => ("xdp", "true"),
            "tc-ingress" => ("tc", "false\nreply = \"ingress\""),
            "xdp-ingress" => ("xdp", "false\nreply = \"ingress\""),
            how => (how, if all { "true" } else { "false" }),
        };
        let more = format!("fast = {fast}\n");
        format!("[[interface]]\nmatch = \"{name}\"\nattach = \"{how}\"\n{more}")
    };
    rules.iter().map(rule).collect()
}

/// The same, where pods are said to be behind each.
pub fn interfaces_of_pods(rules: &[(&str, &str)]) -> String {
    interfaces(rules).replace("[[interface]]\n", "[[interface]]\nrole = \"pod\"\n")
}

/// A `[[service]]` table with backends.
pub fn service(name: &str, vip: &str, ports: &str, backends: &[String], more: &str) -> String {
    let backends: String =
        backends.iter().map(|b| format!("[[service.backend]]\naddress = \"{b}\"\n")).collect();
    format!("[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nports = [{ports}]\n{more}\n{backends}")
}

impl Agent {
    /// Prepares an agent with this configuration (everything but `[agent]`), not started.
    pub fn prepare(ns: &Ns, config: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let pin_dir = Path::new("/sys/fs/bpf").join(&ns.name);
        let agent = Self {
            child: None,
            binary: binary(),
            env: Vec::new(),
            under: Vec::new(),
            ns: ns.name.clone(),
            dir,
            pin_dir,
        };
        agent.write_config(config);
        agent
    }

    /// Starts an agent with this configuration and waits until it is ready.
    pub fn start(ns: &Ns, config: &str) -> Self {
        let mut agent = Self::prepare(ns, config);
        agent.up();
        agent
    }

    /// Replaces the configuration file.
    pub fn write_config(&self, config: &str) {
        let (dir, pins) = (self.dir.path().display(), self.pin_dir.display());
        // max_flows is for tests that don't say: tables of a million would take their time and memory each.
        let conntrack = if config.contains("[conntrack]") { "" } else { "[conntrack]\nmax_flows = 131072\n" };
        let text = format!(
            "[agent]\napi_socket = \"{dir}/api.sock\"\nmetrics_listen = \"127.0.0.1:9479\"\npin_dir = \"{pins}\"\n\
             state_file = \"{dir}/state.json\"\n{conntrack}{config}"
        );
        std::fs::write(self.config(), text).expect("config");
        // With a password in it, the agent would warn of a file that all can read.
        let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.config(), owner).expect("its mode");
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("flowpin.toml")
    }
    /// The state file.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state.json")
    }
    /// The pin directory.
    pub fn pins(&self) -> &Path {
        &self.pin_dir
    }

    /// Starts the binary; does not wait.
    pub fn spawn(&mut self, args: &[&str]) {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.path().join("log"))
            .expect("log");
        let ns = Ns { name: self.ns.clone() };
        let binary = self.binary.to_str().expect("UTF-8");
        let mut words = self.under.iter().map(String::as_str).chain([binary]);
        let mut command = ns.command(words.next().expect("a binary"));
        std::mem::forget(ns);
        command.args(words).envs(self.env.iter().cloned());
        let config = self.config();
        command
            .arg("agent")
            .arg("--config")
            .arg(config)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("the agent starts"));
    }

    /// Starts the binary and waits until it answers and is ready.
    pub fn up(&mut self) {
        self.spawn(&[]);
        eventually("the agent is ready", Duration::from_secs(120), || {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                panic!("the agent ended: {status}\n{}", self.log());
            }
            UnixStream::connect(self.dir.path().join("api.sock")).map_err(|e| e.to_string())?;
            // While the kernel verifies programs, which is slow under emulation, there may be no answer.
            let out = self.cli(&["status", "-o", "json"]);
            let status: Value = serde_json::from_slice(&out.stdout)
                .map_err(|_| String::from_utf8_lossy(&out.stderr).into_owned())?;
            if status["state"] == "ok" { Ok(()) } else { Err(status["problems"].to_string()) }
        });
    }

    /// Waits until it answers, whatever state it is in.
    pub fn answers(&self) {
        eventually("the agent answers", Duration::from_secs(120), || {
            let socket = self.dir.path().join("api.sock");
            UnixStream::connect(socket).map(drop).map_err(|e| format!("{e}\n{}", self.log()))
        });
    }

    /// It will be started in another namespace; files and pins stay its own.
    pub fn move_to(&mut self, ns: &Ns) {
        self.ns.clone_from(&ns.name);
    }

    /// What the agent logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its process.
    ///
    /// # Panics
    /// None is running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running agent").id()
    }

    /// Seconds of CPU that its process has had (proc(5): utime and stime).
    ///
    /// # Panics
    /// None is running.
    pub fn cpu(&self) -> f64 {
        program::cpu(self.pid())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running agent");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("kill");
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        self.signal(signal);
        self.child.take().expect("a running agent").wait().expect("wait")
    }

    /// Waits until it has ended, or logs a word for another time. True: it has ended.
    pub fn ends_before(&mut self, word: &str) -> bool {
        let before = self.log().matches(word).count();
        eventually("the agent ends or goes on", Duration::from_secs(120), || {
            let child = self.child.as_mut().expect("a started agent");
            if child.try_wait().expect("wait").is_some() {
                self.child = None;
                return Ok(true);
            }
            if self.log().matches(word).count() > before { Ok(false) } else { Err(word.into()) }
        })
    }

    /// Waits for an agent that ends by itself; its exit code and log.
    pub fn fails(&mut self) -> (Option<i32>, String) {
        let status = self.child.take().expect("a started agent").wait().expect("wait");
        (status.code(), self.log())
    }

    /// The command line.
    pub fn cli(&self, args: &[&str]) -> Output {
        let socket = self.dir.path().join("api.sock");
        Command::new(&self.binary)
            .arg("--api-socket")
            .arg(socket)
            .args(args)
            .output()
            .expect("the command line runs")
    }

    /// The command line, started and not waited for.
    pub fn spawn_cli(&self, args: &[&str], stdout: Stdio) -> Child {
        let mut command = Command::new(&self.binary);
        command.arg("--api-socket").arg(self.dir.path().join("api.sock")).args(args);
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
        command.spawn().expect("the command line runs")
    }

    /// The command line, insisting on success.
    ///
    /// # Panics
    /// With what it said.
    pub fn done(&self, args: &[&str]) -> String {
        let out = self.cli(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// The command line's JSON, whatever the exit code.
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.cli(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|_| panic!("{args:?}: {}\n{}", String::from_utf8_lossy(&out.stderr), self.log()))
    }

    /// Active connections of a service's backends, in the order of their addresses as numbers: that of the topology's
    /// machines. The command lists them by text, and so fd02:1::2 before fd02::2.
    pub fn active(&self, service: &str) -> Vec<u64> {
        let view = self.json(&["service", "show", service]);
        let mut counts: Vec<_> = view["backends"]
            .as_array()
            .expect("backends")
            .iter()
            .map(|b| {
                let text = b["address"].as_str().expect("an address");
                let address = parse_backend(service, text).expect("an address, perhaps with a port");
                (address, b["active_connections"].as_u64().expect("a count"))
            })
            .collect();
        counts.sort_unstable();
        counts.into_iter().map(|(_, count)| count).collect()
    }

    /// Waits for so many further walks over the flow tables.
    pub fn sweeps(&self, count: u64) -> Value {
        let first = self.json(&["status"])["sweeps"].as_u64().unwrap_or(0);
        eventually("the sweeper goes on", Duration::from_secs(60), || {
            let status = self.json(&["status"]);
            let now = status["sweeps"].as_u64().unwrap_or(0);
            if now >= first + count { Ok(status) } else { Err(format!("{now} sweeps")) }
        })
    }
}

impl Agent {
    /// Filters on clsact qdiscs (before Linux 6.6) don't go with their pins.
    fn take_filters_off(&self) {
        let links = std::fs::read_dir(self.pin_dir.join("links"));
        let is_filter = |entry: &DirEntry| entry.file_name().to_string_lossy().contains("clsact");
        let there = Path::new("/run/netns").join(&self.ns).exists();
        if !there || !links.into_iter().flatten().flatten().any(|entry| is_filter(&entry)) {
            return;
        }
        let ns = ManuallyDrop::new(Ns { name: self.ns.clone() });
        ns.run(|| {
            // The next world shows if it failed: its packets meet programs whose maps are gone.
            let _ = PinDir::open(&self.pin_dir).and_then(|pins| Attachments::new(&pins).detach_all());
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() && self.child.is_some() {
            for args in [["status", "-o", "json"], ["stats", "-o", "table"]] {
                let out = self.cli(&args);
                let text = String::from_utf8_lossy(&out.stdout);
                let shown: String = text.lines().take(60).flat_map(|l| [l, "\n"]).collect();
                eprintln!("--- {args:?}\n{shown}");
            }
            eprintln!("--- log\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.take_filters_off();
        let _ = std::fs::remove_dir_all(&self.pin_dir);
    }
}
