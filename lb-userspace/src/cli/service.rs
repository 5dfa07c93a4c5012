//! `flowpin service`

use clap::{ValueEnum, builder::NonEmptyStringValueParser};
use serde::Serialize;

use super::{
    Context, Failure,
    frontend::{forward, frontend},
    tables,
};
use crate::{
    api::types::{AffinityDecl, ForwardDecl, FrontendDecl, ServiceAdd, ServiceDecl},
    model::AlgorithmKind,
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a service; it is in force, and kept over restarts, when the command returns
    #[command(after_help = "\
Examples:
  flowpin service add db --vip 10.96.0.10 --port 5432/tcp
  flowpin service add node --vip 0.0.0.0 --port 30080/tcp --source-range 192.168.0.0/16
  flowpin service add web --vip 10.96.0.80 --vip fd00::80 --port 80:8080/tcp --port 443:8443/tcp
  flowpin service add shop/app:http --vip 10.96.0.11 --port 8001-8003/tcp \\
      --algorithm consistent-hash
  flowpin service add shop --vip 10.96.0.12 --port 80:8080/tcp --forward pod=nat,elsewhere=snat \\
      --frontend address=0.0.0.0,address=::,port=30080:8080/tcp,forward=snat \\
      --frontend address=192.0.2.10,scope=local,source-range=198.51.100.0/24

All frontends of a service lead to the same backends, and a backend's connections are counted once, whichever way \
they came. --vip, --port, --scope, --source-range and --forward make the first one. Each --frontend is a list of \
KEY=VALUE with commas between: address, port and source-range (these may be repeated), scope, and forward, or \
forward-pod and forward-elsewhere. Ports, source ranges and forward are the first one's where a frontend names none; \"source-range=\" is everybody.

A service refuses connections (RST, port unreachable) until it has a backend: \
add some with \"flowpin backend add\".")]
    Add(Box<Add>),
    /// List services
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  flowpin service list
  flowpin service list -o json | jq -r '.[].name'

IN USE counts the backends that may take new connections: active (not draining) and healthy."
    )]
    List,
    /// Show one service with its backends, and what of it is not in force
    #[command(after_help = "Example:\n  flowpin service show db")]
    Show(Named),
    /// Remove a service that the command line added; open connections go on until they end
    #[command(
        visible_alias = "rm",
        after_help = "\
Example:
  flowpin service remove db

What the config file declares is removed there: edit the file and send the agent SIGHUP."
    )]
    Remove(Named),
}

#[derive(Debug, clap::Args)]
pub struct Named {
    /// The service's name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

#[derive(Debug, clap::Args)]
pub struct Add {
    /// A name for it, or namespace/name:port: 1 to 253 of a-z A-Z 0-9 . _ - with / or : between parts
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// Virtual address that clients connect to, IPv4 or IPv6; 0.0.0.0 or :: for all of the node's own; may be given
    /// several times
    #[arg(long = "vip", value_name = "ADDRESS", required = true)]
    vips: Vec<String>,
    /// An address of the node's to leave out of all; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    vip_except: Vec<String>,
    /// Take connections from there only, as 10.0.0.0/8; may be given several times [default: from everywhere]
    #[arg(long = "source-range", value_name = "PREFIX")]
    source_ranges: Vec<String>,
    /// Port or range with its protocol, as 5432/tcp, 53/udp or 8001-8003/tcp, or with the backends' port, as
    /// 80:8080/tcp; may be given several times
    #[arg(long = "port", value_name = "PORT[:TARGET]/PROTOCOL", required = true)]
    ports: Vec<String>,
    /// Which backends connections from elsewhere may go to: all, or those of this node [default: all]
    #[arg(long, value_parser = ["all", "local"])]
    scope: Option<String>,
    /// How packets get to backends: nat, snat, dsr-l2 or dsr-ipip, or by where they come from, as
    /// pod=nat,elsewhere=snat [default: nat]
    #[arg(long, value_name = "HOW", value_parser = forward)]
    forward: Option<ForwardDecl>,
    /// Another frontend, as address=192.0.2.10,port=80:8080/tcp,scope=local; may be given several times
    #[arg(long = "frontend", value_name = "KEY=VALUE,...", value_parser = frontend)]
    frontends: Vec<FrontendDecl>,
    /// What happens to a packet of a connection that isn't known: it is answered with a reset, or forwarded to a
    /// backend, or the stack gets it [default: reset; with consistent-hash: forward]
    #[arg(long, value_parser = ["reset", "forward", "pass"])]
    stray: Option<String>,
    /// How a backend is chosen for a new connection
    #[arg(long, value_enum, default_value_t = Algorithm::LeastConnections)]
    algorithm: Algorithm,
    /// Keep all connections of a client at one backend
    #[arg(long, value_enum, value_name = "BY")]
    affinity: Option<Affinity>,
    /// How long after its last connection a client is remembered, as 3h
    #[arg(long, value_name = "DURATION", requires = "affinity")]
    affinity_timeout: Option<String>,
    /// Services that name the same group send a client to the same backend
    #[arg(long, value_name = "GROUP", requires = "affinity", conflicts_with = "affinity_by")]
    affinity_group: Option<String>,
    /// What a client is bound at: the service, or each port by itself [default: service]
    #[arg(long, value_name = "WHAT", requires = "affinity", value_parser = ["service", "port"])]
    affinity_by: Option<String>,
    /// How many bits of an IPv6 address make a client [default: 128]
    #[arg(long, value_name = "BITS", requires = "affinity")]
    affinity_ipv6_prefix: Option<i64>,
    /// Connections of one client beyond which further ones are balanced like any other's [default: no bound]
    #[arg(long, value_name = "N", requires = "affinity")]
    affinity_bound: Option<i64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Algorithm {
    /// The backend with the fewest active connections for its weight
    LeastConnections,
    /// Maglev: the same client goes to the same backend, on every node
    ConsistentHash,
}

impl Algorithm {
    fn kind(self) -> AlgorithmKind {
        match self {
            Self::LeastConnections => AlgorithmKind::LeastConnections,
            Self::ConsistentHash => AlgorithmKind::ConsistentHash,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Affinity {
    /// By the client's address
    ClientIp,
}

/// The answer to a removal.
#[derive(Serialize)]
struct Removed<'a> {
    name: &'a str,
    removed: bool,
}

impl Command {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Context { client, printer } = context;
        match self {
            Self::Add(add) => {
                let view = client.add_service(&add.request()).await?;
                for warning in &view.warnings {
                    printer.note(format_args!("service \"{}\": {warning}", view.name));
                }
                printer.print(&view, |v| {
                    let places: Vec<String> = v.frontends.iter().map(tables::place).collect();
                    format!("service \"{}\" added at {}", v.name, places.join("; "))
                })?;
            }
            Self::List => printer.print(client.services().await?.as_slice(), tables::services)?,
            Self::Show(Named { name }) => printer.print(&client.service(&name).await?, tables::service)?,
            Self::Remove(Named { name }) => {
                client.remove_service(&name).await?;
                printer.print(&Removed { name: &name, removed: true }, |r| {
                    format!("service \"{}\" removed", r.name)
                })?;
            }
        }
        Ok(())
    }
}

impl Add {
    fn request(self) -> ServiceAdd {
        let affinity = self.affinity.map(|Affinity::ClientIp| AffinityDecl {
            client_ip: true,
            timeout: self.affinity_timeout,
            group: self.affinity_group,
            by: self.affinity_by,
            ipv6_prefix: self.affinity_ipv6_prefix,
            bound: self.affinity_bound,
        });
        let mut vips = self.vips.into_iter();
        let service = ServiceDecl {
            vip: vips.next(),
            vips: vips.collect(),
            vip_except: self.vip_except,
            source_ranges: self.source_ranges,
            ports: self.ports,
            scope: self.scope,
            forward: self.forward,
            stray: self.stray,
            algorithm: Some(self.algorithm.kind().name().into()),
            affinity,
            frontends: self.frontends,
        };
        ServiceAdd { name: self.name, service }
    }
}
