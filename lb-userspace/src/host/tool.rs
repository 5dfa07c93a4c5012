//! Programs that know the host's rules: `iptables-save`, `nft`, `ipset`.

use std::{path::PathBuf, process::Stdio, time::Duration};

use nix::sys::signal::SigSet;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where they are that a service's PATH may lack.
const PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

fn paths() -> String {
    std::env::var("PATH").map_or(PATHS.into(), |path| format!("{path}:{PATHS}"))
}

/// Is it installed?
pub fn is_installed(tool: &str) -> bool {
    paths().split(':').any(|dir| PathBuf::from(dir).join(tool).is_file())
}

/// What it says on stdout when it is told this.
///
/// # Errors
/// It isn't installed, takes too long, or fails: one line with what it said.
pub async fn run(tool: &str, args: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(tool);
    command.args(args).env("PATH", paths()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: pthread_sigmask(3) may be called between fork and exec.
    unsafe { command.pre_exec(|| Ok(SigSet::all().thread_unblock()?)) };
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("{tool} isn't installed"),
        _ => format!("{tool}: {e}"),
    })?;
    let mut stdin = child.stdin.take();
    let told = async {
        if let Some(stdin) = stdin.as_mut() {
            // What it doesn't read it will complain of.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        drop(stdin);
    };
    let both = async { tokio::join!(told, child.wait_with_output()).1 };
    let out = match timeout(PATIENCE, both).await {
        Ok(out) => out.map_err(|e| format!("{tool}: {e}"))?,
        Err(_) => return Err(format!("{tool} takes more than {} seconds", PATIENCE.as_secs())),
    };
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(format!("{tool}: {}", if said.is_empty() { out.status.to_string() } else { said.join("; ") }))
}
