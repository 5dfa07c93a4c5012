//! The whole cluster counts as one: nodes tell each other of their connections. `lb_cluster` says what is told and
//! concluded, `lb_mesh` carries it; here the kernel's counts are read and what others have is written back.

mod counts;
pub mod discover;
pub mod everywhere;
mod kernel;
pub mod pools;
pub mod rebalance;
pub mod rebalancing;
mod spec;
mod thread;
mod times;
pub mod views;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use lb_cluster::ServiceKey;
use lb_common::abi::maps;
use lb_mesh::Mesh;
use tokio::{
    io::unix::AsyncFd,
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use counts::{Change, Counts};
use discover::Discovery;
use kernel::Writer;
use pools::Pools;
pub use spec::ClusterSpec;
pub use times::SharingTimes;
use views::{ClusterView, SharedView};

use crate::{
    agent::{down, handle::Handle, shared::Shared},
    datapath::{
        DatapathError,
        others::{Others, Wakes},
    },
};

/// Services that have got connections are looked at no more often than this.
const LOOK: Duration = Duration::from_millis(2);
/// How often all counts are read, for connections that have ended.
const ALL: Duration = Duration::from_millis(50);
/// How often what is known is kept for the metrics page.
const VIEW: Duration = Duration::from_secs(1);
/// When a mesh that couldn't start is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// What is wrong, among the agent's problems.
pub const PROBLEM: &str = "cluster";

/// What shares counts, for others to look at.
#[derive(Clone)]
pub struct Sharing {
    /// The mesh.
    pub mesh: lb_mesh::Handle,
    /// What the kernel knows of other nodes.
    pub others: Arc<Others>,
}

/// See the module. What can't start is tried again.
pub async fn run(agent: Handle, spec: Arc<ClusterSpec>, others: Arc<Others>, stopped: watch::Receiver<bool>) {
    let shared = agent.shared.clone();
    if let Err(error) = thread::run("cluster", move || share(agent, spec, others, stopped)).await {
        shared.write().note(PROBLEM, Err(format!("{error}; this node counts by itself")));
    }
}

async fn share(agent: Handle, spec: Arc<ClusterSpec>, others: Arc<Others>, stopped: watch::Receiver<bool>) {
    let shared = agent.shared.clone();
    let pools: Arc<RwLock<Pools>> = Arc::default();
    let (mut mesh, wakes) = loop {
        let writer = Writer { pools: pools.clone(), others: others.clone(), shared: shared.clone() };
        let why = match listen(&others) {
            Ok(wakes) => match Mesh::start(spec.settings(), writer).await {
                Ok(mesh) => break (mesh, wakes),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        let problem = format!("{why}; this node counts by itself");
        tracing::error!("cluster: {problem}");
        shared.write().note(PROBLEM, Err(problem));
        if timeout(AGAIN, down(stopped.clone())).await.is_ok() {
            return;
        }
    };
    let listen = mesh.address().map(tracing::field::display);
    tracing::info!(node = spec.node, listen, "counts are shared with other nodes");
    let handle = mesh.handle();
    let questions = mesh.take_questions();
    let answers = async {
        if let Some(questions) = questions {
            agent.answer(questions).await;
        }
        // The mesh ends besides, and says why.
        std::future::pending().await
    };
    let discovery = Discovery::new(&spec);
    shared.sharing.send_replace(Some(Sharing { mesh: handle.clone(), others: others.clone() }));
    shared.write().note(PROBLEM, Ok::<_, String>(()));
    let ended = tokio::select! {
        () = down(stopped) => None,
        why = mesh.ended() => Some(why),
        () = work(&shared, &pools, &others, &handle, &discovery, wakes) => None,
        () = discovery.run(&shared, &handle) => None,
        () = answers => None,
    };
    shared.sharing.send_replace(None);
    shared.sharing_view.send_replace(None);
    mesh.stop().await;
    if let Some(why) = ended {
        tracing::error!("cluster: {why}");
    }
}

/// For news of the kernel's.
fn listen(others: &Others) -> Result<AsyncFd<Wakes>, DatapathError> {
    // SAFETY: the reader owns its descriptor, always the same one, for as long as it lives.
    unsafe { AsyncFd::register(others.wakes()?) }.map_err(DatapathError::kernel(maps::WAKE))
}

/// Reads counts and says what has changed, for as long as it is let.
async fn work(
    shared: &Shared,
    pools: &RwLock<Pools>,
    others: &Others,
    handle: &lb_mesh::Handle,
    discovery: &Discovery,
    mut wakes: AsyncFd<Wakes>,
) {
    let (mut counts, mut revision) = (Counts::default(), None);
    let (mut all, mut view) = (Instant::now(), Instant::now());
    let mut now = Instant::now();
    loop {
        sleep_until(now + LOOK).await;
        if let Ok(Ok(mut woken)) = timeout_at(all, wakes.readable_mut()).await {
            woken.get_inner_mut().clear();
            woken.clear_ready();
        }
        let changed = refresh(shared, pools, &mut revision);
        now = Instant::now();
        let whole = changed.is_some() || now >= all;
        if whole {
            all = now + ALL;
        }
        let pools = || pools.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(changed) = changed {
            counts.forget(&pools()).into_iter().for_each(|change| tell(handle, change));
            changed.into_iter().for_each(|key| handle.rewrite(key));
        }
        let changes = look(shared, &pools(), others, &mut counts, whole);
        changes.into_iter().for_each(|change| tell(handle, change));
        if now >= view {
            view = now + VIEW;
            let seen = handle.view().await.map(|view| {
                let mut view = ClusterView::new(&view, &pools());
                view.unreachable.extend(discovery.unreachable());
                Arc::new(view)
            });
            for age in seen.iter().flat_map(|view| &view.services).filter_map(SharedView::age) {
                shared.sharing_times.age.observe(age);
            }
            shared.sharing_view.send_replace(seen);
        }
    }
}

/// What has changed of services that have got a connection; `whole`: of all services.
fn look(shared: &Shared, pools: &Pools, others: &Others, counts: &mut Counts, whole: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, service) in pools.iter() {
        let opened = others.take_opened(service.id);
        if opened || whole {
            let active = |at: usize| shared.maps.active(service.backends[at].id);
            changes.extend(counts.look(key, service, opened, active));
        }
    }
    changes
}

fn tell(handle: &lb_mesh::Handle, change: Change) {
    handle.counted(change.service, change.pool, change.opened, change.counts);
}

/// Takes services as they are now, if anything may be another: those whose backends are.
fn refresh(shared: &Shared, pools: &RwLock<Pools>, revision: &mut Option<u64>) -> Option<Vec<ServiceKey>> {
    let state = shared.read();
    if *revision == Some(state.revision()) {
        return None;
    }
    *revision = Some(state.revision());
    let new = Pools::of(&state);
    drop(state);
    let mut pools = pools.write().unwrap_or_else(PoisonError::into_inner);
    let changed = new.iter().filter(|(key, service)| pools.get(*key) != Some(*service));
    let changed = changed.map(|(key, _)| key).collect();
    *pools = new;
    Some(changed)
}
