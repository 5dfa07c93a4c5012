//! Services that come to be short of their quorum, or have it again: said when it happens.

use super::Owner;
use crate::reconcile::Known;

impl Owner {
    /// Says which services are down or up from now on.
    pub(super) fn note_quorums(&self, old: &Known, next: &Known) {
        for spec in next.desired.services().values().filter(|spec| spec.quorum > 1) {
            let name = &spec.name;
            let was = old.desired.services().get(name).and_then(|spec| old.short_of_quorum(spec));
            match (was, next.short_of_quorum(spec)) {
                (None, Some(short)) => {
                    tracing::warn!(service = name, "down: {short}");
                    self.shared.log.note("down", name, "", short);
                }
                (Some(_), None) => {
                    tracing::info!(service = name, "up: its quorum is met");
                    self.shared.log.note("up", name, "", "its quorum is met");
                }
                _ => {}
            }
        }
    }
}
