//! `flowpin doctor`

use serde::Serialize;

use super::{
    Failure,
    output::{Printer, Table},
};
use crate::datapath::features;

/// Show what this kernel and these interfaces can do, and what is missing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo flowpin doctor
  sudo flowpin doctor -o json | jq '.[] | select(.status == \"missing\")'

available: there. fallback: not there, something slower or simpler does its work. missing: needed and not there, \
or refused by this kernel; the last column says what to do, or which program was refused and why. warning: a rule of \
the host's that may keep packets from arriving; `flowpin status` says which do. Exit code 1 if anything is missing. \
All programs are loaded for trial, which takes some seconds. Without root the kernel hides what it can do.")]
pub struct Args {}

#[derive(Serialize)]
struct FeatureView {
    name: String,
    status: &'static str,
    detail: String,
}

impl Args {
    pub async fn run(self, printer: &Printer) -> Result<(), Failure> {
        let features: Vec<FeatureView> = features::probe()
            .await
            .into_iter()
            .map(|f| FeatureView { name: f.name, status: f.status.name(), detail: f.detail })
            .collect();
        printer.print(features.as_slice(), table)?;
        let missing: Vec<&str> =
            features.iter().filter(|f| f.status == "missing").map(|f| f.name.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::Said(format!(
            "missing: {}; the table of \"flowpin doctor\" says what to do",
            missing.join(", ")
        )))
    }
}

fn table(features: &[FeatureView]) -> String {
    let mut table = Table::new(&["FEATURE", "STATUS", "DETAIL"]);
    for f in features {
        table.row([f.name.clone(), f.status.into(), f.detail.clone()]);
    }
    table.to_string()
}
