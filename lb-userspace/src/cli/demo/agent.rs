//! The agent of a demo: this executable, in the node's namespace, with files, pins and sockets of its own.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    net::UnixDatagram,
    time::{Instant, timeout},
};

use super::{netns::within, world};

/// How long it may take until it is ready: the kernel verifies the programs meanwhile.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked at whether there is still somebody to wait for.
const LOOK: Duration = Duration::from_millis(200);

/// See the module. It is killed when dropped.
pub struct Agent {
    tag: String,
    directory: PathBuf,
    /// Where it says that it is ready, as to systemd.
    ready: UnixDatagram,
    child: Option<Child>,
}

impl Agent {
    /// Writes its configuration.
    ///
    /// # Errors
    /// Its directory is there already, or can't be written.
    pub fn prepare(tag: &str) -> anyhow::Result<Self> {
        let directory = world::directory(tag);
        let shown = directory.display().to_string();
        // Not one that somebody else has made, in a place where all may write.
        DirBuilder::new().mode(0o700).create(&directory).with_context(|| shown.clone())?;
        let config = format!(
            "[agent]\napi_socket = \"{shown}/api.sock\"\npin_dir = \"{}\"\nstate_file = \"{shown}/state.json\"\n\n\
             [conntrack]\nmax_flows = 65536\n\n\
             [[interface]]\nmatch = \"client\"\nattach = \"tc\"\nrole = \"uplink\"\n\n\
             [[interface]]\nmatch = \"b?\"\nattach = \"tc\"\n",
            world::pins(tag).display()
        );
        fs::write(directory.join("flowpin.toml"), config).with_context(|| shown.clone())?;
        let ready = UnixDatagram::bind(directory.join("notify")).with_context(|| shown)?;
        Ok(Self { tag: tag.into(), directory, ready, child: None })
    }

    /// Its API.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("api.sock")
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.join("flowpin.toml")
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Errors
    /// The last line of its log, if it ends or isn't ready in time.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("agent").arg("--config").arg(self.config());
        command.env("NOTIFY_SOCKET", self.directory.join("notify"));
        command.env("FLOWPIN_API_SOCKET", self.socket());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = within(&self.tag, "node", || command.spawn()).context("flowpin agent")?;
        let child = self.child.insert(child);
        let began = Instant::now();
        let mut message = [0; 256];
        loop {
            match timeout(LOOK, self.ready.recv(&mut message)).await {
                Ok(Ok(n)) if message[..n].starts_with(b"READY=1") => return Ok(()),
                Ok(Err(e)) => return Err(e.into()),
                _ => {}
            }
            let ended = child.try_wait()?;
            if ended.is_some() || began.elapsed() > LIMIT {
                let what = ended.map_or("isn't ready".into(), |status| format!("ended ({status})"));
                let log = fs::read_to_string(self.directory.join("agent.log")).unwrap_or_default();
                bail!("the agent {what}; its last line: {}", log.lines().last().unwrap_or("none"));
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    /// Kills it outright.
    ///
    /// # Errors
    /// It is none of ours any more.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Runs a line of its command line, without "flowpin". What was printed.
    ///
    /// # Errors
    /// What it said.
    pub async fn command(&self, line: &str) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command.args(line.split_whitespace()).env("FLOWPIN_API_SOCKET", self.socket());
        let out = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        if !out.status.success() {
            bail!("flowpin {line}: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).trim_end().into())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // What is left of it, the cleaning up finds.
        let _ = self.kill();
    }
}
