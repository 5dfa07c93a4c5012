//! Health checks: of the kinds that Flowpin has, where there is a port for them, with times and counts in range.

use std::time::Duration;

use crate::{
    account::{Id, Note, Said},
    model::{Backend, Check, Frontend, Host, Http, Probe, Service},
};

/// Shortest time between checks and for an answer.
const SHORTEST: Duration = Duration::from_millis(100);

/// Most checks in a row that it may take.
const MOST_IN_A_ROW: u32 = 1_000;

/// Leaves a check that Flowpin can make.
pub fn fit(service: &mut Service) {
    if let Some(check) =
        service.check.take_if(|check| !has_port(check, &service.frontends, &service.backends))
    {
        let kind = check.probe.protocol().map_or(String::new(), |protocol| format!("{} ", protocol.name()));
        let remedy =
            format!("Nothing says at which {kind}port: write health with a port, or give each backend one.");
        service.notes.extend(whole(check).into_iter().map(|at| Note::new(at, remedy.clone())));
    }
    let Some(check) = &mut service.check else { return };
    let own = |said: &Said<u16>| service.backends.iter().all(|backend| backend.port == Some(said.value));
    if let Some(said) = check.port.take_if(|said| own(said)) {
        check.same.insert(said.at);
    }
    let notes = &mut service.notes;
    super::time("health.interval", SHORTEST, &mut check.interval, notes);
    super::time("health.timeout", SHORTEST, &mut check.timeout, notes);
    for (what, said) in [("rise", &mut check.rise), ("fall", &mut check.fall)] {
        let Some(said) = said else { continue };
        let near = said.value.clamp(1, MOST_IN_A_ROW);
        if near != said.value {
            notes.push(Note::new(
                said.at,
                format!("health.{what} is from 1 to 1000: {near} is written instead."),
            ));
            said.value = near;
        }
    }
    if let Probe::Http(http) = &mut check.probe {
        asked(http, notes);
    }
}

/// Is there a port for it at each backend?
fn has_port(check: &Check, frontends: &[Frontend], backends: &[Backend]) -> bool {
    let protocol = check.probe.protocol();
    let led = |backend: &Backend| {
        let Host::Address(address) = backend.host else { return true };
        frontends.iter().any(|frontend| {
            protocol.is_none_or(|protocol| frontend.ports.protocol == protocol)
                && frontend.address.is_ipv6() == address.is_ipv6()
        })
    };
    check.port.is_some()
        || frontends.is_empty()
        || backends.iter().all(|backend| backend.off.is_some() || backend.port.is_some() || led(backend))
}

/// Every item of a check.
fn whole(check: Check) -> Vec<Id> {
    let asked = check.probe.ids();
    let Check { at, probe: _, port, elsewhere, interval, timeout, rise, fall, same } = check;
    let times = [interval.map(|said| said.at), timeout.map(|said| said.at)];
    let counts = [rise.map(|said| said.at), fall.map(|said| said.at), port.map(|said| said.at)];
    let said = times.into_iter().chain(counts).flatten().chain(elsewhere);
    let mut ids: Vec<Id> = said.chain(asked).chain([at]).chain(same).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Paths and host.
fn asked(http: &mut Http, notes: &mut Vec<Note>) {
    let odd = |text: &str| {
        text.is_empty()
            || !text.is_ascii()
            || text.contains(|c: char| c.is_control() || " \"<>\\^`{|}#".contains(c))
    };
    let (bad, good): (Vec<_>, Vec<_>) =
        http.paths.drain(..).partition(|path| !path.value.starts_with('/') || odd(&path.value));
    let instead = if good.is_empty() { "/ is asked for" } else { "it isn't asked for" };
    http.paths = good;
    notes.extend(bad.iter().map(|path| {
        let remedy = format!("It is no path that Flowpin takes: {instead}. Write health.path like /healthz.");
        Note::new(path.at, remedy)
    }));
    let named = |host: &str| {
        let label = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let (name, port) = crate::values::split_port(host);
        let port = port.is_none_or(|port| !http.tls && crate::values::port(port).is_ok());
        let real = !name.is_empty()
            && name.chars().all(label)
            && !name.starts_with(['.', '-'])
            && !name.contains("..");
        port && (real && !(http.tls && name.contains('_'))
            || crate::values::address(name).is_some_and(|_| !http.tls))
    };
    if let Some(host) = http.host.take_if(|host| !named(&host.value)) {
        notes.push(Note::new(
            host.at,
            "It is no host that Flowpin takes: the backend's address is asked. Write a name like \
             app.example.",
        ));
    }
}
