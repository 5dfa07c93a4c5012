//! An agent without a kernel: the real API server on a socket in a temporary directory, over a service list in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use flowpin::{
    api::{
        control::Control,
        error::ApiError,
        types::{
            BackendDecl, BackendView, Candidate, Closed, ClusterView, ConnectionClose, ConnectionFilter,
            ConnectionQuery, ConnectionView, Deed, Detach, DetachedView, Drain, EndpointView, EndpointsView,
            EventQuery, EventView, EverywhereView, ExplainQuery, ExplainView, InterfaceView, NodeBackendView,
            Patch, RebalanceView, ServiceDecl, ServiceView, StatsView, StatusView, Task, WarningView,
        },
    },
    datapath::Clock,
    observe::{
        Overview,
        metrics::{Figures, Node, Page},
        overview::Shown,
    },
    source::decl::patch,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use crate::views;
pub use crate::{
    running::Agent,
    views::{backend, frontend, service},
};

/// What the fake knows, and how it misbehaves.
#[derive(Default)]
pub struct World {
    /// Services.
    pub services: Vec<ServiceView>,
    /// What is wrong.
    pub problems: Vec<String>,
    /// Connections that end between one question for a service and the next.
    pub ending: u64,
    /// The last list asked for.
    pub query: Option<ConnectionQuery>,
    /// The last request to close.
    pub close: Option<ConnectionClose>,
    /// The last service asked to be added.
    pub added: Option<ServiceDecl>,
    /// The last change asked for, of a service or a backend.
    pub change: Option<Patch>,
    /// The last drain.
    pub drain: Option<Drain>,
    /// Someone undrains between two questions.
    pub undrained_meanwhile: bool,
    /// One of the other nodes doesn't answer.
    pub silent: bool,
}

/// The world behind the API.
#[derive(Clone, Default)]
pub struct Fake(pub Arc<Mutex<World>>);

fn missing(what: &str, name: &str) -> ApiError {
    ApiError::NotFound(format!("there is no {what} \"{name}\""))
}

impl World {
    fn backend(&mut self, service: &str, backend: &str) -> Result<&mut BackendView, ApiError> {
        let found = self
            .services
            .iter_mut()
            .find(|s| s.name == service)
            .ok_or_else(|| missing("service", service))?;
        found.backends.iter_mut().find(|b| b.address == backend).ok_or_else(|| missing("backend", backend))
    }

    /// Lets time pass: draining backends lose connections.
    fn pass(&mut self) {
        for b in self.services.iter_mut().flat_map(|s| &mut s.backends).filter(|b| b.state == "draining") {
            b.active_connections = b.active_connections.saturating_sub(self.ending);
            b.drain_deadline_seconds = b.drain_deadline_seconds.map(|s| s - 1.0);
            if self.undrained_meanwhile {
                b.state = "active".into();
            } else if b.active_connections == 0 {
                b.state = "drained".into();
            }
        }
    }
}

impl Fake {
    pub fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().expect("no test panics while it looks")
    }
}

impl Control for Fake {
    async fn services(&self) -> Result<Vec<ServiceView>, ApiError> {
        Ok(self.world().services.clone())
    }
    async fn service(&self, name: String) -> Result<ServiceView, ApiError> {
        let mut world = self.world();
        world.pass();
        world.services.iter().find(|s| s.name == name).cloned().ok_or_else(|| missing("service", &name))
    }
    async fn add_service(&self, add: ServiceDecl) -> Result<ServiceView, ApiError> {
        let mut world = self.world();
        let decl = &add;
        let vip = decl.vip.clone().unwrap_or_default();
        let address = vip.parse().map_err(|_| ApiError::Invalid(format!("\"{vip}\" is not an address")))?;
        if world.services.iter().any(|s| s.name == add.name) {
            return Err(ApiError::Conflict(format!("service \"{}\" exists", add.name)));
        }
        let ports: Vec<&str> = decl.ports.iter().map(String::as_str).collect();
        let view = ServiceView {
            vip: address,
            ports: decl.ports.clone(),
            frontends: vec![frontend(&[&vip], &ports)],
            algorithm: decl.algorithm.clone().unwrap_or_default(),
            ..service(&add.name, "10.0.0.1", decl.backends.iter().map(|b| backend(&b.address, 0)).collect())
        };
        world.added = Some(add);
        world.services.push(view.clone());
        Ok(view)
    }
    async fn set_service(&self, name: String, change: Patch) -> Result<ServiceView, ApiError> {
        let mut world = self.world();
        let found =
            world.services.iter_mut().find(|s| s.name == name).ok_or_else(|| missing("service", &name))?;
        found.declared = patch::service(&name, &found.declared, &change).map_err(ApiError::Invalid)?;
        let view = found.clone();
        world.change = Some(change);
        Ok(view)
    }
    async fn remove_service(&self, name: String) -> Result<(), ApiError> {
        let mut world = self.world();
        let at =
            world.services.iter().position(|s| s.name == name).ok_or_else(|| missing("service", &name))?;
        world.services.remove(at);
        Ok(())
    }
    async fn add_backend(&self, service: String, add: BackendDecl) -> Result<BackendView, ApiError> {
        let weight = add.weight.unwrap_or(1);
        let weight = u16::try_from(weight)
            .map_err(|_| ApiError::Invalid(format!("weight {weight} is out of range; use 1 to 65535")))?;
        let limit = add.max_connections.and_then(|n| u32::try_from(n).ok());
        let view =
            BackendView { weight, max_connections: limit, local: add.local, ..backend(&add.address, 0) };
        let mut world = self.world();
        let found = world.services.iter_mut().find(|s| s.name == service);
        found.ok_or_else(|| missing("service", &service))?.backends.push(view.clone());
        Ok(view)
    }
    async fn set_backend(
        &self,
        service: String,
        backend: String,
        change: Patch,
    ) -> Result<BackendView, ApiError> {
        let mut world = self.world();
        let found = world.backend(&service, &backend)?;
        if let Some(weight) = change.get("weight") {
            found.weight = weight.as_u64().map_or(1, |weight| weight.try_into().expect("a weight"));
        }
        let view = found.clone();
        world.change = Some(change);
        Ok(view)
    }
    async fn remove_backend(&self, service: String, backend: String) -> Result<(), ApiError> {
        let mut world = self.world();
        world.backend(&service, &backend)?;
        world
            .services
            .iter_mut()
            .for_each(|s| s.backends.retain(|b| s.name != service || b.address != backend));
        Ok(())
    }
    async fn drain(&self, service: String, backend: String, drain: Drain) -> Result<BackendView, ApiError> {
        let mut world = self.world();
        let found = world.backend(&service, &backend)?;
        found.state = if found.active_connections == 0 { "drained" } else { "draining" }.into();
        found.drain_deadline_seconds = drain.deadline_seconds.map(|s| s as f64);
        let view = found.clone();
        world.drain = Some(drain);
        Ok(view)
    }
    async fn undrain(&self, service: String, backend: String) -> Result<BackendView, ApiError> {
        let mut world = self.world();
        let found = world.backend(&service, &backend)?;
        found.state = "active".into();
        Ok(found.clone())
    }
    async fn connections(
        &self,
        query: ConnectionQuery,
    ) -> Result<BoxStream<'static, ConnectionView>, ApiError> {
        let nobody = query.client.as_deref() == Some("192.0.2.99");
        self.world().query = Some(query);
        let connection = ConnectionView {
            service: "app".into(),
            client: "[2001:db8::7]:40000".into(),
            vip: "[fd00::10]:8001".into(),
            backend: "[fd00::11]:8001".into(),
            protocol: "tcp".into(),
            state: "established".into(),
            age_seconds: 11_520.5,
            idle_seconds: 0.25,
            packets_in: 10,
            bytes_in: 1536,
            packets_out: 20,
            bytes_out: 2048,
        };
        Ok(stream::iter(if nobody { Vec::new() } else { vec![connection] }).boxed())
    }
    async fn close_connections(&self, close: ConnectionClose) -> Result<Closed, ApiError> {
        if close.filter == ConnectionFilter::default() {
            return Err(ApiError::Invalid("name something".into()));
        }
        let warning = close.idle_seconds.map(|_| "both ends hear of it later".into());
        self.world().close = Some(close);
        Ok(Closed { closed: 1_234, warning })
    }
    async fn detach(&self, detach: Detach) -> Result<DetachedView, ApiError> {
        let Detach { hand_over, deadline_seconds } = detach;
        let deadline_seconds = deadline_seconds.map(|seconds| seconds as f64);
        Ok(DetachedView { detached: !hand_over, open_connections: 1_234, deadline_seconds })
    }
    async fn attach(&self) -> Result<(), ApiError> {
        Ok(())
    }
    async fn events(&self, query: EventQuery) -> Result<BoxStream<'static, EventView>, ApiError> {
        let event = |kind: &str| EventView {
            kind: kind.into(),
            service: "app".into(),
            backend: "10.0.0.1".into(),
            ..EventView::default()
        };
        let closed = EventView {
            client: Some("192.0.2.7:40000".into()),
            vip: Some("10.96.0.10:80".into()),
            protocol: Some("tcp".into()),
            reason: Some("finished".into()),
            duration_seconds: Some(61.0),
            bytes_in: Some(1536),
            bytes_out: Some(0),
            ..event("close")
        };
        let all = if query.follow { vec![event("drain"), closed] } else { vec![event("drain")] };
        Ok(stream::iter(all).boxed())
    }
    async fn explain(&self, query: ExplainQuery) -> Result<ExplainView, ApiError> {
        let candidate = Candidate {
            backend: "10.0.0.1".into(),
            active_connections: 3,
            others: Some(4),
            clients: None,
            weight_in_force: 1,
            max_connections: None,
            takes_new: true,
            note: String::new(),
        };
        let (client, vip) = (query.client, query.vip);
        let (backend, why) = (Some("10.0.0.1".into()), "it has the fewest connections for its weight".into());
        // A cluster address, where the other one isn't.
        let kubernetes = (vip == "10.96.0.20:80").then(|| EndpointsView {
            service: "shop/app".into(),
            port: "http".into(),
            frontend: "cluster IP".into(),
            internal_traffic_policy: "Cluster".into(),
            external_traffic_policy: "Local".into(),
            zone: Some("a".into()),
            policy: "internalTrafficPolicy is Cluster: endpoints of all nodes".into(),
            hints: "followed: endpoints that are for zone \"a\"".into(),
            endpoints: vec![EndpointView {
                address: "10.0.0.1:80".into(),
                ready: true,
                serving: true,
                terminating: false,
                on_this_node: false,
                zones: vec!["a".into(), "b".into()],
                for_this_node: Some(false),
                used: true,
                why: "ready, for this zone".into(),
            }],
        });
        let candidates = vec![candidate];
        Ok(ExplainView { service: "app".into(), client, vip, backend, why, candidates, kubernetes })
    }
    async fn cluster(&self) -> Result<ClusterView, ApiError> {
        Ok(views::cluster())
    }
    async fn rebalance(&self, service: String, begin: bool) -> Result<RebalanceView, ApiError> {
        Ok(views::rebalance(service, begin))
    }
    /// All nodes have the same connections.
    async fn everywhere(&self, task: Task) -> Result<EverywhereView, ApiError> {
        let Task { service, backend, deed } = task;
        let found = match deed {
            Deed::Drain(drain) => self.drain(service.clone(), backend.clone(), drain).await?,
            Deed::Undrain => self.undrain(service.clone(), backend.clone()).await?,
            Deed::Look => {
                let mut world = self.world();
                world.pass();
                world.backend(&service, &backend)?.clone()
            }
        };
        let active_connections = 2 * found.active_connections;
        let node =
            |name: &str| NodeBackendView { node: name.into(), backend: Some(found.clone()), problem: None };
        let mut nodes = vec![node("node-1"), node("node-2")];
        if self.world().silent {
            let problem = Some("no such host".into());
            nodes.push(NodeBackendView { node: "node-3:7473".into(), backend: None, problem });
        }
        Ok(EverywhereView { service, backend, active_connections, nodes })
    }
    async fn status(&self) -> Result<StatusView, ApiError> {
        let problems = self.world().problems.clone();
        let attached = problems.is_empty();
        Ok(StatusView {
            state: if attached { "ok" } else { "degraded" }.into(),
            version: "0.1.0".into(),
            kernel: "6.12.0".into(),
            uptime_seconds: 11_520.0,
            interfaces: vec![InterfaceView {
                name: "eth0".into(),
                index: 2,
                attach: "xdp".into(),
                fast: false,
                reply_on_arrival: false,
                peer: false,
                mode: attached.then(|| "xdp-native".into()),
                error: problems.first().cloned(),
            }],
            services: 1,
            backends: 2,
            conntrack_entries: 512,
            conntrack_capacity: 1024,
            affinity_entries: 0,
            affinity_capacity: 262_144,
            accounting_drift: 0,
            sweeps: 3,
            generation: 7,
            problems,
            warnings: vec![WarningView {
                about: "rp_filter".into(),
                text: "answers that come in by eth1 are dropped".into(),
                remedy: "sysctl -w net.ipv4.conf.eth1.rp_filter=2".into(),
            }],
            rejected: Vec::new(),
            kubernetes: None,
            detached: None,
        })
    }
    async fn stats(&self) -> Result<StatsView, ApiError> {
        let drops = BTreeMap::from([("no_backend".to_string(), 3), ("stray".to_string(), 0)]);
        Ok(StatsView { services: self.world().services.clone(), drops })
    }
    async fn overview(&self) -> Result<Overview, ApiError> {
        Ok(views::overview(&self.world().services))
    }
    async fn shown(&self, names: Vec<String>) -> Result<Shown, ApiError> {
        let world = self.world();
        let of = |name: &String| world.services.iter().find(|s| s.name == *name).cloned();
        let services = names.iter().filter_map(of).collect();
        Ok(Shown { services, durations: Default::default(), cost: Default::default() })
    }
    async fn drops(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([("no_backend", 3), ("stray", 0)])
    }
    async fn metrics(&self) -> Result<Page, ApiError> {
        let node = Node { kernel: "6.1".into(), ..Node::default() };
        Ok(Page::new(Figures { node, ..Figures::default() }, Clock::at(250)))
    }
    async fn alive(&self) -> bool {
        true
    }
    async fn ready(&self) -> bool {
        self.world().problems.is_empty()
    }
}
