//! Services and backends of the fake agent, as the API shows them and as the stats page looks for them.

use flowpin::{
    api::types::{BackendView, ForwardDecl, FrontendView, ServiceDecl, ServiceView},
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
        weight: 1,
        max_connections: None,
        local: false,
        state: "active".into(),
        healthy: true,
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
        ports: vec!["8001-8003/tcp".into()],
        frontends: vec![frontend(&[vip], &["8001-8003/tcp"])],
        stray: "reset".into(),
        algorithm: "least-connections".into(),
        origin: "cli".into(),
        imbalance: None,
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
