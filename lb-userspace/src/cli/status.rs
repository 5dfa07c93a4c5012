//! `flowpin status`, `flowpin stats`

use std::process::ExitCode;

use super::output::{Out, bytes, seconds};
use crate::api::{
    client::Client,
    types::{StatsView, StatusView},
};

pub async fn status(client: &Client, out: &Out) -> anyhow::Result<ExitCode> {
    let s: StatusView = client.get("/v1/status").await?;
    if out.for_people() {
        let text = format!(
            "{}: flowpin {} on Linux {}, up {}\n{} services, {} backends; {} of {} flows; accounting drift {}\n\n",
            s.state,
            s.version,
            s.kernel,
            seconds(s.uptime_seconds),
            s.services,
            s.backends,
            s.conntrack_entries,
            s.conntrack_capacity,
            s.accounting_drift,
        );
        out.raw(text.as_bytes())?;
        let rows = s.interfaces.iter().map(|i| {
            let state = i.mode.clone().unwrap_or_else(|| "not attached".into());
            [i.name.clone(), i.attach.clone(), state]
        });
        out.table(&s.interfaces, ["INTERFACE", "WANTED", "ATTACHED"], rows)?;
        s.problems.iter().try_for_each(|p| out.raw(format!("problem: {p}\n").as_bytes()))?;
    } else {
        out.json(&s)?;
    }
    Ok(if s.state == "ok" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub async fn stats(client: &Client, out: &Out) -> anyhow::Result<()> {
    let s: StatsView = client.get("/v1/stats").await?;
    if !out.for_people() {
        return Ok(out.json(&s)?);
    }
    let rows = s.services.iter().flat_map(|service| {
        service.backends.iter().map(|b| {
            [
                service.name.clone(),
                b.address.clone(),
                b.active_connections.to_string(),
                b.total_connections.to_string(),
                b.packets_in.to_string(),
                bytes(b.bytes_in),
                b.packets_out.to_string(),
                bytes(b.bytes_out),
            ]
        })
    });
    let head = ["SERVICE", "BACKEND", "ACTIVE", "TOTAL", "PACKETS IN", "IN", "PACKETS OUT", "OUT"];
    out.table(&(), head, rows)?;
    let drops = s.drops.iter().filter(|(_, n)| **n > 0).map(|(reason, n)| [reason.clone(), n.to_string()]);
    out.raw(b"\n")?;
    Ok(out.table(&(), ["REFUSED OR DROPPED", "PACKETS"], drops)?)
}
