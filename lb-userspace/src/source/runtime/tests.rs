use super::*;
use crate::{
    model::{AlgorithmKind, ForwardKind, Forwarding, Origin},
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
                deny_ranges: Some(vec!["198.51.100.0/24".into()]),
                forward: Some(ForwardDecl::BySource(ForwardBySource {
                    pod: None,
                    elsewhere: Some("snat".into()),
                })),
            }],
            ..ServiceDecl::default()
        },
    );
    let backend =
        BackendDecl { weight: Some(2), max_connections: Some(9), local: true, ..BackendDecl::default() };
    state.backends.entry("app".into()).or_default().insert("10.0.0.1".into(), backend);
    let drain = RuntimeDrain::begin(Some(60));
    state.drains.entry("app".into()).or_default().insert("10.0.0.1".into(), drain);
    state
}

#[test]
fn survives_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/state.json");
    assert_eq!(Runtime::load(&path).unwrap(), Runtime::default());
    let sample = sample();
    sample.save(&path).unwrap();
    assert_eq!(Runtime::load(&path).unwrap(), sample);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn half_a_file_is_kept_aside_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    let sample = sample();
    sample.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let half = &whole[..whole.len() / 2];
    std::fs::write(&path, half).unwrap();
    let why = Runtime::load(&path).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), half, "reading changes nothing");
    let report = sample.put_aside(&path, &why).unwrap();
    assert_eq!(Runtime::load(&path).unwrap(), sample);
    let aside = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = aside.filter(|other| *other != path).collect();
    assert_eq!(std::fs::read(&aside[0]).unwrap(), half);
    assert!(aside.len() == 1 && report.contains(aside[0].to_str().unwrap()), "{report}");
}

#[test]
fn a_file_that_is_torn_anywhere_is_not_taken_for_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    let sample = sample();
    sample.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    // The last byte only ends the line.
    for at in 0..whole.len() - 1 {
        let mut torn = whole[..at].to_vec();
        std::fs::write(&path, &torn).unwrap();
        assert!(Runtime::load(&path).is_err(), "cut at {at}");
        // As some file systems leave what was not yet written.
        torn.resize(whole.len(), 0);
        std::fs::write(&path, &torn).unwrap();
        assert!(Runtime::load(&path).is_err(), "zeros from {at}");
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(Runtime::load(&path).unwrap(), sample);
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    // Nothing that can be renamed to.
    std::fs::create_dir(&path).unwrap();
    let error = sample().save(&path).unwrap_err().to_string();
    assert!(error.contains("state.json") && error.contains("directory"), "{error}");
    assert!(Runtime::load(&path).unwrap_err().contains("directory"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn another_version_is_not_guessed_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    std::fs::write(&path, r#"{"version":9,"services":{},"backends":{},"drains":{},"more":1}"#).unwrap();
    assert!(Runtime::load(&path).unwrap_err().contains("version 9 is not 1"));
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
    let state = Runtime::load(&path).unwrap();
    let spec = state.services["app"].spec("app", Origin::Cli).unwrap();
    assert_eq!(spec.algorithm, AlgorithmKind::ConsistentHash);
    assert_eq!(spec.affinity.unwrap().bound, Some(7));
    assert_eq!(spec.frontends[0].forward, Forwarding::all(ForwardKind::Nat));
    assert!(!state.backends["app"]["10.0.0.1"].local);
}
