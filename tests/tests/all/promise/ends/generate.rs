//! Requests at random: of the routes that the API's own document names, mostly well-formed and about the same few services and
//! backends, so that some are taken; and with any value at its ends anywhere.

use std::fmt;

use flowpin_tests::harness::api::Api;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};

/// A request.
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub body: Vec<u8>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{} {} {}", self.method, self.path, body.chars().take(500).collect::<String>())
    }
}

/// A route of the document.
struct Route {
    method: &'static str,
    path: String,
    query: Vec<String>,
    /// What a body of it may be.
    bodies: Vec<Value>,
}

/// All of them, and values at the ends of what there are.
pub struct Routes {
    all: Vec<Route>,
    ends: Vec<Value>,
}

const METHODS: [&str; 7] = ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"];
const NAMES: [&str; 7] = ["a", "b", "ns/c", "d:e", "f", "g", "file"];
const ADDRESSES: [&str; 7] =
    ["10.2.0.2", "10.2.0.2:80", "10.0.1.11:5432", "[fd00::11]:80", "fd00::12", "0.0.0.0", "10.96.0.10"];

fn pick<T: Clone>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())].clone()
}

fn one_in(rng: &mut StdRng, n: u32) -> bool {
    rng.random_range(0..n) == 0
}

/// Values at the ends of what there are.
fn ends() -> Vec<Value> {
    let numbers = [0, 1, -1, 2, 65_535, 65_536, 1_728_000, 1_728_001, i64::from(u32::MAX), 1 << 32, 1 << 53];
    let mut all: Vec<Value> = numbers.into_iter().chain([i64::MAX, i64::MIN]).map(Value::from).collect();
    all.extend([31_536_000, 31_536_001, 1 << 63, u64::MAX - 1, u64::MAX].map(Value::from));
    all.extend([0.5, 0.999, -0.0, 5e-324, 1e308, -1e308, 1.844_674_407_370_955_2e19].map(Value::from));
    let texts = [
        "",
        " ",
        "0",
        "1s",
        "20days",
        "20days 1s",
        "584942417355years",
        "99999999999999999999s",
        "1e308s",
        "inf",
        "nan",
        "0/tcp",
        "1/udp",
        "65535/tcp",
        "65536/tcp",
        "1-0/tcp",
        "65534-65535:1-2/tcp",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "224.0.0.1",
        "127.0.0.1",
        "10.96.0.11",
        "fd96::11",
        "0.0.0.0/0",
        "10.0.0.0/33",
        "10.1.2.3/8",
        "[::]:0",
        "10.2.0.2:65535",
        "10.2.0.2:65536",
        "none",
        "tcp",
        "http",
        "https",
        "grpc",
        "reset",
        "keep",
        "drain",
        "forward",
        "pass",
        "snat",
        "nat",
        "dsr-l2",
        "dsr-ipip",
        "local",
        "port",
        "consistent-hash",
        "/",
        ".",
        "..",
        "a/../b",
        "a\u{0}b",
        "a\nb",
        "\u{202e}\u{fffd}é",
        "{}",
        "age",
        "bytes",
        "established",
    ];
    all.extend(texts.map(Value::from));
    all.extend([253, 254, 4_000].map(|n| Value::from("x".repeat(n))));
    let deep = (0..200).fold(Value::Null, |deep, _| json!([deep]));
    all.extend([Value::Null, true.into(), false.into(), json!([]), json!({}), json!([[]]), deep]);
    all.push(json!({"client_ip": true, "timeout": 1}));
    all
}

/// Bodies that may be taken, by the schema that the document names.
fn bodies(schema: &str, path: &str) -> Vec<Value> {
    let backend = || json!({"address": "10.2.0.2", "weight": 3, "max_connections": 9, "local": true});
    let service = json!({
        "name": "a", "vip": "10.96.0.10", "vips": ["fd96::10"], "ports": ["80/tcp", "53:5353/udp"],
        "source_ranges": ["0.0.0.0/0", "::/0"], "algorithm": "least-connections", "stray": "reset",
        "affinity": {"client_ip": true, "timeout": "3h", "ipv6_prefix": 64, "bound": 100},
        "timeouts": {"idle": "15h", "client_request": 60, "max_age": "1day", "half_open": 10, "udp": 30},
        "health": {"type": "http", "path": "/", "interval": "20days", "timeout": 1, "rise": 1, "fall": 2, "expect": 204,
                   "panic": 50},
        "slow_start": "30s", "on_removal": "drain", "on_deadline": "reset", "scope": "all",
        "frontends": [{"addresses": ["192.0.2.1"], "ports": ["81:80/tcp"], "forward": {"elsewhere": "snat"}}],
        "backends": [backend(), {"address": "fd00::12", "weight": 65_535}],
    });
    let small =
        json!({"name": "b", "vip": "10.96.0.12", "ports": ["80/tcp"], "algorithm": "consistent-hash"});
    match (schema, path.contains("{address}")) {
        ("ServiceDecl", _) => vec![service, small],
        ("BackendDecl", _) => vec![backend()],
        // A patch is any object.
        ("", true) => {
            vec![json!({"weight": 7}), json!({"max_connections": null, "weight": 1, "local": false})]
        }
        ("", false) => vec![
            json!({"slow_start": 5, "timeouts": {"idle": "3h", "backend_response": "30min"}, "affinity": null}),
            json!({"health": {"type": "tcp", "interval": 86_400, "rise": 1_000}, "on_unhealthy": "reset"}),
            json!({"rebalance": {"budget": "1%/min", "idle": 86_400, "above": 100}, "affinity": null}),
            json!({"quorum": 1_000_000_000, "on_removal": {"policy": "drain", "deadline": 31_536_000}, "health": null}),
            json!({"ports": ["80/tcp", "90-99/udp"], "forward": "snat", "stray": "pass", "service_max_connections": 9}),
            service,
        ],
        ("Drain", _) => vec![json!({"deadline_seconds": 31_536_000}), json!({})],
        ("ConnectionClose", _) => {
            vec![
                json!({"filter": {"service": "file", "state": "established"}, "idle_seconds": 1, "rate": 5_000}),
            ]
        }
        ("Detach", _) => vec![json!({"hand_over": true, "deadline_seconds": 3_600}), json!({})],
        (other, _) => panic!("{path}: what is a {other}? Give it a body here"),
    }
}

impl Routes {
    /// Of the document that an agent shows.
    pub fn of(api: &mut Api) -> Self {
        let document = api.ask("GET", "/v1/openapi.json", b"").json();
        let mut all = Vec::new();
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for (method, operation) in operations.as_object().expect("operations") {
                let method = METHODS.into_iter().find(|m| m.eq_ignore_ascii_case(method)).expect("a method");
                let named =
                    |p: &Value| (p["in"] == "query").then(|| p["name"].as_str().map(Into::into)).flatten();
                let query =
                    operation["parameters"].as_array().into_iter().flatten().filter_map(named).collect();
                let content = operation["requestBody"]["content"].as_object();
                let schema =
                    content.and_then(|content| content.values().next()).map(|media| &media["schema"]);
                let name = |schema: &Value| {
                    let full = schema["$ref"].as_str().unwrap_or_default();
                    full.rsplit('/').next().unwrap_or_default().to_string()
                };
                let bodies = schema.map(|schema| bodies(&name(schema), path)).unwrap_or_default();
                all.push(Route { method, path: path.clone(), query, bodies });
            }
        }
        assert!(all.len() > 20, "{} routes", all.len());
        Self { all, ends: ends() }
    }

    /// One of many.
    pub fn any(&self, rng: &mut StdRng) -> Request {
        let ends = &self.ends;
        let route = &self.all[rng.random_range(0..self.all.len())];
        // To have all taken off and attached again takes longer than the rest together; and without services nothing is said.
        if route.path == "/v1/detach" && !one_in(rng, 50) {
            return self.any(rng);
        }
        let method = if one_in(rng, 50) { pick(rng, &METHODS) } else { route.method };
        let name = text(rng, &NAMES, ends);
        let mut path = route
            .path
            .replace("{name}", &escaped(&name))
            .replace("{address}", &escaped(&text(rng, &ADDRESSES, ends)));
        if one_in(rng, 100) {
            path.push_str(pick(rng, &["/", "/x", "//", "/%00", "/%ff", "/%zz", "?x=1", "?follow=true"]));
        }
        if !route.query.is_empty() && !path.contains('?') && !one_in(rng, 4) {
            let key = pick(rng, &route.query);
            let value = match pick(rng, ends) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            let value = if one_in(rng, 4) { pick(rng, &NAMES).into() } else { value };
            path.push_str(&format!("?{key}={}", escaped(&value)));
        }
        Request { method, path, body: body(rng, route, &name, ends) }
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// One of those that there are, mostly.
fn text(rng: &mut StdRng, usual: &[&str], ends: &[Value]) -> String {
    if !one_in(rng, 10) {
        return pick(rng, usual).into();
    }
    match pick(rng, ends) {
        Value::String(text) if !text.is_empty() => text,
        other => other.to_string(),
    }
}

fn body(rng: &mut StdRng, route: &Route, name: &str, ends: &[Value]) -> Vec<u8> {
    if route.bodies.is_empty() {
        return if one_in(rng, 50) { pick(rng, ends).to_string().into_bytes() } else { Vec::new() };
    }
    let mut body = pick(rng, &route.bodies);
    if body.get("name").is_some() {
        match route.method {
            "POST" => {
                body["name"] = text(rng, &NAMES[..6], ends).into();
                // Each at an address of its own, or else all but one would be refused.
                body["vip"] = format!("10.96.1.{}", rng.random_range(0..40)).into();
            }
            _ => body["name"] = name.into(),
        }
    }
    if body.get("address").is_some() {
        body["address"] = text(rng, &ADDRESSES, ends).into();
    }
    let changes = pick(rng, &[0, 0, 1, 1, 1, 2, 3]);
    (0..changes).for_each(|_| change(rng, &mut body, ends));
    let mut bytes = body.to_string().into_bytes();
    if one_in(rng, 10) {
        spoil(rng, &mut bytes);
    }
    bytes
}

/// Puts another value anywhere, or takes one away, or adds one.
fn change(rng: &mut StdRng, value: &mut Value, ends: &[Value]) {
    let deeper = !one_in(rng, 6);
    match value {
        Value::Object(parts) if deeper && !parts.is_empty() => {
            let keys: Vec<String> = parts.keys().cloned().collect();
            let key = pick(rng, &keys);
            match rng.random_range(0..12) {
                0 => drop(parts.remove(&key)),
                1 => drop(parts.insert(text(rng, &["weight", "ports", "vip", "x"], ends), pick(rng, ends))),
                _ => {
                    let part = parts.get_mut(&key).expect("it is there");
                    change(rng, part, ends);
                }
            }
        }
        Value::Array(parts) if deeper && !parts.is_empty() => {
            let at = rng.random_range(0..parts.len());
            if one_in(rng, 6) {
                let again = parts[at].clone();
                parts.push(again);
            }
            change(rng, &mut parts[at], ends);
        }
        other => *other = pick(rng, ends),
    }
}

/// What is hardly JSON any more, and numbers that no JSON value has.
fn spoil(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..5) {
        0 => bytes.truncate(at),
        1 => bytes[at] = rng.random(),
        2 => drop(bytes.remove(at)),
        _ => {
            let digits = bytes[at..].iter().position(u8::is_ascii_digit).map(|from| at + from);
            let Some(from) = digits else { return };
            let length = bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
            let huge = pick(
                rng,
                &["18446744073709551616", "1e400", "-1e400", "NaN", "0x10", "1.7976931348623157e308", "00"],
            );
            drop(bytes.splice(from..from + length, huge.bytes()));
        }
    }
}
