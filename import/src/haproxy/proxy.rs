//! `listen`, `frontend` and `backend`: what they say beside what `defaults` says.

use super::{
    Reader,
    bind::bind,
    names,
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
        let at = self.draft.account.open(section.line, &section.words.join(" "));
        let (name, from) = names(section);
        let settings = self.inherited(section, from.unwrap_or_default());
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
