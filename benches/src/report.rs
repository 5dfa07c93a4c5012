//! What came out, for people and for scripts: `results.json`, `results.md`, a plot (SVG) for each experiment that varies a size,
//! and a comparison with the baseline that is committed.

mod baseline;
pub mod plot;

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;
use tabled::{builder::Builder, settings::Style};

pub use baseline::{compare, keep};

use crate::{
    measure::{Series, median, range},
    micro::YARDSTICK,
    verifier::Cost,
};

/// Who others are compared with, in the order of preference.
const YARDSTICKS: [&str; 2] = ["plain routing", YARDSTICK];

/// All that was measured.
#[derive(Serialize)]
pub struct Results {
    /// Kernel, CPUs.
    pub machine: String,
    /// Was it the quick mode?
    pub quick: bool,
    /// Programs, loaded.
    pub programs: Vec<Cost>,
    /// Everything else.
    pub series: Vec<Series>,
}

impl Results {
    /// The experiments, in order.
    fn experiments(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.series.iter().map(|s| s.experiment.as_str()).filter(|name| seen.insert(*name)).collect()
    }

    fn of(&self, experiment: &str) -> Vec<&Series> {
        self.series.iter().filter(|s| s.experiment == experiment).collect()
    }
}

/// A series in multiples of its yardstick, round by round, since rounds are what was measured side by side. The yardstick of the
/// same size; failing that, the only one. Without a yardstick, the same contender at its least size: how it grows.
pub fn ratios(series: &Series, all: &[&Series]) -> Option<Vec<f64>> {
    let divided = |others: &[f64]| series.rounds.iter().zip(others).map(|(own, other)| own / other).collect();
    if !series.beside.is_empty() {
        return Some(divided(&series.beside));
    }
    let yardsticks: Vec<&&Series> = YARDSTICKS
        .iter()
        .map(|name| all.iter().filter(|s| s.contender == *name).collect::<Vec<_>>())
        .find(|found| !found.is_empty())
        .unwrap_or_else(|| all.iter().filter(|s| s.contender == series.contender).collect());
    let same = yardsticks.iter().find(|s| s.at == series.at && YARDSTICKS.contains(&s.contender.as_str()));
    let same = same.or(yardsticks.first())?;
    Some(divided(&same.rounds))
}

/// Writes everything to a directory.
///
/// # Errors
/// Files can't be written.
pub fn write(results: &Results, directory: &Path) -> Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("results.json"), serde_json::to_string_pretty(results)?)?;
    let quick = if results.quick { ". A quick run: fewer rounds and sizes" } else { "" };
    let mut text = format!("# Results\n\n{}{quick}\n\n{}", results.machine, programs(&results.programs));
    for experiment in results.experiments() {
        let all = results.of(experiment);
        let _ = write!(text, "\n## {experiment}\n\n{}", table(&all));
        let sizes: BTreeSet<u64> = all.iter().map(|s| s.size() as u64).collect();
        if sizes.len() > 1 {
            let file = format!("{}.svg", experiment.replace([' ', ','], "-"));
            plot::curves(&all, &directory.join(&file)).with_context(|| file.clone())?;
            let _ = write!(text, "\n![{experiment}]({file})\n");
        }
    }
    std::fs::write(directory.join("results.md"), text)?;
    Ok(())
}

fn programs(costs: &[Cost]) -> String {
    let mut builder = Builder::new();
    builder.push_record(["program", "instructions", "machine code, bytes", "verified", "load, ms"]);
    for cost in costs {
        builder.push_record([
            cost.program.clone(),
            cost.instructions.to_string(),
            cost.machine_code.to_string(),
            cost.verified.to_string(),
            cost.took.as_millis().to_string(),
        ]);
    }
    format!("{}\n", builder.build().with(Style::markdown()))
}

/// Rows: contender and size. Columns: median, spread, ratio to the yardstick of the same round and its spread.
pub fn table(all: &[&Series]) -> String {
    let mut builder = Builder::new();
    let (unit, size) = all
        .first()
        .map_or(("", ""), |s| (s.unit.as_str(), s.at.as_ref().map_or("", |(name, _)| name.as_str())));
    builder.push_record([
        "contender",
        size,
        &format!("median, {unit}"),
        "least – greatest",
        "ratio",
        "of rounds",
    ]);
    for series in all {
        let (low, high) = range(&series.rounds);
        let ratios = ratios(series, all);
        builder.push_record([
            series.contender.clone(),
            series.at.as_ref().map_or(String::new(), |(_, size)| size.to_string()),
            figure(series.median()),
            format!("{} – {}", figure(low), figure(high)),
            ratios.as_deref().map_or(String::new(), |all| format!("{:.3}", median(all))),
            ratios.as_deref().map_or(String::new(), |all| {
                let (low, high) = range(all);
                format!("{low:.3} – {high:.3}")
            }),
        ]);
    }
    format!("{}\n", builder.build().with(Style::markdown()))
}

/// Four digits or so, whatever the size.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
