//! Certificates for clusters that have no authority of their own: a small one, and a certificate for each node.
//!
//! Keys are of P-256, certificates are good for ten years from a day before they are made on: nothing renews them. To
//! renew a node's, remove its two files and make them again; to withdraw one, make a new authority.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{MeshError, names};

/// The authority's certificate: [`Identity::ca`](crate::Identity::ca) on all nodes.
pub const CA: &str = "ca.pem";
/// The authority's private key. No node needs it: keep it where certificates are made.
pub const CA_KEY: &str = "ca.key";

const GOOD_FOR: Duration = Duration::days(3_650);
/// Clocks of nodes may be behind.
const BEHIND: Duration = Duration::days(1);

/// Makes `NODE.pem` and `NODE.key` in `directory` for each of the nodes, and before that [`CA`] and [`CA_KEY`] unless
/// they are there. Nodes that have both files keep them. Keys are readable for the owner alone. Files appear as a whole
/// or not at all, and none is written over. Which were written.
///
/// # Errors
/// A name isn't one, a file can't be read or written, one of two that belong together is missing, or the authority
/// that is there is another cluster's.
pub fn create(directory: &Path, cluster: &str, nodes: &[String]) -> Result<Vec<PathBuf>, MeshError> {
    names::check_cluster(cluster)?;
    for node in nodes {
        names::check_node(node)?;
        if format!("{node}.pem") == CA {
            return Err(identity(directory.join(CA), "it is the authority's: name the node something else"));
        }
    }
    let failed = |error| MeshError::File { path: directory.to_owned(), error };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let mut written = Vec::new();
    let authority = Authority::open(directory, cluster, &mut written)?;
    for node in nodes {
        let (certificate, key) =
            (directory.join(format!("{node}.pem")), directory.join(format!("{node}.key")));
        match (certificate.exists(), key.exists()) {
            (true, true) => {}
            (false, false) => {
                let pair = KeyPair::generate().map_err(unmade)?;
                let made = authority.certify(node, cluster, &pair)?;
                write(&key, &pair.serialize_pem(), 0o600, &mut written)?;
                write(&certificate, &made, 0o644, &mut written)?;
            }
            (there, _) => {
                let (there, missing) = if there { (certificate, key) } else { (key, certificate) };
                let why = format!(
                    "{} that belongs to it is missing: remove it to have both made",
                    missing.display()
                );
                return Err(identity(there, &why));
            }
        }
    }
    Ok(written)
}

struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    fn open(directory: &Path, cluster: &str, written: &mut Vec<PathBuf>) -> Result<Self, MeshError> {
        let (path, key) = (directory.join(CA), directory.join(CA_KEY));
        let pair = if key.exists() {
            let pem =
                fs::read_to_string(&key).map_err(|error| MeshError::File { path: key.clone(), error })?;
            KeyPair::from_pem(&pem).map_err(|error| identity(key, &format!("no private key: {error}")))?
        } else if path.exists() {
            let why = format!("its key {} is missing: bring it back, or take another folder", key.display());
            return Err(identity(path, &why));
        } else {
            let pair = KeyPair::generate().map_err(unmade)?;
            write(&key, &pair.serialize_pem(), 0o600, written)?;
            pair
        };
        let params = of_authority(cluster);
        if !path.exists() {
            let made = params.self_signed(&pair).map_err(unmade)?;
            write(&path, &made.pem(), 0o644, written)?;
        }
        let certificate = CertificateDer::from_pem_file(&path)
            .map_err(|error| identity(path.clone(), &format!("no certificate: {error}")))?;
        let issuer = Issuer::new(params, pair);
        vouches(&issuer, cluster, &certificate).map_err(|error| {
            let why = format!(
                "it isn't the authority of cluster {cluster:?} with the key {CA_KEY}, or can't be read ({error}): take \
                 another folder"
            );
            identity(path, &why)
        })?;
        Ok(Self(issuer))
    }

    /// A certificate in PEM.
    fn certify(&self, node: &str, cluster: &str, pair: &KeyPair) -> Result<String, MeshError> {
        Ok(of_node(node, cluster)?.signed_by(pair, &self.0).map_err(unmade)?.pem())
    }
}

/// Is a certificate that the issuer makes for the cluster good by the authority's?
fn vouches(
    issuer: &Issuer<'_, KeyPair>,
    cluster: &str,
    authority: &CertificateDer<'_>,
) -> Result<(), String> {
    let made = of_node("node", cluster).map_err(|error| error.to_string())?;
    let made = made.signed_by(issuer.key(), issuer).map_err(|error| error.to_string())?;
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let (now, usage) = (UnixTime::since_unix_epoch(since), KeyUsage::client_auth());
    let verify = || {
        let anchor = anchor_from_trusted_cert(authority)?;
        let algorithms = [webpki::ring::ECDSA_P256_SHA256];
        let made = EndEntityCert::try_from(made.der())?;
        made.verify_for_usage(&algorithms, &[anchor], &[], now, usage, None, None).map(drop)
    };
    verify().map_err(|error: webpki::Error| error.to_string())
}

/// What an authority's certificate says, always the same but for the times.
fn of_authority(cluster: &str) -> CertificateParams {
    let mut params = params(&format!("Flowpin cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn of_node(node: &str, cluster: &str) -> Result<CertificateParams, MeshError> {
    let mut params = params(&format!("Flowpin node of cluster {cluster}"));
    for name in [node, &names::of_cluster(cluster)] {
        params.subject_alt_names.push(SanType::DnsName(name.try_into().map_err(unmade)?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Nodes connect to nodes: each is client and server.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - BEHIND, now + GOOD_FOR);
    params
}

fn write(path: &Path, text: &str, mode: u32, written: &mut Vec<PathBuf>) -> Result<(), MeshError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let attempt = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        Ok(())
    };
    attempt().map_err(|error: io::Error| MeshError::File { path: path.to_owned(), error })?;
    written.push(path.to_owned());
    Ok(())
}

fn unmade(error: rcgen::Error) -> MeshError {
    MeshError::Certificate(error.to_string())
}

fn identity(path: PathBuf, why: &str) -> MeshError {
    MeshError::Identity { path, why: why.to_owned() }
}
