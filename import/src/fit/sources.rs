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
    let own: Vec<Access> = service.frontends.iter().filter_map(|frontend| frontend.access.clone()).collect();
    let common = std::mem::take(&mut service.access);
    service.access = of(service, &None, common);
    // Of those that say the same each once.
    for (_, access) in own.iter().enumerate().filter(|(i, access)| !own[..*i].contains(access)) {
        let theirs = Some(access.clone());
        let left = of(service, &theirs, access.clone());
        let like = service.frontends.iter_mut().filter(|frontend| frontend.access == theirs);
        like.for_each(|frontend| frontend.access = Some(left.clone()));
    }
}

/// What is left of lists that frontends have (`None`: those without any of their own), and leaves of these frontends
/// those that somebody may come to.
fn of(service: &mut Service, whose: &Option<Access>, Access { allowed, denied }: Access) -> Access {
    let listed = !allowed.is_empty();
    let Some(first) = allowed.first().or(denied.first()).map(|said| said.at) else {
        return Access::default();
    };
    let allowed = prefixes(service, whose, allowed, "source_ranges");
    let denied = prefixes(service, whose, denied, "deny_ranges");
    let gone = IpNet::aggregate(&denied.iter().map(|(net, _)| *net).collect());
    let left = |net: &IpNet| !gone.iter().any(|gone| gone.contains(net));
    let open = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].map(|zero| {
        let all = IpNet::new(zero, 0).is_ok_and(|all| left(&all));
        let own = |(net, _): &(IpNet, Id)| net.addr().is_ipv6() == zero.is_ipv6() && left(net);
        if listed { allowed.iter().any(own) } else { all }
    });
    if listed || !denied.is_empty() {
        addresses(service, whose, first, open);
    }
    let [allowed, denied] = [allowed, denied]
        .map(|list| list.into_iter().map(|(net, at)| Said::new(show(net), at)).collect::<Vec<_>>());
    Access { allowed, denied }
}

/// Those that are prefixes, of the IP versions that the frontends have.
fn prefixes(
    service: &mut Service,
    whose: &Option<Access>,
    list: Vec<Said<String>>,
    key: &str,
) -> Vec<(IpNet, Id)> {
    let mut kept = Vec::new();
    for Said { value, at } in list {
        let Some(net) = net(&value) else {
            service.turn_off(at, format!("{value:?} is no prefix: write {key} by hand, and uncomment it."));
            continue;
        };
        let v6 = net.addr().is_ipv6();
        let of_version = |frontend: &Frontend| frontend.address.is_ipv6() == v6;
        if !service.frontends.iter().any(|frontend| frontend.access == *whose && of_version(frontend)) {
            service.note(at, "The service has no address of this IP version: nobody would come from there.");
            continue;
        }
        kept.push((net, at));
    }
    kept
}

/// Leaves those that somebody may come to; `open`: of IPv4, of IPv6.
fn addresses(service: &mut Service, whose: &Option<Access>, first: Id, open: [bool; 2]) {
    let theirs = |frontend: &Frontend| frontend.access == *whose;
    let shut = |frontend: &Frontend| !open[usize::from(frontend.address.is_ipv6())];
    if service.frontends.iter().any(|frontend| theirs(frontend) && shut(frontend)) {
        service.note(first, "Nobody of the other IP version is let in: its addresses are left out.");
    }
    let gone: Vec<Frontend> = service
        .frontends
        .extract_if(.., |frontend| theirs(frontend) && (shut(frontend) || frontend.address.is_loopback()))
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
