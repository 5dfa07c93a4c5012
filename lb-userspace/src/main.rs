//! `flowpin`: agent and command line in one. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 agent unreachable.

use std::process::ExitCode;

use clap::Parser;
use flowpin::cli::{self, Cli};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => cli::run(cli),
        Err(error) => cli::usage(&error),
    }
}
