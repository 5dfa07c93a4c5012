//! Answers to load balancers and kubelets, as kube-proxy gives them (pkg/proxy/healthcheck of Kubernetes).

use std::time::{Instant, SystemTime};

use humantime::format_rfc3339_nanos;
use serde_json::json;

use super::ClusterState;

/// Status and body.
pub type Answer = (u16, String);

/// `/healthz` and `/livez` of the node: is what is to be in force in force; `/healthz`: and is the node to stay?
pub fn node(state: Option<&ClusterState>, eligible: bool, families: &[&str], now: SystemTime) -> Answer {
    let healthy = state.is_none_or(|state| state.is_healthy(Instant::now()));
    let stays = state.and_then(|state| state.node_stays).unwrap_or(false);
    let good = healthy && (!eligible || stays);
    let updated = state.map_or(now, |state| state.updated);
    let last = format_rfc3339_nanos(if good { now } else { updated }).to_string();
    let of_family = |family: &&str| {
        let updated = format_rfc3339_nanos(updated).to_string();
        (family.to_string(), json!({"lastUpdated": updated, "healthy": healthy}))
    };
    let status: serde_json::Map<_, _> = families.iter().map(of_family).collect();
    let current = format_rfc3339_nanos(now).to_string();
    let mut body = json!({"lastUpdated": last, "currentTime": current, "healthy": healthy, "status": status});
    if eligible {
        body["nodeEligible"] = stays.into();
    }
    (if good { 200 } else { 503 }, body.to_string())
}

/// What a load balancer is told of a Service: how many of its endpoints are on this node, and ready.
pub fn service(key: &str, local: usize, healthy: bool) -> Answer {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    (if local > 0 && healthy { 200 } else { 503 }, body)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    #[test]
    fn z1_a_node_that_goes_is_alive() {
        let mut state = ClusterState::new("me".into());
        let now = SystemTime::now();
        let ask = |state: &ClusterState, eligible| {
            let (code, body) = node(Some(state), eligible, &["IPv4"], now);
            (code, serde_json::from_str::<Value>(&body).unwrap())
        };
        for (stays, late, healthz, livez) in [
            (None, false, 503, 200),
            (Some(true), false, 200, 200),
            (Some(false), false, 503, 200),
            (Some(true), true, 503, 503),
        ] {
            state.node_stays = stays;
            state.waits_since = late.then(|| Instant::now().checked_sub(Duration::from_secs(61)).unwrap());
            let (code, body) = ask(&state, true);
            assert_eq!((code, &body["nodeEligible"]), (healthz, &stays.unwrap_or(false).into()), "{body}");
            assert_eq!(
                (&body["healthy"], &body["status"]["IPv4"]["healthy"]),
                (&(!late).into(), &(!late).into())
            );
            assert!(body["lastUpdated"].is_string() && body["currentTime"].is_string());
            let (code, body) = ask(&state, false);
            assert_eq!((code, body.get("nodeEligible")), (livez, None), "{body}");
        }
        state.waits_since = Some(Instant::now());
        assert_eq!(ask(&state, true).0, 200, "it isn't late yet");
    }

    #[test]
    fn h4_the_body_is_kube_proxys() {
        let wanted = "{\n\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"svc\"\n\t},\n\t\"localEndpoints\": 2,\n\
                      \t\"serviceProxyHealthy\": true\n}";
        assert_eq!(service("ns/svc", 2, true), (200, wanted.into()));
        assert_eq!(service("ns/svc", 0, true).0, 503);
        assert_eq!(service("ns/svc", 2, false).0, 503);
    }
}
