//! `upstream`: servers, and how one is chosen.

use super::{
    Reader,
    remedies::{SERVER, STREAM, remedy},
};
use crate::{
    account::{Account, Id, Note, Said},
    directive::{Directive, Params},
    model::{Affinity, Algorithm, Backend, Check, Host, Service},
    values::{host, nginx_time, number, port, split_port},
};

/// A pool that servers lead to.
pub struct Upstream {
    pub at: Id,
    pub used: bool,
    backends: Vec<Backend>,
    algorithm: Option<Said<Algorithm>>,
    affinity: Option<Affinity>,
    notes: Vec<Note>,
}

impl Upstream {
    /// Gives what it has to a service.
    pub fn give(&self, service: &mut Service) {
        service.backends = self.backends.clone();
        service.algorithm = self.algorithm.clone();
        service.affinity = self.affinity.clone();
        service.notes.extend(self.notes.iter().cloned());
        if service.check.is_none() && self.backends.len() > 1 {
            // nginx goes to the next server where one refuses, unless max_fails is 0 everywhere.
            let never = self.backends.iter().all(|backend| backend.check.is_none());
            service.check = (!never).then(|| Check::tcp(self.at));
        }
        if service.check.is_none() {
            service.backends.iter_mut().for_each(|backend| backend.check = None);
        }
    }
}

impl Reader {
    /// Reads one.
    pub(super) fn upstream(&mut self, directive: &Directive) {
        let account = &mut self.draft.account;
        let at = directive.enter(account);
        let mut upstream = Upstream {
            at,
            used: false,
            backends: Vec::new(),
            algorithm: None,
            affinity: None,
            notes: Vec::new(),
        };
        for inner in directive.inside() {
            if inner.name() == "server" {
                let backend = server(account, inner);
                upstream.backends.push(backend);
                continue;
            }
            let at = inner.enter_whole(account);
            let note = match inner.name() {
                "least_conn" => {
                    upstream.algorithm = Some(Said::new(Algorithm::LeastConnections, at));
                    continue;
                }
                "hash" => hash(inner, at, &mut upstream),
                "random" => random(inner, at, &mut upstream),
                name => Some(remedy(&STREAM, name).to_string()),
            };
            upstream.notes.extend(note.map(|remedy| Note::new(at, remedy)));
        }
        match self.upstreams.get(directive.arg()) {
            None => drop(self.upstreams.insert(directive.arg().into(), upstream)),
            Some(first) => {
                let line = account.item(first.at).line;
                self.draft
                    .note(at, format!("Line {line} declares an upstream of this name: that one is taken."));
            }
        }
    }
}

/// `hash KEY [consistent]`. What to say of it, if anything.
fn hash(directive: &Directive, at: Id, upstream: &mut Upstream) -> Option<String> {
    let key = directive.arg();
    let client = matches!(key, "$remote_addr" | "$binary_remote_addr" | "${remote_addr}");
    let flow = key.contains("remote_addr") && key.contains("remote_port");
    if !client && !flow {
        return Some(format!(
            "Flowpin hashes addresses and ports, not {key}: least-connections, its default, is taken. \
             Write algorithm = \"consistent-hash\" for those."
        ));
    }
    upstream.algorithm = Some(Said::new(Algorithm::ConsistentHash, at));
    if client {
        upstream.affinity = Some(Affinity { at, timeout: None, ipv6_prefix: None });
    }
    let consistent = directive.args().iter().any(|word| word == "consistent");
    (!consistent).then(|| "A backend that comes or goes moves few clients here, not most of them.".into())
}

/// `random [two [METHOD]]`. What to say of it, if anything.
fn random(directive: &Directive, at: Id, upstream: &mut Upstream) -> Option<String> {
    let of_two = directive.arg() == "two";
    let algorithm = if of_two { Algorithm::LeastConnections } else { Algorithm::WeightedRandom };
    upstream.algorithm = Some(Said::new(algorithm, at));
    of_two.then(|| {
        "Of all backends the one with the fewest connections is taken, not of two: least-connections.".into()
    })
}

/// A `server` of an upstream, or where a `proxy_pass` leads to.
pub fn place(at: Id, text: &str) -> Backend {
    let (name, port_text) = split_port(text);
    let mut backend = Backend::new(at, host(name), None);
    if text.starts_with("unix:") {
        backend.host = Host::Name(text.into());
        backend.turn_off(
            at,
            "Packets can't be sent to a Unix socket: have the server listen at an address, and write that.",
        );
        return backend;
    }
    match port_text.map(port) {
        Some(Ok(port)) => backend.port = Some(port),
        Some(Err(remedy)) => backend.turn_off(at, remedy),
        // By a record of DNS, or in `http`; else nginx refuses it.
        None => backend.turn_off(at, "It names no port: write one, and uncomment it."),
    }
    backend
}

fn server(account: &mut Account, directive: &Directive) -> Backend {
    let text = directive.arg();
    let head = format!("server {text}");
    let at = account.open(directive.line, &head);
    let mut backend = place(at, text);
    let mut check = Check::tcp(at);
    let mut never = false;
    let mut params = Params::new(directive, &head, 2);
    while let Some(param) = params.take(account, |_| 0) {
        let at = param.at;
        let (name, value) = param.name.split_once('=').unwrap_or((param.name, ""));
        let kept = match name {
            "weight" => number(value).map(|weight| backend.weight = Some(Said::new(weight, at))),
            "max_conns" => number(value).map(|limit| backend.max_connections = Some(Said::new(limit, at))),
            "max_fails" => match number::<u32>(value) {
                Ok(0) => {
                    never = true;
                    Err("It is never taken out there. Flowpin checks all backends of a service, or none."
                        .into())
                }
                other => other.map(|fall| check.fall = Some(Said::new(fall, at))),
            },
            "slow_start" => nginx_time(value).map(|time| backend.slow_start = Some(Said::new(time, at))),
            "resolve" => {
                backend.resolve.push(at);
                Ok(())
            }
            "backup" => {
                backend.backup = Some(at);
                Ok(())
            }
            "down" => {
                backend.down = Some(at);
                Ok(())
            }
            _ => Err(remedy(&SERVER, param.name).into()),
        };
        if let Err(remedy) = kept {
            backend.note(at, remedy);
        }
    }
    backend.check = (!never).then_some(check);
    backend
}
