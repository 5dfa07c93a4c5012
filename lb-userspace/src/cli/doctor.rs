//! `flowpin doctor`

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Failure,
    output::{Printer, Table},
};
use crate::{
    datapath::features::{self, Status},
    source::{Config, config},
};

/// Show what this kernel and these interfaces can do, and what is missing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo flowpin doctor
  sudo flowpin doctor --config /etc/flowpin/flowpin.toml
  sudo flowpin doctor -o json | jq '.[] | select(.status == \"missing\")'

On a fresh machine something is likely to be missing, such as IPv4 forwarding. \
available: there. fallback: not there, something slower or simpler does its work. missing: needed and not there, \
or refused by this kernel; the last column says what to do, or which program was refused and why. warning: a rule of \
the host's that may keep packets from arriving (`flowpin status` says which do), or a config file with passwords that \
all users can read. Exit code 1 if anything is missing. \
On a node of a cluster it also says which network plugin there is, what of kube-proxy runs or is left, whether the \
clock is synchronised, and whether the API server can be reached: the one that --config names, or a pod's environment. \
All programs are loaded for trial, which takes some seconds. Without root the kernel hides what it can do.")]
pub struct Args {
    /// Config file: who can read it, and where a cluster's API server is
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct FeatureView {
    name: String,
    status: &'static str,
    detail: String,
}

impl Args {
    pub async fn run(self, printer: &Printer) -> Result<(), Failure> {
        let config = self.config.as_deref().map(|path| config::load(Some(path)));
        let config = config.transpose().map_err(|e| Failure::Said(e.to_string()))?;
        let mut features: Vec<FeatureView> = features::probe(&servers(config.as_ref())?)
            .await
            .into_iter()
            .map(|f| FeatureView { name: f.name, status: f.status.name(), detail: f.detail })
            .collect();
        let exposed = self.config.as_deref().zip(config.as_ref());
        features.extend(exposed.and_then(|(path, config)| config::exposed(path, config)).map(|detail| {
            FeatureView {
                name: "passwords in the config file".into(),
                status: Status::Warning.name(),
                detail,
            }
        }));
        printer.print(features.as_slice(), table)?;
        let missing: Vec<&str> =
            features.iter().filter(|f| f.status == "missing").map(|f| f.name.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::Said(format!(
            "missing: {}; the table of \"flowpin doctor\" says what to do",
            missing.join(", ")
        )))
    }
}

/// Addresses of the API server, `host:port`.
fn servers(config: Option<&Config>) -> Result<Vec<String>, Failure> {
    let spec = config.and_then(|config| config.kubernetes.as_ref());
    let uris = spec.map(|spec| spec.access.check()).transpose();
    let uris = uris.map_err(|e| Failure::Said(e.to_string()))?.unwrap_or_default();
    let address = |uri: http::Uri| {
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        uri.host().map(|host| format!("{host}:{port}"))
    };
    let named: Vec<String> = uris.into_iter().filter_map(address).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let pod = env("KUBERNETES_SERVICE_HOST").zip(env("KUBERNETES_SERVICE_PORT"));
    Ok(pod.into_iter().map(|(host, port)| joined(&host, &port)).collect())
}

/// `host:port`, brackets for IPv6.
fn joined(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn table(features: &[FeatureView]) -> String {
    let mut table = Table::new(&["FEATURE", "STATUS", "DETAIL"]);
    for f in features {
        table.row([f.name.clone(), f.status.into(), f.detail.clone()]);
    }
    table.to_string()
}
