//! Desired state, validated once and immutable after that. Nothing here knows serde, maps or the kernel; nothing behind it
//! validates again.

pub mod affinity;
pub mod backend;
pub mod desired;
pub mod error;
pub mod fates;
pub mod forward;
pub mod frontend;
pub mod health;
pub mod origin;
pub mod port;
pub mod reach;
pub mod service;
pub mod timeouts;
pub mod uptime;

pub use affinity::AffinitySpec;
pub use backend::{AdminState, BackendSpec, Lists, backend_name};
pub use desired::{Admission, Desired};
pub use error::ModelError;
pub use fates::{Fate, Fates};
pub use forward::{ForwardKind, Forwarding, SnatSpec};
pub use frontend::{Frontend, Scope};
pub use health::{HealthSpec, Probe, Standings};
pub use origin::Origin;
pub use port::{PortRange, Protocol};
pub use reach::OwnAddresses;
pub use service::{AlgorithmKind, ServiceSpec, StrayKind};
pub use timeouts::TimeoutSpec;
