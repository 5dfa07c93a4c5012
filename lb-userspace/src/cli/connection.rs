//! `flowpin connection`

use super::{
    Context, Failure,
    output::{Table, bytes, duration},
};
use crate::api::types::{ConnectionFilter, ConnectionView};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List pinned connections; all filters that are given must match
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  flowpin connection list --service db
  flowpin connection list --backend 10.0.1.11 --state established
  flowpin connection list --client 192.0.2.7 -o json | jq length

IN is from client to backend, OUT the way back. A closed connection is listed for some seconds more, so that late \
packets still find their backend; it no longer counts as active."
    )]
    List(List),
}

#[derive(Debug, clap::Args)]
pub struct List {
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
    #[arg(long, value_parser = ["syn-sent", "established", "closing", "closed", "active"])]
    state: Option<String>,
}

impl Command {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::List(List { service, backend, client, state }) = self;
        let filter = ConnectionFilter { service, backend, client, state };
        let list = context.client.connections(&filter).await?;
        context.printer.print(list.as_slice(), table)?;
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
