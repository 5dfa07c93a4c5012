//! The committed tables: what every program costs the verifier on the oldest and the newest kernel, and what was seen to work where.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, bail, ensure};

use super::guest::{Load, Report};
use crate::root;

/// Instructions that a verifier looks at, at most (`BPF_COMPLEXITY_LIMIT_INSNS`).
const INSTRUCTIONS: u32 = 1_000_000;
/// Bytes of stack of a chain of calls, at most (`MAX_BPF_STACK`).
const STACK: u32 = 512;
/// What may be used of either, in percent: the rest is for the next kernel, and the next change.
const BUDGET: u32 = 70;
/// By how much instructions may differ from the table, in percent: kernels of a series get updates.
const DRIFT: u32 = 5;
/// What writes the tables.
const WRITE: &str = "cargo xtask test-kernels --write";

/// What a program costs on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    instructions: u32,
    stack: u32,
}

/// By program: on the oldest kernel, and on the newest.
type Costs = BTreeMap<String, [Cost; 2]>;

/// Is every program loaded, within its budget?
///
/// # Errors
/// All that aren't.
pub fn check_budget(name: &str, loads: &[Load]) -> anyhow::Result<()> {
    ensure!(!loads.is_empty(), "{name}: no program was tried");
    let mut wrong = Vec::new();
    for load in loads {
        let program = &load.program;
        match &load.refused {
            Some(refusal) => wrong.push(format!("{name}: {program} is refused: {}", refusal.error)),
            None => {
                for (what, used, limit) in
                    [("instructions", load.instructions, INSTRUCTIONS), ("bytes of stack", load.stack, STACK)]
                {
                    let most = limit / 100 * BUDGET + limit % 100 * BUDGET / 100;
                    if used == 0 {
                        wrong.push(format!("{name}: {program}: the kernel doesn't say how many {what}"));
                    } else if used > most {
                        wrong.push(format!("{name}: {program}: {used} {what}, of {most} at most"));
                    }
                }
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// Writes `lb-ebpf/budget.md`, or compares with it.
///
/// # Errors
/// It says otherwise, with the command that mends it.
pub fn budget(oldest: &Report, newest: &Report, write: bool) -> anyhow::Result<()> {
    let path = root().join("lb-ebpf/budget.md");
    let mut costs = Costs::new();
    for (at, report) in [oldest, newest].into_iter().enumerate() {
        for load in &report.loads {
            let none = Cost { instructions: 0, stack: 0 };
            costs.entry(load.program.clone()).or_insert([none; 2])[at] =
                Cost { instructions: load.instructions, stack: load.stack };
        }
    }
    if write {
        fs::write(&path, shown(&costs))?;
        println!("written: {}", path.display());
        return Ok(());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("{}: {WRITE}", path.display()))?;
    let wrong = differences(&read(&text), &costs);
    ensure!(
        wrong.is_empty(),
        "lb-ebpf/budget.md doesn't say what was measured; look at it, then: {WRITE}\n{}",
        wrong.join("\n")
    );
    Ok(())
}

fn shown(costs: &Costs) -> String {
    let mut text = format!(
        "# What each program costs the verifier\n\n\
         Instructions that it looks at ({INSTRUCTIONS} at most), and the deepest chain of stack frames in bytes, each rounded up to 32\n\
         as kernels before 6.12 do ({STACK} at most), on the oldest and the newest kernel of the matrix. Over {BUDGET} % of either limit\n\
         fails `scripts/test`. Written by `{WRITE}`.\n\n\
         | program | instructions, oldest | stack, oldest | instructions, newest | stack, newest |\n\
         |---|---|---|---|---|\n"
    );
    for (program, [old, new]) in costs {
        text += &format!(
            "| `{program}` | {} | {} | {} | {} |\n",
            old.instructions, old.stack, new.instructions, new.stack
        );
    }
    text
}

fn read(text: &str) -> Costs {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [program, numbers @ ..] = cells.as_slice() else { return None };
        let program = program.strip_prefix('`')?.strip_suffix('`')?;
        let numbers: Vec<u32> = numbers.iter().filter_map(|n| n.parse().ok()).collect();
        let [a, b, c, d] = numbers[..] else { return None };
        Some((program.to_string(), [Cost { instructions: a, stack: b }, Cost { instructions: c, stack: d }]))
    };
    text.lines().filter_map(row).collect()
}

fn differences(table: &Costs, measured: &Costs) -> Vec<String> {
    let mut wrong: Vec<String> = table
        .keys()
        .filter(|program| !measured.contains_key(*program))
        .map(|program| format!("{program} is no longer there"))
        .collect();
    for (program, now) in measured {
        let Some(then) = table.get(program) else {
            wrong.push(format!("{program} is new"));
            continue;
        };
        for ((then, now), kernel) in then.iter().zip(now).zip(["oldest", "newest"]) {
            let far = now.instructions.abs_diff(then.instructions) > then.instructions / 100 * DRIFT + DRIFT;
            if far || now.stack != then.stack {
                wrong.push(format!(
                    "{program}, {kernel}: {} instructions and {} bytes of stack, not {} and {}",
                    now.instructions, now.stack, then.instructions, then.stack
                ));
            }
        }
    }
    wrong
}

/// A kernel's row in what was seen.
#[derive(Debug)]
pub struct Row {
    /// As the matrix names it.
    pub name: &'static str,
    /// Version.
    pub version: String,
    /// Who runs it.
    pub whose: &'static str,
    /// Did every program load?
    pub loaded: bool,
    /// What held, by step.
    pub held: BTreeMap<String, bool>,
    /// What was seen besides.
    pub note: String,
}

/// Lines of the page that are rewritten lie between these.
const BEGIN: &str = "<!-- seen: written by `cargo xtask test-kernels --write` -->";
const END: &str = "<!-- seen: end -->";

/// Writes rows into KERNELS.md; those of kernels that were not tried stay.
///
/// # Errors
/// The page isn't there, or has no place for them.
pub fn write_seen(rows: &[Row], order: &[&str], steps: &[&str]) -> anyhow::Result<()> {
    let path: PathBuf = root().join("KERNELS.md");
    let text = fs::read_to_string(&path).context("KERNELS.md")?;
    let (before, rest) = text.split_once(BEGIN).context("KERNELS.md has no place for what was seen")?;
    let (old, after) = rest.split_once(END).context("KERNELS.md has no end of what was seen")?;
    let mut lines: BTreeMap<usize, String> = BTreeMap::new();
    for (at, name) in order.iter().enumerate() {
        if let Some(row) = rows.iter().find(|row| row.name == *name) {
            lines.insert(at, line(row, steps));
        } else if let Some(kept) = old.lines().find(|line| line.starts_with(&format!("| {name} |"))) {
            lines.insert(at, kept.to_string());
        }
    }
    let head = format!(
        "| kernel | version | who runs it | loads | {} | besides |\n|{}",
        steps.join(" | "),
        "---|".repeat(steps.len() + 5)
    );
    let lines: Vec<String> = lines.into_values().collect();
    fs::write(&path, format!("{before}{BEGIN}\n{head}\n{}\n{END}{after}", lines.join("\n")))?;
    println!("written: {}", path.display());
    Ok(())
}

fn line(row: &Row, steps: &[&str]) -> String {
    let word = |held: Option<&bool>| match held {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not tried",
    };
    let cells: Vec<&str> = steps.iter().map(|step| word(row.held.get(*step))).collect();
    let loads = if row.loaded { "all" } else { "not all" };
    format!(
        "| {} | {} | {} | {loads} | {} | {} |",
        row.name,
        row.version,
        row.whose,
        cells.join(" | "),
        row.note
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::guest::Refusal;

    fn costs(instructions: u32, stack: u32) -> Costs {
        let cost = Cost { instructions, stack };
        [("flowpin_tc".to_string(), [cost; 2])].into()
    }

    fn load(instructions: u32, stack: u32) -> Load {
        Load { program: "flowpin_tc".into(), instructions, stack, millis: 1, refused: None }
    }

    #[test]
    fn a_table_is_read_as_it_was_written_and_a_few_percent_are_let_pass() {
        let table = costs(100_000, 320);
        assert_eq!(read(&shown(&table)), table);
        assert!(differences(&table, &costs(104_000, 320)).is_empty());
        assert_eq!(differences(&table, &costs(106_000, 320)).len(), 2);
        assert_eq!(differences(&table, &costs(100_000, 352)).len(), 2);
        assert_eq!(differences(&table, &Costs::new()).len(), 1);
        assert_eq!(differences(&Costs::new(), &table).len(), 1);
    }

    #[test]
    fn seven_tenths_of_a_limit_are_all_there_is() {
        assert!(check_budget("6.1", &[load(700_000, 352)]).is_ok());
        let refused = Refusal { error: "too large".into(), log: Vec::new() };
        for bad in
            [load(700_001, 32), load(1, 384), load(1, 0), Load { refused: Some(refused), ..load(1, 32) }]
        {
            assert!(check_budget("6.1", &[bad]).is_err());
        }
        assert!(check_budget("6.1", &[]).is_err());
    }
}
