//! Checkers, and the times that they take from what is around them.

use super::{
    remedies::{CHECKER, REAL, remedy},
    virtual_server::Inherited,
};
use crate::{
    account::{Account, Id, Note, Said},
    directive::Directive,
    model::{Backend, Check, Http, Probe, Status},
    values::{number, port, seconds},
};

/// All kinds.
pub const CHECKERS: [&str; 10] = [
    "TCP_CHECK",
    "HTTP_GET",
    "SSL_GET",
    "SMTP_CHECK",
    "DNS_CHECK",
    "MISC_CHECK",
    "BFD_CHECK",
    "UDP_CHECK",
    "PING_CHECK",
    "FILE_CHECK",
];

/// Seconds from one check to the next, and for an answer, where nothing says so.
const DEFAULTS: (&str, &str) = ("60", "5");
/// How often a check is made again before it counts, where nothing says so.
const RETRIES: u32 = 1;

/// What may be said of checks at three places, the innermost of which holds.
#[derive(Clone, Default)]
pub struct Times {
    interval: Option<Said<std::time::Duration>>,
    timeout: Option<Said<std::time::Duration>>,
    retry: Option<Said<u32>>,
}

impl Times {
    /// Takes a directive, if it is one of these.
    pub fn take(&mut self, directive: &Directive, at: Id, notes: &mut Vec<Note>) -> bool {
        let text = directive.arg();
        let taken = match directive.name() {
            "delay_loop" => seconds(text).map(|time| self.interval = Some(Said::new(time, at))),
            "connect_timeout" => seconds(text).map(|time| self.timeout = Some(Said::new(time, at))),
            "retry" | "nb_get_retry" => number(text).map(|count| self.retry = Some(Said::new(count, at))),
            "delay_before_retry" => {
                Err("After a bad check the next one comes after health.interval, as ever.".into())
            }
            _ => return false,
        };
        if let Err(remedy) = taken {
            notes.push(Note::new(at, remedy));
        }
        true
    }

    /// Puts them into a check.
    fn give(self, check: &mut Check) {
        let or = |said: Option<Said<_>>, default| {
            said.or_else(|| Some(Said::new(seconds(default).ok()?, check.at)))
        };
        check.interval = or(self.interval, DEFAULTS.0);
        check.timeout = or(self.timeout, DEFAULTS.1);
        check.rise = Some(Said::new(1, check.at));
        let retry = self.retry.unwrap_or(Said::new(RETRIES, check.at));
        // So many more after the first.
        check.fall = Some(Said::new(retry.value.saturating_add(1), retry.at));
    }
}

/// What comes nearest to a checker that Flowpin doesn't have.
fn nearest(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "SMTP_CHECK" => "Flowpin speaks no SMTP: it looks whether the server takes connections.",
        "DNS_CHECK" => "Flowpin asks no DNS yet: where the server takes TCP as well, that is looked at.",
        "MISC_CHECK" => {
            "Flowpin runs no programs for checks yet: it looks whether the server takes connections. A \
             program can run `flowpin backend drain` and `undrain` itself."
        }
        "BFD_CHECK" => "Flowpin speaks no BFD: it looks whether the server takes connections.",
        "UDP_CHECK" => {
            "Flowpin has no checks by UDP yet: where the server takes TCP as well, that is looked at."
        }
        "PING_CHECK" => "Flowpin doesn't ping: it looks whether the server takes connections.",
        "FILE_CHECK" => {
            "Flowpin reads no files for weights: a program can run `flowpin backend set --weight`."
        }
        _ => return None,
    })
}

/// A checker of a real server. The first is taken; a further one is named.
pub fn checker(account: &mut Account, directive: &Directive, backend: &mut Backend, inherited: &Inherited) {
    let kind = directive.name();
    if backend.check.is_some() {
        let at = directive.enter_whole(account);
        return backend.note(at, "Flowpin makes one check of a backend: the first that it has here.");
    }
    let at = directive.enter(account);
    let mut check = Check::tcp(at);
    let mut times = inherited.check.clone();
    let mut http = matches!(kind, "HTTP_GET" | "SSL_GET").then(|| Http {
        tls: kind == "SSL_GET",
        host: inherited.host.clone(),
        ..Http::default()
    });
    if let Some(remedy) = nearest(kind) {
        backend.note(at, remedy);
    }
    let mut urls = 0;
    for inner in directive.inside() {
        if inner.name() == "url"
            && let Some(http) = &mut http
        {
            urls += 1;
            if urls == 1 {
                url(account, inner, http, &mut backend.notes);
                continue;
            }
        }
        let at = inner.enter_whole(account);
        if times.take(inner, at, &mut backend.notes) {
            continue;
        }
        match (inner.name(), &mut http) {
            ("connect_port", _) => match port(inner.arg()) {
                Ok(port) if Some(port) == backend.port => account.like(at, check.at),
                Ok(port) => check.port = Some(Said::new(port, at)),
                Err(remedy) => backend.note(at, remedy),
            },
            ("virtualhost", Some(http)) => http.host = Some(Said::new(inner.arg().into(), at)),
            (name @ ("alpha" | "warmup" | "log_all_failures"), _) => backend.note(at, remedy(&REAL, name)),
            (name, _) => backend.note(at, remedy(&CHECKER, name)),
        }
    }
    times.give(&mut check);
    if let Some(mut http) = http {
        // Any of them is good where no status is named.
        http.status.get_or_insert(Said::new(Status::Other("200-299".into()), at));
        check.probe = Probe::Http(http);
    }
    backend.check = Some(check);
}

fn url(account: &mut Account, directive: &Directive, http: &mut Http, notes: &mut Vec<Note>) {
    let at = directive.enter(account);
    for inner in directive.inside() {
        let at = inner.enter_whole(account);
        match inner.name() {
            "path" => http.path = Some(Said::new(inner.arg().into(), at)),
            "virtualhost" => http.host = Some(Said::new(inner.arg().into(), at)),
            "status_code" => {
                let one =
                    Some(inner.args()).filter(|args| args.len() == 1).and_then(|args| args[0].parse().ok());
                let status = one.map_or_else(|| Status::Other(inner.args().join(" ")), Status::One);
                http.status = Some(Said::new(status, at));
            }
            other => notes.push(Note::new(at, remedy(&CHECKER, other))),
        }
    }
    match &http.path {
        Some(path) => account.like(at, path.at),
        None => http.path = Some(Said::new("/".into(), at)),
    }
}
