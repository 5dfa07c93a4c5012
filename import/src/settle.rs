//! What servers say each for themselves and Flowpin says for a service: checks, how packets go, slow start. The
//! first that says something says it for all; who says otherwise gets a note.

use crate::{
    account::{Account, Note, Said},
    model::{Check, Draft, Host, Http, Probe, Service},
};

/// Moves it to the services.
pub fn settle(draft: &mut Draft) {
    for service in &mut draft.services {
        checks(&mut draft.account, service);
        forward(&mut draft.account, service);
        let mut notes = Vec::new();
        for backend in &mut service.backends {
            let what = "slow_start is of a service";
            agree(&mut draft.account, &mut service.slow_start, backend.slow_start.take(), what, &mut notes);
            if let Some(at) = backend.reset_unhealthy.take() {
                match service.reset_unhealthy {
                    None => service.reset_unhealthy = Some(at),
                    Some(first) => draft.account.like(at, first),
                }
            }
        }
        service.notes.append(&mut notes);
    }
}

/// One of several says something: it is what all say, or there is a note.
fn agree<T: PartialEq>(
    account: &mut Account,
    chosen: &mut Option<Said<T>>,
    said: Option<Said<T>>,
    what: &str,
    notes: &mut Vec<Note>,
) {
    let Some(said) = said else { return };
    match chosen {
        None => *chosen = Some(said),
        Some(first) if first.value == said.value => account.like(said.at, first.at),
        Some(first) => {
            let line = account.item(first.at).line;
            notes.push(Note::new(
                said.at,
                format!("In Flowpin {what}: that of line {line} is taken for all."),
            ));
        }
    }
}

fn checks(account: &mut Account, service: &mut Service) {
    let some = service.backends.iter().any(|backend| backend.check.is_some());
    for backend in &mut service.backends {
        let used = backend.backup.is_none() && backend.down.is_none() && backend.off.is_none();
        let Some(check) = backend.check.take() else {
            if some && used && matches!(backend.host, Host::Address(_)) {
                backend.note(
                    backend.at,
                    "Not checked there. Flowpin checks all backends of a service, or none.",
                );
            }
            continue;
        };
        match &mut service.check {
            None => service.check = Some(check),
            Some(first) => {
                let mut notes = Vec::new();
                merge(account, first, check, &mut notes);
                // Of one that gets nothing it doesn't matter.
                backend.notes.extend(notes.into_iter().filter(|_| used));
            }
        }
    }
}

fn merge(account: &mut Account, first: &mut Check, other: Check, notes: &mut Vec<Note>) {
    const WHAT: &str = "the backends of a service are checked alike";
    let Check { at, probe, port, interval, timeout, rise, fall, mut same } = other;
    first.same.append(&mut same);
    // What only follows from the check's being there is nobody's word.
    let (interval, timeout) = (interval.filter(|said| said.at != at), timeout.filter(|said| said.at != at));
    let (rise, fall) = (rise.filter(|said| said.at != at), fall.filter(|said| said.at != at));
    agree(account, &mut first.port, port, WHAT, notes);
    agree(account, &mut first.interval, interval, WHAT, notes);
    agree(account, &mut first.timeout, timeout, WHAT, notes);
    agree(account, &mut first.rise, rise, WHAT, notes);
    agree(account, &mut first.fall, fall, WHAT, notes);
    match (&mut first.probe, probe) {
        (Probe::Tcp, Probe::Tcp) => account.like(at, first.at),
        (Probe::Http(first_http), Probe::Http(Http { tls, path, host, status })) if first_http.tls == tls => {
            account.like(at, first.at);
            agree(account, &mut first_http.path, path, WHAT, notes);
            agree(account, &mut first_http.host, host, WHAT, notes);
            agree(account, &mut first_http.status, status, WHAT, notes);
        }
        (_, probe) => {
            let line = account.item(first.at).line;
            let remedy = format!("In Flowpin {WHAT}: as line {line} says.");
            let mut ids = vec![at];
            if let Probe::Http(Http { tls: _, path, host, status }) = probe {
                ids.extend(path.map(|said| said.at));
                ids.extend(host.map(|said| said.at));
                ids.extend(status.map(|said| said.at));
            }
            ids.dedup();
            notes.extend(ids.into_iter().map(|id| Note::new(id, remedy.clone())));
        }
    }
}

fn forward(account: &mut Account, service: &mut Service) {
    for backend in &mut service.backends {
        let Some(said) = backend.forward.take() else { continue };
        match (service.forward, service.forward_at) {
            (_, None) => {
                service.forward = Some(said.value);
                service.forward_at = Some(said.at);
            }
            (Some(kind), Some(first)) if kind == said.value => account.like(said.at, first),
            (_, Some(first)) => {
                let line = account.item(first).line;
                backend.turn_off(
                    said.at,
                    format!(
                        "Packets get to all backends of a service in one way, which is that of line \
                         {line}. Declare a service of its own for this one, at another VIP."
                    ),
                );
            }
        }
    }
}
