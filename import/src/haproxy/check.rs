//! `option httpchk` and its like, `http-check` and `tcp-check`: what a check asks.

use regex::bytes::RegexBuilder;

use super::remedies::{CHECKS, remedy};
use crate::{
    account::{Account, Id, Note, Said},
    directive::{Directive, Params},
    model::{Http, Probe, Statuses},
    values::{port, statuses, statuses_where},
};

/// What the checks of a proxy's servers ask.
#[derive(Clone, Default)]
pub struct Checks {
    /// `option httpchk`; else only whether they take connections.
    http: Option<Id>,
    path: Option<Said<String>>,
    host: Option<Said<String>>,
    status: Option<Said<Statuses>>,
    tls: bool,
    /// Items that say no more than that.
    pub same: Vec<Id>,
    pub port: Option<Said<u16>>,
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
        *self = Self::default();
        let args: Vec<&str> = directive.args().iter().map(String::as_str).collect();
        let (method, path, more) = match args.as_slice() {
            ["httpchk"] => ("OPTIONS", None, None),
            ["httpchk", path] => ("OPTIONS", Some(*path), None),
            ["httpchk", method, path, more @ ..] => (*method, Some(*path), Some(more.join(" "))),
            ["tcp-check", ..] => return self.same.push(at),
            [name, ..] => return notes.push(Note::new(at, remedy(&CHECKS, name))),
            [] => return,
        };
        self.http = Some(at);
        self.path = path.map(|path| Said::new(path.into(), at));
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
        self.host = host.map(|host| Said::new(host, at));
    }

    /// `http-check ...`, `tcp-check ...`
    pub fn step(&mut self, account: &mut Account, directive: &Directive, notes: &mut Vec<Note>) {
        let head = format!("{} {}", directive.name(), directive.arg());
        match (directive.name(), directive.arg()) {
            ("http-check", "send") => self.send(account, directive, &head, notes),
            (_, "connect") => self.connect(account, directive, &head, notes),
            ("http-check", "expect") => self.expect(account, directive, notes),
            (_, what) => {
                let at = directive.enter(account);
                let remedy = match what {
                    "comment" => "It is a comment.",
                    "disable-on-404" => {
                        "A server that is to leave slowly is drained: `flowpin backend drain`."
                    }
                    "send-state" => "Flowpin sends no header with a check.",
                    "send" | "send-lf" | "send-binary" | "send-binary-lf" | "expect" => {
                        super::remedies::CONTENT
                    }
                    _ => "Checks have no variables and no steps: one question, one answer.",
                };
                notes.push(Note::new(at, remedy));
            }
        }
    }

    fn send(&mut self, account: &mut Account, directive: &Directive, head: &str, notes: &mut Vec<Note>) {
        let mut params = Params::new(directive, head, 2);
        let values = |word: &str| if matches!(word, "hdr" | "hdr-lf") { 2 } else { 1 };
        while let Some(param) = params.take(account, values) {
            let at = param.at;
            match (param.name, param.values) {
                ("meth", [method]) if method == "GET" => self.same.push(at),
                ("meth", _) => notes.push(Note::new(at, "Flowpin asks by GET: have the server answer that.")),
                ("uri", [path]) => self.path = Some(Said::new(path.clone(), at)),
                ("ver", _) => self.same.push(at),
                ("hdr", [name, host]) if name.eq_ignore_ascii_case("host") => {
                    self.host = Some(Said::new(host.clone(), at))
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
        self.same.push(at);
        let mut params = Params::new(directive, head, 2);
        let values =
            |word: &str| usize::from(matches!(word, "port" | "addr" | "sni" | "alpn" | "proto" | "comment"));
        while let Some(param) = params.take(account, values) {
            let at = param.at;
            match param.name {
                "port" => match port(param.value()) {
                    Ok(port) => self.port = Some(Said::new(port, at)),
                    Err(remedy) => notes.push(Note::new(at, remedy)),
                },
                "ssl" if directive.name() == "http-check" => {
                    self.tls = true;
                    self.same.push(at);
                }
                "default" => self.same.push(at),
                "ssl" => notes.push(Note::new(at, "TLS is spoken by checks of type https only.")),
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
            Ok(statuses) => self.status = Some(Said::new(statuses, at)),
            Err(remedy) => return notes.push(Note::new(at, remedy)),
        }
        if !rest.is_empty() {
            notes.push(Note::new(at, "Of an answer only the status is looked at."));
        }
    }

    /// What they ask; `tls`: of a server that speaks TLS.
    pub fn probe(&self, tls: bool) -> Probe {
        let Some(at) = self.http else { return Probe::Tcp };
        // What HAProxy takes for good unless it is told otherwise.
        let default = || Said::new(vec![200..=399], at);
        Probe::Http(Http {
            tls: tls || self.tls,
            path: self.path.clone(),
            host: self.host.clone(),
            status: Some(self.status.clone().unwrap_or_else(default)),
        })
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
