//! Why a mesh can't be.

use std::{io, net::SocketAddr, path::PathBuf};

use lb_cluster::MAX_AGGREGATORS;

use crate::CLUSTER_SUFFIX;

/// A mesh can't be started, or certificates can't be made.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A name isn't one.
    #[error(
        "{name:?} can't be {what}'s name: take a DNS name in lower case, such as node-1 or node-1.example.net, that \
         doesn't end in {CLUSTER_SUFFIX:?}"
    )]
    Name {
        /// Whose.
        what: &'static str,
        /// What was given.
        name: String,
    },
    /// A peer isn't one.
    #[error("peer {0:?}: write HOST:PORT, such as node-2:7473 or [2001:db8::2]:7473")]
    Peer(String),
    /// No server of NATS's. What was written is shown without its password.
    #[error("{shown:?} is no NATS server: {why}; write nats://HOST:4222 or tls://HOST:4222")]
    Server {
        /// What was written, without a password.
        shown: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no server at all.
    #[error("no NATS server is named; write nats://HOST:4222")]
    NoServer,
    /// Two ways to present oneself.
    #[error("{0} has a user or a token, and there is a file of credentials too: keep one of them")]
    TwoLogins(String),
    /// There are no peers to be set.
    #[error("nodes find each other through NATS: there is no list of peers")]
    NoPeers,
    /// Too many aggregators.
    #[error("{0} aggregators: name {MAX_AGGREGATORS} at most, 3 are enough")]
    Aggregators(usize),
    /// It can't listen.
    #[error("can't listen on {address}: {error}; is another agent running, or the address another node's?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A file can't be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file isn't what it should be.
    #[error("{}: {why}", path.display())]
    Identity {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// A certificate can't be made.
    #[error("can't make a certificate: {0}")]
    Certificate(String),
}
