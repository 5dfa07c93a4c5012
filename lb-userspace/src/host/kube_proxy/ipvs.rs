//! What IPVS mode has besides rules of iptables: a device with the services' addresses, and sets of addresses.

use std::path::Path;

use super::{Kind, Leftover, names};
use crate::host::tool;

/// What there is.
#[derive(Debug, Default)]
pub struct Ipvs {
    sets: Vec<String>,
    device: bool,
    /// Virtual servers of anybody's.
    servers: usize,
}

impl Ipvs {
    /// Looks.
    ///
    /// # Errors
    /// There may be sets, and their tool is missing or fails.
    pub async fn look() -> Result<Self, String> {
        let device = Path::new("/sys/class/net").join(names::DEVICE).exists();
        let servers = std::fs::read_to_string("/proc/net/ip_vs").map_or(0, |text| servers(&text));
        // Without the device there was no such mode, or it is cleared away: then nobody needs the tool.
        let sets = match tool::run("ipset", &["list", "-n"], "").await {
            Ok(text) => text.lines().map(str::trim).filter(|n| names::is_set(n)).map(String::from).collect(),
            Err(why) if device => return Err(format!("{why}: sets of IPVS mode aren't known")),
            Err(_) => Vec::new(),
        };
        Ok(Self { sets, device, servers })
    }

    /// Nothing?
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && !self.device
    }

    /// All of it.
    pub fn leftovers(&self) -> impl Iterator<Item = Leftover> {
        let of = |tool: &str, kind, name: &str| Leftover {
            tool: tool.into(),
            table: None,
            kind,
            name: name.into(),
            kept: None,
        };
        let device = self.device.then(|| of("ip", Kind::Interface, names::DEVICE));
        device.into_iter().chain(self.sets.iter().map(move |set| of("ipset", Kind::Set, set)))
    }

    /// Virtual servers are left to the operator: whose they are can't be told.
    pub fn note(&self) -> Option<String> {
        (self.servers > 0 && !self.is_empty()).then(|| {
            format!(
                "IPVS has {} virtual servers, which stay: some may be another's. \"ipvsadm --clear\" removes all",
                self.servers
            )
        })
    }

    /// Removes it; what failed.
    pub async fn remove(&self) -> Vec<String> {
        let mut failed = Vec::new();
        if self.device {
            failed
                .extend(tool::run("ip", &["link", "delete", names::DEVICE, "type", "dummy"], "").await.err());
        }
        for set in &self.sets {
            failed.extend(tool::run("ipset", &["destroy", set], "").await.err());
        }
        failed
    }
}

/// In `/proc/net/ip_vs`: lines of servers begin with a protocol, those of their backends with an arrow.
fn servers(text: &str) -> usize {
    let first =
        |line: &str| line.split(' ').next().is_some_and(|w| matches!(w, "TCP" | "UDP" | "SCTP" | "FWM"));
    text.lines().filter(|line| first(line)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_servers_are_counted() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> \
                    RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A60000A:0050 rr\n  -> 0A020002:0050      \
                    Masq    1      0          0\nUDP  0A60000A:0035 rr\n";
        assert_eq!(servers(text), 2);
        let some = |sets: &[&str], device, servers| Ipvs {
            sets: sets.iter().map(ToString::to_string).collect(),
            device,
            servers,
        };
        assert!(some(&["KUBE-CLUSTER-IP"], true, 2).note().unwrap().contains("2 virtual servers"));
        assert_eq!(some(&[], false, 2).note(), None, "nothing of kube-proxy's");
        assert_eq!(some(&["KUBE-CLUSTER-IP"], true, 0).leftovers().count(), 2);
    }
}
