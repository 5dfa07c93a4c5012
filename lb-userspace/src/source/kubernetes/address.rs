//! Addresses and prefixes as old API objects may still have them (`ParseIPSloppy`, `ParseCIDRSloppy` of
//! k8s.io/utils/net): numbers with leading zeros are decimal, and IPv4 may be written as IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An address; one of IPv4 that is written as IPv6 is one of IPv4.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return parse_v4(text).map(IpAddr::V4);
    }
    parse_v6(text).map(|address| IpAddr::V6(address).to_canonical())
}

/// A prefix, without the bits beyond its length.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length = decimal(length, 128)?;
    if !address.contains(':') {
        return Some(IpNet::V4(Ipv4Net::new(parse_v4(address)?, length).ok()?.trunc()));
    }
    let address = parse_v6(address)?;
    match address.to_ipv4_mapped() {
        Some(mapped) => {
            let length = length.checked_sub(96)?;
            Some(IpNet::V4(Ipv4Net::new(mapped, length).ok()?.trunc()))
        }
        None => Some(IpNet::V6(Ipv6Net::new(address, length).ok()?.trunc())),
    }
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.');
    let mut octets = [0; 4];
    for octet in &mut octets {
        *octet = decimal(parts.next()?, 255)?;
    }
    parts.next().is_none().then(|| octets.into())
}

/// As the standard has it, but for leading zeros in an IPv4 address at its end.
fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    let Some((head, tail)) = text.rsplit_once(':').filter(|(_, tail)| tail.contains('.')) else {
        return text.parse().ok();
    };
    format!("{head}:{}", parse_v4(tail)?).parse().ok()
}

/// Digits only, of a number that is at most `most`.
fn decimal(text: &str, most: u32) -> Option<u8> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    let number: u32 = digits.then(|| text.parse().ok())??;
    if number > most { None } else { u8::try_from(number).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_addresses() {
        for (text, wanted) in [
            ("10.0.0.1", "10.0.0.1"),
            ("010.000.0.001", "10.0.0.1"),
            ("0192.168.00009.1", "192.168.9.1"),
            ("fd00::1", "fd00::1"),
            ("FD00:0:0::0001", "fd00::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::ffff:010.0.0.01", "10.0.0.1"),
            ("::ffff:a00:1", "10.0.0.1"),
            ("64:ff9b::10.0.0.01", "64:ff9b::a00:1"),
        ] {
            assert_eq!(parse_ip(text).map(|ip| ip.to_string()).as_deref(), Some(wanted), "{text}");
        }
        for bad in [
            "",
            "10.0.0",
            "10.0.0.1.2",
            "10.0.0.256",
            "0x10.0.0.1",
            "10.0.0.+1",
            " 10.0.0.1",
            "10.0.0.1 ",
            "10..0.1",
            "fe80::1%eth0",
            "fd00:::1",
            "localhost",
            "1.2.3.4:80",
            ":",
        ] {
            assert_eq!(parse_ip(bad), None, "{bad}");
        }
    }

    #[test]
    fn s8_prefixes() {
        for (text, wanted) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("010.1.2.3/08", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("10.0.0.1/32", "10.0.0.1/32"),
            ("fd00::1/64", "fd00::/64"),
            ("::/0", "::/0"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ] {
            assert_eq!(parse_cidr(text).map(|net| net.to_string()).as_deref(), Some(wanted), "{text}");
        }
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "fd00::/129",
            "10.0.0/8",
            "/8",
            "::ffff:10.0.0.0/95",
        ] {
            assert_eq!(parse_cidr(bad), None, "{bad}");
        }
    }
}
