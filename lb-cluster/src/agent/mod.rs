//! The agent's side: tells owners what the node has, and concludes what others have.
//!
//! A service's owner says what all nodes have, and which of the node's reports that contains. What the node had then
//! is known, so that the rest is what others have, exactly. The kernel adds what the node has now.

mod link;
mod service;
mod view;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lb_common::ranked::Rank;
use link::Heard;
use service::{Me, Service};
pub use view::{Count, View};
pub use words::{Pool, Words};

use crate::{
    Aggregators, BackendKey, NodeId, ServiceKey,
    frame::{Alive, Frame, Hello, Leave, Totals},
    timers::Timers,
};

/// An owner that says nothing for so long isn't relied on any more.
pub const SILENT: Duration = Duration::from_secs(1);
/// What is written for the kernel is good for so long; an agent that lives writes when, over and over.
pub const VALID_FOR: Duration = Duration::from_secs(2);
/// How often an agent says to owners that it is there.
pub const HELLO: Duration = Duration::from_secs(1);
/// A node that has no connections of a service any more goes on listening for so long: its next one is picked without
/// knowing of others otherwise.
pub const LINGER: Duration = Duration::from_secs(3_600);

/// A frame isn't taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// It speaks for another node.
    #[error("node {peer} speaks for owner {owner}: an owner says what it has added up itself")]
    ForAnother {
        /// Who sent it.
        peer: NodeId,
        /// For whom.
        owner: NodeId,
    },
    /// It is what agents say, or nodes to each other.
    #[error("node {0} sends what isn't for agents")]
    Direction(NodeId),
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    /// Its life, as far as it is known.
    epoch: u64,
    /// [`Greeting::met`](crate::frame::Greeting) of this node.
    met: u64,
    heard: Option<Duration>,
    /// When it is greeted next.
    hello: Duration,
    /// That it is silent has been acted upon.
    given_up: bool,
}

/// What one node knows and has to say.
#[derive(Clone, Debug)]
pub struct Agent {
    name: String,
    cluster: String,
    me: NodeId,
    epoch: u64,
    rank: Rank,
    aggregators: Aggregators,
    owners: BTreeMap<NodeId, Owner>,
    services: BTreeMap<ServiceKey, Service>,
    due: Timers<ServiceKey>,
    /// Services that the node doesn't listen to any more: connections that it had opened until then.
    left: BTreeMap<ServiceKey, u64>,
    /// Reports of a service go on from here, so that no number is used twice.
    numbers: u64,
    rewrite: BTreeSet<ServiceKey>,
    delays: Vec<Duration>,
    out: Vec<(NodeId, Frame)>,
}

impl Agent {
    /// An agent that has just started. `epoch`: greater than that of its last life, microseconds of the wall clock.
    /// If that was set back meanwhile, its reports count only when owners have forgotten the last life, after 15
    /// seconds.
    pub fn new(name: &str, cluster: &str, epoch: u64) -> Self {
        Self {
            name: name.to_owned(),
            cluster: cluster.to_owned(),
            me: NodeId::of(name),
            epoch,
            rank: Rank::ALONE,
            aggregators: Aggregators::default(),
            owners: BTreeMap::new(),
            services: BTreeMap::new(),
            due: Timers::new(),
            left: BTreeMap::new(),
            numbers: 0,
            rewrite: BTreeSet::new(),
            delays: Vec::new(),
            out: Vec::new(),
        }
    }

    /// The node's place among all.
    pub fn set_rank(&mut self, rank: Rank) {
        if self.rank != rank {
            self.rank = rank;
            self.rewrite.extend(self.services.keys());
        }
    }

    /// The aggregators, at first and whenever they are others.
    pub fn set_aggregators(&mut self, now: Duration, aggregators: Aggregators) {
        self.aggregators = aggregators;
        for key in self.services.keys().copied().collect::<Vec<_>>() {
            let owner = self.aggregators.owner(key);
            let me = self.me(key);
            let heard = self.services.get(&key).and_then(|service| self.heard(service));
            if let Some(service) = self.services.get_mut(&key) {
                self.out.extend(service.move_to(now, me, owner, heard));
                self.rewrite.insert(key);
            }
            self.meet(now, owner);
            self.schedule(now, key);
        }
        let used: BTreeSet<_> = self.services.values().filter_map(|service| service.owner).collect();
        self.owners.retain(|owner, _| used.contains(owner));
    }

    /// The kernel's counts were read: those of backends whose counts may have changed; a backend that is no more has
    /// 0. `pool`: how many take new flows. `opened`: connections of the service that the node has opened so far. With
    /// its first connection a service is subscribed to.
    pub fn counted(
        &mut self,
        now: Duration,
        key: ServiceKey,
        pool: u32,
        opened: u64,
        counts: &[(BackendKey, u32)],
    ) {
        if !self.services.contains_key(&key) {
            // One that has come and gone is a first connection, too. A number below that of the last time is of a
            // service that was declared anew.
            if counts.iter().all(|(_, open)| *open == 0)
                && opened == self.left.get(&key).copied().unwrap_or(0)
            {
                return;
            }
            self.left.remove(&key);
            let owner = self.aggregators.owner(key);
            self.meet(now, owner);
            self.services.insert(key, Service::new(now, owner, self.numbers));
        }
        if let Some(service) = self.services.get_mut(&key) {
            if service.opened != opened {
                self.rewrite.insert(key);
            }
            service.counted(now, pool, opened, counts);
        }
        self.schedule(now, key);
    }

    /// A frame has come from `peer`: who that is, its certificate has said.
    ///
    /// # Errors
    /// It isn't taken; count it.
    pub fn receive(&mut self, now: Duration, peer: NodeId, frame: &Frame) -> Result<(), Refusal> {
        let (owner, epoch) = match frame {
            Frame::Totals(totals) => (totals.owner, totals.epoch),
            Frame::Alive(alive) => (alive.owner, alive.epoch),
            Frame::Ask(ask) => (ask.from, 0),
            Frame::Hello(_)
            | Frame::Subscribe(_)
            | Frame::Report(_)
            | Frame::Leave(_)
            | Frame::Question(_)
            | Frame::Answer(_) => {
                return Err(Refusal::Direction(peer));
            }
        };
        if owner != peer {
            return Err(Refusal::ForAnother { peer, owner });
        }
        if let Frame::Totals(totals) = frame
            && self.services.get(&totals.service).and_then(|service| service.owner) != Some(owner)
        {
            self.not_ours(totals);
            return Ok(());
        }
        let Some(state) = self.owners.get_mut(&owner) else { return Ok(()) };
        if epoch != 0 && epoch < state.epoch {
            return Ok(());
        }
        let back = std::mem::take(&mut state.given_up);
        state.heard = Some(now);
        let new_life = epoch > state.epoch;
        if new_life {
            (state.epoch, state.met) = (epoch, 0);
        }
        let mut forgotten = false;
        if let Frame::Alive(Alive { greeting: Some(greeting), .. }) = frame
            && greeting.node == self.me
            && greeting.met > state.met
        {
            (forgotten, state.met) = (true, greeting.met);
        }
        if back || new_life || forgotten {
            self.each_of(now, owner, |service| {
                if service.link.epoch() != 0 && service.link.epoch() < epoch {
                    service.start_anew();
                } else if back || forgotten {
                    service.doubt();
                }
            });
        }
        match frame {
            Frame::Totals(totals) => self.totals(now, totals),
            Frame::Ask(ask) => {
                if let Some(service) =
                    self.services.get_mut(&ask.service).filter(|it| it.owner == Some(owner))
                {
                    service.asked(now);
                    self.schedule(now, ask.service);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is to be sent now, and to whom. To be called after anything has happened, and at [`Agent::deadline`].
    pub fn poll(&mut self, now: Duration) -> Vec<(NodeId, Frame)> {
        for (node, owner) in &mut self.owners {
            if owner.hello <= now {
                owner.hello = now + HELLO;
                let (node_name, cluster) = (self.name.clone(), self.cluster.clone());
                let hello = Hello { node: node_name, cluster, epoch: self.epoch };
                self.out.push((*node, Frame::Hello(hello)));
            }
        }
        let silent = |owner: &Owner| !owner.given_up && owner.heard.is_some_and(|it| it + SILENT <= now);
        let silent: Vec<_> =
            self.owners.iter().filter(|(_, owner)| silent(owner)).map(|(node, _)| *node).collect();
        for owner in silent {
            if let Some(owner) = self.owners.get_mut(&owner) {
                owner.given_up = true;
            }
            self.each_of(now, owner, |_| {});
        }
        while let Some(key) = self.due.take_due(now) {
            self.turn(now, key);
        }
        std::mem::take(&mut self.out)
    }

    /// When something is to be done though nothing has happened; `None`: never.
    pub fn deadline(&self) -> Option<Duration> {
        if !self.out.is_empty() {
            return Some(Duration::ZERO);
        }
        let of_owner = |owner: &Owner| {
            let silent = owner.heard.filter(|_| !owner.given_up).map(|heard| heard + SILENT);
            silent.map_or(owner.hello, |silent| silent.min(owner.hello))
        };
        self.owners.values().map(of_owner).chain(self.due.next()).min()
    }

    /// Services for which [`Agent::words`] are others since this was asked.
    pub fn take_rewrites(&mut self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut self.rewrite)
    }

    /// How long reports of new connections took until totals contained them, since this was asked: of services that
    /// other nodes add up.
    pub fn take_delays(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.delays)
    }

    /// What is to be written for a service: a word for each backend of the pool. `own`: the node's connections now,
    /// by slot. `chance`: a random number. Until `now` + [`VALID_FOR`], but for the order.
    pub fn words(&self, now: Duration, key: ServiceKey, pool: &Pool, own: &[u32], chance: u32) -> Words {
        let service = self.services.get(&key);
        let open = own.iter().map(|open| u64::from(*open)).sum();
        let ended = service.map_or(0, |service| service.opened.saturating_sub(open));
        let mut words = pool.order(self.rank, ended);
        let Some(service) = service.filter(|service| self.is_shared(now, service)) else {
            return Words { words, shared: false };
        };
        let under_way = f64::from(chance) / (f64::from(u32::MAX) + 1.0) * service.under_way(now);
        // Past a few for each backend it makes no difference.
        let under_way = (under_way as u32).min(pool.eligible().saturating_mul(4));
        pool.add_others(&mut words, |backend| service.others(backend), own, under_way);
        Words { words, shared: true }
    }

    /// Connections of other nodes with a backend; `None`: that isn't known.
    pub fn others(&self, now: Duration, key: ServiceKey, backend: BackendKey) -> Option<u64> {
        let service = self.services.get(&key)?;
        self.is_shared(now, service).then(|| service.others(backend))
    }

    const fn me(&self, service: ServiceKey) -> Me {
        Me { node: self.me, epoch: self.epoch, service }
    }

    fn heard(&self, service: &Service) -> Option<Duration> {
        service.owner.and_then(|owner| self.owners.get(&owner)).and_then(|owner| owner.heard)
    }

    fn is_shared(&self, now: Duration, service: &Service) -> bool {
        service.good_until(self.heard(service)).is_some_and(|until| now < until)
    }

    fn meet(&mut self, now: Duration, owner: Option<NodeId>) {
        if let Some(owner) = owner {
            let new = Owner { epoch: 0, met: 0, heard: None, hello: now, given_up: false };
            self.owners.entry(owner).or_insert(new);
        }
    }

    /// Something concerns all services of an owner.
    fn each_of(&mut self, now: Duration, owner: NodeId, change: impl Fn(&mut Service)) {
        let mine = |(_, service): &(&ServiceKey, &mut Service)| service.owner == Some(owner);
        let mut keys = Vec::new();
        for (key, service) in self.services.iter_mut().filter(mine) {
            change(service);
            keys.push(*key);
        }
        for key in keys {
            self.rewrite.insert(key);
            self.schedule(now, key);
        }
    }

    /// Somebody tells of a service who isn't its owner, or of one that the node has nothing to do with. If it
    /// repeats what it has said, it hasn't heard that the node has left.
    fn not_ours(&mut self, totals: &Totals) {
        if totals.counts.is_empty() {
            let seq = self.services.get(&totals.service).map_or(self.numbers, |service| service.seq);
            let (node, service, epoch) = (self.me, totals.service, self.epoch);
            self.out.push((totals.owner, Frame::Leave(Leave { node, service, epoch, seq })));
        }
    }

    fn totals(&mut self, now: Duration, totals: &Totals) {
        let (key, me) = (totals.service, self.me(totals.service));
        let Some(service) = self.services.get_mut(&key) else { return };
        if let Heard::News { delay } = service.hear(now, me, totals) {
            self.rewrite.insert(key);
            self.delays.extend(delay.filter(|_| totals.owner != self.me));
        }
        self.schedule(now, key);
    }

    fn schedule(&mut self, now: Duration, key: ServiceKey) {
        let due = self.services.get(&key).map(|service| service.due(now, self.heard(service)));
        self.due.set(key, due.filter(|due| *due != Duration::MAX));
    }

    /// A service's time has come.
    fn turn(&mut self, now: Duration, key: ServiceKey) {
        let me = self.me(key);
        let heard = self.services.get(&key).and_then(|service| self.heard(service));
        let Some(service) = self.services.get_mut(&key) else { return };
        if service.is_idle(now) {
            let leave = service.leave(me);
            self.out.extend(service.owner.map(|owner| (owner, leave)));
            self.numbers = self.numbers.max(service.seq);
            self.left.insert(key, service.opened);
            self.services.remove(&key);
            return;
        }
        if service.is_late(now) || service.good_until(heard).is_some_and(|until| until <= now) {
            self.rewrite.insert(key);
        }
        if let Some(owner) = service.owner {
            let mut frames = Vec::new();
            service.say(now, me, heard, &mut frames);
            self.out.extend(frames.into_iter().map(|frame| (owner, frame)));
        }
        self.schedule(now, key);
    }
}

#[cfg(test)]
mod tests;
