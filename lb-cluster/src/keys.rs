//! Nodes, services and backends, as numbers that all nodes agree on.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

/// SipHash-2-4 (Aumasson, Bernstein, 2012) with a fixed key: it is stable and spreads well; nothing is to be secret.
/// Never changes: nodes of different versions must agree.
const KEY: (u64, u64) = (0x666c_6f77_7069_6e00, 1);

/// Hash of a few words or texts. Each is preceded by its length, so that no two lists look alike.
pub(crate) fn hash(kind: u8, parts: &[&[u8]]) -> u64 {
    let mut bytes = vec![kind];
    for part in parts {
        bytes.extend((part.len() as u32).to_le_bytes());
        bytes.extend(*part);
    }
    SipHasher24::new_with_keys(KEY.0, KEY.1).hash(&bytes)
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(#[serde(with = "postcard::fixint::le")] pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
    };
}

key! {
    /// A node, by its name.
    NodeId
}

key! {
    /// A service, by its namespace and name.
    ServiceKey
}

key! {
    /// A backend of a service, by its address and port: slots differ from node to node.
    BackendKey
}

impl NodeId {
    /// The node of this name: the one that its certificate says.
    pub fn of(name: &str) -> Self {
        Self(hash(b'n', &[name.as_bytes()]))
    }
}

impl ServiceKey {
    /// A service by name. `namespace`: empty for what isn't Kubernetes'.
    pub fn of(namespace: &str, name: &str) -> Self {
        Self(hash(b's', &[namespace.as_bytes(), name.as_bytes()]))
    }
}

impl BackendKey {
    /// A backend by where it is. `port`: `None` if it is the one that the client used. An IPv4 address mapped into
    /// IPv6 is the IPv4 address.
    pub fn of(address: IpAddr, port: Option<u16>) -> Self {
        let port = port.map(u16::to_be_bytes);
        let port: &[u8] = port.as_ref().map_or(&[], |port| port);
        match address.to_canonical() {
            IpAddr::V4(address) => Self(hash(b'b', &[&address.octets(), port])),
            IpAddr::V6(address) => Self(hash(b'b', &[&address.octets(), port])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of an independent implementation of SipHash-2-4, over the bytes as `hash` lays them out.
    #[test]
    fn keys_never_change() {
        assert_eq!(NodeId::of("node-1").to_string(), "5560afaf47c1a257");
        assert_eq!(ServiceKey::of("shop", "db").to_string(), "2a0d9c14db0d97af");
        assert_eq!(BackendKey::of([10, 0, 1, 11].into(), Some(5432)).to_string(), "c33c1ba143d01e18");
    }

    #[test]
    fn what_differs_has_another_key() {
        assert_ne!(ServiceKey::of("a", "bc"), ServiceKey::of("ab", "c"));
        assert_ne!(ServiceKey::of("", "a").0, NodeId::of("a").0);
        let mapped: IpAddr = "::ffff:10.0.1.11".parse().unwrap();
        let v4: IpAddr = "10.0.1.11".parse().unwrap();
        assert_eq!(BackendKey::of(mapped, Some(80)), BackendKey::of(v4, Some(80)));
        assert_ne!(BackendKey::of(v4, None), BackendKey::of(v4, Some(0)));
    }
}
