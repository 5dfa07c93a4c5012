//! keepalived's configuration: virtual servers, their groups, real servers and checkers. VRRP and whatever else is
//! not balancing is named and left where it is.

mod checks;
mod lex;
mod misc;
mod real;
pub mod remedies;
mod virtual_server;

use std::collections::BTreeMap;

use self::{
    remedies::{GLOBAL, remedy},
    virtual_server::At,
};
use crate::{ImportError, account::Id, directive::Directive, model::Draft};

/// What has been read so far.
#[derive(Default)]
struct Reader {
    draft: Draft,
    /// Groups by name: what is in them.
    groups: BTreeMap<String, Group>,
}

/// A `virtual_server_group`.
#[derive(Default)]
struct Group {
    places: Vec<(At, Id)>,
    used: bool,
}

/// Reads all of it.
///
/// # Errors
/// A block or a quoted text has no end.
pub fn read(text: &str) -> Result<Draft, ImportError> {
    let (directives, lines) = lex::read(text)?;
    let mut reader = Reader::default();
    for lex::Odd { line, last, text, remedy } in lines {
        let at = reader.draft.account.block(line, last, &text);
        reader.draft.note(at, remedy);
    }
    // A group may stand below the server that names it.
    let (groups, rest): (Vec<&Directive>, Vec<&Directive>) =
        directives.iter().partition(|directive| directive.name() == "virtual_server_group");
    groups.into_iter().for_each(|directive| reader.group(directive));
    rest.into_iter().for_each(|directive| reader.top(directive));
    for group in reader.groups.values().filter(|group| !group.used) {
        for (_, at) in &group.places {
            reader.draft.notes.push(crate::account::Note::new(*at, "No virtual_server names this group."));
        }
    }
    Ok(reader.draft)
}

impl Reader {
    fn top(&mut self, directive: &Directive) {
        if directive.name() == "virtual_server" {
            return self.virtual_server(directive);
        }
        let at = directive.enter_whole(&mut self.draft.account);
        self.draft.note(at, remedy(&GLOBAL, directive.name()));
    }

    /// Addresses, ranges of them and marks, under a name.
    fn group(&mut self, directive: &Directive) {
        let at = directive.enter(&mut self.draft.account);
        let mut group = Group { places: Vec::new(), used: false };
        for inner in directive.inside() {
            let at = inner.enter(&mut self.draft.account);
            match virtual_server::places(&inner.words) {
                Ok(places) => group.places.extend(places.into_iter().map(|place| (place, at))),
                Err(remedy) => self.draft.note(at, remedy),
            }
        }
        group.places.first().map_or_else(
            || self.draft.notes.push(crate::account::Note::new(at, "It has no address that could be taken.")),
            |(_, first)| self.draft.account.like(at, *first),
        );
        self.groups.insert(directive.arg().into(), group);
    }
}
