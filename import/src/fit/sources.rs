//! Whom a service is for: prefixes of the IP versions that it has, and somebody of each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::{
    access::Access,
    account::{Id, Said},
    model::{Frontend, Service},
    values::net,
};

/// Leaves prefixes that can be in force, and addresses that somebody may come to.
pub fn fit(service: &mut Service) {
    let Access { allowed, denied } = std::mem::take(&mut service.access);
    let listed = !allowed.is_empty();
    let Some(first) = allowed.first().or(denied.first()).map(|said| said.at) else { return };
    let allowed = prefixes(service, allowed, "source_ranges");
    let denied = prefixes(service, denied, "deny_ranges");
    let gone = IpNet::aggregate(&denied.iter().map(|(net, _)| *net).collect());
    let left = |net: &IpNet| !gone.iter().any(|gone| gone.contains(net));
    let open = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].map(|zero| {
        let all = IpNet::new(zero, 0).is_ok_and(|all| left(&all));
        let own = |(net, _): &(IpNet, Id)| net.addr().is_ipv6() == zero.is_ipv6() && left(net);
        if listed { allowed.iter().any(own) } else { all }
    });
    if listed || !denied.is_empty() {
        addresses(service, first, open);
    }
    let [allowed, denied] = [allowed, denied]
        .map(|list| list.into_iter().map(|(net, at)| Said::new(show(net), at)).collect::<Vec<_>>());
    service.access = Access { allowed, denied };
}

/// Those that are prefixes, of the IP versions that the service has.
fn prefixes(service: &mut Service, list: Vec<Said<String>>, key: &str) -> Vec<(IpNet, Id)> {
    let mut kept = Vec::new();
    for Said { value, at } in list {
        let Some(net) = net(&value) else {
            service.turn_off(at, format!("{value:?} is no prefix: write {key} by hand, and uncomment it."));
            continue;
        };
        let v6 = net.addr().is_ipv6();
        if !service.frontends.iter().any(|frontend| frontend.address.is_ipv6() == v6) {
            service.note(at, "The service has no address of this IP version: nobody would come from there.");
            continue;
        }
        kept.push((net, at));
    }
    kept
}

/// Leaves those that somebody may come to; `open`: of IPv4, of IPv6.
fn addresses(service: &mut Service, first: Id, open: [bool; 2]) {
    let shut = |frontend: &Frontend| !open[usize::from(frontend.address.is_ipv6())];
    if service.frontends.iter().any(shut) {
        service.note(first, "Nobody of the other IP version is let in: its addresses are left out.");
    }
    let gone: Vec<Frontend> = service
        .frontends
        .extract_if(.., |frontend| shut(frontend) || frontend.address.is_loopback())
        .collect();
    for frontend in gone {
        let remedy = match shut(&frontend) {
            true => "Nobody of this IP version is let in: the address is left out.",
            false => {
                "It is for processes of the node alone: give it a [[service.frontend]] with source_ranges = [] and \
                 deny_ranges = []."
            }
        };
        service.note(frontend.at, remedy);
    }
    if service.frontends.is_empty() {
        service.turn_off(first, "No address is left that these come to: give it a vip, and uncomment it.");
    }
}

/// As in Flowpin's file: an address if it is one.
fn show(net: IpNet) -> String {
    let whole = net.prefix_len() == net.max_prefix_len();
    if whole { net.addr().to_string() } else { net.to_string() }
}
