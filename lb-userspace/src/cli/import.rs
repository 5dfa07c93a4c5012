//! `flowpin import`: prints another balancer's file as Flowpin's. Touches nothing.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use flowpin_import::{Imported, Item};
use serde::Serialize;

use super::{Failure, output::Printer};

/// Print another balancer's config file as Flowpin's
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin import haproxy /etc/haproxy/haproxy.cfg > flowpin.toml
  ipvsadm-save -n | flowpin import ipvsadm -
  flowpin import nginx /etc/nginx/nginx.conf -o json | jq '.directives[] | select(.commented)'

Needs neither root nor an agent. Each directive is translated, or named in a comment with its line and what to do instead; what \
can't be in force as it is is a comment as well. Read the comments, name an interface, and look at the result with \"flowpin check\".")]
pub struct Args {
    /// Whose file it is
    #[arg(value_enum, value_name = "FORMAT")]
    format: Format,
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// A format that can be read.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// haproxy.cfg
    Haproxy,
    /// What ipvsadm-save -n prints, with rules of iptables that set marks
    Ipvsadm,
    /// keepalived.conf
    Keepalived,
    /// nginx.conf, or a file that its stream block includes
    Nginx,
}

/// What was made of a file.
#[derive(Serialize)]
struct Report<'a> {
    /// Flowpin's file.
    config: &'a str,
    /// How many services would be in force.
    services: usize,
    directives: Vec<Directive<'a>>,
}

/// A directive of the file, or a parameter of one.
#[derive(Serialize)]
struct Directive<'a> {
    line: usize,
    last_line: usize,
    text: &'a str,
    /// Its value is in force in what was printed.
    translated: bool,
    /// It is in a service or backend that was printed as a comment.
    off: bool,
    /// A comment names it.
    commented: bool,
}

impl Args {
    pub fn run(self, printer: &Printer) -> Result<(), Failure> {
        let Self { format, file } = self;
        let format = match format {
            Format::Haproxy => flowpin_import::Format::Haproxy,
            Format::Ipvsadm => flowpin_import::Format::Ipvsadm,
            Format::Keepalived => flowpin_import::Format::Keepalived,
            Format::Nginx => flowpin_import::Format::Nginx,
        };
        let name = match file == Path::new("-") {
            true => "standard input".to_string(),
            false => file.display().to_string(),
        };
        let text = read(&file).map_err(|e| Failure::Said(format!("can't read {name}: {e}")))?;
        let imported =
            flowpin_import::import(format, &text).map_err(|e| Failure::Said(format!("{name}: {e}")))?;
        if !imported.recognised {
            return Err(Failure::Said(format!(
                "{name}: nothing of it is {}'s, as far as is known; give the file's own format: haproxy, ipvsadm, \
                 keepalived or nginx",
                format.name()
            )));
        }
        printer.print(&report(&imported), |report| report.config.to_string())?;
        if imported.services == 0 {
            printer.note(format!(
                "{name} declares no service that could be in force as it is; the comments say why"
            ));
        }
        Ok(())
    }
}

/// A file's text. Bytes that are no UTF-8, as in old comments, are replaced.
fn read(file: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    match file == Path::new("-") {
        true => drop(std::io::stdin().lock().read_to_end(&mut bytes)?),
        false => bytes = std::fs::read(file)?,
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn report(imported: &Imported) -> Report<'_> {
    let Imported { text, services, recognised: _, account } = imported;
    let directives = account.items().iter().map(directive);
    Report { config: text, services: *services, directives: directives.collect() }
}

fn directive(item: &Item) -> Directive<'_> {
    let Item { line, last, text, translated, off, noted, .. } = item;
    Directive { line: *line, last_line: *last, text, translated: *translated, off: *off, commented: *noted }
}
