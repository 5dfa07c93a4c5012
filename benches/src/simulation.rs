//! Simulated clusters: how even connections are, as a table and as curves over the delay between nodes and over their
//! number.

use std::{fmt::Write as _, path::Path};

use anyhow::Result;
use cluster_simulation::{Figures, LARGE, Mode, Row, SMALL};

use crate::{
    Options,
    measure::{Series, Table},
    report::plot,
};

/// A row's name, and the size for which it stands.
type Point = (&'static str, f64);

/// Rows that are points of a curve: what it shows, over which size, and which rows.
const CURVES: [(&str, &str, &[Point]); 2] = [
    (
        "500 in a second by delay",
        "there and back, ms",
        &[
            ("500 in 1 s", 1.0),
            ("500 in 1 s, 5 ms there and back", 5.0),
            ("500 in 1 s, 25 ms there and back", 25.0),
            ("500 in 1 s, 50 ms there and back", 50.0),
            ("500 in 1 s, 100 ms there and back", 100.0),
        ],
    ),
    (
        "a herd in a second by nodes",
        "nodes",
        &[
            ("8 nodes, 4 backends, 40 in 1 s", 8.0),
            ("500 in 1 s", 100.0),
            ("1,000 nodes, 100 backends, 5,000 in 1 s", 1_000.0),
            ("5,000 nodes, 500 backends, 25,000 in 1 s", 5_000.0),
        ],
    ),
];

/// The ways to pick, and what they are called.
const MODES: [(&str, Mode); 4] = [
    ("nodes by themselves", Mode::RandomTies),
    ("by the order alone", Mode::Order),
    ("shared", Mode::Shared),
    ("one central balancer", Mode::Exact),
];

/// Simulates; a table, and curves in `target/bench`.
///
/// # Errors
/// Files can't be written.
pub fn run(options: &Options) -> Result<String> {
    let rows: Vec<&Row> = SMALL.iter().chain(LARGE.iter().filter(|_| !options.quick)).collect();
    let mut table = String::from(
        "Most of a backend over the mean, for its weight: median and 95th percentile of the runs.\n\n\
         | scenario | per node | order | shared | even, % | frames, kB a node | exact |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut curves = Table::default();
    for row in rows {
        let all = MODES.map(|(_, mode)| row.figures(mode));
        note(&mut curves, row.name, &all);
        let [random, order, shared, exact] = all;
        writeln!(
            table,
            "| {} | {:.2}/{:.2} | {:.2}/{:.2} | {:.2}/{:.2} | {:.0} | {:.0}, {:.0} | {:.2} |",
            row.name,
            random.median,
            random.p95,
            order.median,
            order.p95,
            shared.median,
            shared.p95,
            shared.even,
            shared.frames,
            shared.bytes / 1e3,
            exact.median
        )?;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&directory)?;
    for (experiment, ..) in CURVES {
        let file = format!("simulation-{}.svg", experiment.replace(' ', "-"));
        let series: Vec<&Series> = curves.0.iter().filter(|series| series.experiment == experiment).collect();
        plot::curves(&series, &directory.join(&file))?;
        writeln!(table, "\ntarget/bench/{file}")?;
    }
    Ok(table)
}

/// Adds a row to the curves that it is a point of.
fn note(curves: &mut Table, name: &str, figures: &[Figures; 4]) {
    for (experiment, size, points) in CURVES {
        for (_, at) in points.iter().filter(|(point, _)| *point == name) {
            for ((contender, _), figures) in MODES.iter().zip(figures) {
                curves.note(
                    experiment,
                    contender,
                    Some((size.into(), *at)),
                    "most over the mean",
                    figures.mean,
                );
            }
        }
    }
}
