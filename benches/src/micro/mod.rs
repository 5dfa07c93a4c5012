//! Cost per packet without a network, by `BPF_PROG_TEST_RUN`: programs of the object beside a yardstick in C.
//!
//! Measured is what nodes run by default: packets come in by XDP or TC, answers are translated where they leave, by TC
//! egress. So a packet that is nobody's costs twice if it is forwarded: where it comes in and where it leaves.
//!
//! A driver in C puts another flow's addresses into the frame for each run and tail-calls the program under test, so that a
//! million flows are met in random order without leaving the kernel. What the driver and the harness cost is measured with a
//! program that does nothing, in the same round, and taken off: figures are what a program adds.

pub mod compile;
mod driver;
mod flowpin;
mod yardstick;

use std::path::Path;

use anyhow::{Result, ensure};
use lb_common::abi::Algorithm;

use self::{
    driver::{Driver, Hook, Kind},
    flowpin::Flowpin,
    yardstick::Yardstick,
};
use crate::{Options, measure::Series};

/// Flows in the table.
const FLOWS: [u32; 5] = [1, 1_000, 131_072, 1_000_000, 2_000_000];
/// Backends of the service that a new flow is for.
const BACKENDS: [usize; 5] = [4, 16, 64, 256, 1_000];
/// Backends of the service that open flows are of.
const SPREAD: [usize; 4] = [2, 16, 256, 1_000];
/// Services on the node.
const SERVICES: [u32; 3] = [1, 1_000, 10_000];
/// Flows in the table where something else is varied.
const SOME: u32 = 1_000;
/// Flows that the smallest table has room for.
const FEWEST: u32 = 64;
/// Flows opened for one figure.
const OPENED: u32 = 20_000;
/// The yardstick's name in tables.
pub const YARDSTICK: &str = "C";
/// What a forwarded packet that is nobody's costs in all.
pub const FORWARDED: &str = "not ours, forwarded by tc";

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

/// Who is measured, and at which size of what is varied.
struct Case {
    at: (&'static str, u32),
    subject: Box<dyn Subject>,
}

impl Case {
    fn new(what: &'static str, size: usize, subject: impl Subject + 'static) -> Result<Self> {
        Ok(Self { at: (what, u32::try_from(size)?), subject: Box::new(subject) })
    }
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
            all.extend(tables(directory.path(), hook, *count, options)?);
        }
        if hook == Hook::Xdp || !options.quick {
            all.extend(sizes(&mut Driver::load(directory.path(), hook)?, hook, options)?);
        }
    }
    Ok(all)
}

/// Everything about a table with so many flows.
fn tables(directory: &Path, hook: Hook, flows: u32, options: &Options) -> Result<Vec<Series>> {
    let mut driver = Driver::load(directory, hook)?;
    let room = flows.max(FEWEST);
    let mut cases = [
        Case::new("flows", flows as usize, Yardstick::load(directory, hook, room)?)?,
        Case::new("flows", flows as usize, Flowpin::load(hook, room, 1, Algorithm::LEAST_CONNECTIONS)?)?,
    ];
    for case in &mut cases {
        case.subject.establish(&mut driver, flows)?;
    }
    let mut all = compare(&mut driver, &mut cases, Kind::Established, flows, options)?;
    let foreign = compare(&mut driver, &mut cases, Kind::Foreign, flows, options)?;
    all.extend(foreign.iter().cloned());
    // What leaves does so by TC whichever hook it came in by.
    if hook == Hook::Tc {
        all.extend(compare(&mut driver, &mut cases, Kind::Reply, flows, options)?);
        let leaving = compare(&mut driver, &mut cases, Kind::ForeignOut, flows, options)?;
        all.extend(foreign.iter().zip(&leaving).map(forwarded));
        all.extend(leaving);
    }
    drop(cases);
    let room = flows + OPENED;
    let mut cases = [
        Case::new("flows", flows as usize, Yardstick::load(directory, hook, room)?)?,
        Case::new("flows", flows as usize, Flowpin::load(hook, room, 16, Algorithm::LEAST_CONNECTIONS)?)?,
        Case::new("flows", flows as usize, Flowpin::load(hook, room, 16, Algorithm::CONSISTENT_HASH)?)?,
    ];
    for case in &mut cases {
        case.subject.establish(&mut driver, flows)?;
    }
    all.extend(compare(&mut driver, &mut cases, Kind::Open, flows, options)?);
    Ok(all)
}

/// What a packet that is nobody's costs where it comes in and where it leaves, beside one look of the yardstick's: a
/// balancer that translates answers as they come in needs no other.
fn forwarded((enters, leaves): (&Series, &Series)) -> Series {
    let rounds = if enters.contender == YARDSTICK {
        enters.rounds.clone()
    } else {
        enters.rounds.iter().zip(&leaves.rounds).map(|(one, other)| one + other).collect()
    };
    Series { experiment: FORWARDED.into(), rounds, ..enters.clone() }
}

/// What the numbers of backends and services do to the cost.
fn sizes(driver: &mut Driver, hook: Hook, options: &Options) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    let mut cases = Vec::new();
    for count in BACKENDS {
        let subject = Flowpin::load(hook, OPENED, count, Algorithm::LEAST_CONNECTIONS)?;
        cases.push(Case::new("backends", count, subject)?);
        cases.push(Case::new("backends", count, Flowpin::sharing(hook, OPENED, count)?)?);
    }
    all.extend(compare(driver, &mut cases, Kind::Open, 0, options)?);
    cases.clear();
    for count in SPREAD {
        let subject = Flowpin::load(hook, SOME, count, Algorithm::CONSISTENT_HASH)?;
        subject.adopt(driver, SOME)?;
        cases.push(Case::new("backends", count, subject)?);
    }
    all.extend(compare(driver, &mut cases, Kind::Established, SOME, options)?);
    for (kind, room, backends) in [(Kind::Open, SOME + OPENED, 16), (Kind::Established, SOME, 1)] {
        cases.clear();
        for count in SERVICES {
            let mut subject = Flowpin::load(hook, room, backends, Algorithm::LEAST_CONNECTIONS)?;
            subject.surround(count - 1)?;
            subject.establish(driver, SOME)?;
            cases.push(Case::new("services", count as usize, subject)?);
        }
        all.extend(compare(driver, &mut cases, kind, SOME, options)?);
    }
    Ok(all)
}

/// Rounds in which each takes its turn.
fn compare(
    driver: &mut Driver,
    cases: &mut [Case],
    kind: Kind,
    flows: u32,
    options: &Options,
) -> Result<Vec<Series>> {
    let rounds = options.rounds.unwrap_or(if options.quick { 5 } else { 9 });
    let runs = if kind == Kind::Open { OPENED } else { 200_000.max(flows) };
    let hook = driver.hook_of(kind).name();
    let experiment = |varied: &str| match varied {
        "flows" => format!("{} by {hook}", kind.name()),
        _ => format!("{} by {hook}, {varied}", kind.name()),
    };
    let mut series: Vec<Series> = cases
        .iter()
        .map(|case| Series {
            experiment: experiment(case.at.0),
            contender: case.subject.name(),
            at: Some((case.at.0.into(), case.at.1.into())),
            unit: "ns".into(),
            rounds: Vec::new(),
            beside: Vec::new(),
        })
        .collect();
    for _ in 0..rounds {
        driver.select_nothing(kind)?;
        let nothing = driver.run(kind, flows, runs)?;
        for (case, series) in cases.iter_mut().zip(&mut series) {
            let subject = &mut case.subject;
            subject.select(driver, kind)?;
            let cost = driver.run(kind, flows, runs)?;
            ensure!(
                cost.passed == (!kind.is_foreign() || subject.name() != YARDSTICK),
                "{}: {kind:?}",
                subject.name()
            );
            series.rounds.push(cost.nanoseconds - nothing.nanoseconds);
            if kind == Kind::Open {
                subject.forget(flows, OPENED)?;
            }
        }
    }
    for (case, one) in cases.iter().zip(&series) {
        let (what, size) = case.at;
        let (name, contender) = (&one.experiment, &one.contender);
        println!("{name:<36} {contender:<28} {size:>9} {what:<9} {:8.1} ns", one.median());
    }
    Ok(series)
}
