//! Who the node is, and whom it believes: TLS from files, which are read again when they have changed.
//!
//! TLS 1.3 alone, and both ends show a certificate. Sessions aren't resumed: a certificate that isn't good any more
//! would go on for as long as its session.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use tracing::{info, warn};

use crate::{Identity, MeshError, names};

/// Both ways to present oneself.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
}

/// What tells whether a file is another one: Kubernetes replaces a link, others write over or rename.
type Stamp = [Option<(u64, u64, u64, SystemTime)>; 3];

#[derive(Debug)]
struct Now {
    stamp: Stamp,
    tls: Tls,
    problem: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Identities {
    files: Identity,
    node: String,
    cluster: String,
    now: Mutex<Now>,
}

impl Identities {
    /// # Errors
    /// The files can't be read, or don't say that this is the node.
    pub(crate) fn load(files: Identity, node: &str, cluster: &str) -> Result<Self, MeshError> {
        let stamp = stamp(&files);
        let tls = load(&files, node, cluster)?;
        let now = Mutex::new(Now { stamp, tls, problem: None });
        Ok(Self { files, node: node.to_owned(), cluster: cluster.to_owned(), now })
    }

    /// For the next connection: what the files say now, or the last good ones.
    pub(crate) fn current(&self) -> Tls {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        // Before they are read: if they change meanwhile, they are read once more.
        let stamp = stamp(&self.files);
        if stamp != now.stamp {
            now.stamp = stamp;
            match load(&self.files, &self.node, &self.cluster) {
                Ok(tls) => {
                    info!("the cluster's certificates have changed and are used from now on");
                    (now.tls, now.problem) = (tls, None);
                }
                Err(error) => {
                    warn!("the cluster's certificates have changed, the last ones stay in use: {error}");
                    now.problem = Some(error.to_string());
                }
            }
        }
        now.tls.clone()
    }

    /// Why the files as they are can't be used.
    pub(crate) fn problem(&self) -> Option<String> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).problem.clone()
    }
}

fn stamp(files: &Identity) -> Stamp {
    [&files.ca, &files.certificate, &files.key].map(|path| {
        let it = fs::metadata(path).ok()?;
        Some((it.dev(), it.ino(), it.len(), it.modified().ok()?))
    })
}

fn load(files: &Identity, node: &str, cluster: &str) -> Result<Tls, MeshError> {
    let roots = Arc::new(authorities(&files.ca)?);
    let chain = certificates(&files.certificate)?;
    let own = names::node_of(Some(&chain), cluster).map_err(|error| identity(&files.certificate, &error))?;
    if own != node {
        let why = format!("it is node {own:?}'s, this is node {node:?}: take the certificate of this node");
        return Err(identity(&files.certificate, &why));
    }
    let unfit = |error: rustls::Error| unfit(&files.key, &files.certificate, &error);
    let versions = || (Arc::new(ring::default_provider()), [&TLS13]);
    let unusable = |error: String| identity(&files.ca, &error);

    let (crypto, only) = versions();
    let believes = WebPkiServerVerifier::builder_with_provider(roots.clone(), crypto.clone());
    let mut client = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&only)
        .map_err(unfit)?
        .with_webpki_verifier(believes.build().map_err(|error| unusable(error.to_string()))?)
        .with_client_auth_cert(chain.clone(), private_key(&files.key)?)
        .map_err(unfit)?;
    client.resumption = Resumption::disabled();

    let (crypto, only) = versions();
    let believes = WebPkiClientVerifier::builder_with_provider(roots, crypto.clone());
    let mut server = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&only)
        .map_err(unfit)?
        .with_client_cert_verifier(believes.build().map_err(|error| unusable(error.to_string()))?)
        .with_single_cert(chain, private_key(&files.key)?)
        .map_err(unfit)?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Tls { client: Arc::new(client), server: Arc::new(server) })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, MeshError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::Io(error) => MeshError::File { path: path.to_owned(), error },
        error => identity(path, &format!("no private key in PEM: {error}")),
    })
}

fn unfit(key: &Path, certificate: &Path, error: &rustls::Error) -> MeshError {
    identity(key, &format!("it doesn't fit {}: {error}", certificate.display()))
}

fn authorities(path: &Path) -> Result<RootCertStore, MeshError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots.add(authority).map_err(|error| identity(path, &error.to_string()))?;
    }
    Ok(roots)
}

/// How a node presents itself to a server that isn't a node, TLS 1.3 alone. `ca`: authorities that the server's
/// certificate may be from; `None`: the system's. `certificate`: the node's own, and its key.
///
/// # Errors
/// A file can't be read, or isn't what it should be.
pub(crate) fn of_client(
    ca: Option<&Path>,
    certificate: Option<(&Path, &Path)>,
) -> Result<ClientConfig, MeshError> {
    let roots = match ca {
        Some(ca) => authorities(ca)?,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| MeshError::Certificate(error.to_string()))?
        .with_root_certificates(roots);
    match certificate {
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| unfit(key, certificate, &error)),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, MeshError> {
    let failed = |error| match error {
        pem::Error::Io(error) => MeshError::File { path: path.to_owned(), error },
        error => identity(path, &format!("no certificates in PEM: {error}")),
    };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(identity(path, "there is no certificate in PEM in it"));
    }
    Ok(found)
}

pub(crate) fn identity(path: &Path, why: &str) -> MeshError {
    MeshError::Identity { path: path.to_owned(), why: why.to_owned() }
}
