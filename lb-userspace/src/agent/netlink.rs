//! The agent's connection to netlink. One that ends is followed by another, and whoever asks next asks by that.

use std::sync::Arc;

use rtnetlink::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, watch};

use crate::datapath::interfaces;

/// The connection that is there now.
#[derive(Clone)]
pub struct Netlink(Arc<Mutex<Handle>>);

impl Netlink {
    /// The first one.
    pub fn new(first: Handle) -> Self {
        Self(Arc::new(Mutex::new(first)))
    }

    /// For questions, of one at a time: the kernel refuses a second list on a socket while it gives the first (EBUSY,
    /// `__netlink_dump_start`).
    pub async fn get(&self) -> OwnedMutexGuard<Handle> {
        self.0.clone().lock_owned().await
    }
}

/// Has a connection work until told to stop. `changes`: see [`interfaces::watch`].
pub async fn run(netlink: Netlink, changes: mpsc::Sender<()>, mut stopped: watch::Receiver<bool>) {
    let (handle, work) = match interfaces::watch(changes.clone()) {
        Ok(watching) => watching,
        Err(e) => return tracing::error!("netlink: {e}"),
    };
    *netlink.0.lock().await = handle;
    // Of what has changed before nobody was told. If a word waits already, it will do.
    let _ = changes.try_send(());
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = work => {}
    }
}
