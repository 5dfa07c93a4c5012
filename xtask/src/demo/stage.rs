//! The show.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
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
/// The backend that is drained, in the least-connections service.
const B0: &str = "10.2.0.2:80";

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
    /// Where it says that it is ready, as to systemd.
    ready: UnixDatagram,
    child: Child,
}

impl<'a> Agent<'a> {
    fn start(tag: &'a str) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(tag);
        fs::create_dir_all(&dir)?;
        let services: String = VIPS
            .iter()
            .map(|(algorithm, vip, port)| {
                let backends: String =
                    (0..BACKENDS).map(|i| format!("[[service.backend]]\naddress = \"10.2.{i}.2:{port}\"\n")).collect();
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
        let ready = UnixDatagram::bind(Self::notify_socket(&dir))?;
        ready.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut agent = Self { tag, child: Self::spawn(tag, &dir)?, ready, dir };
        agent.wait()?;
        Ok(agent)
    }

    fn binary() -> PathBuf {
        root().join("target/release/flowpin")
    }

    fn notify_socket(dir: &Path) -> PathBuf {
        dir.join("notify")
    }

    fn spawn(tag: &str, dir: &Path) -> anyhow::Result<Child> {
        let log = fs::File::options().create(true).append(true).open(dir.join("agent.log"))?;
        let binary = Self::binary();
        let mut command = inside(tag, "n", &binary.display().to_string());
        command.arg("agent").arg("--config").arg(dir.join("flowpin.toml"));
        command.env("NOTIFY_SOCKET", Self::notify_socket(dir));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("flowpin agent")
    }

    /// Until it says that it is ready.
    fn wait(&mut self) -> anyhow::Result<()> {
        let log = |agent: &Self| fs::read_to_string(agent.dir.join("agent.log")).unwrap_or_default();
        let start = Instant::now();
        let mut message = [0; 256];
        loop {
            match self.ready.recv(&mut message) {
                Ok(n) if message[..n].starts_with(b"READY=1") => return Ok(()),
                Ok(_) => {}
                // Nothing yet: time to see whether there is still somebody to wait for.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e.into()),
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended ({status}): {}", log(self));
            }
            if start.elapsed() > Duration::from_secs(30) {
                bail!("the agent is not ready: {}", log(self));
            }
        }
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
        let mut server = inside(tag, &format!("b{i}"), &me)
            .args(["role", "serve", &format!("b{i}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let listening = BufReader::new(server.stdout.take().context("a pipe")?).lines().next();
        listening.context("a server did not start")??;
    }
    step("flowpin agent on one node; on the other the iptables rules that kube-proxy writes");
    let mut agent = Agent::start(tag)?;
    step(&format!("{CONNECTIONS} long-lived connections through each VIP, exchanging data all the time"));
    let mut rows = Vec::new();
    let kube = Holder::open(tag, KUBE_VIP, CONNECTIONS)?;
    rows.push(("iptables, random", kube.spread.clone()));
    let mut held = Vec::new();
    for (algorithm, vip, _) in VIPS {
        let holder = Holder::open(tag, vip, CONNECTIONS)?;
        rows.push((algorithm, holder.spread.clone()));
        held.push(holder);
    }
    say(table(&rows));

    step("draining b0: nothing new goes there, what is open stays");
    let drained = agent.cli(&["backend", "drain", "least-connections", B0])?;
    say(format!("  {}", drained.trim()));
    let late = Holder::open(tag, VIPS[0].1, 90)?;
    let new_on_b0 = late.spread["b0"];
    say(format!("  90 more connections: {:?}", late.spread));
    held.push(late);
    if new_on_b0 != 0 {
        bail!("a draining backend got a new connection");
    }
    step("killing the agent (SIGKILL); the kernel goes on without it");
    agent.kill_and_restart(|| {
        let orphan = Holder::open(tag, VIPS[0].1, 30)?;
        say(format!("  30 connections made meanwhile: {:?}", orphan.spread));
        orphan.close()
    })?;
    step("the next agent has taken over what it found");
    agent.cli(&["backend", "undrain", "least-connections", B0])?;
    let mut broken = 0;
    let mut rounds = 0;
    for holder in held.iter_mut() {
        let (r, b) = holder.ask()?;
        (rounds, broken) = (rounds + r, broken + b);
    }
    step(&format!(
        "{} connections through drain, kill and restart: {rounds} rounds of data, {broken} broken",
        held.iter().flat_map(|h| h.spread.values()).sum::<usize>()
    ));
    say(agent.cli(&["backend", "list"])?);
    for holder in held.into_iter().chain([kube]) {
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
        ["OPEN CONNECTIONS".to_string()]
            .into_iter()
            .chain(names)
            .chain(["min", "max", "max/mean"].map(String::from)),
    );
    for (name, spread) in rows {
        let min = spread.values().min().copied().unwrap_or(0);
        let max = spread.values().max().copied().unwrap_or(0);
        let mean = spread.values().sum::<usize>() as f64 / BACKENDS as f64;
        let counts = spread.values().map(ToString::to_string);
        builder.push_record([(*name).to_string()].into_iter().chain(counts).chain([
            min.to_string(),
            max.to_string(),
            format!("{:.3}", max as f64 / mean),
        ]));
    }
    builder.build().with(Style::rounded()).to_string()
}
