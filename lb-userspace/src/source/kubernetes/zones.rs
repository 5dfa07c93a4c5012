//! Lists of zones, each kept once: a cluster has few of them, and endpoints by the hundred thousand.

use std::collections::HashMap;

use super::objects::Name;

/// See the module. The list without any zone has number 0.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    ids: HashMap<Box<[Box<str>]>, u32>,
    lists: Vec<Box<[Box<str>]>>,
}

impl Zones {
    /// The number of a list.
    pub fn id(&mut self, names: &[Name]) -> u32 {
        if names.is_empty() {
            return 0;
        }
        let list: Box<[Box<str>]> = names.iter().map(|zone| zone.name.as_str().into()).collect();
        if let Some(id) = self.ids.get(&list) {
            return *id;
        }
        self.lists.push(list.clone());
        let id = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
        self.ids.insert(list, id);
        id
    }

    /// All lists, in the order of their numbers.
    pub fn lists(&self) -> &[Box<[Box<str>]>] {
        &self.lists
    }

    /// The same, from there.
    pub fn from_lists(lists: Vec<Box<[Box<str>]>>) -> Self {
        let ids = lists.iter().cloned().zip(1..).collect();
        Self { ids, lists }
    }

    /// The list of this number.
    pub fn list(&self, id: u32) -> &[Box<str>] {
        id.checked_sub(1).and_then(|index| self.lists.get(index as usize)).map_or(&[], |list| list)
    }

    /// Is a zone in a list?
    pub fn contains(&self, id: u32, zone: &str) -> bool {
        !zone.is_empty() && self.list(id).iter().any(|name| **name == *zone)
    }
}
