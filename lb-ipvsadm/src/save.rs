//! What `-S` prints, and `-R` reads: of Flowpin's table what ipvsadm has words for.

use std::fmt::Write;

use crate::{
    Table,
    change::{option, socket},
    settings::{Said, say},
    table::{Frontend, Service},
};

/// A table in ipvsadm's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// A command a line.
    pub text: String,
    /// Which frontends aren't in it, a sentence each.
    pub left_out: Vec<String>,
    /// What isn't in it of services that are, a sentence each.
    pub unsaid: Vec<String>,
}

/// Writes services down, in order of protocol, address and port.
pub fn save(table: &Table) -> Saved {
    let mut saved = Saved::default();
    for (service, frontend) in table.sorted() {
        let why = match frontend.place() {
            Some(place) if place.port == 0 && service.affinity.is_none() => {
                "every port, which goes with -p only"
            }
            Some(_) => {
                block(&mut saved.text, service, frontend);
                continue;
            }
            None => "a range of ports",
        };
        let Frontend { protocol, .. } = frontend;
        saved.left_out.push(format!(
            "service \"{}\" at {} {}: {why}",
            service.name,
            protocol.name(),
            frontend.shown()
        ));
    }
    for service in &table.services {
        let unsaid = &service.unsaid;
        if !unsaid.is_empty() {
            saved.unsaid.push(format!("service \"{}\": {}", service.name, unsaid.join(", ")));
        }
    }
    saved
}

fn block(text: &mut String, service: &Service, frontend: &Frontend) {
    let at = format!("{} {}", frontend.protocol.option(), frontend.shown());
    let Said { scheduler, flag, persistence, ipv6_prefix } =
        say(service.algorithm, service.affinity.as_ref());
    // Every port goes with persistence only.
    let every = frontend.first != frontend.last;
    let persistence = persistence.or_else(|| {
        let affinity = service.affinity.filter(|_| every)?;
        Some(affinity.timeout.as_secs())
    });
    // A string takes everything.
    let _ = write!(text, "-A {at} -s {scheduler}");
    if let Some(seconds) = persistence {
        let _ = write!(text, " -p {seconds}");
    }
    if let Some(bits) = ipv6_prefix {
        let _ = write!(text, " -M {bits}");
    }
    if let Some(flag) = flag {
        let _ = write!(text, " -b {flag}");
    }
    text.push('\n');
    let mut servers: Vec<_> = frontend.servers(service).collect();
    servers.sort_by_key(|server| (server.address, frontend.port_of(server)));
    for server in servers {
        let place = socket(server.address, frontend.port_of(server).unwrap_or(0));
        let (way, weight) = (option(frontend.forward), server.weight_kept());
        let _ = write!(text, "-a {at} -r {place} {way} -w {weight}");
        if let Some(limit) = server.limit {
            let _ = write!(text, " -x {limit}");
        }
        text.push('\n');
    }
}
