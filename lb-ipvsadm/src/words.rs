//! Arguments as a command, its options and their values.

use std::collections::VecDeque;

use crate::{
    Fate, Refusal,
    options::{Opt, Takes, Verb, option_named, verb_named},
};

/// What was given.
#[derive(Debug)]
pub struct Words {
    /// The command.
    pub verb: &'static Verb,
    given: Vec<(&'static Opt, Option<String>)>,
    /// What belongs to no option.
    pub rest: Vec<String>,
}

const HELP: &str = "\"flowpin ipvsadm --help\" shows what may be given";

/// What is in an argument.
enum Word {
    /// `--name`, `--name=value`; or one letter of several, as `-n`, with those that follow it.
    Named(String, Option<String>),
    /// `-abc`: letters after the dash.
    Short(String),
    /// Anything else.
    Bare(String),
}

fn word(text: &str) -> Word {
    match text.strip_prefix("--") {
        Some(_) => match text.split_once('=') {
            Some((name, value)) => Word::Named(name.into(), Some(value.into())),
            None => Word::Named(text.into(), None),
        },
        None => match text.strip_prefix('-') {
            Some(letters) if !letters.is_empty() => Word::Short(letters.into()),
            _ => Word::Bare(text.into()),
        },
    }
}

/// The first of letters as a name, and the others.
fn first(letters: &str) -> (String, String) {
    let mut chars = letters.chars();
    let name = format!("-{}", chars.next().unwrap_or_default());
    (name, chars.collect())
}

/// Goes through arguments.
struct Scan {
    args: VecDeque<String>,
    /// Of an argument that has been begun: what is left of it.
    letters: String,
}

impl Scan {
    /// What is next: a name, with what follows it in its argument.
    fn next(&mut self) -> Option<Word> {
        if self.letters.is_empty() {
            match word(&self.args.pop_front()?) {
                Word::Short(letters) => self.letters = letters,
                other => return Some(other),
            }
        }
        let (name, rest) = first(&std::mem::take(&mut self.letters));
        Some(Word::Named(name, Some(rest).filter(|rest| !rest.is_empty())))
    }

    /// The value of an option; `attached`: what follows its name.
    fn value(
        &mut self,
        option: &Opt,
        name: &str,
        attached: Option<String>,
    ) -> Result<Option<String>, Refusal> {
        match (option.takes, attached) {
            (Takes::Nothing, Some(value)) if name.starts_with("--") => {
                Err(Refusal::usage(format!("option {name} takes no value, and \"{value}\" is one")))
            }
            (Takes::Nothing, more) => {
                self.letters = more.unwrap_or_default();
                Ok(None)
            }
            (Takes::Value | Takes::Perhaps, Some(value)) => Ok(Some(value)),
            (Takes::Perhaps, None) => {
                let is_value = self.args.front().is_some_and(|next| !next.starts_with('-'));
                Ok(if is_value { self.args.pop_front() } else { None })
            }
            (Takes::Value, None) => match self.args.pop_front() {
                Some(value) => Ok(Some(value)),
                None => Err(Refusal::usage(format!("option {name} needs a value"))),
            },
        }
    }
}

/// No command is where one has to be.
fn no_command(text: &str) -> Refusal {
    let what = if option_named(text).is_some() { "is no command" } else { "isn't known" };
    Refusal::usage(format!(
        "\"{text}\" {what}; the command comes first: -A, -E, -D, -a, -e, -d, -L, -C, -S, -R or --set"
    ))
}

/// No option is where one has to be.
fn no_option(name: &str, verb: &Verb) -> Refusal {
    Refusal::usage(match name {
        "--api-socket" | "--output" => {
            format!("{name} is flowpin's own; write \"flowpin {name} ... ipvsadm {} ...\"", verb.name)
        }
        _ if verb_named(name).is_some() => format!("\"{name}\" is a second command; give one"),
        _ => format!("option \"{name}\" isn't known; {HELP}"),
    })
}

impl Words {
    /// Reads arguments; none at all are `-L`.
    ///
    /// # Errors
    /// Something isn't known, is there twice or is missing; or Flowpin has nothing like it.
    pub fn read(args: &[impl AsRef<str>]) -> Result<Self, Refusal> {
        let mut args: VecDeque<String> = args.iter().map(|arg| arg.as_ref().to_string()).collect();
        // What follows the command's letter in its argument are options.
        let (name, letters) = match args.pop_front() {
            None => ("-L".to_string(), String::new()),
            Some(text) => match word(&text) {
                Word::Named(name, None) => (name, String::new()),
                Word::Short(letters) => first(&letters),
                Word::Named(_, Some(_)) | Word::Bare(_) => return Err(no_command(&text)),
            },
        };
        let verb = verb_named(&name).ok_or_else(|| no_command(&name))?;
        if let Fate::Refused(instead) = verb.fate {
            return Err(Refusal::failed(format!("{}: {instead}", verb.name)));
        }
        let mut words = Self { verb, given: Vec::new(), rest: Vec::new() };
        let mut scan = Scan { args, letters };
        while let Some(next) = scan.next() {
            match next {
                Word::Named(name, attached) => {
                    let option = option_named(&name).ok_or_else(|| no_option(&name, verb))?;
                    let value = scan.value(option, &name, attached)?;
                    words.give(option, value)?;
                }
                Word::Short(text) | Word::Bare(text) => words.rest.push(text),
            }
        }
        words.complete()
    }

    fn give(&mut self, option: &'static Opt, value: Option<String>) -> Result<(), Refusal> {
        let verb = self.verb.name;
        if option.of != "*" && !option.of.contains(self.verb.letter) {
            return Err(Refusal::usage(format!("option {} doesn't go with {verb}; {HELP}", option.name)));
        }
        if let Some((other, _)) = self.given.iter().find(|(other, _)| other.group == option.group) {
            return Err(Refusal::usage(match other.name == option.name {
                true => format!("option {} is there twice", option.name),
                false => format!("options {} and {} don't go together; give one", other.name, option.name),
            }));
        }
        if let Fate::Refused(instead) = option.fate {
            return Err(Refusal::failed(format!("option {}: {instead}", option.name)));
        }
        self.given.push((option, value));
        Ok(())
    }

    fn complete(self) -> Result<Self, Refusal> {
        let verb = self.verb;
        for need in verb.needs {
            if !self.given.iter().any(|(option, _)| option.group == *need) {
                let option = if *need == "real-server" {
                    "-r ADDRESS[:PORT]"
                } else {
                    "-t ADDRESS:PORT or -u ADDRESS:PORT"
                };
                return Err(Refusal::usage(format!("{} needs {option}", verb.name)));
            }
        }
        if let (Some(text), true) = (self.rest.first(), verb.name != "--set") {
            return Err(Refusal::usage(format!("\"{text}\" belongs to no option; {HELP}")));
        }
        Ok(self)
    }

    /// Was it given?
    pub fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(option, _)| option.name == name)
    }

    /// Its value, if it was given with one.
    pub fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.given.iter().find(|(option, _)| option.name == name)?;
        value.as_deref()
    }

    /// The one of a group that was given, by name, with its value.
    pub fn of(&self, group: &str) -> Option<(&'static str, Option<&str>)> {
        let (option, value) = self.given.iter().find(|(option, _)| option.group == group)?;
        Some((option.name, value.as_deref()))
    }
}
