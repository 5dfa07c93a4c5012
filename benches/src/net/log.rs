//! New connections, as many as two CPUs make, with and without a line in a log for each: by Flowpin, and by HAProxy.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{
    contender::{Contender, Running, Way},
    load,
    stage::Stage,
};
use crate::{Options, measure::median};

/// How long the last lines may take.
const LATE: Duration = Duration::from_secs(10);

/// What came of one turn.
#[derive(Clone, Copy)]
struct Turn {
    per_second: f64,
    /// CPU of the whole machine for a connection, in seconds.
    cpu: f64,
    /// Of the agent's or the proxy's process alone, as a share of a core.
    process: f64,
    /// Lines that were written for each connection.
    lines: f64,
    lost: f64,
}

/// Measures it; a table.
///
/// # Errors
/// A contender isn't installed, or a connection failed.
pub fn run(options: &Options) -> Result<String> {
    let (rounds, lasts) =
        if options.quick { (3, Duration::from_secs(2)) } else { (7, Duration::from_secs(5)) };
    let dir = TempDir::new()?;
    let flowpin = Stage::set(Contender::Flowpin { way: Way::Tc, hashing: false }, 1)?;
    let proxies = [Stage::set(Contender::Haproxy, 1)?, Stage::set(Contender::HaproxyLogging, 1)?];
    let mut turns: BTreeMap<(usize, &str), Vec<Turn>> = BTreeMap::new();
    for _ in 0..options.rounds.unwrap_or(rounds) {
        for (at, name, file) in
            [(0, "Flowpin", None), (1, "Flowpin, log to a file", Some(dir.path().join("c.log")))]
        {
            let turn = with_agent(&flowpin, file.as_deref(), lasts)?;
            turns.entry((at, name)).or_default().push(turn);
        }
        for (at, stage) in (2..).zip(&proxies) {
            turns.entry((at, stage.name)).or_default().push(with_proxy(stage, lasts)?);
        }
    }
    let mut table = String::from(
        "| who | connections, 1/s | CPU for one, µs | its process, % of a core | lines for each | lost |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for ((_, name), turns) in turns {
        let of = |figure: fn(&Turn) -> f64| median(&turns.iter().map(figure).collect::<Vec<_>>());
        writeln!(
            table,
            "| {name} | {:.0} | {:.1} | {:.1} | {:.3} | {:.0} |",
            of(|turn| turn.per_second),
            of(|turn| turn.cpu) * 1e6,
            of(|turn| turn.process) * 100.0,
            of(|turn| turn.lines),
            turns.iter().map(|turn| turn.lost).sum::<f64>()
        )?;
    }
    Ok(table)
}

/// Lines of a log.
fn lines(file: &Path) -> usize {
    fs::read(file).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count())
}

/// A counter of the agent's, one or several lines of it; 0: there is none.
fn counter(stage: &Stage, head: &str) -> f64 {
    let page = stage.net.node.must("curl -sf http://127.0.0.1:9479/metrics");
    let values =
        page.lines().filter(|line| line.starts_with(head)).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

/// One turn of Flowpin's; with a log if there is a file for it.
fn with_agent(stage: &Stage, file: Option<&Path>, lasts: Duration) -> Result<Turn> {
    const LOST: &str = "flowpin_connection_log_records_total{result=\"lost\"}";
    let Running::Agent(agent) = &stage.running else { anyhow::bail!("no agent") };
    let text = fs::read_to_string(agent.config())?;
    let bare = text.split("[log]").next().context("a config")?;
    let log = file.map(|file| format!("[log]\nconnections = \"{}\"\n", file.display()));
    fs::write(agent.config(), format!("{bare}{}", log.unwrap_or_default()))?;
    if let Some(file) = file {
        // Of this turn alone; the agent makes it anew.
        let _ = fs::remove_file(file);
    }
    let reloaded = agent.log().matches("config reloaded").count();
    agent.signal(Signal::SIGHUP);
    wait(|| agent.log().matches("config reloaded").count() > reloaded)?;
    // What is in the page is shared for a second.
    std::thread::sleep(Duration::from_millis(1100));
    let count = || counter(stage, "flowpin_backend_connections_total{service=\"measured\"");
    let (before, lost, cpu, began) = (count(), counter(stage, LOST), agent.cpu(), Instant::now());
    let rate = load::connections(stage, lasts)?;
    let process = (agent.cpu() - cpu) / began.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(1100));
    let connections = count() - before;
    let lost = counter(stage, LOST) - lost;
    let lines = match file {
        Some(file) => {
            wait(|| lines(file) as f64 + lost >= connections)?;
            lines(file) as f64 / connections
        }
        None => 0.0,
    };
    Ok(Turn { per_second: rate.per_second, cpu: rate.cpu, process, lines, lost })
}

/// One turn of a proxy's.
fn with_proxy(stage: &Stage, lasts: Duration) -> Result<Turn> {
    let Running::Program { running } = &stage.running else { anyhow::bail!("no program") };
    let (before, cpu, began) = (running.log().lines().count(), running.cpu(), Instant::now());
    let rate = load::connections(stage, lasts)?;
    let process = (running.cpu() - cpu) / began.elapsed().as_secs_f64();
    // The load begins before it is counted, and ends after it.
    let connections = rate.per_second * began.elapsed().as_secs_f64();
    let lines = (running.log().lines().count() - before) as f64 / connections;
    Ok(Turn { per_second: rate.per_second, cpu: rate.cpu, process, lines, lost: 0.0 })
}

fn wait(done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + LATE;
    while !done() {
        ensure!(Instant::now() < deadline, "it takes longer than {LATE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
