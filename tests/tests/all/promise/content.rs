//! Promise: a check that asks a database what it is follows a failover, and says why a backend isn't well; its password is kept over restarts, and
//! shown nowhere.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(40);

/// A password of checks.
const PASSWORD: &str = "s3cret";

/// Redis, as far as checks ask: PING and INFO, by words in lines of their own or in one line, after the password if it has one.
struct Redis {
    master: Arc<AtomicBool>,
}

impl Redis {
    fn start(ns: &Ns, master: bool, password: Option<&'static str>) -> Self {
        let redis = Self { master: Arc::new(AtomicBool::new(master)) };
        let listener = ns.run(|| TcpListener::bind(("::", 6379))).expect("a port");
        let is_master = redis.master.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut let_in = password.is_none();
                for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                    let answer: String = match line.as_str() {
                        line if Some(line) == password => {
                            let_in = true;
                            "+OK\r\n".into()
                        }
                        "PING" if let_in => "+PONG\r\n".into(),
                        "PING" => "-NOAUTH Authentication required.\r\n".into(),
                        line if let_in && line.ends_with("replication") => {
                            let role = if is_master.load(Ordering::SeqCst) { "master" } else { "slave" };
                            let info = format!("# Replication\r\nrole:{role}\r\n");
                            format!("${}\r\n{info}\r\n", info.len())
                        }
                        _ => continue,
                    };
                    // A check that has gone meanwhile is no matter.
                    let _ = (&stream).write_all(answer.as_bytes());
                }
            }
        });
        redis
    }

    fn becomes(&self, master: bool) {
        self.master.store(master, Ordering::SeqCst);
    }
}

fn servers(net: &Net) -> Vec<Server> {
    net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect()
}

/// A backend's name, as the command line writes it.
fn name(family: Family, number: usize) -> String {
    family.backend(number).parse::<std::net::IpAddr>().expect("an address").to_string()
}

/// Waits until only this backend is healthy, and returns the service as it is then.
fn await_only(agent: &Agent, family: Family, number: usize) -> Value {
    let address = name(family, number);
    let mut shown = Value::Null;
    eventually("the checks' conclusion", LIMIT, || {
        shown = agent.json(&["service", "show", "app"]);
        let all = shown["backends"].as_array().expect("a list");
        let as_wanted = all.iter().all(|b| b["healthy"] == (b["address"] == address.as_str()));
        if as_wanted && !all.is_empty() { Ok(()) } else { Err(shown.to_string()) }
    });
    shown
}

/// Where new connections go.
fn all_go_to(net: &Net, family: Family, name: &str) {
    let open = || (0..4).map(|_| Conn::open(at(&family.vip(0), 80)).expect("somebody answers")).collect();
    let conns: Vec<Conn> = net.client.run(open);
    let names: Vec<&str> = conns.iter().map(|conn| conn.backend.as_str()).collect();
    assert_eq!(names, [name; 4]);
}

/// Why a backend is unhealthy, as its service says.
fn why(shown: &Value, family: Family, number: usize) -> &str {
    let mut all = shown["backends"].as_array().expect("a list").iter();
    let one = all.find(|one| one["address"] == name(family, number).as_str()).expect("the backend");
    one["last_health_check_failure"].as_str().unwrap_or_default()
}

#[test]
fn a_check_of_redis_follows_the_master() {
    let net = Net::new(2);
    let _servers = servers(&net);
    let redis = [true, false]
        .iter()
        .zip(&net.backends)
        .map(|(master, ns)| Redis::start(ns, *master, Some(PASSWORD)))
        .collect::<Vec<_>>();
    let mut agent = Agent::start(&net.node, &interfaces(&[("c0", "tc"), ("b*", "tc")]));
    let add = "--port 80/tcp --health redis --health-port 6379 --health-role master --health-interval 200ms \
               --health-rise 1 --health-fall 1";
    let vip = V4.vip(0);
    let mut args = vec!["service", "add", "app", "--vip", &vip, "--health-password", PASSWORD];
    args.extend(add.split_whitespace());
    let mut said = agent.done(&args);
    for number in 0..2 {
        said += &agent.done(&["backend", "add", "app", &V4.backend(number)]);
    }

    let shown = await_only(&agent, V4, 0);
    assert_eq!(why(&shown, V4, 1), "is a replica, not a master", "{shown}");
    assert_eq!(why(&shown, V4, 0), "");
    all_go_to(&net, V4, "b0");

    redis[0].becomes(false);
    redis[1].becomes(true);
    let shown = await_only(&agent, V4, 1);
    assert_eq!(why(&shown, V4, 0), "is a replica, not a master", "{shown}");
    all_go_to(&net, V4, "b1");
    let events = agent.done(&["events"]);
    assert!(events.contains("is a replica, not a master"), "{events}");

    // The next agent has the password, from the state file.
    agent.end(Signal::SIGKILL);
    agent.up();
    redis[0].becomes(true);
    redis[1].becomes(false);
    let shown = await_only(&agent, V4, 0);
    assert_eq!(shown["declared"]["health"]["password"], "***", "{shown}");
    all_go_to(&net, V4, "b0");
    said += &agent.done(&["service", "show", "app"]);
    for text in [said, shown.to_string(), events, agent.log()] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

#[test]
fn a_conversation_says_what_came_instead() {
    let net = Net::new(2);
    let _servers = servers(&net);
    let redis: Vec<Redis> = net.backends.iter().map(|ns| Redis::start(ns, true, None)).collect();
    redis[1].becomes(false);
    let talk = r#"[{ send = 'PING\r\n' }, { expect = "+PONG\r\n" }, { send = 'INFO replication\r\n' }, { matches = 'role:(master|primary)' }]"#;
    let checks = format!(
        "health = {{ type = \"tcp\", port = 6379, talk = {talk}, interval = \"200ms\", timeout = \"500ms\", rise = 1, fall = 1 }}"
    );
    let targets = [V6.backend(0), V6.backend(1)];
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("app", &V6.vip(0), "\"80/tcp\"", &targets, &checks);
    let agent = Agent::start(&net.node, &config);
    let shown = await_only(&agent, V6, 0);
    let why = why(&shown, V6, 1);
    assert!(why.contains(r"role:slave\r\n") && why.contains("no answer within 500ms"), "{why}");
    assert!(why.contains("/role:(master|primary)/ was expected"), "{why}");
    all_go_to(&net, V6, "b0");
    let shown = agent.done(&["service", "show", "app"]);
    assert!(shown.contains(why) && shown.contains(r"send PING\r\n, expect +PONG"), "{shown}");
}
