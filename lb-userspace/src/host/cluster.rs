//! A node of a Kubernetes cluster: what an operator wants to know of it before Flowpin takes kube-proxy's place.

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use super::kube_proxy::{Found, running};

/// How long the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where the kubelet has its things, and plugins theirs.
const KUBELET: &str = "/var/lib/kubelet";
const PLUGINS: &str = "/etc/cni/net.d";

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub about: &'static str,
    /// How that is.
    pub state: State,
    /// In words, with what would help.
    pub text: String,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// It may get in the way.
    Warning,
    /// It has to be mended.
    Missing,
}

const fn finding(about: &'static str, state: State, text: String) -> Finding {
    Finding { about, state, text }
}

/// Looks. `servers`: addresses of the API server, `host:port`. `interfaces`: names of the node's. Outside a cluster
/// there is nothing to be said, unless kube-proxy was there.
pub async fn look(servers: &[String], interfaces: &[String]) -> Vec<Finding> {
    let found = Found::look().await;
    let left = found.leftovers().iter().filter(|l| l.kept.is_none()).count();
    let running = running::seen(Path::new("/proc"));
    let is_node = !servers.is_empty() || Path::new(KUBELET).exists() || Path::new(PLUGINS).exists();
    let mut all = Vec::new();
    if is_node || left > 0 || running.is_some() {
        all.push(kube_proxy(running.as_deref(), running::mode().as_deref(), left, &found.modes()));
        let unknown = found.unknown.into_iter();
        all.extend(unknown.map(|why| finding("kube-proxy", State::Warning, why)));
    }
    if is_node {
        all.push(plugin(&configured(Path::new(PLUGINS)), interfaces));
        all.push(clock(is_synchronised()));
    }
    for server in servers {
        all.push(api_server(server).await);
    }
    all
}

/// It runs, or what it left.
fn kube_proxy(running: Option<&str>, mode: Option<&str>, left: usize, modes: &[&str]) -> Finding {
    let about = "kube-proxy";
    match (running, left) {
        (Some(by), _) => {
            let known = if modes.is_empty() { "unknown".into() } else { modes.join(" and ") };
            let mode = mode.map_or(known, String::from);
            let text = format!("runs ({by}), mode {mode}: it has what Flowpin doesn't serve");
            finding(about, State::Good, text)
        }
        (None, 0) => finding(about, State::Good, "doesn't run, and left nothing".into()),
        (None, left) => {
            let text = format!(
                "doesn't run, and left {left} rules and the like (mode {}), which answer for Services that are gone: \
                 flowpin cleanup kube-proxy",
                modes.join(" and ")
            );
            finding(about, State::Warning, text)
        }
    }
}

/// Network plugins by the interfaces that they make.
const BY_INTERFACE: [(&str, &str); 10] = [
    ("cilium_", "Cilium"),
    ("cali", "Calico"),
    ("vxlan.calico", "Calico"),
    ("flannel", "flannel"),
    ("kube-bridge", "kube-router"),
    ("antrea-gw", "Antrea"),
    ("ovn-k8s-mp", "OVN-Kubernetes"),
    ("weave", "Weave Net"),
    ("eni", "AWS VPC CNI"),
    ("cni", "a bridge"),
];

/// Which one it is, by what is configured (types of its chain) and by interfaces.
fn plugin(configured: &[String], interfaces: &[String]) -> Finding {
    let about = "network plugin";
    let of =
        |name: &String| BY_INTERFACE.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, p)| *p);
    let seen: BTreeSet<&str> = interfaces.iter().filter_map(of).collect();
    let seen: Vec<&str> = seen.into_iter().collect();
    let text = match (configured.is_empty(), seen.is_empty()) {
        (true, true) => {
            return finding(
                about,
                State::Warning,
                format!("none is known: nothing in {PLUGINS}, and no interface of one"),
            );
        }
        (false, true) => configured.join(", "),
        (true, false) => format!("{}, by its interfaces", seen.join(", ")),
        (false, false) => format!("{} ({})", configured.join(", "), seen.join(", ")),
    };
    if text.to_ascii_lowercase().contains("cilium") {
        let text = format!(
            "{text}: if it replaces kube-proxy, its programs see packets first; set kubeProxyReplacement=false and \
             socketLB.enabled=false there"
        );
        return finding(about, State::Warning, text);
    }
    finding(about, State::Good, text)
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    plugins: Vec<Configuration>,
}

/// Types of the plugins in the configuration that is in force: the first by name.
fn configured(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let wanted = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json")
    };
    let Some(first) = entries.filter(wanted).min() else { return Vec::new() };
    let text = std::fs::read(first).unwrap_or_default();
    let Ok(configuration) = serde_json::from_slice::<Configuration>(&text) else { return Vec::new() };
    let all = [configuration.r#type].into_iter().chain(configuration.plugins.into_iter().map(|p| p.r#type));
    all.flatten().collect()
}

/// Tokens and certificates are valid for a time.
fn clock(synchronised: bool) -> Finding {
    let (state, text) = match synchronised {
        true => (State::Good, "synchronised"),
        false => (
            State::Warning,
            "not synchronised, as far as the kernel knows: tokens and certificates may seem to be invalid. Start chrony or \
             systemd-timesyncd",
        ),
    };
    finding("clock", state, text.into())
}

fn is_synchronised() -> bool {
    // SAFETY: plain data, of which zeros are valid; with modes 0 nothing is changed (adjtimex(2)).
    let state = unsafe {
        let mut now: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut now)
    };
    state >= 0 && state != libc::TIME_ERROR
}

async fn api_server(server: &str) -> Finding {
    let about = "API server";
    match timeout(PATIENCE, TcpStream::connect(server)).await {
        Ok(Ok(_)) => finding(about, State::Good, format!("{server} answers")),
        Ok(Err(e)) => finding(about, State::Missing, format!("{server}: {e}")),
        Err(_) => {
            let text = format!(
                "{server} doesn't answer within {} s; is it an address of a Service?",
                PATIENCE.as_secs()
            );
            finding(about, State::Missing, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_kube_proxy() {
        for (running, mode, left, modes, state, part) in [
            (None, None, 0, &[][..], State::Good, "left nothing"),
            (None, None, 7, &["nftables"][..], State::Warning, "left 7 rules and the like (mode nftables)"),
            (
                Some("process kube-proxy (pid 7)"),
                Some("ipvs"),
                7,
                &["iptables"][..],
                State::Good,
                "(pid 7)), mode ipvs",
            ),
            (Some("it"), None, 7, &["iptables", "ipvs"][..], State::Good, "mode iptables and ipvs"),
            (Some("it"), None, 0, &[][..], State::Good, "mode unknown"),
        ] {
            let said = kube_proxy(running, mode, left, modes);
            assert!(said.state == state && said.text.contains(part), "{part}: {said:?}");
        }
    }

    #[test]
    fn a_plugin_is_known_by_its_files_and_its_interfaces() {
        for (files, interfaces, state, text) in [
            (&[][..], &["lo", "eth0"][..], State::Warning, "none is known"),
            (
                &[(
                    "10-flannel.conflist",
                    r#"{"name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}"#,
                )],
                &["flannel.1", "cni0"],
                State::Good,
                "flannel, portmap (a bridge, flannel)",
            ),
            (
                &[
                    ("20-b.conf", r#"{"type": "bridge"}"#),
                    ("30-c.conf", r#"{"type": "calico"}"#),
                    ("10-x.bak", "{}"),
                ],
                &[],
                State::Good,
                "bridge",
            ),
            (&[], &["cali1234", "eth0"], State::Good, "Calico, by its interfaces"),
            (&[], &["cilium_host"], State::Warning, "kubeProxyReplacement=false"),
            (&[("a.conf", "no JSON")], &["cni0"], State::Good, "a bridge, by its interfaces"),
        ] {
            let dir = tempfile::TempDir::new().unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
            let interfaces: Vec<String> = interfaces.iter().map(ToString::to_string).collect();
            let said = plugin(&configured(dir.path()), &interfaces);
            assert!(said.state == state && said.text.contains(text), "{text}: {said:?}");
        }
    }
}
