//! Config files of other balancers, said in Flowpin's words: text in, text out. Each format has a module that
//! reads its syntax into [`directive`]s and those into a [`model`] that all share; [`settle`] and [`fit`] bring
//! that to what Flowpin takes, and [`write`] prints it. An [`Account`] has every directive: each is translated, or
//! named in a comment with what to do instead.
//!
//! Knows nothing of files, of the agent and of what is in force.

mod access;
mod account;
mod directive;
mod fit;
mod haproxy;
pub mod ipvs;
mod ipvsadm;
mod keepalived;
mod model;
mod nginx;
mod program;
mod settle;
mod talk;
mod values;
mod write;

pub use self::account::{Account, Item};

/// A format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// HAProxy's configuration.
    Haproxy,
    /// What `ipvsadm-save` prints and `ipvsadm --restore` reads.
    Ipvsadm,
    /// keepalived's configuration.
    Keepalived,
    /// nginx's configuration, of which `stream` is looked at.
    Nginx,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Haproxy, Self::Ipvsadm, Self::Keepalived, Self::Nginx];

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Ipvsadm => "ipvsadm",
            Self::Keepalived => "keepalived",
            Self::Nginx => "nginx",
        }
    }

    /// What is different though no line says so.
    const fn differs(self) -> &'static str {
        match self {
            Self::Haproxy => {
                "HAProxy balances in turn where a file doesn't say how; Flowpin gives a new connection to \
                 the backend with the fewest. HAProxy queues what is over a maxconn; Flowpin \
                 refuses it when all backends, or the service, are full. Backends see addresses of the node's, as they saw the \
                 proxy's: where their answers come back by way of the node, leave forward = \"snat\" out, \
                 and they see the client's."
            }
            Self::Ipvsadm => {
                "IPVS forgets a TCP connection that is silent for 15 minutes, and UDP after 5; Flowpin \
                 after 24 hours and 60 seconds, unless timeouts.idle and timeouts.udp say otherwise. With \
                 forward = \"nat\" answers come back by way of the node, as with -m. IPVS checks no \
                 servers: add health = { type = \"tcp\" } to have it done."
            }
            Self::Keepalived => {
                "IPVS forgets a TCP connection that is silent for 15 minutes, and UDP after 5; Flowpin \
                 after 24 hours and 60 seconds, unless timeouts.idle and timeouts.udp say otherwise. VIPs \
                 need not be on an interface; clients need a way to them through the node, which VRRP can \
                 go on giving."
            }
            Self::Nginx => {
                "nginx balances in turn where a file doesn't say how; Flowpin gives a new connection to \
                 the backend with the fewest. nginx closes a connection that is silent for 10 minutes; \
                 Flowpin after 24 hours, unless timeouts.idle says otherwise. Backends see addresses of \
                 the node's, as they saw the proxy's: where their answers come back by way of the node, \
                 leave forward = \"snat\" out, and they see the client's."
            }
        }
    }
}

/// Why a file can't be read at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImportError {
    /// A block or a quoted text has no end, or ends twice.
    #[error("line {line}: {what}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What, and what would be right.
        what: String,
    },
}

impl ImportError {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self::Syntax { line, what: what.into() }
    }
}

/// What was made of a file.
#[derive(Debug)]
pub struct Imported {
    /// Flowpin's file.
    pub text: String,
    /// Services that would be in force.
    pub services: usize,
    /// What became of each directive.
    pub account: Account,
}

/// Says a file in Flowpin's words.
///
/// # Errors
/// Its syntax is broken in such a way that nothing of it can be relied on.
pub fn import(format: Format, text: &str) -> Result<Imported, ImportError> {
    let mut draft = match format {
        Format::Ipvsadm => ipvsadm::read(text),
        Format::Keepalived => keepalived::read(text)?,
        Format::Nginx => nginx::read(text)?,
        Format::Haproxy => haproxy::read(text)?,
    };
    settle::settle(&mut draft);
    fit::fit(&mut draft);
    let text = write::write(format, &mut draft);
    let services = draft.services.iter().filter(|service| service.off.is_none()).count();
    Ok(Imported { text, services, account: draft.account })
}
