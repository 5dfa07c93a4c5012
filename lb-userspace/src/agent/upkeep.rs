//! What the owner does unasked: follows the file, the interfaces and the time.

use std::{sync::Arc, time::Duration};

use tokio::{
    signal::unix::Signal,
    sync::{Mutex, Notify, mpsc, watch},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{down, handle::Handle, notify, trim};
use crate::datapath::repin::Repin;

/// How often interfaces are looked at without a word from netlink: nobody says when a program was taken off, or when another
/// that was in the way has gone.
const LOOK: Duration = Duration::from_secs(5);

/// How often pins are: nobody says when one was removed, either.
const PINS: Duration = Duration::from_secs(1);

/// How often backends in their slow start are given more.
const RAMP: Duration = Duration::from_secs(1);

/// How often bitmaps of source ports that are empty are removed.
const PORTS: Duration = Duration::from_secs(10);

/// What tells that there is something to do.
pub struct Signs {
    /// SIGHUP.
    pub hup: Signal,
    /// Interfaces or addresses have changed.
    pub changes: mpsc::Receiver<()>,
    /// To look for pins that have vanished.
    pub repin: Repin,
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Goes on until told to stop. `host`: told when the host's rules are to be looked at anew.
pub async fn run(
    handle: Handle,
    signs: Arc<Mutex<Signs>>,
    host: Arc<Notify>,
    stopped: watch::Receiver<bool>,
) {
    let mut signs = signs.lock().await;
    let Signs { hup, changes, repin } = &mut *signs;
    let (mut look, mut pins, mut ramp, mut ports) = (every(LOOK), every(PINS), every(RAMP), every(PORTS));
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = hup.recv() => {
                notify(&[sd_notify::NotifyState::Reloading]);
                // What is wrong is in the log and the status.
                let _ = handle.reload().await;
                handle.shared.connection_log.reopen();
                trim();
                host.notify_one();
                notify(&[sd_notify::NotifyState::Ready]);
            }
            Some(()) = changes.recv() => handle.look().await,
            _ = look.tick() => handle.look().await,
            _ = pins.tick() => if handle.shared.keep_pins(repin) {
                handle.look().await;
            },
            _ = ramp.tick() => {
                let leaves = handle.shared.read().is_leaving();
                if leaves {
                    handle.owner().lock().await.leave();
                }
                let removes = {
                    let state = handle.shared.read();
                    state.unsaved || !state.removals().is_empty()
                };
                if removes {
                    handle.owner().lock().await.tend_removals();
                }
                if handle.shared.read().health.any_ramping() {
                    handle.owner().lock().await.ramp();
                }
            }
            _ = ports.tick() => handle.owner().lock().await.collect_ports(),
        }
    }
}
