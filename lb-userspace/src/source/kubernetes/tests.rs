mod affinity;
mod endpoints;
mod explain;
mod faults;
mod machine;
mod options;
mod policies;
mod services;

use std::{fmt::Write as _, time::Duration};

pub use fake_apiserver::objects;
use serde_yaml_ng::Value;

use super::{Delta, Event, Options, State};
use crate::model::{
    AdminState, Origin, OwnAddresses, RemovalPolicies, RemovalPolicy, ServiceSpec, StrayKind,
};

/// The own Node: `me`, in zone `a`.
const NODE: &str = "
kind: Node
metadata: {name: me, labels: {topology.kubernetes.io/zone: a}}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: '2001:db8::1'}]}
";

pub fn own() -> OwnAddresses {
    ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|a| a.parse().unwrap()).into()
}

/// What happens to an object.
#[derive(Clone, Copy)]
pub enum Does {
    Apply,
    InitApply,
    Delete,
}

impl Does {
    fn to<T: serde::de::DeserializeOwned>(self, object: &Value) -> Event<T> {
        let object = serde_yaml_ng::from_value(object.clone()).unwrap();
        match self {
            Self::Apply => Event::Apply(object),
            Self::InitApply => Event::InitApply(object),
            Self::Delete => Event::Delete(object),
        }
    }
}

/// Tells of an object.
pub fn tell(state: &mut State, does: Does, object: &Value) {
    let cache = &mut state.cache;
    match object["kind"].as_str().unwrap() {
        "Service" => cache.service(does.to(object)),
        "EndpointSlice" => cache.slice(does.to(object)),
        "Node" => cache.node_event(does.to(object)),
        "ServiceCIDR" => cache.cidr(does.to(object)),
        "Namespace" => cache.namespace(does.to(object)),
        other => panic!("{other}"),
    }
}

/// Begins or ends a list of every kind.
pub fn all_kinds(state: &mut State, done: bool) {
    let cache = &mut state.cache;
    cache.service(if done { Event::InitDone } else { Event::Init });
    cache.slice(if done { Event::InitDone } else { Event::Init });
    cache.node_event(if done { Event::InitDone } else { Event::Init });
    cache.cidr(if done { Event::InitDone } else { Event::Init });
    cache.namespace(if done { Event::InitDone } else { Event::Init });
}

/// A cluster that has been listed.
pub fn cluster(options: Options, yaml: &str) -> (State, Delta) {
    let mut state = State::new("me", options);
    state.set_own(&own());
    all_kinds(&mut state, false);
    for object in objects(NODE).iter().chain(&objects(yaml)) {
        tell(&mut state, Does::InitApply, object);
    }
    assert_eq!(state.follow(Duration::ZERO), None, "nothing is known before all is listed");
    all_kinds(&mut state, true);
    let delta = state.follow(Duration::ZERO).unwrap();
    (state, delta)
}

/// Services as text: a line for the name and what isn't the default, one for each frontend, one for each endpoint
/// that takes or keeps something.
pub fn show(spec: &ServiceSpec) -> String {
    let mut text = spec.name.clone();
    let default = ServiceSpec::new(&spec.name, Vec::new(), Origin::Kubernetes);
    if spec.algorithm != default.algorithm {
        let _ = write!(text, " {}", spec.algorithm.name());
    }
    if let Some(affinity) = &spec.affinity {
        let _ = write!(
            text,
            " affinity {}s {}",
            affinity.timeout.as_secs(),
            affinity.group.as_deref().unwrap_or("-")
        );
    }
    let RemovalPolicies { removal, deadline, .. } = spec.policies;
    if [removal, deadline].contains(&RemovalPolicy::Reset) {
        let _ = write!(text, " {removal:?}/{deadline:?}");
    }
    if spec.stray.is_some_and(|stray| stray != StrayKind::Reset) {
        text.push_str(" stray");
    }
    for f in &spec.frontends {
        for address in &f.addresses {
            for port in &f.ports {
                let _ = write!(text, "\n  {address} {port} {}", f.scope.name());
                let _ = write!(text, " {}|{}", f.forward.pod.name(), f.forward.elsewhere.name());
                for net in &f.sources {
                    let _ = write!(text, " {net}");
                }
            }
        }
    }
    for (name, backend) in &spec.backends {
        let lists = backend.lists.unwrap();
        let _ = write!(text, "\n  > {name}");
        match backend.admin {
            AdminState::Active => {}
            AdminState::Draining { deadline: None, .. } => text.push_str(" keeps"),
            AdminState::Draining { since, deadline: Some(deadline) } => {
                let _ = write!(text, " keeps {}s from {}s", deadline.as_secs(), since.as_secs());
            }
        }
        text.push_str(if lists.all { " all" } else { "" });
        text.push_str(if lists.local { " local" } else { "" });
        if backend.weight != 1 {
            let _ = write!(text, " weight {}", backend.weight);
        }
        if let Some(limit) = backend.max_connections {
            let _ = write!(text, " limit {limit}");
        }
    }
    text
}

/// All services of a cluster as text.
pub fn show_all(state: &State) -> String {
    let mut all: Vec<String> = state.specs().map(|spec| show(spec)).collect();
    all.sort_unstable();
    all.join("\n")
}

/// A table: what a row is about, YAML in, services out.
pub fn table(options: &Options, rows: &[(&str, &str, &str)]) {
    for (about, yaml, wanted) in rows {
        let (state, _) = cluster(options.clone(), yaml);
        let trimmed: Vec<&str> = wanted.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let found = show_all(&state);
        let found: Vec<&str> = found.lines().map(str::trim).collect();
        assert_eq!(found, trimmed, "{about}");
        for spec in state.specs() {
            spec.validate().unwrap();
        }
    }
}

/// What is said of objects, as text.
pub fn notes(state: &State) -> Vec<String> {
    state.notes().into_iter().map(ToString::to_string).collect()
}
