//! A check by a program: without a shell, with a clean environment, and ended with all that it has started when its time
//! is over. Only the config file can name one ([`crate::model::ModelError::ExecNotOfFile`]).

use std::{
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use futures::{FutureExt as _, future::FusedFuture as _};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::{Instant, timeout, timeout_at},
};

use super::probe::Failure;

/// Where programs look for others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of what a program says so many bytes are kept; the rest is read and forgotten, so that it never waits for a reader.
const KEPT: usize = 1024;
/// When a program has ended, what it said last is waited for so long: something that it left behind may have its output.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A program's process group, which is killed with this.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nobody has waited for the leader, so that the number is still this group's. It may have ended by itself.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

/// Runs it for a backend of a service. `late` says that it took too long.
///
/// # Errors
/// It doesn't end with status 0, or not in time, or can't be run.
pub async fn run(
    command: &[String],
    service: &str,
    to: SocketAddr,
    deadline: Instant,
    late: &str,
) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::Here("no program is named; write one in health.command".into()));
    };
    let (address, port) = (to.ip().to_string(), to.port().to_string());
    let filled = |text: &String| text.replace("{address}", &address).replace("{port}", &port);
    let mut child = Command::new(program)
        .args(arguments.iter().map(filled))
        .env_clear()
        .env("PATH", PATH)
        .env("FLOWPIN_SERVICE", service)
        .env("FLOWPIN_BACKEND_ADDRESS", &address)
        .env("FLOWPIN_BACKEND_PORT", &port)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        // Whatever keeps a program from starting is the node's.
        .map_err(|e| Failure::Here(format!("{program} can't be started: {e}")))?;
    // Declared after the child, so that it is dropped, and kills, before anybody waits for the child.
    let leader = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(leader.map(Pid::from_raw));
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::join!(keep(stdout, &mut said), keep(stderr, &mut complained)) };
    let ended = {
        let mut reading = Box::pin(reading.fuse());
        let waiting = async {
            tokio::select! {
                ended = child.wait() => ended,
                _ = &mut reading => child.wait().await,
            }
        };
        let ended = timeout_at(deadline, waiting).await;
        if ended.is_ok() {
            group.0 = None;
            if !reading.is_terminated() {
                let _ = timeout(LAST_WORDS, reading).await;
            }
        }
        ended
    };
    drop(group);
    let words = first_line(&complained).or_else(|| first_line(&said));
    match ended {
        Ok(Ok(status)) => judge(status, words),
        Ok(Err(e)) => Err(Failure::Here(format!("{program} can't be waited for: {e}"))),
        Err(_) => Err(match words {
            Some(words) => format!("{late}; it said: {words}").into(),
            None => late.to_string().into(),
        }),
    }
}

/// What an end means.
fn judge(status: ExitStatus, words: Option<String>) -> Result<(), Failure> {
    let how = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        // A watchdog of its own, as timeout(1), does that as well.
        (_, Some(libc::SIGKILL)) => "killed; it may have its own time limit, or the node lacks memory".into(),
        (_, Some(signal)) => format!("signal {signal}"),
        (code, None) => format!("exit status {}", code.unwrap_or(-1)),
    };
    Err(match words {
        Some(words) => format!("{words} ({how})").into(),
        None => how.into(),
    })
}

/// Reads all that comes and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut some = [0; 1024];
    while let Ok(n @ 1..) = from.read(&mut some).await {
        let room = KEPT - kept.len();
        kept.extend_from_slice(&some[..n.min(room)]);
    }
}

/// The first line that says anything.
fn first_line(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(String::from)
}

#[cfg(test)]
mod tests;
