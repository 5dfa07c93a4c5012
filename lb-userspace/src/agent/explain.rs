//! Which backend a client is at, or would be given to, and why.

mod note;

use std::{
    net::{IpAddr, SocketAddr},
    sync::PoisonError,
    time::Duration,
};

use lb_common::{
    abi::{Algorithm, Backend, BackendId, FlowKey, List, PoolBlock, PortBe, Proto, Service},
    affinity, hash, ranked,
};
use tokio::{sync::oneshot, time::timeout};

use self::note::note;
use super::{
    handle::{Handle, blocking},
    shared::Shared,
};
use crate::{
    api::{
        error::ApiError,
        types::{Candidate, ConnectionFilter, EndpointsView, ExplainQuery, ExplainView},
    },
    model::Origin,
    source::kubernetes::{explain::Question, record::Transport},
};

/// How long whoever follows the cluster may take to answer: as long as a large change takes to be in force.
const PATIENCE: Duration = Duration::from_secs(5);

impl Handle {
    /// Explains.
    ///
    /// # Errors
    /// Client or VIP can't be understood, or no service is there.
    pub async fn explain(&self, query: ExplainQuery) -> Result<ExplainView, ApiError> {
        let bad = |what: &str, text: &str, example: &str| {
            ApiError::Invalid(format!("{what} \"{text}\" can't be understood; write {example}"))
        };
        let (client, port) = match (query.client.parse::<IpAddr>(), query.client.parse::<SocketAddr>()) {
            (Ok(ip), _) => (ip, None),
            (_, Ok(socket)) => (socket.ip(), Some(socket.port())),
            _ => return Err(bad("client", &query.client, "192.0.2.7 or 192.0.2.7:40000")),
        };
        let vip: SocketAddr =
            query.vip.parse().map_err(|_| bad("VIP", &query.vip, "10.96.0.10:80 or [fd00::10]:80"))?;
        let proto = match query.protocol.as_deref() {
            None | Some("tcp") => Proto::TCP,
            Some("udp") => Proto::UDP,
            Some(other) => return Err(bad("protocol", other, "tcp or udp")),
        };
        if client.is_ipv6() != vip.is_ipv6() {
            return Err(ApiError::Invalid(format!(
                "client {client} and VIP {vip} are not of one family; use two of one"
            )));
        }
        let service = self.shared.maps.lookup(vip.ip(), vip.port(), proto).ok_or_else(|| {
            ApiError::NotFound(format!("no service is at {vip}; see: flowpin service list"))
        })?;
        let pinned = match port {
            Some(port) => {
                let filter = ConnectionFilter {
                    client: Some(SocketAddr::new(client, port).to_string()),
                    ..ConnectionFilter::default()
                };
                let shared = self.shared.clone();
                let list = blocking(move || shared.connections(&filter, None, None)).await?;
                list.into_iter().find(|c| c.vip == vip.to_string() && c.state != "closed")
            }
            None => None,
        };
        let source = self.source_of(client).await;
        let asked = Asked { client, port, vip, proto, list: service.list(source, vip.is_ipv6()) };
        let mut view = asked.would(&self.shared, &service);
        if let Some(flow) = pinned {
            view.why =
                format!("pinned there since {:.0} s: an open connection stays where it is", flow.age_seconds);
            view.backend = Some(flow.backend);
        }
        self.nodes_say(&mut view).await;
        self.cluster_says(&asked, &mut view).await;
        Ok(view)
    }

    /// Says so if what other nodes have isn't known, of a service whose connections they share.
    async fn nodes_say(&self, view: &mut ExplainView) {
        if view.candidates.iter().all(|candidate| candidate.others.is_none()) {
            return;
        }
        let nodes = self.shared.cluster_view().await;
        let known = nodes.is_ok_and(|nodes| {
            nodes.services.iter().any(|service| service.name == view.service && service.shared)
        });
        if !known {
            view.candidates.iter_mut().for_each(|candidate| candidate.others = None);
            view.why.push_str("; what other nodes have isn't known here");
        }
    }

    /// Adds what of the cluster decides, if the service is the cluster's.
    async fn cluster_says(&self, asked: &Asked, view: &mut ExplainView) {
        let origin = self.shared.read().desired.services().get(&view.service).map(|spec| spec.origin);
        if origin != Some(Origin::Kubernetes) {
            return;
        }
        let question = Question {
            service: view.service.clone(),
            vip: asked.vip,
            transport: if asked.proto == Proto::UDP { Transport::Udp } else { Transport::Tcp },
            local: asked.list.is_local(),
        };
        let Some(endpoints) = self.endpoints(question).await else {
            return view
                .why
                .push_str("; what of the cluster decides isn't known before the API server has told");
        };
        for candidate in view.candidates.iter_mut().filter(|candidate| !candidate.takes_new) {
            let of = endpoints.endpoints.iter().find(|endpoint| endpoint.address == candidate.backend);
            if let Some(endpoint) = of.filter(|endpoint| !endpoint.used) {
                candidate.note.clone_from(&endpoint.why);
            }
        }
        view.kubernetes = Some(endpoints);
    }

    async fn endpoints(&self, question: Question) -> Option<EndpointsView> {
        let feed = self.shared.feed.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (answer, answered) = oneshot::channel();
        let asking = async {
            feed.send((question, answer)).await.ok()?;
            answered.await.ok().flatten()
        };
        timeout(PATIENCE, asking).await.ok().flatten()
    }
}

struct Asked {
    client: IpAddr,
    port: Option<u16>,
    vip: SocketAddr,
    proto: Proto,
    /// Where it may go, by where it comes from.
    list: List,
}

impl Asked {
    /// Where a new connection would go.
    fn would(&self, shared: &Shared, service: &Service) -> ExplainView {
        let state = shared.read();
        let names = state.actual().services().get(&service.id);
        let name = names.map(|s| s.name.clone()).unwrap_or_default();
        let spec = state.desired.services().get(&name);
        let shared_by_nodes =
            shared.sharing.borrow().clone().filter(|_| spec.is_some_and(|spec| spec.goes_by_connections()));
        let now = shared.clock.now();
        let word = |id| shared_by_nodes.as_ref().map(|sharing| sharing.others.word(id, now));
        let mut candidates = Vec::new();
        for (backend, id) in names.iter().flat_map(|s| &s.backends) {
            let block = state.actual().block(id.block());
            let weight = block.map_or(0, |b| b.weight[id.slot()]);
            let limit = block.map_or(0, |b| b.limit[id.slot()]);
            let listed =
                weight == 0 || block.is_some_and(|b| b.lists[self.list.index()] & 1 << id.slot() != 0);
            let active = shared.maps.active(*id);
            candidates.push((
                *id,
                Candidate {
                    backend: backend.clone(),
                    active_connections: active.into(),
                    others: word(*id).map(|word| word >> ranked::ORDER_BITS),
                    clients: (service.affine != 0).then(|| shared.maps.clients(*id).into()),
                    weight_in_force: weight.into(),
                    max_connections: (limit != u32::MAX).then_some(limit),
                    takes_new: weight != 0 && listed && active < limit,
                    note: match spec {
                        None => "its service is gone".into(),
                        Some(_) if !listed => self.unlisted(state.actual().backend(*id)).into(),
                        Some(spec) => {
                            let healthy = |backend: &str| state.health.of(&name, backend).healthy;
                            note(spec, backend, healthy, active >= limit, weight)
                        }
                    },
                },
            ));
        }
        let frontend = spec.and_then(|spec| {
            spec.frontend_at(self.vip.ip(), &state.own, |f| f.range(self.proto, self.vip.port()).is_some())
        });
        let of_node = self.client.is_loopback() || state.own.contains(&self.client);
        let limit = spec.and_then(|spec| spec.max_connections).map(u64::from);
        let all = candidates.iter().map(|(_, candidate)| candidate.active_connections).sum::<u64>();
        let shut_out = match frontend {
            _ if self.vip.ip().is_loopback() && !of_node => {
                Some("only processes of the node get to a loopback address")
            }
            Some(frontend) if frontend.denied.iter().any(|prefix| prefix.contains(&self.client)) => {
                Some("it is in one of the deny ranges of the service there")
            }
            Some(frontend) if !frontend.admits(self.client) => {
                Some("it is in none of the source ranges of the service there")
            }
            _ => None,
        };
        drop(state);
        let block = shared.maps.block(service.first_block).filter(|_| service.first_block != 0);
        let (backend, why) = match shut_out {
            Some(why) => (None, why.into()),
            None if limit.is_some_and(|limit| all >= limit) => {
                (None, format!("nobody: the service has {all} connections, its service_max_connections"))
            }
            None => self.choose(shared, service, block.as_ref(), &candidates, &word),
        };
        let backend = backend
            .and_then(|id| candidates.iter().find(|(own, _)| *own == id).map(|(_, c)| c.backend.clone()));
        ExplainView {
            service: name,
            client: self
                .port
                .map_or(self.client.to_string(), |p| SocketAddr::new(self.client, p).to_string()),
            vip: self.vip.to_string(),
            backend,
            why,
            candidates: candidates.into_iter().map(|(_, c)| c).collect(),
            kubernetes: None,
        }
    }

    /// The group in which the client is bound.
    fn group(&self, block: &PoolBlock) -> u64 {
        match block.by_port {
            0 => block.group,
            _ => affinity::group_at(block.group, PortBe::new(self.vip.port()), self.proto),
        }
    }

    /// Why a backend is not on the list.
    fn unlisted(&self, backend: Option<&Backend>) -> &'static str {
        let v6 = backend.and_then(Backend::address).is_some_and(|address| address.is_ipv6());
        match (v6 == self.vip.is_ipv6(), self.list.is_local()) {
            (false, _) => "of the other IP version",
            (true, true) => "not of this node, and the frontend's scope is local",
            (true, false) => "only for clients that get backends of this node alone",
        }
    }

    fn choose(
        &self,
        shared: &Shared,
        service: &Service,
        block: Option<&PoolBlock>,
        candidates: &[(BackendId, Candidate)],
        word: &dyn Fn(BackendId) -> Option<u32>,
    ) -> (Option<BackendId>, String) {
        let open: Vec<&(BackendId, Candidate)> = candidates.iter().filter(|(_, c)| c.takes_new).collect();
        if candidates.is_empty() {
            return (None, "nobody: the service has no backend".into());
        }
        if open.is_empty() {
            return (None, "nobody: no backend takes new connections; see the notes".into());
        }
        if let Some(block) = block.filter(|_| service.affine != 0)
            && let Some((binding, _)) = shared.clients.get(self.group(block), self.client, block.client_bits)
        {
            let home = binding.home();
            if binding.open() >= block.bound {
                return (
                    None,
                    format!(
                        "anybody: the client has {} connections, its bound is {}",
                        binding.open(),
                        block.bound
                    ),
                );
            }
            if open.iter().any(|(id, _)| *id == home) {
                return (
                    Some(home),
                    format!("affinity: the client is bound to it, with {} connections open", binding.open()),
                );
            }
        }
        if service.algorithm == Algorithm::CONSISTENT_HASH {
            return self.hashed(shared, service, block, &open);
        }
        let by_lot = |by: &str| (None, format!("{by}, in proportion to the weights in force"));
        if service.algorithm == Algorithm::ROUND_ROBIN {
            return by_lot("round robin: whose turn it is");
        }
        if service.algorithm == Algorithm::WEIGHTED_RANDOM {
            return by_lot("any of them by lot");
        }
        let ranked: Option<Vec<_>> = open.iter().map(|(id, c)| Some((*id, c, word(*id)?))).collect();
        if let Some(ranked) = ranked {
            return over_all_nodes(&ranked);
        }
        let by_clients = service.affine != 0;
        let load = |c: &Candidate| {
            let count = if by_clients { c.clients.unwrap_or(0) } else { c.active_connections };
            count as f64 / c.weight_in_force as f64
        };
        let least = open.iter().map(|(_, c)| load(c)).fold(f64::INFINITY, f64::min);
        let best: Vec<&&(BackendId, Candidate)> = open.iter().filter(|(_, c)| load(c) <= least).collect();
        let what = if by_clients { "clients" } else { "connections" };
        match best.as_slice() {
            [(id, _)] => (Some(*id), format!("it has the fewest {what} for its weight")),
            several => {
                let names: Vec<&str> = several.iter().map(|(_, c)| c.backend.as_str()).collect();
                (
                    None,
                    format!(
                        "one of {} by lot: they have the fewest {what} for their weight",
                        names.join(", ")
                    ),
                )
            }
        }
    }

    fn hashed(
        &self,
        shared: &Shared,
        service: &Service,
        block: Option<&PoolBlock>,
        open: &[&(BackendId, Candidate)],
    ) -> (Option<BackendId>, String) {
        let hash = match (block.filter(|_| service.affine != 0), self.port) {
            (Some(block), _) => {
                let wide = crate::datapath::clients::wide(self.client);
                hash::client(&affinity::key(self.group(block), wide, block.client_bits), shared.hash_seed)
            }
            (None, Some(port)) => {
                flow_hash(SocketAddr::new(self.client, port), self.vip, self.proto, shared.hash_seed)
            }
            (None, None) => {
                return (None, "it depends on the client's port: consistent hashing; name the port".into());
            }
        };
        match shared.maps.slot(service.id, self.list, hash) {
            Some(id) if open.iter().any(|(own, _)| *own == id) => {
                (Some(id), "consistent hashing: the hash of the connection leads there".into())
            }
            _ => (
                None,
                "the backend that the hash leads to takes no new connections; the next in the table would"
                    .into(),
            ),
        }
    }
}

/// The least of all nodes' connections, as the kernel compares them. `open`: with their words; not empty.
fn over_all_nodes(open: &[(BackendId, &Candidate, u32)]) -> (Option<BackendId>, String) {
    // Both fit: 43 bits and 16.
    let product = |load: u64, other: &Candidate| load * other.weight_in_force;
    let value =
        |(_, c, word): &(BackendId, &Candidate, u32)| ranked::value(c.active_connections as u32, *word);
    let count = |it: &(BackendId, &Candidate, u32)| value(it) >> ranked::ORDER_BITS;
    let Some(best) = open.iter().min_by(|a, b| product(value(a), b.1).cmp(&product(value(b), a.1))) else {
        return (None, "nobody".into());
    };
    let equals = open.iter().filter(|it| product(count(it), best.1) == product(count(best), it.1)).count();
    let why = match equals {
        1 => "it has the fewest connections of all nodes for its weight",
        _ => {
            "of those with the fewest connections of all nodes for their weight it is the next in this node's order"
        }
    };
    (Some(best.0), why.into())
}

fn flow_hash(client: SocketAddr, vip: SocketAddr, proto: Proto, seed: u64) -> u32 {
    let (sport, dport) = (PortBe::new(client.port()), PortBe::new(vip.port()));
    match (client.ip(), vip.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            hash::flow(&FlowKey::<lb_common::abi::Addr4>::new(a.into(), b.into(), sport, dport, proto), seed)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            hash::flow(&FlowKey::<lb_common::abi::Addr6>::new(a.into(), b.into(), sport, dport, proto), seed)
        }
        _ => 0,
    }
}
