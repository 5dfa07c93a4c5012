//! Upkeep of the affinity table: who has not been seen for long enough is forgotten.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use lb_common::{abi::affinity::ForgetRequest, affinity::Binding, expiry::idle};

use crate::datapath::{
    Clock, DatapathError, clients::Clients, object::Object, refusal::unless_refused, sweeper,
};

/// Looks at every client. `groups`: how long each group remembers, in milliseconds; clients of other groups are forgotten whatever
/// they have open, since no flow asks for them any more. How many there were.
///
/// # Errors
/// The kernel refuses.
pub fn sweep(
    object: &Mutex<Object>,
    clients: &Clients,
    clock: Clock,
    groups: &HashMap<u64, u64>,
) -> Result<u64, DatapathError> {
    let now = clock.now() as u32;
    let (mut count, mut over, mut orphans) = (0, Vec::new(), Vec::new());
    for (key, entry) in clients.entries() {
        count += 1;
        let binding = Binding(entry.binding);
        let request = ForgetRequest { key, binding: entry.binding };
        match groups.get(&key.group) {
            None => orphans.push(request),
            Some(remember) => {
                if binding.open() == 0 && clock.millis(idle(now, entry.last).into()) > *remember {
                    over.push(request);
                }
            }
        }
    }
    if !over.is_empty() || !orphans.is_empty() {
        let object = object.lock().unwrap_or_else(PoisonError::into_inner);
        unless_refused(sweeper::forget(&object, false, &over))?;
        unless_refused(sweeper::forget(&object, true, &orphans))?;
    }
    Ok(count)
}
