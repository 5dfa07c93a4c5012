//! Follows the DNS: looks hosts up that services have among their backends, again and again as long as they have them, and
//! tells the owner.

mod followed;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use self::followed::{Hosts, LookUp};
use super::{down, handle::Handle};
use crate::{
    model::{Desired, ServiceSpec},
    source::names::{Answer, SHORTEST, dns},
};

/// How often is looked which hosts there are, and which are due; and how often their addresses are written at most.
const LOOK: Duration = Duration::from_secs(1);

/// How long who declares a host waits for its addresses.
const PATIENCE: Duration = Duration::from_secs(3);

/// Goes on until told to stop.
pub async fn run(handle: Handle, stopped: watch::Receiver<bool>) {
    let mut hosts = Hosts::default();
    let mut asked = FuturesUnordered::new();
    let mut seen: Option<Arc<Desired>> = None;
    let mut writing = None;
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
                    let mut owner = handle.owner().lock().await;
                    hosts.follow(&desired, |host| owner.knows(host), Instant::now());
                    owner.keep_hosts(|host| hosts.has(host));
                    seen = Some(desired);
                }
                write(&handle, &mut writing);
            }
            Some((look_up, answers)) = asked.next() => {
                let look_up: LookUp = look_up;
                let told = handle.learn(&look_up.host, answers, hosts.failures(&look_up.host)).await;
                hosts.done(&look_up, &told, Instant::now());
            }
        }
        for look_up in hosts.due(Instant::now()) {
            asked.push(async move {
                let answers = dns::look_up(&look_up.host, look_up.wanted).await;
                (look_up, answers)
            });
        }
    }
}

/// Has addresses written that aren't yet; one at a time, and nobody waits for the disk.
fn write(handle: &Handle, writing: &mut Option<JoinHandle<()>>) {
    if handle.shared.names.is_due() && writing.as_ref().is_none_or(JoinHandle::is_finished) {
        let shared = handle.shared.clone();
        *writing = Some(tokio::task::spawn_blocking(move || shared.save_names()));
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
