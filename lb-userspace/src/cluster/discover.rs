//! Peers by Kubernetes: the endpoints of a headless Service whose pods are the agents, as the API server tells of them.
//!
//! All endpoints are peers, whatever their conditions: an agent that starts is to be found before it is ready, and one
//! that ends can be tried until it is gone. The API server isn't needed for anything else: while it can't be reached,
//! those that are known stay.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use kube::Client;
use lb_mesh::Transport;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{ClusterSpec, views::UnreachableView};
use crate::{
    agent::shared::Shared,
    source::{
        KubernetesSpec,
        kubernetes::{
            address::parse_ip,
            cache::{Event, Kind},
            client::{Access, Servers},
            objects::EndpointSlice,
            watch::{Told, slices},
        },
    },
};

/// What a Service begins with, among peers.
const PREFIX: &str = "kubernetes:";
/// Which of an endpoint's ports is the agent's.
const PORT: &str = "cluster";
/// What is wrong, among the agent's problems.
const PROBLEM: &str = "cluster peers";
/// When credentials are looked for again.
const AGAIN: Duration = Duration::from_secs(5);
/// Events that may wait to be looked at.
const QUEUE: usize = 64;

/// A Service of Kubernetes whose endpoints are peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodService {
    namespace: String,
    service: String,
    /// Of endpoints whose port isn't said: all nodes listen at the same.
    port: u16,
}

impl PodService {
    /// Is it meant by this peer? `kubernetes:7473` is a host's port.
    pub fn is(peer: &str) -> bool {
        peer.strip_prefix(PREFIX).is_some_and(|rest| rest.parse::<u16>().is_err())
    }

    /// Of `kubernetes:NAMESPACE/SERVICE`. `port`: where this node listens.
    ///
    /// # Errors
    /// It is none, or there is no port.
    pub fn parse(peer: &str, port: u16) -> Result<Self, String> {
        let names = peer.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/'));
        let Some((namespace, service)) = names.filter(|(a, b)| is_label(a) && is_label(b)) else {
            return Err(format!(
                "\"{peer}\" is no Service; write kubernetes:NAMESPACE/SERVICE, such as \
                 kubernetes:kube-system/flowpin-cluster"
            ));
        };
        if port == 0 {
            return Err(format!(
                "\"{peer}\" needs a port in cluster.listen, the same at all nodes; write [::]:7473"
            ));
        }
        Ok(Self { namespace: namespace.into(), service: service.into(), port })
    }

    /// Peers that a slice names.
    fn peers(&self, slice: &EndpointSlice) -> BTreeSet<String> {
        let is_ours = |name: Option<&str>, protocol: Option<&str>| {
            name == Some(PORT) && protocol.is_none_or(|protocol| protocol == "TCP")
        };
        let port = slice.ports.iter().find(|it| is_ours(it.name.as_deref(), it.protocol.as_deref()));
        let port = port.and_then(|it| u16::try_from(it.port?).ok()).unwrap_or(self.port);
        // The API has an endpoint's further addresses lead to the same place.
        let addresses = slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first());
        let peer = |address: &String| match parse_ip(address) {
            Some(ip) => std::net::SocketAddr::new(ip, port).to_string(),
            // Of type FQDN.
            None => format!("{address}:{port}"),
        };
        addresses.map(peer).collect()
    }
}

impl fmt::Display for PodService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.namespace, self.service)
    }
}

/// What namespaces and Services are called: a label of the DNS in lower case (RFC 1123).
fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| inner(byte) || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// What is known of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    /// The last that were told; `None`: none were yet.
    peers: Option<BTreeSet<String>>,
    /// Why there may be others by now, or none.
    problem: Option<String>,
}

/// Looks for peers, if there is a Service to look at.
pub(super) struct Discovery {
    pods: Option<PodService>,
    /// Those that are named.
    named: Vec<String>,
    found: watch::Sender<Found>,
}

impl Discovery {
    /// Not begun yet.
    pub(super) fn new(spec: &ClusterSpec) -> Self {
        let named = match &spec.transport {
            Transport::Tcp(tcp) => tcp.peers.clone(),
            Transport::Nats(_) => Vec::new(),
        };
        Self { pods: spec.pods.clone(), named, found: watch::channel(Found::default()).0 }
    }

    /// Has the mesh connect to whoever is found, for as long as it is let. What is wrong is among the agent's problems.
    pub(super) async fn run(&self, shared: &Shared, mesh: &lb_mesh::Handle) {
        let Some(pods) = &self.pods else { return std::future::pending().await };
        tokio::select! {
            () = search(shared, pods, &self.found) => {}
            () = self.hand_on(shared, pods, mesh) => {}
        }
    }

    async fn hand_on(&self, shared: &Shared, pods: &PodService, mesh: &lb_mesh::Handle) {
        let mut found = self.found.subscribe();
        while found.changed().await.is_ok() {
            let Found { peers, mut problem } = found.borrow_and_update().clone();
            if let Some(peers) = peers {
                let all: BTreeSet<_> = self.named.iter().cloned().chain(peers).collect();
                tracing::info!("cluster: {} peers by {pods} and by name", all.len());
                problem = problem.or(mesh.set_peers(all.into_iter().collect()).err().map(|e| e.to_string()));
            }
            let problem = problem.map_or(Ok(()), |why| Err(format!("cluster: peers by {pods}: {why}")));
            if let Err(problem) = &problem {
                tracing::warn!("{problem}");
            }
            shared.write().note(PROBLEM, problem);
        }
    }

    /// For those who look at peers that aren't reached.
    pub(super) fn unreachable(&self) -> Option<UnreachableView> {
        let why = self.found.borrow().problem.clone()?;
        Some(UnreachableView { peer: self.pods.as_ref()?.to_string(), address: None, why })
    }
}

/// Follows the Service with the credentials that `[kubernetes]` names, as long as it names them, or with the pod's.
async fn search(shared: &Shared, pods: &PodService, found: &watch::Sender<Found>) {
    let access = |spec: &Option<Arc<KubernetesSpec>>| -> Access {
        spec.as_ref().map(|spec| spec.access.clone()).unwrap_or_default()
    };
    let mut kubernetes = shared.kubernetes.subscribe();
    loop {
        let now = access(&kubernetes.borrow_and_update());
        let requests = shared.proxy_metrics.requests.clone();
        let followed = async {
            match Servers::find(&now, requests).await.and_then(|servers| servers.client()) {
                Ok(client) => follow(client, pods, found).await,
                Err(error) => {
                    fail(found, error.to_string());
                    sleep(AGAIN).await;
                }
            }
        };
        let other = async { drop(kubernetes.wait_for(|spec| access(spec) != now).await) };
        tokio::select! {
            () = followed => {}
            () = other => {}
        }
    }
}

/// Follows the Service for as long as it is let.
async fn follow(client: Client, pods: &PodService, found: &watch::Sender<Found>) {
    let (to, mut told) = mpsc::channel(QUEUE);
    let hear = async {
        let mut known = Kind::default();
        while let Some(told) = told.recv().await {
            match told {
                Told::Slice(event) => {
                    // The beginning of a list says nothing.
                    let says = !matches!(event, Event::Init | Event::InitApply(_));
                    known.fold(keyed(event, pods), &mut |_, _, _| {});
                    if says && known.is_listed() {
                        set(found, known.iter().flat_map(|(_, peers)| peers).cloned().collect());
                    }
                }
                Told::Unseen { error, .. } => fail(
                    found,
                    format!("the API server doesn't tell of EndpointSlices, what was known stays: {error}"),
                ),
                // The list that follows says how it is.
                _ => {}
            }
        }
    };
    tokio::select! {
        () = slices(client, &pods.namespace, &pods.service, to) => {}
        () = hear => {}
    }
}

/// An event of a slice as one of the peers that it names.
fn keyed(event: Event<EndpointSlice>, pods: &PodService) -> Event<(Arc<str>, BTreeSet<String>), Arc<str>> {
    let named = |slice: &EndpointSlice| (slice.metadata.key().into(), pods.peers(slice));
    match event {
        Event::Init => Event::Init,
        Event::InitApply(slice) => Event::InitApply(named(&slice)),
        Event::InitDone => Event::InitDone,
        Event::Apply(slice) => Event::Apply(named(&slice)),
        Event::Delete(slice) => Event::Delete(slice.metadata.key().into()),
    }
}

/// These are the peers by now.
fn set(found: &watch::Sender<Found>, peers: BTreeSet<String>) {
    let none =
        "the Service has no endpoints: is there one of this name, and does it select the agents' pods?";
    let problem = peers.is_empty().then(|| none.to_owned());
    change(found, Found { peers: Some(peers), problem });
}

/// Nobody says who they are by now.
fn fail(found: &watch::Sender<Found>, why: String) {
    let peers = found.borrow().peers.clone();
    change(found, Found { peers, problem: Some(why) });
}

fn change(found: &watch::Sender<Found>, now: Found) {
    found.send_if_modified(|before| {
        let new = *before != now;
        *before = now;
        new
    });
}

#[cfg(test)]
mod tests;
