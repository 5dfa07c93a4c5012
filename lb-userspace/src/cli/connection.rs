//! `flowpin connection`

use clap::{Args, Subcommand};

use super::output::{Out, bytes, seconds};
use crate::api::{
    client::{Client, segment},
    types::{ConnectionFilter, ConnectionView},
};

#[derive(Subcommand)]
pub enum Command {
    /// List pinned connections, as `conntrack -L` and `ipvsadm -Lcn` do
    List(List),
}

#[derive(Args)]
pub struct List {
    /// Of this service
    #[arg(long)]
    service: Option<String>,
    /// On this backend: address, or address and port
    #[arg(long)]
    backend: Option<String>,
    /// From this client: address, or address and port
    #[arg(long)]
    client: Option<String>,
    /// syn-sent, established, closing, closed; UDP: active
    #[arg(long)]
    state: Option<String>,
}

pub async fn run(command: Command, client: &Client, out: &Out) -> anyhow::Result<()> {
    let Command::List(list) = command;
    let filter = ConnectionFilter {
        service: list.service,
        backend: list.backend,
        client: list.client,
        state: list.state,
    };
    let pairs = [
        ("service", &filter.service),
        ("backend", &filter.backend),
        ("client", &filter.client),
        ("state", &filter.state),
    ];
    let query: Vec<String> =
        pairs.iter().filter_map(|(k, v)| v.as_deref().map(|v| format!("{k}={}", segment(v)))).collect();
    let found: Vec<ConnectionView> = client.get(&format!("/v1/connections?{}", query.join("&"))).await?;
    out.table(
        &found,
        ["SERVICE", "CLIENT", "VIP", "BACKEND", "PROTO", "STATE", "AGE", "IDLE", "IN", "OUT"],
        found.iter().map(|c| {
            [
                c.service.clone(),
                c.client.clone(),
                c.vip.clone(),
                c.backend.clone(),
                c.protocol.clone(),
                c.state.clone(),
                seconds(c.age_seconds),
                seconds(c.idle_seconds),
                bytes(c.bytes_in),
                bytes(c.bytes_out),
            ]
        }),
    )?;
    Ok(())
}
