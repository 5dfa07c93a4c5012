//! Durations, addresses and ports, as the formats write them.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use crate::model::{Host, Ports, Protocol, Statuses};

/// A number.
///
/// # Errors
/// It isn't one; the sentence is a remedy.
pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that can be here: write a whole one."))
}

/// Digits and what follows them.
fn leading(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn not_a_time(text: &str) -> String {
    format!("{text:?} is not a time: write one like 30s.")
}

/// So many microseconds of a unit.
fn micros(count: &str, unit: u64, text: &str) -> Result<Duration, String> {
    let count: Option<u64> = count.parse().ok();
    count.and_then(|n| n.checked_mul(unit)).map(Duration::from_micros).ok_or_else(|| not_a_time(text))
}

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400 * SECOND;

/// HAProxy's: a whole number of a unit, milliseconds if it says none.
///
/// # Errors
/// It isn't.
pub fn haproxy_time(text: &str) -> Result<Duration, String> {
    let (count, unit) = leading(text);
    let unit = match unit {
        "us" => 1,
        "ms" | "" => 1_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        "d" => DAY,
        _ => return Err(not_a_time(text)),
    };
    micros(count, unit, text)
}

/// nginx's: whole numbers of units, added up (`1h30m`); seconds if there is no unit. A month has 30 days, a year
/// 365.
///
/// # Errors
/// It isn't.
pub fn nginx_time(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return Err(not_a_time(text));
    }
    while !rest.is_empty() {
        let (count, more) = leading(rest);
        let unit = more.split(|c: char| c.is_ascii_digit() || c == ' ').next().unwrap_or_default();
        let size = match unit {
            "ms" => 1_000,
            "s" | "" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            "d" => DAY,
            "w" => 7 * DAY,
            "M" => 30 * DAY,
            "y" => 365 * DAY,
            _ => return Err(not_a_time(text)),
        };
        sum = sum.checked_add(micros(count, size, text)?).ok_or_else(|| not_a_time(text))?;
        rest = more[unit.len()..].trim_start();
    }
    Ok(sum)
}

/// keepalived's and ipvsadm's: seconds, with up to six decimals.
///
/// # Errors
/// It isn't.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 6 || !decimals.chars().all(|c| c.is_ascii_digit()) {
        return Err(not_a_time(text));
    }
    let decimals = format!("{decimals:0<6}");
    Ok(micros(whole, SECOND, text)? + micros(&decimals, 1, text)?)
}

/// As Flowpin's file has it, exactly.
pub fn show_time(time: Duration) -> String {
    let micros = time.as_micros();
    let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms"), (1, "us")];
    let fits = units.into_iter().find(|(unit, _)| micros.is_multiple_of(*unit));
    match fits {
        Some((unit, name)) if micros > 0 => format!("{}{name}", micros / unit),
        _ => "0s".into(),
    }
}

/// A port from 1 on.
///
/// # Errors
/// It isn't one.
pub fn port(text: &str) -> Result<u16, String> {
    let port: Option<u16> = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{text:?} is not a port: write a number from 1 to 65535."))
}

/// `80`, `80-90`.
///
/// # Errors
/// It is neither.
pub fn ports(text: &str, protocol: Protocol) -> Result<Ports, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("the ports {text} run backwards: write {last}-{first}."));
    }
    Ok(Ports { first, last, protocol })
}

/// `200`, `200-399`, and several of these with commas or spaces between them.
///
/// # Errors
/// It is something else, or a status isn't from 100 to 599.
pub fn statuses(text: &str) -> Result<Statuses, String> {
    let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (status(first)?, status(last)?);
        (first <= last).then_some(first..=last)
    };
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    let ranges: Option<Statuses> = parts.map(range).collect();
    ranges.filter(|ranges| !ranges.is_empty()).ok_or_else(|| {
        format!(
            "{text:?} are no statuses from 100 to 599: those are expected that are good where a file says \
             nothing. Write health.expect like \"200-399\" or \"200,404\"."
        )
    })
}

/// The statuses of which this is true.
pub fn statuses_where(is_good: impl Fn(u16) -> bool) -> Statuses {
    let mut ranges: Statuses = Vec::new();
    for status in (100..=599).filter(|status| is_good(*status)) {
        match ranges.last_mut().filter(|range| *range.end() + 1 == status) {
            Some(range) => *range = *range.start()..=status,
            None => ranges.push(status..=status),
        }
    }
    ranges
}

/// An address with or without brackets.
pub fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// A prefix: an address, with the length of its prefix or, of IPv4, with a netmask. Bits behind it are cleared.
pub fn net(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.into());
    }
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(net.trunc());
    }
    let (address, mask) = text.split_once('/')?;
    let (address, mask): (Ipv4Addr, Ipv4Addr) = (address.parse().ok()?, mask.parse().ok()?);
    Some(IpNet::V4(Ipv4Net::with_netmask(address, mask).ok()?.trunc()))
}

/// `HOST:PORT`, `[V6]:PORT`, or either without port. What follows the last colon is the port, but in a bare IPv6
/// address.
pub fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(end) = text.strip_prefix('[').and_then(|inner| inner.find(']')) {
        let (host, rest) = text.split_at(end + 2);
        return (host, rest.strip_prefix(':'));
    }
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

/// An address, or whatever else is written there.
pub fn host(text: &str) -> Host {
    address(text).map_or_else(|| Host::Name(text.into()), Host::Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_in_each_format_and_back() {
        let shown = |time: Result<Duration, String>| time.map_or_else(|_| "-".into(), show_time);
        for (text, want) in [
            ("1500", "1500ms"),
            ("2s", "2s"),
            ("12000", "12s"),
            ("250us", "250us"),
            ("1d", "24h"),
            ("90m", "90m"),
            ("", "-"),
            ("s", "-"),
            ("1.5s", "-"),
            ("1x", "-"),
            ("99999999999999999999d", "-"),
            ("0", "0s"),
        ] {
            assert_eq!(shown(haproxy_time(text)), want, "{text}");
        }
        for (text, want) in [
            ("30", "30s"),
            ("1h30m", "90m"),
            ("1h 30m", "90m"),
            ("500ms", "500ms"),
            ("1M", "720h"),
            ("1y", "8760h"),
            ("", "-"),
            ("m", "-"),
            ("10x", "-"),
            ("9999999999999999y", "-"),
        ] {
            assert_eq!(shown(nginx_time(text)), want, "{text}");
        }
        for (text, want) in
            [("6", "6s"), ("1.5", "1500ms"), ("0.000001", "1us"), ("1.0000001", "-"), ("-1", "-")]
        {
            assert_eq!(shown(seconds(text)), want, "{text}");
        }
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, host, port) in [
            ("10.0.0.1:80", "10.0.0.1", Some("80")),
            ("10.0.0.1", "10.0.0.1", None),
            ("[fd00::1]:80", "[fd00::1]", Some("80")),
            ("[fd00::1]", "[fd00::1]", None),
            ("fd00::1", "fd00::1", None),
            ("name:80-90", "name", Some("80-90")),
            (":80", "", Some("80")),
            ("", "", None),
            ("[", "[", None),
        ] {
            assert_eq!(split_port(text), (host, port), "{text}");
        }
        assert!(ports("90-80", Protocol::Tcp).unwrap_err().contains("80-90"));
        assert!(ports("0", Protocol::Tcp).is_err() && ports("65536", Protocol::Tcp).is_err());
        assert_eq!(ports("1-65535", Protocol::Udp).unwrap().count(), 65_535);
    }

    #[test]
    fn prefixes_have_lengths_or_netmasks() {
        let shown = |text| net(text).map_or("-".into(), |net| net.to_string());
        for (text, want) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.0.0.0/255.255.0.0", "10.0.0.0/16"),
            ("fd00::1/8", "fd00::/8"),
            ("10.0.0.0/255.0.255.0", "-"),
            ("10.0.0.0/33", "-"),
            ("all", "-"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn statuses_are_read_as_lists_and_gathered_to_ranges() {
        assert_eq!(statuses("200").unwrap(), [200..=200]);
        assert_eq!(statuses("200-299 404").unwrap(), [200..=299, 404..=404]);
        assert_eq!(statuses("200,301-302").unwrap(), [200..=200, 301..=302]);
        for odd in ["", "2xx", "99", "600", "399-200", "200-"] {
            assert!(statuses(odd).unwrap_err().contains("health.expect"), "{odd}");
        }
        assert_eq!(statuses_where(|status| status / 100 != 5 || status == 503), [100..=499, 503..=503]);
    }
}
