//! Real namespaces, real programs.

pub mod agent;
pub mod api;
pub mod broken;
pub mod cgroup;
pub mod client;
pub mod decap;
pub mod devices;
pub mod eventually;
pub mod forge;
pub mod grpc;
pub mod netfilter;
pub mod netns;
pub mod paths;
pub mod program;
pub mod rulesets;
pub mod server;
pub mod systemd;
pub mod topology;
pub mod udp;

pub use agent::Agent;
pub use cgroup::Cgroup;
pub use eventually::eventually;
pub use netns::Ns;
pub use systemd::Systemd;
pub use topology::Net;
