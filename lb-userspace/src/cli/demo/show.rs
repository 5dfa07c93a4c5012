//! The steps of a demo.

use anyhow::{bail, ensure};
use tokio::task::JoinSet;

use super::{
    agent::Agent,
    clients::Clients,
    kube_proxy, servers,
    step::{Counts, Teller},
    world::{self, KUBE_VIP, PORT, VIP, address},
};
use crate::cli::output::Printer;

/// Backends at the beginning; one more comes with the scale-out.
const AT_FIRST: usize = 4;
/// Connections at the beginning.
const CONNECTIONS: usize = 200;

/// The first lines.
const INTRODUCTION: &str = "\
A client, two nodes and five backends, in network namespaces. On one node runs Flowpin.
Whatever the demo makes goes when it ends.";

/// All that runs. It ends when this is dropped.
struct Show {
    tag: String,
    tell: Teller,
    agent: Agent,
    flowpin: Clients,
    /// `None`: without iptables.
    random: Option<Clients>,
    _servers: JoinSet<()>,
}

/// Shows all of it.
///
/// # Errors
/// Why it can't be shown, or what wasn't as it should be.
pub async fn run(tag: String, printer: Printer) -> anyhow::Result<()> {
    let tell = Teller::new(printer);
    let agent = Agent::prepare(&tag)?;
    tell.text(INTRODUCTION)?;
    tell.text(&format!(
        "\nTo watch from another terminal, as root:\n    export FLOWPIN_API_SOCKET={}\n    flowpin top\n    flowpin events -f",
        agent.socket().display()
    ))?;
    world::build(&tag)?;
    let servers = servers::start(&tag)?;
    let flowpin = Clients::new(&tag, VIP)?;
    let mut show = Show { tag, tell, agent, flowpin, random: None, _servers: servers };
    show.service().await?;
    show.spread().await?;
    show.scale_out().await?;
    show.drain().await?;
    show.kill().await?;
    show.remove().await?;
    show.sum_up().await
}

impl Show {
    async fn service(&mut self) -> anyhow::Result<()> {
        self.tell.begin("service", "A service with four backends")?;
        self.tell.runs(&format!("flowpin agent --config {} &", self.agent.config().display()))?;
        self.agent.start().await?;
        self.run(&format!("service add web --vip {VIP} --port {PORT}/tcp")).await?;
        for backend in 0..AT_FIRST {
            self.run(&format!("backend add web {}", address(backend))).await?;
        }
        match kube_proxy::begin(&self.tag, AT_FIRST) {
            Ok(()) => {
                self.random = Some(Clients::new(&self.tag, KUBE_VIP)?);
                self.tell.say(&format!(
                    "On the other node, {KUBE_VIP} leads to the same backends by iptables rules like kube-proxy's."
                ))?;
            }
            Err(e) => self.tell.say(&format!("kube-proxy's side is left out: {e:#}"))?,
        }
        self.tell.end().await
    }

    async fn spread(&mut self) -> anyhow::Result<()> {
        let title = format!("{CONNECTIONS} connections, which stay open and exchange data");
        self.tell.begin("spread", &title)?;
        self.tell.say("Flowpin gives each new connection to the backend with the fewest open ones.")?;
        self.open(CONNECTIONS, true).await?;
        self.show(&[], AT_FIRST).await?;
        self.tell.end().await
    }

    async fn scale_out(&mut self) -> anyhow::Result<()> {
        self.tell.begin("scale-out", "A fifth backend, and 50 more connections")?;
        self.run(&format!("backend add web {}", address(AT_FIRST))).await?;
        if self.random.is_some() {
            kube_proxy::fill(&self.tag, AT_FIRST + 1)?;
        }
        self.open(CONNECTIONS / AT_FIRST, true).await?;
        self.show(&[("b5", "new")], AT_FIRST + 1).await?;
        self.tell.end().await
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        self.tell
            .begin("drain", "A drain: b1 gets nothing new and keeps what it has; 40 more connections")?;
        let left = self.run(&format!("backend drain web {}", address(0))).await?;
        self.tell.say(&left)?;
        let before = self.flowpin.spread().await["b1"];
        self.open(40, false).await?;
        let after = self.flowpin.spread().await["b1"];
        ensure!(before == after, "b1 is drained and had {before} connections; now it has {after}");
        self.show(&[("b1", "draining")], 0).await?;
        self.tell.end().await
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        self.tell
            .begin("kill", "The agent is killed: the kernel goes on without it; 20 connections meanwhile")?;
        self.tell.runs("kill -9 %1")?;
        self.agent.kill()?;
        self.open(20, false).await?;
        self.show(&[("b1", "draining")], 0).await?;
        self.tell.say("The next agent takes over what it finds in the kernel.")?;
        self.tell.runs(&format!("flowpin agent --config {} &", self.agent.config().display()))?;
        self.agent.start().await?;
        self.tell.end().await
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        self.tell.begin("remove", "The clients of b1 leave, and nobody misses it")?;
        let left = self.flowpin.leave("b1").await;
        self.tell.say(&format!("{left} connections are closed by their clients."))?;
        let drained = self.run(&format!("backend drain web {} --wait", address(0))).await?;
        self.tell.say(&drained)?;
        self.run(&format!("backend remove web {}", address(0))).await?;
        self.show(&[], 0).await?;
        self.tell.end().await
    }

    async fn sum_up(&mut self) -> anyhow::Result<()> {
        self.tell.begin("end", "What the agent says of it")?;
        let list = self.run("backend list").await?;
        self.tell.say(&list)?;
        let open: usize = self.flowpin.spread().await.values().sum();
        let traffic = self.flowpin.traffic().await;
        self.tell.say(&format!(
            "{open} connections through scale-out, drain and a killed agent: {} rounds of data, {} broken.",
            traffic.rounds, traffic.broken
        ))?;
        self.tell.traffic(traffic);
        self.tell.end().await?;
        if traffic.broken > 0 {
            bail!("{} connections broke, and none should", traffic.broken);
        }
        Ok(())
    }

    /// Runs a line of the command line, and shows that. What was printed.
    async fn run(&mut self, line: &str) -> anyhow::Result<String> {
        self.tell.runs(&format!("flowpin {line}"))?;
        self.agent.command(line).await
    }

    /// Opens connections through Flowpin, and as many past kube-proxy's rules if `both`.
    async fn open(&self, count: usize, both: bool) -> anyhow::Result<()> {
        if let (Some(random), true) = (&self.random, both) {
            random.open(count).await?;
        }
        self.flowpin.open(count).await
    }

    /// Shows how connections are spread; kube-proxy's where they are `compared`.
    async fn show(&mut self, notes: &[(&str, &str)], compared: usize) -> anyhow::Result<()> {
        let iptables = match &self.random {
            Some(random) if compared > 0 => Some(random.spread().await),
            _ => None,
        };
        let flowpin = self.flowpin.spread().await;
        self.tell.counts(Counts { flowpin, iptables }, notes, compared)
    }
}
