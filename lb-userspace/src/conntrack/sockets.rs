//! Sockets of the node's own processes: which match a filter, and how they leave their backend. One that is connected is
//! ended by the kernel, so that its process connects anew; one that isn't has its pin let go of, and chooses with its next
//! datagram. The kernel ends sockets of this network namespace only: connected ones of pods stay where they are.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use lb_common::abi::{BackendId, Proto, ServiceId, socket::SocketRequest};

use super::{
    Directory,
    matches::{Filter, Place},
    select::{Cause, Closing, How, Pinned, Victim},
};
use crate::datapath::{
    DatapathError,
    diag::{self, Ender, Handle, Known},
    object::Object,
    refusal::unless_refused,
    sockets::{self, PinnedSocket, address},
};

/// TCP states of the kernel's (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const CLOSE: u8 = 7;

/// A socket that matches.
pub struct SocketMatch<'a> {
    /// Its pin.
    pub socket: PinnedSocket,
    /// What the kernel knows of it; of other network namespaces' nothing.
    pub known: Option<Known>,
    /// Name of its service.
    pub service: &'a str,
    /// Its own address; unspecified: not known.
    pub client: SocketAddr,
    /// Where it was led.
    pub backend: SocketAddr,
    /// What its state is called.
    pub state: &'static str,
}

/// Hands every socket that matches to `visit`. A socket's own address is the kernel's to say, and only of this network
/// namespace; of others it is unspecified.
pub fn each<'a>(place: Place<'a>, filter: &Filter<'_>, mut visit: impl FnMut(SocketMatch<'a>)) {
    let mut pins = place.sockets.iter().peekable();
    if pins.peek().is_none() {
        return;
    }
    let all = known();
    for socket in pins {
        let pin = &socket.pin;
        let known = all.get(&socket.cookie()).copied();
        let unspecified = SocketAddr::new(address([0; 4], pin.family), 0);
        let client = known.map_or(unspecified, |known| known.local);
        let backend = backend(&socket);
        let service = place.directory.name(pin.backend);
        let state = state(pin.proto, known);
        if filter.takes(client, backend, service, state) {
            visit(SocketMatch { socket, known, service, client, backend, state });
        }
    }
}

/// What a connection's state is called, by the kernel's for its socket.
const fn state(proto: Proto, known: Option<Known>) -> &'static str {
    match known {
        _ if proto.0 == Proto::UDP.0 => "active",
        Some(Known { state: SYN_SENT, .. }) => "syn-sent",
        Some(Known { state: CLOSE, .. }) => "closed",
        Some(Known { state: ESTABLISHED, .. }) | None => "established",
        Some(_) => "closing",
    }
}

fn backend(socket: &PinnedSocket) -> SocketAddr {
    SocketAddr::new(address(socket.pin.addr, socket.pin.family), socket.pin.port.get())
}

fn known() -> HashMap<u64, Known> {
    diag::sockets().unwrap_or_else(|e| {
        tracing::debug!("the kernel's list of sockets: {e}");
        HashMap::new()
    })
}

/// One that is to leave, as it was looked at.
#[derive(Clone, Copy, Debug)]
pub struct SocketVictim {
    /// Its pin.
    request: SocketRequest,
    /// To end it; `None`: it isn't connected.
    handle: Option<Handle>,
}

/// Those that are pinned to these backends.
pub fn of_backends(place: Place<'_>, backends: &HashMap<BackendId, Closing>) -> Vec<(Cause, Victim)> {
    let due = place.sockets.iter().filter_map(|s| Some((*backends.get(&s.pin.backend)?, s)));
    let due: Vec<(Closing, PinnedSocket)> = due.collect();
    let connected = due.iter().any(|(_, socket)| socket.pin.connected != 0);
    let all = if connected { known() } else { HashMap::new() };
    let victim = |(closing, socket): &(Closing, PinnedSocket)| {
        let victim = victim(socket, all.get(&socket.cookie()), place.directory)?;
        closing.takes(victim.how).then_some((closing.cause, victim))
    };
    due.iter().filter_map(victim).collect()
}

/// What a socket is as a victim. `None`: it is connected, and can't be ended.
pub fn victim(socket: &PinnedSocket, known: Option<&Known>, directory: &Directory) -> Option<Victim> {
    let handle = match socket.pin.connected {
        0 => None,
        // At another peer it has just been connected to something else.
        _ => Some(known.filter(|known| known.peer == backend(socket) && diag::can_end().is_ok())?.handle),
    };
    let how = if socket.pin.proto == Proto::TCP { How::Reset } else { How::Forget };
    let service = directory.service(socket.pin.backend).unwrap_or(ServiceId::MAX);
    let request = socket.request();
    Some(Victim { service, how, flow: Pinned::Socket(SocketVictim { request, handle }) })
}

/// Has them leave. Returns how many did.
///
/// # Errors
/// The kernel refuses; some may have.
pub fn close(object: &Mutex<Object>, victims: &[SocketVictim]) -> Result<u32, DatapathError> {
    let (connected, others): (Vec<&SocketVictim>, Vec<&SocketVictim>) =
        victims.iter().partition(|victim| victim.handle.is_some());
    let mut failure = None;
    let mut ended = Vec::with_capacity(connected.len());
    if !connected.is_empty() {
        let ender = Ender::open().map_err(DatapathError::io("sock_diag"))?;
        for victim in connected {
            match victim.handle.map(|handle| ender.end(&handle)) {
                Some(Ok(true)) => ended.push(victim.request),
                Some(Err(e)) => failure = Some(DatapathError::io("ending a socket")(e)),
                // It is gone, or somewhere else.
                Some(Ok(false)) | None => {}
            }
        }
    }
    let others: Vec<SocketRequest> = others.into_iter().map(|victim| victim.request).collect();
    let object = object.lock().unwrap_or_else(PoisonError::into_inner);
    // An ended one may have been closed since, and its pin with it.
    let done = unless_refused(sockets::let_go(&object, &ended))
        .and_then(|_| unless_refused(sockets::let_go(&object, &others)));
    match (failure, done) {
        (Some(e), _) | (None, Err(e)) => Err(e),
        (None, Ok(others)) => Ok(ended.len() as u32 + others),
    }
}
