//! A cluster in one process: meshes with kernels that only remember, and what connections there are.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use lb_cluster::{
    BackendKey, ServiceKey,
    agent::{Pool, Words},
    frame::Own,
};
use lb_common::ranked::ORDER_BITS;
use lb_mesh::{Handle, Identity, Kernel, Mesh, Nats, Reason, Settings, Tcp, Transport, View, keygen};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::relay::{Faults, Relay};

/// The cluster's name.
pub const NAME: &str = "test";
/// Backends of each service.
pub const BACKENDS: usize = 4;
/// Longer than anything takes.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Waits until it is so; panics with what there is instead.
pub async fn until<T: std::fmt::Debug, R: Future<Output = Result<(), T>>>(what: &str, check: impl Fn() -> R) {
    let mut last = None;
    let waited = timeout(LIMIT, async {
        loop {
            match check().await {
                Ok(()) => return,
                Err(said) => last = Some(said),
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    if waited.await.is_err() {
        panic!("{what}: {last:#?}");
    }
}

/// What a kernel was told, and what it counts.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    own: BTreeMap<ServiceKey, [u32; BACKENDS]>,
    opened: u64,
    words: BTreeMap<ServiceKey, Words>,
    extended: u64,
    reported: Vec<Duration>,
}

impl Kernel for Memory {
    fn write(&mut self, service: ServiceKey, words: &dyn Fn(&Pool, &[u32]) -> Words) {
        let pool = Pool::new(&(0..BACKENDS).map(|at| (backend(at), 1)).collect::<Vec<_>>());
        let mut state = self.0.lock().unwrap();
        let own = state.own.get(&service).copied().unwrap_or_default();
        state.words.insert(service, words(&pool, &own));
    }

    fn extend(&mut self, valid_for: Duration) {
        assert_eq!(valid_for, Duration::from_secs(2));
        self.0.lock().unwrap().extended += 1;
    }

    fn reported(&mut self, took: Duration) {
        self.0.lock().unwrap().reported.push(took);
    }
}

impl Memory {
    /// Others' connections with each backend, as they were written last.
    pub fn written(&self, service: ServiceKey) -> Option<Vec<u32>> {
        let state = self.0.lock().unwrap();
        let words = state.words.get(&service).filter(|words| words.shared)?;
        Some(words.words.iter().map(|word| word >> ORDER_BITS).collect())
    }

    /// The words of a service that nothing is known of: an order.
    pub fn order(&self, service: ServiceKey) -> Option<Vec<u32>> {
        let state = self.0.lock().unwrap();
        state.words.get(&service).filter(|words| !words.shared).map(|words| words.words.clone())
    }

    /// How long reports took.
    pub fn reported(&self) -> Vec<Duration> {
        self.0.lock().unwrap().reported.clone()
    }

    /// How often all of it was said to be good for longer.
    pub fn extended(&self) -> u64 {
        self.0.lock().unwrap().extended
    }
}

/// The backend in a slot.
pub fn backend(at: usize) -> BackendKey {
    BackendKey::of([10, 0, 1, at as u8].into(), Some(80))
}

/// A service by number.
pub fn service(number: usize) -> ServiceKey {
    ServiceKey::of("", &format!("service-{number}"))
}

/// Files of a node in a folder of keys.
pub fn identity(directory: &Path, node: &str) -> Identity {
    Identity {
        ca: directory.join(keygen::CA),
        certificate: directory.join(format!("{node}.pem")),
        key: directory.join(format!("{node}.key")),
    }
}

/// A node's name.
pub fn name(at: usize) -> String {
    format!("node-{at}")
}

/// See the module.
pub struct Cluster {
    pub keys: TempDir,
    pub aggregators: Vec<String>,
    /// How each node gets to others, if not by TCP.
    pub nats: Vec<Nats>,
    pub nodes: Vec<Option<Mesh>>,
    pub memories: Vec<Memory>,
}

impl Cluster {
    /// So many nodes, none of which runs.
    pub fn new(nodes: usize) -> Self {
        let keys = tempfile::tempdir().unwrap();
        keygen::create(keys.path(), NAME, &(0..nodes).map(name).collect::<Vec<_>>()).unwrap();
        let nodes: Vec<Option<Mesh>> = (0..nodes).map(|_| None).collect();
        let memories = nodes.iter().map(|_| Memory::default()).collect();
        Self { keys, aggregators: Vec::new(), nats: Vec::new(), nodes, memories }
    }

    /// So many that are connected, each by the relay that leads to the other.
    pub async fn behind_relays(nodes: usize) -> (Self, Vec<Relay>) {
        let mut cluster = Self::new(nodes);
        let mut relays = Vec::new();
        for _ in 0..nodes {
            relays.push(Relay::new(Faults::default()).await);
        }
        let addresses: Vec<_> = relays.iter().map(|relay| relay.address).collect();
        for (at, relay) in relays.iter().enumerate() {
            relay.lead_to(cluster.start(at, addresses.clone()).await);
        }
        cluster.meshed().await;
        (cluster, relays)
    }

    /// So many nodes, all of which run and know each other.
    pub async fn running(nodes: usize) -> Self {
        let mut cluster = Self::new(nodes);
        for at in 0..nodes {
            cluster.start(at, Vec::new()).await;
        }
        cluster.introduce();
        cluster
    }

    /// The settings of a node.
    pub fn settings(&self, at: usize, peers: Vec<SocketAddr>) -> Settings {
        let transport = match self.nats.get(at) {
            Some(nats) => Transport::Nats(nats.clone()),
            None => Transport::Tcp(self.tcp(at, peers)),
        };
        let (node, aggregators) = (name(at), self.aggregators.clone());
        Settings { node, cluster: NAME.into(), transport, aggregators }
    }

    /// The same, of TCP.
    pub fn tcp(&self, at: usize, peers: Vec<SocketAddr>) -> Tcp {
        Tcp {
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: peers.iter().map(SocketAddr::to_string).collect(),
            identity: identity(self.keys.path(), &name(at)),
        }
    }

    /// Starts a node, or another life of its agent's; the kernel's connections were there before.
    pub async fn start(&mut self, at: usize, peers: Vec<SocketAddr>) -> Option<SocketAddr> {
        let settings = self.settings(at, peers);
        self.nodes[at] = None;
        let mesh = Mesh::start(settings, self.memories[at].clone()).await.unwrap();
        let address = mesh.address();
        self.nodes[at] = Some(mesh);
        let services: Vec<_> = self.memories[at].0.lock().unwrap().own.keys().copied().collect();
        for service in services {
            self.counted(at, service);
        }
        address
    }

    /// Tells all that run where all that run are.
    pub fn introduce(&self) {
        let addresses = self.nodes.iter().flatten().filter_map(Mesh::address);
        let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
        for mesh in self.nodes.iter().flatten() {
            mesh.handle().set_peers(addresses.clone()).unwrap();
        }
    }

    /// Where a node that runs listens.
    pub fn address(&self, at: usize) -> SocketAddr {
        self.nodes[at].as_ref().and_then(Mesh::address).expect("it runs, with TCP")
    }

    pub fn handle(&self, at: usize) -> Handle {
        self.nodes[at].as_ref().expect("it runs").handle()
    }

    pub async fn view(&self, at: usize) -> View {
        self.handle(at).view().await.expect("it runs")
    }

    /// A node's connections with a backend become more, or fewer.
    pub fn change(&self, at: usize, service: ServiceKey, slot: usize, by: i32) {
        let mut state = self.memories[at].0.lock().unwrap();
        let own = state.own.entry(service).or_default();
        own[slot] = own[slot].checked_add_signed(by).expect("no more close than were opened");
        state.opened += by.max(0) as u64;
        drop(state);
        self.counted(at, service);
    }

    fn counted(&self, at: usize, service: ServiceKey) {
        let Some(mesh) = &self.nodes[at] else { return };
        let state = self.memories[at].0.lock().unwrap();
        let counts = state.own[&service].iter().enumerate();
        let counts = counts.map(|(slot, open)| Own { backend: backend(slot), open: *open }).collect();
        mesh.handle().counted(service, BACKENDS as u32, state.opened, counts);
    }

    /// What all nodes that run have of a service.
    pub fn truth(&self, service: ServiceKey) -> [u64; BACKENDS] {
        let mut truth = [0; BACKENDS];
        for (_, memory) in self.nodes.iter().zip(&self.memories).filter(|(node, _)| node.is_some()) {
            let state = memory.0.lock().unwrap();
            for (all, own) in truth.iter_mut().zip(state.own.get(&service).into_iter().flatten()) {
                *all += u64::from(*own);
            }
        }
        truth
    }

    /// Waits until each node that runs, and has connections of a service, knows what all have.
    pub async fn converged(&self) {
        until("nodes don't agree with what there is", || async {
            for (at, memory) in self.memories.iter().enumerate() {
                if self.nodes[at].is_none() {
                    continue;
                }
                let services: Vec<_> = memory.0.lock().unwrap().own.keys().copied().collect();
                let view = self.view(at).await;
                for service in services {
                    let truth = self.truth(service);
                    let seen = seen(&view, service);
                    if seen != Some(truth) {
                        return Err((name(at), truth, seen, view));
                    }
                    let own = memory.0.lock().unwrap().own[&service];
                    let others = truth.iter().zip(own).map(|(all, own)| all - u64::from(own));
                    // Some may have been added that are under way.
                    let written = memory.written(service).unwrap_or_default();
                    if written.len() != BACKENDS
                        || written.iter().zip(others).any(|(it, all)| u64::from(*it) < all)
                    {
                        return Err((name(at), truth, seen, view));
                    }
                }
            }
            Ok(())
        })
        .await;
    }

    /// Nothing has changed for the first two, and what changes now is heard.
    pub async fn goes_on(&self) {
        for at in 0..2 {
            let view = self.view(at).await;
            assert_eq!(seen(&view, service(0)), Some(self.truth(service(0))), "{view:#?}");
        }
        self.change(1, service(0), 3, 1);
        self.converged().await;
    }

    /// Waits until all that run are connected with all others that run, both ways.
    pub async fn meshed(&self) {
        let running = self.nodes.iter().flatten().count();
        until("not all are connected", || async {
            for at in (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some()) {
                let view = self.view(at).await;
                let both_ways =
                    |member: &&lb_mesh::Member| member.connected.is_some() && member.incoming != 0;
                let connected = view.members.iter().filter(both_ways).count();
                if connected + 1 != running || view.aggregators.len() != running.min(16) {
                    return Err(view);
                }
            }
            Ok(())
        })
        .await;
    }
}

/// What a node thinks that all have of a service.
pub fn seen(view: &View, service: ServiceKey) -> Option<[u64; BACKENDS]> {
    let service = view.services.iter().find(|it| it.service == service && it.shared)?;
    let mut seen = [0; BACKENDS];
    for count in &service.counts {
        let slot = (0..BACKENDS).find(|slot| backend(*slot) == count.backend)?;
        seen[slot] = u64::from(count.own) + count.others?;
    }
    Some(seen)
}

/// Waits until a node has refused something for this reason.
pub async fn refused(handle: &Handle, reason: Reason) {
    until(&format!("nothing was refused for {reason:?}"), || async {
        let view = handle.view().await.expect("it runs");
        if view.refused[&reason] > 0 { Ok(()) } else { Err(view) }
    })
    .await;
}
