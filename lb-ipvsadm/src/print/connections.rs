//! Connections.

use std::{net::SocketAddr, time::Duration};

use crate::Protocol;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// TCP, and its handshake isn't done.
    Opening,
    /// TCP, open.
    Open,
    /// TCP, and one side has closed.
    Closing,
    /// TCP, over, and remembered for late packets.
    Closed,
    /// UDP.
    Datagrams,
    /// It was met in the middle, and nobody has confirmed it.
    Unconfirmed,
}

impl State {
    /// In IPVS's words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "SYN_RECV",
            Self::Open => "ESTABLISHED",
            Self::Closing => "FIN_WAIT",
            Self::Closed => "TIME_WAIT",
            Self::Datagrams => "UDP",
            Self::Unconfirmed => "NONE",
        }
    }
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Of which protocol.
    pub protocol: Protocol,
    /// How long it is kept if nothing happens any more.
    pub expires: Duration,
    /// How far it is.
    pub state: State,
    /// The client.
    pub client: SocketAddr,
    /// The service.
    pub service: SocketAddr,
    /// The server.
    pub server: SocketAddr,
}

/// What `-L -c` shows, in the given order.
pub fn connections(list: impl IntoIterator<Item = Connection>) -> String {
    let mut text = "Flowpin connection entries\n\
                    pro expire state       source             virtual            destination\n"
        .to_string();
    for Connection { protocol, expires, state, client, service, server } in list {
        let seconds = expires.as_secs();
        let expire = format!("{:02}:{:02}", seconds / 60, seconds % 60);
        let [client, service] = [client, service].map(|address| address.to_string());
        let (protocol, state) = (protocol.heading(), state.name());
        text.push_str(&format!(
            "{protocol:<3} {expire:<6} {state:<11} {client:<18} {service:<18} {server}\n"
        ));
    }
    text
}
