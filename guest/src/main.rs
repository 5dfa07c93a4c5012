//! Runs inside an emulated kernel, and outside of one as well: loads every program and says what the verifier made of it, and tries
//! the real agent with real traffic.

mod churn;
mod clock;
mod load;
mod round;
mod stack;
mod verdict;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};

use crate::{
    load::Loader,
    verdict::{Frame, Verdict},
};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Loads every program of an object
    Load {
        /// The BPF object
        object: PathBuf,
        /// Seconds that the verifier has for each program
        #[arg(long, default_value_t = 60)]
        limit: u64,
        /// Programs whose names begin with this; the others are left out
        #[arg(long, default_value = "")]
        only: String,
        /// A JSON object for each program instead of lines for people
        #[arg(long)]
        json: bool,
    },
    /// The agent ($FLOWPIN_BIN) by TC, XDP, past the stack and at sockets; a JSON object for each step
    Round {
        /// Steps; none: every one
        steps: Vec<String>,
    },
    /// Short connections while the sweeper walks
    Churn {
        /// How many
        connections: usize,
    },
    /// Drains while the clock is set by an hour: this machine's
    Clock,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().verb {
        Verb::Load { object, limit, only, json } => {
            let bytes = fs::read(&object).with_context(|| object.display().to_string())?;
            for verdict in Loader::new(&bytes)?.try_all(&only, Duration::from_secs(limit)) {
                let verdict = verdict?;
                if json {
                    println!("{}", serde_json::to_string(&verdict)?);
                } else {
                    print!("{}", lines(&verdict));
                }
            }
        }
        Verb::Round { steps } => {
            let mut failed = 0;
            round::run(&steps, |step| {
                failed += usize::from(step.failed.is_some());
                println!("{}", serde_json::json!(step));
            });
            ensure!(failed == 0, "{failed} steps failed");
        }
        Verb::Churn { connections } => {
            one("churn", || churn::run(connections))?;
        }
        Verb::Clock => one("clock", clock::run)?,
    }
    Ok(())
}

/// A step by itself.
fn one(step: &'static str, f: impl FnOnce()) -> anyhow::Result<()> {
    let step = round::attempt(step, f);
    println!("{}", serde_json::json!(step));
    ensure!(step.failed.is_none(), "it failed");
    Ok(())
}

/// For people: what counts first, then each subprogram's part.
fn lines(verdict: &Verdict) -> String {
    let one = |f: &Frame| match f.instructions {
        0 => format!("{} {}", f.name, f.bytes),
        instructions => format!("{} {} ({instructions} insns)", f.name, f.bytes),
    };
    let all = |frames: &[Frame], between: &str| frames.iter().map(one).collect::<Vec<_>>().join(between);
    let mut text = format!(
        "{:<8} {:<22} {:<20} {:>8} insns {:>4} bytes of stack {:>7.1} s\n",
        if verdict.refused.is_none() { "OK" } else { "REFUSED" },
        verdict.program,
        verdict.section,
        verdict.instructions,
        verdict.stack,
        verdict.millis as f64 / 1000.0,
    );
    if !verdict.chain.is_empty() {
        text += &format!("         deepest: {}\n", all(&verdict.chain, " > "));
        text += &format!("         all:     {}\n", all(&verdict.frames, ", "));
    }
    if let Some(refusal) = &verdict.refused {
        text += &format!("         {}\n", refusal.error);
        for line in &refusal.log {
            text += &format!("         | {line}\n");
        }
    }
    text
}
