//! A frontend of a service: where clients knock, who may, and how their packets go.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use lb_common::abi::Proto;

use super::{Forwarding, ModelError, OwnAddresses, PortRange, Protocol, clients};

/// Which backends flows from elsewhere may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scope {
    /// All of the service's.
    #[default]
    All,
    /// Those of this node; flows from its pods and processes to all.
    Local,
    /// Those of this node, wherever a flow comes from.
    LocalOnly,
}

impl Scope {
    /// As in config, CLI and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Local => "local",
            Self::LocalOnly => "local-only",
        }
    }
    /// From its name.
    ///
    /// # Errors
    /// There are only three.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let known = "all, local or local-only";
        [Self::All, Self::Local, Self::LocalOnly]
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| ModelError::NotKnown { what: "scope", text: text.into(), known })
    }

    /// Does anybody get those of this node only?
    pub const fn is_local(self) -> bool {
        !matches!(self, Self::All)
    }

    /// As the datapath knows it.
    pub const fn code(self) -> u8 {
        match self {
            Self::All => 0,
            Self::Local => 1,
            Self::LocalOnly => 2,
        }
    }
}

/// The IP version of an address, for messages.
pub const fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontend {
    /// Where clients connect to, in the order declared. Unspecified (`0.0.0.0`, `::`): all of the node's addresses.
    pub addresses: Vec<IpAddr>,
    /// Addresses of the node's that are left out of all.
    pub except: BTreeSet<IpAddr>,
    /// Ports, in the order declared, not overlapping.
    pub ports: Vec<PortRange>,
    /// Which backends flows from elsewhere may go to.
    pub scope: Scope,
    /// Whose flows are taken. None: everybody's.
    pub sources: BTreeSet<IpNet>,
    /// Whose flows aren't taken, also if they are of `sources`.
    pub denied: BTreeSet<IpNet>,
    /// How packets reach backends.
    pub forward: Forwarding,
}

impl Frontend {
    /// Is it at all addresses of the node's, of either family?
    pub fn is_anywhere(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_unspecified)
    }

    /// Is it at all of the node's own addresses of a family?
    pub fn is_anywhere_of(&self, v6: bool) -> bool {
        self.addresses.iter().any(|address| address.is_unspecified() && address.is_ipv6() == v6)
    }

    /// The addresses that it names: not all of the node's.
    pub fn named(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(|address| !address.is_unspecified())
    }

    /// Does it have addresses of a family?
    pub fn has_family(&self, v6: bool) -> bool {
        self.addresses.iter().any(|address| address.is_ipv6() == v6)
    }

    /// Where it is as one of all of the node's addresses, but for those that are left out.
    pub fn anywhere<'a>(&'a self, own: &'a OwnAddresses) -> impl Iterator<Item = IpAddr> + 'a {
        own.iter().copied().filter(|address| self.is_anywhere_at(*address, own))
    }

    /// Is it there as one of all of the node's addresses?
    pub fn is_anywhere_at(&self, address: IpAddr, own: &OwnAddresses) -> bool {
        own.contains(&address) && !self.except.contains(&address) && self.is_anywhere_of(address.is_ipv6())
    }

    /// Its loopback addresses: only the node's own processes get there, at their sockets.
    pub fn loopback(&self) -> impl Iterator<Item = IpAddr> {
        self.named().filter(IpAddr::is_loopback)
    }

    /// Is it at an address of the node's?
    pub fn is_on_node(&self, own: &OwnAddresses) -> bool {
        self.is_anywhere() || self.addresses.iter().any(|address| own.contains(address))
    }

    /// Is it there? Another one may go first: who names an address goes before those that are at all of them.
    pub fn is_at(&self, address: IpAddr, own: &OwnAddresses) -> bool {
        self.addresses.contains(&address) || self.is_anywhere_at(address, own)
    }

    /// The range that a port is in.
    pub fn range(&self, proto: Proto, port: u16) -> Option<PortRange> {
        self.ports.iter().copied().find(|range| range.protocol().proto() == proto && range.contains(port))
    }

    /// How many ports it has at each address.
    pub fn port_count(&self) -> usize {
        self.ports.iter().map(|range| range.count() as usize).sum()
    }

    /// May a client with this address open flows?
    pub fn admits(&self, client: IpAddr) -> bool {
        !self.denies(client) && (self.sources.is_empty() || within(&self.sources, client))
    }

    /// Is a client with this address denied by name?
    pub fn denies(&self, client: IpAddr) -> bool {
        within(&self.denied, client)
    }

    /// May everybody open flows?
    pub fn is_open(&self) -> bool {
        self.sources.is_empty() && self.denied.is_empty()
    }

    /// The prefixes whose clients may, of those that aren't everybody's; they are `sources` where nobody is denied.
    pub fn admitted(&self) -> Cow<'_, BTreeSet<IpNet>> {
        match self.denied.is_empty() {
            true => Cow::Borrowed(&self.sources),
            false => {
                let families = [false, true].map(|v6| self.has_family(v6));
                Cow::Owned(clients::admitted(&self.sources, &self.denied, families))
            }
        }
    }

    /// The port to which its first port of a protocol leads, where a backend of that family names none.
    pub(super) fn target(&self, protocol: Protocol, v6: bool) -> Option<u16> {
        if !self.has_family(v6) {
            return None;
        }
        let range = self.ports.iter().find(|range| range.protocol() == protocol)?;
        Some(range.target(range.first()).unwrap_or(range.first()))
    }

    /// What can be wrong with one by itself.
    ///
    /// # Errors
    /// The first thing that is.
    pub(super) fn validate(&self, name: &str) -> Result<(), ModelError> {
        let service = || name.to_string();
        let Some(first) = self.addresses.first() else {
            return Err(ModelError::NoAddress { service: service() });
        };
        if let Some(vip) = self.named().find(|vip| !(super::service::usable(*vip) || vip.is_loopback())) {
            return Err(ModelError::BadVip { service: service(), vip });
        }
        if self.ports.is_empty() {
            return Err(ModelError::NoPorts { service: service() });
        }
        if !self.except.is_empty() && !self.is_anywhere() {
            return Err(ModelError::ExceptOfOne { service: service(), vip: *first });
        }
        if let Some(direct) = self.forward.direct() {
            let forward = direct.name();
            if self.is_anywhere() {
                return Err(ModelError::DirectAnywhere { service: service(), forward });
            }
            if let Some(port) = self.ports.iter().find(|range| range.is_moved()) {
                return Err(ModelError::DirectTarget { service: service(), port: *port, forward });
            }
        }
        if let Some(address) = self.except.iter().find(|address| !self.is_anywhere_of(address.is_ipv6())) {
            return Err(self.other_family(name, address.to_string(), address.is_ipv6()));
        }
        self.validate_clients(name)
    }

    /// What can be wrong with who may connect.
    fn validate_clients(&self, name: &str) -> Result<(), ModelError> {
        if self.is_open() {
            return Ok(());
        }
        let service = || name.to_string();
        if let Some(vip) = self.loopback().next() {
            return Err(ModelError::SourcesAtLoopback { service: service(), vip });
        }
        let v6 = |prefix: &IpNet| matches!(prefix, IpNet::V6(_));
        let mut prefixes = self.sources.iter().chain(&self.denied);
        if let Some(prefix) = prefixes.find(|prefix| !self.has_family(v6(prefix))) {
            return Err(self.other_family(name, prefix.to_string(), v6(prefix)));
        }
        let shut_out = |admitted: &BTreeSet<IpNet>| {
            let none = |address: &&IpAddr| !admitted.iter().any(|prefix| v6(prefix) == address.is_ipv6());
            self.addresses.iter().find(none)
        };
        if !self.sources.is_empty()
            && let Some(address) = shut_out(&self.sources)
        {
            let (service, address, family) = (service(), *address, family(address.is_ipv6()));
            let all = if address.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
            return Err(ModelError::NobodyAdmitted { service, address, family, all });
        }
        if let Some(address) = shut_out(&self.admitted()) {
            let family = family(address.is_ipv6());
            return Err(ModelError::EverybodyDenied { service: service(), address: *address, family });
        }
        Ok(())
    }

    fn other_family(&self, name: &str, text: String, v6: bool) -> ModelError {
        ModelError::OtherFamilyThanVip {
            service: name.into(),
            text,
            vip: self.addresses[0],
            family: family(!v6),
        }
    }
}

fn within(prefixes: &BTreeSet<IpNet>, client: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&client))
}
