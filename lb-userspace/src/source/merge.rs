//! The sources side by side, a service at a time. The file wins where both declare a name; what conflicts otherwise is named,
//! not guessed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Runtime;
use crate::model::{AdminState, ModelError, ServiceSpec, service::make_backend};

/// One service, as file and command line together declare it; `None` if neither does. Sentences on what was set aside go to
/// `notes`.
///
/// # Errors
/// Together they make no valid service.
pub fn service(
    name: &str,
    file: Option<&ServiceSpec>,
    runtime: &Runtime,
    notes: &mut Vec<String>,
) -> Result<Option<ServiceSpec>, ModelError> {
    let added = runtime.services.get(name);
    let mut spec = match (file, added) {
        (Some(spec), added) => {
            if added.is_some() {
                notes.push(format!(
                    "service \"{name}\" is declared by the config file, which wins over what was added"
                ));
            }
            spec.clone()
        }
        (None, Some(added)) => added.spec(name, false)?,
        (None, None) => {
            if runtime.backends.contains_key(name) {
                notes.push(format!(
                    "service \"{name}\" is gone; the backends added to it wait for its return"
                ));
            }
            return Ok(None);
        }
    };
    for (backend, added) in runtime.backends.get(name).into_iter().flatten() {
        if spec.backends.contains_key(backend) {
            notes.push(format!(
                "backend {backend} of service \"{name}\" is declared by the config file, which wins over what was added"
            ));
            continue;
        }
        let limit = added.max_connections.map(i64::from);
        spec.add(make_backend(name, backend, Some(added.weight.into()), limit, added.local, false)?)?;
    }
    for (backend, drain) in runtime.drains.get(name).into_iter().flatten() {
        if let Some(backend) = spec.backends.get_mut(backend) {
            backend.admin = AdminState::Draining {
                since: Duration::try_from_secs_f64(drain.since).unwrap_or_default(),
                deadline: drain.deadline.map(Duration::from_secs),
            };
        }
    }
    Ok(Some(spec))
}

/// All services.
///
/// # Errors
/// One of them is not valid.
pub fn merge(file: &[ServiceSpec], runtime: &Runtime) -> Result<(Vec<ServiceSpec>, Vec<String>), ModelError> {
    let declared: BTreeMap<&str, &ServiceSpec> = file.iter().map(|s| (s.name.as_str(), s)).collect();
    let names: BTreeSet<&str> = declared
        .keys()
        .copied()
        .chain(runtime.services.keys().map(String::as_str))
        .chain(runtime.backends.keys().map(String::as_str))
        .collect();
    let mut notes = Vec::new();
    let mut services = Vec::with_capacity(names.len());
    for name in names {
        services.extend(service(name, declared.get(name).copied(), runtime, &mut notes)?);
    }
    Ok((services, notes))
}
