//! The agent's tasks: one that panics is reported and started again, and all end together.

use std::{any::Any, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::down;

/// How long a task that has panicked rests.
const REST: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });
/// A task that has gone on for so long since it panicked is well again.
const WELL: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 600_000 });

/// What is to be known of a task.
pub enum TaskReport {
    /// It has panicked, and is started again. In words, and how often it has so far.
    Panicked(String, u64),
    /// It has gone on for a while since.
    Well,
}

/// To whom it is told.
pub type Tell = Arc<dyn Fn(&'static str, TaskReport) + Send + Sync>;

/// See the module.
pub struct Tasks {
    tell: Tell,
    stopped: watch::Receiver<bool>,
    running: JoinSet<()>,
}

impl Tasks {
    /// None yet. They are to end when `stopped` is true.
    pub fn new(tell: Tell, stopped: watch::Receiver<bool>) -> Self {
        Self { tell, stopped, running: JoinSet::new() }
    }

    /// Starts a task that goes on until it is told to stop, or has nothing more to do.
    pub fn keep<R>(&mut self, name: &'static str, task: impl Fn(watch::Receiver<bool>) -> R + Send + 'static)
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let (tell, stopped) = (self.tell.clone(), self.stopped.clone());
        self.running.spawn(async move {
            let mut panics = 0;
            loop {
                // In a set of its own: it ends if this one is dropped.
                let mut one = JoinSet::new();
                one.spawn(task(stopped.clone()));
                let mut ended = None;
                if panics > 0 {
                    ended = timeout(WELL, one.join_next()).await.ok();
                    if ended.is_none() {
                        tell(name, TaskReport::Well);
                    }
                }
                let ended = match ended {
                    Some(ended) => ended,
                    None => one.join_next().await,
                };
                let Some(Err(error)) = ended else { return };
                let Ok(panic) = error.try_into_panic() else { return };
                panics += 1;
                tell(name, TaskReport::Panicked(words(panic.as_ref()), panics));
                if timeout(REST, down(stopped.clone())).await.is_ok() {
                    return;
                }
            }
        });
    }

    /// Waits until all have ended, for so long at most. True: all have.
    pub async fn end(mut self, limit: Duration) -> bool {
        let all = async { while self.running.join_next().await.is_some() {} };
        timeout(limit, all).await.is_ok()
    }
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_reported_and_started_again() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let starts = Arc::new(AtomicU64::default());
        let (stop, stopped) = watch::channel(false);
        let report = move |name, said| {
            let text = match said {
                TaskReport::Panicked(why, count) => format!("{name}: {why} ({count})"),
                TaskReport::Well => format!("{name}: well"),
            };
            tell.send(text).expect("somebody listens");
        };
        let mut tasks = Tasks::new(Arc::new(report), stopped);
        let begun = starts.clone();
        tasks.keep("sweeper", move |stopped| {
            let start = begun.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(start >= 2, "start {start}");
                down(stopped).await;
            }
        });
        for wanted in ["sweeper: start 0 (1)", "sweeper: start 1 (2)", "sweeper: well"] {
            assert_eq!(told.recv().await.as_deref(), Some(wanted));
        }
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        stop.send_replace(true);
        assert!(tasks.end(Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn a_task_that_does_not_listen_holds_nobody_up() {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Tasks::new(Arc::new(|_, _| {}), stopped);
        tasks.keep("deaf", |_| std::future::pending());
        tasks.keep("attentive", down);
        stop.send_replace(true);
        let began = tokio::time::Instant::now();
        assert!(!tasks.end(REST).await);
        assert!(began.elapsed() >= REST);
    }
}
