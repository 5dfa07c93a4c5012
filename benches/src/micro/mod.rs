//! Cost per packet without a network, by `BPF_PROG_TEST_RUN`: programs of the object beside a yardstick in C.
//!
//! A driver in C puts another flow's addresses into the frame for each run and tail-calls the program under test, so that a
//! million flows are met in random order without leaving the kernel. What the driver and the harness cost is measured with a
//! program that does nothing, in the same round, and taken off: figures are what a program adds.

mod compile;
mod driver;
mod flowpin;
mod yardstick;

use anyhow::{Result, ensure};
use lb_common::abi::Algorithm;

use self::{
    driver::{Driver, Hook, Kind},
    flowpin::Flowpin,
    yardstick::Yardstick,
};
use crate::{Options, measure::Series};

/// Flows in the table.
const FLOWS: [u32; 4] = [1, 1_000, 131_072, 1_000_000];
/// Backends of the service that a new flow is for.
const BACKENDS: [usize; 5] = [4, 16, 64, 256, 1_000];
/// Flows opened for one figure.
const OPENED: u32 = 20_000;

/// Who is measured.
trait Subject {
    /// As tables name it.
    fn name(&self) -> String;
    /// Lets the driver call the program for packets of this kind.
    fn select(&mut self, driver: &mut Driver, kind: Kind) -> Result<()>;
    /// Makes the flows `0..flows`, established.
    fn establish(&mut self, driver: &mut Driver, flows: u32) -> Result<()>;
    /// Removes the flows `from..from + count`.
    fn forget(&mut self, from: u32, count: u32) -> Result<()>;
}

/// All of it.
///
/// # Errors
/// The kernel refuses a program, there is no permission or no clang.
pub fn run(options: &Options) -> Result<Vec<Series>> {
    let directory = compile::all()?;
    let mut all = Vec::new();
    for hook in [Hook::Xdp, Hook::Tc] {
        let flows: &[u32] = if options.quick { &FLOWS[..3] } else { &FLOWS };
        for count in flows {
            let mut driver = Driver::load(directory.path(), hook)?;
            let mut subjects: Vec<Box<dyn Subject>> = vec![
                Box::new(Yardstick::load(directory.path(), hook, *count + OPENED)?),
                Box::new(Flowpin::load(hook, *count + OPENED, 1, Algorithm::LEAST_CONNECTIONS)?),
            ];
            for subject in &mut subjects {
                subject.establish(&mut driver, *count)?;
            }
            for kind in [Kind::Established, Kind::Reply, Kind::Foreign] {
                all.extend(compare(&mut driver, &mut subjects, kind, ("flows", *count), options)?);
            }
        }
        for count in flows {
            let mut driver = Driver::load(directory.path(), hook)?;
            let mut subjects: Vec<Box<dyn Subject>> = vec![
                Box::new(Yardstick::load(directory.path(), hook, *count + OPENED)?),
                Box::new(Flowpin::load(hook, *count + OPENED, 16, Algorithm::LEAST_CONNECTIONS)?),
                Box::new(Flowpin::load(hook, *count + OPENED, 16, Algorithm::CONSISTENT_HASH)?),
            ];
            for subject in &mut subjects {
                subject.establish(&mut driver, *count)?;
            }
            all.extend(compare(&mut driver, &mut subjects, Kind::Open, ("flows", *count), options)?);
        }
        let mut driver = Driver::load(directory.path(), hook)?;
        let mut pools: Vec<(usize, Vec<Box<dyn Subject>>)> = Vec::new();
        for count in BACKENDS {
            let subject = Flowpin::load(hook, OPENED, count, Algorithm::LEAST_CONNECTIONS)?;
            pools.push((count, vec![Box::new(subject)]));
        }
        for (count, subjects) in &mut pools {
            let at = ("backends", u32::try_from(*count)?);
            all.extend(compare(&mut driver, subjects, Kind::Open, at, options)?);
        }
    }
    Ok(all)
}

/// Rounds in which each takes its turn.
fn compare(
    driver: &mut Driver,
    subjects: &mut [Box<dyn Subject>],
    kind: Kind,
    (size, count): (&str, u32),
    options: &Options,
) -> Result<Vec<Series>> {
    let rounds = if options.quick { 5 } else { 9 };
    let runs = if kind == Kind::Open { OPENED } else { 200_000.max(count) };
    let mut series: Vec<Series> = subjects
        .iter()
        .map(|subject| Series {
            experiment: format!("{} by {}", kind.name(), driver.hook().name()),
            contender: subject.name(),
            at: Some((size.into(), count.into())),
            unit: "ns".into(),
            rounds: Vec::new(),
        })
        .collect();
    for _ in 0..rounds {
        driver.select_nothing()?;
        let nothing = driver.run(kind, count, runs)?;
        for (subject, series) in subjects.iter_mut().zip(&mut series) {
            subject.select(driver, kind)?;
            let cost = driver.run(kind, count, runs)?;
            ensure!(
                cost.passed == (kind != Kind::Foreign || subject.name() != "C"),
                "{}: {kind:?}",
                subject.name()
            );
            series.rounds.push(cost.nanoseconds - nothing.nanoseconds);
            if kind == Kind::Open {
                subject.forget(count, OPENED)?;
            }
        }
    }
    for one in &series {
        println!(
            "{:<28} {:<28} {:>9} {:<9} {:8.1} ns",
            one.experiment,
            one.contender,
            count,
            size,
            one.median()
        );
    }
    Ok(series)
}
