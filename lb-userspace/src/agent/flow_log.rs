//! Records of new flows, from the programs, as lines of the agent's own log.

use std::sync::Arc;

use tokio::{
    io::unix::AsyncFd,
    sync::{Mutex, watch},
};

use super::{down, shared::Shared};
use crate::datapath::object::{FlowLog, flow_log};

/// Records of new flows, from the programs.
pub type FlowLogger = AsyncFd<aya_log::EbpfLogger<FlowLog>>;

/// Opens them.
///
/// # Errors
/// The kernel refuses.
pub fn flow_logger(shared: &Shared) -> anyhow::Result<FlowLogger> {
    let logger = flow_log(&mut shared.object())?;
    // SAFETY: the logger owns its descriptor, always the same one, for as long as it lives.
    Ok(unsafe { AsyncFd::register(logger) }?)
}

/// Writes them to the log until told to stop.
pub async fn log_flows(logger: Arc<Mutex<FlowLogger>>, stopped: watch::Receiver<bool>) {
    let mut logger = logger.lock().await;
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            ready = logger.readable_mut() => {
                let Ok(mut ready) = ready else { return };
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }
    }
}
