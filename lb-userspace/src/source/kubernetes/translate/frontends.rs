//! Where a Service's port is reached, by whom, and how packets go.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use super::{Around, Families, protocol};
use crate::{
    model::{ForwardKind, Forwarding, Frontend, PortRange, Scope},
    source::kubernetes::{
        annotations::Knobs,
        claims::Spot,
        note::{Note, Reason},
        record::{Port, Service},
    },
};

/// What an address is to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::kubernetes) enum Way {
    Cluster,
    External,
    Balancer,
    NodePort,
}

impl Way {
    /// In the words of Kubernetes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster IP",
            Self::External => "external IP",
            Self::Balancer => "load balancer",
            Self::NodePort => "node port",
        }
    }
}

struct Place {
    way: Way,
    address: IpAddr,
    port: u16,
}

/// Frontends of a port.
pub(super) struct Wanted {
    /// As Kubernetes has them.
    pub plain: Vec<Frontend>,
    /// As annotations have them, if they say something.
    pub asked: Option<Vec<Frontend>>,
}

impl Wanted {
    /// Is it reached nowhere?
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }
}

/// Where a port is to be reached. Without a cluster address of a family there is none of that family.
fn places(service: &Service, port: &Port, around: Around<'_>) -> Vec<Place> {
    let family = |address: &IpAddr| service.cluster[usize::from(address.is_ipv6())].is_some();
    let mut places = Vec::new();
    let mut add = |way, addresses: &mut dyn Iterator<Item = IpAddr>, port| {
        places.extend(addresses.filter(family).map(|address| Place { way, address, port }));
    };
    add(Way::Cluster, &mut service.cluster.into_iter().flatten(), port.port);
    // What is both is a load balancer's: who may come there goes by the address.
    add(Way::Balancer, &mut service.balancer.iter().copied(), port.port);
    if around.options.external_ips {
        add(Way::External, &mut service.external.iter().copied(), port.port);
    }
    if let Some(node_port) = port.node_port {
        let addresses = around.options.node_ports.addresses(around.node, around.own);
        add(Way::NodePort, &mut addresses.into_iter(), node_port);
    }
    places
}

/// What an address and port are to a Service's port; `None`: not its own.
pub(in crate::source::kubernetes) fn way(
    service: &Service,
    port: &Port,
    at: SocketAddr,
    around: Around<'_>,
) -> Option<Way> {
    let mut places = places(service, port, around).into_iter();
    places.find(|place| (place.address, place.port) == (at.ip(), at.port())).map(|place| place.way)
}

/// Which addresses and ports a Service asks for, and whether they are its cluster addresses.
pub fn spots(service: &Service, around: Around<'_>) -> Vec<(Spot, bool)> {
    let of = |port: &Port| {
        let transport = port.transport;
        let spot = move |place: Place| {
            (Spot { address: place.address, port: place.port, transport }, place.way == Way::Cluster)
        };
        places(service, port, around).into_iter().map(spot)
    };
    service.ports.iter().flat_map(of).collect()
}

/// The frontends of a port.
pub(super) fn wanted(
    key: &Arc<str>,
    service: &Service,
    port: &Port,
    families: &Families,
    knobs: &Knobs,
    around: Around<'_>,
    notes: &mut Vec<Note>,
) -> Wanted {
    let mut plain: Vec<Frontend> = Vec::new();
    let mut asked: Vec<Frontend> = Vec::new();
    let mut seen = BTreeSet::new();
    for place in places(service, port, around) {
        let spot = Spot { address: place.address, port: place.port, transport: port.transport };
        if !seen.insert(spot) {
            continue;
        }
        if let Some(holder) = around.claims.holder(&spot).filter(|holder| *holder != key) {
            let text = format!(
                "{} port {} is {holder}'s, which is older or has it as its cluster address; not served for this one",
                place.address, place.port
            );
            notes.push(Note::service(key, Reason::Conflict, text));
            continue;
        }
        let Some(frontend) = frontend(&place, service, port, families, around) else { continue };
        let direct = knobs.forward.is_some_and(ForwardKind::is_direct);
        let follows = !direct || matches!(place.way, Way::External | Way::Balancer);
        let forward = knobs.forward.filter(|_| follows).map(Forwarding::all);
        add(&mut asked, Frontend { forward: forward.unwrap_or(frontend.forward), ..frontend.clone() });
        add(&mut plain, frontend);
    }
    Wanted { asked: knobs.forward.map(|_| asked), plain }
}

/// Adds a frontend, or its address to one that is otherwise the same.
fn add(frontends: &mut Vec<Frontend>, new: Frontend) {
    let same = |f: &&mut Frontend| {
        (&f.ports, f.scope, &f.sources, f.forward) == (&new.ports, new.scope, &new.sources, new.forward)
    };
    match frontends
        .iter_mut()
        .find(same)
        .filter(|f| f.sources.is_empty() || f.has_family(new.addresses[0].is_ipv6()))
    {
        Some(known) => known.addresses.extend(new.addresses),
        None => frontends.push(new),
    }
}

fn frontend(
    place: &Place,
    service: &Service,
    port: &Port,
    families: &Families,
    around: Around<'_>,
) -> Option<Frontend> {
    let v6 = place.address.is_ipv6();
    let any = families[usize::from(v6)].categories.any;
    let inside = place.way == Way::Cluster;
    let local = if inside { service.internal_local } else { service.external_local };
    let scope = match (any, local, inside) {
        // Without any endpoint, nobody is dropped: all are refused.
        (false, ..) | (_, false, _) => Scope::All,
        (true, true, true) => Scope::LocalOnly,
        (true, true, false) => Scope::Local,
    };
    // Without an address of the family, the node can't stand in for anybody.
    let snat = match around.own.iter().any(|own| own.is_ipv6() == v6) {
        true => ForwardKind::Snat,
        false => ForwardKind::Nat,
    };
    let forward = match (inside, local) {
        (true, _) if around.options.masquerade_all => Forwarding::all(snat),
        (true, _) => Forwarding { pod: ForwardKind::Nat, elsewhere: snat },
        (false, false) => Forwarding::all(snat),
        (false, true) => Forwarding::all(ForwardKind::Nat),
    };
    let sources = match place.way {
        Way::Balancer => sources(service, v6, around),
        _ => BTreeSet::new(),
    };
    let range = PortRange::new(place.port, place.port, protocol(port)?).ok()?;
    Some(Frontend {
        addresses: vec![place.address],
        ports: vec![range],
        scope,
        sources,
        forward,
        ..Frontend::default()
    })
}

/// Whose packets may come to load balancer addresses of a family; none: everybody's.
fn sources(service: &Service, v6: bool, around: Around<'_>) -> BTreeSet<IpNet> {
    let of_family = |net: &&IpNet| matches!(net, IpNet::V6(_)) == v6;
    let mut nets: BTreeSet<IpNet> = service.sources.iter().filter(of_family).copied().collect();
    if nets.iter().any(|net| net.prefix_len() == 0) {
        return BTreeSet::new();
    }
    // A node that may come may do so by the load balancer's address, which can be one of its own.
    if around.node.primary[usize::from(v6)].is_some_and(|node| nets.iter().any(|net| net.contains(&node))) {
        let balancer = service.balancer.iter().filter(|address| address.is_ipv6() == v6);
        nets.extend(balancer.map(|address| IpNet::from(*address)));
    }
    nets
}
