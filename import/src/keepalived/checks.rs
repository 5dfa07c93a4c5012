//! Checkers, and the times that they take from what is around them.

use std::collections::BTreeSet;

use super::{
    misc::{Misc, Program},
    remedies::{CHECKER, REAL, remedy},
    virtual_server::Inherited,
};
use crate::{
    account::{Account, Id, Note, Said},
    directive::Directive,
    model::{Backend, Check, Host, Http, Probe},
    values::{address, number, port, seconds, statuses},
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
/// Of a program.
const RETRIES_OF_PROGRAMS: u32 = 0;

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

    /// Puts them into a check; `retries`: where nothing says how many.
    fn give(self, check: &mut Check, retries: u32) {
        let or = |said: Option<Said<_>>, default| {
            said.or_else(|| Some(Said::new(seconds(default).ok()?, check.at)))
        };
        check.interval = or(self.interval, DEFAULTS.0);
        check.timeout = or(self.timeout, DEFAULTS.1);
        check.rise = Some(Said::new(1, check.at));
        let retry = self.retry.unwrap_or(Said::new(retries, check.at));
        // So many more after the first.
        check.fall = Some(Said::new(retry.value.saturating_add(1), retry.at));
    }
}

/// What to say of a checker that Flowpin doesn't have.
fn lacking(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "SMTP_CHECK" => "Flowpin speaks no SMTP: it looks whether the server takes connections.",
        "DNS_CHECK" => "Flowpin asks no DNS yet: it looks whether the server's port is open.",
        "BFD_CHECK" => "Flowpin speaks no BFD: it looks whether the server's port is open.",
        "PING_CHECK" => "Flowpin doesn't ping: it looks whether the server's port is open.",
        "FILE_CHECK" => {
            "Flowpin reads no files for weights: a program can run `flowpin backend set --weight`."
        }
        _ => return None,
    })
}

/// What a checker asks, or what comes nearest; `udp`: of a server of UDP alone.
fn probe(kind: &str, udp: bool, host: Option<Said<String>>) -> Probe {
    match kind {
        "HTTP_GET" | "SSL_GET" => Probe::Http(Http { tls: kind == "SSL_GET", host, ..Http::default() }),
        "UDP_CHECK" => Probe::Udp(None),
        "DNS_CHECK" | "MISC_CHECK" | "BFD_CHECK" | "PING_CHECK" | "FILE_CHECK" if udp => Probe::Udp(None),
        _ => Probe::Tcp,
    }
}

/// What `UDP_CHECK` says of datagrams.
#[derive(Default)]
struct Datagrams {
    /// In hexadecimal digits.
    payload: Option<Said<String>>,
    /// An answer has to come, and perhaps one that begins so.
    reply: Option<Said<String>>,
}

impl Datagrams {
    /// As far as Flowpin can say it: with a text to send there has to be an answer, without it none.
    fn give(self, check: &mut Check, notes: &mut Vec<Note>) {
        let text = |digits: &str| {
            let bytes: Option<Vec<u8>> = digits
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
                .collect();
            bytes
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .filter(|text| !text.is_empty() && digits.len() == 2 * text.len())
        };
        let Self { payload, reply } = self;
        match (payload.as_ref().map(|said| (said.at, text(&said.value))), reply) {
            (Some((at, Some(text))), Some(reply)) => {
                check.probe = Probe::Udp(Some(Said::new(text, at)));
                match reply.value.is_empty() {
                    true => drop(check.same.insert(reply.at)),
                    false => notes.push(Note::new(reply.at, "Any answer is a good one.")),
                }
            }
            (payload, reply) => {
                let remedy = "Flowpin sends a text and wants an answer (health.send), or else an empty datagram \
                     that mustn't be refused: write health.send if there is a text that the server answers.";
                let ids = payload.map(|(at, _)| at).into_iter().chain(reply.map(|said| said.at));
                notes.extend(ids.map(|id| Note::new(id, remedy)));
            }
        }
    }
}

/// A checker of a real server. The first is taken; a further one is named.
pub fn checker(
    account: &mut Account,
    directive: &Directive,
    backend: &mut Backend,
    inherited: &Inherited,
    udp: bool,
) {
    let kind = directive.name();
    if backend.check.is_some() {
        let at = directive.enter_whole(account);
        return backend.note(at, "Flowpin makes one check of a backend: the first that it has here.");
    }
    let at = directive.enter(account);
    let mut check = Check::tcp(at);
    let mut times = inherited.check.clone();
    check.probe = probe(kind, udp, inherited.host.clone());
    let mut datagrams = Datagrams::default();
    let mut misc = (kind == "MISC_CHECK").then(Misc::default);
    if let Some(remedy) = lacking(kind) {
        backend.note(at, remedy);
    }
    let mut urls: Vec<Url<'_>> = Vec::new();
    for inner in directive.inside() {
        if inner.name() == "url" && matches!(check.probe, Probe::Http(_)) {
            let url = Url::of(account, inner, urls.first(), &mut backend.notes);
            urls.push(url);
            continue;
        }
        let at = inner.enter_whole(account);
        let is_misc = misc.as_mut().is_some_and(|misc| misc.take(inner, at, &mut backend.notes));
        if is_misc || times.take(inner, at, &mut backend.notes) {
            continue;
        }
        let text: String = inner.args().concat().split_whitespace().collect();
        match (inner.name(), &mut check.probe) {
            ("payload", _) if kind == "UDP_CHECK" => datagrams.payload = Some(Said::new(text, at)),
            ("require_reply", _) if kind == "UDP_CHECK" => datagrams.reply = Some(Said::new(text, at)),
            ("connect_ip", _) if address(inner.arg()).map(Host::Address).as_ref() == Some(&backend.host) => {
                account.like(at, check.at);
            }
            ("connect_ip", _) => check.elsewhere = Some(at),
            ("connect_port", _) => match port(inner.arg()) {
                Ok(port) => check.port = Some(Said::new(port, at)),
                Err(remedy) => backend.note(at, remedy),
            },
            ("virtualhost", Probe::Http(http)) => http.host = Some(Said::new(inner.arg().into(), at)),
            (name @ ("alpha" | "warmup" | "log_all_failures"), _) => backend.note(at, remedy(&REAL, name)),
            (name, _) => backend.note(at, remedy(&CHECKER, name)),
        }
    }
    let retries = if misc.is_some() { RETRIES_OF_PROGRAMS } else { RETRIES };
    if let Some(Program { command, timeout }) = misc.and_then(|misc| misc.program(at, backend)) {
        check.probe = Probe::Exec(command);
        // Where nothing says how long it may take, it is as long as to the next check.
        let wait = || match &inherited.check.interval {
            Some(said) => Some(said.value),
            None => seconds(DEFAULTS.0).ok(),
        };
        times.timeout = timeout.or_else(|| Some(Said::new(wait()?, at)));
    }
    times.give(&mut check, retries);
    match &mut check.probe {
        Probe::Http(http) => {
            let asked = ask(http, urls, &mut check.same, &mut backend.notes);
            // Any of them is good where no status is named.
            http.status.get_or_insert(Said::new(vec![200..=299], at));
            // There each may take so long, and here it is for all.
            if let Some(timeout) = &mut check.timeout {
                timeout.value *= asked;
            }
        }
        Probe::Udp(_) => datagrams.give(&mut check, &mut backend.notes),
        Probe::Tcp | Probe::Database(_) | Probe::Talk(_) | Probe::Exec(_) => {}
    }
    backend.check = Some(check);
}

/// What is asked for.
struct Url<'a> {
    at: Id,
    said: &'a Directive,
    /// Read, if the first one's host and statuses are its own.
    http: Option<Http>,
}

impl Url<'_> {
    fn of<'a>(
        account: &mut Account,
        said: &'a Directive,
        first: Option<&Url<'_>>,
        notes: &mut Vec<Note>,
    ) -> Url<'a> {
        let words = |of: &Directive, name: &str| -> Vec<String> {
            let named = of.inside().iter().find(|inner| inner.name() == name);
            named.map(|inner| inner.args().to_vec()).unwrap_or_default()
        };
        let alike = |first: &Url<'_>| {
            ["virtualhost", "status_code"].iter().all(|name| words(first.said, name) == words(said, name))
        };
        if !first.is_none_or(alike) {
            return Url { at: said.enter_whole(account), said, http: None };
        }
        let at = said.enter(account);
        Url { at, said, http: Some(read(account, said, at, notes)) }
    }

    fn path(&self) -> &str {
        self.said.inside().iter().find(|said| said.name() == "path").map_or("/", Directive::arg)
    }
}

/// Puts together what is asked for, and says how many paths it is. One that goes to another host, or has other good
/// statuses, can't be among them: a program can ask for all.
fn ask(http: &mut Http, urls: Vec<Url<'_>>, same: &mut BTreeSet<Id>, notes: &mut Vec<Note>) -> u32 {
    let (scheme, flags) = if http.tls { ("https", "-fsSk") } else { ("http", "-fsS") };
    let all: Vec<String> = urls
        .iter()
        .map(|url| format!("{:?}", format!("{scheme}://{{address}}:{{port}}{}", url.path())))
        .collect();
    let remedy = format!(
        "All paths of a check are asked of one host, and the same statuses are good: those of the first. Have the \
         server say all there, or write health = {{ type = \"exec\", command = [\"/usr/bin/curl\", \"--fail-early\", \
         \"{flags}\", {}] }}.",
        all.join(", ")
    );
    let mut asked: Option<Http> = None;
    for Url { at, said: _, http: read } in urls {
        let apart = match (read, &mut asked) {
            (None, _) => vec![at],
            (Some(first), None) => {
                asked = Some(first);
                Vec::new()
            }
            (Some(other), Some(asked)) => {
                asked.join(other, same).err().map_or_else(Vec::new, |ids| [vec![at], ids].concat())
            }
        };
        notes.extend(apart.into_iter().map(|at| Note::new(at, remedy.clone())));
    }
    let asked = asked.unwrap_or_default();
    *http = Http { tls: http.tls, host: asked.host.or(http.host.take()), ..asked };
    u32::try_from(http.paths.len().max(1)).unwrap_or(1)
}

/// What one asks for. `at`: its item.
fn read(account: &mut Account, directive: &Directive, at: Id, notes: &mut Vec<Note>) -> Http {
    let mut http = Http::default();
    for inner in directive.inside() {
        let at = inner.enter_whole(account);
        match inner.name() {
            "path" => http.paths = vec![Said::new(inner.arg().into(), at)],
            "virtualhost" => http.host = Some(Said::new(inner.arg().into(), at)),
            "status_code" => match statuses(&inner.args().join(" ")) {
                Ok(statuses) => http.status = Some(Said::new(statuses, at)),
                Err(remedy) => notes.push(Note::new(at, remedy)),
            },
            other => notes.push(Note::new(at, remedy(&CHECKER, other))),
        }
    }
    match http.paths.first() {
        Some(path) => account.like(at, path.at),
        None => http.paths.push(Said::new("/".into(), at)),
    }
    http
}
