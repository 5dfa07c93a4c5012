//! Tells systemd that the agent goes on, where it wants to know (`WatchdogSec=`): as long as whoever wants to change
//! something gets his turn. An agent that doesn't is ended and started anew; packets need none.

use tokio::{sync::watch, time::sleep};

use super::{down, handle::Handle, notify};

/// See the module.
pub async fn run(handle: Handle, stopped: watch::Receiver<bool>) {
    let stop = down(stopped);
    tokio::pin!(stop);
    let Some(limit) = sd_notify::watchdog_enabled() else { return stop.await };
    // More often than sd_watchdog_enabled(3) has it, so that a turn may take three quarters of the time.
    let pause = limit / 4;
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = sleep(pause) => {}
        }
        tokio::select! {
            () = &mut stop => return,
            _ = handle.owner().lock() => notify(&[sd_notify::NotifyState::Watchdog]),
        }
    }
}
