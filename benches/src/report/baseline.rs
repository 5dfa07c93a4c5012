//! The committed figures that a change is held against: ratios to the yardstick of the same run, and the programs' sizes, so that
//! another machine doesn't look like another program. A report; nothing fails.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tabled::{builder::Builder, settings::Style};

use super::{Results, ratios};
use crate::measure::median;

/// Figures by what they are of.
#[derive(Serialize, Deserialize, Default)]
struct Baseline {
    /// Ratios to the yardstick.
    ratios: BTreeMap<String, f64>,
    /// Instructions of each program.
    instructions: BTreeMap<String, u32>,
    /// Instructions that the verifier looked at.
    verified: BTreeMap<String, u32>,
}

/// What is committed.
fn kept() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/results"))
}

fn file() -> PathBuf {
    kept().join("baseline.json")
}

fn of(results: &Results) -> Baseline {
    let mut baseline = Baseline::default();
    for experiment in results.experiments() {
        let all = results.of(experiment);
        for series in all.iter().filter(|s| s.contender.starts_with("Flowpin")) {
            if let Some(ratios) = ratios(series, &all) {
                let ratio = median(&ratios);
                let name = format!("{experiment}, {}, {}", series.contender, series.size());
                baseline.ratios.insert(name, (ratio * 1000.0).round() / 1000.0);
            }
        }
    }
    for cost in &results.programs {
        baseline.instructions.insert(cost.program.clone(), cost.instructions);
        baseline.verified.insert(cost.program.clone(), cost.verified);
    }
    baseline
}

/// Makes these results the baseline, and keeps what was written about them beside it.
///
/// # Errors
/// A file can't be written.
pub fn keep(results: &Results, directory: &Path) -> Result<()> {
    let kept = kept();
    std::fs::create_dir_all(&kept)?;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "svg" || kind == "md")
            && let Some(name) = path.file_name()
        {
            std::fs::copy(&path, kept.join(name))?;
        }
    }
    Ok(std::fs::write(file(), serde_json::to_string_pretty(&of(results))? + "\n")?)
}

/// These results beside the baseline, what has changed most first.
///
/// # Errors
/// The baseline isn't one.
pub fn compare(results: &Results) -> Result<String> {
    let Ok(text) = std::fs::read_to_string(file()) else {
        return Ok("There is no baseline yet: `--keep` makes one.".into());
    };
    let (old, new): (Baseline, Baseline) = (serde_json::from_str(&text)?, of(results));
    let mut rows: Vec<(f64, [String; 4])> = Vec::new();
    for (name, ratio) in &new.ratios {
        if let Some(before) = old.ratios.get(name) {
            rows.push(row(name, *before, *ratio));
        }
    }
    for (what, old, new) in
        [("instructions", &old.instructions, &new.instructions), ("verified", &old.verified, &new.verified)]
    {
        for (program, count) in new {
            if let Some(before) = old.get(program) {
                rows.push(row(&format!("{program}, {what}"), f64::from(*before), f64::from(*count)));
            }
        }
    }
    rows.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
    let mut builder = Builder::new();
    builder.push_record(["figure", "baseline", "now", "change"]);
    for (_, cells) in rows {
        builder.push_record(cells);
    }
    Ok(builder.build().with(Style::markdown()).to_string())
}

fn row(name: &str, before: f64, now: f64) -> (f64, [String; 4]) {
    let change = now / before - 1.0;
    (change, [name.into(), before.to_string(), now.to_string(), format!("{:+.1} %", change * 100.0)])
}
