//! The agent's tasks: one that ends before it is told to, or panics, is reported and started again, and all end together.
//! Whatever goes on for as long as the agent does is one of these: `tokio::spawn` is for what `clippy.toml` says.

#[cfg(feature = "next")]
mod provoked;

use std::{any::Any, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout,
};

use super::down;

/// How long a task that has ended rests; twice as long the next time, and so on.
const REST: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });
/// The longest rest.
const LONGEST: Duration = Duration::from_millis(if cfg!(test) { 40 } else { 60_000 });
/// A task that has gone on for so long since it was started again is well.
const WELL: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 600_000 });

/// What is to be known of a task.
pub enum TaskReport {
    /// It is kept from now on.
    Kept,
    /// It has ended.
    Ended(TaskEnd),
    /// It has gone on for a while since.
    Well,
}

/// How a task has ended.
pub struct TaskEnd {
    /// In words.
    pub why: String,
    /// How often it has so far.
    pub count: u64,
    /// When it is started again.
    pub rest: Duration,
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

    /// Starts a task that goes on until it is told to stop.
    pub fn keep<R>(&mut self, name: &'static str, task: impl Fn(watch::Receiver<bool>) -> R + Send + 'static)
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let (tell, stopped) = (self.tell.clone(), self.stopped.clone());
        tell(name, TaskReport::Kept);
        self.running.spawn(async move {
            let (mut count, mut rest) = (0, REST);
            loop {
                // In a set of its own: it ends if this one is dropped.
                let mut one = JoinSet::new();
                let work = task(stopped.clone());
                #[cfg(feature = "next")]
                let work = provoked::beside(name, work);
                one.spawn(work);
                let mut ended = None;
                if count > 0 {
                    ended = timeout(WELL, one.join_next()).await.ok();
                    if ended.is_none() {
                        rest = REST;
                        tell(name, TaskReport::Well);
                    }
                }
                let ended = match ended {
                    Some(ended) => ended,
                    None => one.join_next().await,
                };
                let why = match ended.map(|ended| ended.map_err(JoinError::try_into_panic)) {
                    Some(Err(Ok(panic))) => format!("panicked: {}", words(panic.as_ref())),
                    Some(Ok(())) if !*stopped.borrow() => "ended, which nobody had told it to".into(),
                    _ => return,
                };
                count += 1;
                tell(name, TaskReport::Ended(TaskEnd { why, count, rest }));
                if timeout(rest, down(stopped.clone())).await.is_ok() {
                    return;
                }
                rest = (rest * 2).min(LONGEST);
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
pub fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    /// Tasks, what is told of them, and how they are stopped.
    fn tasks() -> (Tasks, mpsc::UnboundedReceiver<String>, watch::Sender<bool>) {
        let (tell, told) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let report = move |name, said| {
            let text = match said {
                TaskReport::Kept => format!("{name}: kept"),
                TaskReport::Ended(TaskEnd { why, count, rest }) => {
                    format!("{name} {why} ({count}, {rest:?})")
                }
                TaskReport::Well => format!("{name}: well"),
            };
            tell.send(text).expect("somebody listens");
        };
        (Tasks::new(Arc::new(report), stopped), told, stop)
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_reported_and_started_again() {
        let (mut tasks, mut told, stop) = tasks();
        let starts = Arc::new(AtomicU64::default());
        let begun = starts.clone();
        tasks.keep("sweeper", move |stopped| {
            let start = begun.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(start >= 3, "start {start}");
                if start == 3 {
                    return;
                }
                down(stopped).await;
            }
        });
        for wanted in [
            "sweeper: kept",
            "sweeper panicked: start 0 (1, 20ms)",
            "sweeper panicked: start 1 (2, 40ms)",
            "sweeper panicked: start 2 (3, 40ms)",
            "sweeper ended, which nobody had told it to (4, 40ms)",
            "sweeper: well",
        ] {
            assert_eq!(told.recv().await.as_deref(), Some(wanted));
        }
        assert_eq!(starts.load(Ordering::Relaxed), 5);
        stop.send_replace(true);
        assert!(tasks.end(Duration::from_secs(60)).await);
        assert_eq!(told.recv().await, None, "to end when told to is nothing to tell");
    }

    #[tokio::test]
    async fn one_that_panics_holds_no_other_up_and_rests_until_the_end_at_most() {
        let (mut tasks, mut told, stop) = tasks();
        let rounds = Arc::new(AtomicU64::default());
        let counted = rounds.clone();
        tasks.keep("bad", |_| async { panic!("always") });
        tasks.keep("good", move |stopped| {
            let counted = counted.clone();
            async move {
                while timeout(Duration::from_millis(1), down(stopped.clone())).await.is_err() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut before = 0;
        while let Some(said) = told.recv().await {
            assert!(!said.starts_with("good") || said.ends_with("kept"), "{said}");
            if said.contains("(4,") {
                break;
            }
            if said.starts_with("bad panicked: always") {
                let now = rounds.load(Ordering::Relaxed);
                assert!(now > before || before == 0, "the other goes on");
                before = now;
            }
        }
        stop.send_replace(true);
        assert!(tasks.end(REST).await, "it doesn't rest any longer");
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
