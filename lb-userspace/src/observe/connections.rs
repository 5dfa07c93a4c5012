//! Pinned flows joined with names, for people.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    abi::{Addr, Addr4, Addr6, BackendId, Direction, Flow, Proto},
    expiry::{age, idle},
    flow_state::{Phase, Word},
};

use crate::{
    api::types::{ConnectionFilter, ConnectionView},
    datapath::{
        Clock,
        flows::{FlowTable, FlowTables},
    },
};

/// A filter with its addresses understood.
struct Filter<'a> {
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
    /// Kernel time.
    pub clock: Clock,
    /// Names of services by backend.
    pub services: &'a HashMap<BackendId, String>,
}

/// The connections that match a filter that was [checked](check).
pub fn list(place: Place<'_>, filter: &ConnectionFilter) -> Vec<ConnectionView> {
    let filter = Filter::new(filter);
    let mut found = Vec::new();
    each(place, &place.tables.v4, &filter, |flow, reply, row| found.push(row.view(place.clock, flow, reply)));
    each(place, &place.tables.v6, &filter, |flow, reply, row| found.push(row.view(place.clock, flow, reply)));
    found
}

/// Connections to be closed.
#[derive(Default)]
pub struct Victims {
    /// IPv4.
    pub v4: Vec<Flow<Addr4>>,
    /// IPv6.
    pub v6: Vec<Flow<Addr6>>,
}

/// The forward entries of connections that count, match a filter that was [checked](check), and have been silent for so long.
pub fn victims(place: Place<'_>, filter: &ConnectionFilter, idle_for: Duration) -> Victims {
    let filter = Filter::new(filter);
    let idle = |row: &Row<'_>| place.clock.seconds(row.idle.into()) >= idle_for.as_secs_f64();
    let mut found = Victims::default();
    each(place, &place.tables.v4, &filter, |flow, _, row| {
        if row.word.counted() && idle(&row) {
            found.v4.push(*flow);
        }
    });
    each(place, &place.tables.v6, &filter, |flow, _, row| {
        if row.word.counted() && idle(&row) {
            found.v6.push(*flow);
        }
    });
    found
}

/// The forward entries of connections that count and belong to these backends.
pub fn victims_of(place: Place<'_>, backends: &HashSet<BackendId>) -> Victims {
    let none = ConnectionFilter::default();
    let filter = Filter::new(&none);
    let mut found = Victims::default();
    each(place, &place.tables.v4, &filter, |flow, _, row| {
        if row.word.counted() && backends.contains(&flow.backend) {
            found.v4.push(*flow);
        }
    });
    each(place, &place.tables.v6, &filter, |flow, _, row| {
        if row.word.counted() && backends.contains(&flow.backend) {
            found.v6.push(*flow);
        }
    });
    found
}

/// What is known of a connection without its counters.
struct Row<'a> {
    service: &'a str,
    word: Word,
    client: SocketAddr,
    backend: SocketAddr,
    /// Ticks since the last packet of either direction.
    idle: u32,
}

impl Row<'_> {
    fn view<A: Addr>(&self, clock: Clock, flow: &Flow<A>, reply: &Flow<A>) -> ConnectionView {
        ConnectionView {
            service: self.service.into(),
            client: self.client.to_string(),
            vip: SocketAddr::new(flow.dst.to_ip(), flow.dport.get()).to_string(),
            backend: self.backend.to_string(),
            protocol: if flow.proto == Proto::TCP { "tcp" } else { "udp" }.into(),
            state: state(self.word).into(),
            age_seconds: clock.seconds(age(clock.now(), flow.created)),
            idle_seconds: clock.seconds(self.idle.into()),
            packets_in: flow.packets(),
            bytes_in: flow.bytes,
            packets_out: reply.packets(),
            bytes_out: reply.bytes,
        }
    }
}

/// Hands every connection that matches to `visit`: its forward entry, its reply entry (all zero if there is none).
fn each<A: Addr>(
    place: Place<'_>,
    table: &FlowTable<A>,
    filter: &Filter<'_>,
    mut visit: impl FnMut(&Flow<A>, &Flow<A>, Row<'_>),
) {
    table.walk(
        |flows| {
            for flow in flows.iter().filter(|f| f.direction == Direction::FORWARD) {
                let key = flow.key();
                let word = Word(flow.state);
                let client = SocketAddr::new(key.src.to_ip(), key.sport.get());
                let backend = SocketAddr::new(flow.nat_addr.to_ip(), flow.nat_port.get());
                let service = place.services.get(&flow.backend).map_or("", String::as_str);
                if filter.client.is_some_and(|f| !f.matches(client))
                    || filter.backend.is_some_and(|f| !f.matches(backend))
                    || filter.raw.service.as_ref().is_some_and(|f| f != service)
                    || filter.raw.state.as_ref().is_some_and(|f| f != state(word))
                {
                    continue;
                }
                let reply = table.get(&key.twin(flow)).unwrap_or_default();
                let now = place.clock.now() as u32;
                let mut quiet = idle(now, flow.last_seen);
                if reply.packets() > 0 {
                    quiet = quiet.min(idle(now, reply.last_seen));
                }
                visit(flow, &reply, Row { service, word, client, backend, idle: quiet });
            }
        },
        || {},
    );
}
