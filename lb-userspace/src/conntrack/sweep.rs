//! The sweeper: walks the tables in batches, has flows removed that are over, and connections closed that have run into a timeout.
//!
//! It only proposes. The kernel's side removes or closes a flow if neither its state nor its stamps have changed since it was looked at,
//! by the same compare-and-swap that packets use.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lb_common::{
    abi::{Addr, BackendId, Flow, ServiceId, sweep::Request},
    expiry::{Observed, Timeout, Timeouts, Verdict, age, asked_for, idle},
    flow_state::{Phase, Word},
};

use super::{Census, ends};
use crate::datapath::{
    Clock, DatapathError,
    flows::{FlowTable, FlowTables},
    object::Object,
    provoke::Provoker,
    refusal::unless_refused,
    sockets::{self, SocketPins},
    sweeper::{self, Sweep},
};

/// Shortest time between passes.
const INTERVAL: Duration = Duration::from_millis(500);
/// A pass may take one part in so many of the time.
const SHARE: u32 = 20;
/// Connections closed in a pass, at most: both ends of each get a packet. The others are closed in the next.
const CLOSES: usize = 2_500;

/// How long to wait after a pass that took `took`.
pub fn pause(took: Duration) -> Duration {
    INTERVAL.max(took * SHARE)
}

/// Milliseconds after which who doesn't know that his connection is closed is told again.
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
    /// Timeouts of services that have their own.
    pub timeouts: &'a HashMap<ServiceId, Timeouts>,
    /// Services by backend.
    pub services: &'a HashMap<BackendId, ServiceId>,
}

/// What a batch comes to.
struct Due<A: Addr> {
    /// How many more connections may be closed.
    left: usize,
    remove: Vec<Request<A>>,
    /// Connections to be closed, unless something has happened since.
    expire: Vec<Request<A>>,
    /// Connections to be closed.
    end: Vec<Request<A>>,
    /// The forward entries of both.
    closing: Vec<Flow<A>>,
    /// Those of connections that were closed a while ago, and not both ends have heard of it: a TCP stack that has just answered something
    /// odd doesn't answer the next for half a second (tcp_invalid_ratelimit), and packets get lost.
    untold: Vec<Flow<A>>,
}

impl<A: Addr> Default for Due<A> {
    fn default() -> Self {
        let (remove, expire, end) = (Vec::new(), Vec::new(), Vec::new());
        Self { left: 0, remove, expire, end, closing: Vec::new(), untold: Vec::new() }
    }
}

impl Pass<'_> {
    /// Walks both tables, removes and closes what is over, and counts. How long it took.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&self) -> Result<(Census, Duration), DatapathError> {
        let start = Instant::now();
        let mut census = Census::default();
        let mut left = CLOSES;
        self.table(&self.tables.v4, &mut census, &mut left)?;
        self.table(&self.tables.v6, &mut census, &mut left)?;
        self.sockets(&mut census)?;
        Ok((census, start.elapsed()))
    }

    /// `left`: how many connections it may close; less those that it did.
    fn table<A: Sweep>(
        &self,
        table: &FlowTable<A>,
        census: &mut Census,
        left: &mut usize,
    ) -> Result<(), DatapathError> {
        let mut failure = None;
        table.walk(
            |flows| {
                let mut due = Due { left: *left, ..Due::default() };
                for flow in flows.iter().filter(|flow| flow.direction.is_forward()) {
                    self.count(flow, census);
                    self.look(table, flow, census, &mut due);
                }
                *left = due.left;
                failure = failure.take().or(self.act(table, &due).err());
            },
            std::thread::yield_now,
        );
        failure.map_or(Ok(()), Err)
    }

    fn count<A: Sweep>(&self, flow: &Flow<A>, census: &mut Census) {
        census.flows += 1;
        *census.pinned.entry(flow.backend).or_default() += 1;
        if flow.backend == BackendId(0) {
            census.past.insert(flow.dst.to_ip());
        }
        if Word(flow.state).counted() {
            census.count(flow.backend, self.clock.millis(age(self.clock.now(), flow.created)));
        }
    }

    fn look<A: Sweep>(&self, table: &FlowTable<A>, flow: &Flow<A>, census: &mut Census, due: &mut Due<A>) {
        let service = self.services.get(&flow.backend).copied();
        let own = service.and_then(|s| self.timeouts.get(&s));
        let timeouts = own.unwrap_or(&Timeouts::DEFAULT);
        let now = self.clock.now();
        let word = Word(flow.state);
        let millis = |ticks| self.clock.millis(ticks);
        let mut seen = Observed {
            word,
            age: millis(age(now, flow.created)),
            idle: millis(idle(now as u32, flow.last_seen).into()),
            asked: flow.mark,
            said: 0,
            asked_for: millis(asked_for(now, flow.asked_at)),
            one_sided: flow.direction.is_direct(),
        };
        let told = word.knows(true) && (word.knows(false) || seen.one_sided);
        if word.phase() == Phase::RESET && seen.idle >= TOLD && !told {
            due.untold.push(*flow);
        }
        // Of most flows the forward entry says enough: whatever the reply entry said, it would stay.
        if timeouts.verdict(&seen) == Verdict::Keep {
            return;
        }
        let reply = table.reply(flow);
        if let Some(reply) = reply {
            seen.idle = seen.idle.min(millis(idle(now as u32, reply.last_seen).into()));
            seen.said = reply.mark;
        }
        let (list, timeout) = match timeouts.verdict(&seen) {
            Verdict::Keep => return,
            Verdict::Remove(timeout) => (&mut due.remove, timeout),
            Verdict::Expire(_) | Verdict::End(_) if due.left == 0 => return,
            Verdict::Expire(timeout) => {
                due.left -= 1;
                due.closing.push(*flow);
                (&mut due.expire, timeout)
            }
            Verdict::End(timeout) => {
                due.left -= 1;
                due.closing.push(*flow);
                (&mut due.end, timeout)
            }
        };
        list.push(sweeper::request(flow, reply.as_ref()));
        if let Some(service) = service {
            *census.timeouts.entry((service, timeout)).or_default() += u64::from(timeout != Timeout::Closed);
        }
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
            let service = self.services.get(&pin.backend).copied();
            let limit = service.and_then(|s| self.timeouts.get(&s)).unwrap_or(&Timeouts::DEFAULT).udp;
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

    fn act<A: Sweep>(&self, table: &FlowTable<A>, due: &Due<A>) -> Result<(), DatapathError> {
        if !due.remove.is_empty() || !due.closing.is_empty() {
            let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
            unless_refused(sweeper::remove(&object, &due.remove))?;
            unless_refused(sweeper::expire(&object, &due.expire))?;
            unless_refused(sweeper::close(&object, &due.end))?;
        }
        if !(due.closing.is_empty() && due.untold.is_empty())
            && let Ok(provoker) = Provoker::open()
        {
            due.closing.iter().chain(&due.untold).for_each(|flow| ends::tell(&provoker, table, flow));
        }
        Ok(())
    }
}
