//! Those who connect and mean no good: with certificates of all kinds, and any bytes.

use std::{net::SocketAddr, path::Path, sync::Arc};

use lb_cluster::frame::Frame;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use time::{Duration, OffsetDateTime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};

use crate::cluster::{NAME, identity};

/// A certificate and its key.
pub type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// An authority that makes what it is asked for.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "another authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate with these DNS names, that is good until so many days from now.
    pub fn certificate(&self, names: &[&str], days: i64) -> Shown {
        let mut params = CertificateParams::default();
        let name = |name: &&str| SanType::DnsName((*name).try_into().unwrap());
        params.subject_alt_names = names.iter().map(name).collect();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - Duration::days(9), now + Duration::days(days));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// What `keygen` has made for a node.
pub fn of_node(keys: &Path, node: &str) -> Shown {
    let files = identity(keys, node);
    let certificate = CertificateDer::from_pem_file(files.certificate).unwrap();
    (certificate, PrivateKeyDer::from_pem_file(files.key).unwrap())
}

/// A connection with a node of the test's cluster.
pub struct Stranger(TlsStream<TcpStream>);

impl Stranger {
    /// Connects, and shows this.
    pub async fn connect(address: SocketAddr, keys: &Path, shown: Option<Shown>) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(identity(keys, "").ca).unwrap() {
            roots.add(authority.unwrap()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let server = ServerName::try_from(format!("{NAME}.cluster.flowpin.internal")).unwrap();
        Self(TlsConnector::from(Arc::new(config)).connect(server, stream).await.unwrap())
    }

    /// Waits until the node has taken the certificate. False: it has refused it.
    pub async fn is_taken(&mut self) -> bool {
        self.0.read_exact(&mut [0; 4]).await.is_ok()
    }

    /// Waits until the node has closed the connection.
    pub async fn is_closed(&mut self) {
        while matches!(self.0.read(&mut [0; 64]).await, Ok(1..)) {}
    }

    /// Sends a frame, for this side of the node.
    pub async fn frame(&mut self, side: u8, frame: &Frame) {
        self.packed(side, &frame.encode().unwrap()).await;
    }

    /// Sends any bytes as a frame.
    pub async fn packed(&mut self, side: u8, bytes: &[u8]) {
        let mut packed = (1 + bytes.len() as u32).to_be_bytes().to_vec();
        packed.push(side);
        packed.extend_from_slice(bytes);
        self.raw(&packed).await;
    }

    /// Sends any bytes.
    pub async fn raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }
}
