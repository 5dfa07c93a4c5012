//! `virtual_server`: where it is, how it balances, and its real servers.

use std::net::IpAddr;

use super::{
    Reader, checks,
    real::real_server,
    remedies::{VIRTUAL, remedy},
};
use crate::{
    account::{Account, Id, Note, Said},
    directive::Directive,
    ipvsadm::apply,
    model::{Affinity, Backend, Forward, Frontend, Host, Ports, Protocol, Service},
    values::{address, number, port, seconds},
};

/// Most addresses of a range.
const MOST: u128 = 1_024;

/// Where a virtual server is: what it says itself, or a line of its group.
#[derive(Clone, Copy)]
pub enum At {
    /// Port 0 is every port.
    Address(IpAddr, u16),
    /// By a mark of the firewall's.
    Mark,
}

/// `ADDRESS [PORT]`, `FIRST-LAST [PORT]`, `ADDRESS/BITS [PORT]`, `fwmark N`.
///
/// # Errors
/// It is none of them.
pub fn places(words: &[String]) -> Result<Vec<At>, String> {
    let text = words.first().map_or("", String::as_str);
    if text == "fwmark" {
        return Ok(vec![At::Mark]);
    }
    let port = match words.get(1).map(String::as_str) {
        None | Some("0") => 0,
        Some(text) => port(text)?,
    };
    let addresses = range(text).ok_or_else(|| {
        format!("{text:?} is neither an address nor a range of at most {MOST}: write vip and vips by hand.")
    })?;
    Ok(addresses.into_iter().map(|address| At::Address(address, port)).collect())
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

fn from_bits(like: IpAddr, bits: u128) -> Option<IpAddr> {
    Some(match like {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(bits).ok()?.into()),
        IpAddr::V6(_) => IpAddr::V6(bits.into()),
    })
}

/// The greatest quorum.
const MOST_QUORUM: u32 = 1_000_000_000;

/// The addresses of a range.
fn range(text: &str) -> Option<Vec<IpAddr>> {
    let (first, last) = if let Ok(net) = text.parse::<ipnet::IpNet>() {
        (net.network(), net.broadcast())
    } else if let Some((first, last)) = text.split_once('-') {
        let first = address(first)?;
        let last = match address(last) {
            Some(last) => last,
            // Only the last part of the address.
            None if first.is_ipv4() => {
                from_bits(first, (bits(first) & !0xff) | u128::from(last.parse::<u8>().ok()?))?
            }
            None => {
                from_bits(first, (bits(first) & !0xffff) | u128::from(u16::from_str_radix(last, 16).ok()?))?
            }
        };
        (first, last)
    } else {
        let one = address(text)?;
        (one, one)
    };
    let (from, to) = (bits(first), bits(last));
    let fits = first.is_ipv4() == last.is_ipv4() && from <= to && to - from < MOST;
    fits.then(|| (from..=to).filter_map(|bits| from_bits(first, bits)).collect())
}

/// Settings that real servers and checkers take over unless they have their own.
#[derive(Clone, Default)]
pub struct Inherited {
    pub check: checks::Times,
    pub host: Option<Said<String>>,
    pub forward: Option<Said<Forward>>,
    pub weight: Option<Said<u64>>,
    /// For when all others are down, and how packets get there.
    sorry: Option<Backend>,
    sorry_forward: Option<Result<Said<Forward>, Note>>,
}

impl Reader {
    pub(super) fn virtual_server(&mut self, directive: &Directive) {
        let at = directive.enter(&mut self.draft.account);
        let args = directive.args();
        let mut service = Service::new(name(args), at);
        let mut protocol = Protocol::Tcp;
        for inner in directive.inside().iter().filter(|inner| inner.name() == "protocol") {
            let at = inner.enter(&mut self.draft.account);
            match inner.arg().to_ascii_uppercase().as_str() {
                "TCP" => protocol = Protocol::Tcp,
                "UDP" => protocol = Protocol::Udp,
                "SCTP" => protocol = Protocol::Sctp,
                other => {
                    service.note(at, format!("{other:?} is no protocol that can be balanced: TCP or UDP."))
                }
            }
            self.draft.account.like(at, service.at);
        }
        self.place(&mut service, args, protocol);
        let account = &mut self.draft.account;
        let mut inherited = Inherited::default();
        let (mut scheduler, mut by_port) = (None, false);
        let (real, own): (Vec<&Directive>, Vec<&Directive>) = directive
            .inside()
            .iter()
            .filter(|inner| inner.name() != "protocol")
            .partition(|inner| inner.name() == "real_server");
        for inner in own {
            match inner.name() {
                "sh-port" | "mh-port" => by_port = true,
                "lvs_sched" | "lb_algo" => {}
                _ => {
                    setting(account, inner, &mut service, &mut inherited);
                    continue;
                }
            }
            let at = inner.enter(account);
            match inner.name() {
                "sh-port" | "mh-port" => {
                    service.note(at, "It is what consistent-hash does without affinity.")
                }
                _ => scheduler = Some((inner.arg().to_string(), at)),
            }
        }
        if let Some((name, at)) = scheduler {
            apply(&mut service, &name, at, by_port);
        }
        for inner in real {
            real_server(account, inner, &mut service, &inherited);
        }
        if let Some(said) = service.quorum.take_if(|said| said.value == 1 || inherited.sorry.is_none()) {
            let remedy = match said.value {
                1 => "One healthy backend is enough here, too.".to_string(),
                needed => format!(
                    "Without a sorry_server keepalived only runs scripts for it. Write quorum = {needed} if new clients are to \
                     be refused while less is healthy."
                ),
            };
            service.note(said.at, remedy);
        }
        if let Some(mut backend) = inherited.sorry {
            // The last, so that real servers say for all how packets get to them.
            match inherited.sorry_forward {
                None => backend.forward = inherited.forward,
                Some(Ok(said)) => backend.forward = Some(said),
                Some(Err(Note { at, remedy })) => backend.turn_off(at, remedy),
            }
            service.backends.push(backend);
        }
        // Where neither says so, keepalived translates addresses.
        service.forward.get_or_insert(Forward::Nat);
        self.draft.services.push(service);
    }

    /// Its frontends.
    fn place(&mut self, service: &mut Service, args: &[String], protocol: Protocol) {
        let places = match args.first().map(String::as_str) {
            Some("group") => {
                let name = args.get(1).map_or("", String::as_str);
                match self.groups.get_mut(name) {
                    Some(group) => {
                        group.used = true;
                        Ok(group.places.clone())
                    }
                    None => Err(format!(
                        "There is no virtual_server_group {name:?} in this file: write vip and ports."
                    )),
                }
            }
            _ => places(args).map(|places| places.into_iter().map(|place| (place, service.at)).collect()),
        };
        let places = match places {
            Ok(places) => places,
            Err(remedy) => return service.turn_off(service.at, remedy),
        };
        for (place, at) in places {
            match place {
                At::Address(address, 0) => {
                    let ports = Ports { first: 1, last: u16::MAX, protocol };
                    service.frontends.push(Frontend { address, ports, at, access: None });
                }
                At::Address(address, port) => {
                    service.frontends.push(Frontend {
                        address,
                        ports: Ports::one(port, protocol),
                        at,
                        access: None,
                    });
                }
                At::Mark => {
                    let remedy = "Which packets have this mark is said by rules of the firewall: write their \
                         addresses and ports as vip and ports";
                    match args.first().is_some_and(|arg| arg == "group") {
                        true => service.note(at, format!("{remedy}.")),
                        false => service.turn_off(at, format!("{remedy}, and uncomment it.")),
                    }
                }
            }
        }
    }
}

/// A name for a virtual server.
fn name(args: &[String]) -> String {
    match args {
        [kind, name, ..] if kind == "group" => name.clone(),
        _ => args.join("-").replace(':', "-"),
    }
}

/// A directive of a virtual server that isn't its place, its scheduler or a real server.
fn setting(account: &mut Account, directive: &Directive, service: &mut Service, inherited: &mut Inherited) {
    let at = directive.enter_whole(account);
    if inherited.check.take(directive, at, &mut service.notes) {
        return;
    }
    match directive.name() {
        "lvs_method" | "lb_kind" => match forward(directive.args()) {
            Ok(kind) => inherited.forward = Some(Said::new(kind, at)),
            Err(remedy) => service.turn_off(at, remedy),
        },
        "persistence_timeout" => persistence(directive.arg(), at, service),
        "persistence_granularity" => granularity(directive.arg(), at, service),
        "weight" => match number(directive.arg()) {
            Ok(weight) => inherited.weight = Some(Said::new(weight, at)),
            Err(remedy) => service.note(at, remedy),
        },
        "quorum" => match number::<u32>(directive.arg()) {
            Ok(weight) => service.quorum = Some(Said::new(weight.clamp(1, MOST_QUORUM), at)),
            Err(remedy) => service.note(at, remedy),
        },
        "virtualhost" => inherited.host = Some(Said::new(directive.arg().into(), at)),
        "sorry_server" => inherited.sorry = Some(sorry(directive, at)),
        "sorry_server_lvs_method" => match forward(directive.args()) {
            Ok(kind) => inherited.sorry_forward = Some(Ok(Said::new(kind, at))),
            Err(remedy) => inherited.sorry_forward = Some(Err(Note::new(at, remedy))),
        },
        "sh-fallback" | "mh-fallback" => {
            service.note(at, "It is so here: backends that can't take a client are passed over.")
        }
        other => service.note(at, remedy(&VIRTUAL, other)),
    }
}

/// `NAT`, `DR`, `TUN [type ...]`.
///
/// # Errors
/// Flowpin has no such tunnel.
pub fn forward(args: &[String]) -> Result<Forward, String> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["NAT"] => Ok(Forward::Nat),
        ["DR"] => Ok(Forward::DsrL2),
        ["TUN"] | ["TUN", "type", "ipip", ..] => Ok(Forward::DsrIpip),
        ["TUN", ..] => {
            Err("Flowpin tunnels by IPIP only: have the servers take that, and uncomment it.".into())
        }
        _ => Err("It is none of NAT, DR and TUN: write forward by hand, and uncomment it.".into()),
    }
}

fn persistence(text: &str, at: Id, service: &mut Service) {
    // Six minutes are keepalived's, where it says no number.
    let time = if text.is_empty() { seconds("360") } else { seconds(text) };
    let prefix = service.affinity.take().and_then(|affinity| affinity.ipv6_prefix);
    match time {
        Ok(time) => {
            let timeout = Some(Said::new(time, at));
            service.affinity = Some(Affinity { at, timeout, ipv6_prefix: prefix });
        }
        Err(remedy) => service.note(at, remedy),
    }
}

fn granularity(text: &str, at: Id, service: &mut Service) {
    let v6 =
        !service.frontends.is_empty() && service.frontends.iter().all(|frontend| frontend.address.is_ipv6());
    match number::<u8>(text) {
        Ok(bits) if v6 && (1..=128).contains(&bits) => {
            let affinity = service.affinity.get_or_insert(Affinity { at, timeout: None, ipv6_prefix: None });
            affinity.ipv6_prefix = Some(Said::new(bits, at));
        }
        _ => service.note(
            at,
            "Each IPv4 address is a client of its own in Flowpin; a mask joins IPv6 addresses only.",
        ),
    }
}

fn sorry(directive: &Directive, at: Id) -> Backend {
    let host = Host::Name(directive.arg().into());
    let host = address(directive.arg()).map_or(host, Host::Address);
    let mut backend = Backend::new(at, host, None);
    match directive.args().get(1).map(String::as_str) {
        None | Some("0") => {}
        Some(text) => match port(text) {
            Ok(port) => backend.port = Some(port),
            Err(remedy) => backend.turn_off(at, remedy),
        },
    }
    backend.name = Some("sorry_server".into());
    backend.backup = Some(at);
    backend
}
