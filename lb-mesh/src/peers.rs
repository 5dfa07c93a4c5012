//! Where peers are by configuration and DNS, and how each of their addresses is.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::view::{Peer, PeerState};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    of: Mutex<BTreeMap<String, Result<Vec<SocketAddr>, String>>>,
    states: Mutex<BTreeMap<SocketAddr, PeerState>>,
}

fn locked<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    /// These are the peers, and no others.
    pub(crate) fn configured(&self, peers: &[String]) {
        locked(&self.of).retain(|peer, _| peers.contains(peer));
    }

    /// A peer has these addresses now, or the last ones if its name can't be resolved.
    pub(crate) fn resolved(&self, peer: &str, addresses: Result<Vec<SocketAddr>, String>) {
        let mut of = locked(&self.of);
        match (addresses, of.get(peer)) {
            (Err(_), Some(Ok(_))) => {}
            (addresses, _) => drop(of.insert(peer.to_owned(), addresses)),
        }
    }

    /// All addresses.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        locked(&self.of).values().flatten().flatten().copied().collect()
    }

    /// Is it still a peer's address?
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        locked(&self.of).values().flatten().flatten().any(|it| *it == address)
    }

    /// An address is like that now; `None`: nobody tries it any more.
    pub(crate) fn set(&self, address: SocketAddr, state: Option<PeerState>) {
        let mut states = locked(&self.states);
        match state {
            Some(state) => drop(states.insert(address, state)),
            None => drop(states.remove(&address)),
        }
    }

    pub(crate) fn view(&self) -> Vec<Peer> {
        let states = locked(&self.states);
        let state = |address| states.get(address).cloned().unwrap_or(PeerState::Connecting);
        let mut peers = Vec::new();
        for (peer, addresses) in &*locked(&self.of) {
            let named = |address, state| Peer { peer: peer.clone(), address, state };
            match addresses {
                Ok(addresses) => peers.extend(addresses.iter().map(|it| named(Some(*it), state(it)))),
                Err(why) => peers.push(named(None, PeerState::Failing(why.clone()))),
            }
        }
        peers
    }
}
