//! Follows the DNS: looks hosts up that services have among their backends, again and again as long as they have them, and
//! tells the owner.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{down, handle::Handle};
use crate::{
    model::{Desired, ServiceSpec},
    source::names::{Answer, SHORTEST, dns},
};

/// How often is looked which hosts there are, and which are due.
const LOOK: Duration = Duration::from_secs(1);
/// Look-ups under way at once.
const AT_ONCE: usize = 64;

/// How long who declares a host waits for its addresses.
const PATIENCE: Duration = Duration::from_secs(3);

/// A host that is followed.
struct Followed {
    /// IP versions of the services that have it.
    wanted: [bool; 2],
    /// When it is looked up next; `None`: that is under way.
    due: Option<Instant>,
    /// How many times in a row there was a problem.
    failures: u32,
}

/// Goes on until told to stop.
pub async fn run(handle: Handle, stopped: watch::Receiver<bool>) {
    let mut hosts: HashMap<Arc<str>, Followed> = HashMap::new();
    let mut asked = FuturesUnordered::new();
    let mut seen: Option<Arc<Desired>> = None;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = look.tick() => {
                let (desired, leaves) = {
                    let state = handle.shared.read();
                    (state.desired.clone(), state.is_leaving())
                };
                // Who leaves has no services, and may come back to them.
                if !leaves && !seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &desired)) {
                    follow(&desired, &mut hosts);
                    handle.owner().lock().await.keep_hosts(|host| hosts.contains_key(host));
                    seen = Some(desired);
                }
            }
            Some((host, answers)) = asked.next() => {
                let failures = hosts.get(&host).map_or(0, |followed| followed.failures);
                let told = handle.learn(&host, answers, failures).await;
                if let Some(followed) = hosts.get_mut(&host) {
                    followed.failures = if told.failed { failures.saturating_add(1) } else { 0 };
                    followed.due = Some(Instant::now() + told.again);
                }
            }
        }
        for (host, followed) in &mut hosts {
            if asked.len() < AT_ONCE && followed.due.is_some_and(|due| due <= Instant::now()) {
                followed.due = None;
                let (host, wanted) = (host.clone(), followed.wanted);
                asked.push(async move {
                    let answers = dns::look_up(&host, wanted).await;
                    (host, answers)
                });
            }
        }
    }
}

/// Hosts of services, each once, with the IP versions of those that have it.
fn wanted<'a>(services: impl IntoIterator<Item = &'a ServiceSpec>) -> BTreeMap<&'a Arc<str>, [bool; 2]> {
    let mut wanted: BTreeMap<&Arc<str>, [bool; 2]> = BTreeMap::new();
    for service in services {
        for host in &service.hosts {
            let of = wanted.entry(&host.host).or_default();
            of.iter_mut().zip([false, true]).for_each(|(of, v6)| *of |= service.has_family(v6));
        }
    }
    wanted
}

/// Those that services have by now. A host that is new, or of which more is wanted, is due at once.
fn follow(desired: &Desired, hosts: &mut HashMap<Arc<str>, Followed>) {
    let wanted = wanted(desired.services().values().map(Arc::as_ref));
    hosts.retain(|host, _| wanted.contains_key(host));
    for (host, wanted) in wanted {
        let followed = hosts.entry(host.clone()).or_insert_with(|| Followed {
            wanted,
            due: Some(Instant::now()),
            failures: 0,
        });
        if followed.wanted != wanted {
            followed.wanted = wanted;
            followed.due = followed.due.map(|_| Instant::now());
        }
    }
}

/// What became of answers.
struct Told {
    /// Something is wrong with them.
    failed: bool,
    /// When to ask again.
    again: Duration,
}

impl Handle {
    /// Takes what the DNS says of a host.
    async fn learn(&self, host: &Arc<str>, answers: [Option<Answer>; 2], failures: u32) -> Told {
        let learned = self.owner().lock().await.learn(host, &answers, failures);
        match learned {
            Ok(learned) => {
                if learned.direct {
                    self.note_ways().await;
                }
                Told { failed: learned.problem, again: learned.again }
            }
            Err(error) => {
                tracing::error!("host {host}: its addresses aren't in force yet, retrying: {error}");
                Told { failed: true, again: SHORTEST }
            }
        }
    }

    /// Looks hosts of services up before they are declared, so that their backends are there at once. If that fails or
    /// takes long, [`run`] goes on with it.
    pub(super) async fn look_up_for(&self, services: impl IntoIterator<Item = &ServiceSpec>) {
        let mut new = wanted(services);
        if new.is_empty() {
            return;
        }
        let owner = self.owner().lock().await;
        new.retain(|host, _| !owner.knows(host));
        drop(owner);
        let all = new.into_iter().map(async |(host, wanted)| {
            if let Ok(answers) = timeout(PATIENCE, dns::look_up(host, wanted)).await {
                self.learn(host, answers, 0).await;
            }
        });
        join_all(all).await;
    }
}

#[cfg(test)]
mod tests;
