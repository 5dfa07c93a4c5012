//! Desired state, validated once and immutable after that. Nothing here knows serde, maps or the kernel; nothing behind it
//! validates again.

pub mod affinity;
pub mod backend;
pub mod checked;
pub mod clients;
pub mod desired;
pub mod direct;
pub mod error;
pub mod forward;
pub mod frontend;
pub mod health;
pub mod host;
pub mod kinds;
pub mod origin;
pub mod port;
mod quorum;
pub mod reach;
pub mod readable;
pub mod rebalance;
pub mod removal;
pub mod service;
pub mod timeouts;
pub mod uptime;
mod warnings;

pub use affinity::AffinitySpec;
pub use backend::{AdminState, BackendSpec, Lists, backend_name};
pub use checked::Health;
pub use desired::{Admission, Desired};
pub use direct::DirectVip;
pub use error::ModelError;
pub use forward::{ForwardKind, Forwarding, SnatSpec};
pub use frontend::{Frontend, Scope};
pub use health::{HealthSpec, HealthStates, Probe};
pub use host::{HostSpec, Member};
pub use kinds::{AlgorithmKind, StrayKind};
pub use origin::Origin;
pub use port::{PortRange, Protocol};
pub use reach::OwnAddresses;
pub use rebalance::RebalanceSpec;
pub use removal::{Departure, Departures, RemovalPolicies, RemovalPolicy};
pub use service::ServiceSpec;
pub use timeouts::TimeoutSpec;
