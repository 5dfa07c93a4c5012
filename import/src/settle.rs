//! What servers say each for themselves and Flowpin says for a service: checks, how packets go, slow start. The
//! first that says something says it for all; who says otherwise gets a note.

use crate::{
    account::{Account, Note, Said},
    model::{Check, Draft, Http, Probe, Protocol, Service},
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

const ALIKE: &str = "the backends of a service are checked alike";

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

/// The same of paths.
fn agree_on_paths(
    account: &mut Account,
    chosen: &mut Vec<Said<String>>,
    said: Vec<Said<String>>,
    notes: &mut Vec<Note>,
) {
    let Some(first) = chosen.first() else { return *chosen = said };
    let line = account.item(first.at).line;
    if !said.is_empty() && chosen.iter().map(|path| &path.value).eq(said.iter().map(|path| &path.value)) {
        return said.iter().zip(chosen).for_each(|(path, first)| account.like(path.at, first.at));
    }
    let remedy = format!("In Flowpin {ALIKE}: that of line {line} is taken for all.");
    notes.extend(said.into_iter().map(|path| Note::new(path.at, remedy.clone())));
}

fn checks(account: &mut Account, service: &mut Service) {
    const ONE_PORT: &str = "The backends of a service are checked at one port, or each at its own, and here they \
         differ: whether each takes connections at its own port is all that is asked. Declare a service of its own \
         for those at another.";
    const ADDRESS: &str = "Checks go to the backend's own address, where clients are sent to: whether it takes \
         connections there is all that they ask. health.port is for another port of it.";
    let some = service.backends.iter().any(|backend| backend.check.is_some());
    // Own ports of those whose checks are one already.
    let mut ports: Vec<Option<u16>> = Vec::new();
    let mut differ = false;
    for backend in &mut service.backends {
        let idle = backend.weight.as_ref().is_some_and(|weight| weight.value == 0);
        let used = backend.down.is_none() && backend.off.is_none();
        let Some(mut check) = backend.check.take() else {
            if some && used {
                backend.note(
                    backend.at,
                    "Not checked there. Flowpin checks all backends of a service, or none: have it answer what the \
                     others are asked.",
                );
            }
            continue;
        };
        if check.elsewhere.is_some() {
            plain(&mut check, ADDRESS, &mut backend.notes);
        }
        match &mut service.check {
            None => service.check = Some(check),
            Some(first) => {
                let mut notes = Vec::new();
                if !differ && !same_port(first, &mut check, &ports, backend.port) {
                    differ = used && !idle;
                    match differ {
                        true => plain(first, ONE_PORT, &mut service.notes),
                        false => plain(&mut check, ONE_PORT, &mut notes),
                    }
                }
                if differ {
                    plain(&mut check, ONE_PORT, &mut notes);
                }
                merge(account, first, check, &mut notes);
                // Of one that gets nothing it doesn't matter.
                backend.notes.extend(notes.into_iter().filter(|_| used));
            }
        }
        ports.push(backend.port);
    }
}

/// Do two name the same port? That of backends which are at it themselves needn't be named. `ports`: of those that
/// the first is of already, `own`: of the other's.
fn same_port(first: &mut Check, other: &mut Check, ports: &[Option<u16>], own: Option<u16>) -> bool {
    match (&first.port, &other.port) {
        (None, None) => true,
        (Some(a), Some(b)) => a.value == b.value,
        (Some(a), None) => own == Some(a.value),
        (None, Some(b)) => {
            let all = ports.iter().all(|port| *port == Some(b.value));
            if all {
                first.port = other.port.take();
            }
            all
        }
    }
}

/// What is asked at another place would ask somebody else: it becomes a check that is always right about the
/// backend's own.
fn plain(check: &mut Check, remedy: &str, notes: &mut Vec<Note>) {
    let probe = match check.probe.protocol() {
        Some(Protocol::Udp) => Probe::Udp(None),
        Some(Protocol::Tcp | Protocol::Sctp) | None => Probe::Tcp,
    };
    let asked = std::mem::replace(&mut check.probe, probe).ids();
    let place = check.elsewhere.take().into_iter().chain(check.port.take().map(|said| said.at));
    notes.extend(place.chain(asked).map(|id| Note::new(id, remedy)));
}

fn merge(account: &mut Account, first: &mut Check, other: Check, notes: &mut Vec<Note>) {
    let Check { at, probe, port, elsewhere: _, interval, timeout, rise, fall, mut same } = other;
    first.same.append(&mut same);
    // What only follows from the check's being there is nobody's word.
    let (interval, timeout) = (interval.filter(|said| said.at != at), timeout.filter(|said| said.at != at));
    let (rise, fall) = (rise.filter(|said| said.at != at), fall.filter(|said| said.at != at));
    agree(account, &mut first.port, port, ALIKE, notes);
    agree(account, &mut first.interval, interval, ALIKE, notes);
    agree(account, &mut first.timeout, timeout, ALIKE, notes);
    agree(account, &mut first.rise, rise, ALIKE, notes);
    agree(account, &mut first.fall, fall, ALIKE, notes);
    match (&mut first.probe, probe) {
        (Probe::Tcp, Probe::Tcp) => account.like(at, first.at),
        (Probe::Http(first_http), Probe::Http(Http { tls, paths, host, status }))
            if first_http.tls == tls =>
        {
            account.like(at, first.at);
            agree_on_paths(account, &mut first_http.paths, paths, notes);
            agree(account, &mut first_http.host, host, ALIKE, notes);
            agree(account, &mut first_http.status, status, ALIKE, notes);
        }
        (Probe::Udp(None), Probe::Udp(None)) => account.like(at, first.at),
        (Probe::Udp(Some(ours)), Probe::Udp(Some(theirs))) => {
            account.like(at, first.at);
            agree(account, &mut Some(ours.clone()), Some(theirs), ALIKE, notes);
        }
        (Probe::Database(ours), Probe::Database(theirs)) if ours.value == theirs.value => {
            account.like(at, first.at);
            account.like(theirs.at, ours.at);
        }
        (Probe::Exec(ours), Probe::Exec(theirs)) if ours.value == theirs.value => {
            account.like(at, first.at);
            account.like(theirs.at, ours.at);
        }
        (Probe::Talk(ours), Probe::Talk(theirs)) if ours == &theirs => account.like(at, first.at),
        (_, probe) => {
            let line = account.item(first.at).line;
            let remedy = format!("In Flowpin {ALIKE}: as line {line} says.");
            let mut ids = vec![at];
            ids.extend(probe.ids());
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
