//! Pinned flows joined with names, for people.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    abi::{Addr, BackendId, Direction, Proto},
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

/// The connections that match a filter that was [checked](check). `services`: names by backend.
pub fn list(
    tables: &FlowTables,
    clock: Clock,
    services: &HashMap<BackendId, String>,
    filter: &ConnectionFilter,
) -> Vec<ConnectionView> {
    let parse = |text: &Option<String>| text.as_deref().and_then(|t| Endpoint::parse(t).ok());
    let filter = Filter { raw: filter, client: parse(&filter.client), backend: parse(&filter.backend) };
    let mut found = Vec::new();
    table(&tables.v4, clock, services, &filter, &mut found);
    table(&tables.v6, clock, services, &filter, &mut found);
    found
}

fn table<A: Addr>(
    table: &FlowTable<A>,
    clock: Clock,
    services: &HashMap<BackendId, String>,
    filter: &Filter<'_>,
    found: &mut Vec<ConnectionView>,
) {
    table.walk(
        |flows| {
            for flow in flows.iter().filter(|f| f.direction == Direction::FORWARD) {
                let key = flow.key();
                let word = Word(flow.state);
                let client = SocketAddr::new(key.src.to_ip(), key.sport.get());
                let backend = SocketAddr::new(flow.nat_addr.to_ip(), flow.nat_port.get());
                let service = services.get(&flow.backend).map_or("", String::as_str);
                if filter.client.is_some_and(|f| !f.matches(client))
                    || filter.backend.is_some_and(|f| !f.matches(backend))
                    || filter.raw.service.as_ref().is_some_and(|f| f != service)
                    || filter.raw.state.as_ref().is_some_and(|f| f != state(word))
                {
                    continue;
                }
                let reply = table.get(&key.twin(flow)).unwrap_or_default();
                let now = clock.now();
                let mut quiet = idle(now as u32, flow.last_seen);
                if reply.packets() > 0 {
                    quiet = quiet.min(idle(now as u32, reply.last_seen));
                }
                found.push(ConnectionView {
                    service: service.into(),
                    client: client.to_string(),
                    vip: SocketAddr::new(key.dst.to_ip(), key.dport.get()).to_string(),
                    backend: backend.to_string(),
                    protocol: if key.proto == Proto::TCP { "tcp" } else { "udp" }.into(),
                    state: state(word).into(),
                    age_seconds: clock.seconds(age(now, flow.created)),
                    idle_seconds: clock.seconds(quiet.into()),
                    packets_in: flow.packets(),
                    bytes_in: flow.bytes,
                    packets_out: reply.packets(),
                    bytes_out: reply.bytes,
                });
            }
        },
        || {},
    );
}
