//! `acl` and `tcp-request`: who may connect, where that is said by addresses alone.

use std::collections::BTreeMap;

use super::remedies::{ACL, RULE};
use crate::{
    access::{Rule, Stage},
    account::{Account, Id, Note, Said},
    directive::Directive,
};

/// What rules say so far.
#[derive(Clone, Default)]
pub struct Rules {
    /// `acl NAME src ...`
    lists: BTreeMap<String, (Id, Vec<String>)>,
    pub rules: Vec<Rule>,
    /// Lists that no rule has used.
    pub unused: BTreeMap<String, Id>,
}

/// Whom a condition is about.
enum Who {
    /// These.
    Listed(Vec<String>),
    /// All but these.
    Others(Vec<String>),
}

impl Rules {
    /// Takes one.
    pub fn take(&mut self, account: &mut Account, directive: &Directive, notes: &mut Vec<Note>) {
        let at = directive.enter(account);
        let args: Vec<&str> = directive.args().iter().map(String::as_str).collect();
        if directive.name() == "acl" {
            match args.as_slice() {
                [name, "src", list @ ..]
                    if !list.is_empty() && list.iter().all(|text| !text.starts_with('-')) =>
                {
                    let (first, all) = self.lists.entry((*name).into()).or_insert((at, Vec::new()));
                    // A list may have several lines.
                    account.like(at, *first);
                    if at == *first {
                        self.unused.insert((*name).into(), at);
                    }
                    all.extend(list.iter().map(ToString::to_string));
                }
                _ => notes.push(Note::new(at, ACL)),
            }
            return;
        }
        let stage = match args.first() {
            Some(&"connection") => Some(Stage::Connection),
            Some(&"session") => Some(Stage::Session),
            Some(&"content") => Some(Stage::Content),
            _ => None,
        };
        let kept = match (stage, args.get(1..).unwrap_or_default()) {
            (Some(stage), ["accept", condition @ ..]) => self.rule(account, stage, true, condition, at),
            (Some(stage), ["reject" | "silent-drop", condition @ ..]) => {
                self.rule(account, stage, false, condition, at)
            }
            _ => false,
        };
        if !kept {
            notes.push(Note::new(at, RULE));
        }
    }

    fn rule(
        &mut self,
        account: &mut Account,
        stage: Stage,
        accept: bool,
        condition: &[&str],
        at: Id,
    ) -> bool {
        let push = |rules: &mut Vec<Rule>, allow, list: Vec<String>| {
            rules.extend(list.into_iter().map(|text| Rule { stage, allow, who: Said::new(text, at) }));
        };
        if condition.is_empty() {
            push(&mut self.rules, accept, vec!["all".into()]);
            return true;
        }
        match (self.who(account, condition, at), accept) {
            (Some(Who::Listed(list)), _) => push(&mut self.rules, accept, list),
            (Some(Who::Others(list)), false) => {
                push(&mut self.rules, true, list);
                push(&mut self.rules, false, vec!["all".into()]);
            }
            _ => return false,
        }
        true
    }

    fn who(&mut self, account: &mut Account, condition: &[&str], at: Id) -> Option<Who> {
        let (negative, rest) = match condition {
            ["if", rest @ ..] => (false, rest),
            ["unless", rest @ ..] => (true, rest),
            _ => return None,
        };
        let (negative, rest) = match rest {
            ["!", rest @ ..] => (!negative, rest.to_vec()),
            [first, more @ ..] if first.starts_with('!') => {
                (!negative, std::iter::once(&first[1..]).chain(more.iter().copied()).collect())
            }
            rest => (negative, rest.to_vec()),
        };
        let list = match rest.as_slice() {
            ["{", "src", list @ .., "}"] => list.iter().map(ToString::to_string).collect(),
            [name] => {
                let (declared, list) = self.lists.get(*name)?;
                self.unused.remove(*name);
                account.like(*declared, at);
                list.clone()
            }
            _ => return None,
        };
        Some(if negative { Who::Others(list) } else { Who::Listed(list) })
    }
}
