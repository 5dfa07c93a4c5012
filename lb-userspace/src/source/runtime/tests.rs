use super::*;
use crate::{
    model::{AlgorithmKind, ForwardKind, Forwarding},
    source::decl::{AffinityDecl, ForwardBySource, ForwardDecl, FrontendDecl},
};

fn sample() -> Runtime {
    let mut state = Runtime::default();
    state.services.insert(
        "app".into(),
        ServiceDecl {
            vip: Some("10.96.0.10".into()),
            source_ranges: vec!["10.0.0.0/8".into()],
            ports: vec!["80/tcp".into()],
            algorithm: Some("least-connections".into()),
            affinity: Some(AffinityDecl { by: Some("port".into()), ..AffinityDecl::default() }),
            frontends: vec![FrontendDecl {
                addresses: vec!["0.0.0.0".into()],
                ports: Some(vec!["30080:80/tcp".into()]),
                scope: Some("local".into()),
                source_ranges: Some(Vec::new()),
                forward: Some(ForwardDecl::BySource(ForwardBySource {
                    pod: None,
                    elsewhere: Some("snat".into()),
                })),
            }],
            ..ServiceDecl::default()
        },
    );
    let backend = RuntimeBackend { weight: 2, max_connections: Some(9), local: true };
    state.backends.entry("app".into()).or_default().insert("10.0.0.1".into(), backend);
    let drain = RuntimeDrain { since: 1.5, deadline: Some(60) };
    state.drains.entry("app".into()).or_default().insert("10.0.0.1".into(), drain);
    state
}

#[test]
fn survives_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/state.json");
    assert_eq!(Runtime::load(&path).unwrap(), (Runtime::default(), None));
    sample().save(&path).unwrap();
    assert_eq!(Runtime::load(&path).unwrap(), (sample(), None));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn half_a_file_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    sample().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let (state, report) = Runtime::load(&path).unwrap();
    assert_eq!(state, Runtime::default());
    let report = report.expect("must be reported");
    let aside = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    assert!(report.contains(aside.to_str().unwrap()), "{report}");
    assert_eq!(std::fs::read(&aside).unwrap(), &whole[..whole.len() / 2]);
}

#[test]
fn another_version_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    std::fs::write(&path, r#"{"version":9,"services":{},"backends":{},"drains":{}}"#).unwrap();
    assert!(Runtime::load(&path).unwrap().1.unwrap().contains("version 9 is not 1"));
}

#[test]
fn forgetting() {
    let mut state = sample();
    state.forget_backend("app", "10.0.0.1");
    assert!(state.backends.is_empty() && state.drains.is_empty());
    state.forget_service("app");
    assert_eq!(state, Runtime::default());
}

#[test]
fn what_earlier_versions_wrote_is_read() {
    let text = r#"{"version": 1, "services": {"app": {
        "vip": "10.96.0.10", "vip_except": ["10.0.0.9"], "source_ranges": ["10.0.0.0/8"], "ports": ["80/tcp"],
        "algorithm": "consistent-hash", "affinity": {"timeout": "1h", "group": "g", "ipv6_prefix": null, "bound": 7}}},
        "backends": {"app": {"10.0.0.1": {"weight": 2, "max_connections": null}}}, "drains": {}}"#;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    std::fs::write(&path, text).unwrap();
    let (state, report) = Runtime::load(&path).unwrap();
    assert_eq!(report, None);
    let spec = state.services["app"].spec("app", false).unwrap();
    assert_eq!(spec.algorithm, AlgorithmKind::ConsistentHash);
    assert_eq!(spec.affinity.unwrap().bound, Some(7));
    assert_eq!(spec.frontends[0].forward, Forwarding::all(ForwardKind::Nat));
    assert!(!state.backends["app"]["10.0.0.1"].local);
}
