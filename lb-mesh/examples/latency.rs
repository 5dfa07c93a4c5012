//! How long it takes until all nodes know of a connection, and what that costs: meshes in one process, over loopback.
//!
//!     cargo run --release -p lb-mesh --example latency [NODES [OPENS [nats://HOST:4222]]]
//!
//! By TCP, and then by a NATS server if one is given.
//! A connection opens on one node; measured is when each other node's kernel is given it. Then connections open at 100
//! a second on all nodes in turn, and the process's CPU time is measured.

use std::{
    env, fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lb_cluster::{
    BackendKey, ServiceKey,
    agent::{Pool, Words},
    frame::Own,
};
use lb_common::ranked::ORDER_BITS;
use lb_mesh::{Identity, Kernel, Mesh, Nats, NatsServer, Settings, Tcp, Transport, keygen};
use rand::RngExt as _;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

const CLUSTER: &str = "measured";
/// How long connections open at [`RATE`].
const LOAD: Duration = Duration::from_secs(10);
/// Connections a second.
const RATE: u32 = 100;
/// What `/proc/self/stat` counts in, a second (proc_pid_stat(5); 100 on all of Linux's architectures that matter).
const TICKS: f64 = 100.0;

/// So many that with few connections each all are told of at once (`lb_cluster::owner::Load::gap`).
const BACKENDS: usize = 250;

/// Tells which node was given how many connections, its own and others', and when.
struct Told {
    node: usize,
    own: Arc<Mutex<Vec<Vec<u32>>>>,
    tell: mpsc::UnboundedSender<(usize, u64, Instant)>,
}

fn backend(slot: usize) -> BackendKey {
    BackendKey::of([10, 0, 1, slot as u8].into(), Some(80))
}

impl Kernel for Told {
    fn write(&mut self, _: ServiceKey, words: &dyn Fn(&Pool, &[u32]) -> Words) {
        let own = self.own.lock().expect("nobody has panicked")[self.node].clone();
        let pool: Vec<_> = (0..BACKENDS).map(|slot| (backend(slot), 1)).collect();
        let words = words(&Pool::new(&pool), &own);
        if words.shared {
            let others = words.words.iter().map(|word| word >> ORDER_BITS);
            let all = own.into_iter().chain(others).map(u64::from).sum();
            // The measurement has ended.
            let _ = self.tell.send((self.node, all, Instant::now()));
        }
    }

    fn extend(&mut self, _: Duration) {}

    fn reported(&mut self, _: Duration) {}
}

#[tokio::main]
async fn main() {
    let mut arguments = env::args().skip(1);
    let mut number = |else_| arguments.next().map_or(else_, |argument| argument.parse().expect("a number"));
    let (nodes, opens) = (number(8), number(1_000));
    measure("TCP", nodes, opens, None).await;
    if let Some(server) = arguments.next() {
        let servers = NatsServer::list(&server).expect("a server");
        let nats = Nats { servers, credentials: None, ca: None, certificate: None };
        measure("NATS", nodes, opens, Some(nats)).await;
    }
}

async fn measure(transport: &str, nodes: usize, opens: usize, nats: Option<Nats>) {
    let keys = tempfile::tempdir().expect("a folder for keys");
    let name = |node| format!("node-{node}");
    let names: Vec<_> = (0..nodes).map(name).collect();
    keygen::create(keys.path(), CLUSTER, &names).expect("keys");
    let (tell, mut told) = mpsc::unbounded_channel();
    let own = Arc::new(Mutex::new(vec![vec![0; BACKENDS]; nodes]));
    let mut meshes = Vec::new();
    for (node, name) in names.iter().enumerate() {
        let file = |end: &str| keys.path().join(format!("{name}.{end}"));
        let tcp = || Tcp {
            listen: "127.0.0.1:0".parse().expect("an address"),
            peers: Vec::new(),
            identity: Identity {
                ca: keys.path().join(keygen::CA),
                certificate: file("pem"),
                key: file("key"),
            },
        };
        let settings = Settings {
            node: name.clone(),
            cluster: CLUSTER.into(),
            transport: nats.clone().map_or_else(|| Transport::Tcp(tcp()), Transport::Nats),
            aggregators: Vec::new(),
        };
        let kernel = Told { node, own: own.clone(), tell: tell.clone() };
        meshes.push(Mesh::start(settings, kernel).await.expect("a mesh"));
    }
    let peers: Vec<_> = meshes.iter().filter_map(Mesh::address).map(|it| it.to_string()).collect();
    for mesh in meshes.iter().filter(|mesh| mesh.address().is_some()) {
        mesh.handle().set_peers(peers.clone()).expect("peers");
    }
    let service = ServiceKey::of("", "measured");
    let open = |node: usize| {
        let mut own = own.lock().expect("nobody has panicked");
        let slot = rand::rng().random_range(0..BACKENDS);
        own[node][slot] += 1;
        let opened = own[node].iter().map(|open| u64::from(*open)).sum();
        let counts = vec![Own { backend: backend(slot), open: own[node][slot] }];
        meshes[node].handle().counted(service, BACKENDS as u32, opened, counts);
    };
    (0..nodes).for_each(open);
    let mut all = nodes as u64;
    let everybody = async |told: &mut mpsc::UnboundedReceiver<_>, all: u64, but: Option<usize>| {
        let mut waiting: Vec<_> = (0..nodes).filter(|node| Some(*node) != but).collect();
        let mut last = Vec::new();
        while !waiting.is_empty() {
            let (node, seen, at) = told.recv().await.expect("meshes run");
            if seen >= all && waiting.contains(&node) {
                waiting.retain(|it| *it != node);
                last.push(at);
            }
        }
        last
    };
    timeout(Duration::from_secs(60), everybody(&mut told, all, None)).await.expect("they agree");

    let mut times = Vec::new();
    for _ in 0..opens {
        // So slow that nothing is added for what may be under way.
        let pause = rand::rng().random_range(25..50);
        sleep(Duration::from_millis(pause)).await;
        while told.try_recv().is_ok() {}
        let node = rand::rng().random_range(0..nodes);
        all += 1;
        let began = Instant::now();
        open(node);
        let heard = timeout(Duration::from_secs(10), everybody(&mut told, all, Some(node))).await;
        times.extend(heard.expect("all hear of it").into_iter().map(|at| at - began));
    }
    times.sort_unstable();
    let percentile = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    println!(
        "{transport}, {nodes} nodes, {opens} connections: known to others after p50 {:.2} ms, p90 {:.2} ms, \
         p99 {:.2} ms, at most {:.2} ms",
        percentile(50),
        percentile(90),
        percentile(99),
        percentile(100),
    );

    let idle = cpu();
    sleep(LOAD).await;
    let (idle, loaded) = (cpu() - idle, cpu());
    let mut turn = tokio::time::interval(Duration::from_secs(1) / RATE);
    for step in 0..RATE as usize * LOAD.as_secs() as usize {
        turn.tick().await;
        open(step % nodes);
    }
    let part = |cpu: f64| 100.0 * cpu / LOAD.as_secs_f64() / nodes as f64;
    println!(
        "CPU of a core for each node: idle {:.2} %, at {RATE} a second {:.2} %",
        part(idle),
        part(cpu() - loaded)
    );
}

/// The process's CPU time so far, seconds.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc");
    let of_process = stat.rsplit_once(')').expect("a name").1;
    of_process
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<f64>().expect("ticks"))
        .sum::<f64>()
        / TICKS
}
