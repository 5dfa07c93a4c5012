//! A directive as any of the formats has it: words, and perhaps a block of further ones.

use crate::account::{Account, Id};

/// A directive. Its words have lost their quotes; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Where it begins, from 1.
    pub line: usize,
    /// Where it, or its block, ends.
    pub last: usize,
    /// Its name, and what it is given.
    pub words: Vec<String>,
    /// What is in its block, if it has one.
    pub block: Option<Vec<Directive>>,
}

impl Directive {
    /// One of a single line.
    pub const fn new(line: usize, words: Vec<String>) -> Self {
        Self { line, last: line, words, block: None }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// What it is given.
    pub fn args(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The first of that, or nothing.
    pub fn arg(&self) -> &str {
        self.args().first().map_or("", String::as_str)
    }

    /// As in a comment.
    pub fn text(&self) -> String {
        let words = self.words.join(" ");
        if self.block.is_some() { format!("{words} {{ ... }}") } else { words }
    }

    /// What is in its block.
    pub fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// Enters the line that it begins with.
    pub fn enter(&self, account: &mut Account) -> Id {
        account.open(self.line, &self.text())
    }

    /// Enters all of it, as one item.
    pub fn enter_whole(&self, account: &mut Account) -> Id {
        account.block(self.line, self.last, &self.text())
    }
}

/// Parameters of a directive, taken one by one. Each becomes an item of its own, so that one which nobody knows is
/// seen.
pub struct Params<'a> {
    line: usize,
    /// What begins the items' texts, as `server db1`.
    head: &'a str,
    words: &'a [String],
}

impl<'a> Params<'a> {
    /// The words of a directive from the `from`th on.
    pub fn new(directive: &'a Directive, head: &'a str, from: usize) -> Self {
        Self { line: directive.line, head, words: directive.words.get(from..).unwrap_or_default() }
    }

    /// The next word, with up to `values(word)` that belong to it, as an item.
    pub fn take(&mut self, account: &mut Account, values: impl Fn(&str) -> usize) -> Option<Param<'a>> {
        let (name, rest) = self.words.split_first()?;
        let (values, rest) = rest.split_at(values(name).min(rest.len()));
        self.words = rest;
        let mut text = format!("{}, {name}", self.head);
        for value in values {
            text = format!("{text} {value}");
        }
        Some(Param { name, values, at: account.open(self.line, &text) })
    }

    /// What is next.
    pub fn peek(&self) -> Option<&'a str> {
        self.words.first().map(String::as_str)
    }
}

/// See [`Params`].
pub struct Param<'a> {
    /// Its name.
    pub name: &'a str,
    /// What belongs to it.
    pub values: &'a [String],
    /// Its item.
    pub at: Id,
}

impl Param<'_> {
    /// Its first value, or nothing.
    pub fn value(&self) -> &str {
        self.values.first().map_or("", String::as_str)
    }
}
