//! Services whose backends answer past the node: what they can't have, and where clients' packets reach a backend.

use std::net::SocketAddr;

use super::{BackendSpec, Frontend, ModelError, Protocol, ServiceSpec};

/// Addresses of a service that a backend is checked at.
const AT_MOST: usize = 16;

/// Where a backend has to answer, since clients' packets reach it as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectVip {
    /// The VIP, and a TCP port of its.
    pub at: SocketAddr,
    /// Is the packet put in another one? Else it goes to the backend's MAC address.
    pub tunnel: bool,
}

impl ServiceSpec {
    /// Where a backend is checked as clients come: at each address of its IP version from which it answers past the
    /// node, at the port that checks have if that is the service's, or else at the first. None without TCP, or checks.
    pub fn direct_vips(&self, backend: &BackendSpec) -> Vec<DirectVip> {
        let Some(health) = &self.health else { return Vec::new() };
        let v6 = backend.address.is_ipv6();
        let of = |frontend: &Frontend| -> Vec<DirectVip> {
            let mut ranges = frontend.ports.iter().filter(|range| range.protocol() == Protocol::Tcp);
            let asked = health.port.filter(|port| ranges.clone().any(|range| range.contains(*port)));
            let Some(port) = asked.or_else(|| ranges.next().map(|range| range.first())) else {
                return Vec::new();
            };
            let vips = frontend.named().filter(|vip| vip.is_ipv6() == v6 && !vip.is_loopback());
            let ways = frontend.forward.direct_ways();
            vips.flat_map(|vip| {
                ways.clone().map(move |tunnel| DirectVip { at: SocketAddr::new(vip, port), tunnel })
            })
            .collect()
        };
        self.frontends.iter().flat_map(of).take(AT_MOST).collect()
    }

    /// What can't be where backends answer past the node.
    pub(super) fn validate_direct(&self) -> Result<(), ModelError> {
        let direct = || self.frontends.iter().filter_map(|f| Some((f, f.forward.direct()?)));
        let Some((_, kind)) = direct().next() else { return Ok(()) };
        let (service, forward) = (self.name.clone(), kind.name());
        if self.timeouts.backend_response.is_some() {
            return Err(ModelError::DirectTimeout { service, timeout: "backend_response", forward });
        }
        Ok(())
    }

    /// A backend of a service whose backends answer past the node names no port, unless that is the service's own, said twice.
    pub(super) fn check_direct(&self, backend: &str, port: Option<u16>) -> Result<(), ModelError> {
        let direct = || self.frontends.iter().filter_map(|f| Some((f, f.forward.direct()?)));
        let (Some((_, kind)), Some(port)) = (direct().next(), port) else { return Ok(()) };
        let mut ports = direct().flat_map(|(frontend, _)| &frontend.ports);
        if ports.all(|range| range.first() == port && range.last() == port) {
            return Ok(());
        }
        let (service, forward) = (self.name.clone(), kind.name());
        Err(ModelError::DirectPort { service, backend: backend.into(), forward })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::config;

    /// Where the first backend of the first service is checked as clients come.
    fn checked_at(service: &str) -> Vec<String> {
        let text = format!("[[service]]\nname = \"s\"\n{service}");
        let config = config::parse(&text, "test").expect("a config");
        let spec = config.services[0].spec.as_ref().expect("a service");
        let vips = spec.direct_vips(spec.backends.values().next().expect("a backend"));
        let shown = |vip: &DirectVip| format!("{} {}", vip.at, if vip.tunnel { "tunnel" } else { "segment" });
        vips.iter().map(shown).collect()
    }

    const V4: &str = "[[service.backend]]\naddress = \"10.2.0.2\"\n";
    const V6: &str = "[[service.backend]]\naddress = \"fd02::2\"\n";
    const TCP: &str = "health = { type = \"tcp\" }\n";

    #[test]
    fn a_backend_is_checked_at_each_vip_of_its_ip_version() {
        let both = "vips = [\"10.96.0.1\", \"fd96::1\", \"10.96.0.2\"]\nports = [\"53/udp\", \"80-90/tcp\", \"443/tcp\"]\n";
        let l2 = "forward = \"dsr-l2\"\n";
        let at = |more: &str| checked_at(&format!("{both}{l2}{more}"));
        assert_eq!(at(&format!("{TCP}{V4}")), ["10.96.0.1:80 segment", "10.96.0.2:80 segment"]);
        assert_eq!(at(&format!("{TCP}{V6}")), ["[fd96::1]:80 segment"]);
        assert_eq!(at(V4), [""; 0], "without checks");
        let port = |port| format!("health = {{ type = \"http\", port = {port} }}\n{V6}");
        assert_eq!(at(&port(85)), ["[fd96::1]:85 segment"], "a port of the service's");
        assert_eq!(at(&port(8008)), ["[fd96::1]:80 segment"], "one that clients never come to");
        let tunnel = format!("{both}forward = \"dsr-ipip\"\n{TCP}{V6}");
        assert_eq!(checked_at(&tunnel), ["[fd96::1]:80 tunnel"]);
    }

    #[test]
    fn only_what_is_direct_and_tcp_is_checked_at_vips() {
        let vip = "vip = \"10.96.0.1\"\n";
        let of = |ports: &str, forward: &str| {
            checked_at(&format!("{vip}ports = [{ports}]\nforward = {forward}\n{TCP}{V4}"))
        };
        assert_eq!(of("\"80/tcp\"", "\"nat\""), [""; 0]);
        assert_eq!(of("\"80/tcp\"", "\"snat\""), [""; 0]);
        assert_eq!(of("\"80/tcp\"", "{ pod = \"nat\", elsewhere = \"dsr-ipip\" }"), ["10.96.0.1:80 tunnel"]);
        assert_eq!(
            of("\"80/tcp\"", "{ pod = \"dsr-l2\", elsewhere = \"dsr-ipip\" }"),
            ["10.96.0.1:80 tunnel", "10.96.0.1:80 segment"]
        );
        let udp =
            format!("{vip}ports = [\"53/udp\"]\nforward = \"dsr-l2\"\nhealth = {{ type = \"udp\" }}\n{V4}");
        assert_eq!(checked_at(&udp), [""; 0]);
    }
}
