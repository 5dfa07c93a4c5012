//! `flowpin completions`

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure, output};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin completions bash > /etc/bash_completion.d/flowpin
  flowpin completions zsh > /usr/share/zsh/site-functions/_flowpin
  flowpin completions fish > ~/.config/fish/completions/flowpin.fish")]
pub struct Args {
    /// Which shell
    shell: Shell,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "flowpin", &mut script);
        output::raw(&script)?;
        Ok(())
    }
}
