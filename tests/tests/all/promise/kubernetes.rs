//! Promise: a cluster's Services are balanced as its API server tells; without it all goes on, and nothing is taken away
//! before it has told of all there is.

mod clock;
mod explain;
mod localhost;
mod ports;
mod token;
mod udp;

use std::{net::SocketAddr, time::Duration};

use fake_apiserver::Fake;
use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

const NODE: &str = "
kind: Node
metadata: {name: me}
status: {addresses: [{type: InternalIP, address: 10.1.0.1}]}
";

/// A Service with one named port, and the slice of its endpoints, by backend.
fn app(name: &str, vip: usize, endpoints: &[usize], more: &str) -> String {
    let list: Vec<String> =
        endpoints.iter().map(|i| format!("{{addresses: [{}], {more}}}", V4.backend(*i))).collect();
    format!(
        "- kind: Service
  metadata: {{namespace: d, name: {name}, uid: {name}-1}}
  spec: {{type: NodePort, clusterIP: {}, ports: [{{name: http, port: 80, nodePort: {}}}]}}
- kind: EndpointSlice
  metadata: {{namespace: d, name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
  addressType: IPv4
  ports: [{{name: http, port: 80}}]
  endpoints: [{}]
",
        V4.vip(vip),
        30_080 + vip,
        list.join(", ")
    )
}

struct World {
    net: Net,
    api: Fake,
    _servers: Vec<Server>,
    agent: Agent,
}

impl World {
    /// With a Service `d/a` of backend 0, a service of the file's and one of the command line's.
    fn new() -> Self {
        Self::of(Net::new(2))
    }

    fn of(net: Net) -> Self {
        Self::with(net, "", "")
    }

    /// With `[sockets]`, and more of `[kubernetes]`.
    fn with(net: Net, sockets: &str, more: &str) -> Self {
        let api = net.node.run(|| Fake::listen(SocketAddr::from(([127, 0, 0, 1], 6443))));
        api.apply(NODE);
        api.apply(&app("a", 0, &[0], ""));
        let name = |i: usize| format!("b{i}");
        let servers =
            net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &name(i), [80])).collect();
        let mut agent = Agent::prepare(&net.node, "");
        let kubeconfig = agent.config().with_file_name("kubeconfig");
        let token = agent.config().with_file_name("token");
        std::fs::write(&token, "first").unwrap();
        std::fs::write(
            &kubeconfig,
            format!(
                "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
                 clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:6443'}}}}], users: [{{name: u, user: {{tokenFile: {}}}}}]}}",
                token.display()
            ),
        )
        .unwrap();
        let kubernetes =
            format!("[kubernetes]\nkubeconfig = \"{}\"\nnode = \"me\"\n{more}\n", kubeconfig.display());
        let file = service("file", &V4.vip(7), "\"80/tcp\"", &[V4.backend(0)], "");
        let attached = interfaces(&[("c0", "tc"), ("b*", "tc")]);
        agent.write_config(&[sockets, &attached, &kubernetes, &file].concat());
        agent.up();
        agent.done(&["service", "add", "cli", "--vip", &V4.vip(8), "--port", "80/tcp"]);
        agent.done(&["backend", "add", "cli", &V4.backend(1)]);
        let world = Self { net, api, _servers: servers, agent };
        world.has_backends("d/a:http");
        world
    }

    /// Connects to a VIP.
    fn try_open(&self, address: &str, port: u16) -> std::io::Result<Conn> {
        self.net.client.run(|| Conn::open(at(address, port)))
    }

    fn open(&self, vip: usize) -> Conn {
        self.try_open(&V4.vip(vip), 80).expect("it is served")
    }

    /// Waits until new connections to a VIP are this backend's, and no other's.
    fn served_by(&self, vip: usize, wanted: &[&str]) {
        eventually(&format!("VIP {vip} is {wanted:?}'s"), LIMIT, || {
            let mut by: Vec<String> = (0..4)
                .map(|_| {
                    self.try_open(&V4.vip(vip), 80)
                        .map_or_else(|e| e.to_string(), |conn| conn.backend.clone())
                })
                .collect();
            by.sort();
            by.dedup();
            if by == wanted { Ok(()) } else { Err(format!("{by:?}")) }
        });
    }

    fn status(&self) -> Value {
        self.agent.json(&["status"])["kubernetes"].clone()
    }

    fn names(&self) -> Vec<String> {
        let list = self.agent.json(&["service", "list"]);
        list.as_array().expect("a list").iter().map(|s| s["name"].as_str().expect("a name").into()).collect()
    }

    /// Starts the agent again, without its API server, and waits until it is attached.
    fn again(&mut self) {
        self.agent.spawn(&[]);
        self.agent.answers();
        eventually("it is attached", LIMIT, || match self.agent.json(&["status"]) {
            status
                if status["kubernetes"]["node"] == "me"
                    && !status["problems"].to_string().contains("interface") =>
            {
                Ok(())
            }
            status => Err(status.to_string()),
        });
    }

    /// Waits until these services are in force.
    fn are(&self, wanted: &[&str]) {
        eventually(&format!("{wanted:?} are in force"), LIMIT, || match self.names() {
            names if names == wanted => Ok(()),
            names => Err(format!("{names:?}")),
        });
    }

    /// Waits until a service has endpoints: each object is heard of by itself.
    fn has_backends(&self, service: &str) {
        eventually("it has endpoints", LIMIT, || {
            let out = self.agent.cli(&["service", "show", service, "-o", "json"]);
            let view: Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
            if view["backends"][0].is_null() { Err(view.to_string()) } else { Ok(()) }
        });
    }

    fn synced(&self) {
        eventually("the API server has told of all", LIMIT, || match self.status() {
            status if status["synced"] == true => Ok(()),
            status => Err(status.to_string()),
        });
    }
}

#[test]
fn services_are_what_the_api_server_says() {
    let world = World::new();
    let (api, agent) = (&world.api, &world.agent);
    let status = world.status();
    assert_eq!((&status["node"], &status["synced"]), (&"me".into(), &true.into()), "{status}");
    assert_eq!(
        (&status["server"], &status["services"]),
        (&"http://127.0.0.1:6443/".into(), &1.into()),
        "{status}"
    );
    assert_eq!(world.names(), ["cli", "d/a:http", "file"]);
    let mut first = world.open(0);
    assert_eq!(first.backend, "b0");
    assert_eq!(world.try_open("10.1.0.1", 30_080).expect("the node port").backend, "b0");
    // Endpoints come and go.
    api.apply(&app("a", 0, &[0, 1], ""));
    world.served_by(0, &["b0", "b1"]);
    api.apply(&app("a", 0, &[1], ""));
    world.served_by(0, &["b1"]);
    api.apply(&app("a", 0, &[0, 1], "conditions: {ready: false}"));
    eventually("nobody is ready", LIMIT, || match world.try_open(&V4.vip(0), 80) {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
    first.exchange(5_000).expect("what is open stays");
    // Another Service, one that goes, and one of which something is wrong.
    api.apply(&app("b", 1, &[1], ""));
    world.served_by(1, &["b1"]);
    api.apply(
        &app("c", 2, &[0], "")
            .replace("uid: c-1", "uid: c-1, annotations: {service.flowpin.io/slow-strt: 3s}"),
    );
    world.served_by(2, &["b0"]);
    let notes = world.status()["notes"].clone();
    assert_eq!(
        (&notes[0]["object"], &notes[0]["reason"]),
        (&"d/c".into(), &"InvalidAnnotation".into()),
        "{notes}"
    );
    api.delete("services", "d/b");
    world.are(&["cli", "d/a:http", "d/c:http", "file"]);
    let said = agent.cli(&["service", "remove", "d/c:http"]);
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("is a Kubernetes Service's; change it there"), "{said}");
    // Without a cluster in the file, nothing is any cluster's.
    agent.write_config(&(interfaces(&[("c0", "tc"), ("b*", "tc")])));
    agent.signal(Signal::SIGHUP);
    world.are(&["cli"]);
    first.exchange(5_000).expect("what is open stays");
}

#[test]
fn without_its_api_server_all_goes_on() {
    let mut world = World::new();
    world.api.apply(&app("b", 1, &[1], ""));
    world.served_by(1, &["b1"]);
    let mut open = [world.open(0), world.open(1), world.open(7), world.open(8)];
    world.api.stop();
    eventually("that is in the status", LIMIT, || match world.agent.json(&["status"]) {
        status if status["problems"].to_string().contains("doesn't tell of") => Ok(()),
        status => Err(status.to_string()),
    });
    world.served_by(0, &["b0"]);
    // An agent that finds none goes on with what is there, and changes nothing.
    for (n, signal) in [Signal::SIGTERM, Signal::SIGKILL].into_iter().enumerate() {
        world.agent.end(signal);
        world.again();
        let steps = eventually("it is ready", LIMIT, || {
            let log = world.agent.log();
            let found: Vec<&str> = log.lines().filter(|line| line.contains("reconciled")).collect();
            if found.len() == n + 2 { Ok(found[n + 1].to_string()) } else { Err(log) }
        });
        // Addresses for source NAT aren't read back, and always written.
        assert!(steps.contains("steps=1 "), "{steps}");
        assert_eq!(world.status()["synced"], false);
        assert_eq!(world.names(), ["cli", "d/a:http", "d/b:http", "file"]);
        for (vip, by) in [(0, "b0"), (1, "b1"), (7, "b0"), (8, "b1")] {
            world.served_by(vip, &[by]);
        }
    }
    // Not even when the last list is all that it has heard for a while.
    eventually("the list is looked at", LIMIT, || match world.agent.log() {
        log if log.contains("going on with the last list") => Ok(()),
        log => Err(log),
    });
    // What has changed meanwhile is in force when it is back: what has gone, and what is another's now.
    world.api.delete("services", "d/b");
    world.api.delete("endpointslices", "d/b-1");
    world.api.apply(&app("a", 0, &[1], ""));
    world.net.node.run(|| world.api.restart());
    world.synced();
    world.served_by(0, &["b1"]);
    world.are(&["cli", "d/a:http", "file"]);
    for conn in &mut open {
        conn.exchange(5_000).expect("what is open stays");
    }
}

#[test]
fn after_a_reboot_the_last_list_will_do() {
    let mut world = World::new();
    // It is saved when the agent ends.
    world.agent.end(Signal::SIGTERM);
    world.api.stop();
    std::fs::remove_dir_all(world.agent.pins()).expect("nothing is left in the kernel");
    world.again();
    world.are(&["cli", "d/a:http", "file"]);
    world.served_by(0, &["b0"]);
    assert_eq!(world.status()["synced"], false);
    world.api.apply(&app("a", 0, &[1], ""));
    world.net.node.run(|| world.api.restart());
    world.synced();
    world.served_by(0, &["b1"]);
}

#[test]
fn what_is_wrong_with_an_object_is_an_event_once() {
    let world = World::new();
    let bad = app("c", 2, &[0], "")
        .replace("uid: c-1", "uid: c-1, annotations: {service.flowpin.io/slow-strt: 3s}");
    let about = |reason: &str| -> Vec<Value> {
        world.api.created().into_iter().filter(|event| event["reason"] == reason).collect()
    };
    world.api.apply(&bad);
    let event = eventually("an Event", LIMIT, || about("InvalidAnnotation").pop().ok_or("none".into()));
    let regarding = &event["regarding"];
    assert_eq!(
        (&regarding["kind"], &regarding["name"], &regarding["uid"]),
        (&"Service".into(), &"c".into(), &"c-1".into())
    );
    assert_eq!(
        (&event["type"], &event["metadata"]["namespace"]),
        (&"Warning".into(), &"d".into()),
        "{event}"
    );
    assert!(event["note"].to_string().contains("slow-strt"), "{event}");
    // The same again, and then something else of it.
    world.api.apply(&bad.replace("port: 80, nodePort", "port: 81, nodePort"));
    world.api.apply(&bad.replace("slow-strt", "slow-stat"));
    eventually("another Event", LIMIT, || match about("InvalidAnnotation").len() {
        2 => Ok(()),
        n => Err(format!("{n}")),
    });
    assert_eq!(about("Starting").len(), 1);
}
