//! All objects of one kind, as watched: what is listed anew replaces what was known in one step, when the list is
//! complete.

use std::{collections::HashMap, sync::Arc};

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T, G = T> {
    /// Everything is listed from the beginning.
    Init,
    /// One object of the list.
    InitApply(T),
    /// The list is complete. What wasn't in it is gone.
    InitDone,
    /// An object is there, or another version of it.
    Apply(T),
    /// An object is gone.
    Delete(G),
}

impl<T> Event<T> {
    /// The same event of something else.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Event<U> {
        match self {
            Self::Init => Event::Init,
            Self::InitApply(object) => Event::InitApply(of(object)),
            Self::InitDone => Event::InitDone,
            Self::Apply(object) => Event::Apply(of(object)),
            Self::Delete(object) => Event::Delete(of(object)),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Kind<T> {
    live: HashMap<Arc<str>, T>,
    /// What has been listed so far, while a list is under way.
    staged: Option<HashMap<Arc<str>, T>>,
    synced: bool,
    listed: bool,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self { live: HashMap::new(), staged: None, synced: false, listed: false }
    }
}

/// What has changed of one object: its key, what it was, what it is.
pub type Changed<'a, T> = dyn FnMut(&Arc<str>, Option<&T>, Option<&T>) + 'a;

impl<T: PartialEq + Clone> Kind<T> {
    /// Is it known what isn't there?
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Has a list been complete?
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Takes what was known once, for want of a list.
    pub fn restore(&mut self, saved: impl IntoIterator<Item = (Arc<str>, T)>) {
        self.live = saved.into_iter().collect();
        self.synced = true;
    }

    /// Goes on without one: whoever could give it refuses.
    pub fn give_up(&mut self) {
        self.synced = true;
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.live.get(key)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &T)> {
        self.live.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Follows an event. Tells what has changed by it.
    pub fn fold(&mut self, event: Event<(Arc<str>, T), Arc<str>>, changed: &mut Changed<'_, T>) {
        match event {
            Event::Init => self.staged = Some(HashMap::with_capacity(self.live.len())),
            Event::InitApply((key, object)) => {
                self.staged.get_or_insert_default().insert(key, object);
            }
            Event::InitDone => {
                (self.synced, self.listed) = (true, true);
                if let Some(staged) = self.staged.take() {
                    self.replace(staged, changed);
                }
            }
            Event::Apply((key, object)) => {
                if let Some(staged) = &mut self.staged {
                    staged.insert(key.clone(), object.clone());
                }
                let old = self.live.get(&key);
                if old != Some(&object) {
                    changed(&key, old, Some(&object));
                    self.live.insert(key, object);
                }
            }
            Event::Delete(key) => {
                if let Some(staged) = &mut self.staged {
                    staged.remove(&key);
                }
                if let Some(old) = self.live.remove(&key) {
                    changed(&key, Some(&old), None);
                }
            }
        }
    }

    /// What is listed puts out what isn't.
    fn replace(&mut self, staged: HashMap<Arc<str>, T>, changed: &mut Changed<'_, T>) {
        let old = std::mem::replace(&mut self.live, staged);
        for (key, now) in &self.live {
            let before = old.get(key);
            if before != Some(now) {
                changed(key, before, Some(now));
            }
        }
        for (key, before) in &old {
            if !self.live.contains_key(key) {
                changed(key, Some(before), None);
            }
        }
    }
}
