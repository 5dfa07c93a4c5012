//! What the API may ask of the agent.

mod named;

use std::{net::IpAddr, sync::Arc};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use lb_common::abi::Source;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

use super::{
    netlink::Netlink,
    owner::Owner,
    scrape::Recent,
    seen::{Hops, Seen},
    shared::Shared,
};
use crate::{
    api::{
        error::ApiError,
        types::{BackendView, ConnectionQuery, ConnectionView, ServiceView},
    },
    conntrack::matches,
    datapath::routes,
    model::{ModelError, Origin, ServiceSpec, host::backend_key},
    observe::{Snapshot, connections::Order, now, views},
    source::{Role, config},
};

/// Connections that are looked up before the last ones were taken.
const AHEAD: usize = 1024;

/// Cheap to clone. Changes are in force, and in the state file, when their future is done.
#[derive(Clone)]
pub struct Handle {
    /// For reading.
    pub shared: Arc<Shared>,
    owner: Arc<Mutex<Owner>>,
    pub(super) netlink: Netlink,
    pub(super) recent: Recent,
}

pub(super) fn invalid(error: ModelError) -> ApiError {
    ApiError::Invalid(error.to_string())
}

/// Does what may take a while where it holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| ApiError::Failed(e.to_string()))
}

impl Handle {
    /// Around the owner.
    pub fn new(owner: Owner, netlink: Netlink) -> Self {
        Self {
            shared: owner.shared.clone(),
            owner: Arc::new(Mutex::new(owner)),
            netlink,
            recent: Recent::default(),
        }
    }

    /// Netlink, for questions; see [`Netlink::get`].
    pub async fn netlink(&self) -> OwnedMutexGuard<rtnetlink::Handle> {
        self.netlink.get().await
    }

    /// Looks which interfaces and addresses the node has now, and does what follows.
    pub async fn look(&self) {
        let seen = Seen::look(&*self.netlink().await).await;
        self.shared.note_own(&seen);
        if self.shared.read().problems.contains_key("ways") {
            self.note_ways().await;
        }
        self.owner.lock().await.look(&seen);
    }

    /// Notes what is in force and can't be reached as it should be.
    pub async fn note_ways(&self) {
        let desired = self.shared.read().desired.clone();
        let wanted = Hops::wanted(desired.services().values().map(Arc::as_ref));
        let hops = Hops::of(&*self.netlink().await, wanted).await;
        self.owner.lock().await.note_ways(&hops);
    }

    /// Re-reads the config file.
    ///
    /// # Errors
    /// What isn't in force, and why.
    pub async fn reload(&self) -> Result<(), String> {
        let before = self.owner.lock().await.config.services.clone();
        let path = self.shared.config_path.clone();
        let read = blocking(move || match path {
            Some(path) => config::read(&config::text(&path)?, &path.display().to_string(), &before),
            None => config::load(None),
        });
        let read = read.await.map_err(|e| format!("{e:?}"))?;
        let services = read.as_ref().map(|config| config.services.clone()).unwrap_or_default();
        let specs = || services.iter().filter_map(|s| s.spec.as_deref().ok());
        // Before what they take the place of goes.
        self.look_up_for(specs()).await;
        let wanted = Hops::wanted(specs());
        let hops = Hops::of(&*self.netlink().await, wanted).await;
        let seen = Seen::look(&*self.netlink().await).await;
        self.owner.lock().await.reload(read, &hops, &seen)?;
        self.shared.read().refusals().next().map_or(Ok(()), |first| Err(first.to_string()))
    }

    /// The owner, for changes.
    pub fn owner(&self) -> &Mutex<Owner> {
        &self.owner
    }

    /// What others declare is changed where they declare it; nothing if the command line does.
    ///
    /// # Errors
    /// Somebody else declares it: where it is to be changed. `also`: what can be done here.
    pub(super) fn own(&self, what: &str, origin: Origin, also: &str) -> Result<(), ApiError> {
        match origin {
            Origin::Cli => Ok(()),
            Origin::Kubernetes => Err(ApiError::Conflict(format!(
                "{what} is a Kubernetes Service's; change it there, or annotate the Service{also}"
            ))),
            Origin::File => {
                let file = self
                    .shared
                    .config_path
                    .as_ref()
                    .map_or("the config file".into(), |p| p.display().to_string());
                Err(ApiError::Conflict(format!(
                    "{what} is declared in {file}; edit it and send SIGHUP to the agent{also}"
                )))
            }
        }
    }

    pub(crate) fn no_service(name: &str) -> ApiError {
        ApiError::NotFound(format!("there is no service \"{name}\"; see: flowpin service list"))
    }

    /// One service.
    ///
    /// # Errors
    /// There is none.
    pub fn service(&self, name: &str) -> Result<ServiceView, ApiError> {
        let counts = self.shared.counts_of(name);
        let state = self.shared.read();
        let spec = state.desired.services().get(name).ok_or_else(|| {
            let refused = state.refusals().find(|r| r.service == name);
            refused.map_or_else(|| Self::no_service(name), |r| ApiError::NotFound(r.to_string()))
        })?;
        Ok(views::service(spec, &state, &counts))
    }

    /// One backend; the name may be written in any way that means the same.
    pub(crate) fn backend(&self, service: &str, backend: &str) -> Result<(BackendView, Origin), ApiError> {
        let name = backend_key(service, backend).map_err(invalid)?;
        let id = {
            let state = self.shared.read();
            state.actual().service(service).and_then(|s| s.backends.get(&name)).copied()
        };
        let counts = Snapshot::of(&self.shared.maps, self.shared.census(), id.as_slice());
        let state = self.shared.read();
        let spec = state.desired.services().get(service).ok_or_else(|| Self::no_service(service))?;
        let found = spec.backends.get(&name).ok_or_else(|| Self::no_backend(spec, &name))?;
        let now = now::backend(spec, &name, found, id, &state, &counts);
        Ok((views::backend(spec, &now, &state), found.origin))
    }

    /// Why a service has no backend of this name. That of a host isn't one.
    fn no_backend(spec: &ServiceSpec, name: &str) -> ApiError {
        let service = &spec.name;
        let Some(host) = spec.host(name) else {
            return ApiError::NotFound(format!(
                "service \"{service}\" has no backend {name}; see: flowpin backend list {service}"
            ));
        };
        let own = spec.backends.iter().filter(|(_, backend)| host.has(backend));
        let own: Vec<&str> = own.map(|(name, _)| name.as_str()).collect();
        ApiError::Conflict(match own.is_empty() {
            true => format!("host {name} of service \"{service}\" has no address now; see: flowpin status"),
            false => {
                format!(
                    "{name} is a host of service \"{service}\"; name one of its addresses: {}",
                    own.join(", ")
                )
            }
        })
    }

    /// Where a client's packets come from, as far as it matters to services: by the way that leads to it. A process
    /// of the node's is treated as a pod's.
    pub async fn source_of(&self, client: IpAddr) -> Source {
        if client.is_loopback() || self.shared.read().own.contains(&client) {
            return Source::POD;
        }
        let index = routes::interface(&*self.netlink().await, client).await;
        let seen = Seen::look(&*self.netlink().await).await;
        let owner = self.owner.lock().await;
        let rule = seen.ruled(&owner.config).find(|(interface, _)| Some(interface.index) == index);
        match rule.map(|(_, rule)| rule.role()) {
            Some(Role::Pod) => Source::POD,
            _ => Source::ELSEWHERE,
        }
    }

    /// Pinned flows that match. All of them in no order are sent on as they are found, so that a million need no more memory than a few.
    ///
    /// # Errors
    /// The filter is wrong.
    pub async fn connections(
        &self,
        query: ConnectionQuery,
    ) -> Result<BoxStream<'static, ConnectionView>, ApiError> {
        let order = query.sort.as_deref().map(Order::parse).transpose().map_err(ApiError::Invalid)?;
        let limit = query.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let filter = query.filter();
        matches::check(&filter).map_err(ApiError::Invalid)?;
        if let Some(service) = &filter.service {
            self.service(service)?;
        }
        let shared = self.shared.clone();
        if order.is_some() || limit.is_some() {
            let list = blocking(move || shared.connections(&filter, order, limit)).await?;
            return Ok(stream::iter(list).boxed());
        }
        let (send, receive) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            // Who asked may have gone: then this has enough.
            shared.stream(&filter, |view| send.blocking_send(view).is_ok());
        });
        Ok(stream::unfold(receive, |mut from| async { Some((from.recv().await?, from)) }).boxed())
    }

    /// Is the desired state known and in force, and everything attached?
    pub fn ready(&self) -> bool {
        let followed = self.shared.kubernetes.borrow().is_some();
        let told = self.shared.cluster.borrow().as_ref().is_some_and(|cluster| cluster.in_force);
        let state = self.shared.read();
        (told || !followed)
            && state.generation > 0
            && !["reconcile", "Kubernetes change"].iter().any(|key| state.problems.contains_key(key))
            && !state.is_leaving()
            // Of a cluster's nodes not each has every interface that is named.
            && state.interfaces.iter().all(|i| i.error.is_none() || (followed && i.index == 0))
    }
}
