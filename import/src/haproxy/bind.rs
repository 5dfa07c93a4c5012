//! `bind`: addresses and ports.

use std::net::{IpAddr, Ipv4Addr};

use super::remedies::{BIND, remedy};
use crate::{
    account::{Account, Note},
    directive::{Directive, Params},
    model::{Frontend, Protocol},
    values::{address, ports},
};

/// Parameters without a value.
const SWITCHES: [&str; 31] = [
    "accept-proxy",
    "allow-0rtt",
    "defer-accept",
    "expose-fd",
    "force-sslv3",
    "force-tlsv10",
    "force-tlsv11",
    "force-tlsv12",
    "force-tlsv13",
    "generate-certificates",
    "no-alpn",
    "no-ca-names",
    "no-sslv3",
    "no-strict-sni",
    "no-tls-tickets",
    "no-tlsv10",
    "no-tlsv11",
    "no-tlsv12",
    "no-tlsv13",
    "prefer-client-ciphers",
    "quic-force-retry",
    "ssl",
    "strict-sni",
    "tfo",
    "tls-tickets",
    "transparent",
    "v4v6",
    "v6only",
    "ech",
    "ktls",
    "tcp-ss",
];

/// Takes one: from the `from`th word on.
pub fn bind(
    account: &mut Account,
    directive: &Directive,
    from: usize,
    notes: &mut Vec<Note>,
) -> Vec<Frontend> {
    let text = directive.words.get(from).map_or("", String::as_str);
    let head = format!("bind {text}");
    let at = account.open(directive.line, &head);
    let (mut only, mut tls) = (false, None);
    let mut params = Params::new(directive, &head, from + 1);
    while let Some(param) = params.take(account, |word| usize::from(!SWITCHES.contains(&word) && known(word)))
    {
        match param.name {
            "v6only" => {
                only = true;
                account.like(param.at, at);
            }
            "v4v6" => account.like(param.at, at),
            "ssl" => tls = Some(param.at),
            name => notes.push(Note::new(param.at, remedy(&BIND, name))),
        }
    }
    if let Some(tls) = tls {
        account.like(tls, at);
        let remedy = "Clients speak TLS there and HAProxy ends it. Flowpin passes it on: let the backends end it, \
             or HAProxy as a backend, and add the port.";
        notes.push(Note::new(at, remedy));
        return Vec::new();
    }
    let mut frontends = Vec::new();
    for one in text.split(',') {
        match place(one) {
            Ok((address, text)) => match ports(text, Protocol::Tcp) {
                Ok(ports) => {
                    frontends.push(Frontend { address, ports, at, access: None });
                    // An IPv6 socket at all addresses takes IPv4 as well, unless it is told otherwise.
                    if address.is_ipv6() && address.is_unspecified() && !only {
                        frontends.push(Frontend {
                            address: Ipv4Addr::UNSPECIFIED.into(),
                            ports,
                            at,
                            access: None,
                        });
                    }
                }
                Err(remedy) => notes.push(Note::new(at, remedy)),
            },
            Err(remedy) => notes.push(Note::new(at, remedy)),
        }
    }
    frontends
}

fn known(word: &str) -> bool {
    BIND.iter().any(|(names, _)| names.split_whitespace().any(|known| known == word))
}

/// An address and the text of its ports.
fn place(text: &str) -> Result<(IpAddr, &str), String> {
    let bare = ["ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text);
    if bare.starts_with('/') || bare.contains('@') {
        return Err(format!("{text:?} is no address of TCP: give the service an address and a port."));
    }
    let (host, ports) = bare
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?} names no port: write vip and ports by hand."))?;
    let address = match host {
        "" | "*" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        host => address(host),
    };
    let address = address.ok_or_else(|| {
        format!("{host:?} is not an address, which Flowpin needs: write vip and ports by hand.")
    })?;
    Ok((address, ports))
}
