//! `option httpchk` and its like, `http-check` and `tcp-check`: what a check asks.

use std::collections::BTreeSet;

use regex::bytes::RegexBuilder;

use super::{
    external::External,
    remedies::{APART, CHECKS, TALK, remedy},
    talk,
};
use crate::{
    account::{Account, Id, Note, Said},
    directive::{Directive, Params},
    model::{Database, Http, Probe, Statuses, Step},
    values::{port, statuses, statuses_where},
};

/// What the checks of a proxy's servers ask.
#[derive(Clone, Default)]
pub struct Checks {
    /// `option httpchk`; else only whether they take connections.
    http: Option<Id>,
    /// What it asks, in its order; a further one than the first is of `http-check send`.
    requests: Vec<Http>,
    /// Is the last of those said by `http-check send`?
    sent: bool,
    tls: bool,
    database: Option<Said<Database>>,
    /// `tcp-check`, in their order.
    steps: Vec<Said<Step>>,
    /// Steps that can't be told.
    untold: Vec<Id>,
    /// A program that is asked instead.
    pub external: External,
    /// Items that say no more than that.
    same: Vec<Id>,
    pub port: Option<Said<u16>>,
}

/// See [`Checks::together`].
#[derive(Default)]
struct Asked {
    http: Http,
    same: BTreeSet<Id>,
    apart: Vec<Id>,
}

impl Checks {
    /// Is it an option that says what a check asks?
    pub fn is_option(name: &str) -> bool {
        name == "httpchk"
            || CHECKS.iter().any(|(names, _)| names.split_whitespace().any(|known| known == name))
    }

    /// Takes one of those; it takes the place of an earlier one.
    pub fn option(&mut self, account: &mut Account, directive: &Directive, notes: &mut Vec<Note>) {
        let at = directive.enter(account);
        let before = std::mem::take(self);
        // Which program it would be is no option.
        self.external = before.external.switched_off();
        let args: Vec<&str> = directive.args().iter().map(String::as_str).collect();
        let (method, path, more) = match args.as_slice() {
            ["httpchk"] => ("OPTIONS", None, None),
            ["httpchk", path] => ("OPTIONS", Some(*path), None),
            ["httpchk", method, path, more @ ..] => (*method, Some(*path), Some(more.join(" "))),
            ["tcp-check", ..] => {
                // Its steps may stand before it.
                self.same = before.same;
                self.same.push(at);
                return (self.steps, self.untold, self.port) = (before.steps, before.untold, before.port);
            }
            ["external-check"] => return self.external.on = Some(at),
            ["redis-check"] => return self.ask("redis", None, at),
            ["pgsql-check", "user", user] => return self.ask("postgres", Some(user), at),
            ["mysql-check"] => return self.ask("mysql", None, at),
            ["mysql-check", "user", user] | ["mysql-check", "user", user, "post-41"] => {
                return self.ask("mysql", Some(user), at);
            }
            [name, ..] => return notes.push(Note::new(at, remedy(&CHECKS, name))),
            [] => return,
        };
        self.http = Some(at);
        self.request().paths = path.map(|path| Said::new(path.into(), at)).into_iter().collect();
        if method != "GET" {
            notes.push(Note::new(
                at,
                format!("Flowpin asks by GET, not by {method}: have the server answer that."),
            ));
        }
        // Headers stand behind the version, as they are sent.
        let host = more.iter().flat_map(|more| more.split(['\r', '\n'])).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("host").then(|| value.trim().to_string())
        });
        self.request().host = host.map(|host| Said::new(host, at));
    }

    /// The last request.
    fn request(&mut self) -> &mut Http {
        if self.requests.is_empty() {
            self.requests.push(Http::default());
        }
        let last = self.requests.len() - 1;
        &mut self.requests[last]
    }

    fn ask(&mut self, kind: &'static str, user: Option<&str>, at: Id) {
        self.database = Some(Said::new(Database { kind, user: user.map(Into::into) }, at));
    }

    /// `http-check ...`, `tcp-check ...`
    pub fn step(&mut self, account: &mut Account, directive: &Directive, notes: &mut Vec<Note>) {
        let head = format!("{} {}", directive.name(), directive.arg());
        match (directive.name(), directive.arg()) {
            ("http-check", "send") => self.send(account, directive, &head, notes),
            (_, "connect") => self.connect(account, directive, &head, notes),
            ("http-check", "expect") => self.expect(account, directive, notes),
            ("tcp-check", "send" | "send-lf" | "send-binary" | "send-binary-lf" | "expect") => {
                let at = directive.enter(account);
                match talk::step(directive.args()) {
                    Some(step) => self.steps.push(Said::new(step, at)),
                    None => self.untold.push(at),
                }
            }
            (_, what) => {
                let at = directive.enter(account);
                let remedy = match what {
                    "comment" => "It is a comment.",
                    "disable-on-404" => {
                        "A server that is to leave slowly is drained: `flowpin backend drain`."
                    }
                    "send-state" => "Flowpin sends no header with a check.",
                    _ => "Checks have no variables.",
                };
                notes.push(Note::new(at, remedy));
            }
        }
    }

    fn send(&mut self, account: &mut Account, directive: &Directive, head: &str, notes: &mut Vec<Note>) {
        if std::mem::replace(&mut self.sent, true) {
            self.requests.push(Http::default());
        }
        let mut params = Params::new(directive, head, 2);
        let values = |word: &str| if matches!(word, "hdr" | "hdr-lf") { 2 } else { 1 };
        while let Some(param) = params.take(account, values) {
            let at = param.at;
            match (param.name, param.values) {
                ("meth", [method]) if method == "GET" => self.same.push(at),
                ("meth", _) => notes.push(Note::new(at, "Flowpin asks by GET: have the server answer that.")),
                ("uri", [path]) => self.request().paths = vec![Said::new(path.clone(), at)],
                ("ver", _) => self.same.push(at),
                ("hdr", [name, host]) if name.eq_ignore_ascii_case("host") => {
                    self.request().host = Some(Said::new(host.clone(), at))
                }
                _ => notes.push(Note::new(
                    at,
                    "Flowpin asks for a path of a host, with no further header and no body.",
                )),
            }
        }
    }

    fn connect(&mut self, account: &mut Account, directive: &Directive, head: &str, notes: &mut Vec<Note>) {
        let at = account.open(directive.line, head);
        // What follows would be said over another connection.
        let another = !self.steps.is_empty() || !self.untold.is_empty();
        match another {
            true => self.untold.push(at),
            false => self.same.push(at),
        }
        let mut params = Params::new(directive, head, 2);
        let values =
            |word: &str| usize::from(matches!(word, "port" | "addr" | "sni" | "alpn" | "proto" | "comment"));
        while let Some(param) = params.take(account, values) {
            let at = param.at;
            match param.name {
                _ if another => self.untold.push(at),
                "port" => match port(param.value()) {
                    Ok(port) if self.sent && self.port.as_ref().is_none_or(|said| said.value != port) => {
                        notes.push(Note::new(at, APART));
                    }
                    Ok(port) => self.port = Some(Said::new(port, at)),
                    Err(remedy) => notes.push(Note::new(at, remedy)),
                },
                "ssl" if directive.name() == "http-check" => {
                    self.tls = true;
                    self.same.push(at);
                }
                "default" => self.same.push(at),
                "ssl" => self.untold.push(at),
                _ => notes.push(Note::new(
                    at,
                    "Checks go to the backend's own address, as the node's routes have it, and are said \
                     nothing else of.",
                )),
            }
        }
    }

    /// `http-check expect [...] [!] status 200-399`, `rstatus ^[23]`
    fn expect(&mut self, account: &mut Account, directive: &Directive, notes: &mut Vec<Note>) {
        let at = directive.enter(account);
        let args: Vec<&str> = directive.args().iter().map(String::as_str).collect();
        let ["expect", rest @ .., kind @ ("status" | "rstatus"), text] = args.as_slice() else {
            return notes.push(Note::new(at, super::remedies::CONTENT));
        };
        let named = if *kind == "status" { statuses(text) } else { matching(text) };
        let (not, rest): (Vec<&str>, Vec<&str>) = rest.iter().partition(|word| **word == "!");
        let good = named.and_then(|named| match not.is_empty() {
            true => Ok(named),
            false => filled(statuses_where(|status| !named.iter().any(|range| range.contains(&status)))),
        });
        match good {
            Ok(statuses) => self.request().status = Some(Said::new(statuses, at)),
            Err(remedy) => return notes.push(Note::new(at, remedy)),
        }
        if !rest.is_empty() {
            notes.push(Note::new(at, "Of an answer only the status is looked at."));
        }
    }

    /// What they ask; `tls`: of a server that speaks TLS.
    pub fn probe(&self, tls: bool) -> Probe {
        let Some(at) = self.http else {
            return match (&self.database, self.steps.as_slice()) {
                _ if !self.told(tls) => Probe::Tcp,
                (Some(database), _) => Probe::Database(database.clone()),
                (None, []) => Probe::Tcp,
                (None, steps) => Probe::Talk(steps.to_vec()),
            };
        };
        let Asked { mut http, .. } = self.together();
        http.tls = tls || self.tls;
        // What HAProxy takes for good unless it is told otherwise.
        http.status.get_or_insert_with(|| Said::new(vec![200..=399], at));
        Probe::Http(http)
    }

    /// Requests that differ by their paths alone, as one, and what can't be asked with them.
    fn together(&self) -> Asked {
        let mut requests = self.requests.clone();
        if let Some(at) = self.http.filter(|_| requests.len() > 1) {
            let unnamed = requests.iter_mut().filter(|request| request.paths.is_empty());
            unnamed.for_each(|request| request.paths.push(Said::new("/".into(), at)));
        }
        let mut requests = requests.into_iter();
        let mut asked = Asked { http: requests.next().unwrap_or_default(), ..Asked::default() };
        for other in requests {
            asked.apart.extend(asked.http.join(other, &mut asked.same).err().into_iter().flatten());
        }
        asked
    }

    /// Items that say no more than that a check is made as it is.
    pub fn same(&self) -> BTreeSet<Id> {
        self.same.iter().copied().chain(self.together().same).collect()
    }

    /// Can a database be asked, or a conversation be held, as it is said?
    fn told(&self, tls: bool) -> bool {
        let expects = |said: &Said<Step>| !matches!(said.value, Step::Send(_));
        !tls && match self.database {
            Some(_) => true,
            None => self.untold.is_empty() && self.steps.iter().any(expects),
        }
    }

    /// On what isn't asked although it is said; `tls`: of servers of which some speak TLS.
    pub fn notes(&self, tls: bool) -> Vec<Note> {
        let content = self.steps.iter().map(|said| said.at).chain(self.database.iter().map(|said| said.at));
        let content: Vec<Id> = content.filter(|_| self.http.is_none() && !self.told(tls)).collect();
        let mut ids: Vec<Id> = content.into_iter().chain(self.untold.iter().copied()).collect();
        ids.sort_unstable();
        let apart = self.together().apart.into_iter().map(|at| Note::new(at, APART));
        ids.into_iter().map(|at| Note::new(at, TALK)).chain(apart).collect()
    }

    /// Who says what they ask.
    pub const fn asked(&self) -> Option<Id> {
        self.http
    }
}

/// The statuses that an expression matches.
fn matching(text: &str) -> Result<Statuses, String> {
    // Statuses are ASCII, so that no tables of Unicode are needed.
    let made = RegexBuilder::new(text).unicode(false).build();
    let expression = made.map_err(|_| {
        format!("{text:?} is no expression that can be read here: write health.expect like \"200-399\".")
    })?;
    filled(statuses_where(|status| expression.is_match(status.to_string().as_bytes())))
}

fn filled(statuses: Statuses) -> Result<Statuses, String> {
    let none = "No status from 100 to 599 is good by that: write health.expect like \"200-399\".";
    Some(statuses).filter(|statuses| !statuses.is_empty()).ok_or_else(|| none.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_the_statuses_that_it_matches() {
        assert_eq!(matching("^2").unwrap(), [200..=299]);
        assert_eq!(matching("^[23][0-9]{2}$").unwrap(), [200..=399]);
        assert_eq!(matching("(200|204|30[1-3])").unwrap(), [200..=200, 204..=204, 301..=303]);
        assert_eq!(matching(r"5\d\d").unwrap(), [500..=599]);
        for odd in ["^9", "(", "^(?!5)", "é"] {
            assert!(matching(odd).unwrap_err().contains("health.expect"), "{odd}");
        }
    }
}
