//! `[kubernetes]`: which cluster is followed, as which node, and what of it.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    model::{ForwardKind, StrayKind},
    source::kubernetes::{Options, client::Access, node::NodePorts, objects::PREFIX},
};

/// `[kubernetes]`, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSpec {
    /// The name of the own Node; `None`: what NODE_NAME in the environment says.
    pub node: Option<String>,
    /// Where the API server is.
    pub access: Access,
    /// Services with this `service.kubernetes.io/service-proxy-name`; `None`: those without any.
    pub proxy_name: Option<String>,
    /// What holds for all Services.
    pub options: Options,
    /// Where /healthz and /livez are served; `None`: nowhere.
    pub health_port: Option<u16>,
    /// Where kube-proxy's metrics are served; `None`: nowhere.
    pub metrics_port: Option<u16>,
}

impl KubernetesSpec {
    /// The name of the own Node.
    ///
    /// # Errors
    /// Nobody says it.
    pub fn node(&self) -> Result<String, String> {
        let set =
            self.node.clone().or_else(|| std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty()));
        set.ok_or_else(|| {
            "Kubernetes: the name of the own Node isn't known; set NODE_NAME in the environment (fieldRef \
             spec.nodeName), or kubernetes.node in the config file"
                .into()
        })
    }
}

/// Follow a Kubernetes cluster's Services.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawKubernetes {
    /// URLs of the API server, tried in turn; none: what the kubeconfig says, or the pod's environment.
    servers: Vec<String>,
    /// Credentials, and where the API server is; left out: the pod's service account.
    kubeconfig: Option<PathBuf>,
    /// The name of the own Node; left out: NODE_NAME in the environment.
    node: Option<String>,
    /// Only Services with this value of the label service.kubernetes.io/service-proxy-name; left out: those without
    /// the label.
    service_proxy_name: Option<String>,
    /// Which of the node's addresses have node ports: `primary`, `localhost`, `all`, prefixes.
    node_port_addresses: Vec<String>,
    /// Are externalIPs of Services served?
    external_ips: bool,
    /// Do all connections to cluster addresses get the node's address as their source?
    masquerade_all: bool,
    /// What happens to TCP packets of no known connection: `pass` while another proxy's connections go on.
    stray: Option<String>,
    /// Ways that Services may ask for by annotation: `nat`, `snat`, `dsr-l2`, `dsr-ipip`.
    forwarding_modes: Vec<String>,
    /// Port of /healthz and /livez at all addresses; 0: none.
    health_port: u16,
    /// Port of kube-proxy's metrics at 127.0.0.1; 0: none.
    metrics_port: u16,
    /// Options of Services that say nothing, by the names of their annotations: `lb-algorithm = "maglev"`.
    defaults: BTreeMap<String, String>,
}

impl Default for RawKubernetes {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            kubeconfig: None,
            node: None,
            service_proxy_name: None,
            node_port_addresses: vec!["primary".into()],
            external_ips: true,
            masquerade_all: false,
            stray: None,
            forwarding_modes: Options::default().forwarding_modes.iter().map(|m| m.name().into()).collect(),
            health_port: 10_256,
            metrics_port: 10_249,
            defaults: BTreeMap::new(),
        }
    }
}

impl RawKubernetes {
    /// # Errors
    /// A value isn't known, in words.
    pub(super) fn checked(self) -> Result<KubernetesSpec, String> {
        let empty = |key: &str, value: &Option<String>| match value.as_deref() {
            Some("") => Err(format!("kubernetes.{key} is empty; name it, or leave the key out")),
            _ => Ok(()),
        };
        empty("node", &self.node)?;
        empty("service_proxy_name", &self.service_proxy_name)?;
        let access = Access { kubeconfig: self.kubeconfig, servers: self.servers };
        access.check().map_err(|e| e.to_string())?;
        let mode =
            |text: &String| ForwardKind::parse(text).map_err(|e| format!("kubernetes.forwarding_modes: {e}"));
        let forwarding_modes: Vec<ForwardKind> =
            self.forwarding_modes.iter().map(mode).collect::<Result<_, _>>()?;
        let stray = self.stray.as_deref().map(StrayKind::parse).transpose();
        let mut options = Options {
            node_ports: NodePorts::parse(&self.node_port_addresses)
                .map_err(|e| format!("kubernetes.node_port_addresses: {e}"))?,
            external_ips: self.external_ips,
            masquerade_all: self.masquerade_all,
            stray: stray.map_err(|e| format!("kubernetes.stray: {e}"))?,
            forwarding_modes,
            ..Options::default()
        };
        for (name, text) in &self.defaults {
            let set = options.defaults.set(name, text, &options.forwarding_modes);
            set.map_err(|e| format!("kubernetes.defaults: {}", e.replace(PREFIX, "")))?;
        }
        let port = |port: u16| Some(port).filter(|port| *port != 0);
        if port(self.health_port).is_some() && self.health_port == self.metrics_port {
            return Err(format!(
                "kubernetes.health_port and kubernetes.metrics_port are both {}; choose another, or 0 for none",
                self.health_port
            ));
        }
        Ok(KubernetesSpec {
            node: self.node,
            access,
            proxy_name: self.service_proxy_name,
            options,
            health_port: port(self.health_port),
            metrics_port: port(self.metrics_port),
        })
    }
}
