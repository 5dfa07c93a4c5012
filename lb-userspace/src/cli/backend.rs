//! `flowpin backend`

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::{Context, Failure, drain, everywhere, output::plural, tables};
use crate::api::types::{BackendDecl, BackendView, Deed, Drain, Patch, Task};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a backend to a service, or declare one anew that was added before
    #[command(after_help = "\
Examples:
  flowpin backend add db 10.0.1.11:5432
  flowpin backend add db 10.0.1.12:5432 --weight 2 --max-connections 300
  flowpin backend add web '[fd00::11]:8080'
  flowpin backend add db db.example.com:5432  each address that the name has in the DNS, followed as that changes
  flowpin backend add web fd00::12            at the port that the client used, or to which the service's port leads
  flowpin backend add web 10.244.1.7 --local  one of this node's, for frontends with --scope local

Open connections stay where they are; new ones see the backend when the command returns.")]
    Add(Add),
    /// Change settings of a backend that the command line added; open connections stay
    #[command(after_help = "\
Examples:
  flowpin backend set db 10.0.1.11:5432 --weight 3
  flowpin backend set db 10.0.1.11:5432 --default max-connections     no limit any more

What isn't named stays as it is. What the config file declares is changed there: edit the file and send the agent SIGHUP.")]
    Set(Set),
    /// List backends, of one service or of all
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  flowpin backend list\n  flowpin backend list db -o json"
    )]
    List {
        /// Service; all if none is named
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        service: Option<String>,
    },
    /// Send no new connections to a backend and let those that are open end by themselves
    #[command(after_help = "\
Examples:
  flowpin backend drain db 10.0.1.11:5432
  flowpin backend drain db 10.0.1.11:5432 --wait
  flowpin backend drain db 10.0.1.11:5432 --deadline 15m --wait
  flowpin backend drain db 10.0.1.11:5432 --cluster --wait      at all nodes that share their counts

With --wait it returns when no connection is left. At the deadline the service's on_deadline decides: \
\"reset\" closes what is left, both ends at once; \"keep\", the default, leaves it open, and the command fails. Ctrl-C ends the waiting and not the drain; \
\"flowpin backend undrain\" ends the drain.")]
    Drain(DrainArgs),
    /// Send new connections to a draining backend again
    #[command(after_help = "\
Examples:
  flowpin backend undrain db 10.0.1.11:5432
  flowpin backend undrain db 10.0.1.11:5432 --cluster     at all nodes")]
    Undrain(UndrainArgs),
    /// Remove a backend that the command line added; its open connections go on until they end
    #[command(
        visible_alias = "rm",
        after_help = "\
Example:
  flowpin backend remove db 10.0.1.11:5432

What the config file declares is removed there: edit the file and send the agent SIGHUP."
    )]
    Remove(Which),
}

#[derive(Debug, clap::Args)]
pub struct Which {
    /// Service
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    service: String,
    /// Backend, as "backend list" writes it: 10.0.1.11:5432, [fd00::11]:5432, or without port; to change or
    /// remove a host, its name and port
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    address: String,
}

#[derive(Debug, clap::Args)]
pub struct Add {
    /// Service
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    service: String,
    /// Where it is: 10.0.1.11:5432, [fd00::11]:5432, or without port: then it is the one that the client used, or to
    /// which the service's port leads; or a host's name and port: db.example.com:5432
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    address: String,
    /// Its share compared with the others', 0 to 65535; with 0 it gets nothing new [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    weight: Option<i64>,
    /// Most active connections; more are given to others [default: no limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_connections: Option<i64>,
    /// It is one of this node's, for frontends with --scope local; one that has an address of the node's own is anyway
    #[arg(long)]
    local: bool,
    /// It gets new connections only while no other backend takes any
    #[arg(long)]
    backup: bool,
}

#[derive(Debug, clap::Args)]
#[group(id = "change", required = true, multiple = true)]
pub struct Change {
    /// Its share compared with the others', 0 to 65535; with 0 it gets nothing new
    #[arg(long, allow_negative_numbers = true)]
    weight: Option<i64>,
    /// Most active connections; more are given to others
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_connections: Option<i64>,
    /// It is one of this node's, for frontends with --scope local
    #[arg(long)]
    local: bool,
    /// It gets new connections only while no other backend takes any
    #[arg(long)]
    backup: bool,
    /// Take settings back, by the names of their flags: weight 1, no limit, not declared to be local, no backup; may be given several times
    #[arg(long, value_name = "SETTING,...", value_delimiter = ',', value_parser = ["weight", "max-connections", "local", "backup"], hide_possible_values = true)]
    default: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct Set {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    change: Change,
}

impl Change {
    /// As a patch. What is given and taken back is given.
    fn patch(self) -> Patch {
        let mut patch = Patch::new();
        for word in self.default {
            patch.insert(word.replace('-', "_"), serde_json::Value::Null);
        }
        let given = [("weight", self.weight), ("max_connections", self.max_connections)];
        patch.extend(given.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?.into()))));
        for (key, given) in [("local", self.local), ("backup", self.backup)] {
            if given {
                patch.insert(key.into(), true.into());
            }
        }
        patch
    }
}

#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    #[command(flatten)]
    which: Which,
    /// When it should be done, as 15m; connections open then are closed if the service says so (on_deadline), or stay and are reported
    #[arg(long, value_name = "DURATION", value_parser = at_least_a_second)]
    deadline: Option<Duration>,
    /// Show what is left and return when it is nothing, or the deadline has passed
    #[arg(long)]
    wait: bool,
    /// At all nodes that share their counts ([cluster] in the config file)
    #[arg(long)]
    cluster: bool,
}

#[derive(Debug, clap::Args)]
pub struct UndrainArgs {
    #[command(flatten)]
    which: Which,
    /// At all nodes that share their counts
    #[arg(long)]
    cluster: bool,
}

/// A duration of at least a second, since the API counts in seconds.
///
/// # Errors
/// It isn't one.
pub fn at_least_a_second(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.as_secs() > 0 => Ok(duration),
        _ => Err("write a duration from 1s, like 90s, 15m or 3h".into()),
    }
}

/// A backend with the name of its service.
#[derive(Serialize)]
pub struct Owned<'a> {
    /// Service.
    pub service: &'a str,
    /// Backend.
    #[serde(flatten)]
    pub backend: &'a BackendView,
}

/// The answer to a removal.
#[derive(Serialize)]
struct Removed<'a> {
    service: &'a str,
    address: &'a str,
    removed: bool,
}

impl Command {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Context { client, printer } = context;
        match self {
            Self::Add(Add { service, address, weight, max_connections, local, backup }) => {
                let add = BackendDecl { address, weight, max_connections, local, backup };
                let backend = client.add_backend(&service, &add).await?;
                printer.print(&Owned { service: &service, backend: &backend }, |o| {
                    let BackendView { address, weight, host, healthy, .. } = o.backend;
                    let (what, addresses) = match (host, healthy) {
                        (None, _) => ("backend", ""),
                        (Some(_), true) => ("host", ""),
                        (Some(_), false) => {
                            ("host", "; no address of it takes connections yet, see: flowpin status")
                        }
                    };
                    format!("{what} {address} of service \"{service}\" added with weight {weight}{addresses}")
                })?;
            }
            Self::Set(Set { which: Which { service, address }, change }) => {
                let backend = client.set_backend(&service, &address, &change.patch()).await?;
                printer.print(&Owned { service: &service, backend: &backend }, |o| {
                    let limit = o
                        .backend
                        .max_connections
                        .map_or("no limit".into(), |n| plural(n.into(), "connection"));
                    format!(
                        "backend {} of service \"{service}\" changed: weight {}, {limit}{}{}",
                        o.backend.address,
                        o.backend.weight,
                        if o.backend.local { ", local" } else { "" },
                        if o.backend.backup { ", backup" } else { "" }
                    )
                })?;
            }
            Self::List { service } => {
                let services = match service {
                    Some(name) => vec![client.service(&name).await?],
                    None => client.services().await?,
                };
                let list: Vec<Owned<'_>> = services
                    .iter()
                    .flat_map(|s| s.backends.iter().map(|backend| Owned { service: &s.name, backend }))
                    .collect();
                printer.print(&list, |_| tables::backends(&services))?;
            }
            Self::Drain(DrainArgs { which: Which { service, address }, deadline, wait, cluster }) => {
                let request = Drain { deadline_seconds: deadline.map(|d| d.as_secs()) };
                if cluster {
                    let task = Task { service, backend: address, deed: Deed::Drain(request) };
                    return match wait {
                        true => everywhere::drain_and_wait(context, task).await,
                        false => everywhere::run(context, task).await,
                    };
                }
                let backend = client.drain(&service, &address, &request).await?;
                if wait {
                    return drain::wait(context, &service, backend).await;
                }
                printer.print(&Owned { service: &service, backend: &backend }, drained)?;
            }
            Self::Undrain(UndrainArgs { which: Which { service, address }, cluster: true }) => {
                let task = Task { service, backend: address, deed: Deed::Undrain };
                return everywhere::run(context, task).await;
            }
            Self::Undrain(UndrainArgs { which: Which { service, address }, cluster: false }) => {
                let backend = client.undrain(&service, &address).await?;
                printer.print(&Owned { service: &service, backend: &backend }, |o| {
                    format!(
                        "backend {} of service \"{service}\" takes new connections again",
                        o.backend.address
                    )
                })?;
            }
            Self::Remove(Which { service, address }) => {
                client.remove_backend(&service, &address).await?;
                printer.print(&Removed { service: &service, address: &address, removed: true }, |_| {
                    format!("backend {address} of service \"{service}\" removed")
                })?;
            }
        }
        Ok(())
    }
}

/// How far a drain is.
pub fn drained(o: &Owned<'_>) -> String {
    let left = plural(o.backend.active_connections, "connection");
    format!("backend {} of service \"{}\" is {}: {left} left", o.backend.address, o.service, o.backend.state)
}
