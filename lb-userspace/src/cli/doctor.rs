//! `flowpin doctor`

use std::process::ExitCode;

use serde::Serialize;

use super::output::Out;
use crate::datapath::features::{self, Status};

#[derive(Serialize)]
struct Row {
    feature: String,
    status: &'static str,
    detail: String,
}

pub async fn run(out: &Out) -> anyhow::Result<ExitCode> {
    let found = features::probe().await;
    let missing = found.iter().any(|f| f.status == Status::Missing);
    let rows: Vec<Row> = found
        .into_iter()
        .map(|f| Row { feature: f.name, status: f.status.name(), detail: f.detail })
        .collect();
    let cells = rows.iter().map(|r| [r.feature.clone(), r.status.to_string(), r.detail.clone()]);
    out.table(&rows, ["FEATURE", "STATUS", "DETAIL"], cells)?;
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
