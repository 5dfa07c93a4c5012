//! The page's figures beside the API's.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::bail;
use serde_json::{Value, json};

use super::{browser::Browser, world::World};

/// The page shows what is one second old at most; the machine has other things to do.
const SOON: Duration = Duration::from_secs(20);

/// What the page shows, by service and by backend.
const SHOWN: &str = "(() => {
  const number = (text) => Number((text ?? '').replace(/[^0-9]/g, ''));
  const counts = (row) => ({
    open: number(row.querySelector('.open').textContent), total: number(row.querySelector('.total').textContent),
    sent: number(row.querySelector('.sent').title), back: number(row.querySelector('.back').title) });
  const services = {}, backends = {}, drops = {};
  for (const row of document.querySelectorAll('tr.service')) {
    const name = row.closest('tbody').dataset.service;
    services[name] = { ...counts(row), imbalance: row.querySelector('.imbalance').textContent };
  }
  const alone = new URLSearchParams(location.search).get('service');
  for (const row of document.querySelectorAll('tr.backend')) {
    const service = row.closest('tbody').dataset.service ?? alone;
    backends[service + ' ' + row.dataset.backend] = { ...counts(row), badge: row.querySelector('.badge').textContent,
      why: row.querySelector('.why.bad')?.textContent ?? '' };
  }
  for (const row of document.querySelectorAll('#drops li')) drops[row.dataset.reason] = number(row.lastChild.textContent);
  const tile = (name) => number(document.getElementById('tile-' + name)?.querySelector('span').textContent);
  const totals = { services: tile('Services'), backends: tile('Backends'), open: tile('Open connections') };
  return { services, backends, drops, totals };
})()";

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or(u64::MAX)
}

fn list(of: &Value) -> impl Iterator<Item = &Value> {
    of.as_array().into_iter().flatten()
}

/// What the page is to show of whom it shows, made from the API's answers.
fn expected(stats: &Value, shown: &Value) -> Value {
    let (mut services, mut backends) = (BTreeMap::new(), BTreeMap::new());
    let (mut count, mut all, mut open) = (0, 0, 0);
    for service in list(&stats["services"]) {
        let name = service["name"].as_str().unwrap_or_default();
        let mut sums = [0; 4];
        count += 1;
        for backend in list(&service["backends"]) {
            let counts = ["active_connections", "total_connections", "bytes_in", "bytes_out"]
                .map(|key| number(backend, key));
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            all += 1;
            open += counts[0];
            let key = format!("{name} {}", backend["address"].as_str().unwrap_or_default());
            if shown["backends"].get(&key).is_some() {
                let (healthy, state) = (backend["healthy"] == true, &backend["state"]);
                let badge = if healthy || state != "active" { state.clone() } else { json!("unhealthy") };
                let why = if healthy { json!("") } else { backend["last_health_check_failure"].clone() };
                let [open, total, sent, back] = counts;
                backends.insert(
                    key,
                    json!({"open": open, "total": total, "sent": sent, "back": back, "badge": badge, "why": why}),
                );
            }
        }
        if shown["services"].get(name).is_some() {
            let imbalance = service["imbalance"].as_f64().map_or(String::new(), |i| format!("{i:.2}"));
            let [open, total, sent, back] = sums;
            services.insert(
                name,
                json!({"open": open, "total": total, "sent": sent, "back": back, "imbalance": imbalance}),
            );
        }
    }
    let drops: BTreeMap<&String, &Value> =
        stats["drops"].as_object().into_iter().flatten().filter(|(_, count)| **count != json!(0)).collect();
    let totals = json!({"services": count, "backends": all, "open": open});
    json!({"services": services, "backends": backends, "drops": drops, "totals": totals})
}

/// Waits until all that the page shows is what the API says.
pub fn are_the_api_s(world: &World, browser: &mut Browser, when: &str) -> anyhow::Result<()> {
    let until = Instant::now() + SOON;
    loop {
        let stats = world.cli(&["stats", "-o", "json"])?;
        let shown = browser.eval(SHOWN)?;
        let expected = expected(&stats, &shown);
        let has_rows = shown["services"].as_object().is_some_and(|rows| !rows.is_empty())
            || shown["backends"].as_object().is_some_and(|rows| !rows.is_empty());
        if has_rows && shown == expected {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{when} the page shows\n{shown:#}\nand the API says\n{expected:#}");
        }
    }
}
