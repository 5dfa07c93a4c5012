//! What is declared of a service without effect.

use super::{Protocol, ServiceSpec, frontend::family};

impl ServiceSpec {
    /// What is declared and has no effect, or none as things are; for people, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut ports = self.frontends.iter().flat_map(|frontend| &frontend.ports);
        if ports.all(|range| range.protocol() == Protocol::Udp) {
            let never = |name| format!("timeouts.{name} is TCP's, and the service has no TCP port");
            warnings.extend(self.timeouts.only_tcp().map(never));
        }
        for v6 in [false, true] {
            let backend = self.backends.values().any(|backend| backend.address.is_ipv6() == v6);
            let waits = self.backends.is_empty() || self.unresolved().next().is_some();
            if self.has_family(v6) && !backend && !waits {
                let family = family(v6);
                warnings.push(format!("no backend is {family}; its {family} addresses refuse connections"));
            }
        }
        warnings.extend(self.quorum_out_of_reach());
        warnings
    }
}
