//! Proxies side by side: each pool with what leads to it is a service.

use std::time::Duration;

use super::{
    Reader,
    external::Program,
    proxy::{Kind, Proxy},
    server::{Declared, Server},
    settings::{Settings, Times},
};
use crate::{
    access::{Access, access},
    account::{Account, Id, Note, Said},
    model::{Check, Draft, Forward, Frontend, Host, Probe, Service},
};

/// Makes services of all proxies.
pub fn join(reader: &mut Reader) {
    let draft = &mut reader.draft;
    let proxies = std::mem::take(&mut reader.proxies);
    let (pools, mut fronts): (Vec<Proxy>, Vec<Proxy>) =
        proxies.into_iter().partition(|proxy| proxy.kind == Kind::Backend || !proxy.servers.is_empty());
    for pool in pools {
        let leads = |front: &mut Proxy| {
            pool.kind == Kind::Backend
                && front.settings.default_backend.as_ref().is_some_and(|said| said.value == pool.name)
        };
        let own: Vec<Proxy> = fronts.extract_if(.., leads).collect();
        let service = service(draft, pool, own);
        draft.services.push(service);
    }
    for front in fronts {
        let service = alone(draft, front);
        draft.services.push(service);
    }
    draft.services.sort_by_key(|service| draft.account.item(service.at).line);
}

/// A pool, with what leads to it.
fn service(draft: &mut Draft, pool: Proxy, fronts: Vec<Proxy>) -> Service {
    let Proxy { kind, name, at, frontends, servers, mut settings, notes } = pool;
    let account = &mut draft.account;
    let mut service = Service::new(name, at);
    service.notes = notes;
    service.frontends = frontends;
    // Of the section itself, not of those that lead to it.
    let listener = service.frontends.first().map(|frontend| (frontend.address, frontend.ports.first));
    let program = settings.checks.external.program(&service.name, listener, &mut service.notes);
    let mut off = settings.disabled;
    if kind == Kind::Backend && fronts.is_empty() {
        service.turn_off(
            at,
            "No default_backend names it, only rules if anything: Flowpin chooses no pool by rules. Give \
             it a vip and ports of its own, and uncomment it.",
        );
    }
    let mut unused: Vec<_> = settings.rules.unused.values().copied().collect();
    match access(&settings.rules.rules, account, &mut service.notes) {
        Ok(access) => service.access = access,
        Err(at) => service.turn_off(at, NOBODY),
    }
    // Frontends that let nobody in.
    let mut shut: Vec<(Id, Vec<Frontend>)> = Vec::new();
    mode(account, &settings, &mut service);
    if kind == Kind::Backend && !fronts.is_empty() {
        // Clients are the frontends' business.
        (settings.times.client, settings.times.client_fin) = (None, None);
    }
    service.max_connections = match kind {
        // A pool's own is that of `defaults`, and means nothing.
        Kind::Backend => limit(account, &fronts, &mut service.notes),
        _ => settings.limit.clone(),
    };
    for front in fronts {
        let Proxy { at: front_at, mut frontends, settings: theirs, notes, .. } = front;
        account.like(front_at, at);
        service.notes.extend(notes);
        match both(&theirs, &settings, &service.access, account, &mut service.notes) {
            Ok(own) => {
                frontends.iter_mut().for_each(|frontend| frontend.access.clone_from(&own));
                service.frontends.extend(frontends);
            }
            Err(at) => shut.push((at, frontends)),
        }
        mode(account, &theirs, &mut service);
        if let Some(said) = &theirs.default_backend {
            account.like(said.at, at);
        }
        // What clients are told is the frontend's; of several, the first's.
        let client = &mut settings.times.client;
        one(
            account,
            client,
            theirs.times.client,
            "of the frontends of a service the first's holds",
            &mut service.notes,
        );
        one(
            account,
            &mut settings.times.client_fin,
            theirs.times.client_fin,
            "of the frontends of a service the first's holds",
            &mut service.notes,
        );
        off = off.or(theirs.disabled);
        unused.extend(theirs.rules.unused.values());
    }
    if let Some(at) = off {
        service.turn_off(at, "It is switched off there: uncomment it when it is to be served.");
    }
    service.notes.extend(unused.into_iter().map(|at| Note::new(at, super::remedies::ACL)));
    let none = service.frontends.is_empty();
    for (at, frontends) in shut {
        if none {
            service.turn_off(at, NOBODY);
            service.frontends.extend(frontends);
        } else {
            let left = "Nobody is let in by it: its addresses are left out.";
            service.note(at, left);
            service.notes.extend(frontends.into_iter().map(|frontend| Note::new(frontend.at, left)));
        }
    }
    service.algorithm = settings.algorithm.clone();
    service.affinity = settings.affinity(account);
    times(account, settings.times.clone(), &mut service);
    backends(servers, &settings, program.as_ref(), &mut service);
    service
}

const NOBODY: &str = "Nobody is let in: say in source_ranges who is, and uncomment it.";

/// Whom a frontend and the pool behind it both let in, which is `pools`; `None`: whom the pool lets in.
///
/// # Errors
/// Nobody, and who says so.
fn both(
    front: &Settings,
    pool: &Settings,
    pools: &Access,
    account: &Account,
    notes: &mut Vec<Note>,
) -> Result<Option<Access>, Id> {
    let rules = &front.rules.rules;
    let Some(last) = rules.last().map(|rule| rule.who.at) else { return Ok(None) };
    // Both have them of the same defaults.
    if *rules == pool.rules.rules {
        return Ok(None);
    }
    let own = access(rules, account, notes)?;
    own.and(pools.clone()).map(Some).ok_or(last)
}

/// Listeners that lead to no pool of this file.
fn alone(draft: &mut Draft, front: Proxy) -> Service {
    let Proxy { name, at, frontends, settings, notes, .. } = front;
    let mut service = Service::new(name, at);
    service.frontends = frontends;
    service.notes = notes;
    service.forward = Some(Forward::Snat);
    mode(&mut draft.account, &settings, &mut service);
    service.notes.extend(settings.rules.unused.values().map(|at| Note::new(*at, super::remedies::ACL)));
    match settings.default_backend {
        Some(said) => service.turn_off(
            said.at,
            format!(
                "There is no backend {:?} of its own in this file: give the service backends, and \
                 uncomment it.",
                said.value
            ),
        ),
        None => service.turn_off(
            at,
            "No default_backend says where it leads: which pool a request goes to is decided by rules, \
             and Flowpin balances connections. Give it backends, or HAProxy as a backend, and uncomment \
             it.",
        ),
    }
    service
}

/// The limit of a service to which these listeners lead: of several, all that they take together.
fn limit(account: &mut Account, fronts: &[Proxy], notes: &mut Vec<Note>) -> Option<Said<u32>> {
    let limits: Vec<&Said<u32>> = fronts.iter().filter_map(|front| front.settings.limit.as_ref()).collect();
    let first = *limits.first()?;
    if limits.len() < fronts.len() {
        let remedy = "Another frontend of the service has no limit, and Flowpin's is one for all: write \
                      service_max_connections if there is to be one.";
        notes.extend(limits.iter().map(|said| Note::new(said.at, remedy)));
        return None;
    }
    let all = limits.iter().fold(0u32, |sum, said| sum.saturating_add(said.value));
    for said in &limits[1..] {
        account.like(said.at, first.at);
    }
    if limits.len() > 1 {
        notes.push(Note::new(
            first.at,
            "Flowpin's limit is one for all frontends of a service: theirs are added up.",
        ));
    }
    Some(Said::new(all.min(u32::MAX - 1), first.at))
}

fn mode(account: &mut Account, settings: &Settings, service: &mut Service) {
    let Some(Said { value, at }) = &settings.mode else { return };
    match value.as_str() {
        "tcp" => account.translate(*at),
        "http" => {
            let note = Note::new(
                *at,
                "Flowpin balances connections, not requests: all requests of a connection go to one \
                 backend. Where paths, headers or cookies decide, keep HAProxy and have Flowpin balance \
                 its instances.",
            );
            if !service.notes.contains(&note) {
                service.notes.push(note);
            }
        }
        other => service
            .turn_off(*at, format!("mode {other} is not about connections of clients: keep HAProxy for it.")),
    }
}

/// Of two that say something, the first holds.
fn one(
    account: &mut Account,
    first: &mut Option<Said<Duration>>,
    other: Option<Said<Duration>>,
    what: &str,
    notes: &mut Vec<Note>,
) {
    match (&*first, other) {
        (_, None) => {}
        (None, other) => *first = other,
        (Some(first), Some(other)) if first.value == other.value => account.like(other.at, first.at),
        (Some(first), Some(other)) => {
            let line = account.item(first.at).line;
            notes.push(Note::new(other.at, format!("In Flowpin {what}: line {line}.")));
        }
    }
}

/// Silence of either side closes a connection in HAProxy, silence of both here: the shorter is taken.
fn times(account: &mut Account, times: Times, service: &mut Service) {
    // The check's is given to each server that is checked.
    let Times { client, server, tunnel, connect, client_fin, server_fin, check: _ } = times;
    let mut idle = tunnel;
    let what = match idle {
        Some(_) => {
            "a connection has one time for silence, and the tunnel's holds once both sides have spoken"
        }
        None => "a connection has one time for silence of both sides, and the shorter holds",
    };
    let (short, longer) = shorter(client, server);
    one(account, &mut idle, short, what, &mut service.notes);
    one(account, &mut idle, longer, what, &mut service.notes);
    let (mut closed, longer) = shorter(client_fin, server_fin);
    one(
        account,
        &mut closed,
        longer,
        "a connection that is closed by one side has one time, and the shorter holds",
        &mut service.notes,
    );
    service.timeouts.idle = idle;
    service.timeouts.half_open = connect;
    service.timeouts.half_closed = closed;
}

type Pair = (Option<Said<Duration>>, Option<Said<Duration>>);

fn shorter(a: Option<Said<Duration>>, b: Option<Said<Duration>>) -> Pair {
    match (a, b) {
        (Some(a), Some(b)) if b.value < a.value => (Some(b), Some(a)),
        (None, b) => (b, None),
        (a, b) => (a, b),
    }
}

fn backends(servers: Vec<Declared>, settings: &Settings, program: Option<&Program>, service: &mut Service) {
    service.forward = Some(Forward::Snat);
    if let Some(at) = settings.transparent {
        (service.forward, service.forward_at) = (Some(Forward::Nat), Some(at));
    }
    let ports: Vec<u16> = service
        .frontends
        .iter()
        .map(|frontend| frontend.ports)
        .filter(|p| p.first == p.last)
        .map(|p| p.first)
        .collect();
    let single = ports
        .first()
        .copied()
        .filter(|first| ports.len() == service.frontends.len() && ports.iter().all(|port| port == first));
    let tls = servers.iter().any(|declared| declared.server.check.is_some() && declared.server.tls);
    service.notes.extend(settings.checks.notes(tls));
    let mut backups = 0;
    for Declared { mut backend, server, offset } in servers {
        if let Some(offset) = offset {
            let port =
                single.and_then(|port| u16::try_from(i32::from(port) + offset).ok()).filter(|port| *port > 0);
            match port {
                Some(port) => backend.port = Some(port),
                None => backend.turn_off(
                    backend.at,
                    "Its port is counted from the client's: write ports = [\"80:1080/tcp\"] for each, and \
                     uncomment it.",
                ),
            }
        }
        if let Some(at) = server.transparent {
            (service.forward, service.forward_at) = (Some(Forward::Nat), Some(at));
        }
        if let Some(at) = backend.backup {
            if backups > 0 && !settings.all_backups {
                backend.note(
                    at,
                    "Without `option allbackups` it waits until the backup before it fails too. Here backups \
                     share what comes: leave this one out, or have it.",
                );
            }
            backups += 1;
        }
        backend.check = match program {
            Some(program) => run(server, settings, program),
            None => check(server, settings, &backend.host),
        };
        service.backends.push(backend);
    }
}

/// How a server is checked, if it is.
fn check(server: Server, settings: &Settings, own: &Host) -> Option<Check> {
    let at = server.check?;
    let mut same = settings.checks.same();
    same.extend(&server.same);
    same.extend(settings.checks.asked());
    let (other, addr): (Vec<_>, Vec<_>) = server.addr.into_iter().partition(|said| said.value != *own);
    same.extend(addr.into_iter().map(|said| said.at));
    // Where nothing says how long an answer may take, it is as long as to the next check.
    let wait = server.inter.clone().unwrap_or(Said::new(Duration::from_secs(2), at));
    Some(Check {
        at,
        probe: settings.checks.probe(server.tls),
        port: settings.checks.port.clone().or(server.port),
        elsewhere: other.first().map(|said| said.at),
        interval: server.inter,
        timeout: Some(settings.times.check.clone().unwrap_or(wait)),
        rise: server.rise,
        fall: server.fall,
        same,
    })
}

/// How a server is checked by a program, if it is. `port` and `addr` of checks don't concern one.
fn run(server: Server, settings: &Settings, program: &Program) -> Option<Check> {
    let at = server.check?;
    // `timeout check` only has the time to connect hold, if that is shorter than that to the next check.
    let wait = server.inter.clone().unwrap_or(Said::new(Duration::from_secs(2), at));
    let Times { check, connect, .. } = &settings.times;
    let connect = connect.clone().filter(|said| check.is_some() && said.value < wait.value);
    Some(Check {
        probe: Probe::Exec(program.command.clone()),
        interval: server.inter,
        timeout: Some(connect.unwrap_or(wait)),
        rise: server.rise,
        fall: server.fall,
        same: program.same.iter().chain(&server.same).copied().collect(),
        ..Check::tcp(at)
    })
}
