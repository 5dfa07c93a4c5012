//! The sweeper: walks the tables in batches, has flows removed that are over, and finds connections that have run into a timeout, for the
//! [closer](super::closer).
//!
//! It only proposes. The kernel's side removes or closes a flow if neither its state nor its stamps have changed since it was looked at,
//! by the same compare-and-swap that packets use.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lb_common::{
    abi::{Addr, BackendId, Flow, PortBe, ServiceId, sweep::Request},
    expiry::{Observed, Timeout, Verdict, age, asked_for, idle},
    flow_state::{Phase, Word},
};

use super::{
    Census, Directory,
    closer::Found,
    select::{How, Pinned, Victim},
};
use crate::datapath::{
    Clock, DatapathError,
    flows::{FlowTable, FlowTables},
    object::Object,
    refusal::unless_refused,
    sockets::{self, SocketPins},
    sweeper::{self, Sweep},
    tracked::Tuple,
};

/// Shortest time between passes.
const INTERVAL: Duration = Duration::from_millis(500);
/// A pass may take one part in so many of the time.
const SHARE: u32 = 20;
/// Connections of one service that a pass hands to the closer, at most, and of all services. The others are found again by the next.
const EXPIRED: (usize, usize) = (2_500, 100_000);
/// Closed connections whose ends a pass has told again, at most.
const UNTOLD: usize = 5_000;

/// How long to wait after a pass that took `took`.
pub fn pause(took: Duration) -> Duration {
    INTERVAL.max(took * SHARE)
}

/// Milliseconds after which who doesn't know that his connection is closed is told again. A TCP stack that has just answered
/// something odd doesn't answer the next for half a second (tcp_invalid_ratelimit), and packets get lost.
const TOLD: u64 = 550;

/// What a pass goes by.
pub struct Pass<'a> {
    /// Programs.
    pub object: &'a Mutex<Object>,
    /// Tables.
    pub tables: &'a FlowTables,
    /// What the node's own processes have.
    pub sockets: &'a SocketPins,
    /// Kernel time.
    pub clock: Clock,
    /// Whose each backend is.
    pub directory: &'a Directory,
}

/// What a pass comes to.
#[derive(Default)]
pub struct Passed {
    /// What it counted.
    pub census: Census,
    /// Whom it found.
    pub found: Found,
    /// Connections with a port of ours whose service isn't ours any more.
    pub handed: HashSet<Tuple>,
    /// How long it took.
    pub took: Duration,
}

/// A walk over one table.
struct Walk<'a, A: Addr> {
    pass: &'a Pass<'a>,
    table: &'a FlowTable<A>,
    pin: fn(Request<A>) -> Pinned,
    passed: &'a mut Passed,
    /// Connections found to have run into a timeout, by service.
    expired: &'a mut HashMap<ServiceId, usize>,
    /// To be removed with the next batch.
    remove: Vec<Request<A>>,
}

impl Pass<'_> {
    /// Walks both tables, removes what is over, finds whom to close, and counts.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&self) -> Result<Passed, DatapathError> {
        let start = Instant::now();
        let mut passed = Passed::default();
        let mut expired = HashMap::new();
        self.table(&self.tables.v4, Pinned::V4, &mut passed, &mut expired)?;
        self.table(&self.tables.v6, Pinned::V6, &mut passed, &mut expired)?;
        self.sockets(&mut passed.census)?;
        passed.took = start.elapsed();
        Ok(passed)
    }

    fn table<A: Sweep>(
        &self,
        table: &FlowTable<A>,
        pin: fn(Request<A>) -> Pinned,
        passed: &mut Passed,
        expired: &mut HashMap<ServiceId, usize>,
    ) -> Result<(), DatapathError> {
        let mut walk = Walk { pass: self, table, pin, passed, expired, remove: Vec::new() };
        let mut failure = None;
        table.walk(
            |flows| {
                flows.iter().filter(|flow| flow.direction.is_forward()).for_each(|flow| walk.look(flow));
                failure = failure.take().or(walk.remove().err());
            },
            std::thread::yield_now,
        );
        failure.map_or(Ok(()), Err)
    }

    /// Counts sockets of the node's processes, and lets go of what unconnected ones haven't used for long. Connected ones are let go of by the
    /// kernel's program when they are closed.
    fn sockets(&self, census: &mut Census) -> Result<(), DatapathError> {
        let now = self.clock.now();
        let mut silent = Vec::new();
        for socket in self.sockets.iter() {
            let pin = &socket.pin;
            *census.pinned.entry(pin.backend).or_default() += 1;
            census.count(pin.backend, self.clock.millis(age(now, pin.created)));
            let service = self.directory.service(pin.backend);
            let limit = self.directory.timeouts(service).udp;
            if pin.connected == 0 && self.clock.millis(idle(now as u32, pin.last_seen).into()) >= limit {
                silent.push(socket.request());
                if let Some(service) = service {
                    *census.timeouts.entry((service, Timeout::Udp)).or_default() += 1;
                }
            }
        }
        if silent.is_empty() {
            return Ok(());
        }
        let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        unless_refused(sockets::release(&object, &silent)).map(drop)
    }
}

impl<A: Sweep> Walk<'_, A> {
    fn look(&mut self, flow: &Flow<A>) {
        let clock = self.pass.clock;
        let now = clock.now();
        let word = Word(flow.state);
        let millis = |ticks| clock.millis(ticks);
        let age = millis(age(now, flow.created));
        let census = &mut self.passed.census;
        census.flows += 1;
        *census.pinned.entry(flow.backend).or_default() += 1;
        if flow.backend == BackendId(0) {
            census.past.insert(flow.dst.to_ip());
        } else {
            census.translated += 1;
        }
        if word.counted() {
            census.count(flow.backend, age);
        }
        let mut seen = Observed {
            word,
            age,
            idle: millis(idle(now as u32, flow.last_seen).into()),
            asked: flow.mark,
            said: 0,
            asked_for: millis(asked_for(now, flow.asked_at)),
            one_sided: flow.direction.is_direct(),
        };
        let service = self.pass.directory.service(flow.backend);
        if flow.direction.is_full()
            && !flow.direction.is_ported()
            && word.counted()
            && self.pass.directory.is_handed(service)
            && let Some(key) = self.table.beyond(flow)
        {
            let end = |address: A, port: PortBe| SocketAddr::new(address.to_ip(), port.get());
            let (from, to) = (end(key.src, key.sport), end(key.dst, key.dport));
            self.passed.handed.insert(Tuple { proto: key.proto, from, to });
        }
        let told = word.knows(true) && (word.knows(false) || seen.one_sided);
        if word.phase() == Phase::RESET
            && seen.idle >= TOLD
            && !told
            && self.passed.found.untold.len() < UNTOLD
        {
            let victim = self.victim(flow, None, How::Tell, service);
            self.passed.found.untold.push(victim);
        }
        // Of most flows the forward entry says enough: whatever the reply entry said, it would stay.
        let timeouts = self.pass.directory.timeouts(service);
        if timeouts.verdict(&seen) == Verdict::Keep {
            return;
        }
        let reply = self.table.reply(flow);
        if let Some(reply) = reply {
            // A backend says its SYN-ACK again for a minute, whether anybody wants it or not.
            if !word.phase().is_unconfirmed() {
                seen.idle = seen.idle.min(millis(idle(now as u32, reply.last_seen).into()));
            }
            // Who has said nothing yet is at the number after its SYN.
            seen.said = if reply.mark == 0 { reply.fin } else { reply.mark };
        }
        let verdict = timeouts.verdict(&seen);
        if let Some((how, timeout)) = How::expire(verdict) {
            self.expire(flow, reply.as_ref(), how, timeout, service);
        } else if let Verdict::Remove(timeout) = verdict {
            self.remove.push(sweeper::request(flow, reply.as_ref()));
            if let Some(service) = service.filter(|_| timeout != Timeout::Closed) {
                *self.passed.census.timeouts.entry((service, timeout)).or_default() += 1;
            }
        }
    }

    fn expire(
        &mut self,
        flow: &Flow<A>,
        reply: Option<&Flow<A>>,
        how: How,
        timeout: Timeout,
        service: Option<ServiceId>,
    ) {
        let victim = self.victim(flow, reply, how, service);
        let of_service = self.expired.entry(victim.service).or_default();
        if *of_service < EXPIRED.0 && self.passed.found.expired.len() < EXPIRED.1 {
            *of_service += 1;
            self.passed.found.expired.push((timeout, victim));
        }
    }

    fn victim(
        &self,
        flow: &Flow<A>,
        reply: Option<&Flow<A>>,
        how: How,
        service: Option<ServiceId>,
    ) -> Victim {
        let flow = (self.pin)(sweeper::request(flow, reply));
        Victim { service: service.unwrap_or(ServiceId::MAX), how, flow }
    }

    fn remove(&mut self) -> Result<(), DatapathError> {
        if self.remove.is_empty() {
            return Ok(());
        }
        let object = self.pass.object.lock().unwrap_or_else(PoisonError::into_inner);
        let done = unless_refused(sweeper::remove(&object, &self.remove));
        self.remove.clear();
        done.map(drop)
    }
}
