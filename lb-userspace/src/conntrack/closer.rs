//! The one who closes connections. Whoever wants any closed hands them in with a [cause](Cause); they wait in one
//! [queue](Queue), and are closed at one rate, so that a node isn't busy with it and servers aren't overrun by what comes
//! back.
//!
//! Closing is two things: the datapath is told, by the sweep programs, and then both ends are made to say something, which
//! it answers with a RST. A socket of the node's processes is the kernel's to end.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lb_common::{
    abi::{Addr, ServiceId, sweep::Request},
    expiry::Timeout,
    flow_state::Word,
};
use tokio::sync::{Notify, oneshot};

use super::{
    ends,
    queue::Queue,
    select::{Cause, How, Pinned, SocketVictim, Victim},
    sockets,
};
use crate::datapath::{
    DatapathError,
    flows::{FlowTable, FlowTables},
    object::Object,
    provoke::Provoker,
    sweeper::{self, Sweep},
};

/// Connections closed in a second, all causes together.
pub const PER_SECOND: u32 = 5_000;

/// Flows that ran into a timeout, by service and timeout.
pub type TimedOut = HashMap<(ServiceId, Timeout), u64>;

/// See the module.
#[derive(Default)]
pub struct Closer {
    queue: Mutex<Waiting>,
    wake: Notify,
    timed_out: Arc<Mutex<TimedOut>>,
}

struct Waiting {
    queue: Queue<Entry>,
    ended: bool,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { queue: Queue::new(Cause::CLASSES), ended: false }
    }
}

/// A connection that waits.
struct Entry {
    victim: Victim,
    order: Arc<Order>,
}

/// What was handed in together. Tells how it went when the last of its connections is done with.
struct Order {
    count: u64,
    done: AtomicU64,
    closed: AtomicU64,
    failure: Mutex<Option<String>>,
    report: Mutex<Report>,
}

/// To whom.
enum Report {
    /// Nobody waits for it.
    Nobody,
    /// Whoever handed them in.
    To(oneshot::Sender<Result<u64, String>>),
    /// Those who count timeouts.
    TimedOut(ServiceId, Timeout, Arc<Mutex<TimedOut>>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Order {
    fn new(count: usize, report: Report) -> Arc<Self> {
        Arc::new(Self {
            count: count as u64,
            done: AtomicU64::default(),
            closed: AtomicU64::default(),
            failure: Mutex::default(),
            report: Mutex::new(report),
        })
    }

    fn note(&self, done: usize, result: Result<u32, DatapathError>) {
        self.done.fetch_add(done as u64, Ordering::Relaxed);
        match result {
            Ok(closed) => {
                self.closed.fetch_add(closed.into(), Ordering::Relaxed);
            }
            Err(e) => *lock(&self.failure) = Some(e.to_string()),
        }
    }

    /// How it went.
    fn result(&self) -> Result<u64, String> {
        let (done, closed) = (self.done.load(Ordering::Relaxed), self.closed.load(Ordering::Relaxed));
        match lock(&self.failure).take() {
            Some(failure) => Err(failure),
            None if done < self.count => Err(format!(
                "the agent is ending: {closed} connections were closed, and {} of those that were to be weren't looked at",
                self.count - done
            )),
            None => Ok(closed),
        }
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        let report = std::mem::replace(&mut *lock(&self.report), Report::Nobody);
        match report {
            Report::Nobody => {}
            // Who asked may have gone.
            Report::To(sender) => drop(sender.send(self.result())),
            Report::TimedOut(service, timeout, totals) => {
                let closed = self.closed.load(Ordering::Relaxed);
                if closed > 0 {
                    *lock(&totals).entry((service, timeout)).or_default() += closed;
                }
            }
        }
    }
}

/// What connections are closed with.
pub struct Hands<'a> {
    /// Programs.
    pub object: &'a Mutex<Object>,
    /// Tables.
    pub tables: &'a FlowTables,
    /// To make both ends say something; without it, who is closed hears of it when he next does.
    pub provoker: Option<&'a Provoker>,
}

/// What a walk over the tables found.
#[derive(Debug, Default)]
pub struct Found {
    /// Connections that have run into a timeout.
    pub expired: Vec<(Timeout, Victim)>,
    /// Connections that are closed, and not both ends have heard of it.
    pub untold: Vec<Victim>,
}

impl Closer {
    /// Has these closed. Done when all are, with how many were open until then.
    ///
    /// # Errors
    /// The kernel refuses, or the agent ends.
    pub async fn close(&self, cause: Cause, victims: Vec<Victim>) -> Result<u64, String> {
        if victims.is_empty() {
            return Ok(0);
        }
        let (sender, receiver) = oneshot::channel();
        {
            let order = Order::new(victims.len(), Report::To(sender));
            let mut waiting = lock(&self.queue);
            if !waiting.ended {
                for victim in victims {
                    waiting.queue.push(cause.class(), victim.service, Entry { victim, order: order.clone() });
                }
            }
        }
        self.wake.notify_one();
        receiver.await.unwrap_or_else(|_| Err("nobody closes connections any more".into()))
    }

    /// Takes over what a walk found, instead of what is left of what the one before did.
    pub fn replace(&self, found: Found) {
        let Found { expired, untold } = found;
        let mut orders: HashMap<(ServiceId, Timeout), Arc<Order>> = HashMap::new();
        let mut waiting = lock(&self.queue);
        let classes = [Cause::Timeout(Timeout::Idle).class(), Cause::UNTOLD];
        classes.into_iter().for_each(|class| waiting.queue.clear(class));
        if waiting.ended {
            return;
        }
        for (timeout, victim) in expired {
            let report = || Report::TimedOut(victim.service, timeout, self.timed_out.clone());
            let order = orders.entry((victim.service, timeout)).or_insert_with(|| Order::new(0, report()));
            waiting.queue.push(classes[0], victim.service, Entry { victim, order: order.clone() });
        }
        let order = Order::new(0, Report::Nobody);
        for victim in untold {
            waiting.queue.push(classes[1], victim.service, Entry { victim, order: order.clone() });
        }
        let some = !waiting.queue.is_empty();
        drop(waiting);
        if some {
            self.wake.notify_one();
        }
    }

    /// How many connections were closed for a timeout since the last call.
    pub fn timed_out(&self) -> TimedOut {
        std::mem::take(&mut *lock(&self.timed_out))
    }

    /// Done when somebody waits.
    pub async fn wanted(&self) {
        while lock(&self.queue).queue.is_empty() {
            self.wake.notified().await;
        }
    }

    /// Nobody closes any more: tells those who wait.
    pub fn end(&self) {
        let ended = Waiting { ended: true, ..Waiting::default() };
        let left = std::mem::replace(&mut *lock(&self.queue), ended);
        drop(left);
    }

    /// Closes the next `count`, or all if there are fewer. How many there were.
    pub fn work(&self, count: usize, hands: &Hands<'_>) -> usize {
        let entries = lock(&self.queue).queue.take(count);
        let mut v4 = Batch::default();
        let mut v6 = Batch::default();
        let mut sockets: HashMap<usize, (&Order, Vec<SocketVictim>)> = HashMap::new();
        for Entry { victim, order } in &entries {
            match victim.flow {
                Pinned::V4(request) => v4.add(request, victim.how, order),
                Pinned::V6(request) => v6.add(request, victim.how, order),
                Pinned::Socket(socket) => {
                    let key = Arc::as_ptr(order).addr();
                    sockets.entry(key).or_insert_with(|| (order, Vec::new())).1.push(socket);
                }
            }
        }
        v4.close(hands, &hands.tables.v4);
        v6.close(hands, &hands.tables.v6);
        for (order, victims) in sockets.values() {
            order.note(victims.len(), sockets::close(hands.object, victims));
        }
        entries.len()
    }
}

/// Connections that somebody asked for together.
type Asked<'a, A> = (&'a Order, Vec<Request<A>>);

/// Connections of one IP version that are closed together.
struct Batch<'a, A> {
    /// By what is done and who asked.
    asked: HashMap<(How, usize), Asked<'a, A>>,
}

impl<A> Default for Batch<'_, A> {
    fn default() -> Self {
        Self { asked: HashMap::new() }
    }
}

impl<'a, A: Sweep> Batch<'a, A> {
    fn add(&mut self, request: Request<A>, how: How, order: &'a Arc<Order>) {
        let key = (how, Arc::as_ptr(order).addr());
        self.asked.entry(key).or_insert_with(|| (order, Vec::new())).1.push(request);
    }

    fn close(self, hands: &Hands<'_>, table: &FlowTable<A>) {
        for ((how, _), (order, requests)) in &self.asked {
            let fresh: Vec<Request<A>> = match how {
                How::Forget => requests.iter().filter_map(|request| again(table, request)).collect(),
                _ => Vec::new(),
            };
            let result = {
                let object = hands.object.lock().unwrap_or_else(PoisonError::into_inner);
                match how {
                    How::Reset => sweeper::close(&object, requests),
                    How::Expire => sweeper::expire(&object, requests),
                    How::Forget => sweeper::remove(&object, &fresh),
                    How::Tell => Ok(0),
                }
            };
            order.note(requests.len(), result);
        }
        let Some(provoker) = hands.provoker else { return };
        for ((how, _), (_, requests)) in &self.asked {
            if *how != How::Forget {
                requests.iter().for_each(|request| tell(provoker, table, request));
            }
        }
    }
}

/// A request about the same flow as it is now: a removal is refused if a packet has come since.
fn again<A: Addr>(table: &FlowTable<A>, request: &Request<A>) -> Option<Request<A>> {
    let flow = table.get(&request.key)?;
    let same = Word(flow.state).tag() == Word(request.state).tag();
    same.then(|| sweeper::request(&flow, table.reply(&flow).as_ref()))
}

/// Makes both ends of a connection say something, if it is closed.
fn tell<A: Addr>(provoker: &Provoker, table: &FlowTable<A>, request: &Request<A>) {
    use lb_common::flow_state::Phase;
    let closed = |word: Word| word.tag() == Word(request.state).tag() && word.phase() == Phase::RESET;
    if let Some(flow) = table.get(&request.key).filter(|flow| closed(Word(flow.state))) {
        ends::tell(provoker, table, &flow);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn victims(service: ServiceId, count: usize) -> Vec<Victim> {
        let victim = Victim { service, how: How::Reset, flow: Pinned::V4(Request::default()) };
        vec![victim; count]
    }

    /// Does as `work` does, without a kernel: so many of a batch were open.
    fn work(closer: &Closer, count: usize, open: u32) -> usize {
        let entries = lock(&closer.queue).queue.take(count);
        entries.iter().for_each(|entry| entry.order.note(1, Ok(open)));
        entries.len()
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test hears of a panic")]
    async fn who_asks_hears_how_many_there_were_when_all_are_closed() {
        let closer = Arc::new(Closer::default());
        let (a, b) = (closer.clone(), closer.clone());
        let many = tokio::spawn(async move { a.close(Cause::Removal, victims(1, 100)).await });
        let few = tokio::spawn(async move { b.close(Cause::Deadline, victims(2, 10)).await });
        let mut done = 0;
        while done < 110 {
            closer.wanted().await;
            done += work(&closer, 20, 1);
            tokio::task::yield_now().await;
        }
        assert_eq!((many.await.unwrap(), few.await.unwrap()), (Ok(100), Ok(10)));
        assert_eq!(closer.close(Cause::Operator, Vec::new()).await, Ok(0));
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test hears of a panic")]
    async fn who_still_waits_when_the_agent_ends_is_told() {
        let closer = Arc::new(Closer::default());
        let asked = closer.clone();
        let waiting = tokio::spawn(async move { asked.close(Cause::Removal, victims(1, 100)).await });
        closer.wanted().await;
        work(&closer, 40, 1);
        closer.end();
        let told = waiting.await.unwrap().unwrap_err();
        assert!(told.contains("ending: 40 connections were closed, and 60"), "{told}");
        let late = tokio::time::timeout(Duration::from_secs(10), closer.close(Cause::Removal, victims(1, 1)));
        assert!(late.await.expect("nobody is left waiting").is_err());
    }

    #[test]
    fn what_a_walk_found_takes_the_place_of_what_the_one_before_did() {
        let closer = Closer::default();
        let expired = |count| victims(3, count).into_iter().map(|v| (Timeout::Idle, v)).collect();
        closer.replace(Found { expired: expired(10), untold: victims(4, 2) });
        assert_eq!(work(&closer, 4, 1), 4);
        closer.replace(Found { expired: expired(6), untold: Vec::new() });
        assert_eq!(work(&closer, 100, 1), 6);
        assert_eq!(
            closer.timed_out(),
            HashMap::from([((3, Timeout::Idle), 9)]),
            "one of the four was untold"
        );
        assert_eq!(closer.timed_out(), HashMap::new());
    }
}
