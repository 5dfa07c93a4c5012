//! Services and backends of the fake agent, as the API shows them and as the stats page looks for them.

use flowpin::{
    api::types::{
        BackendView, ClusterView, CountView, ForwardDecl, FrontendView, MemberView, RebalanceView,
        ServiceDecl, ServiceView, SharedView, UnreachableView,
    },
    observe::{
        Overview,
        overview::{Entry, Totals},
    },
};

/// A backend with counters that are easy to recognise.
pub fn backend(address: &str, active: u64) -> BackendView {
    BackendView {
        backup: false,
        address: address.into(),
        host: None,
        weight: 1,
        max_connections: None,
        local: false,
        state: "active".into(),
        healthy: true,
        unchecked: false,
        one_way: false,
        health_check_failures: 0,
        last_health_check_failure: None,
        origin: "cli".into(),
        active_connections: active,
        clients: None,
        total_connections: 1_234_567,
        packets_in: 10,
        bytes_in: 1536,
        packets_out: 20,
        bytes_out: 3 * 1024 * 1024,
        oldest_seconds: None,
        drain_from: None,
        drain_seconds: None,
        drain_deadline_seconds: None,
    }
}

/// A frontend for everybody.
pub fn frontend(addresses: &[&str], ports: &[&str]) -> FrontendView {
    FrontendView {
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        ports: ports.iter().map(ToString::to_string).collect(),
        scope: "all".into(),
        source_ranges: Vec::new(),
        deny_ranges: Vec::new(),
        forward: ForwardDecl::Word("nat".into()),
    }
}

/// A service.
pub fn service(name: &str, vip: &str, backends: Vec<BackendView>) -> ServiceView {
    ServiceView {
        name: name.into(),
        vip: vip.parse().expect("an address"),
        vip_except: Default::default(),
        source_ranges: Vec::new(),
        deny_ranges: Vec::new(),
        ports: vec!["8001-8003/tcp".into()],
        frontends: vec![frontend(&[vip], &["8001-8003/tcp"])],
        stray: "reset".into(),
        algorithm: "least-connections".into(),
        origin: "cli".into(),
        active_connections: backends.iter().map(|backend| backend.active_connections).sum(),
        imbalance: None,
        short_of_quorum: None,
        warnings: Vec::new(),
        rejected: Vec::new(),
        declared: ServiceDecl::default(),
        backends,
    }
}

/// What there is to find.
pub fn overview(services: &[ServiceView]) -> Overview {
    let mut overview = Overview::default();
    for s in services {
        let totals = Totals::of(&s.backends);
        overview.totals.add(&totals);
        let backends: Vec<&str> = s.backends.iter().map(|b| b.address.as_str()).collect();
        overview.services.push(Entry {
            name: s.name.as_str().into(),
            text: format!("{} {} {}", s.name.to_lowercase(), s.vip, backends.join(" ")),
            active: totals.active_connections,
            total: totals.total_connections,
            imbalance: s.imbalance,
            unhealthy: totals.unhealthy,
            drained: totals.draining + totals.drained,
        });
    }
    overview
}

/// Nodes that share counts.
pub fn cluster() -> ClusterView {
    let member = |name: &str, itself| MemberView {
        name: name.into(),
        itself,
        address: Some("10.0.0.2:7473".into()).filter(|_| !itself),
        connected_seconds: (!itself).then_some(61.0),
        heard_seconds: (!itself).then_some(0.25),
        incoming: true,
    };
    let count = |address: &str, own, others| CountView { address: address.into(), own, others };
    ClusterView {
        cluster: "prod".into(),
        node: "node-1".into(),
        members: vec![member("node-1", true), member("node-2", false)],
        unreachable: vec![UnreachableView {
            peer: "node-3:7473".into(),
            address: None,
            why: "no such host".into(),
        }],
        aggregators: vec!["node-1".into(), "node-2".into()],
        services: vec![SharedView {
            name: "app".into(),
            owner: Some("node-2".into()),
            shared: true,
            age_seconds: Some(0.05),
            rate: 3.0,
            delay_seconds: Some(0.002),
            imbalance: Some(1.25),
            backends: vec![count("10.0.1.11", 3, Some(5)), count("10.0.1.12", 2, Some(6))],
        }],
        refused: [("certificate".to_string(), 4), ("flood".to_string(), 0)].into(),
        frames: [1_200, 900],
        bytes: [64_000, 32_000],
        certificate_problem: None,
    }
}

/// A service that is rebalanced, which waits unless it is told to begin.
pub fn rebalance(service: String, begin: bool) -> RebalanceView {
    RebalanceView {
        service,
        budget: "5%/min".into(),
        idle_seconds: 30.0,
        above: 1.2,
        owner: Some("node-2".into()),
        state: Some(if begin { "moving" } else { "waiting" }.into()),
        seconds: None,
        moved: begin.then_some(7),
        imbalance: 1.15,
        would_move: [("10.0.1.11".to_string(), 40)].into(),
        takes_seconds: Some(124.0),
    }
}
