//! Services as they are, which the caller fills in. One of Flowpin's may have several frontends: each of its addresses
//! with each of its ports, or ranges, is a virtual service to ipvsadm, and all have the same servers.

use std::{net::IpAddr, ops::Sub};

use flowpin_import::ipvs::{Algorithm, Forward};

use crate::{Affinity, Place, Protocol, change::socket};

/// All services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In any order.
    pub services: Vec<Service>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Who declares it, if it isn't the command line; a name, as `file`.
    pub elsewhere: Option<String>,
    /// Where it is.
    pub frontends: Vec<Frontend>,
    /// How a server is chosen.
    pub algorithm: Algorithm,
    /// Do clients stay with theirs?
    pub affinity: Option<Affinity>,
    /// What of it ipvsadm has no words for, a few words each.
    pub unsaid: Vec<String>,
    /// Who serves.
    pub servers: Vec<Server>,
}

/// An address with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Of which protocol.
    pub protocol: Protocol,
    /// Its address.
    pub address: IpAddr,
    /// The first port, from 1.
    pub first: u16,
    /// The last, included.
    pub last: u16,
    /// Where the first leads, the others to those that follow; `None`: each to its own.
    pub to: Option<u16>,
    /// How packets go.
    pub forward: Forward,
}

/// Who serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// As Flowpin names it.
    pub name: String,
    /// Who declares it, if it isn't the command line; a name, as `file`.
    pub elsewhere: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// Its port; `None`: the one that the client used, or where that leads.
    pub port: Option<u16>,
    /// Its share, as declared.
    pub weight: u16,
    /// Does it get no new connections, whatever its weight, because an operator drains it?
    pub draining: bool,
    /// Or because it fails its checks?
    pub unhealthy: bool,
    /// Most connections; `None`: no limit.
    pub limit: Option<u32>,
    /// Connections that count now.
    pub active: u64,
    /// Clients that are bound to it and have a connection.
    pub clients: u64,
    /// What there has been.
    pub counts: Counts,
}

/// Counters, since ever or of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections.
    pub connections: u64,
    /// Client to server.
    pub packets_in: u64,
    /// Server to client.
    pub packets_out: u64,
    /// Client to server.
    pub bytes_in: u64,
    /// Server to client.
    pub bytes_out: u64,
}

impl Server {
    /// As it is now: one that drains, or fails its checks, gets nothing new.
    pub const fn weight_in_force(&self) -> u16 {
        if self.draining || self.unhealthy { 0 } else { self.weight }
    }

    /// As it is to be again. A drain is an operator's word, health isn't.
    pub const fn weight_kept(&self) -> u16 {
        if self.draining { 0 } else { self.weight }
    }
}

impl Counts {
    fn each(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            connections: f(self.connections, other.connections),
            packets_in: f(self.packets_in, other.packets_in),
            packets_out: f(self.packets_out, other.packets_out),
            bytes_in: f(self.bytes_in, other.bytes_in),
            bytes_out: f(self.bytes_out, other.bytes_out),
        }
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }
}

/// What has been added since. A counter that is behind began anew, and counts from 0.
impl Sub for Counts {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        self.each(before, |now, before| now.checked_sub(before).unwrap_or(now))
    }
}

impl Frontend {
    /// Is it where a command says?
    pub fn is_at(&self, place: &Place) -> bool {
        (self.protocol, self.address, (self.first, self.last))
            == (place.protocol, place.address, place.ports())
    }

    /// Does it have a port of it?
    pub fn overlaps(&self, place: &Place) -> bool {
        let (first, last) = place.ports();
        (self.protocol, self.address) == (place.protocol, place.address)
            && self.first <= last
            && first <= self.last
    }

    /// Is it one port, or every one? Other ranges ipvsadm doesn't have.
    pub fn place(&self) -> Option<Place> {
        let port = match (self.first, self.last) {
            (1, u16::MAX) => 0,
            (first, last) if first == last => first,
            _ => return None,
        };
        Some(Place { protocol: self.protocol, address: self.address, port })
    }

    /// The port of a server here; `None`: it has each of the frontend's, or of those that they lead to.
    pub fn port_of(&self, server: &Server) -> Option<u16> {
        server.port.or((self.first == self.last).then(|| self.to.unwrap_or(self.first)))
    }

    /// Its port, 0 for every one, or a range as `8001-8003`.
    fn ports(&self) -> String {
        range(self.first, self.last)
    }

    /// Address and port, as they are listed.
    pub fn shown(&self) -> String {
        socket(self.address, self.ports())
    }

    /// A server's, likewise.
    pub fn shown_server(&self, server: &Server) -> String {
        let port = self.port_of(server).map_or_else(
            || match self.to {
                Some(to) => range(to, to.saturating_add(self.last - self.first)),
                None => self.ports(),
            },
            |port| port.to_string(),
        );
        socket(server.address, port)
    }

    /// Servers that its connections go to: those of its IP version.
    pub fn servers<'a>(&self, service: &'a Service) -> impl Iterator<Item = &'a Server> + use<'a> {
        let six = self.address.is_ipv6();
        service.servers.iter().filter(move |server| server.address.is_ipv6() == six)
    }
}

fn range(first: u16, last: u16) -> String {
    match (first, last) {
        (1, u16::MAX) => "0".into(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

impl Table {
    /// What is at a place: the service, and which of its frontends.
    pub fn find(&self, place: &Place) -> Option<(&Service, &Frontend)> {
        let found = |service| frontend_at(service, place).map(|frontend| (service, frontend));
        self.services.iter().find_map(found)
    }

    /// Virtual services, in order of protocol, address and port.
    pub fn sorted(&self) -> Vec<(&Service, &Frontend)> {
        let mut all = self.listed();
        all.sort_by_key(|(_, f)| (f.protocol, f.address, f.first));
        all
    }

    /// Virtual services in the caller's order.
    pub fn listed(&self) -> Vec<(&Service, &Frontend)> {
        self.services.iter().flat_map(|service| service.frontends.iter().map(move |f| (service, f))).collect()
    }

    /// What counters have gained since an earlier reading, a second; servers that are new have theirs from 0.
    pub fn rates(mut self, earlier: &Self, seconds: f64) -> Self {
        for service in &mut self.services {
            let before = earlier.services.iter().find(|other| other.name == service.name);
            for server in &mut service.servers {
                let old = before.and_then(|old| old.servers.iter().find(|other| other.name == server.name));
                let gained = server.counts - old.map(|old| old.counts).unwrap_or_default();
                server.counts = gained.each(gained, |n, _| a_second(n, seconds));
            }
        }
        self
    }
}

/// Rounded to a whole number. No time at all counts as a second.
fn a_second(count: u64, seconds: f64) -> u64 {
    let seconds = if seconds > 0.0 { seconds } else { 1.0 };
    (count as f64 / seconds).round() as u64
}

/// The frontend of a service that is at a place.
pub fn frontend_at<'a>(service: &'a Service, place: &Place) -> Option<&'a Frontend> {
    service.frontends.iter().find(|frontend| frontend.is_at(place))
}
