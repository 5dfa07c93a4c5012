//! Where a service is reached, and by whom.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{ModelError, ServiceSpec};

/// The node's own addresses, of either family: what services whose VIP is [any](ServiceSpec::is_anywhere) of them are reached at.
pub type OwnAddresses = BTreeSet<IpAddr>;

/// Addresses, as written.
///
/// # Errors
/// One isn't.
pub fn parse_addresses(texts: &[String]) -> Result<BTreeSet<IpAddr>, ModelError> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|_| ModelError::NotAnAddress { text: text.clone() }))
        .collect()
}

/// Prefixes, as written; an address is a prefix of its own.
///
/// # Errors
/// One isn't, or has bits beyond its length, which is likely a slip.
pub fn parse_prefixes(texts: &[String]) -> Result<BTreeSet<IpNet>, ModelError> {
    let parse = |text: &String| {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(IpNet::from(address));
        }
        let net: IpNet = text.parse().map_err(|_| ModelError::NotAPrefix { text: text.clone() })?;
        if net.addr() == net.network() {
            return Ok(net);
        }
        Err(ModelError::HostBits { text: text.clone(), meant: net.trunc() })
    };
    texts.iter().map(parse).collect()
}

impl ServiceSpec {
    /// Is it reached at all addresses of the node's?
    pub const fn is_anywhere(&self) -> bool {
        self.vip.is_unspecified()
    }

    /// Is it reached at an address of the node's?
    pub fn is_on_node(&self, own: &OwnAddresses) -> bool {
        self.is_anywhere() || own.contains(&self.vip)
    }

    /// The VIP's IP version, for messages.
    pub const fn family(&self) -> &'static str {
        if self.vip.is_ipv6() { "IPv6" } else { "IPv4" }
    }

    /// Is it reached there? `own`: the node's addresses.
    pub fn is_at(&self, address: IpAddr, own: &OwnAddresses) -> bool {
        if !self.is_anywhere() {
            return self.vip == address;
        }
        address.is_ipv6() == self.vip.is_ipv6() && own.contains(&address) && !self.except.contains(&address)
    }

    /// Where it is reached.
    pub fn addresses<'a>(&'a self, own: &'a OwnAddresses) -> Box<dyn Iterator<Item = IpAddr> + 'a> {
        if self.is_anywhere() {
            Box::new(own.iter().copied().filter(|address| self.is_at(*address, own)))
        } else {
            Box::new(std::iter::once(self.vip))
        }
    }

    /// May a client with this address open flows?
    pub fn admits(&self, client: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|prefix| prefix.contains(&client))
    }

    /// What can be wrong with where it is reached and by whom.
    ///
    /// # Errors
    /// The first thing that is.
    pub(super) fn validate_reach(&self) -> Result<(), ModelError> {
        let service = || self.name.clone();
        let of_family = |other: IpAddr| other.is_ipv6() == self.vip.is_ipv6();
        let other_family = |text: String| ModelError::OtherFamilyThanVip {
            service: service(),
            text,
            vip: self.vip,
            family: self.family(),
        };
        if !self.except.is_empty() && !self.is_anywhere() {
            return Err(ModelError::ExceptOfOne { service: service(), vip: self.vip });
        }
        if self.is_anywhere() && self.forward.is_direct() {
            return Err(ModelError::DirectAnywhere { service: service(), forward: self.forward.name() });
        }
        if let Some(address) = self.except.iter().find(|address| !of_family(**address)) {
            return Err(other_family(address.to_string()));
        }
        if let Some(prefix) = self.sources.iter().find(|prefix| !of_family(prefix.addr())) {
            return Err(other_family(prefix.to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn prefixes() {
        let good = parse_prefixes(&texts(&["10.0.0.0/8", "192.0.2.7", "fd00::/64", "0.0.0.0/0"])).unwrap();
        let good: Vec<String> = good.iter().map(ToString::to_string).collect();
        assert_eq!(good, ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32", "fd00::/64"]);
        for bad in ["", "10.0.0.0/33", "here", "10.0.0/8", "fd00::/129", "10.0.0.0/-1"] {
            let error = parse_prefixes(&texts(&[bad])).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{bad}\"")), "{error}");
        }
        let slip = parse_prefixes(&texts(&["10.1.2.3/8"])).unwrap_err().to_string();
        assert!(slip.contains("\"10.1.2.3/8\"") && slip.contains("10.0.0.0/8"), "{slip}");
    }
}
