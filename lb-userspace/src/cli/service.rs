//! `flowpin service`

use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;
use serde_json::json;

use super::{
    Context, Failure,
    output::{Printer, plural},
    settings::{Change, Settings},
    tables,
};
use crate::{
    api::types::{Patch, ServiceView, SharedView},
    model::AlgorithmKind,
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a service; it is in force, and kept over restarts, when the command returns
    #[command(after_help = "\
Examples:
  flowpin service add db --vip 10.96.0.10 --port 5432/tcp --backend 10.0.1.11 --backend 10.0.1.12
  flowpin service add node --vip 0.0.0.0 --port 30080/tcp --source-range 192.168.0.0/16
  flowpin service add web --vip 10.96.0.80 --vip fd00::80 --port 80:8080/tcp --port 443:8443/tcp
  flowpin service add app --vip 10.96.0.13 --port 8080/tcp --health tcp --slow-start 30s \\
      --timeout-idle 15h --affinity client-ip --on-deadline reset
  flowpin service add shop/app:http --vip 10.96.0.11 --port 8001-8003/tcp \\
      --algorithm consistent-hash
  flowpin service add shop --vip 10.96.0.12 --port 80:8080/tcp --forward pod=nat,elsewhere=snat \\
      --frontend address=0.0.0.0,address=::,port=30080:8080/tcp,forward=snat \\
      --frontend address=192.0.2.10,scope=local,source-range=198.51.100.0/24

All frontends of a service lead to the same backends, and a backend's connections are counted once, whichever way \
they came. --vip, --port, --scope, --source-range, --deny-range and --forward make the first one. Each --frontend is \
a list of KEY=VALUE with commas between: address, port, source-range and deny-range (these may be repeated), scope, and \
forward, or forward-pod and forward-elsewhere. Ports, ranges and forward are the first one's where a frontend names \
none; \"source-range=,deny-range=\" is everybody.

A service refuses connections (RST, port unreachable) until it has a backend. Those of --backend are there from the first \
connection on; \"flowpin backend add\" adds others, and takes weights and limits.")]
    Add(Box<Add>),
    /// Change settings of a service that the command line added, while it is in use; open connections stay
    #[command(after_help = "\
Examples:
  flowpin service set db --timeout-idle 15h --slow-start 30s
  flowpin service set web --health http --health-path /healthz --on-unhealthy reset
  flowpin service set web --port 80:8080/tcp --port 443:8443/tcp      these are then all of its ports
  flowpin service set web --default slow-start,health                 as if they had never been given

What isn't named stays as it is. Flags that may be given several times name the whole list. --default takes back: a setting \
of its own (timeout-idle), or all of it (affinity, health). If the result is wrong, nothing changes. What the config file \
declares is changed there: edit the file and send the agent SIGHUP.")]
    Set(Set),
    /// List services
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  flowpin service list
  flowpin service list -n kube-system
  flowpin service list -o json | jq -r '.[].name'

IN USE counts the backends that may take new connections: active (not draining) and healthy. \
A Kubernetes Service is one service for each of its ports, named namespace/name:port."
    )]
    List(List),
    /// Show one service with its backends, and what of it is not in force
    #[command(after_help = "\
Examples:
  flowpin service show db
  flowpin service show db --cluster      each backend's connections over all nodes, too")]
    Show(Show),
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
pub struct Show {
    #[command(flatten)]
    service: Named,
    /// Over all nodes that share their counts, too
    #[arg(long)]
    cluster: bool,
}

#[derive(Debug, clap::Args)]
pub struct Add {
    /// A name for it, or namespace/name:port: 1 to 253 of a-z A-Z 0-9 . _ - with / or : between parts
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// A backend, as 10.0.1.11:5432, [fd00::11]:5432, or without port: then it is the one that the client used, or to
    /// which the service's port leads; or a host, as db.example.com:5432; may be given several times
    #[arg(long = "backend", value_name = "ADDRESS", value_parser = NonEmptyStringValueParser::new())]
    backends: Vec<String>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
pub struct Set {
    /// The service's name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
pub struct List {
    /// Only those of this namespace: named NAMESPACE/...
    #[arg(short, long, value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
    /// Of every namespace, and those of none (the default)
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

impl List {
    fn shows(&self, service: &ServiceView) -> bool {
        let Some(namespace) = &self.namespace else { return true };
        service.name.split_once('/').is_some_and(|(own, _)| own == namespace)
    }
}

fn namespace(text: &str) -> Result<String, String> {
    match text.split(['/', ':']).next() {
        Some("") | None => Err("a namespace has a name".into()),
        Some(name) if name != text => Err(format!("that is more than a namespace; write {name}")),
        Some(name) => Ok(name.into()),
    }
}

/// A service, and what all nodes together have of it.
#[derive(Serialize)]
struct OverAll {
    #[serde(flatten)]
    service: ServiceView,
    cluster: SharedView,
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
                let view = client.add_service(&request(*add)).await?;
                warn(printer, &view);
                printer.print(&view, |v| {
                    let places: Vec<String> = v.frontends.iter().map(tables::place).collect();
                    let backends = match v.backends.len() {
                        0 => String::new(),
                        n => format!(", with {}", plural(n as u64, "backend")),
                    };
                    format!("service \"{}\" added at {}{backends}", v.name, places.join("; "))
                })?;
            }
            Self::Set(Set { name, change: Change(change) }) => {
                let view = client.set_service(&name, &change).await?;
                warn(printer, &view);
                printer.print(&view, |v| {
                    format!(
                        "service \"{}\" changed: {}",
                        v.name,
                        change.keys().cloned().collect::<Vec<_>>().join(", ")
                    )
                })?;
            }
            Self::List(list) => {
                let mut services = client.services().await?;
                services.retain(|service| list.shows(service));
                printer.print(services.as_slice(), |services| match &list.namespace {
                    Some(namespace) if services.is_empty() => {
                        format!("no services in namespace \"{namespace}\"")
                    }
                    _ => tables::services(services),
                })?;
            }
            Self::Show(Show { service: Named { name }, cluster: false }) => {
                printer.print(&client.service(&name).await?, tables::service)?;
            }
            Self::Show(Show { service: Named { name }, cluster: true }) => {
                let service = client.service(&name).await?;
                let cluster = super::cluster::of(client.cluster().await?, &name)?;
                printer.print(&OverAll { service, cluster }, |it| {
                    let shared = super::cluster::backends(&it.cluster);
                    format!("{}\n\nOver all nodes:\n{shared}", tables::service(&it.service))
                })?;
            }
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

/// As the API wants a service that is made. What isn't said of the algorithm is written down, so that it stays.
fn request(Add { name, backends, settings: Settings(mut settings) }: Add) -> Patch {
    settings.entry("algorithm").or_insert_with(|| AlgorithmKind::LeastConnections.name().into());
    settings.insert("name".into(), name.into());
    if !backends.is_empty() {
        let decl = |address| json!({ "address": address });
        settings.insert("backends".into(), backends.into_iter().map(decl).collect());
    }
    settings
}

/// What a declaration has no effect on goes to stderr.
fn warn(printer: &Printer, view: &ServiceView) {
    for warning in &view.warnings {
        printer.note(format_args!("service \"{}\": {warning}", view.name));
    }
}
