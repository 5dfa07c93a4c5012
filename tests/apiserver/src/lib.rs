//! An API server of our own: lists with limit and continue, watches with bookmarks, selectors, old versions; and
//! whatever can go wrong with it.

mod answer;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::Router;
use serde::Deserialize;
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;
use tokio::sync::{broadcast, watch};

use self::answer::answer;

/// Whatever is awaited comes much sooner.
const LONG: Duration = Duration::from_secs(20);

/// What is said in one piece of YAML: objects, a document each or a list.
///
/// # Panics
/// It isn't YAML.
pub fn objects(yaml: &str) -> Vec<Yaml> {
    let mut all = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        match Yaml::deserialize(document).unwrap_or_else(|e| panic!("{e}: {yaml}")) {
            Yaml::Sequence(list) => all.extend(list),
            Yaml::Null => {}
            one => all.push(one),
        }
    }
    all
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The next so many requests for a kind get this status, and are told to wait so many seconds.
    Refuse { plural: &'static str, status: u16, times: usize, wait: u32 },
    /// Watches from an old version are told so by the answer, instead of by an event.
    GoneAtOnce,
}

#[derive(Default)]
struct Inner {
    version: u64,
    /// What came before isn't known any more.
    compacted: u64,
    objects: BTreeMap<(String, String), Value>,
    /// Version, kind, before, after.
    log: Vec<(u64, String, Option<Value>, Option<Value>)>,
    faults: Vec<Fault>,
    /// Who has no such token is refused.
    token: Option<String>,
}

/// What open watches are told besides.
#[derive(Clone, Copy)]
enum Sign {
    /// The next event of a kind breaks off in its middle, and the connection with it.
    Break,
    Bookmark,
}

/// See the module.
#[derive(Clone)]
pub struct Fake {
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<u64>,
    signs: broadcast::Sender<Sign>,
    /// Where it is.
    pub at: SocketAddr,
    running: Arc<Mutex<Option<Running>>>,
    requests: Arc<Mutex<Vec<String>>>,
    created: Arc<Mutex<Vec<Value>>>,
}

impl Fake {
    /// At a free port of the loopback address.
    pub fn start() -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// At an address. It stays in the network namespace that this is called in.
    ///
    /// # Panics
    /// The address isn't to be had.
    pub fn listen(at: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let fake = Self {
            inner: Arc::new(Mutex::new(Inner { version: 10, ..Inner::default() })),
            changed: watch::channel(0).0,
            signs: broadcast::channel(16).0,
            at: listener.local_addr().unwrap(),
            running: Arc::default(),
            requests: Arc::default(),
            created: Arc::default(),
        };
        fake.serve(listener);
        fake
    }

    /// Another server of the same cluster.
    ///
    /// # Panics
    /// There is no port.
    pub fn beside(&self) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let fake = Self { at, running: Arc::default(), requests: Arc::default(), ..self.clone() };
        fake.serve(listener);
        fake
    }

    fn serve(&self, listener: TcpListener) {
        let router = Router::new().fallback(answer).with_state(self.clone());
        // A runtime of its own: with it all its connections go.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        *self.running.lock().unwrap() = Some(Running(Some(runtime)));
    }

    /// It is gone, with all connections.
    ///
    /// # Panics
    /// Another thread has.
    pub fn stop(&self) {
        drop(self.running.lock().unwrap().take());
    }

    /// It is back, where it was.
    ///
    /// # Panics
    /// Somebody else has its port.
    pub fn restart(&self) {
        let start = Instant::now();
        let listener = loop {
            match TcpListener::bind(self.at) {
                Ok(listener) => break listener,
                // The last one is on its way out.
                Err(e) => assert!(start.elapsed() < LONG, "{}: {e}", self.at),
            }
            std::thread::yield_now();
        };
        self.serve(listener);
    }

    /// Puts objects, given as YAML.
    ///
    /// # Panics
    /// Another thread has, or it isn't an object that is known.
    pub fn apply(&self, yaml: &str) {
        for object in objects(yaml) {
            let object = serde_json::to_value(&object).unwrap();
            let (plural, key) = place(&object);
            self.put(plural, key, Some(object));
        }
    }
    /// Removes an object: `services`, `namespace/name`.
    ///
    /// # Panics
    /// Another thread has.
    pub fn delete(&self, plural: &str, key: &str) {
        self.put(plural.into(), key.into(), None);
    }

    fn put(&self, plural: String, key: String, object: Option<Value>) {
        let mut inner = self.inner.lock().unwrap();
        inner.version += 1;
        let version = inner.version;
        let place = (plural.clone(), key);
        let before = inner.objects.remove(&place);
        let after = object.map(|mut object| {
            object["metadata"]["resourceVersion"] = version.to_string().into();
            // What nobody reads.
            object["metadata"]["managedFields"] = json!([{"manager": "x", "fieldsV1": {"f:spec": {}}}]);
            object
        });
        if let Some(object) = &after {
            inner.objects.insert(place, object.clone());
        }
        inner.log.push((version, plural, before, after));
        drop(inner);
        self.changed.send_replace(version);
    }

    /// Forgets what came before now.
    ///
    /// # Panics
    /// Another thread has.
    pub fn compact(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.version += 1;
        inner.compacted = inner.version;
        inner.log.clear();
    }
    /// Something goes wrong from now on.
    ///
    /// # Panics
    /// Another thread has.
    pub fn fault(&self, fault: Fault) {
        self.inner.lock().unwrap().faults.push(fault);
    }
    /// From now on only who has this token is answered. Open watches go on.
    ///
    /// # Panics
    /// Another thread has.
    pub fn admit(&self, token: &str) {
        self.inner.lock().unwrap().token = Some(format!("Bearer {token}"));
    }
    /// The next event that open watches are told of breaks off in its middle.
    pub fn break_next(&self) {
        let _ = self.signs.send(Sign::Break);
    }
    /// Tells open watches which version it is.
    pub fn bookmark(&self) {
        let _ = self.signs.send(Sign::Bookmark);
    }

    /// What was created so far.
    ///
    /// # Panics
    /// Another thread has.
    pub fn created(&self) -> Vec<Value> {
        self.created.lock().unwrap().clone()
    }

    /// What was asked for so far, as path and query.
    ///
    /// # Panics
    /// Another thread has.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// A runtime that ends at once.
struct Running(Option<tokio::runtime::Runtime>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn place(object: &Value) -> (String, String) {
    let plural = match object["kind"].as_str().unwrap() {
        "Service" => "services",
        "EndpointSlice" => "endpointslices",
        "Node" => "nodes",
        "Namespace" => "namespaces",
        "ServiceCIDR" => "servicecidrs",
        other => panic!("{other}"),
    };
    let name = object["metadata"]["name"].as_str().unwrap();
    let key = object["metadata"]["namespace"].as_str().map_or(name.into(), |ns| format!("{ns}/{name}"));
    (plural.into(), key)
}
