//! A limit of a service as a whole: said with all blocks in which its connections are counted.
//!
//! It names every block that the service has, also those that are about to be, and those that only wait for the last
//! flows of removed backends. So at every moment no connection is left out; one that is named and not used yet counts
//! nothing. A block is given to another service only after it was taken off.

use std::collections::BTreeSet;

use lb_common::abi::{BlockId, ServiceId, ServiceLimit};

use super::{Exhausted, Planner, Stage};
use crate::{
    model::ServiceSpec,
    reconcile::{Actual, Step},
};

impl Planner<'_> {
    /// Says a service's limit. `blocks`: all that it has, and is to have.
    pub(super) fn limit(
        &mut self,
        id: ServiceId,
        spec: &ServiceSpec,
        blocks: &BTreeSet<BlockId>,
    ) -> Result<(), Exhausted> {
        let before = self.actual.limit(id);
        // Where it is to have none, its entries still ask for the old one when blocks are written.
        let Some(most) = spec.max_connections.or(before.map(|limit| limit.most)) else { return Ok(()) };
        let exhausted = || Exhausted { service: spec.name.clone(), what: "block of backends to be limited" };
        let value = ServiceLimit::new(most, blocks.iter().copied()).ok_or_else(exhausted)?;
        if before != Some(&value) {
            self.push(Stage::Limits, Step::Limit { service: id, value: Some(Box::new(value)) });
        }
        if spec.max_connections.is_none() {
            self.remove_limit(id);
        }
        Ok(())
    }

    pub(super) fn remove_limit(&mut self, id: ServiceId) {
        if self.actual.limit(id).is_some() {
            self.push(Stage::RemoveLimits, Step::Limit { service: id, value: None });
        }
    }
}

/// A service's limit without blocks that are about to be free, if it names one of them.
pub(super) fn without(actual: &Actual, service: ServiceId, idle: &[BlockId]) -> Option<Step> {
    let limit = actual.limit(service)?;
    let left = limit.blocks().iter().copied().filter(|block| !idle.contains(block));
    let value = ServiceLimit::new(limit.most, left)?;
    (value.count != limit.count).then(|| Step::Limit { service, value: Some(Box::new(value)) })
}
