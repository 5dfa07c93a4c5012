//! Rules of who may connect, as nginx and HAProxy have them: the first that fits a client decides. Flowpin lists
//! who may.

use crate::account::{Id, Note, Said};

/// A rule: may they, and who.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub allow: bool,
    pub who: Said<String>,
}

/// Who may, as far as a list of prefixes says it; `Err`: nobody, and who says so.
///
/// # Errors
/// Nobody may.
pub fn sources(rules: &[Rule], notes: &mut Vec<Note>) -> Result<Vec<Said<String>>, Id> {
    let mut allowed = Vec::new();
    let mut rules = rules.iter();
    for Rule { allow, who } in rules.by_ref() {
        match (allow, who.value.as_str()) {
            (true, "all") => {
                let remedy = "Everybody is let in from here on: there is nothing to list.";
                notes.extend(std::iter::once(who).chain(&allowed).map(|said| Note::new(said.at, remedy)));
                allowed.clear();
                return end(rules, notes, allowed);
            }
            (true, "unix:") => notes.push(Note::new(who.at, "Packets don't come by Unix sockets.")),
            (true, _) => allowed.push(who.clone()),
            (false, "all") if allowed.is_empty() => return Err(who.at),
            (false, "all") => {
                notes.push(Note::new(who.at, "It is so where source_ranges lists who may."));
                return end(rules, notes, allowed);
            }
            (false, _) => notes.push(Note::new(
                who.at,
                "They are let in, until they are written in deny_ranges, which goes before source_ranges whatever \
                 the order of the rules is.",
            )),
        }
    }
    // Without `deny all` the rest may as well.
    let remedy = "Whoever isn't named is let in too: there is nothing to list.";
    notes.extend(allowed.iter().map(|said| Note::new(said.at, remedy)));
    Ok(Vec::new())
}

/// What stands behind the rule for all.
fn end<'a>(
    rest: impl Iterator<Item = &'a Rule>,
    notes: &mut Vec<Note>,
    allowed: Vec<Said<String>>,
) -> Result<Vec<Said<String>>, Id> {
    notes
        .extend(rest.map(|rule| Note::new(rule.who.at, "A rule for all stands above it: it never decides.")));
    Ok(allowed)
}
