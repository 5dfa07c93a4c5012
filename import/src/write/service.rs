//! A service with its tables.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr, ops::RangeInclusive};

use toml_edit::Value;

use super::comment;
use crate::{
    access::Access,
    account::{Account, Id, Note, Said},
    model::{
        Affinity, Algorithm, Backend, Check, Database, Frontend, Http, Ports, Probe, Service, Statuses, Step,
        Timeouts,
    },
    values::show_time,
};

/// A string as TOML has it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().trim().to_string()
}

fn list(texts: impl IntoIterator<Item = String>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| quoted(&text)).collect();
    format!("[{}]", texts.join(", "))
}

/// What a service's text is made of, and what was printed of the account.
struct Out<'a> {
    account: &'a mut Account,
    /// Is all of it in force? What is a comment is named, not translated.
    live: bool,
    text: String,
}

impl Out<'_> {
    /// `key = value`, which these items say.
    fn key(&mut self, key: &str, value: &str, ids: &[Id]) {
        // Writing to a string doesn't fail.
        let _ = writeln!(self.text, "{key} = {value}");
        ids.iter().for_each(|id| self.done(*id));
    }

    /// An item's value was printed.
    fn done(&mut self, id: Id) {
        match self.live {
            true => self.account.translate(id),
            false => self.account.turn_off(id),
        }
    }

    /// A value of a table in one line.
    fn said<T>(
        &mut self,
        said: &Option<Said<T>>,
        key: &str,
        show: impl Fn(&T) -> String,
        table: &mut Vec<String>,
    ) {
        let Some(Said { value, at }) = said else { return };
        table.push(format!("{key} = {}", show(value)));
        self.done(*at);
    }
}

/// Its text, a comment if it isn't to be in force.
pub fn service(account: &mut Account, service: &Service) -> String {
    let Service { name, at, frontends, backends, off, notes, .. } = service;
    let notes: Vec<Note> = off.iter().chain(notes).cloned().collect();
    let mut text = comment::notes(account, &notes);
    let origin = account.item(*at).text.clone();
    let line = account.item(*at).line;
    let mut out = Out { account, live: off.is_none(), text: String::new() };
    let _ = writeln!(out.text, "[[service]]    # line {line}: {origin}");
    out.key("name", &quoted(name), &[*at]);
    let groups = groups(frontends, &service.access);
    match groups.first() {
        Some(first) => first_frontend(&mut out, first),
        None => out.text.push_str("vip = \"ADDRESS\"\nports = [\"PORT/tcp\"]\n"),
    }
    settings(&mut out, service);
    for group in groups.iter().skip(1) {
        out.text.push_str("[[service.frontend]]\n");
        out.key("addresses", &list(group.addresses.iter().map(ToString::to_string)), &group.ids);
        out.key("ports", &list(group.ports.iter().map(show_ports)), &[]);
        let first = groups.first().map(Group::lists).unwrap_or_default();
        for ((key, own), first) in KEYS.into_iter().zip(group.lists()).zip(first) {
            if own != first {
                out.key(key, &list(own), &[]);
            }
        }
        group.said.iter().for_each(|id| out.done(*id));
    }
    backends.iter().for_each(|each| backend(&mut out, each));
    text.push_str(&if out.live { out.text } else { comment::turned_off(&out.text) });
    text
}

/// Whom it is for, as the file has it.
const KEYS: [&str; 2] = ["source_ranges", "deny_ranges"];

/// Addresses with the same ports, for the same clients.
struct Group<'a> {
    addresses: Vec<IpAddr>,
    ports: Vec<Ports>,
    ids: Vec<Id>,
    access: &'a Access,
    /// All that says whom they are for.
    said: Vec<Id>,
}

impl<'a> Group<'a> {
    const fn new(addresses: Vec<IpAddr>, access: &'a Access) -> Self {
        Self { addresses, ports: Vec::new(), ids: Vec::new(), access, said: Vec::new() }
    }

    /// Of the lists of [`KEYS`] the prefixes of the IP versions that it has.
    fn lists(&self) -> [Vec<String>; 2] {
        let fits =
            |said: &&Said<String>| self.addresses.iter().any(|a| a.is_ipv6() == said.value.contains(':'));
        [&self.access.allowed, &self.access.denied]
            .map(|list| list.iter().filter(fits).map(|said| said.value.clone()).collect())
    }
}

/// Frontends in as few tables as they fit in, in the file's order. `common`: whom those are for that don't say.
fn groups<'a>(frontends: &'a [Frontend], common: &'a Access) -> Vec<Group<'a>> {
    let mut lists: Vec<&Access> = Vec::new();
    let mut by_address: BTreeMap<(IpAddr, usize), (usize, Group<'_>)> = BTreeMap::new();
    for (order, Frontend { address, ports, at, access }) in frontends.iter().enumerate() {
        let access = access.as_ref().unwrap_or(common);
        let list = lists.iter().position(|list| list.is_like(access)).unwrap_or_else(|| {
            lists.push(access);
            lists.len() - 1
        });
        let new = || (order, Group::new(vec![*address], access));
        let (_, group) = by_address.entry((*address, list)).or_insert_with(new);
        group.ports.push(*ports);
        group.ids.push(*at);
        group.said.extend(access.ids());
    }
    let mut alone: Vec<(usize, Group<'_>)> = by_address.into_values().collect();
    alone.sort_by_key(|(order, _)| *order);
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (_, one) in alone {
        let same = |group: &&mut Group<'_>| group.ports == one.ports && group.access.is_like(one.access);
        match groups.iter_mut().find(same) {
            Some(group) => {
                group.addresses.extend(one.addresses);
                group.ids.extend(one.ids);
                group.said.extend(one.said);
            }
            None => groups.push(one),
        }
    }
    groups
}

fn show_ports(ports: &Ports) -> String {
    let Ports { first, last, protocol } = ports;
    match first == last {
        true => format!("{first}/{}", protocol.name()),
        false => format!("{first}-{last}/{}", protocol.name()),
    }
}

fn first_frontend(out: &mut Out<'_>, group: &Group<'_>) {
    if let Some((vip, more)) = group.addresses.split_first() {
        out.key("vip", &quoted(&vip.to_string()), &group.ids);
        if !more.is_empty() {
            out.key("vips", &list(more.iter().map(ToString::to_string)), &[]);
        }
    }
    out.key("ports", &list(group.ports.iter().map(show_ports)), &[]);
    for (key, own) in KEYS.into_iter().zip(group.lists()).filter(|(_, own)| !own.is_empty()) {
        out.key(key, &list(own), &[]);
    }
    group.said.iter().for_each(|id| out.done(*id));
}

fn settings(out: &mut Out<'_>, service: &Service) {
    if let Some(forward) = service.forward {
        let ids: Vec<Id> = service.forward_at.into_iter().collect();
        out.key("forward", &quoted(forward.name()), &ids);
    }
    if let Some(Said { value, at }) = service.algorithm {
        let name = match value {
            Algorithm::LeastConnections => "least-connections",
            Algorithm::ConsistentHash => "consistent-hash",
            Algorithm::RoundRobin => "round-robin",
            Algorithm::WeightedRandom => "weighted-random",
        };
        out.key("algorithm", &quoted(name), &[at]);
    }
    if let Some(Affinity { at, timeout, ipv6_prefix }) = &service.affinity {
        let mut table = vec!["client_ip = true".to_string()];
        out.said(timeout, "timeout", |time| quoted(&show_time(*time)), &mut table);
        out.said(ipv6_prefix, "ipv6_prefix", ToString::to_string, &mut table);
        out.key("affinity", &inline(&table), &[*at]);
    }
    let Timeouts { idle, half_open, half_closed, udp } = &service.timeouts;
    let mut table = Vec::new();
    for (name, said) in [("idle", idle), ("half_open", half_open), ("half_closed", half_closed), ("udp", udp)]
    {
        out.said(said, name, |time| quoted(&show_time(*time)), &mut table);
    }
    if !table.is_empty() {
        out.key("timeouts", &inline(&table), &[]);
    }
    if let Some(check) = &service.check {
        health(out, check);
    }
    if let Some(Said { value, at }) = service.max_connections {
        out.key("service_max_connections", &value.to_string(), &[at]);
    }
    if let Some(Said { value, at }) = service.quorum {
        out.key("quorum", &value.to_string(), &[at]);
    }
    if let Some(Said { value, at }) = service.slow_start {
        out.key("slow_start", &quoted(&show_time(value)), &[at]);
    }
    if let Some(at) = service.reset_unhealthy {
        out.key("on_unhealthy", "\"reset\"", &[at]);
    }
}

fn inline(table: &[String]) -> String {
    format!("{{ {} }}", table.join(", "))
}

fn show_statuses(statuses: &Statuses) -> String {
    let show = |range: &RangeInclusive<u16>| match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    };
    match statuses.as_slice() {
        [one] if one.start() == one.end() => show(one),
        several => quoted(&several.iter().map(show).collect::<Vec<_>>().join(",")),
    }
}

fn show_step(step: &Step) -> String {
    match step {
        Step::Send(text) => format!("{{ send = {} }}", quoted(text)),
        Step::Expect(text) => format!("{{ expect = {} }}", quoted(text)),
        Step::Matches(text) => format!("{{ matches = {} }}", quoted(text)),
    }
}

fn health(out: &mut Out<'_>, check: &Check) {
    // Whoever is checked elsewhere has got another check.
    let Check { at, probe, port, elsewhere: _, interval, timeout, rise, fall, same } = check;
    same.iter().for_each(|id| out.done(*id));
    let mut table = Vec::new();
    match probe {
        Probe::Tcp => table.push("type = \"tcp\"".to_string()),
        Probe::Http(Http { tls, paths, host, status }) => {
            table.push(format!("type = \"{}\"", if *tls { "https" } else { "http" }));
            match paths.as_slice() {
                [] => {}
                [one] => table.push(format!("path = {}", quoted(&one.value))),
                several => {
                    let several = several.iter().map(|path| path.value.clone());
                    table.push(format!("path = {}", list(several)));
                }
            }
            paths.iter().for_each(|path| out.done(path.at));
            out.said(host, "host", |host| quoted(host), &mut table);
            out.said(status, "expect", show_statuses, &mut table);
        }
        Probe::Udp(send) => {
            table.push("type = \"udp\"".to_string());
            out.said(send, "send", |text| quoted(text), &mut table);
        }
        Probe::Database(Said { value: Database { kind, user }, at }) => {
            table.push(format!("type = \"{kind}\""));
            table.extend(user.iter().map(|user| format!("user = {}", quoted(user))));
            out.done(*at);
        }
        Probe::Talk(steps) => {
            let shown: Vec<String> = steps.iter().map(|step| show_step(&step.value)).collect();
            table.extend(["type = \"tcp\"".to_string(), format!("talk = [{}]", shown.join(", "))]);
            steps.iter().for_each(|step| out.done(step.at));
        }
        Probe::Exec(Said { value, at }) => {
            table.extend(["type = \"exec\"".to_string(), format!("command = {}", list(value.clone()))]);
            out.done(*at);
        }
    }
    out.said(port, "port", ToString::to_string, &mut table);
    out.said(interval, "interval", |time| quoted(&show_time(*time)), &mut table);
    out.said(timeout, "timeout", |time| quoted(&show_time(*time)), &mut table);
    out.said(rise, "rise", ToString::to_string, &mut table);
    out.said(fall, "fall", ToString::to_string, &mut table);
    out.key("health", &inline(&table), &[*at]);
}

fn backend(out: &mut Out<'_>, backend: &Backend) {
    let live = out.live;
    out.live &= backend.off.is_none();
    let notes: Vec<Note> = backend.off.iter().chain(&backend.notes).cloned().collect();
    let notes = comment::notes(out.account, &notes);
    out.text.push_str(&notes);
    let before = out.text.len();
    let line = out.account.item(backend.at).line;
    let name = backend
        .name
        .as_ref()
        .map_or(String::new(), |name| format!(": {}", name.replace(char::is_control, " ")));
    let _ = writeln!(out.text, "[[service.backend]]    # line {line}{name}");
    out.key("address", &quoted(&backend.address()), &[backend.at]);
    if let Some(Said { value, at }) = backend.weight {
        match value {
            1 => out.done(at),
            _ => out.key("weight", &value.to_string(), &[at]),
        }
    }
    if let Some(Said { value, at }) = backend.max_connections {
        out.key("max_connections", &value.to_string(), &[at]);
    }
    if let Some(at) = backend.backup {
        out.key("backup", "true", &[at]);
    }
    backend.resolve.iter().for_each(|id| out.done(*id));
    out.live = live;
    if backend.off.is_some() {
        let own = out.text.split_off(before);
        out.text.push_str(&comment::turned_off(&own));
    }
}
