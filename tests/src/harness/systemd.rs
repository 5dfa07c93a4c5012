//! A systemd of its own for a test: process 1 of namespaces that go with it, and `packaging/flowpin.service` as it is
//! delivered.

use std::{
    fs::{self, read_to_string, write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use flowpin::datapath::sockets::cgroup;
use serde_json::Value;
use tempfile::TempDir;

use super::{Ns, agent, eventually};

/// The delivered unit file.
pub const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/flowpin.service");

/// What systemd has at hand of other units: those that every unit asks for, empty.
const TARGETS: [&str; 5] = ["sysinit", "basic", "shutdown", "network-pre", "umount"];

/// Makes a machine of the namespaces it is run in, and becomes its systemd. Sysctls that aren't of the network namespace
/// can't be written.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/test /run/lock
mount --bind "$DIRECTORY" /run/test
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net
mount --bind /run/test/console /dev/console
mount -t tmpfs tmpfs /usr/local/bin
touch /usr/local/bin/flowpin
mount --bind "$BINARY" /usr/local/bin/flowpin
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /tmp
cp -a /etc /run/etc
mount --bind /run/etc /etc
mkdir -p /etc/flowpin
cp /run/test/flowpin.toml /etc/flowpin/
exec env -i container=flowpin SYSTEMD_UNIT_PATH=/run/test/units SYSTEMD_GENERATOR_PATH=/nowhere \
    /lib/systemd/systemd --system --unit=test.target --log-target=console --show-status=0
"#;

/// A running systemd, with the agent as its service.
pub struct Systemd {
    child: Child,
    cgroup: PathBuf,
    dir: TempDir,
}

impl Systemd {
    /// Boots in a network namespace, with an agent that has this configuration. `more`: lines for the unit's `[Service]`
    /// section.
    ///
    /// # Panics
    /// Without root.
    pub fn boot(ns: &Ns, config: &str, more: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let units = dir.path().join("units");
        fs::create_dir_all(units.join("flowpin.service.d")).expect("directories");
        fs::copy(UNIT, units.join("flowpin.service")).expect("the unit file");
        let more = format!("[Service]\nStandardError=append:/run/test/log\n{more}");
        write(units.join("flowpin.service.d/more.conf"), more).expect("a file");
        for target in TARGETS {
            write(units.join(format!("{target}.target")), "[Unit]\nDefaultDependencies=no\n")
                .expect("a file");
        }
        let target = "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nWants=flowpin.service\n";
        write(units.join("test.target"), target).expect("a file");
        write(dir.path().join("flowpin.toml"), config).expect("a file");
        write(dir.path().join("console"), "").expect("a file");
        let cgroup = cgroup(None).unwrap_or_else(|e| panic!("{e}")).join(&ns.name);
        fs::create_dir(&cgroup).expect("a cgroup");
        let mut command = ns.command("sh");
        command.args(["-c", "echo $$ >$CGROUP/cgroup.procs; exec \"$@\"", "sh", "unshare", "--fork"]);
        command.args(["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--kill-child", "sh", "-c", BOOT]);
        command.env("CGROUP", &cgroup).env("DIRECTORY", dir.path()).env("BINARY", agent::binary());
        let output = fs::File::create(dir.path().join("boot")).expect("a file");
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        let mut systemd = Self { child: command.spawn().expect("a shell"), cgroup, dir };
        eventually("systemd listens", Duration::from_secs(60), || {
            if let Ok(Some(status)) = systemd.child.try_wait() {
                panic!("systemd ended: {status}\n{}", systemd.said());
            }
            let socket = systemd.root().join("run/systemd/private");
            UnixStream::connect(socket).map(drop).map_err(|e| format!("{e}\n{}", systemd.said()))
        });
        systemd
    }

    /// What systemd and the agent have said.
    pub fn said(&self) -> String {
        let read = |name: &str| read_to_string(self.dir.path().join(name)).unwrap_or_default();
        ["boot", "console", "log"].map(read).concat()
    }

    /// Replaces the agent's configuration.
    pub fn write_config(&self, text: &str) {
        write(self.root().join("etc/flowpin/flowpin.toml"), text).expect("the configuration");
    }

    /// Process 1, as the host knows it.
    fn init(&self) -> Option<u32> {
        let parent = self.child.id();
        let children = read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        children.trim().parse().ok()
    }

    fn root(&self) -> PathBuf {
        Path::new("/proc").join(self.init().map_or("gone".into(), |pid| pid.to_string())).join("root")
    }

    /// `systemctl`.
    pub fn ctl(&self, args: &[&str]) -> Output {
        let init =
            self.init().map_or_else(|| panic!("systemd ended:\n{}", self.said()), |pid| pid.to_string());
        let enter = ["--target", &init, "--all", "systemctl"];
        Command::new("nsenter").args(enter).args(args).stdin(Stdio::null()).output().expect("nsenter")
    }

    /// A property of the service.
    pub fn property(&self, name: &str) -> String {
        let out = self.ctl(&["show", "flowpin.service", "--value", "--property", name]);
        String::from_utf8_lossy(&out.stdout).trim().into()
    }

    /// Waits until the agent has said that it is ready, and answers.
    pub fn ready(&self) {
        eventually("the service is active", Duration::from_secs(120), || {
            let state = self.property("ActiveState");
            if state == "active" { Ok(()) } else { Err(format!("{state}\n{}", self.said())) }
        });
    }

    /// The command line, insisting on success; JSON.
    ///
    /// # Panics
    /// With what it and the agent said.
    pub fn cli(&self, args: &[&str]) -> Value {
        let socket = self.root().join("run/flowpin/api.sock");
        let mut command = Command::new(agent::binary());
        let out = command.arg("--api-socket").arg(socket).args(args).args(["-o", "json"]).output();
        let out = out.expect("the command line");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {said}\n{}", self.said());
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    }

    /// The agent's process, as the host knows it.
    ///
    /// # Panics
    /// There is none.
    pub fn agent(&self) -> u32 {
        let init = self.init().expect("systemd");
        let children = read_to_string(format!("/proc/{init}/task/{init}/children")).expect("processes");
        let is_agent = |pid: &&str| {
            read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "flowpin")
        };
        let found = children.split_whitespace().find(is_agent);
        found.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no agent:\n{}", self.said()))
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // With its parent goes process 1, with that all the others.
        let _ = self.child.kill();
        let _ = self.child.wait();
        eventually("the cgroup is empty", Duration::from_secs(20), || {
            remove(&self.cgroup).map_err(|e| format!("{}: {e}", self.cgroup.display()))
        });
    }
}

/// Removes a cgroup and those in it.
fn remove(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove(&entry.path())?;
    }
    fs::remove_dir(cgroup)
}
