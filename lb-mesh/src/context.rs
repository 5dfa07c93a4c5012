//! What all connections of a mesh share.

use std::{io, sync::Arc, time::Duration};

use tokio_rustls::rustls::{self, AlertDescription as Alert, CertificateError};

use crate::{Reason, driver::Shown, identity::Identities, links::Links, peers::Peers, view::Peer};

/// How long the other end may take to show who it is.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) links: Arc<Links>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) identities: Arc<Identities>,
}

impl Shown for Context {
    fn peers(&self) -> Vec<Peer> {
        self.peers.view()
    }

    fn problem(&self) -> Option<String> {
        self.identities.problem()
    }
}

/// Why a handshake has failed.
pub(crate) fn reason(error: &io::Error) -> Reason {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Reason::Name,
        // The other end refuses this one's: one of both has a wrong one.
        Some(
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::AlertReceived(
                Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRequired
                | Alert::CertificateUnknown
                | Alert::DecryptError
                | Alert::UnknownCA
                | Alert::UnsupportedCertificate,
            ),
        ) => Reason::Certificate,
        _ => Reason::Handshake,
    }
}
