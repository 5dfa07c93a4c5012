//! The API's views as people read them: tables that more than one command prints.

use serde_json::Value;

use super::output::{Table, bytes, count, duration, or_dash, plural, yes};
use crate::{
    api::types::{BackendView, ForwardDecl, FrontendView, ServiceDecl, ServiceView},
    model::readable::readable,
};

/// `draining (4m10s left)`
fn state(backend: &BackendView) -> String {
    match backend.drain_deadline_seconds.filter(|_| backend.active_connections > 0) {
        Some(left) if left > 0.0 => format!("{} ({} left)", backend.state, duration(left)),
        Some(_) => format!("{} (past its deadline)", backend.state),
        None if backend.one_way => format!("{} (one-way)", backend.state),
        None => backend.state.clone(),
    }
}

/// `yes (unchecked)`
fn health(backend: &BackendView) -> String {
    if backend.healthy && backend.unchecked { "yes (unchecked)".into() } else { yes(backend.healthy) }
}

fn list<T: ToString>(items: &[T], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// Where a frontend is: `10.96.0.10, fd00::10 port 80:8080/tcp`.
pub fn place(frontend: &FrontendView) -> String {
    format!("{} port {}", list(&frontend.addresses, ", "), frontend.ports.join(", "))
}

/// The first address, and how many more there are: `10.96.0.10 +2`.
pub fn vip(service: &ServiceView) -> String {
    let count: usize = service.frontends.iter().map(|frontend| frontend.addresses.len()).sum();
    match count {
        0 | 1 => service.vip.to_string(),
        _ => format!("{} +{}", service.vip, count - 1),
    }
}

/// How packets go: `snat`, or `nat from pods, snat from elsewhere`.
pub fn way(forward: &ForwardDecl) -> String {
    match forward {
        ForwardDecl::Word(word) => word.clone(),
        ForwardDecl::BySource(by) => {
            let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "nat".into());
            format!("{} from pods, {} from elsewhere", word(&by.pod), word(&by.elsewhere))
        }
    }
}

/// What has a line or a column of its own.
const SHOWN: [&str; 11] = [
    "name",
    "vip",
    "vips",
    "vip_except",
    "source_ranges",
    "deny_ranges",
    "ports",
    "scope",
    "forward",
    "algorithm",
    "frontends",
];

/// What `service show` says in lines of its own.
const ABOVE: [&str; 2] = ["stray", "service_max_connections"];

/// All else that is declared of a service, by name: `timeouts`, `idle 15h, udp 3m`.
pub fn settings(declared: &ServiceDecl) -> Vec<(String, String)> {
    // A declaration is always an object.
    let Ok(Value::Object(all)) = serde_json::to_value(declared) else { return Vec::new() };
    all.into_iter()
        .filter(|(key, _)| !SHOWN.contains(&key.as_str()))
        .map(|(key, value)| {
            let text = match &value {
                Value::Object(parts) => {
                    let mut parts: Vec<_> = parts.iter().collect();
                    // What it is goes first.
                    parts.sort_by_key(|(key, _)| !matches!(key.as_str(), "type" | "client_ip"));
                    parts.into_iter().map(part).collect::<Vec<_>>().join(", ")
                }
                value => plain(value),
            };
            (key, text)
        })
        .collect()
}

/// `idle 15h`; a type, and a switch that is on, speak for themselves.
fn part((key, value): (&String, &Value)) -> String {
    let key_text = key.replace('_', " ");
    match value {
        Value::Bool(true) => key_text,
        Value::Bool(false) => format!("not {key_text}"),
        value if key == "type" => plain(value),
        value => format!("{key_text} {}", plain(value)),
    }
}

/// Only durations have a fraction, if it is 0.
fn plain(value: &Value) -> String {
    match value {
        // What a check sends may have line ends in it, and what a terminal obeys.
        Value::String(text) => text.escape_debug().to_string(),
        Value::Number(number) if number.is_f64() => number.as_f64().map(pause).unwrap_or_default(),
        Value::Array(steps) => {
            let parts = steps.iter().flat_map(|part| match part {
                Value::Object(steps) => steps.iter().map(step).collect(),
                path => vec![plain(path)],
            });
            format!("[{}]", parts.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A step of a conversation, with the escapes that it is written with: `send PING\r\n`.
fn step((key, value): (&String, &Value)) -> String {
    format!("{key} {}", readable(value.as_str().unwrap_or_default()))
}

/// A setting's duration: below a second it has parts.
fn pause(seconds: f64) -> String {
    if (0.001..1.0).contains(&seconds) { format!("{}ms", (seconds * 1e3).round()) } else { duration(seconds) }
}

/// A backend's weight, and whether it is a backup.
pub fn weight(weight: u16, backup: bool) -> String {
    if backup { format!("{weight} backup") } else { weight.to_string() }
}

/// A line per service.
pub fn services(services: &[ServiceView]) -> String {
    if services.is_empty() {
        return "no services; add one to the config file or with \"flowpin service add\"".into();
    }
    let mut table = Table::new(&[
        "NAME",
        "VIP",
        "PORTS",
        "ALGORITHM",
        "ORIGIN",
        ">BACKENDS",
        ">IN USE",
        ">ACTIVE",
        ">TOTAL",
    ]);
    for s in services {
        let in_use = s.backends.iter().filter(|b| b.state == "active" && b.healthy).count();
        table.row([
            s.name.clone(),
            vip(s),
            s.ports.join(","),
            s.algorithm.clone(),
            s.origin.clone(),
            count(s.backends.len() as u64),
            count(in_use as u64),
            count(s.backends.iter().map(|b| b.active_connections).sum()),
            count(s.backends.iter().map(|b| b.total_connections).sum()),
        ]);
    }
    table.to_string()
}

/// A line per backend of each service.
pub fn backends(services: &[ServiceView]) -> String {
    // Beside those that everybody has, so that these stay where they are.
    let hosts = services.iter().flat_map(|s| &s.backends).any(|b| b.host.is_some());
    let columns = [
        "SERVICE", "BACKEND", ">WEIGHT", ">LIMIT", "LOCAL", "STATE", "HEALTHY", "ORIGIN", ">ACTIVE",
        ">OLDEST", ">TOTAL", "HOST",
    ];
    let mut table = Table::new(&columns[..columns.len() - usize::from(!hosts)]);
    let mut empty = true;
    for s in services {
        for b in &s.backends {
            empty = false;
            let host = hosts.then(|| or_dash(b.host.clone()));
            let row = [
                s.name.clone(),
                b.address.clone(),
                weight(b.weight, b.backup),
                or_dash(b.max_connections.map(|n| count(n.into()))),
                yes(b.local),
                state(b),
                health(b),
                b.origin.clone(),
                count(b.active_connections),
                or_dash(b.oldest_seconds.map(duration)),
                count(b.total_connections),
            ];
            table.row(row.into_iter().chain(host));
        }
    }
    if empty { "no backends; add one with \"flowpin backend add\"".into() } else { table.to_string() }
}

/// The counters of each service and its backends.
pub fn counters(services: &[ServiceView]) -> String {
    if services.is_empty() {
        return self::services(services);
    }
    let mut table = Table::new(&[
        "SERVICE",
        "BACKEND",
        ">ACTIVE",
        ">TOTAL",
        ">PACKETS IN",
        ">BYTES IN",
        ">PACKETS OUT",
        ">BYTES OUT",
    ]);
    for s in services {
        let sum = |of: fn(&BackendView) -> u64| s.backends.iter().map(of).sum::<u64>();
        table.row([
            s.name.clone(),
            "(all)".into(),
            count(sum(|b| b.active_connections)),
            count(sum(|b| b.total_connections)),
            count(sum(|b| b.packets_in)),
            bytes(sum(|b| b.bytes_in)),
            count(sum(|b| b.packets_out)),
            bytes(sum(|b| b.bytes_out)),
        ]);
        for b in &s.backends {
            table.row([
                String::new(),
                b.address.clone(),
                count(b.active_connections),
                count(b.total_connections),
                count(b.packets_in),
                bytes(b.bytes_in),
                count(b.packets_out),
                bytes(b.bytes_out),
            ]);
        }
    }
    table.to_string()
}

/// What a backend is to clients, in a word.
pub fn standing(backend: &BackendView) -> &str {
    match backend {
        BackendView { healthy: false, .. } => "unhealthy",
        BackendView { one_way: true, .. } => "one-way",
        _ => &backend.state,
    }
}

/// One service with all that is known of it.
pub fn service(s: &ServiceView) -> String {
    let limit = s.declared.service_max_connections.and_then(|limit| u64::try_from(limit).ok());
    let active = match limit {
        Some(limit) => format!("{} / {}", count(s.active_connections), plural(limit, "connection")),
        None => plural(s.active_connections, "connection"),
    };
    let mut text = format!(
        "Name:       {}\nAlgorithm:  {}\nStray:      {}\nOrigin:     {}\nActive:     {active}\n",
        s.name, s.algorithm, s.stray, s.origin,
    );
    for frontend in &s.frontends {
        let FrontendView { addresses, ports, scope, source_ranges, deny_ranges, forward } = frontend;
        text.push_str(&format!(
            "Frontend:   {}\n  Ports:    {}\n  Scope:    {scope}\n  Forward:  {}\n",
            list(addresses, ", "),
            ports.join(", "),
            way(forward),
        ));
        if !source_ranges.is_empty() {
            text.push_str(&format!("  Sources:  {}\n", source_ranges.join(", ")));
        }
        if !deny_ranges.is_empty() {
            text.push_str(&format!("  Denied:   {}\n", deny_ranges.join(", ")));
        }
    }
    if !s.vip_except.is_empty() {
        let except: Vec<_> = s.vip_except.iter().collect();
        text.push_str(&format!("Except:     {}\n", list(&except, ", ")));
    }
    for (setting, value) in
        settings(&s.declared).into_iter().filter(|(setting, _)| !ABOVE.contains(&setting.as_str()))
    {
        let label = format!("{}{}:", setting[..1].to_uppercase(), setting[1..].replace('_', " "));
        text.push_str(&format!("{label:<12}{}{value}\n", if label.len() < 12 { "" } else { " " }));
    }
    if let Some(short) = &s.short_of_quorum {
        text.push_str(&format!("Down:       {short}\n"));
    }
    for warning in &s.warnings {
        text.push_str(&format!("Warning:    {warning}\n"));
    }
    for backend in s.backends.iter().filter(|backend| !backend.healthy) {
        // An agent that was started since knows that it is, and not why.
        let why = backend.last_health_check_failure.as_deref().unwrap_or("as an earlier agent found it");
        text.push_str(&format!("Unhealthy:  {}: {why}\n", backend.address));
    }
    for backend in s.backends.iter().filter(|backend| backend.one_way) {
        let what =
            "clients ask, and nothing comes back by this node; flowpin status says what may be in the way";
        text.push_str(&format!("One-way:    {}: {what}\n", backend.address));
    }
    text.push('\n');
    text.push_str(&backends(std::slice::from_ref(s)));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_conversation_is_shown_as_it_is_written() {
        let talk = json!([{"send": r"PING\r\n"}, {"expect": "+PONG"}, {"matches": "a\u{1b}"}]);
        let declared = json!({"ports": [], "health": {"type": "tcp", "port": 6379, "talk": talk}});
        let declared: ServiceDecl = serde_json::from_value(declared).expect("it can be read");
        let shown = r"tcp, port 6379, talk [send PING\r\n, expect +PONG, matches a\u{1b}]";
        assert_eq!(settings(&declared), [("health".to_string(), shown.to_string())]);
    }

    #[test]
    fn settings_of_several_parts_are_shown_as_they_are() {
        let declared = json!({"ports": [], "quorum": 2, "health": {"type": "http", "path": ["/live", "/ready"]},
                              "on_removal": {"policy": "drain", "deadline": 300.0}});
        let shown = settings(&serde_json::from_value(declared).expect("it can be read"));
        let shown: Vec<(&str, &str)> = shown.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let removal = "deadline 5m, policy drain";
        assert_eq!(
            shown,
            [("health", "http, path [/live, /ready]"), ("on_removal", removal), ("quorum", "2")]
        );
    }

    #[test]
    fn who_is_unhealthy_is_shown_with_the_reason() {
        let backend = |address: &str, why: Option<&str>| {
            json!({"address": address, "weight": 1, "max_connections": null, "state": "active", "healthy": why.is_none(),
                   "last_health_check_failure": why, "origin": "cli", "active_connections": 0, "total_connections": 0,
                   "packets_in": 0, "bytes_in": 0, "packets_out": 0, "bytes_out": 0})
        };
        let backends = [backend("10.0.1.1", None), backend("10.0.1.2", Some("is a replica, not a master"))];
        let view = json!({"name": "app", "vip": "10.96.0.10", "ports": ["80/tcp"], "algorithm": "least-connections",
                          "origin": "cli", "active_connections": 812,
                          "declared": {"ports": [], "service_max_connections": 10_000},
                          "backends": backends});
        let shown = service(&serde_json::from_value(view).expect("a service"));
        assert!(shown.contains("\nActive:     812 / 10,000 connections\n"), "{shown}");
        assert_eq!(shown.matches("Unhealthy:").count(), 1, "{shown}");
        assert!(shown.contains("\nUnhealthy:  10.0.1.2: is a replica, not a master\n"), "{shown}");
    }

    #[test]
    fn hosts_have_the_last_column_where_there_are_any() {
        let backend = |address: &str, host: Option<&str>| {
            json!({"address": address, "host": host, "weight": 1, "max_connections": null, "state": "active",
                   "healthy": true, "origin": "cli", "active_connections": 0, "total_connections": 0,
                   "packets_in": 0, "bytes_in": 0, "packets_out": 0, "bytes_out": 0})
        };
        let shown = |host: Option<&str>| {
            let all = [backend("10.0.1.1:5432", None), backend("10.0.1.2:5432", host)];
            let view = json!({"name": "db", "vip": "10.96.0.10", "ports": ["5432/tcp"], "algorithm": "least-connections",
                              "origin": "cli", "backends": all});
            backends(&[serde_json::from_value(view).expect("a service")])
        };
        let ends = |text: &str| {
            text.lines().map(|l| l.split_whitespace().last().map(String::from)).collect::<Vec<_>>()
        };
        let words = |words: [&str; 3]| words.map(|word| Some(word.to_string())).to_vec();
        assert_eq!(ends(&shown(None)), words(["TOTAL", "0", "0"]));
        assert_eq!(ends(&shown(Some("db.example.com"))), words(["HOST", "-", "db.example.com"]));
    }
}
