//! Connections that match a filter: what of it is wrong, and the walk that finds them.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    abi::{Addr, Flow},
    expiry::{age, idle},
    flow_state::{Phase, Word},
};

use super::Directory;
use crate::{
    api::types::ConnectionFilter,
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
    /// Of a filter that was [checked](check).
    pub fn new(raw: &'a ConnectionFilter) -> Self {
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
const STATES: [&str; 6] = ["syn-sent", "established", "closing", "closed", "active", "unconfirmed"];

/// What a flow's state is called.
pub fn state(word: Word) -> &'static str {
    match word.phase() {
        Phase::SYN_SENT => STATES[0],
        Phase::ESTABLISHED => STATES[1],
        Phase::CLOSING => STATES[2],
        Phase::UDP => STATES[4],
        Phase::PROVISIONAL => STATES[5],
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
    /// Whose each backend is.
    pub directory: &'a Directory,
}

/// A connection that matches. What takes another look into the table is a method.
pub struct Match<'a, A: Addr> {
    /// Where it was found.
    pub table: &'a FlowTable<A>,
    /// Kernel time.
    pub clock: Clock,
    /// Its forward entry.
    pub flow: &'a Flow<A>,
    /// Name of its service; empty: nobody's.
    pub service: &'a str,
    /// Its client.
    pub client: SocketAddr,
    /// Its backend.
    pub backend: SocketAddr,
}

impl<A: Addr> Match<'_, A> {
    /// Its state.
    pub const fn word(&self) -> Word {
        Word(self.flow.state)
    }

    /// The reply entry; all zero if there is none.
    pub fn reply(&self) -> Flow<A> {
        self.table.reply(self.flow).unwrap_or_default()
    }

    /// Ticks since the last packet of either direction.
    pub fn idle(&self, reply: &Flow<A>) -> u32 {
        let now = self.clock.now() as u32;
        let quiet = idle(now, self.flow.last_seen);
        if reply.packets() > 0 { quiet.min(idle(now, reply.last_seen)) } else { quiet }
    }

    /// Ticks since it was pinned.
    pub fn age(&self) -> u64 {
        age(self.clock.now(), self.flow.created)
    }
}

/// Hands every connection that matches to `visit`.
pub fn each<A: Addr>(
    place: Place<'_>,
    table: &FlowTable<A>,
    filter: &Filter<'_>,
    mut visit: impl FnMut(Match<'_, A>),
) {
    table.walk(
        |flows| {
            for flow in flows.iter().filter(|f| f.direction.is_forward()) {
                let Some(beyond) = table.beyond(flow) else { continue };
                let client = SocketAddr::new(flow.src.to_ip(), flow.sport.get());
                let backend = SocketAddr::new(beyond.dst.to_ip(), beyond.dport.get());
                let service = place.directory.name(flow.backend);
                if filter.takes(client, backend, service, state(Word(flow.state))) {
                    visit(Match { table, clock: place.clock, flow, service, client, backend });
                }
            }
        },
        || {},
    );
}
