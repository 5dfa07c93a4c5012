//! The cost per packet of this build beside that of another, in one run: the two take turns, and each is in multiples
//! of the yardstick in C that it was measured with.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use serde::Deserialize;
use tabled::{builder::Builder, settings::Style};
use tempfile::TempDir;

use crate::{
    Options,
    measure::{Series, median, middle, range},
    micro::{FORWARDED, YARDSTICK},
};

/// Turns of each.
const TURNS: usize = 5;
/// What a forwarded packet that is nobody's costs a build whose programs don't look at what leaves.
const ENTERS: &str = "not ours by tc";

/// What is read of `results.json`.
#[derive(Deserialize)]
struct Turn {
    series: Vec<Series>,
}

/// Builds the other if need be, measures both in turn, and says how they compare.
///
/// # Errors
/// There is no such commit, it can't be built, or a measurement failed.
pub fn run(other: &str, options: &Options) -> Result<String> {
    heed_signals()?;
    let other = Tree::of(other)?;
    let own = root();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let turns = options.rounds.unwrap_or(TURNS);
    for turn in 0..turns {
        println!("turn {} of {turns}", turn + 1);
        // Who goes first changes: machines get slower as well as faster.
        if turn % 2 == 0 {
            theirs.push(measure(&other.root)?);
            ours.push(measure(&own)?);
        } else {
            ours.push(measure(&own)?);
            theirs.push(measure(&other.root)?);
        }
    }
    Ok(format!("# Beside {}\n\n{}", other.name, table(&ours, &theirs)))
}

/// This workspace.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// A workspace that is built. One that was made for this is removed when this goes.
struct Tree {
    name: String,
    root: PathBuf,
    made: Option<TempDir>,
}

impl Tree {
    /// A directory as it is, or a commit in a new one.
    fn of(other: &str) -> Result<Self> {
        let directory = Path::new(other);
        if directory.is_dir() {
            ensure!(
                bench(directory).exists(),
                "{} isn't there: cargo build --release --package flowpin-benches in {other}",
                bench(directory).display()
            );
            return Ok(Self { name: other.into(), root: directory.canonicalize()?, made: None });
        }
        let target = root().join("target");
        let made = tempfile::Builder::new().prefix("beside-").tempdir_in(&target)?;
        // Git makes the directory itself; from here on, whatever happens, it is removed again.
        let tree = Self { name: other.into(), root: made.path().join("workspace"), made: Some(made) };
        let add = ["worktree", "add", "--quiet", "--detach"];
        must(Command::new("git").current_dir(root()).args(add).arg(&tree.root).arg(other))?;
        println!("building {other} in {}", tree.root.display());
        tree.cargo(&["run", "--quiet", "--package", "xtask", "--", "build", "--release"])?;
        tree.cargo(&["build", "--release", "--package", "flowpin-benches"])?;
        Ok(tree)
    }

    fn cargo(&self, args: &[&str]) -> Result<()> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        must(Command::new(cargo).current_dir(&self.root).args(args).env_remove("CARGO_TARGET_DIR"))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.made.is_some() {
            let remove = ["worktree", "remove", "--force"];
            // Git knows nothing of it if it was never made; the directory goes in any case.
            let _ = Command::new("git")
                .current_dir(root())
                .args(remove)
                .arg(&self.root)
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// The benchmarks of a workspace, built.
fn bench(root: &Path) -> PathBuf {
    root.join("target/release/flowpin-bench")
}

/// One turn of one build: a process of its own, which leaves its results with its workspace.
fn measure(root: &Path) -> Result<Turn> {
    must(Command::new(bench(root)).args(["--only", "packets", "--quick"]).stdout(Stdio::null()))?;
    let results = root.join("target/bench/results.json");
    let text = std::fs::read_to_string(&results).with_context(|| results.display().to_string())?;
    serde_json::from_str(&text).with_context(|| results.display().to_string())
}

/// Runs a command to its end.
fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(!STOPPED.load(Ordering::Relaxed), "stopped by a signal");
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// A signal has come that asks to end.
static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: i32) {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Lets signals that ask to end be an error of the command that they interrupt, so that everything is removed.
/// Commands have them as ever.
fn heed_signals() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(stop), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing but set an atomic flag.
        unsafe { sigaction(signal, &action)? };
    }
    Ok(())
}

/// In multiples of the yardstick, and in nanoseconds.
type Figure = (f64, f64);

/// A series as a figure.
fn multiple(turn: &Turn, experiment: &str, contender: &str, at: &Option<(String, f64)>) -> Option<Figure> {
    let of = |contender: &str| {
        let found = turn
            .series
            .iter()
            .find(|s| s.experiment == experiment && s.contender == contender && s.at == *at);
        found.map(|series| middle(&series.rounds))
    };
    let own = of(contender)?;
    Some((own / of(YARDSTICK)?, own))
}

/// A row for each figure that both builds have, beside a yardstick.
fn table(ours: &[Turn], theirs: &[Turn]) -> String {
    let mut builder = Builder::new();
    builder.push_record([
        "figure",
        "flows",
        "before, ns",
        "now, ns",
        "before, × C",
        "now, × C",
        "now / before",
        "of turns",
    ]);
    let figures = ours.first().map_or(&[][..], |turn| &turn.series);
    for series in figures.iter().filter(|series| series.contender != YARDSTICK) {
        let (experiment, contender, at) = (series.experiment.as_str(), series.contender.as_str(), &series.at);
        let before = |turn: &Turn| {
            let same = multiple(turn, experiment, contender, at);
            same.or_else(|| multiple(turn, if experiment == FORWARDED { ENTERS } else { "" }, contender, at))
        };
        let pairs: Option<Vec<_>> = ours
            .iter()
            .zip(theirs)
            .map(|(now, then)| Some((multiple(now, experiment, contender, at)?, before(then)?)))
            .collect();
        let Some(pairs) = pairs else { continue };
        let column = |figure: fn(&(Figure, Figure)) -> f64| pairs.iter().map(figure).collect::<Vec<_>>();
        let ratios = column(|(now, then)| now.0 / then.0);
        let (low, high) = range(&ratios);
        builder.push_record([
            format!("{experiment}, {contender}"),
            at.as_ref().map_or(String::new(), |(_, size)| size.to_string()),
            format!("{:.1}", median(&column(|(_, then)| then.1))),
            format!("{:.1}", median(&column(|(now, _)| now.1))),
            format!("{:.3}", median(&column(|(_, then)| then.0))),
            format!("{:.3}", median(&column(|(now, _)| now.0))),
            format!("{:.3}", median(&ratios)),
            format!("{low:.3} – {high:.3}"),
        ]);
    }
    builder.build().with(Style::markdown()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(figures: &[(&str, &str, f64)]) -> Turn {
        let series = figures.iter().map(|(experiment, contender, value)| Series {
            experiment: (*experiment).into(),
            contender: (*contender).into(),
            at: Some(("flows".into(), 1.0)),
            unit: "ns".into(),
            rounds: vec![*value; 5],
            beside: Vec::new(),
        });
        Turn { series: series.collect() }
    }

    #[test]
    fn each_build_is_measured_by_its_own_yardstick() {
        let ours = [turn(&[("reply by tc", "C", 100.0), ("reply by tc", "Flowpin", 90.0)])];
        let theirs = [turn(&[("reply by tc", "C", 50.0), ("reply by tc", "Flowpin", 50.0)])];
        let table = table(&ours, &theirs);
        assert!(table.contains("| 0.900        |"), "{table}");
    }

    #[test]
    fn a_forwarded_packet_is_beside_one_that_came_in() {
        let ours = [turn(&[(FORWARDED, "C", 20.0), (FORWARDED, "Flowpin", 30.0)])];
        let theirs = [turn(&[(ENTERS, "C", 20.0), (ENTERS, "Flowpin", 20.0)])];
        let table = table(&ours, &theirs);
        assert!(table.contains("| 1.500        |"), "{table}");
    }

    #[test]
    fn what_only_one_build_has_is_left_out() {
        let ours = [turn(&[("a", "C", 1.0), ("a", "Flowpin", 1.0), ("b", "Flowpin", 1.0)])];
        let theirs = [turn(&[("b", "Flowpin", 1.0)])];
        assert_eq!(table(&ours, &theirs).lines().count(), 2);
    }
}
