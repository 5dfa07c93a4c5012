//! A line for each number: which of its values at the ends are taken, and which aren't.

use flowpin_tests::harness::{Agent, Net, api::Api};
use serde_json::{Value, json};

use super::{endures, start};

/// The longest time that a flow's stamps can measure, in seconds, and a year.
const LONGEST: u64 = 20 * 86_400;
const YEAR: u64 = 365 * 86_400;

/// Durations that nothing has.
fn no_durations() -> Vec<Value> {
    let mut bad: Vec<Value> = [0.0, 0.999, -1.0, 1e308, -1e308, 1.8e19].map(Value::from).into();
    bad.extend([u64::MAX, LONGEST + 1].map(Value::from));
    bad.extend(
        ["", "0s", "999ms", "-1s", "nan", "inf", "1e308s", "20days 1s", "18446744073709551615s"]
            .map(Value::from),
    );
    bad.extend(["99999999999999999999s", "584942417355years", "1"].map(Value::from));
    bad
}

/// Numbers that no field has: too large, too small, no whole ones.
fn no_numbers() -> Vec<Value> {
    vec![json!(-1), json!(i64::MIN), json!(u64::MAX), json!(0.5), json!(1e308), json!("1"), json!([])]
}

/// A field by its pointer, what is taken, and what isn't besides what nothing has.
type Row = (&'static str, Vec<Value>, Vec<Value>);

fn of_service() -> Vec<Row> {
    let time =
        |pointer| (pointer, vec![json!(1), json!("1s"), json!(LONGEST), json!("20days")], no_durations());
    let whole = |pointer, first: i64, last: i64| {
        let beyond = [json!(first - 1), json!(last + 1)];
        (pointer, vec![json!(first), json!(last)], no_numbers().into_iter().chain(beyond).collect())
    };
    let mut rows: Vec<Row> = [
        "/slow_start",
        "/timeouts/idle",
        "/timeouts/client_request",
        "/timeouts/max_age",
        "/timeouts/half_open",
        "/timeouts/half_closed",
        "/timeouts/udp",
        "/affinity/timeout",
        "/rebalance/idle",
    ]
    .map(time)
    .into();
    rows.extend(["/health/interval", "/health/timeout"].map(|pointer| {
        let good = vec![json!(0.1), json!("100ms"), json!(LONGEST), json!("20days")];
        let below_a_second = [json!(0.999), json!("999ms")];
        let none = no_durations().into_iter().filter(|bad| !below_a_second.contains(bad));
        (pointer, good, none.chain([json!(0.0999), json!("99ms")]).collect())
    }));
    let response = [json!(1_800.001), json!("31min")];
    let bad = no_durations().into_iter().chain(response).collect();
    rows.push(("/timeouts/backend_response", vec![json!(1), json!(1_800)], bad));
    rows.extend([
        whole("/health/rise", 1, 1_000),
        whole("/health/fall", 1, 1_000),
        whole("/health/panic", 0, 100),
        whole("/affinity/ipv6_prefix", 1, 128),
        whole("/affinity/bound", 1, 1_000_000),
    ]);
    let ports = [
        "0/tcp",
        "65536/tcp",
        "1-65536/tcp",
        "4294967376/tcp",
        "-1/tcp",
        "80:0/tcp",
        "80:65536/tcp",
        "2-1/tcp",
    ];
    let ports = ports.map(|port| json!([port])).into_iter().chain(no_numbers()).collect();
    rows.push(("/ports", vec![json!(["1/tcp", "65535/udp"]), json!(["80:65535/tcp"])], ports));
    rows.push((
        "/affinity/group",
        vec![json!("g"), json!("g".repeat(253))],
        vec![json!(""), json!("g".repeat(254))],
    ));
    rows
}

/// `{"a": {"b": value}}` for `/a/b`.
fn nested(pointer: &str, value: &Value) -> Value {
    let mut all = pointer.split('/').skip(1).collect::<Vec<_>>();
    all.reverse();
    let mut value = all.iter().fold(value.clone(), |inner, key| json!({*key: inner}));
    if let Some(health) = value.get_mut("health") {
        health["type"] = "tcp".into();
    }
    if let Some(rebalance) = value.get_mut("rebalance") {
        rebalance["budget"] = "1%/min".into();
    }
    value
}

/// What a refusal has to name of a value.
fn shown(value: &Value) -> String {
    match value {
        // Of a port the number at fault.
        Value::String(text) if text.ends_with("/tcp") || text.starts_with("10.2.0.4:") => {
            text.trim_end_matches("/tcp").rsplit([':', '-']).next().unwrap_or_default().into()
        }
        Value::String(text) => text.chars().take(100).collect(),
        Value::Number(n) if n.is_f64() && n.as_f64().is_some_and(|n| n.abs() > 1e15) => String::new(),
        Value::Array(values) => values.first().map(shown).unwrap_or_default(),
        other => other.to_string(),
    }
}

/// One field of one thing: all that it may be, and all that it mayn't.
fn try_out(
    api: &mut Api,
    (pointer, good, bad): &Row,
    mut ask: impl FnMut(&mut Api, &Value) -> (String, Result<Value, String>),
) {
    for value in good {
        let (what, answer) = ask(api, value);
        answer.unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    for value in bad {
        let (what, answer) = ask(api, value);
        let error = answer.expect_err(&what);
        let key = pointer.rsplit('/').next().expect("a key");
        let named =
            error.contains(&shown(value)) || value.as_f64().is_some_and(|n| error.contains(&format!("{n}")));
        assert!(named || error.contains(key), "{what}: {error}");
        let remedy = ["use ", "write ", "expected ", "from 1s ", "from 100ms ", "give "]
            .iter()
            .any(|word| error.contains(word));
        assert!(remedy, "{what}: no remedy: {error}");
    }
}

fn asked(api: &mut Api, method: &str, path: &str, body: &Value) -> (String, Result<Value, String>) {
    let what = format!("{method} {path} {}", body.to_string().chars().take(200).collect::<String>());
    let answer = api.ask(method, path, body.to_string().as_bytes());
    match answer.status {
        200..300 => (what, Ok(answer.json())),
        _ => (what.clone(), Err(answer.refused(&what))),
    }
}

#[test]
fn every_number_at_its_ends() {
    let net = Net::new(1);
    let mut agent = start(&net);
    let api = &mut Api::of(&agent);
    let add =
        json!({"name": "a", "vip": "10.96.0.10", "ports": ["80/tcp"], "backends": [{"address": "10.2.0.2"}]});
    asked(api, "POST", "/v1/services", &add).1.expect("a service");
    services(api);
    names(api);
    backends(api);
    deadlines(api);
    queries(api);
    words(&agent);
    endures(&mut agent);
}

fn services(api: &mut Api) {
    for row in of_service() {
        let before = api.ask("GET", "/v1/services/a", b"").json()["declared"].clone();
        try_out(api, &row, |api, value| {
            let answer = asked(api, "PATCH", "/v1/services/a", &nested(row.0, value));
            if answer.1.is_ok() {
                let whole = before.as_object().expect("an object").clone();
                let top = row.0.split('/').nth(1).expect("a key");
                let back = json!({top: whole.get(top).cloned().unwrap_or_default()});
                asked(api, "PATCH", "/v1/services/a", &back).1.expect("as it was");
            }
            answer
        });
        assert_eq!(api.ask("GET", "/v1/services/a", b"").json()["declared"], before, "{}", row.0);
    }
}

fn names(api: &mut Api) {
    let long = |n: usize| json!("n".repeat(n));
    let bad = ["", ".", "..", "a/", "a//b", "a b", "a\u{0}", "é"]
        .map(Value::from)
        .into_iter()
        .chain([long(254), long(4_000)]);
    try_out(api, &("/name", vec![json!("n"), long(253)], bad.collect()), |api, value| {
        let answer = asked(
            api,
            "POST",
            "/v1/services",
            &json!({"name": value, "vip": "10.96.0.11", "ports": ["80/tcp"]}),
        );
        if answer.1.is_ok() {
            let path = format!("/v1/services/{}", value.as_str().expect("text"));
            assert_eq!(api.ask("DELETE", &path, b"").status, 204);
        }
        answer
    });
}

fn backends(api: &mut Api) {
    let path = "/v1/services/a/backends/10.2.0.2";
    for (pointer, first, last) in [("/weight", 0, 65_535), ("/max_connections", 1, i64::from(u32::MAX) - 1)] {
        let bad = no_numbers().into_iter().chain([json!(first - 1), json!(last + 1)]).collect();
        let row = (pointer, vec![json!(first), json!(last)], bad);
        try_out(api, &row, |api, value| asked(api, "PATCH", path, &nested(pointer, value)));
        try_out(api, &row, |api, value| {
            let mut add = nested(pointer, value);
            add["address"] = "10.2.0.3".into();
            asked(api, "POST", "/v1/services/a/backends", &add)
        });
    }
    let bad = ["10.2.0.4:0", "10.2.0.4:65536", "10.2.0.4:-1", "10.2.0.256", "10.2.0.4:", ""]
        .map(Value::from)
        .into();
    let row = ("/address", vec![json!("10.2.0.4:1"), json!("10.2.0.4:65535")], bad);
    try_out(api, &row, |api, value| {
        asked(api, "POST", "/v1/services/a/backends", &json!({"address": value}))
    });
}

fn deadlines(api: &mut Api) {
    let bad = || no_numbers().into_iter().chain([json!(YEAR + 1)]).collect();
    let row = ("/deadline_seconds", vec![json!(0), json!(1), json!(YEAR), Value::Null], bad());
    let path = "/v1/services/a/backends/10.2.0.2/drain";
    try_out(api, &row, |api, value| asked(api, "POST", path, &json!({"deadline_seconds": value})));
    try_out(api, &("/deadline_seconds", Vec::new(), bad()), |api, value| {
        asked(api, "POST", "/v1/detach", &json!({"hand_over": true, "deadline_seconds": value}))
    });
    let close = |key: &'static str| {
        move |api: &mut Api, value: &Value| {
            let mut body = json!({"filter": {"service": "a"}});
            body[key] = value.clone();
            asked(api, "POST", "/v1/connections/close", &body)
        }
    };
    let bad: Vec<Value> = no_numbers().into_iter().filter(|n| *n != json!(u64::MAX)).collect();
    try_out(api, &("/idle_seconds", vec![json!(0), json!(u64::MAX)], bad), close("idle_seconds"));
    let bad = no_numbers().into_iter().chain([json!(0), json!(1_u64 << 32)]).collect();
    try_out(api, &("/rate", vec![json!(1), json!(u32::MAX)], bad), close("rate"));
}

fn queries(api: &mut Api) {
    for (value, good) in
        [("0", true), ("18446744073709551615", true), ("18446744073709551616", false), ("-1", false)]
    {
        let answer = api.ask("GET", &format!("/v1/connections?limit={value}"), b"");
        assert_eq!(answer.status == 200, good, "{answer:?}");
        if !good {
            assert!(answer.refused(value).contains(value));
        }
    }
    for vip in ["10.96.0.10:0", "10.96.0.10:65536", "10.96.0.10"] {
        answer_names(api, &format!("/v1/explain?client=10.1.0.2&vip={vip}"), vip);
    }
    answer_names(api, "/v1/explain?client=10.1.0.2:65536&vip=10.96.0.10:80", "10.1.0.2:65536");
}

fn answer_names(api: &mut Api, path: &str, value: &str) {
    let error = api.ask("GET", path, b"").refused(path);
    assert!(error.contains(value), "{error}");
}

/// The same by the command line: what is no number there isn't asked for.
fn words(agent: &Agent) {
    for (line, code, says) in [
        ("backend drain a 10.2.0.2 --deadline 18446744073709551615s", 1, "18446744073709551615"),
        ("backend drain a 10.2.0.2 --deadline 99999999999999999999s", 2, "99999999999999999999s"),
        ("backend drain a 10.2.0.2 --deadline 366days", 1, "31536000"),
        ("backend add a 10.2.0.5 --weight 18446744073709551616", 2, "18446744073709551616"),
        ("backend add a 10.2.0.5 --weight -9223372036854775808", 1, "-9223372036854775808"),
        ("backend add a 10.2.0.5 --max-connections 4294967295", 1, "4294967295"),
        ("service set a --slow-start 1e308s", 1, "1e308s"),
        ("service set a --timeout-idle 20days1s", 1, "20days1s"),
        ("connection close --service a --rate 0", 2, "--rate"),
        ("connection close --service a --idle-for 99999999999999999999h", 2, "99999999999999999999h"),
        ("detach --hand-over --deadline 366days", 1, "31622400"),
    ] {
        let out = agent.cli(&line.split(' ').collect::<Vec<_>>());
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!((out.status.code(), error.lines().count()), (Some(code), 1), "{line}: {error}");
        assert!(error.contains(says), "{line}: {error}");
    }
}
