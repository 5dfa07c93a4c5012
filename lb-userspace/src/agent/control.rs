//! The API's questions, put to the handle.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::stream::BoxStream;
use tokio::time::timeout;

use super::{
    handle::{Handle, blocking},
    seen::Seen,
};
use crate::{
    api::{
        control::Control,
        error::ApiError,
        types::{
            BackendDecl, BackendView, Closed, ClusterView, ConnectionClose, ConnectionQuery, ConnectionView,
            Detach, DetachedView, Drain, EventQuery, EventView, EverywhereView, ExplainQuery, ExplainView,
            Patch, RebalanceView, ServiceDecl, ServiceView, StatsView, StatusView, Task,
        },
    },
    datapath::DatapathError,
    observe::{Overview, metrics::Page, overview::Shown},
};

/// How long somebody may wait for his turn before the agent is said not to go on. Shorter than kubelets wait for an answer.
const TURN: Duration = Duration::from_secs(4);

fn failed(error: DatapathError) -> ApiError {
    ApiError::Failed(error.to_string())
}

impl Control for Handle {
    async fn services(&self) -> Result<Vec<ServiceView>, ApiError> {
        let (shared, since) = (self.shared.clone(), Instant::now());
        blocking(move || shared.services(since)).await?.map_err(failed)
    }
    async fn service(&self, name: String) -> Result<ServiceView, ApiError> {
        Self::service(self, &name)
    }
    async fn add_service(&self, add: ServiceDecl) -> Result<ServiceView, ApiError> {
        Self::add_service(self, add).await
    }
    async fn set_service(&self, name: String, change: Patch) -> Result<ServiceView, ApiError> {
        Self::set_service(self, &name, change).await
    }
    async fn remove_service(&self, name: String) -> Result<(), ApiError> {
        Self::remove_service(self, &name).await
    }
    async fn add_backend(&self, service: String, add: BackendDecl) -> Result<BackendView, ApiError> {
        Self::add_backend(self, &service, add).await
    }
    async fn set_backend(
        &self,
        service: String,
        backend: String,
        change: Patch,
    ) -> Result<BackendView, ApiError> {
        Self::set_backend(self, &service, &backend, change).await
    }
    async fn remove_backend(&self, service: String, backend: String) -> Result<(), ApiError> {
        Self::remove_backend(self, &service, &backend).await
    }
    async fn drain(&self, service: String, backend: String, drain: Drain) -> Result<BackendView, ApiError> {
        Self::drain(self, &service, &backend, drain).await
    }
    async fn undrain(&self, service: String, backend: String) -> Result<BackendView, ApiError> {
        Self::undrain(self, &service, &backend).await
    }
    async fn connections(
        &self,
        query: ConnectionQuery,
    ) -> Result<BoxStream<'static, ConnectionView>, ApiError> {
        Self::connections(self, query).await
    }
    async fn close_connections(&self, close: ConnectionClose) -> Result<Closed, ApiError> {
        Self::close_connections(self, close).await
    }
    async fn detach(&self, detach: Detach) -> Result<DetachedView, ApiError> {
        self.owner().lock().await.detach_by(detach)
    }
    async fn attach(&self) -> Result<(), ApiError> {
        let seen = Seen::look(&*self.netlink().await).await;
        self.owner().lock().await.attach_again(&seen)
    }
    async fn events(&self, query: EventQuery) -> Result<BoxStream<'static, EventView>, ApiError> {
        Self::events(self, query)
    }
    async fn explain(&self, query: ExplainQuery) -> Result<ExplainView, ApiError> {
        Self::explain(self, query).await
    }
    async fn status(&self) -> Result<StatusView, ApiError> {
        let leaves = self.shared.read().is_leaving();
        let detached = if leaves { Some(self.owner().lock().await.detached()) } else { None };
        Ok(StatusView { detached, ..self.shared.status() })
    }
    async fn cluster(&self) -> Result<ClusterView, ApiError> {
        self.shared.cluster_view().await
    }
    async fn rebalance(&self, service: String, begin: bool) -> Result<RebalanceView, ApiError> {
        Self::rebalance(self, &service, begin).await
    }
    async fn everywhere(&self, task: Task) -> Result<EverywhereView, ApiError> {
        Self::everywhere(self, task).await
    }
    async fn stats(&self) -> Result<StatsView, ApiError> {
        let (shared, since) = (self.shared.clone(), Instant::now());
        blocking(move || shared.stats(since)).await?.map_err(failed)
    }
    async fn overview(&self) -> Result<Overview, ApiError> {
        let (shared, since) = (self.shared.clone(), Instant::now());
        blocking(move || shared.overview(since)).await?.map_err(failed)
    }
    async fn shown(&self, names: Vec<String>) -> Result<Shown, ApiError> {
        let (shared, since) = (self.shared.clone(), Instant::now());
        blocking(move || shared.shown(&names, since)).await?.map_err(failed)
    }
    async fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.shared.drops().collect()
    }
    async fn metrics(&self) -> Result<Page, ApiError> {
        self.page().await
    }
    async fn alive(&self) -> bool {
        timeout(TURN, self.owner().lock()).await.is_ok()
    }
    async fn ready(&self) -> bool {
        Self::ready(self)
    }
}
