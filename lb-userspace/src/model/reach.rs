//! Addresses and prefixes, as written.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::ModelError;

/// The node's own addresses, of either family: what [frontends at all of them](super::Frontend::is_anywhere)
/// are reached at.
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
