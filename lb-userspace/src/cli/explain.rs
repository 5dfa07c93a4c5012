//! `flowpin explain`

use super::{
    Context, Failure,
    output::{Table, count, or_dash, yes},
};
use crate::api::types::{EndpointsView, ExplainQuery, ExplainView};

/// Say which backend a client is at, or would be given to, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin explain 192.0.2.7 10.96.0.10:5432            where would its next connection go?
  flowpin explain 192.0.2.7:40000 10.96.0.10:5432      where is this one, or where would it go?
  flowpin explain 192.0.2.7:5353 10.96.0.53:53 --protocol udp

OTHERS are connections of other nodes that share their counts ([cluster]). Of a Kubernetes Service it also says which policy, hints and conditions of endpoints decided.")]
pub struct Args {
    /// The client: an address, or an address and a port
    #[arg(value_name = "CLIENT[:PORT]")]
    client: String,
    /// Where it connects to
    #[arg(value_name = "VIP:PORT")]
    vip: String,
    /// tcp or udp
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "udp"])]
    protocol: String,
}

impl Args {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let query = ExplainQuery { client: self.client, vip: self.vip, protocol: Some(self.protocol) };
        context.printer.print(&context.client.explain(&query).await?, text)?;
        Ok(())
    }
}

fn text(view: &ExplainView) -> String {
    let backend = view.backend.as_deref().unwrap_or("-");
    let mut table = Table::new(&[
        "BACKEND",
        "TAKES NEW",
        ">ACTIVE",
        ">OTHERS",
        ">CLIENTS",
        ">WEIGHT NOW",
        ">LIMIT",
        "NOTE",
    ]);
    for c in &view.candidates {
        table.row([
            c.backend.clone(),
            yes(c.takes_new),
            count(c.active_connections),
            or_dash(c.others.map(|n| count(n.into()))),
            or_dash(c.clients.map(count)),
            count(c.weight_in_force),
            or_dash(c.max_connections.map(|n| count(n.into()))),
            c.note.clone(),
        ]);
    }
    let table = if view.candidates.is_empty() { String::new() } else { table.to_string() };
    let cluster = view.kubernetes.as_ref().map(cluster).unwrap_or_default();
    format!(
        "{} -> {} (service \"{}\"): {backend}\n{}\n\n{table}{cluster}",
        view.client, view.vip, view.service, view.why
    )
}

/// What of a Kubernetes Service decided.
fn cluster(view: &EndpointsView) -> String {
    let mut table =
        Table::new(&["ENDPOINT", "READY", "SERVING", "TERMINATING", "THIS NODE", "HINTS", "USED", "WHY"]);
    for e in &view.endpoints {
        let mut hints: Vec<String> = e.zones.iter().map(|zone| format!("zone {zone}")).collect();
        hints.extend(e.for_this_node.map(|me| if me { "this node".into() } else { "other nodes".into() }));
        table.row([
            e.address.clone(),
            yes(e.ready),
            yes(e.serving),
            yes(e.terminating),
            yes(e.on_this_node),
            or_dash(Some(hints.join(", ")).filter(|hints| !hints.is_empty())),
            yes(e.used),
            e.why.clone(),
        ]);
    }
    let port = if view.port.is_empty() { String::new() } else { format!(", port \"{}\"", view.port) };
    format!(
        "\n\nKubernetes:  Service {}{port}, by its {}\nPolicy:      {}\nHints:       {}\n\n{table}",
        view.service, view.frontend, view.policy, view.hints
    )
}
