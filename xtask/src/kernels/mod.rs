//! The matrix of kernels: each is booted under emulation and asked to load every program; then the real agent carries real traffic there.

mod fetch;
mod guest;
mod initramfs;
mod table;

use std::{collections::BTreeMap, path::PathBuf, thread, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::Args;

use self::{
    fetch::{Kernel, Wanted},
    guest::Report,
    initramfs::Contents,
    table::Row,
};
use crate::{build, root};

/// From the oldest to the newest. The first and the last must be there; of the others the archive may have none.
static MATRIX: [Wanted; 5] = [
    Wanted { name: "6.1", series: &["6.1"], whose: "Debian 12, Amazon Linux 2023, Bottlerocket" },
    Wanted { name: "6.6", series: &["6.6", "6.8"], whose: "COS, Ubuntu 24.04 (6.8)" },
    Wanted { name: "6.12", series: &["6.12"], whose: "Debian 13, RHEL 10, COS, Bottlerocket" },
    Wanted { name: "6.18", series: &["6.18", "6.17", "6.16"], whose: "Talos" },
    Wanted { name: "newest", series: &[], whose: "rolling distributions" },
];
/// Steps of a functional round, as `flowpin-guest round` names them.
const STEPS: [&str; 11] = [
    "TC",
    "XDP",
    "sockets",
    "consistent hash",
    "snat",
    "dsr",
    "dsr-ipip",
    "fast",
    "peer",
    "devices",
    "clock",
];
/// Steps that need a kernel newer than the oldest, and which (docs/limits.md).
const SINCE: [(&str, [u32; 2]); 1] = [("dsr-ipip", [6, 7])];
/// Short connections on the oldest kernel, with the sweeper at work.
const CHURN: usize = 300_000;
/// Seconds that a verifier has for a program, under emulation.
const VERIFIER: u64 = 60;
/// How long a guest that only loads may take in all.
const LOADS: Duration = Duration::from_secs(15 * 60);
/// How long one may take that carries traffic besides.
const ROUND: Duration = Duration::from_secs(90 * 60);

/// What is tried.
#[derive(Args)]
pub struct Options {
    /// Only these: 6.1, 6.6, 6.12, 6.18, newest
    #[arg(long = "kernel")]
    kernels: Vec<String>,
    /// Loads of the programs, no traffic
    #[arg(long)]
    load_only: bool,
    /// Only these steps of the round, by their columns in KERNELS.md, and `churn`; nothing is loaded for its figures
    #[arg(long = "step", conflicts_with_all = ["load_only", "write"])]
    steps: Vec<String>,
    /// Write what is measured into lb-ebpf/budget.md and KERNELS.md, instead of comparing
    #[arg(long)]
    write: bool,
}

/// Runs the matrix, or a part of it.
///
/// # Errors
/// A program is refused or beyond its budget, traffic fails, or the tables say otherwise.
pub fn matrix(options: &Options) -> anyhow::Result<()> {
    if let Some(unknown) = options.kernels.iter().find(|name| MATRIX.iter().all(|w| w.name != **name)) {
        let names: Vec<&str> = MATRIX.iter().map(|w| w.name).collect();
        bail!("no kernel is called {unknown}: {}", names.join(", "));
    }
    if let Some(unknown) =
        options.steps.iter().find(|step| !STEPS.contains(&step.as_str()) && *step != "churn")
    {
        bail!("no step is called {unknown}: {}, churn", STEPS.join(", "));
    }
    prepare()?;
    let mut seen: BTreeMap<&str, Report> = BTreeMap::new();
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for wanted in &MATRIX {
        if !options.kernels.is_empty() && options.kernels.iter().all(|name| name != wanted.name) {
            continue;
        }
        let Some(kernel) = fetch::kernel(wanted)? else {
            println!(
                "{}: the archive has no kernel of {}; left out",
                wanted.name,
                wanted.series.join(" or ")
            );
            continue;
        };
        println!("\n== {}: {}", kernel.name, kernel.release);
        let churn: &[&str] = if wanted.name == MATRIX[0].name { &["churn"] } else { &[] };
        let beyond: Vec<&str> = beyond(&kernel).collect();
        let asked = |step: &&str| options.steps.is_empty() || options.steps.iter().any(|asked| asked == step);
        let of_all = STEPS.iter().chain(churn).copied();
        let steps: Vec<&str> = of_all.filter(|step| !beyond.contains(step)).filter(asked).collect();
        let report = match (options.load_only, options.steps.is_empty()) {
            (true, _) => loads(&kernel)?,
            (false, true) => carries(&kernel, &load_task(), &steps)?,
            (false, false) => carries(&kernel, "", &steps)?,
        };
        let failed = report.steps.iter().filter(|step| step.failed.is_some());
        wrong.extend(failed.map(|step| format!("{}: {} fails", kernel.name, step.step)));
        if !options.load_only && report.steps.len() != steps.len() {
            wrong.push(format!(
                "{}: {} steps of {} were tried",
                kernel.name,
                report.steps.len(),
                steps.len()
            ));
        }
        if !options.steps.is_empty() {
            continue;
        }
        if let Err(e) = table::check_budget(kernel.name, &report.loads) {
            wrong.push(e.to_string());
        }
        if !options.load_only {
            rows.push(row(wanted, &kernel, &report)?);
        }
        seen.insert(kernel.name, report);
    }
    if options.write && !rows.is_empty() {
        table::write_seen(&rows, &MATRIX.each_ref().map(|wanted| wanted.name), &STEPS)?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    if let [Some(oldest), Some(newest)] = ends().map(|wanted| seen.get(wanted.name)) {
        table::budget(oldest, newest, options.write)?;
    }
    println!("\nAll of it holds.");
    Ok(())
}

/// Loads on the oldest and the newest kernel, side by side, and compares with the table.
///
/// # Errors
/// As [`matrix`].
pub fn oldest_and_newest() -> anyhow::Result<()> {
    prepare()?;
    let mut kernels = Vec::new();
    for wanted in ends() {
        kernels.push(fetch::kernel(wanted)?.with_context(|| format!("{}: not in the archive", wanted.name))?);
    }
    let reports: Vec<anyhow::Result<Report>> = thread::scope(|scope| {
        let guests: Vec<_> = kernels.iter().map(|kernel| scope.spawn(|| loads(kernel))).collect();
        let join = |guest: thread::ScopedJoinHandle<'_, _>| {
            guest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        guests.into_iter().map(join).collect()
    });
    let [oldest, newest]: [Report; 2] = reports
        .into_iter()
        .collect::<anyhow::Result<Vec<_>>>()?
        .try_into()
        .ok()
        .context("two kernels give two reports")?;
    for (kernel, report) in kernels.iter().zip([&oldest, &newest]) {
        table::check_budget(kernel.name, &report.loads)?;
    }
    table::budget(&oldest, &newest, false)
}

/// The oldest and the newest.
fn ends() -> [&'static Wanted; 2] {
    [&MATRIX[0], &MATRIX[MATRIX.len() - 1]]
}

fn prepare() -> anyhow::Result<()> {
    guest::check_qemu()?;
    build::everything()
}

fn binary(name: &str) -> PathBuf {
    root().join("target/release").join(name)
}

fn load_task() -> String {
    format!("flowpin-guest load /flowpin-bpf.o --json --limit {VERIFIER}")
}

fn loads(kernel: &Kernel) -> anyhow::Result<Report> {
    let contents = Contents {
        programs: &[binary("flowpin-guest")],
        files: &[root().join("target/bpf/flowpin-bpf.o")],
        task: &load_task(),
    };
    guest::run(kernel, 1, &contents, LOADS)
}

/// Steps that a kernel is too old for.
fn beyond(kernel: &Kernel) -> impl Iterator<Item = &'static str> {
    let series: Vec<u32> = kernel.release.split('.').take(2).filter_map(|n| n.parse().ok()).collect();
    SINCE.into_iter().filter(move |(_, since)| series.as_slice() < since.as_slice()).map(|(step, _)| step)
}

/// What comes first, then the steps.
fn carries(kernel: &Kernel, first: &str, steps: &[&str]) -> anyhow::Result<Report> {
    // These have verbs of their own.
    let alone = ["churn", "clock"];
    let round: String =
        steps.iter().filter(|step| !alone.contains(step)).map(|step| format!(" '{step}'")).collect();
    let mut task = format!("{first}\nexport FLOWPIN_BIN=/bin/flowpin\n");
    if !round.is_empty() {
        task += &format!("flowpin-guest round{round}\n");
    }
    if steps.contains(&"clock") {
        task += "flowpin-guest clock\n";
    }
    if steps.contains(&"churn") {
        task += &format!("flowpin-guest churn {CHURN}\n");
    }
    let contents = Contents {
        programs: &[binary("flowpin-guest"), binary("flowpin")],
        files: &[root().join("target/bpf/flowpin-bpf.o")],
        task: &task,
    };
    guest::run(kernel, 2, &contents, ROUND)
}

fn row(wanted: &Wanted, kernel: &Kernel, report: &Report) -> anyhow::Result<Row> {
    let mut held: BTreeMap<String, bool> =
        report.steps.iter().map(|step| (step.step.clone(), step.failed.is_none())).collect();
    held.extend(beyond(kernel).map(|step| (step.to_string(), false)));
    let note = match held.get("churn") {
        Some(true) => format!("{CHURN} short connections: drift 0, no flow left"),
        Some(false) => "short connections leave something".to_string(),
        None => String::new(),
    };
    Ok(Row {
        name: wanted.name,
        version: kernel.version()?,
        whose: wanted.whose,
        loaded: report.loads.iter().all(|load| load.refused.is_none()),
        held,
        note,
    })
}
