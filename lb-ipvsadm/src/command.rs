//! A command with its options, understood.

use std::{net::IpAddr, time::Duration};

use flowpin_import::ipvs;

use crate::{
    Change, Place, Protocol, Refusal, Settings, Target, Timeouts,
    settings::{self, Given},
    words::Words,
};

/// What to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Services and servers with weights and connections.
    Services,
    /// With counters, since ever (`--stats`).
    Stats,
    /// With counters, a second (`--rate`).
    Rate,
    /// With limits (`--thresholds`).
    Thresholds,
    /// With clients (`--persistent-conn`).
    Persistent,
    /// With tunnels (`--tun-info`).
    Tunnels,
    /// Connections (`-c`).
    Connections,
    /// When connections are over (`--timeout`).
    Timeouts,
}

/// `-L`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// What of them.
    pub what: What,
    /// Of this service only.
    pub only: Option<Place>,
    /// Are numbers to be whole, however long (`--exact`)?
    pub exact: bool,
    /// In order of protocol, address and port (not `--nosort`)?
    pub sort: bool,
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A change.
    Change(Change),
    /// `-L`
    List(List),
    /// `-S`
    Save,
    /// `-R`
    Restore,
    /// `-h`
    Help,
}

const MOST_CONNECTIONS: i64 = 4_294_967_294;
/// The longest that ipvsadm takes: 31 days.
const LONGEST: u64 = 31 * 86_400;

impl Command {
    /// Reads arguments, without the program's name. None at all are `-L`.
    ///
    /// # Errors
    /// They aren't understood, or Flowpin has nothing like what they ask for.
    pub fn parse(args: &[impl AsRef<str>]) -> Result<Self, Refusal> {
        let words = Words::read(args)?;
        Ok(match words.verb.name {
            "-A" => Self::Change(Change::AddService { at: place(&words)?, settings: service(&words)? }),
            "-E" => Self::Change(Change::EditService { at: place(&words)?, settings: service(&words)? }),
            "-D" => Self::Change(Change::RemoveService { at: place(&words)? }),
            "-a" | "-e" => Self::Change(server(&words)?),
            "-d" => Self::Change(Change::RemoveServer { at: place(&words)?, server: target(&words)? }),
            "-C" => Self::Change(Change::Clear),
            "--set" => Self::Change(Change::Timeouts(timeouts(&words.rest)?)),
            "-S" => Self::Save,
            "-R" => Self::Restore,
            "-h" => Self::Help,
            _ => Self::List(list(&words)?),
        })
    }
}

/// An address with or without port. IPv6 needs brackets where a port follows.
fn address(text: &str, what: &str) -> Result<(IpAddr, Option<u16>), Refusal> {
    let odd = || {
        Refusal::usage(format!(
            "{what} \"{text}\" can't be read; write numbers, as 10.0.0.1:80 or [2001:db8::80]:80"
        ))
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']').ok_or_else(odd)?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(odd)?) };
            let host: std::net::Ipv6Addr = host.parse().map_err(|_| odd())?;
            (IpAddr::V6(host), port)
        }
        None => match text.parse::<IpAddr>() {
            Ok(host) => (host, None),
            Err(_) => {
                let (host, port) = text.split_once(':').ok_or_else(odd)?;
                let host: std::net::Ipv4Addr = host.parse().map_err(|_| odd())?;
                (IpAddr::V4(host), Some(port))
            }
        },
    };
    let number = |port: &str| port.parse::<u16>().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit()));
    let port = port.map(|port| number(port).ok_or_else(odd)).transpose()?;
    Ok((host, port))
}

fn place(words: &Words) -> Result<Place, Refusal> {
    let Some((name, Some(text))) = words.of("service-address") else {
        return Err(Refusal::usage("no service is named; give -t ADDRESS:PORT or -u ADDRESS:PORT"));
    };
    let protocol = if name == "-u" { Protocol::Udp } else { Protocol::Tcp };
    let (address, port) = address(text, "service")?;
    Ok(Place { protocol, address, port: port.unwrap_or(0) })
}

fn target(words: &Words) -> Result<Target, Refusal> {
    let (address, port) = address(words.value("-r").unwrap_or_default(), "server")?;
    // 0 is what a service of every port has for its servers.
    Ok(Target { address, port: port.filter(|port| *port != 0) })
}

/// A whole number in a range.
fn number(words: &Words, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Refusal> {
    let Some(text) = words.value(name) else { return Ok(None) };
    match text.parse().ok().filter(|n| range.contains(n)) {
        Some(n) => Ok(Some(n)),
        None => Err(Refusal::usage(format!(
            "option {name}: \"{text}\" is not a number from {} to {}",
            range.start(),
            range.end()
        ))),
    }
}

/// What `-A` and `-E` say.
fn service(words: &Words) -> Result<Settings, Refusal> {
    let at = place(words)?;
    if at.port == 0 && !words.has("-p") {
        return Err(Refusal::usage(
            "port 0, or none, is every port, and goes with -p only; give the port, or add -p",
        ));
    }
    let persistence = match (words.has("-p"), words.value("-p")) {
        (false, _) => None,
        (true, None) => Some(ipvs::PERSISTENCE),
        (true, Some(text)) => match text.parse().ok().filter(|seconds| (1..=LONGEST).contains(seconds)) {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => {
                return Err(Refusal::usage(format!(
                    "option -p: \"{text}\" is not a number of seconds from 1 to {LONGEST}"
                )));
            }
        },
    };
    let ipv6_prefix = match words.value("-M") {
        None | Some("255.255.255.255") if at.address.is_ipv4() => None,
        Some(text) if at.address.is_ipv4() => {
            return Err(Refusal::failed(format!(
                "option -M {text}: each IPv4 address is a client of its own in Flowpin; leave it out"
            )));
        }
        _ => number(words, "-M", 1..=128)?.and_then(|bits| u8::try_from(bits).ok()),
    };
    settings::read(&Given {
        scheduler: words.value("-s"),
        flags: words.value("-b"),
        persistence,
        ipv6_prefix,
    })
}

/// `-a` and `-e`.
fn server(words: &Words) -> Result<Change, Refusal> {
    let (at, server) = (place(words)?, target(words)?);
    let forward = words.of("forwarding-method").and_then(|(name, _)| ipvs::forward(name));
    match words.value("--tun-type") {
        Some(_) if !words.has("-i") => {
            return Err(Refusal::usage("option --tun-type goes with -i only; add -i, or leave it out"));
        }
        None | Some("ipip") => {}
        Some(other) => {
            return Err(Refusal::failed(format!(
                "tunnel type \"{other}\": Flowpin tunnels by ipip only; have the server take that"
            )));
        }
    }
    let weight = number(words, "-w", 0..=i64::from(i32::MAX))?.unwrap_or(1);
    let weight = u16::try_from(weight).map_err(|_| {
        Refusal::failed(format!(
            "weight {weight} is more than Flowpin's greatest, {}; divide those of all servers of the service",
            u16::MAX
        ))
    })?;
    let limit = number(words, "-x", 0..=MOST_CONNECTIONS)?.unwrap_or(0);
    if let Some(low @ 1..) = number(words, "-y", 0..=MOST_CONNECTIONS)? {
        return Err(Refusal::failed(format!(
            "option -y {low}: a full server is used again as soon as one of its connections ends, there is no lower \
             threshold; leave it out"
        )));
    }
    let limit = u32::try_from(limit).ok().filter(|limit| *limit != 0);
    Ok(if words.verb.name == "-a" {
        let forward = forward.unwrap_or(ipvs::DEFAULT_FORWARD);
        Change::AddServer { at, server, forward, weight, limit }
    } else {
        Change::EditServer { at, server, forward, weight, limit }
    })
}

/// `--set TCP TCPFIN UDP`: 0 leaves one as it is.
fn timeouts(rest: &[String]) -> Result<Timeouts, Refusal> {
    let [tcp, tcp_fin, udp] = rest else {
        return Err(Refusal::usage(
            "--set needs three times in seconds: of TCP, of half-closed TCP, and of UDP; 0 leaves one as it is",
        ));
    };
    let seconds = |text: &String| match text.parse().ok().filter(|seconds| *seconds <= LONGEST) {
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => {
            Err(Refusal::usage(format!("--set: \"{text}\" is not a number of seconds from 0 to {LONGEST}")))
        }
    };
    let timeouts = Timeouts { tcp: seconds(tcp)?, tcp_fin: seconds(tcp_fin)?, udp: seconds(udp)? };
    if timeouts == Timeouts::default() {
        return Err(Refusal::usage("--set 0 0 0 changes nothing; give a time"));
    }
    Ok(timeouts)
}

fn list(words: &Words) -> Result<List, Refusal> {
    let what = match words.of("output") {
        Some(("-c", _)) => What::Connections,
        Some(("--timeout", _)) => What::Timeouts,
        Some(("--stats", _)) => What::Stats,
        Some(("--rate", _)) => What::Rate,
        Some(("--thresholds", _)) => What::Thresholds,
        Some(("--persistent-conn", _)) => What::Persistent,
        Some(("--tun-info", _)) => What::Tunnels,
        _ => What::Services,
    };
    let only = words.of("service-address").map(|_| place(words)).transpose()?;
    if only.is_some() && matches!(what, What::Connections | What::Timeouts) {
        let instead = "\"flowpin connection list --service\" and \"flowpin service show\" are for one";
        return Err(Refusal::usage(format!("-c and --timeout are of all services; {instead}")));
    }
    Ok(List { what, only, exact: words.has("--exact"), sort: !words.has("--nosort") })
}
