//! `ipvsadm-save`'s format, which is what `ipvsadm` is given as arguments: a command a line, with or without the
//! program's name. Rules of iptables among them are read for the marks that they set: a service by mark has its
//! addresses there.

mod marks;
mod service;

use std::collections::BTreeMap;

pub use self::service::apply;
use self::{marks::Mark, service::Key};
use crate::{
    account::{Id, Note, Said},
    directive::Directive,
    model::{Draft, Timeouts},
    values::seconds,
};

/// What has been read so far.
#[derive(Default)]
struct Reader {
    draft: Draft,
    /// Which service a key is, in `draft`.
    services: BTreeMap<Key, usize>,
    /// Who is marked with what.
    marks: Vec<Mark>,
    /// `--set`: of all services.
    timeouts: Timeouts,
}

/// Of what is no command, as far as is known.
pub const UNKNOWN: &str = "It is no command of ipvsadm that is known: look at what it does.";

/// Remedies for commands that declare nothing.
const COMMANDS: [(&str, &str); 11] = [
    (
        "-C",
        "It empties the table, as Flowpin's file does by being all there is. Take services away with \
         `flowpin service remove`.",
    ),
    ("-D", "A service that is removed there isn't declared here: leave its lines out."),
    ("-d", "A server that is removed there isn't declared here: leave its lines out."),
    ("-R", "It reads a table, as `flowpin agent` reads this file."),
    ("-S", "It prints the table: `flowpin service list -o json`."),
    ("-L", "It lists: `flowpin service list`, `backend list`, `connection list` and `stats`."),
    ("-l", "It lists: `flowpin service list`, `backend list`, `connection list` and `stats`."),
    ("-Z", "Flowpin's counters aren't reset: compare two readings of `flowpin stats`."),
    ("-h", "`flowpin help`."),
    ("--start-daemon", "Nodes don't share connections yet: after a failover clients connect anew."),
    ("--stop-daemon", "Nodes don't share connections yet: there is nothing to stop."),
];

/// Reads all of it.
pub fn read(text: &str) -> Draft {
    let mut reader = Reader::default();
    for (line, text) in text.lines().enumerate() {
        let words = words(text);
        if !words.is_empty() {
            reader.command(Directive::new(line + 1, words));
        }
    }
    reader.finish()
}

/// Words of a line, as a shell has them: quotes, and comments from a word with `#` on.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// One name for each option that has two.
fn short(word: &str) -> &str {
    match word {
        "--add-service" => "-A",
        "--edit-service" => "-E",
        "--delete-service" => "-D",
        "--clear" => "-C",
        "--restore" => "-R",
        "--save" => "-S",
        "--add-server" => "-a",
        "--edit-server" => "-e",
        "--delete-server" => "-d",
        "--list" => "-L",
        "--zero" => "-Z",
        "--help" => "-h",
        "--tcp-service" => "-t",
        "--udp-service" => "-u",
        "--sctp-service" => "--sctp",
        "--fwmark-service" => "-f",
        "--ipv6" => "-6",
        "--scheduler" => "-s",
        "--persistent" => "-p",
        "--netmask" => "-M",
        "--real-server" => "-r",
        "--gatewaying" => "-g",
        "--ipip" => "-i",
        "--masquerading" => "-m",
        "--weight" => "-w",
        "--u-threshold" => "-x",
        "--l-threshold" => "-y",
        "--ops" => "-o",
        "--sched-flags" => "-b",
        "--numeric" => "-n",
        other => other,
    }
}

impl Reader {
    fn command(&mut self, mut directive: Directive) {
        let program = directive.name().rsplit('/').next().unwrap_or_default().to_string();
        if program.starts_with("iptables") || program.starts_with("ip6tables") || marks::is_rule(&directive) {
            return self.mark(&directive);
        }
        if program == "ipvsadm" && directive.words.len() > 1 {
            directive.words.remove(0);
        }
        for word in &mut directive.words {
            // `--scheduler=rr` is `-s rr`; what else has a `=` in it stays.
            *word = short(word).into();
        }
        let directive = split_equals(directive);
        match directive.name() {
            "-A" | "-E" => self.service(&directive),
            "-a" | "-e" => self.server(&directive),
            "--set" => self.set(&directive),
            name => {
                let at = directive.enter(&mut self.draft.account);
                let known = COMMANDS.iter().find(|(command, _)| *command == name);
                let remedy = known.map_or(UNKNOWN, |(_, remedy)| remedy);
                self.draft.note(at, remedy);
            }
        }
    }

    /// `--set TCP TCPFIN UDP`: 0 leaves one as it is.
    fn set(&mut self, directive: &Directive) {
        let at = directive.enter(&mut self.draft.account);
        let mut times = [None, None, None];
        for (place, text) in times.iter_mut().zip(directive.args()) {
            match seconds(text) {
                Ok(time) if time.is_zero() => {}
                Ok(time) => *place = Some(Said::new(time, at)),
                Err(remedy) => self.draft.note(at, remedy),
            }
        }
        if directive.args().len() != 3 {
            self.draft
                .note(at, "Three times are expected: of open TCP connections, of closing ones, and of UDP.");
        }
        let [idle, half_closed, udp] = times;
        let Timeouts { idle: old, half_closed: old_closed, udp: old_udp, .. } =
            std::mem::take(&mut self.timeouts);
        self.timeouts = Timeouts {
            idle: idle.or(old),
            half_open: None,
            half_closed: half_closed.or(old_closed),
            udp: udp.or(old_udp),
        };
    }

    /// All commands have been read: what is of all services is given to each, and marks become addresses.
    fn finish(mut self) -> Draft {
        for service in &mut self.draft.services {
            service.timeouts = self.timeouts.clone();
        }
        self.place_marks();
        if self.draft.services.is_empty() {
            for said in
                [&self.timeouts.idle, &self.timeouts.half_closed, &self.timeouts.udp].into_iter().flatten()
            {
                self.draft.notes.push(no_service(said.at));
            }
        }
        self.draft
    }
}

fn no_service(at: Id) -> Note {
    Note::new(at, "There is no service whose timeouts these could be.")
}

/// `--scheduler=rr` as `-s rr`.
fn split_equals(directive: Directive) -> Directive {
    let split = |word: String| match word.split_once('=') {
        Some((name, value)) if name.starts_with("--") => vec![short(name).to_string(), value.to_string()],
        _ => vec![word],
    };
    Directive { words: directive.words.into_iter().flat_map(split).collect(), ..directive }
}
