//! `server`: a service, by where it leads to.

use std::collections::BTreeMap;

use super::{
    Reader,
    listen::listen,
    matching::Match,
    remedies::{STREAM, remedy},
    upstream::place,
};
use crate::{
    access::{Rule, Stage, access},
    account::{Account, Id, Note, Said},
    directive::{Directive, Params},
    model::{Check, Forward, Probe, Service, Timeouts},
    values::{nginx_time, number, port},
};

/// What a `stream` block gives to its servers unless they say otherwise.
#[derive(Clone, Default)]
pub struct Settings {
    idle: Option<Said<std::time::Duration>>,
    connect: Option<Said<std::time::Duration>>,
    check_timeout: Option<Said<std::time::Duration>>,
    transparent: Option<Id>,
    rules: Vec<Rule>,
    /// Are the rules those of a block further out?
    outer: bool,
}

impl Settings {
    /// Takes a directive that may stand in `stream` and in a server.
    pub fn take(&mut self, account: &mut Account, directive: &Directive, notes: &mut Vec<Note>) {
        let at = directive.enter_whole(account);
        let text = directive.arg();
        let time = |place: &mut Option<Said<std::time::Duration>>| {
            nginx_time(text).map(|time| *place = Some(Said::new(time, at)))
        };
        let kept = match directive.name() {
            "proxy_timeout" => time(&mut self.idle),
            "proxy_connect_timeout" => time(&mut self.connect),
            "health_check_timeout" => time(&mut self.check_timeout),
            "proxy_bind" if directive.args().last().is_some_and(|word| word == "transparent") => {
                self.transparent = Some(at);
                Ok(())
            }
            name @ ("allow" | "deny") => {
                if std::mem::take(&mut self.outer) {
                    self.rules.clear();
                }
                self.rules.push(Rule {
                    stage: Stage::Connection,
                    allow: name == "allow",
                    who: Said::new(text.into(), at),
                });
                Ok(())
            }
            name => Err(remedy(&STREAM, name).to_string()),
        };
        if let Err(remedy) = kept {
            notes.push(Note::new(at, remedy));
        }
    }

    /// From here on they are those of a block further out.
    pub fn end_of_block(&mut self) {
        self.outer = true;
    }
}

impl Reader {
    /// Reads one.
    pub(super) fn server(&mut self, directive: &Directive, outer: &Settings) {
        let account = &mut self.draft.account;
        let at = directive.enter(account);
        let mut service = Service::new("", at);
        let mut settings = outer.clone();
        let (mut pass, mut check) = (None, None);
        for inner in directive.inside() {
            match inner.name() {
                "listen" => listen(account, inner, &mut service),
                "proxy_pass" => pass = Some(Said::new(inner.arg().to_string(), inner.enter(account))),
                "health_check" => {
                    check = Some(health_check(account, inner, &self.matches, &mut service.notes))
                }
                "return" | "pass" => {
                    let at = inner.enter(account);
                    service.turn_off(
                        at,
                        "nginx answers by itself there, or gives it to another part of itself: keep it \
                         for that.",
                    );
                }
                _ => settings.take(account, inner, &mut service.notes),
            }
        }
        service.timeouts =
            Timeouts { idle: settings.idle, half_open: settings.connect, ..Timeouts::default() };
        if service.is_udp()
            && let Some(Said { at, .. }) = service.timeouts.half_open.take()
        {
            service.note(at, "It is about TCP, and the service has no TCP port.");
        }
        (service.forward, service.forward_at) = match settings.transparent {
            Some(at) => (Some(Forward::Nat), Some(at)),
            None => (Some(Forward::Snat), None),
        };
        match access(&settings.rules, account, &mut service.notes) {
            Ok(access) => service.access = access,
            Err(at) => {
                service.turn_off(at, "Nobody is let in: say in source_ranges who is, and uncomment it.")
            }
        }
        if let Some(mut made) = check {
            made.timeout = settings.check_timeout.or(made.timeout);
            service.check = Some(made);
        } else if let Some(Said { at, .. }) = settings.check_timeout {
            service.note(at, "There is no health_check that it could be of.");
        }
        match pass {
            Some(pass) => self.lead(service, pass),
            None => {
                service.name = "server".into();
                service
                    .turn_off(at, "No proxy_pass says where it leads: give it backends, and uncomment it.");
                self.draft.services.push(service);
            }
        }
    }

    /// Gives a service the backends that a `proxy_pass` names; or to a service that has them already, if it is
    /// like it.
    fn lead(&mut self, mut service: Service, pass: Said<String>) {
        let Said { value: target, at } = pass;
        self.draft.account.like(at, service.at);
        if let Some(upstream) = self.upstreams.get_mut(&target) {
            upstream.used = true;
            self.draft.account.like(upstream.at, service.at);
            service.name = target;
            upstream.give(&mut service);
        } else if target.contains('$') {
            service.name = target.replace(['$', '{', '}'], "");
            service.turn_off(
                at,
                "Flowpin decides by addresses and ports alone, not by a variable: give each backend a \
                 service at a VIP or port of its own, or keep nginx behind it.",
            );
        } else {
            service.name = target.replace(['[', ']'], "").replace(':', "-");
            service.backends.push(place(at, &target));
        }
        let account = &mut self.draft.account;
        let first = self.draft.services.iter_mut().find(|other| is_like(other, &service));
        match first {
            None => self.draft.services.push(service),
            Some(first) => {
                account.like(service.at, first.at);
                let Timeouts { idle, half_open, .. } = service.timeouts;
                for (ours, theirs) in
                    [(idle, &mut first.timeouts.idle), (half_open, &mut first.timeouts.half_open)]
                {
                    match (ours, theirs) {
                        (Some(ours), Some(theirs)) => account.like(ours.at, theirs.at),
                        (ours, theirs) => *theirs = theirs.take().or(ours),
                    }
                }
                let (ours, theirs) = (&service.access, &first.access);
                for (ours, theirs) in [(&ours.allowed, &theirs.allowed), (&ours.denied, &theirs.denied)] {
                    ours.iter().zip(theirs).for_each(|(ours, theirs)| account.like(ours.at, theirs.at));
                }
                if let (Some(ours), Some(theirs)) = (service.forward_at, first.forward_at) {
                    account.like(ours, theirs);
                }
                first.frontends.append(&mut service.frontends);
                for note in service.notes {
                    if !first.notes.contains(&note) {
                        first.notes.push(note);
                    }
                }
            }
        }
    }
}

/// UDP has none.
fn same_or_none<T: PartialEq>(a: &Option<Said<T>>, b: &Option<Said<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.value == b.value,
        _ => true,
    }
}

/// May two be one service with the frontends of both?
fn is_like(a: &Service, b: &Service) -> bool {
    fn values<T: Clone>(said: &Option<Said<T>>) -> Option<T> {
        said.as_ref().map(|said| said.value.clone())
    }
    let asked = |service: &Service| service.check.as_ref().map(|check| check.at);
    a.name == b.name
        && a.off.is_none()
        && b.off.is_none()
        && a.forward == b.forward
        && asked(a) == asked(b)
        && values(&a.timeouts.idle) == values(&b.timeouts.idle)
        && same_or_none(&a.timeouts.half_open, &b.timeouts.half_open)
        && a.access.is_like(&b.access)
        && a.backends.iter().map(|x| x.address()).eq(b.backends.iter().map(|x| x.address()))
}

/// `health_check` of the commercial version.
fn health_check(
    account: &mut Account,
    directive: &Directive,
    matches: &BTreeMap<String, Match>,
    notes: &mut Vec<Note>,
) -> Check {
    let at = account.open(directive.line, "health_check");
    let mut check = Check::tcp(at);
    // Its defaults: every 5 s, one check either way, and as long for an answer.
    let five = std::time::Duration::from_secs(5);
    (check.interval, check.timeout) = (Some(Said::new(five, at)), Some(Said::new(five, at)));
    (check.rise, check.fall) = (Some(Said::new(1, at)), Some(Said::new(1, at)));
    let mut matching = None;
    let mut params = Params::new(directive, "health_check", 1);
    while let Some(param) = params.take(account, |_| 0) {
        let at = param.at;
        let (name, value) = param.name.split_once('=').unwrap_or((param.name, ""));
        let kept = match name {
            "interval" => nginx_time(value).map(|time| check.interval = Some(Said::new(time, at))),
            "fails" => number(value).map(|count| check.fall = Some(Said::new(count, at))),
            "passes" => number(value).map(|count| check.rise = Some(Said::new(count, at))),
            "port" => port(value).map(|port| check.port = Some(Said::new(port, at))),
            "jitter" => Err("Checks are spread by a tenth of their interval, at random.".into()),
            "match" => {
                matching = Some(Said::new(value, at));
                Ok(())
            }
            "udp" => {
                check.probe = Probe::Udp(None);
                check.same.insert(at);
                Ok(())
            }
            "mandatory" | "persistent" => {
                Err("A new backend is healthy until its checks say otherwise.".into())
            }
            _ => Err("It is no parameter of health_check that is known: look at what it does.".into()),
        };
        if let Err(remedy) = kept {
            notes.push(Note::new(at, remedy));
        }
    }
    if let Some(Said { value: name, at }) = matching {
        match matches.get(name) {
            Some(asked) => asked.give(at, &mut check, notes),
            None => notes.push(Note::new(
                at,
                "There is no match of this name in this file: write health.talk, or it looks whether the server \
                 takes connections.",
            )),
        }
    }
    check
}
