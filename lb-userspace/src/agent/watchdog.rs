//! Tells systemd that the agent goes on, where it wants to know (`WatchdogSec=`): as long as whoever wants to change
//! something gets his turn. An agent that doesn't is ended and started anew; packets need none.

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{down, handle::Handle, notify};

/// See the module.
pub async fn run(handle: Handle, stopped: watch::Receiver<bool>) {
    let stop = down(stopped);
    tokio::pin!(stop);
    let Some(limit) = sd_notify::watchdog_enabled() else { return stop.await };
    // Twice in that time, as sd_watchdog_enabled(3) has it.
    let half = limit / 2;
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = sleep(half) => {}
        }
        if timeout(half, handle.owner().lock()).await.is_ok() {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}
