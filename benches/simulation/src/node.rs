//! A node: what its kernel counts and picks by, and its agent.

use std::{collections::BTreeSet, time::Duration};

use lb_cluster::{
    BackendKey, NodeId, ServiceKey,
    agent::{Agent, Pool},
};
use lb_common::{
    pick::Least,
    ranked::{self, Rank, Ranked},
};
use rand::{RngExt as _, rngs::StdRng};

/// The service that all connections are for.
pub const SERVICE: ServiceKey = ServiceKey(7);
/// The name of the cluster.
pub const CLUSTER: &str = "simulated";

/// How a node picks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Its own connections, ties by lot: without a cluster.
    RandomTies,
    /// Its own connections, ties by the order of its rank.
    Order,
    /// With what owners say.
    Shared,
    /// All connections of all nodes as they are at that moment: one central balancer.
    Exact,
}

/// See the module.
pub struct Node {
    pub id: NodeId,
    pub agent: Agent,
    pub own: Vec<u32>,
    opened: u64,
    words: Vec<u32>,
    /// The words are others by now.
    pub outdated: bool,
    /// The agent is on its way to read the counts.
    pub awake: bool,
    touched: BTreeSet<usize>,
    /// The earliest moment for which the agent's turn is scheduled.
    pub turn: Duration,
    pub cut: bool,
}

/// The backend in a slot, the same on all nodes.
pub fn backend(slot: usize) -> BackendKey {
    BackendKey::of([10, 0, (slot >> 8) as u8, slot as u8].into(), Some(80))
}

/// The least loaded of all, for its weight, ties by lot.
pub fn least(counts: &[u32], weights: &[u32], chance: u32) -> usize {
    let mut least = Least::NONE;
    for (slot, (count, weight)) in counts.iter().zip(weights).enumerate() {
        least.offer(slot as u32, 1, *count, *weight, chance);
    }
    least.best(chance).expect("there are backends").0 as usize
}

impl Node {
    pub fn new(place: usize, nodes: usize, backends: usize) -> Self {
        let name = format!("node-{place}");
        let mut agent = Agent::new(&name, CLUSTER, 1);
        agent.set_rank(Rank { place: place as u32, nodes: nodes as u32 });
        Self {
            id: NodeId::of(&name),
            agent,
            own: vec![0; backends],
            opened: 0,
            words: vec![0; backends],
            outdated: true,
            awake: false,
            touched: BTreeSet::new(),
            turn: Duration::MAX,
            cut: false,
        }
    }

    /// The kernel picks. What the agent has concluded by then is written.
    pub fn pick(
        &mut self,
        now: Duration,
        mode: Mode,
        pool: &Pool,
        weights: &[u32],
        rng: &mut StdRng,
    ) -> usize {
        if mode == Mode::RandomTies {
            return least(&self.own, weights, rng.random());
        }
        if self.outdated {
            self.outdated = false;
            self.words = self.agent.words(now, SERVICE, pool, &self.own, rng.random()).words;
        }
        let mask = if mode == Mode::Order { ranked::ORDER } else { u32::MAX };
        let (own, words) = (&self.own, &self.words);
        let mut best = Ranked::NONE;
        for (group, block) in weights.chunks(16).enumerate() {
            let at = |slot: usize| group * 16 + slot;
            if block.iter().any(|weight| *weight != block[0]) {
                for (slot, weight) in block.iter().enumerate() {
                    let value = ranked::value(own[at(slot)], words[at(slot)] & mask);
                    best.offer(group as u32, slot as u32, value, *weight);
                }
                continue;
            }
            let set = (1u32 << block.len()) - 1;
            let own = |slot| own.get(at(slot)).copied().unwrap_or_default();
            let word = |slot| words.get(at(slot)).copied().unwrap_or_default() & mask;
            best.offer16(group as u32, ranked::least16(set, u32::MAX, own, word), block[0]);
        }
        let (group, slot) = best.best().expect("there are backends");
        (group * 16 + slot) as usize
    }

    pub fn open(&mut self, slot: usize) {
        self.own[slot] += 1;
        self.opened += 1;
        self.touched.insert(slot);
    }

    pub fn close(&mut self, slot: usize) {
        self.own[slot] -= 1;
        self.touched.insert(slot);
    }

    /// Another backend is there.
    pub fn grow(&mut self) {
        self.own.push(0);
        self.outdated = true;
    }

    /// The agent reads what the kernel has counted.
    pub fn read(&mut self, now: Duration) {
        let counts: Vec<_> = std::mem::take(&mut self.touched)
            .into_iter()
            .map(|slot| (backend(slot), self.own[slot]))
            .collect();
        self.agent.counted(now, SERVICE, self.own.len() as u32, self.opened, &counts);
        self.conclude();
    }

    /// Notes whether there is something to be written.
    pub fn conclude(&mut self) {
        self.outdated |= !self.agent.take_rewrites().is_empty();
    }
}
