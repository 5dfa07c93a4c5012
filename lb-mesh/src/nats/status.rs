//! Servers, and how each is.

use std::{
    error::Error as _,
    io,
    sync::{Mutex, PoisonError},
};

use async_nats::{ConnectError, ConnectErrorKind, ServerError};
use tracing::warn;

use super::{access::Access, server::NatsServer, subjects::Subjects};
use crate::{
    Reason,
    context::{HANDSHAKE, reason},
    driver::Shown,
    links::Links,
    view::{Peer, PeerState},
};

/// See the module.
pub(crate) struct Status {
    pub(crate) access: Access,
    servers: Vec<NatsServer>,
    states: Mutex<Vec<PeerState>>,
}

impl Status {
    /// `servers`: one at least.
    pub(crate) fn new(servers: Vec<NatsServer>, access: Access) -> Self {
        let states = Mutex::new(vec![PeerState::Connecting; servers.len()]);
        Self { access, servers, states }
    }

    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    pub(crate) fn server(&self, at: usize) -> &NatsServer {
        &self.servers[at]
    }

    fn change(&self, change: impl FnOnce(&mut Vec<PeerState>)) {
        change(&mut self.states.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The node is connected to a server of this name. Others aren't needed.
    pub(crate) fn connected(&self, at: usize, name: &str) {
        self.change(|states| {
            for (other, state) in states.iter_mut().enumerate() {
                if other == at {
                    *state = PeerState::Connected(name.to_owned());
                } else if *state == PeerState::Connecting {
                    *state = PeerState::Elsewhere(name.to_owned());
                }
            }
        });
    }

    /// A server can't be used: why. It is logged unless it is as before.
    pub(crate) fn failing(&self, at: usize, why: String) {
        self.change(|states| {
            let state = PeerState::Failing(why.clone());
            if states[at] != state {
                warn!("{}: {why}", self.servers[at]);
                states[at] = state;
            }
        });
    }

    /// What to say of a connection that couldn't be made.
    pub(crate) fn refused(&self, at: usize, links: &Links, error: &ConnectError) -> String {
        let of_tls = error.source().and_then(|error| error.downcast_ref::<io::Error>()).map(reason);
        if let Some(reason @ (Reason::Certificate | Reason::Name)) = of_tls {
            links.refuse(reason, None, &self.servers[at], error);
        }
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation => {
                "the server refuses the login (authorization violation); look at the user and password, the token, or \
                 the file of credentials"
                    .into()
            }
            ConnectErrorKind::TimedOut => format!("no answer in {HANDSHAKE:?}"),
            // What was being done when it failed says nothing.
            ConnectErrorKind::Io => error.source().map_or_else(|| error.to_string(), ToString::to_string),
            _ => error.to_string(),
        }
    }

    /// The server doesn't do something that it was asked to.
    pub(crate) fn disallowed(&self, at: usize, error: &ServerError, subjects: &Subjects) {
        let mut why = format!("the server says: {error}");
        if error.to_string().to_lowercase().contains("permissions violation") {
            why += &format!(
                "; the node has to be allowed to publish to {}, and to subscribe to {} and {}",
                subjects.own(),
                subjects.all_here(),
                subjects.all_to()
            );
        }
        self.failing(at, why);
    }
}

/// Of the servers one is needed, and none has an address until it is connected.
impl Shown for std::sync::Arc<Status> {
    fn peers(&self) -> Vec<Peer> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = |(server, state): (&NatsServer, &PeerState)| Peer {
            peer: server.to_string(),
            address: None,
            state: state.clone(),
        };
        self.servers.iter().zip(states.iter()).map(peer).collect()
    }

    fn problem(&self) -> Option<String> {
        self.access.problem()
    }
}
