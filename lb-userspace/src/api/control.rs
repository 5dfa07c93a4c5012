//! What the API server asks of the agent. The agent implements it on its handle; tests implement it without a kernel.
//! Addresses come as the caller wrote them: any form that means the same backend does.

use std::{collections::BTreeMap, future::Future};

use futures::stream::BoxStream;

use super::{
    error::ApiError,
    types::{
        BackendDecl, BackendView, Closed, ClusterView, ConnectionClose, ConnectionQuery, ConnectionView,
        Detach, DetachedView, Drain, EventQuery, EventView, EverywhereView, ExplainQuery, ExplainView, Patch,
        RebalanceView, ServiceDecl, ServiceView, StatsView, StatusView, Task,
    },
};
use crate::observe::{Overview, metrics::Page, overview::Shown};

/// The agent, as the API sees it. Every change is in force when its future is done, and in the state file.
pub trait Control: Clone + Send + Sync + 'static {
    /// All services, by name.
    fn services(&self) -> impl Future<Output = Result<Vec<ServiceView>, ApiError>> + Send;
    /// One service.
    fn service(&self, name: String) -> impl Future<Output = Result<ServiceView, ApiError>> + Send;
    /// Adds a service.
    fn add_service(&self, add: ServiceDecl) -> impl Future<Output = Result<ServiceView, ApiError>> + Send;
    /// Changes what is named of a service that the command line added.
    fn set_service(
        &self,
        name: String,
        change: Patch,
    ) -> impl Future<Output = Result<ServiceView, ApiError>> + Send;
    /// Removes a service that the command line added. Pinned flows stay until they end.
    fn remove_service(&self, name: String) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Adds a backend, or changes one that the command line added.
    fn add_backend(
        &self,
        service: String,
        add: BackendDecl,
    ) -> impl Future<Output = Result<BackendView, ApiError>> + Send;
    /// Changes what is named of a backend that the command line added.
    fn set_backend(
        &self,
        service: String,
        backend: String,
        change: Patch,
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
        query: ConnectionQuery,
    ) -> impl Future<Output = Result<BoxStream<'static, ConnectionView>, ApiError>> + Send;
    /// Closes the pinned flows that match. Done when all are.
    fn close_connections(
        &self,
        close: ConnectionClose,
    ) -> impl Future<Output = Result<Closed, ApiError>> + Send;
    /// Stops balancing, and takes the programs off at once or after the connections that are open.
    fn detach(&self, detach: Detach) -> impl Future<Output = Result<DetachedView, ApiError>> + Send;
    /// Balances again.
    fn attach(&self) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// The agent's events of late, or all events from now on.
    fn events(
        &self,
        query: EventQuery,
    ) -> impl Future<Output = Result<BoxStream<'static, EventView>, ApiError>> + Send;
    /// Where a client is, or would be given to.
    fn explain(&self, query: ExplainQuery) -> impl Future<Output = Result<ExplainView, ApiError>> + Send;
    /// State of the agent and its datapath.
    fn status(&self) -> impl Future<Output = Result<StatusView, ApiError>> + Send;
    /// The nodes that share counts.
    fn cluster(&self) -> impl Future<Output = Result<ClusterView, ApiError>> + Send;
    /// Does something with a backend at all nodes that share counts.
    fn everywhere(&self, task: Task) -> impl Future<Output = Result<EverywhereView, ApiError>> + Send;
    /// How rebalancing of a service stands; `begin`: it begins now.
    fn rebalance(
        &self,
        service: String,
        begin: bool,
    ) -> impl Future<Output = Result<RebalanceView, ApiError>> + Send;
    /// Counters.
    fn stats(&self) -> impl Future<Output = Result<StatsView, ApiError>> + Send;
    /// All services in a few words each.
    fn overview(&self) -> impl Future<Output = Result<Overview, ApiError>> + Send;
    /// These services, with counts as of now; those that are gone are left out.
    fn shown(&self, names: Vec<String>) -> impl Future<Output = Result<Shown, ApiError>> + Send;
    /// Refusals and drops by reason, zeros included.
    fn drops(&self) -> impl Future<Output = BTreeMap<&'static str, u64>> + Send;
    /// The metrics page.
    fn metrics(&self) -> impl Future<Output = Result<Page, ApiError>> + Send;
    /// Does whoever wants to change something get his turn within a few seconds?
    fn alive(&self) -> impl Future<Output = bool> + Send;
    /// Has the first reconcile succeeded, and is everything attached?
    fn ready(&self) -> impl Future<Output = bool> + Send;
}
