//! `listen`, `frontend` and `backend`: what they say beside what `defaults` says.

use super::{
    Reader,
    bind::bind,
    names,
    remedies::PAGE,
    server::{Declared, declared},
    settings::Settings,
};
use crate::{
    account::{Id, Note},
    directive::Directive,
    model::Frontend,
};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Listen,
    Frontend,
    Backend,
}

/// See the module.
pub struct Proxy {
    pub kind: Kind,
    pub name: String,
    pub at: Id,
    pub frontends: Vec<Frontend>,
    pub servers: Vec<Declared>,
    pub settings: Settings,
    pub notes: Vec<Note>,
}

impl Reader {
    pub(super) fn proxy(&mut self, section: &Directive, kind: Kind) {
        let (name, from) = names(section);
        let settings = self.inherited(section, from.unwrap_or_default());
        if settings.default_backend.is_none() && only_shows_statistics(section) {
            let words = section.words.join(" ");
            let at = self.draft.account.block(section.line, section.last, &words);
            return self.draft.note(at, PAGE);
        }
        let at = self.draft.account.open(section.line, &section.words.join(" "));
        let mut proxy = Proxy {
            kind,
            name: name.into(),
            at,
            frontends: Vec::new(),
            servers: Vec::new(),
            settings,
            notes: Vec::new(),
        };
        let account = &mut self.draft.account;
        // An older form has the address in the section's own line.
        if kind != Kind::Backend && from.is_none() && section.args().len() > 1 {
            proxy.frontends = bind(account, section, 2, &mut proxy.notes);
        }
        for inner in section.inside() {
            match inner.name() {
                "bind" => proxy.frontends.extend(bind(account, inner, 1, &mut proxy.notes)),
                "server" | "server-template" => {
                    let server = declared(account, inner, &proxy.settings.servers);
                    proxy.servers.push(server);
                }
                "maxconn" if kind == Kind::Backend => {
                    let at = inner.enter(account);
                    proxy.notes.push(Note::new(at, "It is for frontends, and does nothing in a backend."));
                }
                _ => proxy.settings.take(account, inner, &mut proxy.notes),
            }
        }
        self.proxies.push(proxy);
    }
}

/// Does nothing in it lead to a server, and something ask for the page of statistics, or for the metrics?
fn only_shows_statistics(section: &Directive) -> bool {
    let leads = |inner: &Directive| {
        matches!(
            inner.name(),
            "server" | "server-template" | "default_backend" | "use_backend" | "dispatch" | "use-server"
        )
    };
    let shows = |inner: &Directive| {
        inner.name() == "stats" || inner.args().iter().any(|word| word == "prometheus-exporter")
    };
    section.inside().iter().any(shows) && !section.inside().iter().any(leads)
}
