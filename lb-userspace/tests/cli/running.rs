//! The fake agent, listening on a socket in a temporary directory.

use std::path::PathBuf;

use flowpin::api::server;
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime::Runtime, sync::oneshot, task::JoinHandle};

use crate::{
    fake::{Fake, World, backend, service},
    ran::{Ran, flowpin},
};

/// A running fake agent.
pub struct Agent {
    /// What it knows.
    pub fake: Fake,
    dir: TempDir,
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
}

impl Agent {
    /// With one service `app` over two backends, one of them on IPv6's notation to have it seen everywhere.
    pub fn new() -> Self {
        let agent = Self::empty();
        let backends = vec![backend("10.0.1.11", 2), backend("10.0.1.12:5432", 1)];
        agent.world(|w| {
            w.services.push(service("app", "10.96.0.10", backends));
            w.services.push(service("ns/six", "fd00::10", vec![backend("[fd00::11]:5432", 4)]));
        });
        agent
    }

    /// With nothing.
    pub fn empty() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let runtime = Runtime::new().expect("a runtime");
        let mut agent = Self { fake: Fake::default(), dir, runtime, stop: None };
        agent.start();
        agent
    }

    /// Listens.
    pub fn start(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let listener = self.block_on(async { UnixListener::bind(self.socket()) }).expect("a socket");
        let server = server::serve(listener, self.fake.clone(), async {
            // An error means that the test is over as well.
            let _ = stopped.await;
        });
        self.runtime.spawn(server);
        self.stop = Some(stop);
    }

    /// Stops listening, as an agent does that is restarted.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the server is gone already.
            let _ = stop.send(());
        }
        std::fs::remove_file(self.socket()).expect("the socket was there");
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// Looks at what it knows, or changes it.
    pub fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut self.fake.world())
    }

    /// Runs `flowpin ARGS` against it.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(flowpin(args).env("FLOWPIN_API_SOCKET", self.socket()))
    }

    /// Has something run on its runtime.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(future)
    }

    /// Runs something on its runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}
