//! The show.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use tabled::{builder::Builder, settings::Style};

use super::world::{self, BACKENDS, KUBE_VIP, VIPS, inside, pins};
use crate::root;

/// Connections through each VIP.
const CONNECTIONS: usize = 400;

/// Clients that hold connections open.
struct Holder {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    spread: BTreeMap<String, usize>,
}

impl Holder {
    fn open(tag: &str, vip: &str, count: usize) -> anyhow::Result<Self> {
        let me = std::env::current_exe()?;
        let mut child = inside(tag, "c", &me.display().to_string())
            .args(["role", "hold", &format!("{vip}:80"), &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("a pipe")?;
        let mut output = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let mut spread: BTreeMap<String, usize> = (0..BACKENDS).map(|i| (format!("b{i}"), 0)).collect();
        for (name, n) in line.split_whitespace().filter_map(|p| p.split_once('=')) {
            spread.insert(name.into(), n.parse()?);
        }
        if spread.values().sum::<usize>() != count {
            bail!("only {spread:?} of {count} connections through {vip} were made");
        }
        Ok(Self { child, input, output, spread })
    }

    /// Rounds of data exchanged on all connections so far, and how many connections broke.
    fn ask(&mut self) -> anyhow::Result<(u64, u64)> {
        writeln!(self.input)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let (rounds, broken) = line.trim().split_once(' ').context("the clients are gone")?;
        Ok((rounds.parse()?, broken.parse()?))
    }

    fn close(mut self) -> anyhow::Result<()> {
        drop(self.input);
        self.child.wait()?;
        Ok(())
    }
}

/// The agent on node n.
struct Agent<'a> {
    tag: &'a str,
    dir: PathBuf,
    child: Child,
}

impl<'a> Agent<'a> {
    fn start(tag: &'a str) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(tag);
        fs::create_dir_all(&dir)?;
        let services: String = VIPS
            .iter()
            .map(|(algorithm, vip)| {
                let backends: String =
                    (0..BACKENDS).map(|i| format!("[[service.backend]]\naddress = \"10.2.{i}.2\"\n")).collect();
                format!(
                    "[[service]]\nname = \"{algorithm}\"\nvip = \"{vip}\"\nports = [\"80/tcp\"]\nalgorithm = \"{algorithm}\"\n{backends}"
                )
            })
            .collect();
        let shown = dir.display();
        let config = format!(
            "[agent]\napi_socket = \"{shown}/api.sock\"\npin_dir = \"{}\"\nstate_file = \"{shown}/state.json\"\n\
             [[interface]]\nmatch = \"[bc]*\"\nattach = \"tc\"\n{services}",
            pins(tag)
        );
        fs::write(dir.join("flowpin.toml"), config)?;
        let mut agent = Self { tag, child: Self::spawn(tag, &dir)?, dir };
        agent.wait()?;
        Ok(agent)
    }

    fn binary() -> PathBuf {
        root().join("target/release/flowpin")
    }

    fn spawn(tag: &str, dir: &std::path::Path) -> anyhow::Result<Child> {
        let log = fs::File::options().create(true).append(true).open(dir.join("agent.log"))?;
        let binary = Self::binary();
        let mut command = inside(tag, "n", &binary.display().to_string());
        command.arg("agent").arg("--config").arg(dir.join("flowpin.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("flowpin agent")
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.cli(&["status"]).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended ({status}): {}", fs::read_to_string(self.dir.join("agent.log"))?);
            }
            if start.elapsed() > Duration::from_secs(30) {
                bail!("the agent is not ready: {}", fs::read_to_string(self.dir.join("agent.log"))?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn cli(&self, args: &[&str]) -> anyhow::Result<String> {
        let out = Command::new(Self::binary())
            .arg("--api-socket")
            .arg(self.dir.join("api.sock"))
            .args(args)
            .output()?;
        if !out.status.success() {
            bail!("{}", String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    fn kill_and_restart(&mut self, between: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        between()?;
        self.child = Self::spawn(self.tag, &self.dir)?;
        self.wait()
    }
}

/// See the module.
pub fn run(tag: &str) -> anyhow::Result<()> {
    let bar = ProgressBar::new(8);
    // Printed past the bar, so that it is there also when nobody watches a terminal.
    let say = |text: String| bar.suspend(|| println!("{text}"));
    let step = |text: &str| {
        bar.inc(1);
        say(format!("• {text}"));
    };
    step("a client, two nodes and four backends, in network namespaces");
    world::build(tag)?;
    let me = std::env::current_exe()?.display().to_string();
    for i in 0..BACKENDS {
        inside(tag, &format!("b{i}"), &me)
            .args(["role", "serve", &format!("b{i}")])
            .stdin(Stdio::null())
            .spawn()?;
    }
    step("flowpin agent on one node; on the other the iptables rules that kube-proxy writes");
    let mut agent = Agent::start(tag)?;
    step(&format!("{CONNECTIONS} long-lived connections through each VIP, exchanging data all the time"));
    let mut rows = Vec::new();
    let kube = Holder::open(tag, KUBE_VIP, CONNECTIONS)?;
    rows.push(("iptables, random", kube.spread.clone()));
    let mut held = Vec::new();
    for (algorithm, vip) in VIPS {
        let holder = Holder::open(tag, vip, CONNECTIONS)?;
        rows.push((algorithm, holder.spread.clone()));
        held.push(holder);
    }
    say(table(&rows));

    step("draining b0: nothing new goes there, what is open stays");
    let drained = agent.cli(&["backend", "drain", "least-connections", "10.2.0.2"])?;
    say(format!("  {}", drained.trim()));
    let late = Holder::open(tag, VIPS[0].1, 90)?;
    say(format!("  90 more connections: {:?}", late.spread));
    if late.spread["b0"] != 0 {
        bail!("a draining backend got a new connection");
    }
    step("killing the agent (SIGKILL); the kernel goes on without it");
    agent.kill_and_restart(|| {
        let orphan = Holder::open(tag, VIPS[0].1, 30)?;
        say(format!("  30 connections made meanwhile: {:?}", orphan.spread));
        orphan.close()
    })?;
    step("the next agent has taken over what it found");
    agent.cli(&["backend", "undrain", "least-connections", "10.2.0.2"])?;
    let mut broken = 0;
    let mut rounds = 0;
    for holder in held.iter_mut() {
        let (r, b) = holder.ask()?;
        (rounds, broken) = (rounds + r, broken + b);
    }
    step(&format!(
        "{} connections through drain, kill and restart: {rounds} rounds of data, {broken} broken",
        2 * CONNECTIONS
    ));
    say(agent.cli(&["backend", "list"])?);
    for holder in held.into_iter().chain([kube, late]) {
        holder.close()?;
    }
    step("cleaning up");
    bar.finish_and_clear();
    agent.child.kill()?;
    agent.child.wait()?;
    if broken > 0 {
        bail!("{broken} connections broke");
    }
    Ok(())
}

fn table(rows: &[(&str, BTreeMap<String, usize>)]) -> String {
    let mut builder = Builder::default();
    let names = (0..BACKENDS).map(|i| format!("b{i}"));
    builder.push_record(
        ["OPEN CONNECTIONS".to_string()].into_iter().chain(names).chain(["max/mean".to_string()]),
    );
    for (name, spread) in rows {
        let max = spread.values().max().copied().unwrap_or(0) as f64;
        let mean = spread.values().sum::<usize>() as f64 / BACKENDS as f64;
        let counts = spread.values().map(ToString::to_string);
        builder.push_record(
            [(*name).to_string()].into_iter().chain(counts).chain([format!("{:.3}", max / mean)]),
        );
    }
    builder.build().with(Style::rounded()).to_string()
}
