//! Health checks: of the kinds that Flowpin has, at the backend's own port, with times and counts in range.

use crate::{
    account::{Note, Said},
    model::{Check, Http, Probe, Service, Status},
};

/// Most checks in a row that it may take.
const MOST_IN_A_ROW: u32 = 1_000;

/// Leaves a check that Flowpin can make.
pub fn fit(service: &mut Service) {
    if service.is_udp()
        && let Some(check) = service.check.take()
    {
        let remedy = "Flowpin has no checks for services of UDP alone yet: watch its servers otherwise, and drain \
             one that fails with `flowpin backend drain`.";
        service.notes.extend(whole(check).into_iter().map(|at| Note::new(at, remedy)));
        return;
    }
    let Some(check) = &mut service.check else { return };
    let notes = &mut service.notes;
    super::time("health.interval", &mut check.interval, notes);
    super::time("health.timeout", &mut check.timeout, notes);
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
    if let Some(Said { value, at }) = check.port.take() {
        elsewhere(check, value, at, notes);
    }
    if let Probe::Http(http) = &mut check.probe {
        asked(http, notes);
    }
}

/// Every item of a check.
fn whole(check: Check) -> Vec<crate::account::Id> {
    let Check { at, probe, port, interval, timeout, rise, fall, same } = check;
    let times = [interval.map(|said| said.at), timeout.map(|said| said.at)];
    let counts = [rise.map(|said| said.at), fall.map(|said| said.at), port.map(|said| said.at)];
    let http = match probe {
        Probe::Tcp => [None; 3],
        Probe::Http(Http { tls: _, path, host, status }) => {
            [path.map(|said| said.at), host.map(|said| said.at), status.map(|said| said.at)]
        }
    };
    let mut ids: Vec<_> =
        times.into_iter().chain(counts).chain(http).flatten().chain([at]).chain(same).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// A check at another port than the backend's would ask somebody else: it becomes one that is always right about
/// its own.
fn elsewhere(check: &mut Check, port: u16, at: crate::account::Id, notes: &mut Vec<Note>) {
    let http = std::mem::replace(&mut check.probe, Probe::Tcp);
    let remedy = match &http {
        Probe::Tcp => format!(
            "Flowpin checks at the backend's own port yet, not at {port}: whether it takes connections there."
        ),
        Probe::Http(_) => format!(
            "Flowpin checks at the backend's own port yet, where nobody answers what is asked at {port}: \
             it only looks whether that port takes connections. Where the answer tells who may be used (a \
             primary, a synced node), declare only those, or drain the others."
        ),
    };
    let ids = match http {
        Probe::Tcp => Vec::new(),
        Probe::Http(Http { tls: _, path, host, status }) => {
            let all = [path.map(|said| said.at), host.map(|said| said.at), status.map(|said| said.at)];
            all.into_iter().flatten().collect()
        }
    };
    notes.extend(std::iter::once(at).chain(ids).map(|id| Note::new(id, remedy.clone())));
}

/// Path, host and status.
fn asked(http: &mut Http, notes: &mut Vec<Note>) {
    let odd = |text: &str| {
        text.is_empty()
            || !text.is_ascii()
            || text.contains(|c: char| c.is_control() || " \"<>\\^`{|}#".contains(c))
    };
    if let Some(path) = http.path.take_if(|path| !path.value.starts_with('/') || odd(&path.value)) {
        notes.push(Note::new(
            path.at,
            "It is no path that Flowpin takes: / is asked for. Write health.path like /healthz.",
        ));
    }
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
    match http.status.as_ref().map(|said| (said.at, &said.value)) {
        Some((at, Status::One(code))) if !(100..=599).contains(code) => {
            notes.push(Note::new(at, "A status is from 100 to 599: 200 is expected."));
            http.status = None;
        }
        Some((at, Status::Other(text))) => {
            let remedy = format!(
                "Flowpin expects one status yet, not {text}: 200, unless you write another to health.expect."
            );
            notes.push(Note::new(at, remedy));
            http.status = None;
        }
        _ => {}
    }
}
