//! The one task that drives this node's agent and owner.

use std::{
    cell::Cell,
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use lb_cluster::{
    Aggregators, NodeId, Rank, ServiceKey,
    agent::{self, Agent, Pool, VALID_FOR, Words},
    frame::{Frame, Talk},
    owner::{self, Owner, To},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::error;

use crate::{
    Reason, Settings, View,
    links::{Event, Heard, Links},
    talk::{self, Asked, Question},
    view::{self, Peer},
    wire::{Side, pack},
};

/// How often the kernel is told that what it has is still good.
const RENEW: Duration = Duration::from_millis(500);
/// Most messages a second for one service, over all nodes: about half a core's work, while connections come that fast.
/// Above 100 nodes totals come less often than every 2 ms.
const BUDGET: f64 = 50_000.0;
/// Most of what has come that is taken before anything is said to it.
const BATCH: usize = 256;

/// This node's kernel, to which what others have is written. Called from the driver's task: it may not block for long.
pub trait Kernel: Send + 'static {
    /// What is to be written for a service has changed. `words` says what, for the service's backends and the node's
    /// open connections with each, both by slot, as they are now. A service that is no more: don't ask, and it is
    /// forgotten.
    fn write(&mut self, service: ServiceKey, words: &dyn Fn(&Pool, &[u32]) -> Words);

    /// All words that were written are good for so long from now. Called twice a second, also if nothing changes.
    fn extend(&mut self, valid_for: Duration);

    /// A report of new connections took so long until another node's totals contained it.
    fn reported(&mut self, took: Duration);
}

/// What a transport shows of itself.
pub(crate) trait Shown: Send + 'static {
    /// Addresses, and how each is.
    fn peers(&self) -> Vec<Peer>;
    /// Why files can't be used as they are.
    fn problem(&self) -> Option<String>;
}

/// See the module.
pub(crate) struct Driver<K> {
    kernel: K,
    agent: Agent,
    owner: Owner,
    me: NodeId,
    /// Names of those that own services; empty: they follow from who is connected.
    configured: Vec<String>,
    aggregators: Vec<String>,
    links: Arc<Links>,
    transport: Box<dyn Shown>,
    /// Questions of this node's, and where those of others go.
    asked: Asked,
    questions: mpsc::Sender<Question>,
    /// Services that the kernel may have.
    known: BTreeSet<ServiceKey>,
    /// The node's place among the members: the order among equals follows from it, of all services.
    rank: Rank,
    /// All services are to be written.
    rewrite: bool,
    start: Instant,
    renew: Instant,
    /// When somebody ceases to be a member.
    leaving: Option<Instant>,
}

impl<K: Kernel> Driver<K> {
    pub(crate) fn new(
        settings: &Settings,
        kernel: K,
        links: Arc<Links>,
        transport: Box<dyn Shown>,
        questions: mpsc::Sender<Question>,
    ) -> Self {
        let epoch = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_micros() as u64);
        let me = NodeId::of(&settings.node);
        let of_owner = owner::Settings { cluster: settings.cluster.clone(), budget: BUDGET };
        let mut configured = settings.aggregators.clone();
        configured.sort_unstable();
        configured.dedup();
        let start = Instant::now();
        let mut driver = Self {
            kernel,
            agent: Agent::new(&settings.node, &settings.cluster, epoch),
            owner: Owner::new(me, epoch, of_owner, Duration::ZERO),
            me,
            configured,
            aggregators: Vec::new(),
            links,
            transport,
            asked: Asked::default(),
            questions,
            known: BTreeSet::new(),
            rank: Rank::ALONE,
            rewrite: false,
            start,
            renew: start,
            leaving: None,
        };
        driver.members();
        driver
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Goes on until all who could tell it anything are gone.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut heard: mpsc::Receiver<Heard>,
    ) {
        loop {
            self.turn();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => return,
                },
                Some(it) = heard.recv() => self.heard(it),
                () = sleep_until(self.deadline()) => {}
            }
            for _ in 0..BATCH {
                if let Ok(event) = events.try_recv() {
                    self.event(event);
                } else if let Ok(it) = heard.try_recv() {
                    self.heard(it);
                } else {
                    break;
                }
            }
        }
    }

    fn deadline(&self) -> Instant {
        let machines = self.agent.deadline().unwrap_or(Duration::MAX).min(self.owner.deadline());
        let at = self.start + machines;
        self.leaving.into_iter().chain([self.renew]).fold(at, Instant::min)
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Counted { service, pool, opened, counts } => {
                let counts: Vec<_> = counts.iter().map(|own| (own.backend, own.open)).collect();
                self.known.insert(service);
                self.agent.counted(self.now(), service, pool, opened, &counts);
            }
            Event::Rewrite(service) => {
                self.known.insert(service);
                self.write(service);
            }
            // Who doesn't wait for it any more needs none.
            Event::View(wanted) => drop(wanted.send(self.view())),
            Event::Members => self.members(),
            Event::Ask { node, body, heard } => {
                let mut nodes = self.links.reachable();
                nodes.retain(|(_, name)| node.as_ref().is_none_or(|node| node == name));
                let (number, to) = self.asked.ask(nodes.into_iter(), heard);
                self.talk(&to, Frame::Question(Talk { number, body }));
            }
            Event::Answer { to, number, body } => self.talk(&[to], Frame::Answer(Talk { number, body })),
        }
    }

    /// Sends what no state machine says, for neither of them.
    fn talk(&self, to: &[NodeId], frame: Frame) {
        self.send(Side::Agent, to, frame, &mut VecDeque::new());
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Gone(node) => self.owner.disconnected(self.now(), node),
            Heard::Frame { from, meter, side, frame } => {
                if let Err((reason, why)) = self.receive(from, side, &frame) {
                    self.links.refuse(reason, Some(&meter), &self.links.name(from), &why);
                }
            }
        }
    }

    fn receive(&mut self, from: NodeId, side: Side, frame: &Frame) -> Result<(), (Reason, String)> {
        let now = self.now();
        match frame {
            Frame::Question(talk) => return self.question(from, talk),
            Frame::Answer(Talk { number, body }) => {
                // One that comes too late is no fault of the node's.
                self.asked.answered(from, self.links.name(from), *number, body.clone());
                return Ok(());
            }
            _ => {}
        }
        match side {
            Side::Agent => self.agent.receive(now, from, frame).map_err(|refusal| {
                let reason = match refusal {
                    agent::Refusal::ForAnother { .. } => Reason::ForAnother,
                    agent::Refusal::Direction(_) => Reason::Frame,
                };
                (reason, refusal.to_string())
            }),
            Side::Owner => self.owner.receive(now, from, frame).map_err(|refusal| {
                let reason = match refusal {
                    owner::Refusal::ForAnother { .. } => Reason::ForAnother,
                    owner::Refusal::OtherCluster { .. } => Reason::Name,
                    owner::Refusal::Services
                    | owner::Refusal::Backends { .. }
                    | owner::Refusal::Direction(_) => Reason::Frame,
                };
                (reason, refusal.to_string())
            }),
        }
    }

    fn question(&self, from: NodeId, talk: &Talk) -> Result<(), (Reason, String)> {
        let question = Question {
            from: self.links.name(from),
            body: talk.body.clone(),
            to: from,
            number: talk.number,
            events: self.links.events(),
        };
        let full = |_| (Reason::Flood, format!("{} questions wait for an answer already", talk::WAITING));
        self.questions.try_send(question).map_err(full)
    }

    /// Does what is due, and says what is to be said.
    fn turn(&mut self) {
        if self.leaving.is_some_and(|at| at <= Instant::now()) {
            self.members();
        }
        self.exchange();
        self.agent.take_delays().into_iter().for_each(|took| self.kernel.reported(took));
        let mut services = self.agent.take_rewrites();
        if std::mem::take(&mut self.rewrite) {
            services.extend(&self.known);
        }
        for service in services {
            self.write(service);
        }
        // After writing: what the agent doesn't rely on any more isn't to be good for longer.
        if self.renew <= Instant::now() {
            self.renew = Instant::now() + RENEW;
            self.kernel.extend(VALID_FOR);
        }
    }

    /// Sends what both sides have to say. What one has for the other goes there at once.
    fn exchange(&mut self) {
        let mut mine = VecDeque::new();
        loop {
            let now = self.now();
            for (to, frame) in self.agent.poll(now) {
                self.send(Side::Owner, &[to], frame, &mut mine);
            }
            for (to, frame) in self.owner.poll(now) {
                let to: Vec<_> = match to {
                    To::Node(node) => vec![node],
                    To::Subscribers(service) => self.owner.subscribers(service).collect(),
                    To::Members => self.owner.members().map(|(node, _)| node).collect(),
                };
                self.send(Side::Agent, &to, frame, &mut mine);
            }
            if mine.is_empty() {
                return;
            }
            for (side, frame) in mine.drain(..) {
                if let Err((reason, why)) = self.receive(self.me, side, &frame) {
                    self.links.refuse(reason, None, &"this node itself", &why);
                }
            }
        }
    }

    fn send(&self, side: Side, to: &[NodeId], frame: Frame, mine: &mut VecDeque<(Side, Frame)>) {
        if to.iter().any(|node| *node != self.me) {
            match pack(side, &frame) {
                Ok(bytes) => {
                    for node in to.iter().filter(|node| **node != self.me) {
                        self.links.send(*node, &bytes);
                    }
                }
                Err(why) => error!("a frame can't be sent: {why}"),
            }
        }
        if to.contains(&self.me) {
            mine.push_back((side, frame));
        }
    }

    fn write(&mut self, service: ServiceKey) {
        let (now, chance, agent) = (self.now(), rand::random(), &self.agent);
        let asked = Cell::new(false);
        self.kernel.write(service, &|pool, own| {
            asked.set(true);
            agent.words(now, service, pool, own, chance)
        });
        if !asked.get() {
            self.known.remove(&service);
        }
    }

    /// Looks who is connected, and concludes which nodes own services.
    fn members(&mut self) {
        let (names, leaving) = self.links.members();
        self.leaving = leaving;
        let place = names.iter().position(|name| *name == self.links.node).unwrap_or_default();
        let rank = Rank { place: place as u32, nodes: names.len() as u32 };
        let before = std::mem::replace(&mut self.rank, rank);
        self.rewrite |= before != self.rank;
        self.agent.set_rank(self.rank);
        let chosen = if self.configured.is_empty() { &names } else { &self.configured };
        let chosen: Vec<_> = chosen.iter().take(lb_cluster::MAX_AGGREGATORS).cloned().collect();
        if chosen == self.aggregators {
            return;
        }
        let now = self.now();
        if let Ok(aggregators) = Aggregators::new(chosen.iter().map(|name| NodeId::of(name))) {
            self.agent.set_aggregators(now, aggregators);
            self.owner.aggregators_changed(now);
            self.links.owns.store(chosen.contains(&self.links.node), Relaxed);
            self.aggregators = chosen;
        }
    }

    fn view(&self) -> View {
        let now = self.now();
        let members = self.links.view();
        let name = |id: NodeId| {
            let known = self.aggregators.iter().find(|name| NodeId::of(name) == id);
            known.cloned().unwrap_or_else(|| id.to_string())
        };
        let service = |key| {
            let agent::View { owner, shared, age, rate, delay, .. } = self.agent.view(now, key)?;
            let (owner, counts) = (owner.map(name), self.agent.counts(now, key));
            Some(view::Service { service: key, owner, shared, age, rate, delay, counts })
        };
        View {
            node: self.links.node.clone(),
            cluster: self.links.cluster.clone(),
            members,
            peers: self.transport.peers(),
            aggregators: self.aggregators.clone(),
            services: self.agent.services().filter_map(service).collect(),
            refused: self.links.refusals.view(),
            traffic: self.links.total.view(),
            identity: self.transport.problem(),
        }
    }
}
