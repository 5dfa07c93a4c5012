//! Promise: every number of the API and of the command line may be given at its ends and beyond them. What can't be is refused in
//! one line that names it, nothing breaks, and an agent that is started anew finds what the one before it had.

mod generate;
mod table;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    api::Api,
    eventually,
    topology::Family::V4,
};
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use self::generate::Routes;

const LIMIT: Duration = Duration::from_secs(120);
/// Requests in all, of two clients at a time.
const REQUESTS: usize = 100_000;
/// Connections on which something is said that is hardly HTTP.
const NOISE: usize = 1_000;

fn start(net: &Net) -> Agent {
    let config = interfaces(&[("c0", "tc"), ("b0", "tc")])
        + &service("file", &V4.vip(9), "\"80/tcp\"", &[V4.backend(0)], "");
    Agent::start(&net.node, &config)
}

/// What is declared, and drained: all of it that doesn't change by itself.
fn shape(agent: &Agent) -> Value {
    const OF_SERVICE: [&str; 6] = ["name", "vip", "origin", "frontends", "declared", "rejected"];
    const OF_BACKEND: [&str; 6] = ["address", "weight", "max_connections", "local", "state", "origin"];
    let list = agent.json(&["service", "list"]);
    let of = |service: &Value| {
        let backends = service["backends"].as_array().expect("a list").iter();
        let backends: Vec<Value> =
            backends.map(|backend| OF_BACKEND.iter().map(|key| backend[*key].clone()).collect()).collect();
        let service: Value = OF_SERVICE.iter().map(|key| service[*key].clone()).collect();
        json!([service, backends])
    };
    list.as_array().expect("a list").iter().map(of).collect()
}

/// Nothing has broken, and the next agent finds all as it is.
fn endures(agent: &mut Agent) {
    let before = shape(agent);
    let panics: Vec<String> =
        agent.log().lines().filter(|line| line.contains("panicked")).map(Into::into).collect();
    assert!(panics.is_empty(), "{panics:?}");
    agent.end(Signal::SIGKILL);
    agent.spawn(&[]);
    let problems = eventually("the next agent", LIMIT, || {
        let out = agent.cli(&["status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&out.stdout)
            .map_err(|_| String::from_utf8_lossy(&out.stderr).into_owned())?;
        Ok(status["problems"].to_string())
    });
    assert!(!problems.contains("state file"), "{problems}");
    assert_eq!(shape(agent), before);
}

#[test]
fn a_hundred_thousand_requests_at_random() {
    let net = Net::new(1);
    let mut agent = start(&net);
    let routes = Routes::of(&mut Api::of(&agent));
    let began = Instant::now();
    let counts = std::thread::scope(|scope| {
        let client = |seed: u64| {
            let (agent, routes) = (&agent, &routes);
            scope.spawn(move || {
                let (mut rng, mut api) = (StdRng::seed_from_u64(seed), Api::of(agent));
                let mut counts = std::collections::BTreeMap::<u16, usize>::new();
                for i in 0..REQUESTS / 2 {
                    let asked = routes.any(&mut rng);
                    let answer = api.ask(asked.method, &asked.path, &asked.body);
                    // A probe says so of an agent that was told to detach.
                    let ready = asked.path.starts_with("/readyz") && answer.status == 503;
                    assert!(answer.status < 500 || ready, "seed {seed}, request {i}: {asked}: {answer:?}");
                    if (400..500).contains(&answer.status) && asked.method != "HEAD" {
                        answer.refused(&format!("seed {seed}, request {i}: {asked}"));
                    }
                    *counts.entry(answer.status).or_default() += 1;
                }
                counts
            })
        };
        [1, 2].map(client).map(|client| client.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    });
    println!("{REQUESTS} requests in {:?}: {counts:?}", began.elapsed());
    for counts in &counts {
        // Neither all are refused nor all taken.
        let of = |from: u16| counts.range(from..from + 100).map(|(_, count)| count).sum::<usize>();
        assert!(of(200) > REQUESTS / 20 && of(400) > REQUESTS / 20, "{counts:?}");
    }
    Api::of(&agent).ask("POST", "/v1/attach", b"");
    endures(&mut agent);
}

#[test]
fn what_is_hardly_http_is_let_go() {
    let net = Net::new(1);
    let mut agent = start(&net);
    let mut rng = StdRng::seed_from_u64(3);
    let socket = agent.config().with_file_name("api.sock");
    let whole =
        b"POST /v1/services/file/backends/10.2.0.2/drain HTTP/1.1\r\nhost: x\r\ncontent-length: 25\r\n\r\n\
        {\"deadline_seconds\": 3600}";
    for i in 0..NOISE {
        let mut bytes = whole.to_vec();
        for _ in 0..rng.random_range(1..6) {
            if bytes.is_empty() {
                break;
            }
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = rng.random(),
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        let mut stream = UnixStream::connect(&socket).expect("the agent listens");
        // It may have been refused, and closed, before all is said.
        let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.starts_with("HTTP/1.1 5"), "{i}: {:?}: {answer}", String::from_utf8_lossy(&bytes));
    }
    endures(&mut agent);
}
