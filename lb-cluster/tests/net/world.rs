//! Nodes with their kernels, owners, and a network between them that may do anything with what is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lb_cluster::{
    Aggregators, BackendKey, NodeId, ServiceKey,
    agent::Agent,
    frame::Frame,
    owner::{Owner, Settings, To},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

pub const NODES: usize = 5;
pub const OWNERS: usize = 3;
pub const BACKENDS: u64 = 4;
pub const SERVICES: [ServiceKey; 2] = [ServiceKey(70), ServiceKey(71)];

/// A frame on its way: from whom, to whom.
type Parcel = (NodeId, NodeId, Vec<u8>);

/// What the network does with a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// How many in a hundred are lost.
    pub lost: u32,
    /// How many in a hundred come twice.
    pub doubled: u32,
    /// Each takes 0 to so many milliseconds, so that later ones may come first.
    pub delay: u64,
}

/// A node: what its kernel holds outlives its agent.
pub struct Node {
    pub id: NodeId,
    name: String,
    pub agent: Option<Agent>,
    epoch: u64,
    /// Open connections by service and backend.
    pub own: BTreeMap<(ServiceKey, BackendKey), u32>,
    opened: u64,
    /// Since when it reaches nobody.
    pub cut: Option<Duration>,
}

pub struct Aggregator {
    pub id: NodeId,
    pub owner: Option<Owner>,
    epoch: u64,
    pub cut: bool,
}

pub struct World {
    pub now: Duration,
    pub nodes: Vec<Node>,
    pub aggregators: Vec<Aggregator>,
    pub chosen: Vec<usize>,
    pub faults: Faults,
    /// By when it comes, and in which order it was sent.
    wire: BTreeMap<(Duration, u64), Parcel>,
    sent: u64,
    rng: StdRng,
}

fn settings() -> Settings {
    Settings { cluster: "c".into(), budget: 100_000.0 }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let node = |at| {
            let name = format!("node-{at}");
            let (id, own) = (NodeId::of(&name), BTreeMap::new());
            Node { id, name, agent: None, epoch: 0, own, opened: 0, cut: None }
        };
        let aggregator = |at| {
            let id = NodeId::of(&format!("aggregator-{at}"));
            Aggregator { id, owner: None, epoch: 0, cut: false }
        };
        let mut world = Self {
            now: Duration::ZERO,
            nodes: (0..NODES).map(node).collect(),
            aggregators: (0..OWNERS).map(aggregator).collect(),
            chosen: (0..OWNERS).collect(),
            faults: Faults::default(),
            wire: BTreeMap::new(),
            sent: 0,
            rng: StdRng::seed_from_u64(seed),
        };
        (0..OWNERS).for_each(|at| world.start_owner(at));
        (0..NODES).for_each(|at| world.start_agent(at));
        world
    }

    pub fn start_owner(&mut self, at: usize) {
        let now = self.now;
        let it = &mut self.aggregators[at];
        it.epoch += 1;
        it.owner = Some(Owner::new(it.id, it.epoch, settings(), now));
    }

    /// An agent's life begins, after an end without a word if there was one before.
    pub fn start_agent(&mut self, at: usize) {
        self.kill_agent(at);
        let list = self.list();
        let node = &mut self.nodes[at];
        node.epoch += 1;
        let mut agent = Agent::new(&node.name, "c", node.epoch);
        agent.set_aggregators(self.now, list);
        node.agent = Some(agent);
        for service in SERVICES {
            self.counted(at, service);
        }
    }

    /// The kernel closes the agent's connections, as far as anybody hears of it.
    pub fn kill_agent(&mut self, at: usize) {
        let (now, node) = (self.now, &mut self.nodes[at]);
        if node.agent.take().is_some() && node.cut.is_none() {
            for aggregator in self.aggregators.iter_mut().filter(|it| !it.cut) {
                if let Some(owner) = &mut aggregator.owner {
                    owner.disconnected(now, node.id);
                }
            }
        }
    }

    /// A node is gone, with all its connections.
    pub fn kill_node(&mut self, at: usize) {
        self.nodes[at].agent = None;
        self.nodes[at].own.clear();
    }

    fn list(&self) -> Aggregators {
        Aggregators::new(self.chosen.iter().map(|at| self.aggregators[*at].id)).unwrap()
    }

    pub fn choose(&mut self, chosen: Vec<usize>) {
        self.chosen = chosen;
        let (now, list) = (self.now, self.list());
        for owner in self.aggregators.iter_mut().filter_map(|it| it.owner.as_mut()) {
            owner.aggregators_changed(now);
        }
        for agent in self.nodes.iter_mut().filter_map(|it| it.agent.as_mut()) {
            agent.set_aggregators(now, list.clone());
        }
    }

    /// A connection opens, or closes if there is one.
    pub fn flow(&mut self, at: usize, service: ServiceKey, backend: u64, open: bool) {
        let node = &mut self.nodes[at];
        let count = node.own.entry((service, BackendKey(backend))).or_default();
        *count = if open { *count + 1 } else { count.saturating_sub(1) };
        node.opened += u64::from(open);
        self.counted(at, service);
    }

    fn counted(&mut self, at: usize, service: ServiceKey) {
        let node = &mut self.nodes[at];
        let counts: Vec<_> = (0..BACKENDS)
            .map(BackendKey)
            .map(|key| (key, node.own.get(&(service, key)).copied().unwrap_or_default()))
            .collect();
        if let Some(agent) = &mut node.agent {
            agent.counted(self.now, service, BACKENDS as u32, node.opened, &counts);
        }
    }

    /// Time goes by, and what is due happens.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.send_all();
            let next = self.next();
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            while let Some((from, to, bytes)) = self.arrived() {
                self.deliver(from, to, &bytes);
            }
        }
        self.now = end;
    }

    fn arrived(&mut self) -> Option<Parcel> {
        let entry = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now)?;
        Some(entry.remove())
    }

    fn next(&self) -> Duration {
        let agents = self.nodes.iter().filter_map(|it| it.agent.as_ref()?.deadline());
        let owners = self.aggregators.iter().filter_map(|it| Some(it.owner.as_ref()?.deadline()));
        let wire = self.wire.first_key_value().map(|(key, _)| key.0);
        agents.chain(owners).chain(wire).min().unwrap_or(Duration::MAX)
    }

    fn send_all(&mut self) {
        let mut out = Vec::new();
        for node in &mut self.nodes {
            let Some(agent) = &mut node.agent else { continue };
            out.extend(agent.poll(self.now).into_iter().map(|(to, frame)| (node.id, to, frame)));
        }
        for aggregator in &mut self.aggregators {
            let Some(owner) = &mut aggregator.owner else { continue };
            for (to, frame) in owner.poll(self.now) {
                let to: Vec<_> = match to {
                    To::Node(node) => vec![node],
                    To::Subscribers(service) => owner.subscribers(service).collect(),
                    To::Members => owner.members().map(|(node, _)| node).collect(),
                };
                out.extend(to.into_iter().map(|to| (aggregator.id, to, frame.clone())));
            }
        }
        for (from, to, frame) in out {
            self.send(from, to, &frame);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, frame: &Frame) {
        let bytes = frame.encode().unwrap();
        let Faults { lost, doubled, delay } = self.faults;
        let copies = if self.rng.random_range(0..100) < doubled { 2 } else { 1 };
        for _ in 0..copies {
            let delay = Duration::from_micros(self.rng.random_range(0..=delay * 1_000));
            if self.rng.random_range(0..100) >= lost {
                self.sent += 1;
                self.wire.insert((self.now + delay, self.sent), (from, to, bytes.clone()));
            }
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) {
        let cut = |id| {
            self.nodes.iter().any(|it| it.id == id && it.cut.is_some())
                || self.aggregators.iter().any(|it| it.id == id && it.cut)
        };
        if cut(from) || cut(to) {
            return;
        }
        let (now, frame) = (self.now, Frame::decode(bytes).unwrap());
        for agent in self.nodes.iter_mut().filter(|it| it.id == to).filter_map(|it| it.agent.as_mut()) {
            agent.receive(now, from, &frame).unwrap();
        }
        for owner in self.aggregators.iter_mut().filter(|it| it.id == to).filter_map(|it| it.owner.as_mut()) {
            owner.receive(now, from, &frame).unwrap();
        }
    }

    /// The owner of a service, as agents see it.
    pub fn owner(&self, service: ServiceKey) -> Option<&Owner> {
        let owner = self.list().owner(service)?;
        self.aggregators.iter().find(|it| it.id == owner)?.owner.as_ref()
    }

    /// What all nodes have of a service.
    pub fn truth(&self, service: ServiceKey) -> BTreeMap<BackendKey, u64> {
        let mut truth = BTreeMap::new();
        for ((_, backend), open) in
            self.nodes.iter().flat_map(|it| &it.own).filter(|(key, _)| key.0 == service)
        {
            *truth.entry(*backend).or_default() += u64::from(*open);
        }
        truth.retain(|_, open| *open != 0);
        truth
    }

    /// Services that a node has connections of.
    pub fn services(&self, at: usize) -> BTreeSet<ServiceKey> {
        let open = |(key, open): (&(ServiceKey, BackendKey), &u32)| (*open != 0).then_some(key.0);
        self.nodes[at].own.iter().filter_map(open).collect()
    }
}
