//! HAProxy's configuration: proxies become services. A backend is a service's pool, and what leads to it by
//! `default_backend` its frontends; a `listen` is both.

mod bind;
mod check;
mod external;
mod join;
mod lex;
mod proxy;
pub mod remedies;
mod rules;
mod server;
mod settings;
mod talk;

use std::collections::BTreeMap;

use self::{
    proxy::{Kind, Proxy},
    remedies::{GLOBAL, SECTIONS, remedy},
    settings::Settings,
};
use crate::{ImportError, account::Id, directive::Directive, model::Draft};

/// What has been read so far.
#[derive(Default)]
struct Reader {
    draft: Draft,
    /// By name; the last one under the empty name as well.
    defaults: BTreeMap<String, Settings>,
    proxies: Vec<Proxy>,
}

/// Words that begin a section.
const BEGINNINGS: [&str; 24] = [
    "global",
    "defaults",
    "listen",
    "frontend",
    "backend",
    "peers",
    "resolvers",
    "userlist",
    "mailers",
    "program",
    "cache",
    "ring",
    "http-errors",
    "fcgi-app",
    "log-forward",
    "log-profile",
    "crt-store",
    "traces",
    "acme",
    "namespace_list",
    "ruleset",
    "haterm",
    "healthcheck",
    "namespace",
];

/// Reads all of it.
///
/// # Errors
/// A quoted text has no end.
pub fn read(text: &str) -> Result<Draft, ImportError> {
    let mut reader = Reader::default();
    let mut lines = lex::read(text)?.into_iter().peekable();
    while let Some(directive) = lines.next() {
        if !BEGINNINGS.contains(&directive.name()) {
            let at = directive.enter(&mut reader.draft.account);
            let remedy = match directive.name().starts_with('.') {
                true => remedies::CONDITION,
                false => remedies::NO_SECTION,
            };
            reader.draft.note(at, remedy);
            continue;
        }
        let mut inside = Vec::new();
        while let Some(inner) = lines.next_if(|inner| !BEGINNINGS.contains(&inner.name())) {
            inside.push(inner);
        }
        let last = inside.last().map_or(directive.line, |inner| inner.last);
        reader.section(&Directive { last, block: Some(inside), ..directive });
    }
    join::join(&mut reader);
    Ok(reader.draft)
}

impl Reader {
    fn section(&mut self, section: &Directive) {
        match section.name() {
            "defaults" => self.defaults(section),
            "listen" => self.proxy(section, Kind::Listen),
            "frontend" => self.proxy(section, Kind::Frontend),
            "backend" => self.proxy(section, Kind::Backend),
            "global" => {
                self.head(section);
                for inner in section.inside() {
                    let at = inner.enter(&mut self.draft.account);
                    self.draft.note(at, remedy(&GLOBAL, inner.name()));
                }
            }
            name => {
                let at = self.draft.account.block(section.line, section.last, &section.words.join(" "));
                self.draft.note(at, remedy(&SECTIONS, name));
            }
        }
    }

    /// The line that begins a section. It says nothing by itself.
    fn head(&mut self, section: &Directive) -> Id {
        let at = self.draft.account.open(section.line, &section.words.join(" "));
        self.draft.account.translate(at);
        at
    }

    /// `defaults [NAME] [from NAME]`
    fn defaults(&mut self, section: &Directive) {
        self.head(section);
        let (name, from) = names(section);
        let mut settings = from.map_or_else(Settings::default, |from| self.inherited(section, from));
        let mut notes = Vec::new();
        for inner in section.inside() {
            settings.take(&mut self.draft.account, inner, &mut notes);
        }
        self.draft.notes.append(&mut notes);
        self.defaults.insert(name.into(), settings.clone());
        self.defaults.insert(String::new(), settings);
    }

    /// What a section begins with.
    fn inherited(&mut self, section: &Directive, from: &str) -> Settings {
        match self.defaults.get(from) {
            Some(settings) => settings.clone(),
            // Without a `defaults` section there is nothing to begin with.
            None if from.is_empty() => Settings::default(),
            None => {
                let at = self.draft.account.open(section.line, &format!("{}, from {from}", section.name()));
                self.draft
                    .note(at, format!("No defaults section above it has the name {from:?}: put it there."));
                Settings::default()
            }
        }
    }
}

/// Its name, and whose settings it begins with.
fn names(section: &Directive) -> (&str, Option<&str>) {
    let args: Vec<&str> = section.args().iter().map(String::as_str).collect();
    match args.as_slice() {
        ["from", from, ..] => ("", Some(from)),
        [name, "from", from, ..] => (name, Some(from)),
        [name, ..] => (name, None),
        [] => ("", None),
    }
}
