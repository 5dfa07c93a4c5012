//! `flowpin explain`

use super::{
    Context, Failure,
    output::{Table, count, or_dash, yes},
};
use crate::api::types::{ExplainQuery, ExplainView};

/// Say which backend a client is at, or would be given to, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin explain 192.0.2.7 10.96.0.10:5432            where would its next connection go?
  flowpin explain 192.0.2.7:40000 10.96.0.10:5432      where is this one, or where would it go?
  flowpin explain 192.0.2.7:5353 10.96.0.53:53 --protocol udp")]
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
    let mut table =
        Table::new(&["BACKEND", "TAKES NEW", ">ACTIVE", ">CLIENTS", ">WEIGHT NOW", ">LIMIT", "NOTE"]);
    for c in &view.candidates {
        table.row([
            c.backend.clone(),
            yes(c.takes_new),
            count(c.active_connections),
            or_dash(c.clients.map(count)),
            count(c.weight_in_force),
            or_dash(c.max_connections.map(|n| count(n.into()))),
            c.note.clone(),
        ]);
    }
    format!(
        "{} -> {} (service \"{}\"): {backend}\n{}\n\n{table}",
        view.client, view.vip, view.service, view.why
    )
}
