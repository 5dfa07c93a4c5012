//! Servers of gRPC's health service (grpc/health/v1).

use std::{net::SocketAddr, sync::mpsc, thread};

use tokio::runtime::{Builder, Handle};
pub use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::Ns;

/// A server in a namespace, that says of the service `app` what it is told to. Its threads end with the process.
pub struct Grpc {
    handle: Handle,
    reporter: HealthReporter,
}

impl Grpc {
    /// Listens at a port; `app` is served.
    ///
    /// # Panics
    /// It can't listen.
    pub fn start(ns: &Ns, port: u16) -> Self {
        let (tell, started) = mpsc::channel();
        // A thread is where the one is that starts it.
        ns.run(|| {
            thread::spawn(move || {
                let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let (reporter, service) = health_reporter();
                    reporter.set_service_status("app", ServingStatus::Serving).await;
                    tell.send(Self { handle: Handle::current(), reporter }).expect("somebody waits");
                    let address = SocketAddr::from(([0, 0, 0, 0], port));
                    let server = tonic::transport::Server::builder().add_service(service);
                    server.serve(address).await.expect("a port");
                });
            });
        });
        started.recv().expect("a server")
    }

    /// What it says from now on.
    pub fn set(&self, status: ServingStatus) {
        self.handle.block_on(self.reporter.set_service_status("app", status));
    }
}
