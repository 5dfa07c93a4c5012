//! What the API may ask of the agent.

use std::{net::IpAddr, sync::Arc};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use lb_common::abi::Source;
use rtnetlink::Handle as Netlink;
use tokio::sync::{Mutex, mpsc};

use super::{
    owner::Owner,
    scrape::Recent,
    seen::{Hops, Seen},
    shared::Shared,
};
use crate::{
    api::{
        error::ApiError,
        types::{BackendAdd, BackendView, ConnectionQuery, ConnectionView, Drain, ServiceAdd, ServiceView},
    },
    conntrack::matches,
    datapath::routes,
    model::{
        BackendSpec, ModelError, ServiceSpec,
        service::{make_backend, parse_backend},
    },
    observe::{Snapshot, connections::Order, now, views},
    source::{
        InterfaceRule, Role, config,
        runtime::{LONGEST, RuntimeBackend, RuntimeDrain},
    },
};

/// Connections that are looked up before the last ones were taken.
const AHEAD: usize = 1024;

/// Cheap to clone. Changes are in force, and in the state file, when their future is done.
#[derive(Clone)]
pub struct Handle {
    /// For reading.
    pub shared: Arc<Shared>,
    owner: Arc<Mutex<Owner>>,
    netlink: Netlink,
    pub(super) recent: Recent,
}

fn invalid(error: ModelError) -> ApiError {
    ApiError::Invalid(error.to_string())
}

/// Does what may take a while where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
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

    /// Netlink, for questions.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Looks which interfaces and addresses the node has now, and does what follows.
    pub async fn look(&self) {
        let seen = Seen::look(&self.netlink).await;
        if self.shared.read().problems.contains_key("ways") {
            self.note_ways().await;
        }
        self.owner.lock().await.look(&seen);
    }

    /// Notes what is in force and can't be reached as it should be.
    pub async fn note_ways(&self) {
        let desired = self.shared.read().desired.clone();
        let wanted = Hops::wanted(desired.services().values().map(Arc::as_ref));
        let hops = Hops::of(&self.netlink, wanted).await;
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
        let wanted = Hops::wanted(services.iter().filter_map(|s| s.spec.as_deref().ok()));
        let hops = Hops::of(&self.netlink, wanted).await;
        let seen = Seen::look(&self.netlink).await;
        self.owner.lock().await.reload(read, &hops, &seen)?;
        self.shared.read().rejected.first().map_or(Ok(()), |first| Err(first.to_string()))
    }

    /// The owner, for changes.
    pub fn owner(&self) -> &Mutex<Owner> {
        &self.owner
    }

    fn file(&self) -> String {
        self.shared.config_path.as_ref().map_or("the config file".into(), |p| p.display().to_string())
    }

    fn no_service(name: &str) -> ApiError {
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
            let refused = state.rejected.iter().find(|r| r.service == name);
            refused.map_or_else(|| Self::no_service(name), |r| ApiError::NotFound(r.to_string()))
        })?;
        Ok(views::service(spec, &state, &counts))
    }

    /// One backend; the name may be written in any way that means the same.
    fn backend(&self, service: &str, backend: &str) -> Result<(BackendView, bool), ApiError> {
        let (address, port) = parse_backend(service, backend).map_err(invalid)?;
        let name = crate::model::backend_name(address, port);
        let id = {
            let state = self.shared.read();
            state.actual.service(service).and_then(|s| s.backends.get(&name)).copied()
        };
        let counts = Snapshot::of(&self.shared.maps, self.shared.census(), id.as_slice());
        let state = self.shared.read();
        let spec = state.desired.services().get(service).ok_or_else(|| Self::no_service(service))?;
        let found = spec.backends.get(&name).ok_or_else(|| {
            ApiError::NotFound(format!(
                "service \"{service}\" has no backend {name}; see: flowpin backend list {service}"
            ))
        })?;
        let now = now::backend(spec, &name, Some(found), id, &state, &counts);
        Ok((views::backend(spec, &now, &state), found.from_file))
    }

    /// Adds a service.
    ///
    /// # Errors
    /// It is there already or isn't valid.
    pub async fn add_service(&self, add: ServiceAdd) -> Result<ServiceView, ApiError> {
        let ServiceAdd { name, service: decl } = add;
        let spec = decl.spec(&name, false).map_err(invalid)?;
        spec.validate().map_err(invalid)?;
        let seen = Seen::look(&self.netlink).await;
        let mut owner = self.owner.lock().await;
        if self.shared.read().desired.services().contains_key(&name) {
            return Err(ApiError::Conflict(format!(
                "service \"{name}\" exists; remove it first, or choose another name"
            )));
        }
        let mut runtime = owner.runtime.clone();
        runtime.services.insert(name.clone(), decl);
        owner.add_service(&spec, runtime, &seen)?;
        self.service(&name)
    }

    /// Removes a service. Pinned flows stay until they end.
    ///
    /// # Errors
    /// There is none, or the file declares it.
    pub async fn remove_service(&self, name: &str) -> Result<(), ApiError> {
        let mut owner = self.owner.lock().await;
        let from_file = match self.shared.read().desired.services().get(name) {
            // One that is refused can be taken back.
            None if owner.runtime.services.contains_key(name) => false,
            None => return Err(Self::no_service(name)),
            Some(spec) => spec.from_file,
        };
        if from_file {
            return Err(ApiError::Conflict(format!(
                "service \"{name}\" is declared in {}; edit it and send SIGHUP to the agent",
                self.file()
            )));
        }
        let mut runtime = owner.runtime.clone();
        runtime.forget_service(name);
        owner.change(name, runtime)
    }

    /// Adds a backend, or changes weight and limit of one that the command line added.
    ///
    /// # Errors
    /// It isn't valid, or the file declares it.
    pub async fn add_backend(&self, service: &str, add: BackendAdd) -> Result<BackendView, ApiError> {
        let BackendAdd { address, weight, max_connections, local } = add;
        let spec = make_backend(service, &address, weight, max_connections, local, false).map_err(invalid)?;
        let name = spec.name();
        self.check_way(service, &spec).await?;
        let mut owner = self.owner.lock().await;
        match self.backend(service, &name) {
            Ok((_, true)) => {
                return Err(ApiError::Conflict(format!(
                    "backend {name} of service \"{service}\" is declared in {}; edit it and send SIGHUP to the agent",
                    self.file()
                )));
            }
            Ok((_, false)) if weight.is_none() && max_connections.is_none() && !local => {
                return Err(ApiError::Conflict(format!(
                    "service \"{service}\" has backend {name} already; \
                     give --weight, --max-connections or --local to change it"
                )));
            }
            Ok(_) => {}
            Err(ApiError::NotFound(_)) if self.shared.read().desired.services().contains_key(service) => {}
            Err(e) => return Err(e),
        }
        let mut runtime = owner.runtime.clone();
        let record = RuntimeBackend { weight: spec.weight, max_connections: spec.max_connections, local };
        runtime.backends.entry(service.into()).or_default().insert(name.clone(), record);
        owner.change(service, runtime)?;
        Ok(self.backend(service, &name)?.0)
    }

    /// Can a new backend be reached as its service wants it?
    async fn check_way(&self, service: &str, backend: &BackendSpec) -> Result<(), ApiError> {
        let declared = self.shared.read().desired.services().get(service).cloned();
        let Some(mut spec) = declared.filter(|spec| spec.is_direct()).map(|spec| ServiceSpec::clone(&spec))
        else {
            return Ok(());
        };
        spec.backends = [(backend.name(), backend.clone())].into();
        Hops::of(&self.netlink, Hops::wanted([&spec])).await.check(&spec).map_err(invalid)
    }

    /// Where a client's packets come from, as far as it matters to services: by the way that leads to it. A process
    /// of the node's is treated as a pod's.
    pub async fn source_of(&self, client: IpAddr) -> Source {
        if self.shared.read().own.contains(&client) {
            return Source::POD;
        }
        let index = routes::interface(&self.netlink, client).await;
        let name = {
            let state = self.shared.read();
            state.interfaces.iter().find(|i| Some(i.index) == index).map(|i| i.name.clone())
        };
        let owner = self.owner.lock().await;
        match name.and_then(|name| owner.rule(&name)).map(InterfaceRule::role) {
            Some(Role::Pod) => Source::POD,
            _ => Source::ELSEWHERE,
        }
    }

    /// Removes a backend. Pinned flows stay until they end.
    ///
    /// # Errors
    /// There is none, or the file declares it.
    pub async fn remove_backend(&self, service: &str, backend: &str) -> Result<(), ApiError> {
        let (address, port) = parse_backend(service, backend).map_err(invalid)?;
        let name = crate::model::backend_name(address, port);
        let mut owner = self.owner.lock().await;
        match self.backend(service, backend) {
            Ok((_, false)) => {}
            Ok((_, true)) => {
                return Err(ApiError::Conflict(format!(
                    "backend {name} of service \"{service}\" is declared in {}; edit it and send SIGHUP, or drain it",
                    self.file()
                )));
            }
            // One that is refused can be taken back.
            Err(_) if owner.runtime.backends.get(service).is_some_and(|of| of.contains_key(&name)) => {}
            Err(e) => return Err(e),
        }
        let mut runtime = owner.runtime.clone();
        runtime.forget_backend(service, &name);
        owner.change(service, runtime)
    }

    /// Stops new flows to a backend; open ones stay.
    ///
    /// # Errors
    /// There is none.
    pub async fn drain(&self, service: &str, backend: &str, drain: Drain) -> Result<BackendView, ApiError> {
        if let Some(seconds) = drain.deadline_seconds.filter(|seconds| *seconds > LONGEST) {
            return Err(ApiError::Invalid(format!(
                "a deadline of {seconds} s is too long; use {LONGEST} s (365 days) or less, or none"
            )));
        }
        let mut owner = self.owner.lock().await;
        let (view, _) = self.backend(service, backend)?;
        let mut runtime = owner.runtime.clone();
        let record = RuntimeDrain::begin(drain.deadline_seconds);
        runtime.drains.entry(service.into()).or_default().insert(view.address.clone(), record);
        owner.change(service, runtime)?;
        let limit = drain.deadline_seconds.map(|s| format!("for {s} s at most"));
        self.shared.log.note("drain", service, &view.address, limit.unwrap_or_default());
        Ok(self.backend(service, &view.address)?.0)
    }

    /// Takes a drain back.
    ///
    /// # Errors
    /// There is no such backend, or it isn't draining.
    pub async fn undrain(&self, service: &str, backend: &str) -> Result<BackendView, ApiError> {
        let mut owner = self.owner.lock().await;
        let (view, _) = self.backend(service, backend)?;
        let mut runtime = owner.runtime.clone();
        if runtime.drains.get_mut(service).and_then(|m| m.remove(&view.address)).is_none() {
            return Err(ApiError::Conflict(format!(
                "backend {} of service \"{service}\" is not draining",
                view.address
            )));
        }
        runtime.drains.retain(|_, m| !m.is_empty());
        owner.change(service, runtime)?;
        self.shared.log.note("undrain", service, &view.address, "");
        Ok(self.backend(service, &view.address)?.0)
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

    /// Is the desired state in force, and everything attached?
    pub fn ready(&self) -> bool {
        let state = self.shared.read();
        state.generation > 0
            && !state.problems.contains_key("reconcile")
            && state.interfaces.iter().all(|i| i.error.is_none())
    }
}
