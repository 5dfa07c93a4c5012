//! `server`, `server-template` and `default-server`.

use std::time::Duration;

use super::remedies::{SERVER, remedy};
use crate::{
    account::{Account, Id, Note, Said},
    directive::{Directive, Params},
    model::{Backend, Host},
    values::{address, haproxy_time, host, number, port},
};

/// Parameters without a value.
const SWITCHES: [&str; 44] = [
    "agent-check",
    "allow-0rtt",
    "backup",
    "check",
    "check-reuse-pool",
    "check-send-proxy",
    "check-sni-auto",
    "check-ssl",
    "check-via-socks4",
    "disabled",
    "enabled",
    "force-sslv3",
    "force-tlsv10",
    "force-tlsv11",
    "force-tlsv12",
    "force-tlsv13",
    "no-agent-check",
    "no-backup",
    "no-check",
    "no-check-reuse-pool",
    "no-check-sni-auto",
    "no-check-ssl",
    "no-renegotiate",
    "no-send-proxy",
    "no-send-proxy-v2",
    "no-send-proxy-v2-ssl",
    "no-send-proxy-v2-ssl-cn",
    "no-sni-auto",
    "no-ssl",
    "no-ssl-reuse",
    "no-tfo",
    "no-tls-tickets",
    "no-verifyhost",
    "non-stick",
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "sni-auto",
    "ssl",
    "ssl-reuse",
    "stick",
    "strict-maxconn",
    "tfo",
];

/// What the parameters of a server say.
#[derive(Clone, Default)]
pub struct Server {
    pub check: Option<Id>,
    pub inter: Option<Said<Duration>>,
    pub rise: Option<Said<u32>>,
    pub fall: Option<Said<u32>>,
    pub port: Option<Said<u16>>,
    /// Where it is checked, if not where it is.
    pub addr: Option<Said<Host>>,
    /// Speaks TLS, by itself or to checks alone.
    pub tls: bool,
    weight: Option<Said<u64>>,
    limit: Option<Said<u64>>,
    backup: Option<Id>,
    disabled: Option<Id>,
    slow_start: Option<Said<Duration>>,
    resolve: Vec<Id>,
    reset: Option<Id>,
    pub transparent: Option<Id>,
    /// Items that say no more than that it is checked.
    pub same: Vec<Id>,
}

fn known(word: &str) -> bool {
    let taken = [
        "inter",
        "rise",
        "fall",
        "port",
        "addr",
        "weight",
        "maxconn",
        "slowstart",
        "resolvers",
        "on-marked-down",
        "usesrc",
    ];
    taken.contains(&word)
        || SERVER.iter().any(|(names, _)| names.split_whitespace().any(|known| known == word))
}

impl Server {
    /// Takes parameters from the `from`th word on; what was said before holds where they don't say otherwise.
    pub fn parameters(
        &mut self,
        account: &mut Account,
        directive: &Directive,
        head: &str,
        from: usize,
        notes: &mut Vec<Note>,
    ) {
        let mut params = Params::new(directive, head, from);
        while let Some(param) =
            params.take(account, |word| usize::from(!SWITCHES.contains(&word) && known(word)))
        {
            let (at, text) = (param.at, param.value());
            let kept = match (param.name, text) {
                ("check", _) => {
                    self.check = Some(at);
                    Ok(())
                }
                ("no-check", _) => {
                    self.check = None;
                    Err("It isn't checked there. Flowpin checks all backends of a service, or none."
                        .to_string())
                }
                ("inter", _) => haproxy_time(text).map(|time| self.inter = Some(Said::new(time, at))),
                ("rise", _) => number(text).map(|count| self.rise = Some(Said::new(count, at))),
                ("fall", _) => number(text).map(|count| self.fall = Some(Said::new(count, at))),
                ("addr", _) => {
                    self.addr = Some(Said::new(host(text), at));
                    Ok(())
                }
                ("port", _) => port(text).map(|port| self.port = Some(Said::new(port, at))),
                ("weight", _) => number(text).map(|weight| self.weight = Some(Said::new(weight, at))),
                ("maxconn", _) => number(text).map(|limit| self.limit = Some(Said::new(limit, at))),
                ("slowstart", _) => {
                    haproxy_time(text).map(|time| self.slow_start = Some(Said::new(time, at)))
                }
                ("on-marked-down", "shutdown-sessions") => {
                    self.reset = Some(at);
                    Ok(())
                }
                ("resolvers", _) => {
                    self.resolve.push(at);
                    Ok(())
                }
                ("backup", _) => {
                    self.backup = Some(at);
                    Ok(())
                }
                ("no-backup", _) => {
                    self.unset(account, at, |server| server.backup = None);
                    Ok(())
                }
                ("disabled", _) => {
                    self.disabled = Some(at);
                    Ok(())
                }
                ("enabled", _) => {
                    self.unset(account, at, |server| server.disabled = None);
                    Ok(())
                }
                ("check-ssl", _) => {
                    self.tls = true;
                    self.same.push(at);
                    Ok(())
                }
                ("no-check-ssl" | "no-ssl", _) => {
                    self.unset(account, at, |server| server.tls = false);
                    Ok(())
                }
                ("ssl", _) => {
                    self.tls = true;
                    Err(remedy(&SERVER, "ssl").into())
                }
                ("usesrc", "clientip" | "client") => {
                    self.transparent = Some(at);
                    Ok(())
                }
                (name, _) => Err(remedy(&SERVER, name).into()),
            };
            if let Err(remedy) = kept {
                notes.push(Note::new(at, remedy));
            }
        }
    }

    /// Takes back what a `default-server` said.
    fn unset(&mut self, account: &mut Account, at: Id, change: impl Fn(&mut Self)) {
        change(self);
        account.translate(at);
    }

    /// Gives to a backend what isn't its check.
    pub fn give(&self, backend: &mut Backend) {
        backend.weight = self.weight.clone();
        backend.max_connections = self.limit.clone();
        backend.backup = self.backup;
        backend.down = self.disabled;
        backend.slow_start = self.slow_start.clone();
        backend.resolve.clone_from(&self.resolve);
        backend.reset_unhealthy = self.reset;
    }
}

/// A server of a proxy.
pub struct Declared {
    pub backend: Backend,
    pub server: Server,
    /// `:+1000`: so far from the port that the client used.
    pub offset: Option<i32>,
}

/// `server NAME ADDRESS ...`, `server-template PREFIX COUNT ADDRESS ...`
pub fn declared(account: &mut Account, directive: &Directive, defaults: &Server) -> Declared {
    let template = directive.name() == "server-template";
    let place = if template { 3 } else { 2 };
    let word = |n: usize| directive.words.get(n).map_or("", String::as_str);
    let head = format!("{} {}", directive.name(), word(1));
    let at = account.open(directive.line, &directive.words[..directive.words.len().min(place + 1)].join(" "));
    let (mut backend, offset) = address_of(at, word(place));
    backend.name = Some(word(1).into());
    let mut server = defaults.clone();
    server.parameters(account, directive, &head, place + 1, &mut backend.notes);
    server.give(&mut backend);
    if template {
        backend.note(
            at,
            "Each address that the name has is a backend, however many there are, and is followed by its TTL.",
        );
    }
    if word(place).is_empty() {
        backend.turn_off(at, "It names no address: write one, and uncomment it.");
    }
    Declared { backend, server, offset }
}

/// `ADDRESS[:PORT]`; the port may be relative to the client's.
fn address_of(at: Id, text: &str) -> (Backend, Option<i32>) {
    let bare = ["ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text);
    if bare.starts_with('/') || bare.contains('@') {
        let mut backend = Backend::new(at, Host::Name(text.into()), None);
        backend.turn_off(
            at,
            "Packets can't be sent to a socket of the node: have the server listen at an address, and \
             write that.",
        );
        return (backend, None);
    }
    // The last colon is the port's, also of an IPv6 address, unless what is before it is none.
    let parts = bare.rsplit_once(':').filter(|(host, _)| !host.contains(':') || address(host).is_some());
    let (name, text) = parts.map_or((bare, None), |(host, port)| (host, Some(port)));
    let mut backend = Backend::new(at, host(name), None);
    match text {
        None | Some("") => {}
        Some(text) if text.starts_with(['+', '-']) => match text.parse() {
            Ok(offset) => return (backend, Some(offset)),
            Err(_) => backend.turn_off(at, format!("{text:?} is no distance of ports.")),
        },
        Some(text) => match port(text) {
            Ok(port) => backend.port = Some(port),
            Err(remedy) => backend.turn_off(at, remedy),
        },
    }
    (backend, None)
}
