//! Addresses of hosts give way to services. Who has a name in the DNS says where it leads, at any time: that mustn't take a
//! service out of force, nor keep another from coming into it.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Declared, Rejection};
use crate::model::{BackendSpec, Desired, ServiceSpec, service::parse_backend};

/// Addresses of a service's hosts.
fn addresses(spec: &ServiceSpec) -> impl Iterator<Item = &BackendSpec> {
    spec.backends.values().filter(|backend| backend.host.is_some())
}

/// A service without those addresses of its hosts at which one of `others` has the port. `None`: there are none.
pub fn without<'a>(
    spec: &ServiceSpec,
    others: impl Fn(IpAddr) -> Vec<&'a Arc<ServiceSpec>>,
) -> Option<(Arc<ServiceSpec>, Vec<Rejection>)> {
    let mut left_out = Vec::new();
    for backend in addresses(spec) {
        let others = others(backend.address);
        let mut others = others.iter().filter(|other| other.name != spec.name);
        let error = others.find_map(|other| spec.check_backend_beside(backend, other).err());
        left_out.extend(error.map(|error| Rejection {
            service: spec.name.clone(),
            backend: Some(backend.name()),
            origin: backend.origin,
            error: error.to_string(),
            kept: false,
            alone: false,
            address_of: backend.host.clone(),
        }));
    }
    if left_out.is_empty() {
        return None;
    }
    let mut spec = spec.clone();
    left_out.iter().filter_map(|one| one.backend.as_ref()).for_each(|name| drop(spec.backends.remove(name)));
    Some((Arc::new(spec), left_out))
}

/// Has one of these services an address that was left out for it?
pub fn waits_for(left_out: &Rejection, desired: &Desired, names: &HashSet<&str>) -> bool {
    let address = left_out.backend.as_ref().and_then(|name| parse_backend(&left_out.service, name).ok());
    let Some((address, _)) = address else { return true };
    let services = names.iter().filter_map(|name| desired.services().get(name));
    services.flat_map(|spec| spec.named()).any(|vip| vip == address)
}

/// Those of `services` that name any of these addresses.
pub fn at<'a>(
    services: impl IntoIterator<Item = &'a Arc<ServiceSpec>>,
    addresses: &HashSet<IpAddr>,
) -> HashMap<IpAddr, Vec<&'a Arc<ServiceSpec>>> {
    let mut at: HashMap<IpAddr, Vec<&Arc<ServiceSpec>>> = HashMap::new();
    for service in services {
        let named: HashSet<IpAddr> = service.named().filter(|vip| addresses.contains(vip)).collect();
        named.into_iter().for_each(|vip| at.entry(vip).or_default().push(service));
    }
    at
}

/// Addresses of hosts that services have.
pub fn all<'a>(services: impl IntoIterator<Item = &'a Arc<ServiceSpec>>) -> HashSet<IpAddr> {
    services.into_iter().flat_map(|spec| addresses(spec)).map(|backend| backend.address).collect()
}

/// Services as they are declared, without addresses of hosts that are another one's, in force or not.
pub fn give_way(declared: &[Declared]) -> Cow<'_, [Declared]> {
    let versions = || declared.iter().flat_map(|d| d.spec.iter().chain(&d.good));
    let addresses = all(versions());
    let taken = at(versions(), &addresses);
    if taken.is_empty() {
        return Cow::Borrowed(declared);
    }
    let others = |address: IpAddr| taken.get(&address).cloned().unwrap_or_default();
    let mut changed = declared.to_vec();
    for one in &mut changed {
        let good = one.good.as_ref().and_then(|good| without(good, others));
        let spec = one.spec.as_ref().ok().and_then(|spec| without(spec, others));
        let (good, of_good) = good.unzip();
        let (spec, of_spec) = spec.unzip();
        one.good = good.or(one.good.take());
        one.spec = spec.map_or_else(|| one.spec.clone(), Ok);
        // Of the version that is tried first.
        one.aside.extend(if one.spec.is_ok() { of_spec } else { of_good }.into_iter().flatten());
    }
    Cow::Owned(changed)
}
