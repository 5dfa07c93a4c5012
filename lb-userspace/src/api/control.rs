//! What the API server asks of the agent. The agent implements it on its handle; tests implement it on nothing.

use std::future::Future;

use super::types::*;

/// A refusal, with the HTTP status that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// 400: the request is wrong.
    Invalid(String),
    /// 404: no such service or backend.
    NotFound(String),
    /// 409: it exists already, or belongs to the config file.
    Conflict(String),
    /// 500: the kernel or the disk refused.
    Failed(String),
}

/// The agent, as the API sees it. Every change is in force when its future is done, and in the state file.
pub trait Control: Clone + Send + Sync + 'static {
    /// All services, by name.
    fn services(&self) -> impl Future<Output = Result<Vec<ServiceView>, ApiError>> + Send;
    /// One service. Worth a shorter way than this where there are many: `backend drain --wait` asks again and again.
    fn service(&self, name: String) -> impl Future<Output = Result<ServiceView, ApiError>> + Send {
        async move {
            let found = self.services().await?.into_iter().find(|s| s.name == name);
            found.ok_or_else(|| {
                ApiError::NotFound(format!(
                    "there is no service \"{name}\"; \"flowpin service list\" names those there are"
                ))
            })
        }
    }
    /// Adds a service.
    fn add_service(&self, add: ServiceAdd) -> impl Future<Output = Result<ServiceView, ApiError>> + Send;
    /// Removes a service that the command line added. Pinned flows stay until they end.
    fn remove_service(&self, name: String) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Adds a backend, or changes one that the command line added.
    fn add_backend(
        &self,
        service: String,
        add: BackendAdd,
    ) -> impl Future<Output = Result<BackendView, ApiError>> + Send;
    /// Removes a backend that the command line added. Pinned flows stay until they end.
    fn remove_backend(
        &self,
        service: String,
        backend: String,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Stops new flows to a backend; open ones stay.
    fn drain(
        &self,
        service: String,
        backend: String,
        drain: Drain,
    ) -> impl Future<Output = Result<BackendView, ApiError>> + Send;
    /// Takes a drain back.
    fn undrain(
        &self,
        service: String,
        backend: String,
    ) -> impl Future<Output = Result<BackendView, ApiError>> + Send;
    /// Pinned flows that match, forward direction joined with the reply's counters.
    fn connections(
        &self,
        filter: ConnectionFilter,
    ) -> impl Future<Output = Result<Vec<ConnectionView>, ApiError>> + Send;
    /// State of the agent and its datapath.
    fn status(&self) -> impl Future<Output = Result<StatusView, ApiError>> + Send;
    /// Counters.
    fn stats(&self) -> impl Future<Output = Result<StatsView, ApiError>> + Send;
    /// The metrics page.
    fn metrics(&self) -> impl Future<Output = Result<String, ApiError>> + Send;
    /// Has the first reconcile succeeded, and is everything attached?
    fn ready(&self) -> impl Future<Output = bool> + Send;
}
