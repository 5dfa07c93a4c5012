//! `MISC_CHECK`: a program. keepalived starts it without a shell, and so does Flowpin.

use std::time::Duration;

use crate::{
    account::{Id, Note, Said},
    directive::Directive,
    model::{Backend, Command},
    program,
    values::seconds,
};

const BY_HAND: &str = "Until the program is written in health, as { type = \"exec\", command = [\"/path\", \
     \"{address}\", \"{port}\"] }, only the server's port is looked at.";
const SHELL: &str = "keepalived has no shell look at it, nor has Flowpin: where one is meant, write command = [\"/bin/sh\", \
     \"-c\", \"...\"].";
const USER: &str = "Programs run as the agent's user: let this one change to another by itself, as setpriv does, if \
     it must not.";
const WEIGHT: &str = "A status from 2 on is a weight there, and bad here, where 0 alone is good: have the program say \
     0, and set weights by `flowpin backend set SERVICE BACKEND --weight N`.";

/// What is said of it.
#[derive(Default)]
pub struct Misc {
    path: Option<(Id, Vec<String>)>,
    timeout: Option<Said<Duration>>,
    /// Its status is a weight.
    dynamic: Option<Id>,
}

/// A program, and how long it may take where that is said.
pub struct Program {
    pub command: Said<Command>,
    pub timeout: Option<Said<Duration>>,
}

impl Misc {
    /// Takes a directive, if it is one of these.
    pub fn take(&mut self, directive: &Directive, at: Id, notes: &mut Vec<Note>) -> bool {
        match directive.name() {
            "misc_path" => self.path = Some((at, directive.args().to_vec())),
            "misc_timeout" => match seconds(directive.arg()) {
                Ok(time) => self.timeout = Some(Said::new(time, at)),
                Err(remedy) => notes.push(Note::new(at, remedy)),
            },
            "misc_dynamic" => self.dynamic = Some(at),
            "connect_ip" | "connect_port" => {
                notes.push(Note::new(
                    at,
                    "Where a program connects to is its own affair: give it an argument.",
                ));
            }
            "user" => notes.push(Note::new(at, USER)),
            _ => return false,
        }
        true
    }

    /// The program that any server is asked by; `None`, with notes: it can't be told. `at`: the checker.
    pub fn program(self, at: Id, backend: &mut Backend) -> Option<Program> {
        let Self { path, timeout, dynamic } = self;
        let command = path.as_ref().and_then(|(_, args)| {
            let words = match args.as_slice() {
                [line] => program::words(line)?,
                words => words.to_vec(),
            };
            let told = dynamic.is_none() && !words.iter().any(|word| program::is_odd(word));
            let any = program::of_any(words, &backend.host, backend.port);
            told.then(|| program::command(any, Vec::new())).flatten()
        });
        backend.notes.extend(dynamic.map(|id| Note::new(id, WEIGHT)));
        let Some((path_at, command)) = path.as_ref().map(|(at, _)| *at).zip(command) else {
            let ids = path.map(|(at, _)| at).into_iter().chain(timeout.map(|said| said.at)).chain([at]);
            backend.notes.extend(ids.map(|id| Note::new(id, BY_HAND)));
            return None;
        };
        let signs = |word: &String| word.contains(['|', '&', ';', '<', '>', '$', '`', '*']);
        if command.iter().any(signs) {
            backend.note(path_at, SHELL);
        }
        Some(Program { command: Said::new(command, path_at), timeout })
    }
}
