//! Measures Flowpin beside its peers and writes down what came out. `cargo xtask bench` builds and calls it.

mod measure;
mod micro;

use clap::Parser;

/// What is measured, and how thoroughly.
#[derive(Parser, Clone, Debug)]
pub struct Options {
    /// Fewer rounds and sizes: under three minutes
    #[arg(long)]
    pub quick: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    for series in micro::run(&options)? {
        println!("{series:?}");
    }
    Ok(())
}
