//! Services whose new clients are refused, since there is no backend that could take them: said while it is so.

use super::State;
use crate::{
    api::types::WarningView,
    model::{Origin, ServiceSpec, frontend::family},
};

/// Services that are named, at most.
const NAMED: usize = 20;

/// What is said of them. Of a quorum that isn't met another warning speaks, and the status has hosts without addresses
/// among its problems.
pub(super) fn warnings(state: &State) -> Vec<WarningView> {
    let services = state.desired.services().values();
    let unserved = services.filter_map(|spec| {
        let healthy = |backend: &str| state.health.of(&spec.name, backend).healthy;
        let (text, remedy) = unserved(spec, healthy)?;
        Some(WarningView { about: "no backend".into(), text, remedy })
    });
    let mut warnings: Vec<WarningView> = unserved.collect();
    let more = warnings.len().saturating_sub(NAMED);
    warnings.truncate(NAMED);
    if more > 0 {
        warnings.push(WarningView {
            about: "no backend".into(),
            text: format!("{more} more services have nobody for new clients"),
            remedy: "see flowpin backend list".into(),
        });
    }
    warnings
}

/// That a service has nobody for new clients of an IP version of which it has backends, or of any; and what helps.
/// `None`: it has, or a cluster says that it has no backend, which is the cluster's to know.
fn unserved(spec: &ServiceSpec, healthy: impl Fn(&str) -> bool) -> Option<(String, String)> {
    let name = &spec.name;
    if spec.backends.is_empty() {
        let ours = spec.origin != Origin::Kubernetes && spec.hosts.is_empty();
        let text = || format!("service \"{name}\" has no backend: new clients are refused");
        return ours.then(|| (text(), format!("add one with flowpin backend add {name} ADDRESS")));
    }
    let open = || spec.backends.iter().filter(|(_, backend)| backend.takes_new());
    let ignored = spec.health.as_ref().is_some_and(|checks| checks.panic > 0);
    if spec.short_of_quorum(&healthy).is_some()
        || (ignored && open().next().is_some() && !open().any(|(name, _)| healthy(name)))
    {
        return None;
    }
    let said = |v6: bool| {
        let of_version = || spec.backends.iter().filter(move |(_, backend)| backend.address.is_ipv6() == v6);
        let some = of_version().next().is_some();
        let served = of_version().any(|(name, backend)| backend.takes_new() && healthy(name));
        (some && !served).then(|| {
            let family = family(v6);
            if of_version().any(|(_, backend)| backend.takes_new()) {
                let text = format!("service \"{name}\" has no healthy {family} backend: new clients are refused");
                (text, format!("see why with flowpin service show {name}"))
            } else {
                let text = format!(
                    "all {family} backends of service \"{name}\" are drained, or of weight 0: new clients are refused"
                );
                (text, format!("take a drain back with flowpin backend undrain {name} ADDRESS, or add a backend"))
            }
        })
    };
    [false, true].into_iter().find_map(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AdminState, Frontend, service::make_backend};

    fn service(weights: &[i64]) -> ServiceSpec {
        let addresses = vec!["10.96.0.1".parse().expect("an address")];
        let ports = vec!["80/tcp".parse().expect("a port")];
        let frontend = Frontend { addresses, ports, ..Frontend::default() };
        let mut service = ServiceSpec::new("s", vec![frontend], Origin::Cli);
        for (i, weight) in weights.iter().enumerate() {
            let address = format!("10.0.0.{i}:80");
            let made = make_backend("s", &address, Some(*weight), None, false, Origin::Cli);
            service.add(made.expect("a backend")).expect("room for it");
        }
        service
    }

    fn said(spec: &ServiceSpec, healthy: impl Fn(&str) -> bool) -> String {
        unserved(spec, healthy).map(|(text, _)| text).unwrap_or_default()
    }

    #[test]
    fn who_refuses_everybody_is_named() {
        assert!(said(&service(&[]), |_| true).contains("\"s\" has no backend"));
        assert!(said(&service(&[1, 1]), |_| false).contains("no healthy IPv4 backend"));
        assert_eq!(said(&service(&[1, 1]), |name| name == "10.0.0.1:80"), "");
        assert!(said(&service(&[0, 0]), |_| true).contains("drained, or of weight 0"));
        let mut drained = service(&[1]);
        let since = std::time::Duration::ZERO;
        drained.backends.values_mut().for_each(|b| b.admin = AdminState::Draining { since, deadline: None });
        assert!(said(&drained, |_| true).contains("drained"));
    }

    #[test]
    fn what_is_said_elsewhere_isnt_said_twice() {
        let mut none = service(&[]);
        none.origin = Origin::Kubernetes;
        assert_eq!(said(&none, |_| true), "");
        let short = ServiceSpec { quorum: 2, ..service(&[1, 1]) };
        assert_eq!(said(&short, |_| false), "");
    }
}
