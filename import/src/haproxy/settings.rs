//! What `defaults` gives to the proxies below it, and they may say otherwise.

use std::time::Duration;

use super::{
    check::Checks,
    remedies::{DIRECTIVES, OPTIONS, TIMEOUTS, remedy},
    rules::Rules,
    server::Server,
};
use crate::{
    account::{Account, Id, Note, Said},
    directive::{Directive, Params},
    model::{Affinity, Algorithm},
    values::{haproxy_time, number},
};

/// See the module.
#[derive(Clone, Default)]
pub struct Settings {
    pub mode: Option<Said<String>>,
    pub algorithm: Option<Said<Algorithm>>,
    /// `balance source`: clients stay.
    pub hashed: Option<Id>,
    pub times: Times,
    pub checks: Checks,
    pub servers: Server,
    pub default_backend: Option<Said<String>>,
    /// `maxconn`, which is about listeners.
    pub limit: Option<Said<u32>>,
    pub rules: Rules,
    pub stick: Option<Id>,
    pub expire: Option<Said<Duration>>,
    /// A `stick-table`, and its parts that a `stick` makes mean something.
    pub table: Vec<Id>,
    pub disabled: Option<Id>,
    /// `option allbackups`: backups share what comes.
    pub all_backups: bool,
    /// `source ... usesrc clientip`: backends see clients.
    pub transparent: Option<Id>,
}

/// `timeout`
#[derive(Clone, Default)]
pub struct Times {
    pub client: Option<Said<Duration>>,
    pub server: Option<Said<Duration>>,
    pub tunnel: Option<Said<Duration>>,
    pub connect: Option<Said<Duration>>,
    pub client_fin: Option<Said<Duration>>,
    pub server_fin: Option<Said<Duration>>,
    pub check: Option<Said<Duration>>,
}

impl Settings {
    /// Takes a directive that may stand in any section of proxies.
    pub fn take(&mut self, account: &mut Account, directive: &Directive, notes: &mut Vec<Note>) {
        match directive.name() {
            "default-server" => {
                return self.servers.parameters(account, directive, "default-server", 1, notes);
            }
            "stick-table" => return self.stick_table(account, directive, notes),
            "option" if Checks::is_option(directive.arg()) => {
                return self.checks.option(account, directive, notes);
            }
            "http-check" | "tcp-check" => return self.checks.step(account, directive, notes),
            "acl" | "tcp-request" => return self.rules.take(account, directive, notes),
            _ => {}
        }
        let at = directive.enter(account);
        let text = directive.arg();
        let kept = match directive.name() {
            "mode" => {
                self.mode = Some(Said::new(text.into(), at));
                Ok(())
            }
            "balance" => self.balance(directive, at, notes),
            "timeout" => self.timeout(directive, at),
            "default_backend" => {
                self.default_backend = Some(Said::new(text.into(), at));
                Ok(())
            }
            "use_backend" if directive.args().len() == 1 => {
                self.default_backend = Some(Said::new(text.into(), at));
                Ok(())
            }
            "stick" => self.stick(directive, at),
            "maxconn" => self.maxconn(text, at),
            "external-check" => self.checks.external.take(directive, at),
            "disabled" => {
                self.disabled = Some(at);
                Ok(())
            }
            "enabled" => {
                account.translate(at);
                self.disabled = None;
                Ok(())
            }
            "source"
                if directive.args().iter().any(|word| matches!(word.as_str(), "clientip" | "client")) =>
            {
                self.transparent = Some(at);
                Ok(())
            }
            "option" => {
                self.all_backups |= text == "allbackups";
                Err(remedy(&OPTIONS, text).to_string())
            }
            "no" => {
                self.all_backups &=
                    text != "option" || directive.args().get(1).is_none_or(|name| name != "allbackups");
                if Checks::is_option(directive.args().get(1).map_or("", String::as_str)) {
                    self.checks = Checks::default();
                }
                Err("It is switched off there, and Flowpin doesn't do it.".into())
            }
            "default" => Err("It is as HAProxy is without it: nothing to say here.".into()),
            name => Err(remedy(&DIRECTIVES, name).to_string()),
        };
        if let Err(remedy) = kept {
            notes.push(Note::new(at, remedy));
        }
    }

    fn maxconn(&mut self, text: &str, at: Id) -> Result<(), String> {
        self.limit = match number(text)? {
            0 => return Err("0 is the process's own limit there; here that is to leave it out.".into()),
            most => Some(Said::new(most, at)),
        };
        Ok(())
    }

    fn timeout(&mut self, directive: &Directive, at: Id) -> Result<(), String> {
        let times = &mut self.times;
        let place = match directive.arg() {
            "client" => &mut times.client,
            "server" => &mut times.server,
            "tunnel" => &mut times.tunnel,
            "connect" => &mut times.connect,
            "client-fin" => &mut times.client_fin,
            "server-fin" => &mut times.server_fin,
            "check" => &mut times.check,
            other => return Err(remedy(&TIMEOUTS, other).into()),
        };
        let text = directive.args().get(1).map_or("", String::as_str);
        let time = haproxy_time(text)?;
        *place = (!time.is_zero()).then(|| Said::new(time, at));
        match place {
            Some(_) => Ok(()),
            None => Err(
                "0 is no timeout there. Flowpin's default holds; 20 days are the longest that can be said."
                    .into(),
            ),
        }
    }

    fn balance(&mut self, directive: &Directive, at: Id, notes: &mut Vec<Note>) -> Result<(), String> {
        let args: Vec<&str> = directive.args().iter().map(String::as_str).collect();
        let name = args.first().copied().unwrap_or_default();
        (self.hashed, self.algorithm) = (None, None);
        match (name, args.get(1).copied()) {
            ("leastconn", _) => {}
            ("source", _) | ("hash", Some("src")) => {
                self.algorithm = Some(Said::new(Algorithm::ConsistentHash, at));
                self.hashed = Some(at);
                return Ok(());
            }
            ("roundrobin" | "static-rr", _) => {
                self.algorithm = Some(Said::new(Algorithm::RoundRobin, at));
                return Ok(());
            }
            ("random(1)", _) => {
                self.algorithm = Some(Said::new(Algorithm::WeightedRandom, at));
                return Ok(());
            }
            ("first", _) => notes.push(Note::new(
                at,
                "Flowpin fills no backend before the next: least-connections is written. Drain those that \
                 are to be off.",
            )),
            _ if name.starts_with("random") => {
                notes.push(Note::new(
                    at,
                    "Of all backends the one with the fewest connections is taken, not of some by chance.",
                ));
            }
            _ => {
                return Err("It looks into requests, and Flowpin balances connections: least-connections, \
                            its default, is taken. Keep HAProxy behind it where the data decides."
                    .into());
            }
        }
        self.algorithm = Some(Said::new(Algorithm::LeastConnections, at));
        Ok(())
    }

    /// `stick on src`, and whatever else says that a client's address decides.
    fn stick(&mut self, directive: &Directive, at: Id) -> Result<(), String> {
        let args: Vec<&str> = directive.args().iter().map(String::as_str).collect();
        let plain = |rest: &[&str]| matches!(rest, [] | ["table", _]);
        match args.as_slice() {
            ["on" | "match" | "store-request", "src" | "src,ipmask(32)", rest @ ..] if plain(rest) => {
                self.stick.get_or_insert(at);
                self.table.push(at);
                Ok(())
            }
            [.., "if" | "unless", _] => Err("Affinity is for all clients of a service, under no \
                                             condition."
                .into()),
            _ => Err("Flowpin binds clients by their addresses, not by what they send: affinity = { \
                      client_ip = true } comes nearest."
                .into()),
        }
    }

    fn stick_table(&mut self, account: &mut Account, directive: &Directive, notes: &mut Vec<Note>) {
        let at = account.open(directive.line, "stick-table");
        self.table.push(at);
        let mut params = Params::new(directive, "stick-table", 1);
        let values = |word: &str| usize::from(!matches!(word, "nopurge" | "recv-only"));
        while let Some(param) = params.take(account, values) {
            let at = param.at;
            let kept = match (param.name, param.value()) {
                ("type", "ip" | "ipv6") => {
                    self.table.push(at);
                    Ok(())
                }
                ("expire", text) => haproxy_time(text).map(|time| self.expire = Some(Said::new(time, at))),
                ("type" | "len", _) => Err("Flowpin's table is of addresses.".to_string()),
                ("size", _) => Err("There is one table for all services: conntrack.max_clients says its \
                                    size, 262144 unless given."
                    .into()),
                ("peers", _) => Err("Nodes don't share what clients are bound to.".into()),
                ("store", _) => Err("The table keeps to which backend a client is bound, and nothing \
                                     else."
                    .into()),
                ("nopurge", _) => Err("A client is forgotten when its time is over, not for another's \
                                       sake."
                    .into()),
                _ => Err("It is about counting and sharing, which Flowpin's table isn't for.".into()),
            };
            if let Err(remedy) = kept {
                notes.push(Note::new(at, remedy));
            }
        }
    }

    /// Affinity as a service has it.
    pub fn affinity(&mut self, account: &mut Account) -> Option<Affinity> {
        let at = self.stick.or(self.hashed)?;
        if self.stick.is_some() {
            self.table.iter().for_each(|id| account.like(*id, at));
            if let Some(hashed) = self.hashed {
                account.like(hashed, at);
            }
        }
        let timeout = self.expire.take_if(|_| self.stick.is_some());
        Some(Affinity { at, timeout, ipv6_prefix: None })
    }
}
