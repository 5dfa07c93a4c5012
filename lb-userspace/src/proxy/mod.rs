//! What a cluster expects of its service proxy besides balancing: answers to load balancers and kubelets, the metrics
//! of kube-proxy, Events on what is wrong with objects.

pub mod events;
pub mod health;
pub mod listen;
pub mod metrics;
pub mod pages;
pub mod requests;
pub mod state;

pub use events::Occurrence;
pub use metrics::ProxyMetrics;
pub use requests::Requests;
pub use state::ClusterState;
