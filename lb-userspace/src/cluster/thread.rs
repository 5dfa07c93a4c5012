//! A thread with a runtime of its own. What wakes up hundreds of times a second there wakes up no other thread for it,
//! which is most of what it costs.

use std::{io, thread};

use tokio::{runtime::Builder, sync::oneshot};

/// Runs this on a thread of its own, until it has ended or nobody waits for that any more.
///
/// # Errors
/// There is no thread or runtime to be had.
///
/// # Panics
/// If it does.
pub async fn run<F: Future<Output = ()>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let (ended, end) = oneshot::channel::<()>();
    let (waiting, given_up) = oneshot::channel::<()>();
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        // Dropped last, also by a panic.
        let _ended = ended;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                () = work() => {}
                _ = given_up => {}
            }
        });
        // Names that are still looked up are waited for by nobody.
        runtime.shutdown_background();
        Ok(())
    })?;
    // It says nothing: that it is gone is what is waited for.
    let _ = end.await;
    drop(waiting);
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn it_ends_with_its_work_and_panics_with_it() {
        run("work", || async {}).await.expect("a thread");
        let mut waiting = JoinSet::new();
        waiting.spawn(run("work", || async { panic!("so") }));
        let ended = waiting.join_next().await.expect("there is one");
        assert!(ended.expect_err("it panics").is_panic());
    }

    #[tokio::test]
    async fn it_ends_when_nobody_waits_for_it() {
        struct Says(mpsc::Sender<()>);
        impl Drop for Says {
            fn drop(&mut self) {
                self.0.send(()).expect("somebody listens");
            }
        }
        let ((begun, begin), (says, said)) = (oneshot::channel(), mpsc::channel());
        let mut waiting = JoinSet::new();
        waiting.spawn(async {
            let work = || async {
                let _says = Says(says);
                begun.send(()).expect("somebody listens");
                std::future::pending::<()>().await;
            };
            run("work", work).await
        });
        begin.await.expect("it has begun");
        waiting.abort_all();
        tokio::task::spawn_blocking(move || said.recv()).await.expect("no panic").expect("it has ended");
    }
}
