//! The agent's connection to netlink. One that ends is followed by another, and whoever asks next asks by that.

use std::sync::{Arc, PoisonError, RwLock};

use rtnetlink::Handle;
use tokio::sync::{mpsc, watch};

use crate::datapath::interfaces;

/// The connection that is there now.
#[derive(Clone)]
pub struct Netlink(Arc<RwLock<Handle>>);

impl Netlink {
    /// The first one.
    pub fn new(first: Handle) -> Self {
        Self(Arc::new(RwLock::new(first)))
    }

    /// For questions.
    pub fn get(&self) -> Handle {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Has a connection work until told to stop. `changes`: see [`interfaces::watch`].
pub async fn run(netlink: Netlink, changes: mpsc::Sender<()>, mut stopped: watch::Receiver<bool>) {
    let (handle, work) = match interfaces::watch(changes.clone()) {
        Ok(watching) => watching,
        Err(e) => return tracing::error!("netlink: {e}"),
    };
    *netlink.0.write().unwrap_or_else(PoisonError::into_inner) = handle;
    // Of what has changed before nobody was told. If a word waits already, it will do.
    let _ = changes.try_send(());
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = work => {}
    }
}
