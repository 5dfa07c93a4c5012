//! `flowpin backend`

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::output::{Out, bytes};
use crate::api::{
    client::{Client, segment},
    types::{BackendAdd, BackendView, Drain, ServiceView},
};

#[derive(Subcommand)]
pub enum Command {
    /// Add a backend to a service, or change the weight and limit of one that was added here
    #[command(after_help = "\
Examples:
  flowpin backend add db 10.0.1.11:5432
  flowpin backend add db 10.0.1.12 --weight 2 --max-connections 300    (port: the one the client used)
  flowpin backend add db6 [fd00::11]:5432")]
    Add {
        /// Service
        service: String,
        /// 10.0.1.11:5432, [fd00::11]:5432, or without port
        address: String,
        /// Share of the connections, 1 to 65535 [default: 1]
        #[arg(long, allow_negative_numbers = true)]
        weight: Option<i64>,
        /// Most open connections [default: no limit]
        #[arg(long, allow_negative_numbers = true, value_name = "N")]
        max_connections: Option<i64>,
    },
    /// List backends, of one service or of all
    List {
        /// Service
        service: Option<String>,
    },
    /// Stop new connections to a backend; open ones stay. Prints how many are left
    Drain {
        /// Service
        service: String,
        /// Backend as listed
        address: String,
        /// How long it may take, as 15m; what is open then stays open and is reported
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        deadline: Option<Duration>,
        /// Wait until none is left, or the deadline
        #[arg(long)]
        wait: bool,
    },
    /// Take a drain back
    Undrain {
        /// Service
        service: String,
        /// Backend as listed
        address: String,
    },
    /// Remove a backend that was added here; open connections stay until they end
    Remove {
        /// Service
        service: String,
        /// Backend as listed
        address: String,
    },
}

/// Backends as a table, or JSON.
pub fn print(backends: &[BackendView], out: &Out) -> std::io::Result<()> {
    let rows = backends.iter().map(|b| row("", b)).map(|[_, rest @ ..]| rest);
    out.table(&backends, HEAD, rows)
}

const HEAD: [&str; 9] = ["BACKEND", "STATE", "HEALTHY", "WEIGHT", "LIMIT", "ACTIVE", "TOTAL", "IN", "OUT"];

fn row(service: &str, b: &BackendView) -> [String; 10] {
    [
        service.into(),
        b.address.clone(),
        b.state.clone(),
        if b.healthy { "yes" } else { "no" }.into(),
        b.weight.to_string(),
        b.max_connections.map_or("-".into(), |l| l.to_string()),
        b.active_connections.to_string(),
        b.total_connections.to_string(),
        bytes(b.bytes_in),
        bytes(b.bytes_out),
    ]
}

fn path(service: &str, address: &str) -> String {
    format!("/v1/services/{}/backends/{}", segment(service), segment(address))
}

pub async fn run(command: Command, client: &Client, out: &Out) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add { service, address, weight, max_connections } => {
            let request = BackendAdd { address, weight, max_connections };
            let path = format!("/v1/services/{}/backends", segment(&service));
            let view: BackendView = client.post(&path, &request).await?;
            out.say(&view, format_args!("backend {} of {service}: weight {}", view.address, view.weight))?;
        }
        Command::List { service: Some(service) } => {
            let view: ServiceView = client.get(&format!("/v1/services/{}", segment(&service))).await?;
            print(&view.backends, out)?;
        }
        Command::List { service: None } => {
            let services: Vec<ServiceView> = client.get("/v1/services").await?;
            let all: Vec<serde_json::Value> = services
                .iter()
                .flat_map(|s| s.backends.iter().map(move |b| (s, b)))
                .map(|(s, b)| {
                    let mut value = serde_json::to_value(b)?;
                    value["service"] = s.name.as_str().into();
                    Ok(value)
                })
                .collect::<Result<_, serde_json::Error>>()?;
            let rows = services.iter().flat_map(|s| s.backends.iter().map(|b| row(&s.name, b)));
            let mut head = ["SERVICE"; 10];
            head[1..].copy_from_slice(&HEAD);
            out.table(&all, head, rows)?;
        }
        Command::Drain { service, address, deadline, wait } => {
            let request = Drain { deadline_seconds: deadline.map(|d| d.as_secs()) };
            let view: BackendView =
                client.post(&format!("{}/drain", path(&service, &address)), &request).await?;
            if wait {
                return watch(client, out, &service, view, deadline).await;
            }
            let left = view.active_connections;
            out.say(
                &view,
                format_args!("{} of {service}: {}, {left} connections left", view.address, view.state),
            )?;
        }
        Command::Undrain { service, address } => {
            let view: BackendView =
                client.post(&format!("{}/undrain", path(&service, &address)), &()).await?;
            out.say(&view, format_args!("{} of {service}: {}", view.address, view.state))?;
        }
        Command::Remove { service, address } => {
            client.delete(&path(&service, &address)).await?;
            out.say(&(), format_args!("backend {address} of {service} removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows what is left until nothing is, or the deadline has passed.
async fn watch(
    client: &Client,
    out: &Out,
    service: &str,
    mut view: BackendView,
    deadline: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let bar = ProgressBar::new(view.active_connections);
    bar.set_style(ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} closed, {elapsed}")?);
    bar.set_message(format!("draining {} of {service}", view.address));
    let all = view.active_connections;
    while view.state == "draining" {
        if deadline.is_some_and(|d| start.elapsed() >= d) {
            bar.abandon();
            anyhow::bail!(
                "{} connections are still open on {} at the deadline; they stay until they end",
                view.active_connections,
                view.address
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let backends: Vec<BackendView> =
            client.get(&format!("/v1/services/{}/backends", segment(service))).await?;
        view = backends
            .into_iter()
            .find(|b| b.address == view.address)
            .ok_or_else(|| anyhow::anyhow!("backend {} of {service} was removed meanwhile", view.address))?;
        bar.set_position(all.saturating_sub(view.active_connections));
    }
    bar.finish_and_clear();
    if view.state == "active" {
        anyhow::bail!("the drain of {} was taken back meanwhile", view.address);
    }
    out.say(&view, format_args!("{} of {service}: drained", view.address))?;
    Ok(ExitCode::SUCCESS)
}
