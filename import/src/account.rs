//! What a file asks for, item by item, and what became of each. An item is done with when the writer prints its
//! value or a comment that names it; what is neither is printed at the end. So nothing is dropped silently,
//! whatever a parser forgets.

use std::collections::BTreeSet;

/// Longest text of an item that a comment repeats, in characters.
const LONGEST: usize = 60;

/// An item of an [`Account`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(usize);

/// A value of the file, and the item that says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Said<T> {
    /// As understood.
    pub value: T,
    /// Who says so.
    pub at: Id,
}

impl<T> Said<T> {
    /// A value of an item.
    pub const fn new(value: T, at: Id) -> Self {
        Self { value, at }
    }
}

/// A sentence on an item: why it isn't translated as it is, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which.
    pub at: Id,
    /// What to do.
    pub remedy: String,
}

impl Note {
    /// On an item.
    pub fn new(at: Id, remedy: impl Into<String>) -> Self {
        Self { at, remedy: remedy.into() }
    }
}

/// A directive, or a parameter of one.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where it begins, from 1.
    pub line: usize,
    /// Where it ends: further down if it is a block.
    pub last: usize,
    /// As written, shortened.
    pub text: String,
    /// Its value is in force in what was printed.
    pub translated: bool,
    /// Its value is in a service or backend that was printed as a comment.
    pub off: bool,
    /// A comment names it.
    pub noted: bool,
    /// Items that say the same, and whose fate is this one's.
    followers: BTreeSet<Id>,
}

/// All items of a file.
#[derive(Clone, Debug, Default)]
pub struct Account {
    items: Vec<Item>,
}

impl Account {
    /// A further item.
    pub fn open(&mut self, line: usize, text: &str) -> Id {
        self.block(line, line, text)
    }

    /// A further item, of several lines.
    pub fn block(&mut self, line: usize, last: usize, text: &str) -> Id {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = match clean.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}...", clean[..end].trim_end()),
            None => clean,
        };
        let (translated, off, noted, followers) = (false, false, false, BTreeSet::new());
        self.items.push(Item { line, last, text, translated, off, noted, followers });
        Id(self.items.len() - 1)
    }

    /// An item.
    pub fn item(&self, id: Id) -> &Item {
        &self.items[id.0]
    }

    /// What becomes of `first` becomes of `id` and its followers: they say the same.
    pub fn like(&mut self, id: Id, first: Id) {
        if id == first {
            return;
        }
        let mut ids = std::mem::take(&mut self.items[id.0].followers);
        ids.insert(id);
        self.items[first.0].followers.append(&mut ids);
    }

    /// An item, and those that are like it.
    pub fn all_like(&self, id: Id) -> Vec<Id> {
        std::iter::once(id).chain(self.items[id.0].followers.iter().copied()).collect()
    }

    /// Its value is in force.
    pub fn translate(&mut self, id: Id) {
        for id in self.all_like(id) {
            self.items[id.0].translated = true;
        }
    }

    /// Its value was printed, in a comment.
    pub fn turn_off(&mut self, id: Id) {
        for id in self.all_like(id) {
            self.items[id.0].off = true;
        }
    }

    /// A comment names it.
    pub fn name(&mut self, id: Id) {
        self.items[id.0].noted = true;
    }

    /// What was printed nowhere.
    pub fn open_items(&self) -> Vec<Id> {
        let open = |(_, item): &(usize, &Item)| !item.translated && !item.off && !item.noted;
        self.items.iter().enumerate().filter(open).map(|(i, _)| Id(i)).collect()
    }

    /// In the order of the file's directives, as far as they were looked at.
    pub fn items(&self) -> &[Item] {
        &self.items
    }
}
