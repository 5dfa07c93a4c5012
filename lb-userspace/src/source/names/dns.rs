//! Asks for a host's addresses as other programs of the node do: /etc/hosts, then the servers of /etc/resolv.conf, with its
//! search domains. Both files are read for each look-up, so that a change of them needs no restart; nothing is cached
//! here.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ResolverOpts, ServerOrderingStrategy},
    net::{DnsError, NetError},
    proto::{op::ResponseCode, rr::RData},
};
use tokio::time::timeout;

use super::Answer;

/// How long a look-up may take, all servers and search domains included. The defaults of resolv.conf(5) are 5 s and two
/// attempts for each server.
const LIMIT: Duration = Duration::from_secs(15);

/// The answers for IPv4 and IPv6, as far as they are `wanted`.
pub async fn look_up(host: &str, wanted: [bool; 2]) -> [Option<Answer>; 2] {
    let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
        as_written(builder.options_mut());
        builder.build()
    });
    match resolver {
        Ok(resolver) => ask(&resolver, host, wanted).await,
        Err(error) => {
            let failed = Answer::Failed(format!("/etc/resolv.conf can't be used: {}", said(&error)));
            wanted.map(|wanted| wanted.then(|| failed.clone()))
        }
    }
}

/// The servers are asked in the file's order.
fn as_written(options: &mut ResolverOpts) {
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
}

async fn ask(resolver: &TokioResolver, host: &str, wanted: [bool; 2]) -> [Option<Answer>; 2] {
    let one = async |v6: bool| {
        if !wanted[usize::from(v6)] {
            return None;
        }
        let asked = async {
            match v6 {
                false => resolver.ipv4_lookup(host).await,
                true => resolver.ipv6_lookup(host).await,
            }
        };
        Some(match timeout(LIMIT, asked).await {
            Err(_) => Answer::Failed(NO_ANSWER.into()),
            Ok(Err(error)) => refused(&error),
            Ok(Ok(lookup)) => {
                let records = lookup.answers();
                let address = |data: &RData| match data {
                    RData::A(a) => Some(IpAddr::V4(a.0)),
                    RData::AAAA(a) => Some(IpAddr::V6(a.0)),
                    _ => None,
                };
                let addresses: BTreeSet<IpAddr> = records.iter().filter_map(|r| address(&r.data)).collect();
                let ttl = records.iter().map(|record| record.ttl).min().unwrap_or_default();
                match addresses.is_empty() {
                    true => Answer::None("the name has no such records".into()),
                    false => Answer::Found { addresses, ttl: Duration::from_secs(ttl.into()) },
                }
            }
        })
    };
    let (v4, v6) = tokio::join!(one(false), one(true));
    [v4, v6]
}

const NO_ANSWER: &str = "no DNS server answers in time";

/// An answer without records.
fn refused(error: &NetError) -> Answer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Answer::None("there is no such name (NXDOMAIN)".into()),
            ResponseCode::NoError => Answer::None("the name has no such records".into()),
            code => Answer::Failed(format!("the DNS server says {code}")),
        },
        error => Answer::Failed(said(error)),
    }
}

/// In words, without what only developers of the resolver need.
fn said(error: &NetError) -> String {
    match error {
        NetError::Timeout => NO_ANSWER.into(),
        NetError::NoConnections => "no DNS server can be reached".into(),
        NetError::Io(error) => error.to_string(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the DNS server says {code}"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
