//! Watches: a list, then what changes, for each kind by itself. What one lacks keeps no other from going on.

use std::{borrow::Cow, fmt::Debug, time::Duration};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    core::NamespaceResourceScope,
    runtime::watcher::{self, Config, watcher},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use tokio::sync::{mpsc, watch};

use super::{
    cache::Event,
    client::Watches,
    objects::{EndpointSlice, Meta, Namespace, Node, Service, ServiceCidr},
};

/// The first pause after an error, and the longest: so soon is what was missed noticed when the server is back.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];
/// The longest that a server may ask us to wait.
const LONGEST: Duration = Duration::from_secs(30);
/// How often what we may not see is asked for again.
const REFUSED: Duration = Duration::from_secs(60);

/// Which Services and EndpointSlices are ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The name of the own Node.
    pub node: String,
    /// Services with this `service.kubernetes.io/service-proxy-name`; `None`: those without any.
    pub proxy_name: Option<String>,
}

/// What is told.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time is read and dropped; the largest are the most frequent"
)]
pub enum Told {
    /// Of a Service.
    Service(Event<Service>),
    /// Of an EndpointSlice.
    Slice(Event<EndpointSlice>),
    /// Of a Node.
    Node(Event<Node>),
    /// Of a prefix of cluster addresses.
    Cidr(Event<ServiceCidr>),
    /// Of a Namespace.
    Namespace(Event<Namespace>),
    /// A kind can't be seen, for this reason.
    Unseen {
        /// `Service`, ...
        kind: &'static str,
        /// May it be done without?
        optional: bool,
        /// What the server says.
        error: String,
    },
    /// A kind is seen again.
    Seen {
        /// `Service`, ...
        kind: &'static str,
    },
}

/// An API object that is read.
trait Object: DeserializeOwned + Clone + Debug + Send + 'static {
    const KIND: &'static str;
    const GROUP: &'static str;
    const PLURAL: &'static str;
    /// Can it be done without?
    const OPTIONAL: bool;
    fn meta(&self) -> &Meta;
    fn told(event: Event<Self>) -> Told;
}

macro_rules! objects {
    ($($object:ty: $kind:literal, $group:literal, $plural:literal, $optional:literal, $told:path;)*) => {$(
        impl Object for $object {
            const KIND: &'static str = $kind;
            const GROUP: &'static str = $group;
            const PLURAL: &'static str = $plural;
            const OPTIONAL: bool = $optional;
            fn meta(&self) -> &Meta {
                &self.metadata
            }
            fn told(event: Event<Self>) -> Told {
                $told(event)
            }
        }
    )*};
}

objects! {
    Service: "Service", "", "services", false, Told::Service;
    EndpointSlice: "EndpointSlice", "discovery.k8s.io", "endpointslices", false, Told::Slice;
    Node: "Node", "", "nodes", false, Told::Node;
    ServiceCidr: "ServiceCIDR", "networking.k8s.io", "servicecidrs", true, Told::Cidr;
    Namespace: "Namespace", "", "namespaces", true, Told::Namespace;
}

/// An object as the client wants it: all that it asks of metadata is the version.
#[derive(Clone, Debug)]
struct Watched<T> {
    object: T,
    meta: ObjectMeta,
}

impl<'de, T: Object> Deserialize<'de> for Watched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = T::deserialize(deserializer)?;
        let Meta { name, resource_version, .. } = object.meta();
        let meta = ObjectMeta {
            name: Some(name.clone()),
            resource_version: Some(resource_version.clone()),
            ..ObjectMeta::default()
        };
        Ok(Self { object, meta })
    }
}

impl<T: Object> Resource for Watched<T> {
    type DynamicType = ();
    /// What lists of one namespace take; those of all of them, and of Nodes, ask for nothing.
    type Scope = NamespaceResourceScope;
    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.into()
    }
    fn group((): &()) -> Cow<'_, str> {
        T::GROUP.into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        T::PLURAL.into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// Watches all kinds, for as long as somebody listens. `watches`: those of this client that stand.
pub async fn run(
    client: Client,
    selection: Selection,
    told: mpsc::Sender<Told>,
    watches: watch::Receiver<Watches>,
) {
    let label = match &selection.proxy_name {
        Some(name) => format!("service.kubernetes.io/service-proxy-name={name}"),
        None => "!service.kubernetes.io/service-proxy-name".into(),
    };
    let services = Config::default().labels(&label).fields("spec.clusterIP!=None");
    let slices = Config::default().labels("!service.kubernetes.io/headless");
    let node = Config::default().fields(&format!("metadata.name={}", selection.node));
    let (all, on) = (Config::default(), || Go::On(watches.clone()));
    tokio::join!(
        follow(Api::<Watched<Service>>::all(client.clone()), services, told.clone(), on()),
        follow(Api::<Watched<EndpointSlice>>::all(client.clone()), slices, told.clone(), on()),
        follow(Api::<Watched<Node>>::all(client.clone()), node, told.clone(), on()),
        follow(Api::<Watched<ServiceCidr>>::all(client.clone()), all.clone(), told.clone(), on()),
        follow(Api::<Watched<Namespace>>::all(client), all, told, on()),
    );
}

/// Watches the EndpointSlices of one Service, for as long as somebody listens. Whoever may list and watch them in that
/// namespace may do it.
pub async fn slices(client: Client, namespace: &str, service: &str, told: mpsc::Sender<Told>) {
    let config = Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    follow(Api::<Watched<EndpointSlice>>::namespaced(client, namespace), config, told, Go::Back).await;
}

/// Where to, after an error that the watch itself would survive.
enum Go {
    /// The same watch again: a list of everything is dear, and all nodes would want one at the same time. Where nothing
    /// changes for days only the watch itself shows that the server is back.
    On(watch::Receiver<Watches>),
    /// A new list. It is small, and its answer says that the server is back.
    Back,
}

impl Go {
    /// How many watches of a kind have stood so far.
    fn count(&self, plural: &str) -> u64 {
        match self {
            Self::On(watches) => watches.borrow().get(plural).copied().unwrap_or_default(),
            Self::Back => 0,
        }
    }

    /// Returns when there is another one than those so many.
    async fn stands(&mut self, plural: &str, before: u64) {
        let more = |watches: &Watches| watches.get(plural).is_some_and(|count| *count > before);
        let stands = match self {
            Self::On(watches) => watches.wait_for(more).await.is_ok(),
            Self::Back => false,
        };
        if !stands {
            std::future::pending().await
        }
    }
}

/// What is to be done after an error.
enum After {
    /// The same watch again.
    Again,
    /// A new list.
    List,
    /// Likewise, and not soon.
    Refused,
    /// The same again, not before the server said.
    Wait(Duration),
}

fn after(error: &watcher::Error) -> After {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let status = match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status,
        // An object that can't be read has been passed over; the list says what it is by now.
        WatchFailed(kube::Error::SerdeError(_)) | NoResourceVersion => return After::List,
        _ => return After::Again,
    };
    let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    match status.code {
        401 | 403 | 404 => After::Refused,
        // The watcher sees to it where it is told so by an event, and not if the answer as a whole says so.
        410 => After::List,
        _ if asked > 0 => After::Wait(LONGEST.min(Duration::from_secs(asked.into()))),
        _ => After::Again,
    }
}

/// Follows one kind, until nobody listens any more.
async fn follow<T: Object>(api: Api<Watched<T>>, config: Config, told: mpsc::Sender<Told>, mut go: Go) {
    let mut pause = PAUSES[0];
    let mut unseen = false;
    // Watches that stood before the last error.
    let mut before = 0;
    // Was the error before this one of the same kind, that a list is needed?
    let mut again = false;
    while !told.is_closed() {
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()));
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = go.stands(T::PLURAL, before), if unseen => {
                    unseen = false;
                    if told.send(Told::Seen { kind: T::KIND }).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let error = match event {
                None => break,
                Some(Ok(event)) => {
                    let event = read(event);
                    // The beginning of a list is no answer yet.
                    if !matches!(event, Event::Init) {
                        (pause, again) = (PAUSES[0], false);
                        if std::mem::take(&mut unseen)
                            && told.send(Told::Seen { kind: T::KIND }).await.is_err()
                        {
                            return;
                        }
                    }
                    if told.send(T::told(event)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Err(error)) => error,
            };
            let after = after(&error);
            let optional = T::OPTIONAL && matches!(after, After::Refused);
            (unseen, before) = (true, go.count(T::PLURAL));
            if told.send(Told::Unseen { kind: T::KIND, optional, error: whole(&error) }).await.is_err() {
                return;
            }
            // A server that has forgotten answers: it is asked for a list soon, however long it was away before.
            let forgotten = matches!(after, After::List);
            if forgotten && !again {
                pause = PAUSES[0];
            }
            again = forgotten;
            match after {
                After::Refused if T::OPTIONAL => tokio::time::sleep(REFUSED).await,
                After::Wait(asked) => tokio::time::sleep(asked).await,
                _ => tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await,
            }
            pause = PAUSES[1].min(pause * 2);
            if matches!(go, Go::Back) || !matches!(after, After::Again | After::Wait(_)) {
                break;
            }
        }
    }
}

/// An error with what is behind it, as far as that says something new.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        behind = error.source();
    }
    text
}

fn read<T>(event: watcher::Event<Watched<T>>) -> Event<T> {
    match event {
        watcher::Event::Init => Event::Init,
        watcher::Event::InitApply(watched) => Event::InitApply(watched.object),
        watcher::Event::InitDone => Event::InitDone,
        watcher::Event::Apply(watched) => Event::Apply(watched.object),
        watcher::Event::Delete(watched) => Event::Delete(watched.object),
    }
}
