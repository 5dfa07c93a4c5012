//! A kernel under emulation. It gets a task, and what the task says comes back by a serial port, line by line.
//!
//! Emulated (TCG) on purpose: it runs wherever the tests do, virtual machines included, and tells nothing by its speed.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::{
    fetch::{Kernel, output},
    initramfs::{self, Contents},
};

const QEMU: &str = "qemu-system-x86_64";
/// Oldest version of QEMU that will do: guests of 7.2 crash at random.
const OLDEST_QEMU: u32 = 10;
/// MiB that a guest may have. The newest verifier takes more than one GiB for a program at its limit.
const MEMORY: u32 = 3072;
/// Lines of the guest's console that are shown when it ends without a word.
const CONSOLE: usize = 20;

/// A line of a guest's that says something.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// A program was tried.
    Load(Load),
    /// A step was tried.
    Step(Step),
}

/// What the verifier said of a program (`flowpin-guest load --json`).
#[derive(Clone, Debug, Deserialize)]
pub struct Load {
    /// Its name.
    pub program: String,
    /// Instructions that were looked at.
    pub instructions: u32,
    /// Deepest stack in bytes, frames rounded up to 32.
    pub stack: u32,
    /// Milliseconds in the kernel.
    pub millis: u64,
    /// Why it was not loaded.
    pub refused: Option<Refusal>,
}

/// Why a program was not loaded.
#[derive(Clone, Debug, Deserialize)]
pub struct Refusal {
    /// The error.
    pub error: String,
    /// End of the verifier's log.
    pub log: Vec<String>,
}

/// What a step of a round came to (`flowpin-guest round`).
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// Its name.
    pub step: String,
    /// Milliseconds.
    pub millis: u64,
    /// What went wrong.
    pub failed: Option<String>,
}

/// Everything that a guest said.
#[derive(Debug, Default)]
pub struct Report {
    /// Programs, in the order of their names.
    pub loads: Vec<Load>,
    /// Steps, in their order.
    pub steps: Vec<Step>,
}

/// Boots a kernel with a task and hears it to its end, which has to come within `limit`.
///
/// # Errors
/// No QEMU that will do, or the guest ended before its task did.
pub fn run(kernel: &Kernel, cpus: u32, contents: &Contents, limit: Duration) -> anyhow::Result<Report> {
    let work = Work::new(kernel.name)?;
    // The last word of a task that came to its end.
    let task = format!("{}\necho task over\n", contents.task);
    let image = initramfs::make(kernel, &Contents { task: &task, ..*contents }, &work.0)?;
    let console = work.0.join("console");
    let mut qemu = Qemu(
        Command::new(QEMU)
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", &cpus.to_string()])
            .args(["-m", &MEMORY.to_string(), "-nodefaults", "-no-reboot", "-display", "none"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&image)
            .args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off"])
            .args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("qemu: run scripts/setup")?,
    );
    let lines = BufReader::new(qemu.0.stdout.take().context("a pipe")?);
    let (tell, hear) = mpsc::channel();
    thread::spawn(move || {
        // The end of the output is the end of the guest.
        lines.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok())
    });
    let mut report = Report::default();
    let end = Instant::now() + limit;
    loop {
        match hear.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.trim_end() == "task over" => return Ok(report),
            Ok(line) => report.hear(kernel, line.trim_end()),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("{}: not done after {limit:?}", kernel.release),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let console = fs::read(&console).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).into_owned();
    let lines: Vec<&str> = console.lines().collect();
    bail!("{}: ended early:\n{}", kernel.release, lines[lines.len().saturating_sub(CONSOLE)..].join("\n"))
}

/// Is there a QEMU that will do?
///
/// # Errors
/// There is none, with what would be right.
pub fn check_qemu() -> anyhow::Result<()> {
    let version = output(Command::new(QEMU).arg("--version"))?;
    let found = version.split("version ").nth(1).and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    ensure!(
        found.is_some_and(|found| found >= OLDEST_QEMU),
        "{}: QEMU {OLDEST_QEMU} or newer is needed: run scripts/setup",
        version.lines().next().unwrap_or_default()
    );
    Ok(())
}

impl Report {
    fn hear(&mut self, kernel: &Kernel, line: &str) {
        let name = kernel.name;
        match serde_json::from_str(line) {
            Ok(Said::Load(load)) => {
                let Load { program, instructions, stack, millis, refused } = &load;
                println!(
                    "{name}: {program}: {instructions} instructions, {stack} bytes of stack ({millis} ms)"
                );
                if let Some(refusal) = refused {
                    println!("{name}: {program} is refused: {}", refusal.error);
                    refusal.log.iter().for_each(|line| println!("{name}:   | {line}"));
                }
                self.loads.push(load);
            }
            Ok(Said::Step(step)) => {
                let seconds = step.millis / 1000;
                match &step.failed {
                    None => println!("{name}: {} holds ({seconds} s)", step.step),
                    Some(why) => println!("{name}: {} FAILS ({seconds} s): {why}", step.step),
                }
                self.steps.push(step);
            }
            Err(_) => println!("{name}: {line}"),
        }
    }
}

/// A directory that goes at the end.
struct Work(PathBuf);

impl Work {
    fn new(name: &str) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("flowpin-kernel-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all::<&Path>(&self.0);
    }
}

/// A guest that goes at the end.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
