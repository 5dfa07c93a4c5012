//! `flowpin check`: reads a config file as the agent would, and shows what it would set up. Touches nothing.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Failure,
    output::{self, Printer, Table, count, or_dash, plural},
    tables,
};
use crate::{
    agent::hints,
    api::types::{FrontendView, RejectedView, ServiceDecl},
    host::Hint,
    model::{Desired, ServiceSpec, error::about_it},
    observe::views,
    reconcile::Rejection,
    source::{Config, Matcher, config, merge},
};

/// Validate a config file without touching the kernel, and show what it would set up
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin check --config /etc/flowpin/flowpin.toml
  flowpin check --config new.toml -o json | jq .warnings
  flowpin check --schema > flowpin.schema.json      and \"#:schema ./flowpin.schema.json\" in the file's first line

Needs neither root nor an agent. Exit code 1, and one line with file, value and remedy, if anything is wrong. A service that is \
wrong is listed and keeps no other from coming into force. Warnings are about interfaces and routes too: those of the network \
namespace in which it runs. What the command line added to a running agent is not looked at.")]
pub struct Args {
    /// Config file (TOML); without one the defaults are shown
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the JSON schema of the config file instead, for editors that complete and check it
    #[arg(long, conflicts_with = "config")]
    schema: bool,
}

/// What a config file would set up.
#[derive(Serialize)]
struct Report {
    api_socket: PathBuf,
    metrics_listen: String,
    ui: bool,
    pin_dir: PathBuf,
    state_file: PathBuf,
    max_flows: u32,
    interfaces: Vec<Interface>,
    services: Vec<Service>,
    warnings: Vec<String>,
    /// Services that would not come into force.
    rejected: Vec<RejectedView>,
}

#[derive(Serialize)]
struct Interface {
    r#match: String,
    attach: &'static str,
    /// Interfaces that are here now and match.
    present: Vec<String>,
}

#[derive(Serialize)]
struct Service {
    name: String,
    vip: String,
    ports: Vec<String>,
    frontends: Vec<FrontendView>,
    algorithm: &'static str,
    /// What is declared, but for name and backends. Durations are in seconds.
    declared: ServiceDecl,
    backends: Vec<Backend>,
}

#[derive(Serialize)]
struct Backend {
    address: String,
    weight: u16,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backup: bool,
    max_connections: Option<u32>,
    local: bool,
}

impl Args {
    pub async fn run(self, printer: &Printer) -> Result<(), Failure> {
        if self.schema {
            return output::raw(format!("{:#}\n", config::schema()).as_bytes()).map_err(Failure::from);
        }
        let config = config::load(self.config.as_deref()).map_err(|e| Failure::Said(e.to_string()))?;
        let what =
            self.config.map_or_else(|| "the default configuration".into(), |path| path.display().to_string());
        let (desired, rejected) = merge::alone(&config);
        let hints = hints::routes_past(&config, &desired).await;
        let report = report(config, &desired, &rejected, &hints);
        printer.print(&report, |report| text(&what, report))?;
        let Some(RejectedView { service, error, .. }) = report.rejected.first() else { return Ok(()) };
        let more = match report.rejected.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more services are wrong)"),
        };
        let error = about_it(service, error);
        Err(Failure::Said(format!("{what}: service \"{service}\" is wrong: {error}{more}")))
    }
}

fn report(config: Config, desired: &Desired, rejected: &[Rejection], hints: &[Hint]) -> Report {
    let here = interfaces_here();
    let mut warnings = Vec::new();
    let mut interfaces = Vec::new();
    for rule in config.interfaces {
        let present: Vec<String> =
            here.iter().filter(|name| rule.matcher.is_match(name, None)).cloned().collect();
        if present.is_empty() && matches!(rule.matcher, Matcher::Named(_)) {
            warnings.push(format!("interface match \"{}\" fits no interface that is here now", rule.pattern));
        }
        interfaces.push(Interface { r#match: rule.pattern, attach: rule.attach.name(), present });
    }
    if interfaces.is_empty() && !desired.services().is_empty() {
        warnings.push("there is no [[interface]]; nothing will be balanced until there is one".into());
    }
    for service in desired.services().values() {
        warnings.extend(service.warnings().iter().map(|w| format!("service \"{}\": {w}", service.name)));
        if service.backends.is_empty() && service.hosts.is_empty() {
            warnings.push(format!(
                "service \"{}\" has no backend; it refuses connections until one is added",
                service.name
            ));
        }
    }
    warnings.extend(hints.iter().map(|h| format!("{}: {}; {}", h.about, h.text, h.remedy)));
    Report {
        api_socket: config.api_socket,
        metrics_listen: config.metrics_listen.to_string(),
        ui: config.ui,
        pin_dir: config.pin_dir,
        state_file: config.state_file,
        max_flows: config.max_flows,
        interfaces,
        services: desired.services().values().map(|spec| service(spec)).collect(),
        warnings,
        rejected: rejected.iter().map(views::rejected).collect(),
    }
}

fn service(spec: &ServiceSpec) -> Service {
    let backends = spec.backends.values();
    let frontends: Vec<FrontendView> = spec.frontends.iter().map(views::frontend).collect();
    Service {
        name: spec.name.clone(),
        vip: frontends[0].addresses[0].to_string(),
        ports: frontends[0].ports.clone(),
        frontends,
        algorithm: spec.algorithm.name(),
        declared: spec.into(),
        backends: backends
            .map(|b| Backend {
                address: b.name(),
                weight: b.weight,
                backup: b.backup,
                max_connections: b.max_connections,
                local: b.local,
            })
            .chain(spec.hosts.iter().map(|host| Backend {
                address: host.name(),
                weight: host.weight,
                backup: host.backup,
                max_connections: host.max_connections,
                local: host.local,
            }))
            .collect(),
    }
}

/// Names of the interfaces in this network namespace. None if the kernel won't say: then the check warns, and that is all it would
/// do with them.
fn interfaces_here() -> Vec<String> {
    let Ok(list) = nix::net::if_::if_nameindex() else { return Vec::new() };
    list.iter().map(|i| i.name().to_string_lossy().into_owned()).collect()
}

fn text(what: &str, r: &Report) -> String {
    let backends: usize = r.services.iter().map(|s| s.backends.len()).sum();
    let mut text = format!(
        "{what} {}: {}, {}\n\nAPI socket:  {}\nMetrics:     http://{}/metrics\nStats page:  {}\nPins:        {}\n\
         State file:  {}\nConntrack:   {} flows\n",
        if r.rejected.is_empty() { "is valid" } else { "is valid in part" },
        plural(r.services.len() as u64, "service"),
        plural(backends as u64, "backend"),
        r.api_socket.display(),
        r.metrics_listen,
        if r.ui { format!("http://{}/ui", r.metrics_listen) } else { "off".into() },
        r.pin_dir.display(),
        r.state_file.display(),
        count(r.max_flows.into()),
    );
    if !r.interfaces.is_empty() {
        let mut table = Table::new(&["INTERFACE", "ATTACH", "HERE NOW"]);
        for i in &r.interfaces {
            let present = (!i.present.is_empty()).then(|| i.present.join(","));
            table.row([i.r#match.clone(), i.attach.into(), or_dash(present)]);
        }
        text.push_str(&format!("\n{table}"));
    }
    if !r.services.is_empty() {
        let mut table = Table::new(&[
            "SERVICE",
            "ALGORITHM",
            "FRONTEND",
            "SCOPE",
            "FORWARD",
            "BACKEND",
            ">WEIGHT",
            ">LIMIT",
        ]);
        for s in &r.services {
            // Frontends and backends beside each other; the service's own columns are filled in its first line only.
            for i in 0..s.frontends.len().max(s.backends.len()) {
                let mut row = [const { String::new() }; 8];
                if i == 0 {
                    (row[0], row[1]) = (s.name.clone(), s.algorithm.into());
                    row[5] = "-".into();
                }
                if let Some(frontend) = s.frontends.get(i) {
                    row[2] = tables::place(frontend);
                    (row[3], row[4]) = (frontend.scope.clone(), tables::way(&frontend.forward));
                }
                if let Some(b) = s.backends.get(i) {
                    let limit = or_dash(b.max_connections.map(|n| count(n.into())));
                    (row[5], row[6], row[7]) = (b.address.clone(), tables::weight(b.weight, b.backup), limit);
                }
                table.row(row);
            }
        }
        text.push_str(&format!("\n{table}"));
    }
    let mut table = Table::new(&["SERVICE", "SETTING", "VALUE"]);
    let mut some = false;
    for s in &r.services {
        for (i, (setting, value)) in tables::settings(&s.declared).into_iter().enumerate() {
            some = true;
            table.row([if i == 0 { s.name.clone() } else { String::new() }, setting, value]);
        }
    }
    if some {
        text.push_str(&format!("\n{table}"));
    }
    if !r.warnings.is_empty() || !r.rejected.is_empty() {
        text.push('\n');
    }
    for RejectedView { service, error, .. } in &r.rejected {
        text.push_str(&format!("wrong: service \"{service}\": {}\n", about_it(service, error)));
    }
    for warning in &r.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}
