//! Asks for a host's addresses as other programs of the node do: /etc/hosts, then the servers of /etc/resolv.conf, with its
//! search domains. Both files are read for each look-up, so that a change of them needs no restart; nothing is cached
//! here.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ResolverConfig, ResolverOpts, ServerOrderingStrategy},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData},
    },
    system_conf::read_system_conf,
};
use tokio::time::timeout;

use super::Answer;

/// How long a look-up may take, all servers and search domains included. The defaults of resolv.conf(5) are 5 s and two
/// attempts for each server.
const LIMIT: Duration = Duration::from_secs(15);

/// The answers for IPv4 and IPv6, as far as they are `wanted`.
pub async fn look_up(host: &str, wanted: [bool; 2]) -> [Option<Answer>; 2] {
    let all = |answer: Answer| wanted.map(|wanted| wanted.then(|| answer.clone()));
    let asker = match read_system_conf().and_then(|(config, options)| Asker::new(config, options)) {
        Ok(asker) => asker,
        Err(error) => {
            return all(Answer::Failed(format!("/etc/resolv.conf can't be used: {}", said(&error))));
        }
    };
    timeout(LIMIT, asker.ask(host, wanted)).await.unwrap_or_else(|_| all(Answer::Failed(NO_ANSWER.into())))
}

/// Asks servers. Which names one in the file may stand for is said here: the resolver would go on to the next one after
/// a failure as well, so that another host's addresses might be taken for this one's.
struct Asker {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

impl Asker {
    fn new(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, NetError> {
        // The servers are asked in the file's order.
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        let (search, ndots) = (config.search().to_vec(), options.ndots);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        Ok(Self { resolver: builder.with_options(options).build()?, search, ndots })
    }

    /// What may be meant, the likeliest first (resolv.conf(5): `search`, `ndots`). A name with a dot at the end is meant as
    /// it is.
    fn meant(&self, host: &str) -> Vec<Name> {
        let Ok(mut name) = Name::from_utf8(host) else { return Vec::new() };
        if name.is_fqdn() {
            return vec![name];
        }
        let mut names: Vec<Name> =
            self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
        let first = usize::from(name.num_labels()) > self.ndots;
        name.set_fqdn(true);
        names.insert(if first { 0 } else { names.len() }, name);
        names
    }

    /// The first name of which there are addresses says all, for both IP versions; a failure isn't passed over.
    async fn ask(&self, host: &str, wanted: [bool; 2]) -> [Option<Answer>; 2] {
        let mut said =
            wanted.map(|wanted| wanted.then(|| Answer::None("it can't be a name in the DNS".into())));
        for name in self.meant(host) {
            let one = async |v6: bool| match wanted[usize::from(v6)] {
                true => Some(self.one(name.clone(), v6).await),
                false => None,
            };
            let (v4, v6) = tokio::join!(one(false), one(true));
            said = [v4, v6];
            if said.iter().flatten().any(|answer| !matches!(answer, Answer::None(_))) {
                break;
            }
        }
        said
    }

    async fn one(&self, name: Name, v6: bool) -> Answer {
        let looked = match v6 {
            false => self.resolver.ipv4_lookup(name).await,
            true => self.resolver.ipv6_lookup(name).await,
        };
        let lookup = match looked {
            Ok(lookup) => lookup,
            Err(error) => return refused(&error),
        };
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
