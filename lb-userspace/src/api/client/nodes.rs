//! What is asked of all nodes that share their counts.

use super::{Client, ClientError, backend_of, segment};
use crate::api::types::{ClusterView, Deed, Drain, EverywhereView, RebalanceView, Task};

impl Client {
    /// The nodes that share counts.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        self.get("/v1/cluster").await
    }

    /// How rebalancing of a service stands; `begin`: it begins now.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn rebalance(&self, service: &str, begin: bool) -> Result<RebalanceView, ClientError> {
        let path = format!("/v1/services/{}/rebalance", segment(service));
        if begin { self.post(&path, &Drain::default()).await } else { self.get(&path).await }
    }

    /// Does something with a backend at all nodes that share counts.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn everywhere(&self, task: &Task) -> Result<EverywhereView, ClientError> {
        let path = format!("/v1/cluster{}", backend_of(&task.service, &task.backend));
        match &task.deed {
            Deed::Look => self.get(&path).await,
            Deed::Drain(drain) => self.post(&format!("{path}/drain"), drain).await,
            Deed::Undrain => self.post(&format!("{path}/undrain"), &Drain::default()).await,
        }
    }
}
