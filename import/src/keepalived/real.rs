//! `real_server`: a backend and its checkers.

use super::{
    checks::{CHECKERS, checker},
    remedies::{REAL, remedy},
    virtual_server::{Inherited, forward},
};
use crate::{
    account::{Account, Said},
    directive::Directive,
    model::{Backend, Service},
    values::{host, number, port},
};

/// A real server of a service.
pub fn real_server(
    account: &mut Account,
    directive: &Directive,
    service: &mut Service,
    inherited: &Inherited,
) {
    let at = directive.enter(account);
    let udp = service.is_udp();
    let mut inherited = inherited.clone();
    let mut backend = Backend::new(at, host(directive.arg()), None);
    match directive.args().get(1).map(String::as_str) {
        None | Some("0") => {}
        Some(text) => match port(text) {
            Ok(port) => backend.port = Some(port),
            Err(remedy) => backend.turn_off(at, remedy),
        },
    }
    backend.weight = inherited.weight.clone();
    let (checkers, own): (Vec<&Directive>, Vec<&Directive>) =
        directive.inside().iter().partition(|inner| CHECKERS.contains(&inner.name()));
    for inner in own {
        let at = inner.enter_whole(account);
        if inherited.check.take(inner, at, &mut backend.notes) {
            continue;
        }
        let text = inner.arg();
        match inner.name() {
            "weight" => match number(text) {
                Ok(weight) => backend.weight = Some(Said::new(weight, at)),
                Err(remedy) => backend.note(at, remedy),
            },
            "uthreshold" => match number(text) {
                Ok(limit) => backend.max_connections = Some(Said::new(limit, at)),
                Err(remedy) => backend.note(at, remedy),
            },
            "lvs_method" | "lb_kind" => match forward(inner.args()) {
                Ok(kind) => inherited.forward = Some(Said::new(kind, at)),
                Err(remedy) => backend.turn_off(at, remedy),
            },
            "virtualhost" => inherited.host = Some(Said::new(text.into(), at)),
            other => backend.note(at, remedy(&REAL, other)),
        }
    }
    backend.forward = inherited.forward.clone();
    for inner in checkers {
        checker(account, inner, &mut backend, &inherited, udp);
    }
    service.backends.push(backend);
}
