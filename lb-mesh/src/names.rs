//! Names of nodes and clusters, as certificates have them.
//!
//! A certificate has two DNS names: the node's, and the cluster's with [`CLUSTER_SUFFIX`] behind it. Whatever makes
//! certificates for servers can make these. Other kinds of names in it mean nothing here.

use tokio_rustls::rustls::pki_types::{CertificateDer, DnsName};
use webpki::EndEntityCert;

use crate::MeshError;

/// What follows a cluster's name in certificates. `internal` is nobody's in the DNS (ICANN, 2024).
pub const CLUSTER_SUFFIX: &str = ".cluster.flowpin.internal";

/// The cluster's name as certificates have it.
pub(crate) fn of_cluster(cluster: &str) -> String {
    format!("{cluster}{CLUSTER_SUFFIX}")
}

/// May a node have this name?
pub(crate) fn check_node(name: &str) -> Result<(), MeshError> {
    if is_name(name) && !name.ends_with(CLUSTER_SUFFIX) {
        Ok(())
    } else {
        Err(MeshError::Name { what: "a node", name: name.to_owned() })
    }
}

/// May a cluster?
pub(crate) fn check_cluster(name: &str) -> Result<(), MeshError> {
    if is_name(name) && is_name(&of_cluster(name)) {
        Ok(())
    } else {
        Err(MeshError::Name { what: "a cluster", name: name.to_owned() })
    }
}

fn is_name(name: &str) -> bool {
    DnsName::try_from(name).is_ok() && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// The name of the node that has this certificate, the first of those that were shown.
///
/// # Errors
/// The certificate isn't one of this cluster's nodes: what it says instead.
pub(crate) fn node_of(chain: Option<&[CertificateDer<'_>]>, cluster: &str) -> Result<String, String> {
    let certificate = chain.and_then(<[_]>::first).ok_or("no certificate was shown")?;
    let certificate = EndEntityCert::try_from(certificate).map_err(|error| error.to_string())?;
    let names: Vec<_> = certificate.valid_dns_names().collect();
    let ours = of_cluster(cluster);
    if !names.contains(&ours.as_str()) {
        return Err(format!("the certificate has the DNS names {names:?}, {ours:?} isn't among them"));
    }
    let mut nodes = names.iter().filter(|name| !name.ends_with(CLUSTER_SUFFIX));
    match (nodes.next(), nodes.next()) {
        (Some(node), None) if is_name(node) => Ok((*node).to_owned()),
        _ => Err(format!(
            "the certificate has the DNS names {names:?}: it has to have one node's, in lower case"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_dns_in_lower_case() {
        for good in ["a", "node-1", "ip-10-0-0-1.eu.example", "a_b", &["x"; 126].join(".")] {
            assert!(check_node(good).is_ok(), "{good}");
        }
        for bad in ["", "Node-1", "10.0.0.1", "*.example", "a b", &"x".repeat(64), &["x"; 128].join(".")] {
            let said = check_node(bad).unwrap_err().to_string();
            assert!(said.contains(&format!("{bad:?}")), "{said}");
        }
        assert!(check_node("x.cluster.flowpin.internal").is_err(), "it would be a cluster's");
        assert!(check_cluster("prod").is_ok());
        assert!(check_cluster(&["x"; 126].join(".")).is_err(), "with the suffix it is too long");
    }
}
