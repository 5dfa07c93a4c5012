//! A host: each of the addresses that its name has in the DNS is a backend.

use std::{net::IpAddr, sync::Arc};

use lb_text::is_host;

use super::{
    AdminState, BackendSpec, ModelError, Origin, ServiceSpec, backend_name,
    service::{parse_backend, shares},
};

/// A host as declared. Identity within a service is (`host`, `port`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name, in lower case. With a dot at the end it is the whole name, to which no search domain is added.
    pub host: Arc<str>,
    /// Target port.
    pub port: u16,
    /// Of each of its backends; 0: no new flows.
    pub weight: u16,
    /// Of each of its backends; `None`: no limit.
    pub max_connections: Option<u32>,
    /// Its backends are declared to be this node's.
    pub local: bool,
    /// Its backends take new flows only while nobody does who isn't one.
    pub backup: bool,
    /// Who declares it.
    pub origin: Origin,
}

impl HostSpec {
    /// `db.example.com:5432`
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The backend that it is at one of its addresses.
    pub fn at(&self, address: IpAddr) -> BackendSpec {
        BackendSpec {
            address,
            port: Some(self.port),
            weight: self.weight,
            max_connections: self.max_connections,
            local: self.local,
            backup: self.backup,
            host: Some(self.host.clone()),
            lists: None,
            admin: AdminState::Active,
            origin: self.origin,
        }
    }

    /// Is this one of its backends?
    pub fn has(&self, backend: &BackendSpec) -> bool {
        backend.host.as_ref() == Some(&self.host) && backend.port == Some(self.port)
    }
}

/// A backend as declared: at an address, or at whatever addresses a host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// One backend.
    Address(BackendSpec),
    /// As many as the host has addresses.
    Host(HostSpec),
}

impl Member {
    /// What it is called where it is declared.
    pub fn name(&self) -> String {
        match self {
            Self::Address(backend) => backend.name(),
            Self::Host(host) => host.name(),
        }
    }
}

/// `db.example.com:5432` in its one form: in lower case. A dot after the name belongs to it: it isn't looked for in search
/// domains. `None`: it isn't a [host's name](is_host) and a port.
pub fn parse_host(text: &str) -> Option<(Arc<str>, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0 && !text.contains(":+"))?;
    is_host(host).then(|| (host.to_ascii_lowercase().into(), port))
}

/// What a backend is called, in its one form, however it is written.
///
/// # Errors
/// It is neither an address nor a host's name and port.
pub fn backend_key(service: &str, text: &str) -> Result<String, ModelError> {
    match (parse_backend(service, text), parse_host(text)) {
        (Ok((address, port)), _) => Ok(backend_name(address, port)),
        (Err(_), Some((host, port))) => Ok(format!("{host}:{port}")),
        (Err(error), None) => Err(error),
    }
}

/// A host as typed, with weight and limit checked; `None`: it isn't one.
///
/// # Errors
/// What is wrong with it.
pub fn make_host(
    service: &str,
    text: &str,
    weight: Option<i64>,
    max_connections: Option<i64>,
    origin: Origin,
) -> Result<Option<HostSpec>, ModelError> {
    let Some((host, port)) = parse_host(text) else { return Ok(None) };
    let (weight, max_connections) = shares(service, format!("{host}:{port}"), weight, max_connections)?;
    Ok(Some(HostSpec { host, port, weight, max_connections, local: false, backup: false, origin }))
}

impl ServiceSpec {
    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&HostSpec> {
        self.hosts.iter().find(|host| host.name() == name)
    }

    /// Hosts of which no address is a backend.
    pub fn unresolved(&self) -> impl Iterator<Item = &HostSpec> {
        self.hosts.iter().filter(|host| !self.backends.values().any(|backend| host.has(backend)))
    }
}

#[cfg(test)]
mod tests {
    use super::parse_host;

    #[test]
    fn names_of_hosts_have_one_form() {
        for (text, host, port) in [
            ("db.example.com:5432", "db.example.com", 5432),
            ("DB.Example.com:5432", "db.example.com", 5432),
            ("DB.Example.com.:5432", "db.example.com.", 5432),
            ("db:1", "db", 1),
            ("my_db-1.0a:65535", "my_db-1.0a", 65535),
        ] {
            assert_eq!(parse_host(text), Some((host.into(), port)), "{text}");
        }
    }

    #[test]
    fn what_may_be_a_mistyped_address_is_no_name() {
        let long = format!("{}:80", "a".repeat(64));
        for text in [
            "nonsense",
            "db.example.com",
            "db:0",
            "db:65536",
            "db:+80",
            "db:http",
            ":80",
            ".:80",
            "db..:80",
            "10.0.1.:80",
            "10.0.0.300:80",
            "10.0.1:80",
            "1:80",
            "fd00::11:80x",
            "fd00::1",
            "a..b:80",
            "-a:80",
            "a-.b:80",
            "a/24:80",
            "ünter.de:80",
            "[db]:80",
            &long,
        ] {
            assert_eq!(parse_host(text), None, "{text}");
        }
    }
}
