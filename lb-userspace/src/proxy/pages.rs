//! What Kubernetes' own programs show of themselves beside their metrics, for who looks there for a service proxy.

use std::{path::PathBuf, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use lb_mesh::NatsServer;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::ClusterState;

/// What is shown.
#[derive(Clone)]
pub struct Shown {
    /// The config file, if there is one.
    pub config: Option<PathBuf>,
    /// When the agent began to listen.
    pub since: Instant,
    /// The cluster.
    pub cluster: watch::Receiver<Option<ClusterState>>,
}

/// `/configz`, `/statusz`, `/metrics/slis`.
pub fn router(shown: Shown) -> Router {
    let shown = Arc::new(shown);
    let (for_status, for_health) = (shown.clone(), shown.clone());
    Router::new()
        .route("/configz", get(async move || shown.configz()))
        .route("/statusz", get(async move || for_status.statusz()))
        .route("/metrics/slis", get(async move || for_health.slis()))
}

/// With asterisks in the place of every password.
fn without_passwords(value: Value) -> Value {
    match value {
        Value::Object(parts) => {
            let shown = |(key, value): (String, Value)| match (key.as_str(), &value) {
                ("password", _) => (key, json!("***")),
                ("transport", Value::String(servers)) => (key, json!(NatsServer::without_login(servers))),
                _ => (key, without_passwords(value)),
            };
            Value::Object(parts.into_iter().map(shown).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_passwords).collect()),
        value => value,
    }
}

impl Shown {
    /// The config file as it is now, as kube-proxy shows its own: an object for each program.
    fn configz(&self) -> Response {
        let Some(path) = &self.config else { return Json(json!({ "flowpin": {} })).into_response() };
        let read = || {
            let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
            // All of an error shows the line, which may have a password in it.
            let config = toml::from_str::<Value>(&text).map_err(|e| e.message().to_string())?;
            Ok::<_, String>(without_passwords(config))
        };
        match read() {
            Ok(config) => Json(json!({ "flowpin": config })).into_response(),
            Err(e) => {
                (StatusCode::INTERNAL_SERVER_ERROR, format!("{}: {e}\n", path.display())).into_response()
            }
        }
    }

    fn statusz(&self) -> String {
        let up = humantime::format_duration(std::time::Duration::from_secs(self.since.elapsed().as_secs()));
        let cluster = self.cluster.borrow();
        let (node, server) =
            cluster.as_ref().map_or(("", ""), |cluster| (&*cluster.node, &*cluster.status.server));
        format!(
            "flowpin statusz\n\nUp: {up}\nBinary version: {}\nNode: {node}\nAPI server: {server}\n\
             Paths: /configz /healthz /metrics /metrics/slis /proxyMode /readyz\n",
            env!("CARGO_PKG_VERSION")
        )
    }

    /// Health as a metric (KEP-3466).
    fn slis(&self) -> String {
        let healthy = self.cluster.borrow().as_ref().is_none_or(|cluster| cluster.is_healthy(Instant::now()));
        format!(
            "# HELP kubernetes_healthcheck Is what is wanted in force, or will it be soon?\n\
             # TYPE kubernetes_healthcheck gauge\n\
             kubernetes_healthcheck{{name=\"in-force\",type=\"healthz\"}} {}\n",
            u8::from(healthy)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let health =
            |password| json!({"service": [{"name": "a", "health": {"type": "redis", "password": password}}]});
        assert_eq!(without_passwords(health("s3cret")), health("***"));
        let cluster = |login| json!({"cluster": {"transport": format!("nats://{login}@h:4222")}});
        assert_eq!(without_passwords(cluster("node-1:s3cret")), cluster("***"));
    }
}
