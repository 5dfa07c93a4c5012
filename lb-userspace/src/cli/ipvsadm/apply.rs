//! Steps of a plan, asked of the agent one by one.

use flowpin_import::ipvs::Algorithm;
use lb_ipvsadm::{
    Affinity, Timeouts,
    plan::{NewServer, NewService, Plan, Step},
};
use serde_json::{Value, json};

use super::{Context, Failure};
use crate::{
    api::{
        client::ClientError,
        types::{AffinityDecl, BackendDecl, ForwardDecl, Patch, ServiceDecl},
    },
    model::AlgorithmKind,
};
/// Does all steps. If the agent refuses one, those before it are taken back as far as that can be.
///
/// # Errors
/// The agent's, with what is in force.
pub async fn all(context: &Context, plan: &Plan) -> Result<(), Failure> {
    for (done, (line, step)) in plan.steps.iter().enumerate() {
        let error = match one(context, step).await {
            Ok(()) => continue,
            Err(ClientError::Refused { message, .. }) => message,
            Err(e) => return Err(e.into()),
        };
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        return Err(Failure::Said(match take_back(context, plan, done).await {
            0 if done == 0 => format!("{line}{error}"),
            0 => format!("{line}{error}; nothing is changed"),
            left => format!(
                "{line}{error}; of what was done before it, {left} of {done} steps could not be taken back"
            ),
        }));
    }
    Ok(())
}

/// Takes so many steps back, the last one first. How many remain.
async fn take_back(context: &Context, plan: &Plan, done: usize) -> usize {
    let mut left = 0;
    for (_, step) in plan.steps.iter().take(done).rev() {
        let back = match step.back() {
            Some(back) => one(context, &back).await.is_ok(),
            None => false,
        };
        left += usize::from(!back);
    }
    left
}

async fn one(Context { client, printer }: &Context, step: &Step) -> Result<(), ClientError> {
    let changed = match step {
        Step::AddService(new) => client.add_service(&declaration(new)).await?,
        Step::Choose { service, algorithm, affinity } => {
            client.set_service(service, &choice(*algorithm, affinity.as_ref())).await?
        }
        Step::Forward { service, forward, .. } => {
            client.set_service(service, &patch([("forward", forward.name().into())])).await?
        }
        Step::Timeouts { service, timeouts } => client.set_service(service, &times(timeouts)).await?,
        Step::RemoveService { service } => return client.remove_service(service).await,
        Step::AddServer { service, server } => {
            return client.add_backend(service, &backend(server)).await.map(drop);
        }
        Step::EditServer { service, server, to: (weight, limit), .. } => {
            let change = patch([("weight", json!(weight)), ("max_connections", json!(limit))]);
            return client.set_backend(service, server, &change).await.map(drop);
        }
        Step::RemoveServer { service, server } => return client.remove_backend(service, server).await,
    };
    for warning in &changed.warnings {
        printer.note(format_args!("service \"{}\": {warning}", changed.name));
    }
    Ok(())
}

fn patch<const N: usize>(entries: [(&str, Value); N]) -> Patch {
    entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

const fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::LeastConnections => AlgorithmKind::LeastConnections.name(),
        Algorithm::ConsistentHash => AlgorithmKind::ConsistentHash.name(),
        Algorithm::RoundRobin => AlgorithmKind::RoundRobin.name(),
        Algorithm::WeightedRandom => AlgorithmKind::WeightedRandom.name(),
    }
}

fn declaration(new: &NewService) -> ServiceDecl {
    let NewService { name, at, algorithm, affinity, forward, servers } = new;
    let (first, last) = at.ports();
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let affinity = affinity.map(|Affinity { timeout, ipv6_prefix }| AffinityDecl {
        timeout: Some(timeout.into()),
        ipv6_prefix: Some(ipv6_prefix.into()),
        ..AffinityDecl::default()
    });
    ServiceDecl {
        name: name.clone(),
        vip: Some(at.address.to_string()),
        ports: vec![format!("{ports}/{}", at.protocol.name())],
        algorithm: Some(algorithm_name(*algorithm).into()),
        affinity,
        forward: forward.map(|forward| ForwardDecl::Word(forward.name().into())),
        backends: servers.iter().map(backend).collect(),
        ..ServiceDecl::default()
    }
}

fn backend(server: &NewServer) -> BackendDecl {
    let NewServer { address, weight, limit } = server;
    BackendDecl {
        address: address.clone(),
        weight: Some((*weight).into()),
        max_connections: limit.map(Into::into),
        ..BackendDecl::default()
    }
}

/// What isn't said of affinity (a group, a bound) stays, unless there is none.
fn choice(algorithm: Algorithm, affinity: Option<&Affinity>) -> Patch {
    let affinity = affinity.map_or(Value::Null, |Affinity { timeout, ipv6_prefix }| {
        json!({"client_ip": true, "timeout": timeout.as_secs(), "ipv6_prefix": ipv6_prefix})
    });
    patch([("algorithm", algorithm_name(algorithm).into()), ("affinity", affinity)])
}

fn times(Timeouts { tcp, tcp_fin, udp }: &Timeouts) -> Patch {
    let given = [("idle", tcp), ("half_closed", tcp_fin), ("udp", udp)];
    let given = given.into_iter().filter_map(|(key, time)| Some((key, (*time)?.as_secs())));
    let given: Patch = given.map(|(key, seconds)| (key.to_string(), seconds.into())).collect();
    patch([("timeouts", Value::Object(given))])
}
