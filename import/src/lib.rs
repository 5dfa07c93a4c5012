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
use self::model::Draft;

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
                 refuses it when all backends, or the service, are full. Backends see an address of the node's, as they saw the \
                 proxy's, so that they answer to it whatever their routes are: that is forward = \"snat\". \
                 Where answers come back by way of the node anyway, leave it out, and they see the client's."
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
                 Flowpin after 24 hours, unless timeouts.idle says otherwise. Backends see an address \
                 of the node's, as they saw the proxy's, so that they answer to it whatever their routes \
                 are: that is forward = \"snat\". Where answers come back by way of the node anyway, leave \
                 it out, and they see the client's."
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
    /// Is any of it a file of that format?
    pub recognised: bool,
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
    let recognised = recognised(&draft);
    settle::settle(&mut draft);
    fit::fit(&mut draft);
    let text = write::write(format, &mut draft);
    let services = draft.services.iter().filter(|service| service.off.is_none()).count();
    Ok(Imported { text, services, recognised, account: draft.account })
}

/// Is there anything in it but what nobody knows?
fn recognised(draft: &Draft) -> bool {
    const UNKNOWN: [&str; 5] = [
        haproxy::remedies::UNKNOWN,
        haproxy::remedies::NO_SECTION,
        ipvsadm::UNKNOWN,
        keepalived::remedies::UNKNOWN,
        nginx::remedies::UNKNOWN,
    ];
    !draft.services.is_empty()
        || draft.account.items().iter().any(|item| item.translated)
        || draft.notes.iter().any(|note| !UNKNOWN.contains(&note.remedy.as_str()))
}

#[cfg(test)]
mod tests {
    use super::{Format, import};

    #[test]
    fn what_nobody_knows_is_no_file_of_a_format() {
        let known = |format, text| import(format, text).expect("it can be read").recognised;
        for format in Format::ALL {
            assert!(!known(format, "") && !known(format, "# a comment\n"), "{format:?}");
            assert!(!known(format, "hello there;\n"), "{format:?}");
        }
        assert!(known(Format::Haproxy, "global\n  daemon\n"));
        assert!(known(Format::Haproxy, "peers mesh\n  peer a 10.0.0.1:1024\n"));
        assert!(known(Format::Keepalived, "vrrp_instance a {\n  priority 100\n}\n"));
        assert!(known(Format::Nginx, "http { server { listen 80; } }\n"));
        assert!(known(Format::Ipvsadm, "-C\n"));
    }

    #[test]
    fn a_page_of_statistics_is_flowpins_own() {
        let text = "listen stats\n bind :8404\n mode http\n stats enable\nfrontend web\n bind 10.0.0.1:80\n stats uri /s\n \
                    default_backend b\nbackend b\n server a 10.0.0.2:80\n";
        let imported = import(Format::Haproxy, text).expect("it can be read");
        assert!(
            imported.text.contains("# lines 1-4: listen stats\n#   It shows HAProxy's own"),
            "{}",
            imported.text
        );
        assert_eq!(
            (imported.services, imported.text.matches("[[service]]").count()),
            (1, 1),
            "{}",
            imported.text
        );
    }
}
