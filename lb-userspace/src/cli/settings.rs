//! The settings of a service as flags: a row each, of which the flags of `service add` and `service set`, what they say to the
//! agent, and what `--default` takes back are made.

use std::collections::BTreeSet;

use clap::{
    Arg, ArgAction, ArgGroup, ArgMatches, Command, Error, FromArgMatches,
    builder::{NonEmptyStringValueParser, PossibleValuesParser},
    error::ErrorKind,
};
use lb_cluster::rebalance::Budget;
use serde_json::{Map, Value, json};

use super::frontend::{forward, frontend};
use crate::{
    api::types::{ForwardDecl, FrontendDecl, Patch, StepDecl},
    source::decl::health::{OF_TYPE, TYPES},
};

/// What a flag takes.
#[derive(Clone, Copy)]
enum Kind {
    /// Text, or a duration: the agent says what is wrong with it.
    Text,
    /// One of these.
    Word(&'static [&'static str]),
    /// A whole number.
    Number,
    /// Any number.
    Real,
    /// A budget, or `none`.
    Rebalance,
    /// `true` or `false`.
    Switch,
    /// Text, any number of times.
    List,
    /// Text, or a list if it is given several times.
    Paths,
    /// Addresses: the first, and further ones.
    Vips,
    /// `client-ip`, or `none`.
    Affinity,
    /// A type of health checks, with which those settings go that it doesn't have.
    Health,
    /// Steps of a conversation.
    Talk,
    /// How packets go.
    Forward,
    /// Further frontends.
    Frontends,
}

/// A row.
struct Setting {
    /// The flag, without its dashes.
    flag: &'static str,
    /// Where it is in a declaration.
    key: &'static [&'static str],
    kind: Kind,
    /// What its value is called.
    value: &'static str,
    help: &'static str,
}

const fn row(
    flag: &'static str,
    key: &'static [&'static str],
    kind: Kind,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting { flag, key, kind, value, help }
}

const FATE: Kind = Kind::Word(&["keep", "reset"]);

/// All of them. A flag's help is under the heading of the declaration's table that it is in.
#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    row("vip", &["vip"], Kind::Vips, "ADDRESS", "Virtual address that clients connect to, IPv4 or IPv6; 0.0.0.0 or :: for all of the node's own; may be given several times"),
    row("vip-except", &["vip_except"], Kind::List, "ADDRESS", "An address of the node's to leave out of all; may be given several times"),
    row("source-range", &["source_ranges"], Kind::List, "PREFIX", "Take connections from there only, as 10.0.0.0/8; may be given several times [default: from everywhere]"),
    row("deny-range", &["deny_ranges"], Kind::List, "PREFIX", "Take no connections from there, also if --source-range has it; may be given several times [default: from nowhere]"),
    row("port", &["ports"], Kind::List, "PORT[:TARGET]/PROTOCOL", "Port or range with its protocol, as 5432/tcp, 53/udp or 8001-8003/tcp, or with the backends' port, as 80:8080/tcp; may be given several times"),
    row("scope", &["scope"], Kind::Word(&["all", "local"]), "SCOPE", "Which backends connections from elsewhere may go to: all, or those of this node [default: all]"),
    row("forward", &["forward"], Kind::Forward, "HOW", "How packets get to backends: nat, snat, dsr-l2 or dsr-ipip, or by where they come from, as pod=nat,elsewhere=snat [default: nat]"),
    row("frontend", &["frontends"], Kind::Frontends, "KEY=VALUE,...", "Another frontend, as address=192.0.2.10,port=80:8080/tcp,scope=local; may be given several times"),
    row("stray", &["stray"], Kind::Word(&["reset", "forward", "pass"]), "ANSWER", "What happens to a packet of a connection that isn't known: it is answered with a reset, or forwarded to a backend, or the stack gets it [default: reset; with consistent-hash: forward]"),
    row("algorithm", &["algorithm"], Kind::Word(&["least-connections", "consistent-hash", "round-robin", "weighted-random"]), "ALGORITHM", "How a backend is chosen for a new connection: the one with the fewest active connections for its weight; (Maglev) the same for the same client, on every node; one after the other; or by lot [default: least-connections]"),
    row("affinity", &["affinity"], Kind::Affinity, "BY", "Keep all connections of a client at one backend: client-ip, by the client's address, or none [default: none]"),
    row("affinity-timeout", &["affinity", "timeout"], Kind::Text, "DURATION", "How long after its last connection a client is remembered [default: 3h]"),
    row("affinity-group", &["affinity", "group"], Kind::Text, "GROUP", "Services that name the same group send a client to the same backend"),
    row("affinity-by", &["affinity", "by"], Kind::Word(&["service", "port"]), "WHAT", "What a client is bound at: the service, or each port by itself [default: service]"),
    row("affinity-ipv6-prefix", &["affinity", "ipv6_prefix"], Kind::Number, "BITS", "How many bits of an IPv6 address make a client [default: 128]"),
    row("affinity-bound", &["affinity", "bound"], Kind::Number, "N", "Connections of one client beyond which further ones are balanced like any other's [default: no bound]"),
    row("timeout-idle", &["timeouts", "idle"], Kind::Text, "DURATION", "Close connections that are silent in both directions for so long [default: 24h; UDP 60s]"),
    row("timeout-client-request", &["timeouts", "client_request"], Kind::Text, "DURATION", "Close TCP connections whose client has not sent anything by then [default: never]"),
    row("timeout-backend-response", &["timeouts", "backend_response"], Kind::Text, "DURATION", "Close TCP connections whose backend owes an answer for so long, up to 30min [default: never]"),
    row("timeout-max-age", &["timeouts", "max_age"], Kind::Text, "DURATION", "Close TCP connections that are so old, whatever they do [default: never]"),
    row("timeout-half-open", &["timeouts", "half_open"], Kind::Text, "DURATION", "Forget TCP connections that aren't open by then [default: 10s]"),
    row("timeout-half-closed", &["timeouts", "half_closed"], Kind::Text, "DURATION", "Close TCP connections that one side has closed and that are silent for so long [default: 1h]"),
    row("timeout-udp", &["timeouts", "udp"], Kind::Text, "DURATION", "Forget UDP flows that are silent in both directions for so long [default: 60s, or as idle]"),
    row("health", &["health"], Kind::Health, "TYPE", "How backends are checked: tcp, http, https, grpc, udp, redis, postgres, mysql or none [default: none]"),
    row("health-port", &["health", "port"], Kind::Number, "PORT", "The port that is checked [default: the backend's own]"),
    row("health-interval", &["health", "interval"], Kind::Text, "DURATION", "From one check to the next [default: 2s]"),
    row("health-timeout", &["health", "timeout"], Kind::Text, "DURATION", "How long an answer may take [default: 1s]"),
    row("health-rise", &["health", "rise"], Kind::Number, "N", "Good checks in a row that bring a backend back [default: 2]"),
    row("health-fall", &["health", "fall"], Kind::Number, "N", "Bad checks in a row that take a backend out [default: 3]"),
    row("health-path", &["health", "path"], Kind::Paths, "PATH", "HTTP and HTTPS: what is asked for; may be given several times: each must be answered with a good status [default: /]"),
    row("health-host", &["health", "host"], Kind::Text, "HOST", "HTTP and HTTPS: the host that is asked for [default: the backend's address]"),
    row("health-expect", &["health", "expect"], Kind::Text, "STATUS", "HTTP and HTTPS: the status that is good, or several, as 200-399 or 200,404 [default: 200]"),
    row("health-service", &["health", "service"], Kind::Text, "NAME", "gRPC: the service that is asked about [default: the server as a whole]"),
    row("health-send", &["health", "send"], Kind::Text, "TEXT", "UDP: what is sent to the backend, which must answer [default: an empty datagram, which it mustn't refuse]"),
    row("health-talk", &["health", "talk"], Kind::Talk, "STEP", "TCP: what is said to the backend and what it must answer, step by step: send=TEXT, expect=TEXT or matches=REGEX, with \\r \\n \\xNN; may be given several times [default: nothing, a connection is enough]"),
    row("health-user", &["health", "user"], Kind::Text, "USER", "Redis, PostgreSQL, MySQL: who logs in; PostgreSQL needs one"),
    row("health-password", &["health", "password"], Kind::Text, "PASSWORD", "Redis, and PostgreSQL with a role: the password; users of the node can see a command's arguments while it runs, the config file can be kept from them"),
    row("health-database", &["health", "database"], Kind::Text, "NAME", "PostgreSQL: the database [default: the one named as the user]"),
    row("health-role", &["health", "role"], Kind::Text, "ROLE", "Redis: master or replica, PostgreSQL: primary or standby: what the backend must be [default: either]"),
    row("health-passive", &["health", "passive"], Kind::Switch, "BOOL", "Whether refused and unanswered connections of clients take a backend out as well [default: true]"),
    row("health-panic", &["health", "panic"], Kind::Number, "PERCENT", "Use all backends if fewer are healthy [default: 0: never]"),
    row("service-max-connections", &["service_max_connections"], Kind::Number, "N", "Refuse new connections while the service as a whole has so many open, over all its backends and addresses [default: no limit]"),
    row("quorum", &["quorum"], Kind::Number, "WEIGHT", "What healthy backends must weigh together, backups aside; with less, backups get new clients, or nobody does [default: 1: one backend is enough]"),
    row("rebalance", &["rebalance"], Kind::Rebalance, "BUDGET", "Move idle connections from the fullest backends to others, at most this part of all in a minute, as 1%/min, or none: both ends are reset, and clients must connect again [default: none]"),
    row("rebalance-idle", &["rebalance", "idle"], Kind::Text, "DURATION", "How long they have been silent in both directions [default: 30s]"),
    row("rebalance-above", &["rebalance", "above"], Kind::Real, "RATIO", "Begin when the fullest backend has more than so many times the mean [default: 1.2]"),
    row("slow-start", &["slow_start"], Kind::Text, "DURATION", "How long a backend that is new, undrained or healthy again takes to get all its weight [default: it has it at once]"),
    row("on-removal", &["on_removal", "policy"], Kind::Word(&["keep", "drain", "reset"]), "POLICY", "What becomes of open connections of a backend that is removed [default: they stay, and UDP flows go to another]"),
    row("on-removal-deadline", &["on_removal", "deadline"], Kind::Text, "DURATION", "How long connections of a backend that is removed may go on: what is open then is reset [default: until they end]"),
    row("on-unhealthy", &["on_unhealthy"], FATE, "POLICY", "What becomes of open connections of a backend that fails its health checks [default: they stay, and UDP flows go to another]"),
    row("on-deadline", &["on_deadline"], FATE, "POLICY", "What becomes of open connections of a backend whose drain's deadline has passed [default: they stay, and UDP flows go to another]"),
];

/// What a service can't be without.
const NEEDED: [&str; 2] = ["vip", "port"];

impl Setting {
    fn heading(&self) -> Option<&'static str> {
        match self.key[0] {
            "affinity" => Some("Affinity"),
            "timeouts" => Some("Timeouts (durations like 90s, 15m or 3h)"),
            "health" => Some("Health checks"),
            "rebalance" => Some("Rebalancing"),
            "quorum" | "slow_start" | "on_removal" | "on_unhealthy" | "on_deadline" => {
                Some("Backends that come and go")
            }
            _ => None,
        }
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.flag)
            .long(self.flag)
            .value_name(self.value)
            .help(self.help)
            .help_heading(self.heading())
            .allow_negative_numbers(true);
        match self.kind {
            Kind::Text => arg.value_parser(NonEmptyStringValueParser::new()),
            Kind::Word(words) => {
                arg.value_parser(PossibleValuesParser::new(words)).hide_possible_values(true)
            }
            Kind::Number => arg.value_parser(clap::value_parser!(i64)),
            Kind::Real => arg.value_parser(clap::value_parser!(f64)),
            Kind::Rebalance => arg.value_parser(budget),
            Kind::Switch => arg.value_parser(clap::value_parser!(bool)).hide_possible_values(true),
            Kind::List | Kind::Paths | Kind::Vips => arg.action(ArgAction::Append),
            Kind::Affinity => arg.value_parser(["client-ip", "none"]).hide_possible_values(true),
            Kind::Health => arg.value_parser(TYPES).hide_possible_values(true),
            Kind::Talk => arg.value_parser(step).action(ArgAction::Append),
            Kind::Forward => arg.value_parser(forward),
            Kind::Frontends => arg.value_parser(frontend).action(ArgAction::Append),
        }
    }

    /// Puts what was given into a patch.
    fn put(&self, matches: &ArgMatches, patch: &mut Patch) {
        let text = || matches.get_one::<String>(self.flag).cloned().unwrap_or_default();
        let texts = || matches.get_many::<String>(self.flag).into_iter().flatten().cloned();
        let value = match self.kind {
            Kind::Text | Kind::Word(_) => json!(text()),
            Kind::Number => json!(matches.get_one::<i64>(self.flag)),
            Kind::Real => json!(matches.get_one::<f64>(self.flag)),
            Kind::Rebalance if text() == "none" => Value::Null,
            Kind::Rebalance => return place(patch, &["rebalance", "budget"], json!(text())),
            Kind::Switch => json!(matches.get_one::<bool>(self.flag)),
            Kind::List => json!(texts().collect::<Vec<_>>()),
            Kind::Paths if texts().count() == 1 => json!(text()),
            Kind::Paths => json!(texts().collect::<Vec<_>>()),
            Kind::Vips => {
                let mut vips = texts();
                let first = json!(vips.next());
                let more: Vec<String> = vips.collect();
                place(patch, &["vips"], if more.is_empty() { Value::Null } else { json!(more) });
                first
            }
            Kind::Affinity if text() == "none" => Value::Null,
            Kind::Affinity => return place(patch, &["affinity", "client_ip"], json!(true)),
            Kind::Health if text() == "none" => Value::Null,
            Kind::Health => {
                let kind = text();
                for (key, _) in OF_TYPE.iter().filter(|(_, types)| !types.contains(&kind.as_str())) {
                    place(patch, &["health", key], Value::Null);
                }
                return place(patch, &["health", "type"], json!(kind));
            }
            Kind::Talk => {
                json!(matches.get_many::<StepDecl>(self.flag).into_iter().flatten().collect::<Vec<_>>())
            }
            Kind::Forward => json!(matches.get_one::<ForwardDecl>(self.flag)),
            Kind::Frontends => {
                json!(matches.get_many::<FrontendDecl>(self.flag).into_iter().flatten().collect::<Vec<_>>())
            }
        };
        place(patch, self.key, value);
    }

    /// Takes it back.
    fn take_back(&self, patch: &mut Patch) {
        match self.kind {
            // A word by itself is the whole of it.
            Kind::Affinity | Kind::Health | Kind::Rebalance => {
                drop(patch.insert(self.key[0].into(), Value::Null))
            }
            _ => place(patch, self.key, Value::Null),
        }
    }
}

/// Puts a value where it belongs.
fn place(patch: &mut Patch, key: &[&str], value: Value) {
    match key {
        [] => {}
        [last] => drop(patch.insert((*last).into(), value)),
        [first, rest @ ..] => {
            let inner = patch.entry(*first).or_insert_with(|| json!({}));
            // A whole that was taken back stays so, unless something of it is given.
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Some(inner) = inner.as_object_mut() {
                place(inner, rest, value);
            }
        }
    }
}

/// `1%/min` or `none`
fn budget(text: &str) -> Result<String, String> {
    if text != "none" {
        text.parse::<Budget>().map_err(|_| "write a part of all connections a minute, as 1%/min, or none")?;
    }
    Ok(text.into())
}

/// `send=PING\r\n`
fn step(text: &str) -> Result<StepDecl, String> {
    let text_of = |key| text.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')).map(String::from);
    let step = StepDecl { send: text_of("send"), expect: text_of("expect"), matches: text_of("matches") };
    let some = step != StepDecl::default();
    some.then_some(step).ok_or_else(|| "write send=TEXT, expect=TEXT or matches=REGEX".into())
}

fn given(matches: &ArgMatches, flag: &str) -> bool {
    matches.try_contains_id(flag).unwrap_or(false)
}

fn patch(matches: &ArgMatches) -> Patch {
    let mut patch = Patch::new();
    for setting in SETTINGS.iter().filter(|setting| given(matches, setting.flag)) {
        setting.put(matches, &mut patch);
    }
    patch
}

/// The settings of a service that is made.
#[derive(Clone, Debug)]
pub struct Settings(pub Patch);

impl clap::Args for Settings {
    fn augment_args(command: Command) -> Command {
        let whole =
            |setting: &Setting| matches!(setting.kind, Kind::Affinity | Kind::Health | Kind::Rebalance);
        let args = SETTINGS.iter().map(|setting| {
            let arg = setting.arg().required(NEEDED.contains(&setting.flag));
            match setting.key {
                // Half of something is likely a slip.
                [table, _] => match SETTINGS.iter().find(|other| other.key == [*table] && whole(other)) {
                    Some(other) => arg.requires(other.flag),
                    None => arg,
                },
                _ => arg,
            }
        });
        command.args(args).mut_arg("affinity-group", |arg| arg.conflicts_with("affinity-by"))
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut patch = patch(matches);
        patch.retain(|_, value| !value.is_null());
        Ok(Self(patch))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A change of the settings of a service.
#[derive(Clone, Debug)]
pub struct Change(pub Patch);

/// The flag that takes back.
const DEFAULT: &str = "default";

impl clap::Args for Change {
    fn augment_args(command: Command) -> Command {
        let optional = || SETTINGS.iter().filter(|setting| !NEEDED.contains(&setting.flag));
        let words = PossibleValuesParser::new(optional().map(|setting| setting.flag));
        let default = Arg::new(DEFAULT)
            .long(DEFAULT)
            .value_name("SETTING,...")
            .help("Take settings back, by the names of their flags, as slow-start,health: each is what it is by default; may be given several times")
            .value_parser(words)
            .hide_possible_values(true)
            .value_delimiter(',')
            .action(ArgAction::Append);
        let some = ArgGroup::new("change")
            .args(SETTINGS.iter().map(|setting| setting.flag))
            .arg(DEFAULT)
            .required(true)
            .multiple(true);
        command.args(SETTINGS.iter().map(Setting::arg)).arg(default).group(some)
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Change {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let words: BTreeSet<&String> = matches.get_many::<String>(DEFAULT).into_iter().flatten().collect();
        let mut change = Patch::new();
        for setting in SETTINGS.iter().filter(|setting| words.iter().any(|word| *word == setting.flag)) {
            if given(matches, setting.flag) {
                let flag = setting.flag;
                let text = format!("--{flag} is given, and \"{flag}\" is to be taken back; leave one out\n");
                return Err(Error::raw(ErrorKind::ArgumentConflict, text));
            }
            setting.take_back(&mut change);
        }
        for (key, value) in patch(matches) {
            match (change.get_mut(&key), value) {
                (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
                (_, value) => drop(change.insert(key, value)),
            }
        }
        Ok(Self(change))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
