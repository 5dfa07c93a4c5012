//! `flowpin connection`

use std::time::Duration;

use super::{
    Context, Failure,
    backend::at_least_a_second,
    output::{self, Table, bytes, count, duration},
};
use crate::api::types::{ConnectionClose, ConnectionFilter, ConnectionQuery, ConnectionView};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List pinned connections; all filters that are given must match
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  flowpin connection list --service db
  flowpin connection list --backend 10.0.1.11 --state established
  flowpin connection list --service db --sort idle --limit 20
  flowpin connection list --client 192.0.2.7 -o json | jq length

IN is from client to backend, OUT the way back. A closed connection is listed for some seconds more, so that late \
packets still find their backend; it no longer counts as active."
    )]
    List(List),
    /// Close pinned connections: both ends are reset at once; all filters that are given must match, and one must be
    #[command(after_help = "\
Examples:
  flowpin connection close --client 192.0.2.7
  flowpin connection close --service db --idle-for 6h --rate 100
  flowpin connection close --backend 10.0.1.11:5432

Clients that connect again are balanced as any others: drain a backend first if it is to lose them.")]
    Close(Close),
}

#[derive(Debug, clap::Args)]
pub struct Which {
    /// Of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// At this backend: 10.0.1.11 (any port) or 10.0.1.11:5432
    #[arg(long, value_name = "ADDRESS")]
    backend: Option<String>,
    /// From this client: 192.0.2.7 (any port) or 192.0.2.7:40000
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// In this state
    #[arg(long, value_parser = ["syn-sent", "established", "closing", "closed", "active", "unconfirmed"])]
    state: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    which: Which,
    /// The greatest first
    #[arg(long, value_parser = ["age", "idle", "bytes"])]
    sort: Option<String>,
    /// So many at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub struct Close {
    #[command(flatten)]
    which: Which,
    /// Only those that have been silent for so long in both directions: 30s, 15m, 6h
    #[arg(long, value_name = "DURATION", value_parser = at_least_a_second)]
    idle_for: Option<Duration>,
    /// Connections a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

impl From<Which> for ConnectionFilter {
    fn from(Which { service, backend, client, state }: Which) -> Self {
        Self { service, backend, client, state }
    }
}

impl Command {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::List(List { which: Which { service, backend, client, state }, sort, limit }) => {
                let query = ConnectionQuery { service, backend, client, state, sort, limit };
                if context.printer.is_json() {
                    return context.client.copy_connections(&query, |part| Ok(output::raw(part)?)).await;
                }
                let list = context.client.connections(&query).await?;
                context.printer.print(list.as_slice(), table)?;
            }
            Self::Close(Close { which, idle_for, rate }) => {
                let close = ConnectionClose {
                    filter: which.into(),
                    idle_seconds: idle_for.map(|d| d.as_secs()),
                    rate: Some(rate),
                };
                let closed = context.client.close_connections(&close).await?;
                if let Some(warning) = &closed.warning {
                    eprintln!("flowpin: warning: {warning}");
                }
                context.printer.print(&closed, |c| match c.closed {
                    1 => "1 connection closed".into(),
                    n => format!("{} connections closed", count(n)),
                })?;
            }
        }
        Ok(())
    }
}

fn table(list: &[ConnectionView]) -> String {
    if list.is_empty() {
        return "no connections".into();
    }
    let mut table = Table::new(&[
        "SERVICE",
        "PROTO",
        "CLIENT",
        "VIP",
        "BACKEND",
        "STATE",
        ">AGE",
        ">IDLE",
        ">BYTES IN",
        ">BYTES OUT",
    ]);
    for c in list {
        table.row([
            c.service.clone(),
            c.protocol.clone(),
            c.client.clone(),
            c.vip.clone(),
            c.backend.clone(),
            c.state.clone(),
            duration(c.age_seconds),
            duration(c.idle_seconds),
            bytes(c.bytes_in),
            bytes(c.bytes_out),
        ]);
    }
    table.to_string()
}
