//! What the node lacks to check backends, which says nothing of them; it is in the status.

use std::collections::HashMap;

use super::Target;
use crate::agent::handle::Handle;

/// Whom it keeps from being checked, and what it is.
pub struct Lacking {
    /// Where it is among the problems.
    key: &'static str,
    /// What follows.
    text: &'static str,
    of: HashMap<Target, String>,
}

impl Lacking {
    /// For checks that can't be made at all.
    pub fn checks() -> Self {
        let text = "health checks can't be made, and backends keep the state that they have";
        Self { key: "health checks", text, of: HashMap::new() }
    }

    /// For those as clients come.
    pub fn checks_at_vips() -> Self {
        let text =
            "backends that answer past the node are checked at their own addresses only, not at the VIPs";
        Self { key: "checks at VIPs", text, of: HashMap::new() }
    }

    /// What was found about one; `None`: it was checked.
    pub fn note(&mut self, handle: &Handle, target: &Target, why: Option<String>) {
        match why {
            Some(why) => drop(self.of.insert(target.clone(), why)),
            None if self.of.remove(target).is_none() => return,
            None => {}
        }
        self.tell(handle);
    }

    /// Forgets those that aren't checked any more.
    pub fn keep(&mut self, handle: &Handle, is_checked: impl Fn(&Target) -> bool) {
        let before = self.of.len();
        self.of.retain(|target, _| is_checked(target));
        if self.of.len() != before {
            self.tell(handle);
        }
    }

    fn tell(&self, handle: &Handle) {
        let Some(why) = self.of.values().next() else {
            handle.shared.write().problems.remove(self.key);
            return;
        };
        let text = format!("{}: {why}", self.text);
        if handle.shared.write().problems.insert(self.key, text.clone()).is_none() {
            tracing::error!("{text}");
        }
    }
}
