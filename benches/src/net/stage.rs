//! A client, a node and backends in namespaces of their own, with one contender on the node.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use flowpin_tests::harness::{Net, Ns, program};

use super::{
    contender::{Contender, Running, in_turn},
    load::CLIENTS,
    server::Server,
};

/// Backends of the service that is measured, and of all the others.
pub const BACKENDS: usize = 4;
/// The address of the service that is measured.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// A contender where it can be measured. Everything goes when this does.
pub struct Stage {
    /// What tables call it.
    pub name: &'static str,
    /// Who is on the node.
    pub contender: Contender,
    /// Services that it has.
    pub services: u32,
    /// The servers.
    pub servers: Vec<Server>,
    /// What runs or lies on the node.
    pub running: Running,
    /// The namespaces.
    pub net: Net,
}

impl Stage {
    /// Sets everything up.
    ///
    /// # Errors
    /// The contender can't be started.
    pub fn set(contender: Contender, services: u32) -> Result<Self> {
        let net = Net::new(BACKENDS);
        for i in 1..CLIENTS {
            net.client.ip(&format!("addr add 10.1.0.{}/24 dev eth0", 2 + i));
        }
        if contender.on_node() {
            for i in 0..CLIENTS {
                net.node.ip(&format!("addr add 10.9.0.{}/32 dev lo", 2 + i));
            }
        }
        for ns in [&net.client, &net.node].into_iter().chain(&net.backends) {
            // Above the servers' ports, or a connection to one that isn't there yet might meet itself. And all namespaces share one hash of sockets: what lingers after one contender would slow down the next.
            let few = "net.ipv4.tcp_max_tw_buckets=1000";
            program::run(ns, "sysctl", &["-qw", "net.ipv4.ip_local_port_range=10000 65000", few]);
        }
        let servers = net.backends.iter().map(Server::start).collect::<Result<_>>()?;
        let running = contender
            .start(&net.node, services)
            .with_context(|| format!("{} with {services} services", contender.name()))?;
        Ok(Self { name: contender.name(), contender, services, servers, running, net })
    }

    /// What it is, and what its program has said, for errors.
    pub fn describe(&self) -> String {
        let said = match &self.running {
            Running::Program { running } => running.log(),
            _ => String::new(),
        };
        format!("{} with {} services\n{said}", self.name, self.services)
    }

    /// Where a client connects to. `turn`: without a balancer, clients take the backends in turn.
    pub fn target(&self, port: u16, turn: usize) -> SocketAddr {
        let backend = turn % BACKENDS;
        let address = match self.contender {
            Contender::SocketInTurn => in_turn(backend),
            contender if contender.balances() => VIP,
            _ => Ipv4Addr::new(10, 2, backend as u8, 2),
        };
        (address, port).into()
    }

    /// Where clients are.
    pub const fn clients(&self) -> &Ns {
        if self.contender.on_node() { &self.net.node } else { &self.net.client }
    }

    /// The address of client `number`.
    pub const fn from(&self, number: usize) -> Ipv4Addr {
        let network = if self.contender.on_node() { 9 } else { 1 };
        Ipv4Addr::new(10, network, 0, 2 + (number % CLIENTS) as u8)
    }

    /// Packets that have arrived at the backends.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn arrived(&self) -> Result<u64> {
        let mut sum = 0;
        for ns in &self.net.backends {
            let links: serde_json::Value = serde_json::from_str(&ns.ip("-j -s link show eth0"))?;
            sum +=
                links.pointer("/0/stats64/rx/packets").and_then(|v| v.as_u64()).context("no statistics")?;
        }
        Ok(sum)
    }
}
