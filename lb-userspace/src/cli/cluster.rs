//! `flowpin cluster`

use std::path::PathBuf;

use super::{
    Context, Failure,
    output::{Table, bytes, count, duration, or_dash, plural},
};
use crate::api::types::{ClusterView, MemberView, SharedView};

/// Show the nodes that share their counts, and each service's connections over all of them
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  flowpin cluster                     members, services, what was refused
  flowpin cluster app                 each backend's connections, own and others'
  flowpin cluster -o json | jq '.services[] | select(.shared | not)'
  flowpin cluster keygen /etc/flowpin/tls --cluster prod node-1 node-2 node-3

A service that isn't shared is balanced by this node's own counts: nobody was heard of for a second, or what was heard \
is too old for how fast connections come."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// One service's backends
    service: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Keygen(Keygen),
}

/// Make a small certificate authority, and a certificate and key for each node
///
/// What is there already is kept: nodes can be added later. Give each node ca.pem and its own two files; ca.key stays
/// where certificates are made. Works without an agent.
#[derive(Debug, clap::Args)]
struct Keygen {
    /// Where the files are, or are to be
    directory: PathBuf,
    /// The cluster's name, as in [cluster] of the config file
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Names of nodes, as in [cluster]
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

impl Args {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(Command::Keygen(keygen)) = self.command {
            return keygen.run(context);
        }
        let view = context.client.cluster().await?;
        match self.service {
            None => context.printer.print(&view, text)?,
            Some(name) => context.printer.print(&of(view, &name)?, backends)?,
        }
        Ok(())
    }
}

/// What is shared of a service.
pub fn of(view: ClusterView, name: &str) -> Result<SharedView, Failure> {
    view.services.into_iter().find(|service| service.name == name).ok_or_else(|| {
        Failure::Said(format!(
            "service \"{name}\" isn't shared: there is no such service, it has had no connections at this node, or it \
             doesn't go by least-connections without affinity"
        ))
    })
}

impl Keygen {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let made = lb_mesh::keygen::create(&self.directory, &self.cluster, &self.nodes)
            .map_err(|error| Failure::Said(error.to_string()))?;
        let made: Vec<String> = made.iter().map(|path| path.display().to_string()).collect();
        context.printer.print(&made, |made| match made.as_slice() {
            [] => "nothing to do: all files are there".into(),
            made => made.join("\n"),
        })?;
        Ok(())
    }
}

fn text(view: &ClusterView) -> String {
    let mut table = Table::new(&["NODE", "ADDRESS", ">CONNECTED", ">HEARD", "NOTE"]);
    for member in &view.members {
        table.row([
            member.name.clone(),
            or_dash(member.address.as_ref()),
            or_dash(member.connected_seconds.map(duration)),
            or_dash(member.heard_seconds.map(duration)),
            note(view, member),
        ]);
    }
    let mut text =
        format!("cluster \"{}\", {}\n\n{table}", view.cluster, plural(view.members.len() as u64, "node"));
    for peer in &view.unreachable {
        let address = peer.address.as_ref().filter(|address| **address != peer.peer);
        let address = address.map_or(String::new(), |address| format!(" ({address})"));
        text.push_str(&format!("\nNot reached: {}{address}: {}", peer.peer, peer.why));
    }
    if let Some(problem) = &view.certificate_problem {
        text.push_str(&format!("\nCertificate: {problem}"));
    }
    let refused: Vec<_> = view.refused.iter().filter(|(_, n)| **n > 0).collect();
    for (reason, times) in refused {
        text.push_str(&format!("\nRefused:     {reason}, {} times", count(*times)));
    }
    let [received, sent] = view.frames;
    let [bytes_in, bytes_out] = view.bytes;
    text.push_str(&format!(
        "\nMessages:    {} received ({}), {} sent ({})\n\n",
        count(received),
        bytes(bytes_in),
        count(sent),
        bytes(bytes_out)
    ));
    if view.services.is_empty() {
        return text + "no service has had connections at this node yet";
    }
    let mut table = Table::new(&["SERVICE", "OWNER", "SHARED", ">AGE", ">OWN", ">ALL", ">IMBALANCE"]);
    for service in &view.services {
        table.row([
            service.name.clone(),
            or_dash(service.owner.as_ref()),
            if service.shared { "yes" } else { "no: counts by itself" }.into(),
            or_dash(service.age_seconds.map(duration)),
            count(service.backends.iter().map(|it| u64::from(it.own)).sum()),
            or_dash(total(service).map(count)),
            or_dash(service.imbalance.map(|it| format!("{it:.2}"))),
        ]);
    }
    text + &table.to_string()
}

/// A service's connections over all nodes; `None`: not known.
fn total(service: &SharedView) -> Option<u64> {
    service.backends.iter().map(|it| it.others.map(|others| others + u64::from(it.own))).sum()
}

fn note(view: &ClusterView, member: &MemberView) -> String {
    let mut notes = Vec::new();
    if member.itself {
        notes.push("this node");
    }
    if view.aggregators.contains(&member.name) {
        notes.push("adds up");
    }
    if !member.itself && member.connected_seconds.is_none() {
        notes.push("not among the peers, or not reached");
    }
    if !member.incoming {
        notes.push("doesn't reach this node: are its peers the same?");
    }
    notes.join(", ")
}

/// A service's backends, own connections and others'.
pub fn backends(service: &SharedView) -> String {
    let mut table = Table::new(&["BACKEND", ">OWN", ">OTHERS", ">ALL"]);
    for it in &service.backends {
        table.row([
            it.address.clone(),
            count(it.own.into()),
            or_dash(it.others.map(count)),
            or_dash(it.others.map(|others| count(others + u64::from(it.own)))),
        ]);
    }
    let imbalance =
        service.imbalance.map_or(String::new(), |it| format!("\nfullest over mean, by weight: {it:.2}"));
    format!("{table}{imbalance}")
}
