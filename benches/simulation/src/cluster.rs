//! The cluster as events: connections that come and go, agents that wake, frames on their way.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use lb_cluster::{
    Aggregators, NodeId,
    agent::Pool,
    frame::Frame,
    owner::{Owner, Settings, To},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::node::{CLUSTER, Mode, Node, backend, least};

/// From a connection until the agent has read the counts.
const WAKE: (u64, u64) = (50, 200);
/// Until it has read them for a connection that has closed: it looks every 50 ms.
const LOOK: u64 = 50_000;
/// A client whose backend is gone comes back within so many microseconds.
const COME_BACK: u64 = 1_000_000;

/// What happens to a cluster.
#[derive(Clone, Copy, Debug)]
pub enum Incident {
    /// A connection at a node, for so long or for good.
    Open(usize, Option<Duration>),
    /// The owner dies.
    OwnerDies,
    /// It is back, and knows nothing.
    OwnerStarts,
    /// No node reaches the owner.
    Cut,
    /// A backend more, of weight 1.
    Backend,
    /// A backend restarts: its connections end, their clients come back to their nodes.
    Restart(usize),
    /// Counts are looked at.
    Measure,
}

/// A cluster, and what happens to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub nodes: usize,
    pub weights: Vec<u32>,
    /// A frame takes this long on average, give or take half of it.
    pub one_way: Duration,
    /// See [`Settings`].
    pub budget: f64,
    pub incidents: Vec<(Duration, Incident)>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Most connections of a backend for its weight, over the mean: whenever it was looked at.
    pub ratios: Vec<f64>,
    /// Connections of each backend in the end.
    pub counts: Vec<u32>,
    /// Frames that nodes have received, and their bytes.
    pub frames: u64,
    pub bytes: u64,
}

enum Event {
    Incident(Incident),
    Close { node: usize, slot: usize, flow: u64 },
    Read(usize),
    Turn(usize),
    OwnerTurn,
    ToOwner(NodeId, Frame),
    ToNode(usize, Rc<Frame>),
}

struct Cluster {
    now: Duration,
    mode: Mode,
    scenario: Scenario,
    nodes: Vec<Node>,
    by_id: BTreeMap<NodeId, usize>,
    owner_id: NodeId,
    owner: Option<Owner>,
    epoch: u64,
    owner_turn: Duration,
    pool: Pool,
    counts: Vec<u32>,
    /// Open connections: where, and with whom.
    flows: BTreeMap<u64, (usize, usize)>,
    flow: u64,
    queue: BTreeMap<(Duration, u64), Event>,
    number: u64,
    rng: StdRng,
    outcome: Outcome,
}

/// Lets it happen. The end is a second after the last incident.
pub fn run(scenario: Scenario, mode: Mode, seed: u64) -> Outcome {
    let owner_id = NodeId::of("aggregator");
    let mut nodes: Vec<_> =
        (0..scenario.nodes).map(|place| Node::new(place, scenario.nodes, scenario.weights.len())).collect();
    for node in &mut nodes {
        node.agent.set_aggregators(Duration::ZERO, Aggregators::new([owner_id]).expect("one"));
    }
    let end = scenario.incidents.iter().map(|(at, _)| *at).max().unwrap_or_default() + Duration::from_secs(1);
    let mut cluster = Cluster {
        now: Duration::ZERO,
        mode,
        by_id: nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect(),
        nodes,
        owner_id,
        owner: None,
        epoch: 0,
        owner_turn: Duration::MAX,
        pool: Pool::default(),
        counts: vec![0; scenario.weights.len()],
        flows: BTreeMap::new(),
        flow: 0,
        queue: BTreeMap::new(),
        number: 0,
        rng: StdRng::seed_from_u64(seed),
        outcome: Outcome::default(),
        scenario,
    };
    for (at, incident) in std::mem::take(&mut cluster.scenario.incidents) {
        cluster.at(at, Event::Incident(incident));
    }
    cluster.make_pool();
    cluster.incident(Incident::OwnerStarts);
    while let Some(entry) = cluster.queue.first_entry().filter(|entry| entry.key().0 <= end) {
        let ((now, _), event) = entry.remove_entry();
        cluster.now = now;
        cluster.happen(event);
    }
    cluster.measure();
    cluster.outcome.counts = cluster.counts;
    cluster.outcome
}

impl Cluster {
    fn at(&mut self, at: Duration, event: Event) {
        self.number += 1;
        self.queue.insert((at, self.number), event);
    }

    fn later(&mut self, micros: (u64, u64), event: Event) {
        let wait = Duration::from_micros(self.rng.random_range(micros.0..=micros.1));
        self.at(self.now + wait, event);
    }

    fn send(&mut self, event: Event) {
        let mean = self.scenario.one_way.as_micros() as u64;
        self.later((mean / 2, mean * 3 / 2), event);
    }

    fn make_pool(&mut self) {
        let backends: Vec<_> =
            self.scenario.weights.iter().enumerate().map(|(slot, weight)| (backend(slot), *weight)).collect();
        self.pool = Pool::new(&backends);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Incident(incident) => self.incident(incident),
            Event::Close { node, slot, flow } => {
                if self.flows.remove(&flow).is_some() {
                    self.close(node, slot);
                }
            }
            Event::Read(node) => {
                self.nodes[node].awake = false;
                self.nodes[node].read(self.now);
                self.turn(node);
            }
            Event::Turn(node) => {
                self.nodes[node].turn = Duration::MAX;
                self.turn(node);
            }
            Event::OwnerTurn => {
                self.owner_turn = Duration::MAX;
                self.owner_turn();
            }
            Event::ToOwner(from, frame) => {
                if let Some(owner) = &mut self.owner {
                    owner.receive(self.now, from, &frame).expect("agents say nothing wrong");
                    self.owner_turn();
                }
            }
            Event::ToNode(at, frame) => {
                let node = &mut self.nodes[at];
                if !node.cut {
                    node.agent.receive(self.now, self.owner_id, &frame).expect("owners say nothing wrong");
                    node.conclude();
                    self.turn(at);
                }
            }
        }
    }

    fn incident(&mut self, incident: Incident) {
        match incident {
            Incident::Open(node, lifetime) => self.open(node, lifetime),
            Incident::OwnerDies => self.owner = None,
            Incident::OwnerStarts => {
                self.epoch += 1;
                let settings = Settings { cluster: CLUSTER.into(), budget: self.scenario.budget };
                self.owner = Some(Owner::new(self.owner_id, self.epoch, settings, self.now));
                self.owner_turn();
            }
            Incident::Cut => self.nodes.iter_mut().for_each(|node| node.cut = true),
            Incident::Backend => {
                self.scenario.weights.push(1);
                self.counts.push(0);
                self.nodes.iter_mut().for_each(Node::grow);
                self.make_pool();
            }
            Incident::Restart(slot) => {
                let gone: Vec<_> = self
                    .flows
                    .iter()
                    .filter(|(_, it)| it.1 == slot)
                    .map(|(flow, it)| (*flow, it.0))
                    .collect();
                for (flow, node) in gone {
                    self.flows.remove(&flow);
                    self.close(node, slot);
                    self.later((0, COME_BACK), Event::Incident(Incident::Open(node, None)));
                }
            }
            Incident::Measure => self.measure(),
        }
    }

    fn open(&mut self, at: usize, lifetime: Option<Duration>) {
        let weights = &self.scenario.weights;
        let slot = match self.mode {
            Mode::Exact => least(&self.counts, weights, self.rng.random()),
            mode => self.nodes[at].pick(self.now, mode, &self.pool, weights, &mut self.rng),
        };
        self.flow += 1;
        self.flows.insert(self.flow, (at, slot));
        self.counts[slot] += 1;
        self.nodes[at].open(slot);
        if let Some(lifetime) = lifetime {
            self.at(self.now + lifetime, Event::Close { node: at, slot, flow: self.flow });
        }
        if self.tells() && !std::mem::replace(&mut self.nodes[at].awake, true) {
            self.later(WAKE, Event::Read(at));
        }
    }

    fn close(&mut self, node: usize, slot: usize) {
        self.counts[slot] -= 1;
        self.nodes[node].close(slot);
        if self.tells() {
            self.later((0, LOOK), Event::Read(node));
        }
    }

    /// Without owners nobody needs to be told anything, but the order moves on.
    fn tells(&self) -> bool {
        matches!(self.mode, Mode::Shared | Mode::Order)
    }

    fn turn(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let (id, cut) = (node.id, node.cut || self.mode == Mode::Order);
        let frames = node.agent.poll(self.now);
        node.conclude();
        let deadline = node.agent.deadline().filter(|deadline| *deadline < node.turn);
        if let Some(deadline) = deadline {
            node.turn = deadline;
            self.at(deadline, Event::Turn(at));
        }
        for (_, frame) in frames {
            if !cut {
                self.send(Event::ToOwner(id, frame));
            }
        }
    }

    fn owner_turn(&mut self) {
        let Some(owner) = &mut self.owner else { return };
        let frames = owner.poll(self.now);
        let owner_deadline = owner.deadline();
        let to = |to| -> Vec<_> {
            match to {
                To::Node(node) => vec![node],
                To::Subscribers(service) => owner.subscribers(service).collect(),
                To::Members => owner.members().map(|(node, _)| node).collect(),
            }
        };
        let frames: Vec<_> = frames.into_iter().map(|(whom, frame)| (to(whom), Rc::new(frame))).collect();
        if owner_deadline < self.owner_turn {
            self.owner_turn = owner_deadline;
            self.at(owner_deadline, Event::OwnerTurn);
        }
        for (to, frame) in frames {
            let bytes = frame.encode().expect("owners say what can be said").len() as u64;
            for node in to {
                self.outcome.frames += 1;
                self.outcome.bytes += bytes;
                let at = self.by_id[&node];
                self.send(Event::ToNode(at, Rc::clone(&frame)));
            }
        }
    }

    fn measure(&mut self) {
        let load = self.counts.iter().zip(&self.scenario.weights).map(|(c, w)| f64::from(*c) / f64::from(*w));
        let most = load.fold(0.0, f64::max);
        let all: u32 = self.counts.iter().sum();
        let mean = f64::from(all) / f64::from(self.scenario.weights.iter().sum::<u32>());
        self.outcome.ratios.push(most / mean);
    }
}
