//! `flowpin check`

use std::path::Path;

use serde::Serialize;

use super::output::Out;
use crate::source::config;

#[derive(Serialize)]
struct Checked {
    services: usize,
    backends: usize,
    interfaces: usize,
    warnings: Vec<String>,
}

pub fn run(path: Option<&Path>, out: &Out) -> anyhow::Result<()> {
    let config = config::load(path)?;
    let warnings: Vec<String> = config
        .services
        .iter()
        .flat_map(|s| s.warnings.iter().map(|w| format!("service \"{}\": {w}", s.name)))
        .collect();
    let checked = Checked {
        services: config.services.len(),
        backends: config.services.iter().map(|s| s.backends.len()).sum(),
        interfaces: config.interfaces.len(),
        warnings,
    };
    if out.for_people() {
        checked.warnings.iter().try_for_each(|w| out.raw(format!("warning: {w}\n").as_bytes()))?;
    }
    let sentence = format!(
        "ok: {} services with {} backends, {} interface rules",
        checked.services, checked.backends, checked.interfaces
    );
    Ok(out.say(&checked, sentence)?)
}
