//! The API as `curl --unix-socket` meets it: statuses, one shape for every refusal, odd requests.

use flowpin::api::{server, types::ErrorView};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::oneshot,
};

use crate::fake::Agent;

/// What came back.
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The one sentence of a refusal.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        let view: ErrorView = serde_json::from_str(&self.body).expect("the one shape");
        assert!(!view.error.contains('\n') && !view.error.is_empty(), "{}", view.error);
        view.error
    }
}

/// Asks, and reads until the other side ends.
pub async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> Answer {
    // A server that has seen enough answers and hangs up before it has read all: then both end with an error.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Answer { status, head: head.to_lowercase(), body: body.into() }
}

/// A request, after which the connection ends.
pub fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn ask(agent: &Agent, method: &str, path: &str, body: &str) -> Answer {
    agent.block_on(async {
        let stream = UnixStream::connect(agent.socket()).await.expect("connected");
        exchange(stream, &request(method, path, body)).await
    })
}

#[test]
fn statuses() {
    let agent = Agent::new();
    let add = r#"{"name": "new", "vip": "10.0.0.7", "ports": ["1/tcp"]}"#;
    assert_eq!(ask(&agent, "POST", "/v1/services", add).status, 201);
    assert_eq!(ask(&agent, "POST", "/v1/services/new/backends", r#"{"address": "10.0.1.1"}"#).status, 200);
    assert_eq!(ask(&agent, "GET", "/v1/services/new/backends", "").status, 200);
    assert_eq!(
        ask(&agent, "POST", "/v1/services/new/backends/10.0.1.1/drain", "").status,
        200,
        "no body: no deadline"
    );
    assert_eq!(ask(&agent, "POST", "/v1/services/new/backends/10.0.1.1/undrain", "").status, 200);
    assert_eq!(ask(&agent, "DELETE", "/v1/services/new/backends/10.0.1.1", "").status, 204);
    assert_eq!(ask(&agent, "DELETE", "/v1/services/new", "").status, 204);
    for path in ["/v1/services", "/v1/services/ns%2Fsix", "/v1/connections", "/v1/status", "/v1/stats"] {
        let answer = ask(&agent, "GET", path, "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains("content-type: application/json"), "{path}");
    }
}

#[test]
fn every_refusal_has_the_same_shape() {
    let agent = Agent::new();
    assert!(ask(&agent, "GET", "/v1/services/nope", "").refused(404).contains("nope"));
    let twice = r#"{"name": "app", "vip": "10.0.0.7", "ports": ["1/tcp"]}"#;
    assert!(ask(&agent, "POST", "/v1/services", twice).refused(409).contains("app"));
    let unknown = r#"{"name": "a", "vip": "10.0.0.7", "ports": ["1/tcp"], "weight": 3}"#;
    assert!(ask(&agent, "POST", "/v1/services", unknown).refused(400).contains("weight"));
    let unknown = r#"{"name": "a", "vip": "10.0.0.7", "ports": ["1/tcp"],
        "frontends": [{"addresses": ["::"], "prot": []}]}"#;
    assert!(ask(&agent, "POST", "/v1/services", unknown).refused(400).contains("prot"));
    assert!(ask(&agent, "POST", "/v1/services", r#"{"name": "#).refused(400).contains("JSON"));
    assert!(ask(&agent, "POST", "/v1/services", "").refused(400).contains("`ports`"));
    let path = "/v1/services/app";
    assert!(ask(&agent, "PATCH", path, r#"{"name": "other"}"#).refused(400).contains("other"));
    assert!(ask(&agent, "PATCH", path, r#"{"colour": "red"}"#).refused(400).contains("colour"));
    assert!(ask(&agent, "PATCH", path, r#"["ports"]"#).refused(400).contains("JSON"));
    assert!(ask(&agent, "PATCH", "/v1/services/nope", "{}").refused(404).contains("nope"));
    assert!(
        ask(&agent, "PATCH", "/v1/services/app/backends/10.9.9.9", "{}").refused(404).contains("10.9.9.9")
    );
    assert!(ask(&agent, "GET", "/v1/connections?sevice=app", "").refused(400).contains("sevice"));
    assert!(ask(&agent, "GET", "/v1/services/%ff", "").refused(400).contains("%ff"));
    assert!(ask(&agent, "GET", "/v2/services", "").refused(404).contains("/v2/services"));
    let answer = ask(&agent, "PUT", "/v1/services", "");
    assert!(answer.refused(405).contains("PUT"));
    assert!(answer.head.contains("allow: "));
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(3 << 20));
    assert!(ask(&agent, "POST", "/v1/services", &huge).refused(413).contains("body"));
}

#[test]
fn names_and_addresses_are_decoded_once() {
    let agent = Agent::new();
    let path = "/v1/services/ns%2Fsix/backends/%5Bfd00%3A%3A11%5D%3A5432/drain";
    assert_eq!(ask(&agent, "POST", path, r#"{"deadline_seconds": 60}"#).status, 200);
    // Colons and brackets may stand for themselves, as people type them.
    assert_eq!(ask(&agent, "POST", "/v1/services/ns%2Fsix/backends/[fd00::11]:5432/undrain", "").status, 200);
    ask(&agent, "GET", "/v1/services/ns%252Fsix", "").refused(404);
}

#[test]
fn metrics_and_probes_on_their_own_listener() {
    let agent = Agent::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = agent.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = agent.spawn(server::serve_metrics(listener, agent.fake.clone(), true, async {
        let _ = stopped.await;
    }));
    let get = |path: &str| {
        agent.block_on(async {
            exchange(TcpStream::connect(address).await.expect("connected"), &request("GET", path, "")).await
        })
    };
    let metrics = get("/metrics");
    assert_eq!(metrics.status, 200);
    let last =
        format!("flowpin_build_info{{version=\"{}\",kernel=\"6.1\"}} 1\n# EOF\n", env!("CARGO_PKG_VERSION"));
    assert!(metrics.body.contains(&last), "{}", metrics.body);
    assert!(
        metrics.head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(get("/healthz").status, 200);
    assert_eq!(get("/readyz").status, 200);
    agent.world(|w| w.problems.push("eth0 is gone".into()));
    let ready = get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("eth0 is gone"));
    assert_eq!(get("/healthz").status, 200, "alive in spite of it");
    get("/v1/services").refused(404);
    assert_eq!(ask(&agent, "GET", "/metrics", "").status, 200, "on the socket too");
    stop.send(()).expect("it still runs");
    agent.block_on(server).expect("it ends when told");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test hears of a panic")]
fn half_a_request_does_not_hold_up_the_end() {
    let agent = Agent::new();
    let (stop, stopped) = oneshot::channel::<()>();
    agent.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(server::serve_metrics(listener, agent.fake.clone(), true, async {
            let _ = stopped.await;
        }));
        let mut slow = TcpStream::connect(address).await.expect("connected");
        slow.write_all(b"GET /metrics HTTP/1.1\r\nho").await.expect("sent");
        // Served, so the slow one has been accepted before it.
        exchange(TcpStream::connect(address).await.expect("connected"), &request("GET", "/healthz", ""))
            .await;
        stop.send(()).expect("it still runs");
        tokio::time::timeout(std::time::Duration::from_secs(10), server)
            .await
            .expect("in time")
            .expect("no panic");
    });
}

/// Every route that the document names is there, and every one answers as it says.
#[test]
fn the_document_names_every_route() {
    let agent = Agent::new();
    let answer = ask(&agent, "GET", "/v1/openapi.json", "");
    assert_eq!(answer.status, 200);
    let document: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    let mut asked = 0;
    for (path, operations) in paths {
        let path = path.replace("{name}", "nope").replace("{address}", "10.9.9.9");
        for method in operations.as_object().expect("operations").keys() {
            let answer = ask(&agent, &method.to_uppercase(), &path, "");
            assert!(answer.status != 405, "{method} {path}");
            // Nothing is at other paths.
            assert!(!answer.body.contains("there is nothing at"), "{method} {path}: {}", answer.body);
            asked += 1;
        }
        // And no other method is.
        for method in ["GET", "POST", "PATCH", "DELETE", "PUT"] {
            if operations.get(method.to_lowercase()).is_none() {
                ask(&agent, method, &path, "").refused(405);
            }
        }
    }
    assert!(asked >= 20, "{asked} routes");
    // What is referred to is there.
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let mut missing: Vec<&str> = answer
        .body
        .split("\"#/components/schemas/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|name| !schemas.contains_key(*name))
        .collect();
    missing.dedup();
    assert!(missing.is_empty(), "{missing:?}");
    for name in ["ServiceDecl", "BackendDecl", "TimeoutsDecl", "HealthDecl", "ServiceView", "StatusView"] {
        assert!(schemas.contains_key(name), "{name}");
    }
    let change = &paths["/v1/services/{name}"]["patch"];
    assert!(change["requestBody"]["content"]["application/merge-patch+json"].is_object(), "{change}");
    let keys = &paths["/v1/connections"]["get"]["parameters"];
    assert!(
        keys.as_array().is_some_and(|keys| keys.iter().any(|k| k["name"] == "sort" && k["in"] == "query"))
    );
}

/// From which the API's reference is made; `UPDATE=1` writes it anew.
#[test]
fn the_document_is_in_packaging() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/openapi.json");
    let answer = ask(&Agent::new(), "GET", "/v1/openapi.json", "");
    let made: Value = serde_json::from_str(&answer.body).expect("JSON");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&made).expect("JSON") + "\n").expect("written");
    }
    let there: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("JSON");
    assert!(there == made, "{path} is old: UPDATE=1 cargo test -p flowpin --test cli the_document");
}
