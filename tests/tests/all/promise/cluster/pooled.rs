//! Clients that keep connections, use them now and then, and get new ones by themselves: a pool of PostgreSQL
//! connections, and gRPC channels.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use deadpool_postgres::{Config, ManagerConfig, PoolConfig, RecyclingMethod, Runtime};
use flowpin_tests::{cluster::VIP, harness::Ns};
use tokio::{runtime::Builder, time::sleep};
use tokio_postgres::NoTls;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Between two uses of a connection.
const PAUSE: Duration = Duration::from_secs(5);

/// Until when clients go on, and what they have done.
#[derive(Clone, Default)]
struct Shared {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Shared {
    async fn pause(&self) -> bool {
        sleep(PAUSE).await;
        !self.over.load(Relaxed)
    }

    fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }
}

/// See the module.
pub struct Pooled {
    shared: Shared,
    threads: Vec<JoinHandle<()>>,
}

impl Pooled {
    /// Starts them in a namespace: so many connections to port 5432, and so many to port 50051.
    pub fn start(ns: &Ns, postgres: usize, grpc: usize) -> Self {
        let shared = Shared::default();
        let [one, other] = [shared.clone(), shared.clone()];
        // A thread is where the one is that starts it.
        let threads = ns.run(move || {
            vec![
                thread::spawn(move || run(pool(postgres, one))),
                thread::spawn(move || run(channels(grpc, other))),
            ]
        });
        Self { shared, threads }
    }

    /// Ends them. How many requests were answered.
    ///
    /// # Panics
    /// One was not.
    pub fn end(self) -> usize {
        self.shared.over.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no request is lost"));
        self.shared.answered.load(Relaxed)
    }
}

fn run(clients: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(clients);
}

/// All connections of a pool at a time, so that each is used.
async fn pool(size: usize, shared: Shared) {
    let mut config = Config::new();
    (config.host, config.port) = (Some(VIP.into()), Some(5432));
    (config.user, config.dbname) = (Some("postgres".into()), Some("postgres".into()));
    config.manager = Some(ManagerConfig { recycling_method: RecyclingMethod::Verified });
    config.pool = Some(PoolConfig::new(size));
    let pool = config.create_pool(Some(Runtime::Tokio1), NoTls).expect("a pool");
    loop {
        let mut clients = Vec::new();
        for _ in 0..size {
            clients.push(pool.get().await.expect("a connection"));
        }
        for (number, client) in clients.iter().enumerate() {
            let row = client.query_one("select $1::int4", &[&(number as i32)]).await.expect("an answer");
            assert_eq!(row.get::<_, i32>(0), number as i32);
            shared.answered();
        }
        drop(clients);
        if !shared.pause().await {
            return;
        }
    }
}

/// One connection each.
async fn channels(count: usize, shared: Shared) {
    let mut clients: Vec<HealthClient<Channel>> = Vec::new();
    for _ in 0..count {
        let endpoint = Endpoint::from_shared(format!("http://{VIP}:50051")).expect("an address");
        clients.push(HealthClient::new(endpoint.connect().await.expect("a connection")));
    }
    loop {
        for client in &mut clients {
            let asked = client.check(HealthCheckRequest { service: "app".into() }).await.expect("an answer");
            assert_eq!(asked.into_inner().status, 1, "SERVING");
            shared.answered();
        }
        if !shared.pause().await {
            return;
        }
    }
}
