//! The owner's side: adds up what nodes report of its services, and tells them the totals.
//!
//! What a node reports replaces what it reported before, so that frames may be lost, doubled or late. Everything that
//! is told has a number, and what is known at a number is always the same: who has missed one asks for all of it.

mod pace;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use pace::{Load, MAX_GAP, MIN_GAP, STEADY_GAP};
use service::{Applied, Service, Told};

use crate::{
    BackendKey, NodeId, ServiceKey,
    frame::{Alive, Ask, Frame, Greeting, Hello, Report, Totals},
    timers::Timers,
};

/// How often an owner says that it is there, and looks who isn't.
pub const ALIVE: Duration = Duration::from_millis(250);
/// Nothing was heard of a node for so long: it is dead, and its connections with it.
pub const NODE_DEAD: Duration = Duration::from_secs(5);
/// Its agent is gone, but its kernel has said so: connections go on without an agent, which usually is back before
/// that.
pub const AGENT_DEAD: Duration = Duration::from_secs(15);
/// Who begins to own a service waits for so long until its totals are taken for all there is. Agents that know of no
/// owner try more often.
pub const SETTLE: Duration = Duration::from_millis(800);
/// Most services: as many as a node has.
pub const MAX_SERVICES: usize = lb_common::abi::limits::MAX_SERVICES as usize;

/// What an owner is told by configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose nodes may report: the cluster's name.
    pub cluster: String,
    /// Most messages a second for one service, over all subscribers. Greater than 0.
    pub budget: f64,
}

/// To whom a frame is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum To {
    /// One node.
    Node(NodeId),
    /// All of [`Owner::subscribers`].
    Subscribers(ServiceKey),
    /// All of [`Owner::members`].
    Members,
}

/// A frame isn't taken. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// It speaks for another node.
    #[error("node {peer} speaks for node {node}: a node reports what is its own")]
    ForAnother {
        /// Who sent it.
        peer: NodeId,
        /// For whom.
        node: NodeId,
    },
    /// It is another cluster's.
    #[error(
        "node {name} is of cluster \"{theirs}\", this is cluster \"{ours}\": have each use its own aggregators"
    )]
    OtherCluster {
        /// Its name.
        name: String,
        /// Its cluster's.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// There are too many services already.
    #[error("a service more than {MAX_SERVICES}: the node counts by itself")]
    Services,
    /// A node has connections with more backends of a service than there can be.
    #[error(
        "node {node} has {backends} backends of service {service}: what it said of the service is forgotten"
    )]
    Backends {
        /// Who.
        node: NodeId,
        /// With how many.
        backends: usize,
        /// Of which service.
        service: ServiceKey,
    },
    /// It is what owners say, or nodes to each other.
    #[error("node {0} sends what isn't for owners")]
    Direction(NodeId),
}

/// A node that an owner has heard of.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name, once it has said it.
    pub name: Option<String>,
    /// When it was heard last.
    pub heard: Duration,
    /// When its connection has ended, if it has said nothing since.
    pub disconnected: Option<Duration>,
    /// See [`Greeting`].
    met: u64,
    services: BTreeSet<ServiceKey>,
}

impl Member {
    /// When it is given up.
    fn expires(&self) -> Duration {
        self.disconnected.map_or(self.heard + NODE_DEAD, |at| at + AGENT_DEAD)
    }
}

/// What one aggregator knows of all services that it owns.
#[derive(Clone, Debug)]
pub struct Owner {
    me: NodeId,
    epoch: u64,
    settings: Settings,
    settled: Duration,
    members: BTreeMap<NodeId, Member>,
    met: u64,
    services: BTreeMap<ServiceKey, Service>,
    due: Timers<ServiceKey>,
    alive: Duration,
    /// Numbers of a service go on from here, so that none is used twice.
    numbers: u64,
    out: Vec<(To, Frame)>,
}

impl Owner {
    /// An owner that has just started. `epoch`: greater than that of its last life; microseconds of the wall clock.
    pub fn new(me: NodeId, epoch: u64, settings: Settings, now: Duration) -> Self {
        Self {
            me,
            epoch,
            settings,
            settled: now + SETTLE,
            members: BTreeMap::new(),
            met: 0,
            services: BTreeMap::new(),
            due: Timers::new(),
            alive: now,
            numbers: 0,
            out: Vec::new(),
        }
    }

    /// The aggregators are others now: services that come may have been another's until now.
    pub fn aggregators_changed(&mut self, now: Duration) {
        self.settled = now + SETTLE;
    }

    /// A frame has come from `peer`: who that is, its certificate has said.
    ///
    /// # Errors
    /// It isn't taken; count it.
    pub fn receive(&mut self, now: Duration, peer: NodeId, frame: &Frame) -> Result<(), Refusal> {
        let node = match frame {
            Frame::Hello(hello) => NodeId::of(&hello.node),
            Frame::Subscribe(subscribe) => subscribe.node,
            Frame::Report(report) => report.node,
            Frame::Ask(ask) => ask.from,
            Frame::Leave(leave) => leave.node,
            Frame::Totals(_) | Frame::Alive(_) | Frame::Question(_) | Frame::Answer(_) => {
                return Err(Refusal::Direction(peer));
            }
        };
        if node != peer {
            return Err(Refusal::ForAnother { peer, node });
        }
        if let Frame::Hello(Hello { node: name, cluster, .. }) = frame
            && *cluster != self.settings.cluster
        {
            let (theirs, ours) = (cluster.clone(), self.settings.cluster.clone());
            return Err(Refusal::OtherCluster { name: name.clone(), theirs, ours });
        }
        self.hear(now, node);
        match frame {
            Frame::Hello(hello) => {
                if let Some(member) = self.members.get_mut(&node) {
                    member.name = Some(hello.node.clone());
                    let greeting = Greeting { node, met: member.met };
                    self.out.push((To::Node(node), self.alive_frame(Some(greeting))));
                }
                Ok(())
            }
            Frame::Subscribe(crate::frame::Subscribe { service, .. }) | Frame::Ask(Ask { service, .. }) => {
                self.service(now, node, *service)?.subscribe(now, node);
                self.schedule(now, *service);
                Ok(())
            }
            Frame::Report(report) => self.report(now, report),
            Frame::Leave(leave) => {
                if self.services.get_mut(&leave.service).is_some_and(|service| service.leave(now, leave)) {
                    if let Some(member) = self.members.get_mut(&node) {
                        member.services.remove(&leave.service);
                    }
                    self.schedule(now, leave.service);
                }
                Ok(())
            }
            Frame::Totals(_) | Frame::Alive(_) | Frame::Question(_) | Frame::Answer(_) => Ok(()),
        }
    }

    /// The connection with a node's agent has ended, and its kernel said so.
    pub fn disconnected(&mut self, now: Duration, node: NodeId) {
        if let Some(member) = self.members.get_mut(&node) {
            member.disconnected = Some(now);
        }
    }

    /// What is to be sent now. To be called after frames have come, and at [`Owner::deadline`].
    pub fn poll(&mut self, now: Duration) -> Vec<(To, Frame)> {
        if self.alive <= now {
            self.alive = now + ALIVE;
            self.out.push((To::Members, self.alive_frame(None)));
            self.expire(now);
        }
        while let Some(key) = self.due.take_due(now) {
            self.tell(now, key);
        }
        std::mem::take(&mut self.out)
    }

    /// When something is to be done though nobody has said anything.
    pub fn deadline(&self) -> Duration {
        if !self.out.is_empty() {
            return Duration::ZERO;
        }
        self.due.next().map_or(self.alive, |due| due.min(self.alive))
    }

    /// Who is told of a service.
    pub fn subscribers(&self, service: ServiceKey) -> impl Iterator<Item = NodeId> {
        self.services.get(&service).into_iter().flat_map(|service| service.subscribers().iter().copied())
    }

    /// Nodes that were heard of.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }

    /// A service's open connections over all nodes, by backend.
    pub fn totals(&self, service: ServiceKey) -> impl Iterator<Item = (BackendKey, u64)> {
        let totals = self.services.get(&service).into_iter().flat_map(|service| service.totals());
        totals.map(|(backend, open)| (*backend, *open)).filter(|(_, open)| *open != 0)
    }

    fn hear(&mut self, now: Duration, node: NodeId) {
        let services = BTreeSet::new();
        let member = self.members.entry(node).or_insert_with(|| {
            self.met += 1;
            Member { name: None, heard: now, disconnected: None, met: self.met, services }
        });
        (member.heard, member.disconnected) = (now, None);
    }

    fn service(&mut self, now: Duration, node: NodeId, key: ServiceKey) -> Result<&mut Service, Refusal> {
        if !self.services.contains_key(&key) && self.services.len() >= MAX_SERVICES {
            return Err(Refusal::Services);
        }
        if let Some(member) = self.members.get_mut(&node) {
            member.services.insert(key);
        }
        let settled = if now < self.settled { self.settled } else { Duration::ZERO };
        Ok(self.services.entry(key).or_insert_with(|| Service::new(self.numbers, settled)))
    }

    fn report(&mut self, now: Duration, report: &Report) -> Result<(), Refusal> {
        let (node, service) = (report.node, report.service);
        let applied = self.service(now, node, service)?.report(now, report);
        self.schedule(now, service);
        match applied {
            Applied::Yes | Applied::Before => Ok(()),
            Applied::Gap => {
                self.out.push((To::Node(node), Frame::Ask(Ask { from: self.me, service })));
                Ok(())
            }
            Applied::TooMany(backends) => Err(Refusal::Backends { node, backends, service }),
        }
    }

    fn expire(&mut self, now: Duration) {
        let gone: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.expires() <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in gone {
            let services = self.members.remove(&node).map_or_else(BTreeSet::new, |member| member.services);
            for key in services {
                if let Some(service) = self.services.get_mut(&key) {
                    service.forget(now, node);
                    self.schedule(now, key);
                }
            }
        }
    }

    /// Sets when a service is to be told of next, or drops it.
    fn schedule(&mut self, now: Duration, key: ServiceKey) {
        let Some(service) = self.services.get(&key) else { return };
        if service.is_empty() {
            self.numbers = self.numbers.max(service.seq + 1);
            self.services.remove(&key);
            self.due.set(key, None);
        } else {
            self.due.set(key, Some(service.due(now, self.settings.budget)));
        }
    }

    fn tell(&mut self, now: Duration, key: ServiceKey) {
        let Some(service) = self.services.get_mut(&key) else { return };
        let (news, wanting) = service.tell(now);
        let (rate, gap) = (service.rate(now), service.gap(now, self.settings.budget));
        let settling = now < service.settled;
        let frame = |whole, told: Told| {
            Frame::Totals(Totals {
                owner: self.me,
                epoch: self.epoch,
                service: key,
                seq: told.seq,
                whole,
                settling,
                rate: rate as f32,
                gap: u32::try_from(gap.as_micros()).unwrap_or(u32::MAX),
                counts: told.counts,
                acks: told.acks,
            })
        };
        if let Some(told) = news {
            self.out.push((To::Subscribers(key), frame(false, told)));
        }
        for node in wanting {
            self.out.push((To::Node(node), frame(true, service.whole(node))));
        }
        self.schedule(now, key);
    }

    const fn alive_frame(&self, greeting: Option<Greeting>) -> Frame {
        Frame::Alive(Alive { owner: self.me, epoch: self.epoch, greeting })
    }
}

#[cfg(test)]
mod tests;
