//! What can be wrong with a declaration.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;

use super::{AlgorithmKind, PortRange};

/// What can be wrong with a declaration. Each message names the value and the remedy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the message is the documentation of each variant and names its fields")]
pub enum ModelError {
    #[error("port 0 is not a port; use 1 to 65535")]
    PortZero,
    #[error("port range {first}-{last} runs backwards; write {last}-{first}")]
    PortRangeReversed { first: u16, last: u16 },
    #[error(
        "{text:?} is not a port; write 5432/tcp, 53/udp, 8001-8003/tcp or, with the backends' port, 80:8080/tcp; \
         ports from 1 to 65535"
    )]
    PortSyntax { text: String },
    #[error("{ports} are to lead to {target}; give as many ports as there are, like 8001-8003:9001-9003/tcp")]
    TargetCount { ports: PortRange, target: PortRange },
    #[error("{text:?} is not an address; write IPv4 like 10.96.0.10 or IPv6 like fd00::10")]
    NotAnAddress { text: String },
    #[error(
        "service name {name:?} is not usable; use 1 to 253 of a-z A-Z 0-9 . _ - with / or : between parts"
    )]
    BadName { name: String },
    #[error("service {name:?} is declared twice; give each a name of its own")]
    DuplicateService { name: String },
    #[error(
        "service {service:?}: {vip} can't be a VIP; use a unicast address, or 0.0.0.0 or :: for all of the node's own"
    )]
    BadVip { service: String, vip: IpAddr },
    #[error("{text:?} is not a prefix; write 10.0.0.0/8, fd00::/64, or an address")]
    NotAPrefix { text: String },
    #[error("prefix {text:?} has bits beyond its length; write {meant}, or the address without a length")]
    HostBits { text: String, meant: IpNet },
    #[error("service {service:?}: {text} is not of the VIP's family ({vip}); use {family}")]
    OtherFamilyThanVip { service: String, text: String, vip: IpAddr, family: &'static str },
    #[error(
        "service {service:?}: vip_except leaves addresses out of all of the node's, and the VIP is {vip}; leave it out, or use 0.0.0.0 or ::"
    )]
    ExceptOfOne { service: String, vip: IpAddr },
    #[error(
        "service {service:?}: with forward = {forward:?} backends have the VIP themselves, which the node's own addresses can't be; use nat or snat"
    )]
    DirectAnywhere { service: String, forward: &'static str },
    #[error(
        "{prefixes} source ranges in all are too many (deny_ranges count as the prefixes that they leave); the limit is \
         65536 for each IP version"
    )]
    TooManyPrefixes { prefixes: usize },
    #[error("service {service:?} has no address; give it a vip, like 10.96.0.10")]
    NoAddress { service: String },
    #[error(
        "service {service:?}: source_ranges has no {family} prefix, and {address} is {family}: nobody could \
         connect to it; add one, or {all} for everybody"
    )]
    NobodyAdmitted { service: String, address: IpAddr, family: &'static str, all: &'static str },
    #[error(
        "service {service:?}: deny_ranges leave no {family} client, and {address} is {family}: nobody could connect to \
         it; take a prefix out of them, or the address out of the service"
    )]
    EverybodyDenied { service: String, address: IpAddr, family: &'static str },
    #[error(
        "service {service:?}: only processes of the node get to {vip}, and source_ranges and deny_ranges are about \
         others; give it a frontend of its own with source_ranges = [] and deny_ranges = []"
    )]
    SourcesAtLoopback { service: String, vip: IpAddr },
    #[error(
        "frontend {addresses}: source_ranges of the service are all of the other IP version; give the frontend its \
         own, or [] for everybody"
    )]
    NoneInherited { addresses: String },
    #[error("service {service:?} has no ports; give at least one, like 5432/tcp")]
    NoPorts { service: String },
    #[error("service {service:?}: ports {a} and {b} overlap at {vip}; merge them, or leave one out")]
    OwnOverlap { service: String, vip: IpAddr, a: PortRange, b: PortRange },
    #[error("services {a:?} and {b:?} overlap at {vip} port {port}; give one of them another VIP or port")]
    Overlap { a: String, b: String, vip: IpAddr, port: PortRange },
    #[error(
        "service {service:?}: backend {text:?} is not an address; write 10.0.1.11, 10.0.1.11:5432, [fd00::11]:5432 or, by \
         its name and port, db.example.com:5432"
    )]
    BadBackend { service: String, text: String },
    #[error(
        "service {service:?}: backend {backend} is not of the VIP's family ({vip}); use an {family} backend, or \
         add a VIP of its family"
    )]
    OtherFamily { service: String, backend: String, vip: IpAddr, family: &'static str },
    #[error("service {service:?}: backend {backend} is declared twice; raise its weight instead")]
    DuplicateBackend { service: String, backend: String },
    #[error("service {service:?}: backend {backend} is the VIP of service {owner:?}; name the real server")]
    BackendIsVip { service: String, backend: String, owner: String },
    #[error(
        "service {service:?}: backend {backend} can't be reached; use a unicast address that is not loopback or unspecified"
    )]
    UnusableBackend { service: String, backend: String },
    #[error(
        "service {service:?}: weight {weight} of backend {backend} is out of range; use 0 to 65535; with 0 it gets nothing new"
    )]
    Weight { service: String, backend: String, weight: i64 },
    #[error(
        "service {service:?}: max_connections {limit} of backend {backend} is out of range; use 1 to 4294967294, or leave it out"
    )]
    MaxConnections { service: String, backend: String, limit: i64 },
    #[error(
        "service {service:?}: backend {backend} has no port that its checks can go to; set health.port, give it one, or set health to none"
    )]
    NothingToCheck { service: String, backend: String },
    #[error(
        "service {service:?}: port {port} leads to another port, and with forward = {forward:?} none can be \
         replaced; leave the second out"
    )]
    DirectTarget { service: String, port: PortRange, forward: &'static str },
    #[error(
        "service {service:?}: forward = \"snat\" needs an {family} address of the node's, and it has none; give \
         it one, or name it in [snat]"
    )]
    NoSource { service: String, family: &'static str },
    #[error(
        "service {service:?}: backend {backend} names a port, and with forward = {forward:?} none can be replaced; leave it out"
    )]
    DirectPort { service: String, backend: String, forward: &'static str },
    #[error(
        "service {service:?}: timeouts.{timeout} needs to see what backends answer, and with forward = {forward:?} that goes past the node; \
         leave it out"
    )]
    DirectTimeout { service: String, timeout: &'static str, forward: &'static str },
    #[error(
        "service {service:?}: backend {backend} is reached by way of {router}, not on a segment of this node; dsr-l2 can't get there, use dsr-ipip"
    )]
    NotOnSegment { service: String, backend: String, router: IpAddr },
    #[error(
        "service {service:?}: backend {backend} is the node itself, which can't be sent what it has; use nat, or leave it out"
    )]
    DirectToSelf { service: String, backend: String },
    #[error(
        "service {service:?}: forward = \"dsr-ipip\" needs Linux 6.7, which this node's kernel is not; use dsr-l2 or nat"
    )]
    OldKernel { service: String },
    #[error(
        "service {service:?} has quorum = {quorum} and health.panic = {panic}: with few healthy backends the one gives them no clients, and the \
         other gives clients to all; leave one out"
    )]
    QuorumAndPanic { service: String, quorum: u32, panic: u8 },
    #[error("affinity can be by {by:?} or have a group, {group}, not both; leave one out")]
    ByAndGroup { by: String, group: String },
    #[error(
        "service {service:?} has rebalance, which is for least-connections without affinity: a client that comes back would go to \
         where it was; leave one out"
    )]
    RebalancedOtherwise { service: String },
    #[error("algorithm {text:?} is not known; use {}", AlgorithmKind::ALL.map(AlgorithmKind::name).join(", "))]
    Algorithm { text: String },
    #[error("{what} {text:?} is not usable; write a duration like 30s, 15m or 3h, {range}")]
    Duration { what: &'static str, text: String, range: &'static str },
    #[error("health.{key} is not for health checks of type {kind:?}; leave it out, or use type {}", types.join(" or "))]
    NotOfType { key: &'static str, kind: String, types: &'static [&'static str] },
    #[error(
        "health checks of type \"postgres\" begin a login, and there is no user; add one, as user = \"flowpin\" (without \
         a role it needs no account)"
    )]
    NoUser,
    #[error(
        "health checks of type \"exec\" run a program on this node, which is off; write exec_checks = true in [agent] of \
         the config file, or use another type"
    )]
    ExecOff,
    #[error(
        "health checks of type \"exec\" run a program on this node, and only the config file may name one: not the \
         command line, the API, the state file or a cluster; declare the service there, with exec_checks = true in [agent]"
    )]
    ExecNotOfFile,
    #[error(
        "on_removal \"reset\" resets at once and has no deadline; use \"drain\" or \"keep\" with it, or leave it out"
    )]
    ResetHasNoDeadline,
    #[error("health.password \"***\" is what is shown in the place of one; write the password itself")]
    ShownPassword,
    #[error(
        "health.talk {talk} expects nothing; add what the backend must answer, as {{ expect = \"+PONG\" }}, or leave talk \
         out: then a connection is enough"
    )]
    TalkExpectsNothing { talk: String },
    #[error("{what}: {why}")]
    Probe { what: &'static str, why: lb_probes::Invalid },
    #[error("{what} {text:?} is not known; use {known}")]
    NotKnown { what: &'static str, text: String, known: &'static str },
    #[error(
        "services {a:?} and {b:?} share affinity group {group:?} with different settings; give both the same timeout, ipv6_prefix and bound"
    )]
    Group { group: String, a: String, b: String },
    #[error("{count} services are too many; the limit is 16000 on one node")]
    TooManyServices { count: usize },
    #[error("service {service:?} has {count} backends; the limit is 8192 a service")]
    TooManyBackends { service: String, count: usize },
    #[error(
        "{ports} ports in all (ranges counted port by port) are too many; the limit is 262144 for each IP version"
    )]
    TooManyPorts { ports: u64 },
    #[error(
        "{ports} ports in all, those of VIP 0.0.0.0 or :: counted for each of the node's {own} addresses, are too many; \
         the limit is 262144 for each IP version"
    )]
    TooManyPortsOfNode { ports: u64, own: usize },
    #[error("{vips} VIPs are too many; the limit is 16384 for each IP version")]
    TooManyVips { vips: usize },
    #[error("the backends need {blocks} blocks of 16; the limit is 16383 in all")]
    TooManyBlocks { blocks: usize },
}

/// What is wrong with a service, to be said where its name is said already: an error's own words name it too.
pub fn about_it<'a>(service: &str, error: &'a str) -> Cow<'a, str> {
    match error.strip_prefix(&format!("service {service:?}")) {
        Some(rest) if rest.starts_with(' ') => format!("it{rest}").into(),
        Some(rest) => rest.strip_prefix(": ").unwrap_or(error).into(),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_once() {
        let twice = ModelError::DuplicateService { name: "pg".into() }.to_string();
        assert_eq!(about_it("pg", &twice), "it is declared twice; give each a name of its own");
        let none = ModelError::NoPorts { service: "pg".into() }.to_string();
        assert!(about_it("pg", &none).starts_with("it has no ports"), "{none}");
        let backend = ModelError::BadBackend { service: "pg".into(), text: "x".into() }.to_string();
        assert!(about_it("pg", &backend).starts_with("backend \"x\" is not"), "{backend}");
        for others in ["service \"pg2\" has no ports", "ports: is missing"] {
            assert_eq!(about_it("pg", others), others);
        }
    }
}
