//! `flowpin backend drain --wait`: watches a drain to its end.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    Context, Failure,
    backend::{Owned, drained},
    output::{duration, plural},
};
use crate::api::{client::ClientError, types::BackendView};

/// How often the agent is asked; it has nothing yet that it could tell unasked.
const POLL: Duration = Duration::from_millis(200);

/// How long an agent may be away while it is waited for. A restart or an upgrade of the agent takes a second or two, and the drain
/// goes on in the kernel meanwhile.
pub const AWAY: Duration = Duration::from_secs(30);

/// How long after its deadline a drain may make no headway: a service may have the rest closed then, which takes a while.
pub const LATE: Duration = Duration::from_secs(3);

/// How often progress is told where there is no terminal to redraw a line on.
pub const REPORT: Duration = Duration::from_secs(10);

/// Returns when no connection of `backend` is left.
///
/// # Errors
/// The deadline has passed with connections left; somebody took the drain back; the backend or the agent is gone.
pub async fn wait(context: &Context, service: &str, mut backend: BackendView) -> Result<(), Failure> {
    let mut progress = Progress::new(&backend);
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut answered = Instant::now();
    let mut passed = None;
    let mut left = backend.active_connections;
    let end = loop {
        progress.show(&backend);
        if backend.drain_deadline_seconds.is_some_and(|seconds| seconds <= 0.0) {
            // As long as they become fewer, the rest is being closed.
            if backend.active_connections < left {
                passed = None;
            }
            passed.get_or_insert_with(Instant::now);
        }
        left = backend.active_connections;
        let late = passed.is_some_and(|passed: Instant| passed.elapsed() >= LATE);
        if let Some(end) = end(service, &backend, late) {
            break end;
        }
        ticks.tick().await;
        match context.client.service(service).await {
            Ok(view) => {
                answered = Instant::now();
                match view.backends.into_iter().find(|b| b.address == backend.address) {
                    Some(view) => backend = view,
                    None => {
                        return Err(Failure::Said(format!(
                            "backend {} of service \"{service}\" was removed while it drained; \"flowpin connection list --backend {0}\" \
                             shows what is left",
                            backend.address
                        )));
                    }
                }
            }
            Err(ClientError::Unreachable { .. }) if answered.elapsed() < AWAY => {}
            Err(e) => return Err(e.into()),
        }
    };
    progress.bar.finish_and_clear();
    context.printer.print(&Owned { service, backend: &backend }, drained)?;
    end
}

/// Is it over, and how did it end? `late`: the deadline has passed, and then some.
fn end(service: &str, backend: &BackendView, late: bool) -> Option<Result<(), Failure>> {
    let BackendView { address, state, active_connections: left, .. } = backend;
    if state == "active" {
        let undrained = format!(
            "backend {address} of service \"{service}\" was undrained by somebody else; drain it again"
        );
        return Some(Err(Failure::Said(undrained)));
    }
    if *left == 0 {
        return Some(Ok(()));
    }
    late.then(|| {
        Err(Failure::Said(format!(
            "the deadline has passed and backend {address} of service \"{service}\" still has {}; they stay open: wait on \
             with a later --deadline, or close them with \"flowpin connection close --service {service} --backend {address}\"",
            plural(*left, "connection")
        )))
    })
}

/// The line with what is left: redrawn on a terminal, now and then written anew elsewhere.
struct Progress {
    bar: ProgressBar,
    told: Option<Instant>,
}

impl Progress {
    fn new(backend: &BackendView) -> Self {
        let bar =
            ProgressBar::with_draw_target(Some(backend.active_connections), ProgressDrawTarget::stderr());
        // The template is a constant; if indicatif refused it, its own default would do.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(format!("draining {}", backend.address));
        Self { bar, told: None }
    }

    fn show(&mut self, backend: &BackendView) {
        let left = backend.active_connections;
        let deadline =
            backend.drain_deadline_seconds.filter(|s| *s > 0.0).map(|s| format!(", {} to go", duration(s)));
        let message = format!("{} left{}", plural(left, "connection"), deadline.unwrap_or_default());
        if std::io::stderr().is_terminal() {
            // A port-reusing straggler may have raised the count after the first look.
            let most = self.bar.length().unwrap_or(0).max(left);
            self.bar.set_length(most);
            self.bar.set_position(most - left);
            self.bar.set_message(message);
        } else if self.told.is_none_or(|told| told.elapsed() >= REPORT) {
            self.told = Some(Instant::now());
            drop(writeln!(std::io::stderr(), "flowpin: draining {}: {message}", backend.address));
        }
    }
}
