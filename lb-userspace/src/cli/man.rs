//! `flowpin man`: manual pages, for packages.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{Cli, Failure};

/// Write manual pages, one for each command
#[derive(Debug, clap::Args)]
#[command(
    hide = true,
    after_help = "\
Example:
  flowpin man /usr/local/share/man/man1"
)]
pub struct Args {
    /// Where to; it is made if it isn't there
    dir: PathBuf,
}

/// What an installation has, besides the command.
const FILES: [(&str, &str); 5] = [
    ("/etc/flowpin/flowpin.toml", "The config file that the packaged service reads."),
    ("/run/flowpin/api.sock", "The agent's API."),
    ("/var/lib/flowpin/state.json", "What the command line added."),
    ("/sys/fs/bpf/flowpin", "Maps and links. They stay when the agent ends."),
    ("/usr/share/doc/flowpin", "Documentation, and example config files."),
];

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::Said(format!("{}: {e}", self.dir.display()));
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        pages(&root, None, &self.dir).map_err(failed)
    }
}

/// The page of a command, and those of the commands below it.
fn pages(command: &Command, above: Option<&Command>, dir: &Path) -> io::Result<()> {
    let below = || command.get_subcommands().filter(|c| !c.is_hide_set());
    let name = title(command);
    let mut page = Vec::new();
    let man =
        Man::new(command.clone()).manual("Flowpin").source(format!("Flowpin {}", env!("CARGO_PKG_VERSION")));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis(&man, &mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if below().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(help) = command.get_after_help() {
        notes(&help.to_string(), &mut page)?;
    }
    let mut roff = Roff::new();
    if above.is_none() {
        roff.control("SH", ["FILES"]);
        for (file, what) in FILES {
            roff.control("TP", []).text([bold(file)]).text([roman(what)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let mut others: Vec<String> = above.map(title).into_iter().chain(below().map(title)).collect();
    others.iter_mut().for_each(|other| *other += "(1)");
    others.push("flowpin.toml(5)".into());
    roff.text([roman(others.join(", "))]);
    roff.to_writer(&mut page)?;
    fs::File::create(dir.join(format!("{name}.1")))?.write_all(&page)?;
    below().try_for_each(|one| pages(one, Some(command), dir))
}

/// A choice of many flags may be broken between them.
fn synopsis(man: &Man, page: &mut Vec<u8>) -> io::Result<()> {
    let mut text = Vec::new();
    man.render_synopsis_section(&mut text)?;
    page.write_all(String::from_utf8_lossy(&text).replace('|', " | ").as_bytes())
}

/// `flowpin-service-add`
fn title(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).into()
}

/// What stands below the options in a command's help: examples as they are, the rest as paragraphs.
fn notes(help: &str, page: &mut Vec<u8>) -> io::Result<()> {
    for paragraph in help.split("\n\n") {
        let mut roff = Roff::new();
        let text = match paragraph.split_once(":\n") {
            Some((heading @ ("Example" | "Examples"), lines)) => {
                roff.control("SH", [heading.to_uppercase().as_str()]);
                lines
            }
            _ => {
                roff.control("PP", []);
                paragraph
            }
        };
        let as_is = text.starts_with(' ');
        if as_is {
            roff.control("nf", []);
        }
        for line in text.lines() {
            roff.text([roman(line)]);
        }
        if as_is {
            roff.control("fi", []);
        }
        roff.to_writer(page)?;
    }
    Ok(())
}
