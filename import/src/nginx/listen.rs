//! `listen`: addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::remedies::{LISTEN, remedy};
use crate::{
    account::Account,
    directive::{Directive, Params},
    model::{Frontend, Protocol, Service},
    values::{address, ports, split_port},
};

/// Takes one for a service.
pub fn listen(account: &mut Account, directive: &Directive, service: &mut Service) {
    let text = directive.arg();
    let head = format!("listen {text}");
    let at = account.open(directive.line, &head);
    let (mut protocol, mut both, mut tls) = (Protocol::Tcp, false, None);
    let mut params = Params::new(directive, &head, 2);
    while let Some(param) = params.take(account, |_| 0) {
        match param.name {
            "udp" => {
                protocol = Protocol::Udp;
                account.like(param.at, at);
            }
            "ipv6only=off" => {
                both = true;
                account.like(param.at, at);
            }
            "ipv6only=on" => account.like(param.at, at),
            "ssl" => tls = Some(param.at),
            name => service.note(param.at, remedy(&LISTEN, name)),
        }
    }
    if let Some(tls) = tls {
        account.like(tls, at);
        let remedy = "Clients speak TLS there and nginx ends it. Flowpin passes it on: let the backends end it, or \
             nginx as a backend, and add the port.";
        return service.note(at, remedy);
    }
    if text.starts_with("unix:") {
        return service
            .note(at, "Packets don't come by Unix sockets: give the service an address and a port.");
    }
    let (host, port) = match split_port(text) {
        // A port alone.
        (port, None) if port.starts_with(|c: char| c.is_ascii_digit()) && address(port).is_none() => {
            ("*", Some(port))
        }
        other => other,
    };
    let address = match host {
        "*" | "" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        host => address(host),
    };
    let (Some(address), Some(port)) = (address, port) else {
        return service.note(
            at,
            format!("{text:?} is no address with a port, which Flowpin needs: write vip and ports by hand."),
        );
    };
    match ports(port, protocol) {
        Ok(ports) => {
            service.frontends.push(Frontend { address, ports, at, access: None });
            if both && address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
                service.frontends.push(Frontend {
                    address: Ipv4Addr::UNSPECIFIED.into(),
                    ports,
                    at,
                    access: None,
                });
            }
        }
        Err(remedy) => service.note(at, remedy),
    }
}
