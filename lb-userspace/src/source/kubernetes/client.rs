//! The way to the API server: several addresses of it, of which the next is taken when one fails. Never by an
//! address that this agent serves itself.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode, Uri};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig},
};

use tokio::sync::watch;

use crate::proxy::Requests;

/// How long a connection may take before the next address is tried.
const CONNECT: Duration = Duration::from_secs(3);

/// Where the API server is, as the operator says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig; `None`: what a pod is given.
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Addresses, instead of the one that is said there, in their order.
    pub servers: Vec<String>,
}

impl Access {
    /// The addresses.
    ///
    /// # Errors
    /// One isn't an address.
    pub fn check(&self) -> Result<Vec<Uri>, AccessError> {
        let read = |text: &String| {
            let uri = text.parse::<Uri>().ok();
            let uri = uri.filter(|u| u.host().is_some() && matches!(u.scheme_str(), Some("https" | "http")));
            uri.ok_or_else(|| AccessError::Server { text: text.clone() })
        };
        self.servers.iter().map(read).collect()
    }
}

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message is the documentation of each variant and names its fields")]
pub enum AccessError {
    #[error("kubernetes.kubeconfig {path}: {error}")]
    Kubeconfig { path: String, error: String },
    #[error(
        "no way to the API server: {error}; run in a pod with a service account, or set kubernetes.kubeconfig"
    )]
    NotInPod { error: String },
    #[error("kubernetes.servers \"{text}\" is not an address; write https://192.0.2.1:6443")]
    Server { text: String },
    #[error("client for {server}: {error}")]
    Client { server: Uri, error: String },
}

/// How many watches the server has begun to answer, by the plural of what is watched. An answer begins when the watch
/// stands, and not only when something changes.
pub type Watches = BTreeMap<String, u64>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Body>;

/// The addresses of the API server. Copies are of the same list.
#[derive(Clone, Debug)]
pub struct Servers(Arc<Known>);

#[derive(Debug)]
struct Known {
    config: Config,
    list: Mutex<Arc<Vec<Uri>>>,
    /// Counts changes of the list, and of who we are there.
    version: AtomicU64,
    /// Which is in use; counted up.
    current: AtomicUsize,
    /// Counts what is asked.
    requests: Requests,
    watches: watch::Sender<Watches>,
}

impl Servers {
    /// Reads where it is, and who we are there. `requests` counts what is asked.
    ///
    /// # Errors
    /// Nobody says, or it can't be understood.
    pub async fn find(access: &Access, requests: Requests) -> Result<Self, AccessError> {
        let mut config = match &access.kubeconfig {
            Some(path) => {
                let failed =
                    |error: String| AccessError::Kubeconfig { path: path.display().to_string(), error };
                let file = Kubeconfig::read_from(path).map_err(|e| failed(e.to_string()))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options).await.map_err(|e| failed(e.to_string()))?
            }
            None => Config::incluster().map_err(|e| AccessError::NotInPod { error: e.to_string() })?,
        };
        config.connect_timeout = Some(CONNECT);
        // Watches see to that themselves, and the next address is to be tried.
        config.default_retry = false;
        let mut list = access.check()?;
        if list.is_empty() {
            list.push(config.cluster_url.clone());
        }
        Ok(Self::new(config, list, requests))
    }

    /// Those, with the credentials of a config.
    pub fn new(config: Config, list: Vec<Uri>, requests: Requests) -> Self {
        let (version, current) = (AtomicU64::new(0), AtomicUsize::new(0));
        let (list, watches) = (Mutex::new(Arc::new(list)), watch::Sender::default());
        Self(Arc::new(Known { config, list, version, current, requests, watches }))
    }

    /// Tells of watches that stand.
    pub fn watches(&self) -> watch::Receiver<Watches> {
        self.0.watches.subscribe()
    }

    /// The one in use.
    pub fn current(&self) -> Uri {
        let list = self.list();
        list[self.0.current.load(Ordering::Relaxed) % list.len()].clone()
    }

    /// All of them.
    pub fn list(&self) -> Arc<Vec<Uri>> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes others, if the one that is said is an address which this agent serves: by it, it would be reached
    /// through what depends on it. Those are asked for the certificate of the first. True: something has changed.
    pub fn avoid(&self, own: impl Fn(IpAddr) -> bool, instead: &[std::net::SocketAddr]) -> bool {
        let ip = |uri: &Uri| uri.host().and_then(|h| h.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        let list = self.list();
        if instead.is_empty() || !list.iter().filter_map(ip).any(own) {
            return false;
        }
        let scheme = list[0].scheme_str().unwrap_or("https").to_string();
        let others = instead.iter().filter_map(|at| format!("{scheme}://{at}").parse::<Uri>().ok());
        *self.0.list.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(others.collect());
        self.renew();
        true
    }

    /// A client that goes by them.
    ///
    /// # Errors
    /// A certificate or key can't be used.
    pub fn client(&self) -> Result<Client, AccessError> {
        let way = Way::new(self.clone())?;
        Ok(Client::new(way, self.0.config.default_namespace.clone()))
    }

    /// Has clients made anew: for another list, or to read tokens and certificates again that are in files. They are
    /// otherwise when they are a minute old by the clock, which may have been set back.
    fn renew(&self) {
        self.0.version.fetch_add(1, Ordering::Release);
    }

    /// The next one is tried, if nobody has gone on already.
    fn failed(&self, used: usize) {
        let moved =
            self.0.current.compare_exchange(used, used.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        let list = self.list();
        if moved.is_ok() && list.len() > 1 {
            let next = &list[used.wrapping_add(1) % list.len()];
            tracing::warn!(%next, "the API server can't be reached, trying the next address");
        }
    }
}

/// A client for each address.
struct Way {
    servers: Servers,
    version: u64,
    clients: Vec<Client>,
    /// The one that is ready.
    ready: usize,
}

impl Way {
    fn new(servers: Servers) -> Result<Self, AccessError> {
        let version = servers.0.version.load(Ordering::Acquire);
        let clients = Self::clients(&servers)?;
        Ok(Self { servers, version, clients, ready: 0 })
    }

    fn clients(servers: &Servers) -> Result<Vec<Client>, AccessError> {
        let said = &servers.0.config;
        let client = |server: &Uri| {
            let mut config = said.clone();
            config.cluster_url = server.clone();
            if server.host() != said.cluster_url.host() && config.tls_server_name.is_none() {
                config.tls_server_name = said.cluster_url.host().map(|h| h.trim_matches(['[', ']']).into());
            }
            let failed =
                |e: kube::Error| AccessError::Client { server: server.clone(), error: e.to_string() };
            Ok(ClientBuilder::try_from(config).map_err(failed)?.build())
        };
        servers.list().iter().map(client).collect()
    }
}

impl tower::Service<Request<Body>> for Way {
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let version = self.servers.0.version.load(Ordering::Acquire);
        if version != self.version {
            self.clients = Self::clients(&self.servers)?;
            self.version = version;
        }
        self.ready = self.servers.0.current.load(Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (used, servers) = (self.ready, self.servers.clone());
        let client = self.clients[used % self.clients.len()].clone();
        let (method, began) = (request.method().clone(), Instant::now());
        let (server, watched) = (servers.current(), watched(request.uri()));
        Box::pin(async move {
            let answer = client.send(request).await.map_err(BoxError::from);
            let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            let host = server.authority().map_or("", |authority| authority.as_str());
            servers.0.requests.ended(host, method.as_str(), code, began.elapsed());
            let gone =
                [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
            if answer.as_ref().map_or(true, |answer| gone.contains(&answer.status())) {
                servers.failed(used);
            }
            if answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::UNAUTHORIZED) {
                servers.renew();
            }
            if let Some(plural) = watched.filter(|_| answer.as_ref().is_ok_and(|a| a.status().is_success())) {
                servers.0.watches.send_modify(|watches| *watches.entry(plural).or_default() += 1);
            }
            answer
        })
    }
}

/// What a request watches, by its plural. `None`: it is another one.
fn watched(uri: &Uri) -> Option<String> {
    let watches = uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
    watches.then(|| uri.path().rsplit('/').next().unwrap_or_default().into())
}
