//! What is asked for of services and backends: each is done whole, or not at all.

use super::{
    handle::{Handle, invalid},
    seen::{Hops, Seen},
};
use crate::{
    api::{
        error::ApiError,
        types::{BackendDecl, BackendView, Drain, Patch, ServiceDecl, ServiceView},
    },
    model::{BackendSpec, Member, Origin, ServiceSpec, host::backend_key},
    observe::views,
    source::{
        decl::patch,
        runtime::{LONGEST, Runtime, RuntimeDrain},
    },
};

/// A deadline that a sum of times can take.
///
/// # Errors
/// It is too long.
pub(super) fn check_deadline(seconds: Option<u64>) -> Result<(), ApiError> {
    match seconds.filter(|seconds| *seconds > LONGEST) {
        None => Ok(()),
        Some(seconds) => Err(ApiError::Invalid(format!(
            "deadline_seconds: {seconds} is too long; use {LONGEST} (365 days) or less, or none"
        ))),
    }
}

/// A declaration, valid by itself.
fn valid(name: &str, decl: &ServiceDecl) -> Result<ServiceSpec, ApiError> {
    let spec = decl.spec(name, Origin::Cli).map_err(invalid)?;
    spec.validate().map_err(invalid)?;
    Ok(spec)
}

/// A service as it is declared now, with a change.
fn patched(runtime: &Runtime, name: &str, change: &Patch) -> Result<(ServiceDecl, ServiceSpec), ApiError> {
    let decl = runtime.declared(name).ok_or_else(|| Handle::no_service(name))?;
    let decl = patch::service(name, &decl, change).map_err(ApiError::Invalid)?;
    let spec = valid(name, &decl)?;
    Ok((decl, spec))
}

impl Handle {
    /// Adds a service.
    ///
    /// # Errors
    /// It is there already or isn't valid.
    pub async fn add_service(&self, decl: ServiceDecl) -> Result<ServiceView, ApiError> {
        let name = decl.name.clone();
        let spec = valid(&name, &decl)?;
        let seen = Seen::look(&*self.netlink().await).await;
        let hops = Hops::of(&*self.netlink().await, Hops::wanted([&spec])).await;
        hops.check(&spec).map_err(invalid)?;
        self.look_up_for([&spec]).await;
        let mut owner = self.owner().lock().await;
        if self.shared.read().desired.services().contains_key(&name) {
            return Err(ApiError::Conflict(format!(
                "service \"{name}\" exists; change it with \"flowpin service set\", or choose another name"
            )));
        }
        let mut runtime = owner.runtime.clone();
        runtime.add(&name, decl).map_err(invalid)?;
        owner.put_service(&spec, runtime, &seen)?;
        self.service(&name)
    }

    /// Changes what is named of a service that the command line added, and nothing else.
    ///
    /// # Errors
    /// There is none, somebody else declares it, or the result isn't valid; then all is as it was.
    pub async fn set_service(&self, name: &str, change: Patch) -> Result<ServiceView, ApiError> {
        // What takes a while is done first, for what it is likely to become.
        let (_, likely) = patched(&self.changeable(name).await?, name, &change)?;
        let seen = Seen::look(&*self.netlink().await).await;
        let hops = Hops::of(&*self.netlink().await, Hops::wanted([&likely])).await;
        self.look_up_for([&likely]).await;
        let mut owner = self.owner().lock().await;
        let (decl, spec) = patched(&owner.runtime, name, &change)?;
        hops.check(&spec).map_err(invalid)?;
        let mut runtime = owner.runtime.clone();
        runtime.declare(name, decl).map_err(invalid)?;
        owner.put_service(&spec, runtime, &seen)?;
        self.service(name)
    }

    /// What the command line said, if a service is its own.
    async fn changeable(&self, name: &str) -> Result<Runtime, ApiError> {
        let owner = self.owner().lock().await;
        let origin = self.origin(name, &owner.runtime)?;
        self.own(&format!("service \"{name}\""), origin, "")?;
        Ok(owner.runtime.clone())
    }

    /// Who declares a service, whether it is in force or not.
    fn origin(&self, name: &str, runtime: &Runtime) -> Result<Origin, ApiError> {
        let state = self.shared.read();
        if let Some(spec) = state.desired.services().get(name) {
            return Ok(spec.origin);
        }
        let refused = state.rejected.iter().find(|r| r.service == name && r.backend.is_none());
        let of_cli = runtime.services.contains_key(name).then_some(Origin::Cli);
        refused.map(|r| r.origin).or(of_cli).ok_or_else(|| Self::no_service(name))
    }

    /// Removes a service. Pinned flows stay until they end.
    ///
    /// # Errors
    /// There is none, or somebody else declares it.
    pub async fn remove_service(&self, name: &str) -> Result<(), ApiError> {
        let mut owner = self.owner().lock().await;
        self.own(&format!("service \"{name}\""), self.origin(name, &owner.runtime)?, "")?;
        let mut runtime = owner.runtime.clone();
        runtime.forget_service(name);
        owner.change(name, runtime)
    }

    /// Adds a backend, or changes what is given of one that the command line added.
    ///
    /// # Errors
    /// It isn't valid, or somebody else declares it.
    pub async fn add_backend(&self, service: &str, decl: BackendDecl) -> Result<BackendView, ApiError> {
        let member = decl.member(service, Origin::Cli).map_err(invalid)?;
        let name = member.name();
        match &member {
            Member::Address(spec) => self.check_way(service, spec).await?,
            Member::Host(host) => {
                let spec = self.shared.read().desired.services().get(service).cloned();
                let spec = spec.ok_or_else(|| Self::no_service(service))?;
                let spec = ServiceSpec { hosts: vec![host.clone()], ..ServiceSpec::clone(&spec) };
                self.look_up_for([&spec]).await;
            }
        }
        let mut owner = self.owner().lock().await;
        match self.member(service, &name) {
            Ok((_, origin)) => {
                self.own(&format!("backend {name} of service \"{service}\""), origin, "")?;
                if decl.named("") == BackendDecl::default() {
                    return Err(ApiError::Conflict(format!(
                        "service \"{service}\" has backend {name} already; \
                         give --weight, --max-connections or --local to change it"
                    )));
                }
            }
            Err(ApiError::NotFound(_)) if self.shared.read().desired.services().contains_key(service) => {}
            Err(e) => return Err(e),
        }
        let mut runtime = owner.runtime.clone();
        runtime.backends.entry(service.into()).or_default().insert(name.clone(), decl.named(""));
        owner.change(service, runtime)?;
        Ok(self.member(service, &name)?.0)
    }

    /// Changes what is named of a backend that the command line added, and nothing else.
    ///
    /// # Errors
    /// There is none, somebody else declares it, or the result isn't valid; then all is as it was.
    pub async fn set_backend(
        &self,
        service: &str,
        backend: &str,
        change: Patch,
    ) -> Result<BackendView, ApiError> {
        let name = backend_key(service, backend).map_err(invalid)?;
        let mut owner = self.owner().lock().await;
        let name = if owner.runtime.has_backend(service, &name) { name } else { self.named(service, &name)? };
        let added = owner.runtime.backends.get(service).and_then(|of| of.get(&name)).cloned();
        match self.member(service, &name) {
            Ok((_, origin)) => {
                self.own(&format!("backend {name} of service \"{service}\""), origin, ", or drain it")?;
                self.declared_itself(service, &name)?;
            }
            // One that is refused can be mended.
            Err(_) if added.is_some() => {}
            Err(e) => return Err(e),
        }
        let added = added.unwrap_or_default();
        let decl = patch::backend(&name, &added, &change).map_err(ApiError::Invalid)?;
        decl.member(service, Origin::Cli).map_err(invalid)?;
        let mut runtime = owner.runtime.clone();
        runtime.backends.entry(service.into()).or_default().insert(name.clone(), decl.named(""));
        owner.change(service, runtime)?;
        Ok(self.member(service, &name)?.0)
    }

    /// Can a new backend be reached as its service wants it?
    async fn check_way(&self, service: &str, backend: &BackendSpec) -> Result<(), ApiError> {
        let declared = self.shared.read().desired.services().get(service).cloned();
        let Some(mut spec) = declared.filter(|spec| spec.is_direct()).map(|spec| ServiceSpec::clone(&spec))
        else {
            return Ok(());
        };
        spec.backends = [(backend.name(), backend.clone())].into();
        Hops::of(&*self.netlink().await, Hops::wanted([&spec])).await.check(&spec).map_err(invalid)
    }

    /// Removes a backend. Pinned flows stay until they end.
    ///
    /// # Errors
    /// There is none, or somebody else declares it.
    pub async fn remove_backend(&self, service: &str, backend: &str) -> Result<(), ApiError> {
        let name = backend_key(service, backend).map_err(invalid)?;
        let mut owner = self.owner().lock().await;
        let name = if owner.runtime.has_backend(service, &name) { name } else { self.named(service, &name)? };
        match self.member(service, &name) {
            Ok((_, origin)) => {
                self.own(&format!("backend {name} of service \"{service}\""), origin, ", or drain it")?;
                self.declared_itself(service, &name)?;
            }
            // One that is refused can be taken back.
            Err(_) if owner.runtime.has_backend(service, &name) => {}
            Err(e) => return Err(e),
        }
        let mut runtime = owner.runtime.clone();
        runtime.forget_backend(service, &name);
        for address in self.addresses_of(service, &name) {
            runtime.forget_backend(service, &address);
        }
        owner.change(service, runtime)
    }

    /// A backend, or a host with the counts of its backends.
    fn member(&self, service: &str, name: &str) -> Result<(BackendView, Origin), ApiError> {
        let spec = self.shared.read().desired.services().get(service).cloned();
        let host = spec.as_ref().and_then(|spec| Some((spec, spec.host(name)?)));
        match host {
            None => self.backend(service, name),
            Some((spec, host)) => {
                Ok((views::host(spec, host, &self.service(service)?.backends), host.origin))
            }
        }
    }

    /// Names of the backends that a host of a service is; none, if it isn't one.
    fn addresses_of(&self, service: &str, host: &str) -> Vec<String> {
        let state = self.shared.read();
        let Some(spec) = state.desired.services().get(service) else { return Vec::new() };
        let Some(host) = spec.host(host) else { return Vec::new() };
        spec.backends.values().filter(|backend| host.has(backend)).map(BackendSpec::name).collect()
    }

    /// Is a backend declared by its own address?
    ///
    /// # Errors
    /// It is one of a host's: what is to be changed instead.
    fn declared_itself(&self, service: &str, backend: &str) -> Result<(), ApiError> {
        let state = self.shared.read();
        let found = state.desired.services().get(service).and_then(|spec| spec.backends.get(backend));
        let Some((host, port)) = found.and_then(|found| found.host.as_ref().zip(found.port)) else {
            return Ok(());
        };
        Err(ApiError::Conflict(format!(
            "backend {backend} of service \"{service}\" is an address of host {host}:{port}; change or remove that, or drain \
             this address"
        )))
    }

    /// Stops new flows to a backend; open ones stay.
    ///
    /// # Errors
    /// There is none.
    pub async fn drain(&self, service: &str, backend: &str, drain: Drain) -> Result<BackendView, ApiError> {
        check_deadline(drain.deadline_seconds)?;
        let mut owner = self.owner().lock().await;
        let (view, _) = self.backend(service, &self.named(service, backend)?)?;
        let mut runtime = owner.runtime.clone();
        let record = RuntimeDrain::begin(drain.deadline_seconds);
        runtime.drains.entry(service.into()).or_default().insert(view.address.clone(), record);
        owner.change(service, runtime)?;
        let key = (service.to_string(), view.address.clone());
        self.shared.write().drained_from.insert(key, view.active_connections);
        let limit = drain.deadline_seconds.map(|s| format!("for {s} s at most"));
        self.shared.log.note("drain", service, &view.address, limit.unwrap_or_default());
        Ok(self.backend(service, &view.address)?.0)
    }

    /// Takes a drain back.
    ///
    /// # Errors
    /// There is no such backend, or it isn't draining.
    pub async fn undrain(&self, service: &str, backend: &str) -> Result<BackendView, ApiError> {
        let mut owner = self.owner().lock().await;
        let (view, _) = self.backend(service, &self.named(service, backend)?)?;
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
}
