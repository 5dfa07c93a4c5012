//! `flowpin service`

use clap::{Args, Subcommand};

use super::output::Out;
use crate::api::{
    client::{Client, segment},
    types::{AffinityAdd, BackendView, ServiceAdd, ServiceView},
};

#[derive(Subcommand)]
pub enum Command {
    /// Add a service
    #[command(after_help = "\
Examples:
  flowpin service add db --vip 10.96.0.10 --port 5432/tcp
  flowpin service add app --vip fd96::10 --port 8001-8003/tcp --port 53/udp --algorithm consistent-hash")]
    Add(Add),
    /// List services
    List,
    /// Show one service with its backends
    Show {
        /// Name
        name: String,
    },
    /// Remove a service that was added here; open connections stay until they end
    Remove {
        /// Name
        name: String,
    },
}

#[derive(Args)]
pub struct Add {
    /// Name: 1 to 63 of a-z A-Z 0-9 . _ - with at most one / inside
    name: String,
    /// Address that clients connect to
    #[arg(long)]
    vip: String,
    /// Port or range with protocol, as 5432/tcp or 8001-8003/udp; may be repeated
    #[arg(long = "port", required = true, value_name = "PORT")]
    ports: Vec<String>,
    /// least-connections or consistent-hash
    #[arg(long, default_value = "least-connections")]
    algorithm: String,
    /// Keep a client on one backend (accepted, not in force in this version)
    #[arg(long, value_name = "KIND", value_parser = ["client-ip"])]
    affinity: Option<String>,
    /// How long a client is remembered, as 3h
    #[arg(long, value_name = "DURATION", requires = "affinity")]
    affinity_timeout: Option<String>,
    /// Services of one group share the choice
    #[arg(long, value_name = "GROUP", requires = "affinity")]
    affinity_group: Option<String>,
}

pub async fn run(command: Command, client: &Client, out: &Out) -> anyhow::Result<()> {
    match command {
        Command::Add(add) => {
            let affinity = add.affinity.map(|_| AffinityAdd {
                client_ip: true,
                timeout: add.affinity_timeout,
                group: add.affinity_group,
            });
            let request = ServiceAdd {
                name: add.name,
                vip: add.vip,
                ports: add.ports,
                algorithm: Some(add.algorithm),
                affinity,
            };
            let view: ServiceView = client.post("/v1/services", &request).await?;
            view.warnings.iter().for_each(|w| super::output::error(&format!("warning: {w}")));
            out.say(&view, format_args!("service {} added", view.name))?;
        }
        Command::List => {
            let services: Vec<ServiceView> = client.get("/v1/services").await?;
            out.table(
                &services,
                ["NAME", "VIP", "PORTS", "ALGORITHM", "BACKENDS", "ACTIVE", "TOTAL", "ORIGIN"],
                services.iter().map(|s| {
                    let sum = |f: fn(&BackendView) -> u64| s.backends.iter().map(f).sum::<u64>().to_string();
                    [
                        s.name.clone(),
                        s.vip.to_string(),
                        s.ports.join(","),
                        s.algorithm.clone(),
                        s.backends.len().to_string(),
                        sum(|b| b.active_connections),
                        sum(|b| b.total_connections),
                        s.origin.clone(),
                    ]
                }),
            )?;
        }
        Command::Show { name } => {
            let s: ServiceView = client.get(&format!("/v1/services/{}", segment(&name))).await?;
            if out.for_people() {
                let line =
                    format!("{} {} {} ({}, {})\n", s.name, s.vip, s.ports.join(","), s.algorithm, s.origin);
                out.raw(line.as_bytes())?;
                s.warnings.iter().try_for_each(|w| out.raw(format!("warning: {w}\n").as_bytes()))?;
                super::backend::print(&s.backends, out)?;
            } else {
                out.json(&s)?;
            }
        }
        Command::Remove { name } => {
            client.delete(&format!("/v1/services/{}", segment(&name))).await?;
            out.say(&(), format_args!("service {name} removed"))?;
        }
    }
    Ok(())
}
