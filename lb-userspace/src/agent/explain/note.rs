//! What is said of a backend beside the figures that decide.

use crate::model::{AdminState, ServiceSpec};

/// Why a backend takes no new connections; empty if it does.
pub(super) fn note(
    spec: &ServiceSpec,
    backend: &str,
    healthy: impl Fn(&str) -> bool,
    full: bool,
    weight: u32,
) -> String {
    let Some(own) = spec.backends.get(backend) else { return "removed; keeps what it has".into() };
    if matches!(own.admin, AdminState::Draining { .. }) {
        "draining".into()
    } else if !healthy(backend) {
        "unhealthy".into()
    } else if !own.backup && !spec.meets_quorum(own.address.is_ipv6(), &healthy) {
        "healthy, but the service's quorum isn't met".into()
    } else if full {
        "full: it has max_connections".into()
    } else if weight == 0 && own.backup {
        "backup: used when no other takes any".into()
    } else if weight == 0 {
        "its weight is 0".into()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frontend, Origin, service::make_backend};

    #[test]
    fn who_takes_nothing_is_told_why() {
        let addresses = vec!["10.96.0.1".parse().expect("an address")];
        let ports = vec!["80/tcp".parse().expect("a port")];
        let frontend = Frontend { addresses, ports, ..Frontend::default() };
        let mut spec = ServiceSpec::new("s", vec![frontend], Origin::Cli);
        for (address, weight) in [("10.0.0.1", 1), ("10.0.0.2", 0), ("10.0.0.3", 1)] {
            let made = make_backend("s", address, Some(weight), None, false, Origin::Cli);
            let mut made = made.expect("a backend");
            made.backup = address == "10.0.0.3";
            spec.add(made).expect("room for it");
        }
        let said = |backend, healthy: bool, full, weight| note(&spec, backend, |_| healthy, full, weight);
        assert_eq!(said("10.0.0.1", true, false, 1), "");
        assert_eq!(said("10.0.0.1", true, true, 1), "full: it has max_connections");
        assert_eq!(said("10.0.0.2", true, false, 0), "its weight is 0");
        assert_eq!(said("10.0.0.3", true, false, 0), "backup: used when no other takes any");
        assert_eq!(said("10.0.0.3", true, false, 1), "", "it is used");
        assert_eq!(said("10.0.0.3", false, false, 0), "unhealthy");
    }
}
