//! Virtual services and their real servers.

use std::net::IpAddr;

use super::Reader;
use crate::{
    account::{Id, Said},
    directive::{Directive, Params},
    ipvs::{self, Flag, Likeness},
    model::{Affinity, Algorithm, Backend, Frontend, Ports, Protocol, Service},
    values::{address, host, number, port, seconds, split_port},
};

/// What makes a virtual service: address, port and protocol, or a mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `-t`, `-u`, `--sctp-service`. Port 0 is every port.
    Address(IpAddr, u16, Protocol),
    /// `-f`.
    Mark(u32, bool),
}

impl Key {
    /// A name for the service.
    fn name(&self) -> String {
        match self {
            Self::Address(address, 0, protocol) => format!("{}-{address}", protocol.name()),
            Self::Address(address, port, protocol) => format!("{}-{address}-{port}", protocol.name()),
            Self::Mark(mark, false) => format!("mark-{mark}"),
            Self::Mark(mark, true) => format!("mark-{mark}-v6"),
        }
        .replace(':', "-")
    }
}

/// Ports that a virtual service takes.
const ALL: (u16, u16) = (1, 65_535);

/// How many values an option takes.
fn values(word: &str) -> usize {
    match word {
        "-t" | "-u" | "--sctp" | "-f" | "-s" | "-M" | "-b" | "-r" | "-w" | "-x" | "-y" | "--pe"
        | "--tun-type" | "--tun-port" => 1,
        _ => 0,
    }
}

/// A service as a command names it: `-t 10.0.0.1:80`.
fn key(directive: &Directive) -> Result<Key, String> {
    let v6 = directive.words.iter().any(|word| word == "-6");
    for pair in directive.words.windows(2) {
        let [name, value] = pair else { continue };
        let protocol = match name.as_str() {
            "-t" => Protocol::Tcp,
            "-u" => Protocol::Udp,
            "--sctp" => Protocol::Sctp,
            "-f" => return Ok(Key::Mark(number(value)?, v6)),
            _ => continue,
        };
        let (host, at) = split_port(value);
        let address = address(host).ok_or_else(|| {
            format!("{host:?} is not an address: save with `ipvsadm-save -n`, which prints numbers.")
        })?;
        let port = match at {
            None | Some("0") => 0,
            Some(text) => port(text).map_err(|e| format!("{e} `ipvsadm-save -n` prints numbers."))?,
        };
        return Ok(Key::Address(address, port, protocol));
    }
    Err("It names no service: -t, -u or -f is missing.".into())
}

impl Reader {
    /// `-A`
    pub(super) fn service(&mut self, directive: &Directive) {
        let at = directive.enter(&mut self.draft.account);
        let key = match key(directive) {
            Ok(key) => key,
            Err(remedy) => return self.draft.note(at, remedy),
        };
        let mut service = Service::new(key.name(), at);
        if let Key::Address(address, port, protocol) = key {
            let ports = match port {
                0 => Ports { first: ALL.0, last: ALL.1, protocol },
                port => Ports::one(port, protocol),
            };
            service.frontends.push(Frontend { address, ports, at, access: None });
        }
        self.options(directive, &mut service);
        match self.services.get(&key) {
            // -E, or -A twice: what was said last holds.
            Some(index) => {
                let old = &mut self.draft.services[*index];
                let first = self.draft.account.item(old.at).line;
                service.backends = std::mem::take(&mut old.backends);
                service.notes.append(&mut old.notes);
                service.note(old.at, format!("Line {} declares it anew, and holds.", directive.line));
                service.note(at, format!("It takes the place of line {first}."));
                *old = service;
            }
            None => {
                self.services.insert(key, self.draft.services.len());
                self.draft.services.push(service);
            }
        }
    }

    fn options(&mut self, directive: &Directive, service: &mut Service) {
        let account = &mut self.draft.account;
        let mut params = Params::new(directive, "virtual service", 1);
        let mut persistence: Option<(Id, Option<Said<_>>)> = None;
        let (mut scheduler, mut flags) = (None, Vec::new());
        while let Some(param) = params.take(account, values) {
            let at = param.at;
            match param.name {
                "-t" | "-u" | "--sctp" | "-f" | "-6" => account.like(at, service.at),
                "-s" => scheduler = Some((param.value().to_string(), at)),
                "-b" => flags.push((param.value().to_string(), at)),
                "-p" => {
                    let value = params.peek().filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
                    let time = value
                        .and_then(|_| params.take(account, |_| 0))
                        .map(|value| (seconds(value.name), value.at));
                    match time {
                        Some((Ok(time), time_at)) => persistence = Some((at, Some(Said::new(time, time_at)))),
                        Some((Err(remedy), time_at)) => service.note(time_at, remedy),
                        None => persistence = Some((at, None)),
                    }
                }
                "-M" => match param.value().parse::<u8>().ok().filter(|bits| (1..=128).contains(bits)) {
                    Some(128) => account.like(at, service.at),
                    Some(bits) if service.frontends.iter().all(|f| f.address.is_ipv6()) => {
                        let affinity =
                            service.affinity.get_or_insert(Affinity { at, timeout: None, ipv6_prefix: None });
                        affinity.ipv6_prefix = Some(Said::new(bits, at));
                    }
                    _ if param.value() == "255.255.255.255" => account.like(at, service.at),
                    _ => service.note(
                        at,
                        "Each IPv4 address is a client of its own in Flowpin; a mask joins IPv6 addresses \
                         only.",
                    ),
                },
                "-o" => service.note(
                    at,
                    "Datagrams of one flow stay with one backend. timeouts.udp says how long; where each \
                     may go elsewhere, a second is the shortest.",
                ),
                "--pe" => service.note(
                    at,
                    "Flowpin looks at no SIP dialogues: affinity by the client's address is what comes \
                     nearest.",
                ),
                _ => service
                    .note(at, "It is no option of a virtual service that is known: look at what it does."),
            }
        }
        scheduled(service, scheduler, flags);
        if let Some((at, time)) = persistence {
            let timeout = time.unwrap_or_else(|| Said::new(ipvs::PERSISTENCE, at));
            let prefix = service.affinity.take().and_then(|affinity| affinity.ipv6_prefix);
            service.affinity = Some(Affinity { at, timeout: Some(timeout), ipv6_prefix: prefix });
        }
    }

    /// `-a`
    pub(super) fn server(&mut self, directive: &Directive) {
        let at = directive.enter(&mut self.draft.account);
        let index = match key(directive).map(|key| self.services.get(&key).copied()) {
            Ok(Some(index)) => index,
            Ok(None) => {
                return self.draft.note(
                    at,
                    "No line above declares this service with -A: put the server below the right one.",
                );
            }
            Err(remedy) => return self.draft.note(at, remedy),
        };
        let account = &mut self.draft.account;
        let mut backend = None;
        let mut said = Backend::new(at, host(""), None);
        let mut forward = None;
        let mut params = Params::new(directive, "real server", 1);
        while let Some(param) = params.take(account, values) {
            let at = param.at;
            match param.name {
                "-t" | "-u" | "--sctp" | "-f" | "-6" => account.like(at, said.at),
                "-r" => {
                    account.like(at, said.at);
                    backend = Some(param.value().to_string());
                }
                "-g" | "-i" | "-m" => {
                    forward = ipvs::forward(param.name).map(|forward| Said::new(forward, at));
                }
                "-w" => match number(param.value()) {
                    Ok(weight) => said.weight = Some(Said::new(weight, at)),
                    Err(remedy) => said.note(at, remedy),
                },
                "-x" => match number::<u64>(param.value()) {
                    Ok(limit) => said.max_connections = Some(Said::new(limit, at)),
                    Err(remedy) => said.note(at, remedy),
                },
                "-y" => said.note(
                    at,
                    "A full backend is used again as soon as one of its connections ends: there is no \
                     lower threshold.",
                ),
                "--tun-type" if param.value() == "ipip" => account.like(at, said.at),
                "--tun-type" => said.turn_off(
                    at,
                    "Flowpin tunnels by IPIP only: have the server take that, and uncomment it.",
                ),
                "--tun-port" | "--tun-nocsum" | "--tun-csum" | "--tun-remcsum" => {
                    said.note(at, "IPIP, which is Flowpin's tunnel, has neither ports nor checksums.");
                }
                _ => said.note(at, "It is no option of a real server that is known: look at what it does."),
            }
        }
        let Some(text) = backend else { return self.draft.note(at, "It names no server: -r is missing.") };
        let (name, at_port) = split_port(&text);
        said.host = host(name);
        match at_port.map(port) {
            None => {}
            Some(Ok(port)) => said.port = Some(port),
            // Port 0 goes with a service of every port.
            Some(Err(_)) if at_port == Some("0") => {}
            Some(Err(remedy)) => said.turn_off(at, format!("{remedy} `ipvsadm-save -n` prints numbers.")),
        }
        said.forward = Some(forward.unwrap_or(Said::new(ipvs::DEFAULT_FORWARD, at)));
        let backends = &mut self.draft.services[index].backends;
        match backends.iter().position(|old| old.host == said.host && old.port == said.port) {
            Some(old) if directive.name() == "-e" => {
                let first = self.draft.account.item(backends[old].at).line;
                said.note(backends[old].at, format!("Line {} declares it anew, and holds.", directive.line));
                said.note(at, format!("It takes the place of line {first}."));
                backends[old] = said;
            }
            _ => backends.push(said),
        }
    }
}

/// What a scheduler is here.
fn scheduled(service: &mut Service, scheduler: Option<(String, Id)>, flags: Vec<(String, Id)>) {
    let (mut by_port, mut rest) = (false, Vec::new());
    for (text, at) in flags {
        for word in text.split(',') {
            match ipvs::flag(word) {
                Some(Flag::ByPort) => by_port = true,
                other => rest.push((other, at)),
            }
        }
        if by_port && rest.iter().all(|(_, other)| *other != at) {
            service.note(at, "It is what consistent-hash does without affinity.");
        }
    }
    for (flag, at) in rest {
        let remedy = match flag {
            Some(_) => "It is so here: backends that can't take a client are passed over.",
            None => "It is a flag of a scheduler that Flowpin doesn't have.",
        };
        service.note(at, remedy);
    }
    if let Some((name, at)) = scheduler {
        apply(service, &name, at, by_port);
    }
}

/// A scheduler of IPVS, by its name.
pub fn apply(service: &mut Service, name: &str, at: Id, by_port: bool) {
    const NEAREST: &str = "least-connections comes nearest, and is written";
    let Some(scheduler) = ipvs::scheduler(name) else {
        service.algorithm = Some(Said::new(Algorithm::LeastConnections, at));
        return service.note(at, format!("The scheduler {name:?} isn't known: {NEAREST}."));
    };
    service.algorithm = Some(Said::new(scheduler.algorithm, at));
    if scheduler.by_client && !by_port && service.affinity.is_none() {
        service.affinity = Some(Affinity { at, timeout: None, ipv6_prefix: None });
    }
    match scheduler.likeness {
        Likeness::Same => {}
        Likeness::Except(remedy) => service.note(at, remedy),
        Likeness::Near(differs) => service.note(at, format!("{differs}: {NEAREST}.")),
        Likeness::Unlike(purpose, instead) => {
            service.note(at, format!("{purpose}: {NEAREST}. {instead}").trim_end());
        }
    }
}
