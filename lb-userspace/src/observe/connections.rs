//! Pinned flows joined with names, for people.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    net::SocketAddr,
};

use lb_common::abi::{Addr, Proto};

use super::sockets;
use crate::{
    api::types::{ConnectionFilter, ConnectionView},
    conntrack::matches::{Filter, Match, Place, each, state},
};

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

/// The connections that match a filter that was [checked](crate::conntrack::matches::check): all, or so many of them, the greatest first if there is an
/// order.
pub fn list(
    place: Place<'_>,
    filter: &ConnectionFilter,
    order: Option<Order>,
    limit: Option<usize>,
) -> Vec<ConnectionView> {
    let filter = Filter::new(filter);
    let mut kept = Kept { order, limit: limit.unwrap_or(usize::MAX), seen: 0, heap: BinaryHeap::new() };
    each(place, &place.tables.v4, &filter, |row| kept.offer(|order| rank(&row, order), || view(&row)));
    each(place, &place.tables.v6, &filter, |row| kept.offer(|order| rank(&row, order), || view(&row)));
    sockets::each(place, &filter, |row| kept.offer(|order| row.rank(order), || row.view()));
    kept.heap.into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked.view).collect()
}

/// Hands the connections that match a filter that was [checked](crate::conntrack::matches::check) to `visit`, as they come, until it says that it has enough.
pub fn stream(place: Place<'_>, filter: &ConnectionFilter, mut visit: impl FnMut(ConnectionView) -> bool) {
    let filter = Filter::new(filter);
    let mut more = true;
    each(place, &place.tables.v4, &filter, |row| more = more && visit(view(&row)));
    each(place, &place.tables.v6, &filter, |row| more = more && visit(view(&row)));
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

fn rank<A: Addr>(row: &Match<'_, A>, order: Order) -> u64 {
    match order {
        Order::Age => row.age(),
        Order::Idle => row.idle(&row.reply()).into(),
        Order::Bytes => row.flow.bytes + row.reply().bytes,
    }
}

fn view<A: Addr>(row: &Match<'_, A>) -> ConnectionView {
    let (flow, reply) = (row.flow, row.reply());
    ConnectionView {
        service: row.service.into(),
        client: row.client.to_string(),
        vip: SocketAddr::new(flow.dst.to_ip(), flow.dport.get()).to_string(),
        backend: row.backend.to_string(),
        protocol: if flow.proto == Proto::TCP { "tcp" } else { "udp" }.into(),
        state: state(row.word()).into(),
        age_seconds: row.clock.seconds(row.age()),
        idle_seconds: row.clock.seconds(row.idle(&reply).into()),
        packets_in: flow.packets(),
        bytes_in: flow.bytes,
        packets_out: reply.packets(),
        bytes_out: reply.bytes,
    }
}
