//! Where desired state comes from: the config file, what the command line added, and a Kubernetes cluster. None of them
//! knows of maps. A further source is a further file here and a line in `merge`.

pub mod config;
pub mod decl;
pub mod good;
pub mod kubernetes;
pub mod merge;
pub mod names;
pub mod recover;
pub mod runtime;

pub use config::{
    Attach, Config, Fast, FileService, InterfaceRule, KubernetesSpec, Matcher, Reply, Role, SocketScope,
    SocketSpec, Variant,
};
pub use good::Good;
pub use merge::Sources;
pub use names::Names;
pub use runtime::Runtime;

use crate::model::readable::readable;

/// Why desired state could not be had. One line each: what is wrong, with what value, what would be right.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message is the documentation of each variant and names its fields")]
pub enum SourceError {
    #[error("{path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("{path}: {}", readable(message))]
    Syntax { path: String, message: String },
    #[error("{path}: {error}")]
    Model { path: String, error: crate::model::ModelError },
    #[error("{path}: {}", readable(message))]
    Value { path: String, message: String },
    #[error("state file {path}: {error}")]
    Save { path: String, error: std::io::Error },
    #[error(
        "last good config {path}: {error}; make room there, or a broken file finds none at the next start"
    )]
    SaveGood { path: String, error: std::io::Error },
    #[error(
        "addresses of hosts {path}: {error}; make room there, or an agent that starts while the DNS fails has none"
    )]
    SaveNames { path: String, error: std::io::Error },
}
