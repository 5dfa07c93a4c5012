//! Pinned flows joined with names, for people.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    abi::{Addr, Addr4, Addr6, BackendId, Flow, Proto},
    expiry::{age, idle},
    flow_state::{Phase, Word},
};

use super::sockets;
use crate::{
    api::types::{ConnectionFilter, ConnectionView},
    datapath::{
        Clock,
        flows::{FlowTable, FlowTables},
        sockets::SocketPins,
    },
};

/// A filter with its addresses understood.
pub struct Filter<'a> {
    raw: &'a ConnectionFilter,
    client: Option<Endpoint>,
    backend: Option<Endpoint>,
}

/// An address, or an address and a port.
#[derive(Clone, Copy)]
struct Endpoint(IpAddr, Option<u16>);

impl<'a> Filter<'a> {
    fn new(raw: &'a ConnectionFilter) -> Self {
        let parse = |text: &Option<String>| text.as_deref().and_then(|t| Endpoint::parse(t).ok());
        Self { raw, client: parse(&raw.client), backend: parse(&raw.backend) }
    }

    /// Does it let such a connection through?
    pub fn takes(&self, client: SocketAddr, backend: SocketAddr, service: &str, state: &str) -> bool {
        self.client.is_none_or(|f| f.matches(client))
            && self.backend.is_none_or(|f| f.matches(backend))
            && self.raw.service.as_ref().is_none_or(|f| f == service)
            && self.raw.state.as_ref().is_none_or(|f| f == state)
    }
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address, None));
        }
        let socket: SocketAddr = text.parse().map_err(|_| {
            format!("\"{text}\" is neither an address nor ADDRESS:PORT; write 192.0.2.7 or 192.0.2.7:40000")
        })?;
        Ok(Self(socket.ip(), Some(socket.port())))
    }
    fn matches(self, socket: SocketAddr) -> bool {
        self.0 == socket.ip() && self.1.is_none_or(|p| p == socket.port())
    }
}

/// States by name.
const STATES: [&str; 5] = ["syn-sent", "established", "closing", "closed", "active"];

fn state(word: Word) -> &'static str {
    match word.phase() {
        Phase::SYN_SENT => STATES[0],
        Phase::ESTABLISHED => STATES[1],
        Phase::CLOSING => STATES[2],
        Phase::UDP => STATES[4],
        _ => STATES[3],
    }
}

/// Is the filter one that can match?
///
/// # Errors
/// What is wrong with it.
pub fn check(filter: &ConnectionFilter) -> Result<(), String> {
    for text in [&filter.client, &filter.backend].into_iter().flatten() {
        Endpoint::parse(text)?;
    }
    match &filter.state {
        Some(state) if !STATES.contains(&state.as_str()) => {
            Err(format!("state \"{state}\" is not known; use {}", STATES.join(", ")))
        }
        _ => Ok(()),
    }
}

/// What connections are looked for in.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Flow tables.
    pub tables: &'a FlowTables,
    /// What the node's own processes have.
    pub sockets: &'a SocketPins,
    /// Kernel time.
    pub clock: Clock,
    /// Names of services by backend.
    pub services: &'a HashMap<BackendId, String>,
}

/// What to list first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest.
    Age,
    /// Those that have been silent longest.
    Idle,
    /// Those with the most bytes, both directions.
    Bytes,
}

impl Order {
    /// From its name.
    ///
    /// # Errors
    /// There are only three.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "age" => Ok(Self::Age),
            "idle" => Ok(Self::Idle),
            "bytes" => Ok(Self::Bytes),
            _ => Err(format!("sort \"{text}\" is not known; use age, idle, bytes")),
        }
    }
}

/// The connections that match a filter that was [checked](check): all, or so many of them, the greatest first if there is an
/// order.
pub fn list(
    place: Place<'_>,
    filter: &ConnectionFilter,
    order: Option<Order>,
    limit: Option<usize>,
) -> Vec<ConnectionView> {
    let filter = Filter::new(filter);
    let mut kept = Kept { order, limit: limit.unwrap_or(usize::MAX), seen: 0, heap: BinaryHeap::new() };
    each(place, &place.tables.v4, &filter, |row| kept.offer(|order| row.rank(order), || row.view()));
    each(place, &place.tables.v6, &filter, |row| kept.offer(|order| row.rank(order), || row.view()));
    sockets::each(place, &filter, |row| kept.offer(|order| row.rank(order), || row.view()));
    kept.heap.into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked.view).collect()
}

/// Hands the connections that match a filter that was [checked](check) to `visit`, as they come, until it says that it has enough.
pub fn stream(place: Place<'_>, filter: &ConnectionFilter, mut visit: impl FnMut(ConnectionView) -> bool) {
    let filter = Filter::new(filter);
    let mut more = true;
    each(place, &place.tables.v4, &filter, |row| more = more && visit(row.view()));
    each(place, &place.tables.v6, &filter, |row| more = more && visit(row.view()));
    // Asking the kernel for its sockets takes a while.
    if more {
        sockets::each(place, &filter, |row| more = more && visit(row.view()));
    }
}

/// The best so far; the worst of them on top of the heap.
struct Kept {
    order: Option<Order>,
    limit: usize,
    seen: u64,
    heap: BinaryHeap<Reverse<Ranked>>,
}

impl Kept {
    fn offer(&mut self, rank: impl Fn(Order) -> u64, view: impl FnOnce() -> ConnectionView) {
        // Without an order, whoever comes first; and of equals too.
        self.seen += 1;
        let rank = (self.order.map_or(0, rank), Reverse(self.seen));
        if self.heap.len() >= self.limit {
            if self.heap.peek().is_none_or(|Reverse(worst)| worst.rank >= rank) {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(Reverse(Ranked { rank, view: view() }));
    }
}

/// A connection in its place.
struct Ranked {
    rank: (u64, Reverse<u64>),
    view: ConnectionView,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}
impl Eq for Ranked {}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// Connections to be closed.
#[derive(Default)]
pub struct Victims {
    /// IPv4.
    pub v4: Vec<Flow<Addr4>>,
    /// IPv6.
    pub v6: Vec<Flow<Addr6>>,
}

/// The forward entries of connections that count, match a filter that was [checked](check), have been silent for so long, and
/// belong to one of `ours`.
pub fn victims(
    place: Place<'_>,
    filter: &ConnectionFilter,
    idle_for: Duration,
    ours: impl Fn(BackendId) -> bool,
) -> Victims {
    let filter = Filter::new(filter);
    let idle = u64::try_from(idle_for.as_millis()).unwrap_or(u64::MAX);
    let mut found = Victims::default();
    each(place, &place.tables.v4, &filter, |row| {
        found.v4.extend(row.victim(idle).filter(|flow| ours(flow.backend)));
    });
    each(place, &place.tables.v6, &filter, |row| {
        found.v6.extend(row.victim(idle).filter(|flow| ours(flow.backend)));
    });
    found
}

/// A connection that matches. What takes another look into the table is a method.
struct Row<'a, A: Addr> {
    table: &'a FlowTable<A>,
    clock: Clock,
    flow: &'a Flow<A>,
    service: &'a str,
    client: SocketAddr,
    backend: SocketAddr,
}

impl<A: Addr> Row<'_, A> {
    const fn word(&self) -> Word {
        Word(self.flow.state)
    }

    /// The reply entry; all zero if there is none.
    fn reply(&self) -> Flow<A> {
        self.table.reply(self.flow).unwrap_or_default()
    }

    /// Ticks since the last packet of either direction.
    fn idle(&self, reply: &Flow<A>) -> u32 {
        let now = self.clock.now() as u32;
        let quiet = idle(now, self.flow.last_seen);
        if reply.packets() > 0 { quiet.min(idle(now, reply.last_seen)) } else { quiet }
    }

    fn age(&self) -> u64 {
        age(self.clock.now(), self.flow.created)
    }

    fn rank(&self, order: Order) -> u64 {
        match order {
            Order::Age => self.age(),
            Order::Idle => self.idle(&self.reply()).into(),
            Order::Bytes => self.flow.bytes + self.reply().bytes,
        }
    }

    /// Its forward entry, if it counts and has been silent for so many milliseconds.
    fn victim(&self, idle: u64) -> Option<Flow<A>> {
        let silent = || self.clock.millis(self.idle(&self.reply()).into()) >= idle;
        (self.word().counted() && (idle == 0 || silent())).then_some(*self.flow)
    }

    fn view(&self) -> ConnectionView {
        let (flow, reply) = (self.flow, self.reply());
        ConnectionView {
            service: self.service.into(),
            client: self.client.to_string(),
            vip: SocketAddr::new(flow.dst.to_ip(), flow.dport.get()).to_string(),
            backend: self.backend.to_string(),
            protocol: if flow.proto == Proto::TCP { "tcp" } else { "udp" }.into(),
            state: state(self.word()).into(),
            age_seconds: self.clock.seconds(self.age()),
            idle_seconds: self.clock.seconds(self.idle(&reply).into()),
            packets_in: flow.packets(),
            bytes_in: flow.bytes,
            packets_out: reply.packets(),
            bytes_out: reply.bytes,
        }
    }
}

/// Hands every connection that matches to `visit`.
fn each<A: Addr>(
    place: Place<'_>,
    table: &FlowTable<A>,
    filter: &Filter<'_>,
    mut visit: impl FnMut(Row<'_, A>),
) {
    table.walk(
        |flows| {
            for flow in flows.iter().filter(|f| f.direction.is_forward()) {
                let Some(beyond) = table.beyond(flow) else { continue };
                let client = SocketAddr::new(flow.src.to_ip(), flow.sport.get());
                let backend = SocketAddr::new(beyond.dst.to_ip(), beyond.dport.get());
                let service = place.services.get(&flow.backend).map_or("", String::as_str);
                if filter.takes(client, backend, service, state(Word(flow.state))) {
                    visit(Row { table, clock: place.clock, flow, service, client, backend });
                }
            }
        },
        || {},
    );
}
