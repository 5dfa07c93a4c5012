use fake_apiserver::{Fake, Fault};
use kube::Config;
use serde_yaml_ng::from_str;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::*;
use crate::proxy::Requests;

/// Whatever is awaited comes much sooner.
const LONG: Duration = Duration::from_secs(20);

fn pods() -> PodService {
    PodService::parse("kubernetes:flowpin/peers", 7473).unwrap()
}

fn named(yaml: &str) -> Vec<String> {
    pods().peers(&from_str(yaml).unwrap()).into_iter().collect()
}

#[test]
fn a_service_has_a_namespace_and_a_name() {
    assert_eq!(pods().to_string(), "kubernetes:flowpin/peers");
    for peer in ["kubernetes:7473", "kubernetes.default:443", "flowpin/peers"] {
        assert!(!PodService::is(peer), "{peer}");
    }
    let long = format!("kubernetes:a/{}", "x".repeat(64));
    for peer in ["kubernetes:", "kubernetes:a", "kubernetes:/a", "kubernetes:a/", "kubernetes:a/b/c", &long]
        .into_iter()
        .chain([
            "kubernetes:a/b:7473",
            "kubernetes:A/b",
            "kubernetes:a/-b",
            "kubernetes:a/b-",
            "kubernetes:a/b.c",
        ])
    {
        assert!(PodService::is(peer), "{peer}");
        let error = PodService::parse(peer, 7473).unwrap_err();
        assert!(error.contains(peer) && error.contains("kubernetes:NAMESPACE/SERVICE"), "{error}");
    }
    assert!(PodService::parse("kubernetes:a/b", 0).unwrap_err().contains("needs a port"));
}

#[test]
fn all_endpoints_are_peers_whatever_their_conditions() {
    let all = "{addressType: IPv4, ports: [{name: cluster, protocol: TCP, port: 7000}], endpoints: [
        {addresses: [192.0.2.1], conditions: {ready: true}},
        {addresses: [192.0.2.2], conditions: {ready: false, serving: false}},
        {addresses: [192.0.2.3], conditions: {ready: false, serving: true, terminating: true}},
        {addresses: [192.0.2.1], conditions: {}}, {addresses: []}]}";
    assert_eq!(named(all), ["192.0.2.1:7000", "192.0.2.2:7000", "192.0.2.3:7000"]);
    assert_eq!(named("{addressType: IPv4, endpoints: null, ports: null}"), [""; 0]);
}

#[test]
fn the_port_is_the_slices_or_the_own() {
    for (ports, peer) in [
        ("[{name: cluster, port: 7000}]", "192.0.2.1:7000"),
        ("[{name: metrics, port: 9}, {name: cluster, protocol: TCP, port: 7000}]", "192.0.2.1:7000"),
        ("[{name: cluster, protocol: UDP, port: 7000}]", "192.0.2.1:7473"),
        ("[{name: metrics, port: 9479}]", "192.0.2.1:7473"),
        ("[{name: cluster}]", "192.0.2.1:7473"),
        ("[]", "192.0.2.1:7473"),
    ] {
        let slice = format!("{{ports: {ports}, endpoints: [{{addresses: [192.0.2.1]}}]}}");
        assert_eq!(named(&slice), [peer], "{ports}");
    }
}

#[test]
fn addresses_are_of_any_type() {
    for (address, peer) in [
        ("'2001:db8::1'", "[2001:db8::1]:7473"),
        ("192.0.2.01", "192.0.2.1:7473"),
        ("node-1.example", "node-1.example:7473"),
    ] {
        assert_eq!(named(&format!("{{endpoints: [{{addresses: [{address}]}}]}}")), [peer]);
    }
}

/// A slice of the cluster's, ports and all.
fn slice(name: &str, of: &str, endpoints: &str) -> String {
    let (namespace, service) = of.split_once('/').unwrap();
    let list: Vec<String> = endpoints
        .split_whitespace()
        .map(|address| format!("{{addresses: [{address}], conditions: {{ready: false}}}}"))
        .collect();
    format!(
        "- {{kind: EndpointSlice, metadata: {{namespace: {namespace}, name: {name}, \
            labels: {{kubernetes.io/service-name: {service}, service.kubernetes.io/headless: ''}}}}, \
            addressType: IPv4, ports: [{{name: cluster, port: 7000}}], endpoints: [{}]}}\n",
        list.join(", ")
    )
}

/// Who looks for peers.
struct Looking {
    found: watch::Receiver<Found>,
    _task: JoinSet<()>,
}

impl Looking {
    fn at(fake: &Fake) -> Self {
        let uri: http::Uri = format!("http://{}", fake.at).parse().unwrap();
        let mut config = Config::new(uri.clone());
        config.default_retry = false;
        let client = Servers::new(config, vec![uri], Requests::default()).client().unwrap();
        let (to, found) = watch::channel(Found::default());
        let mut task = JoinSet::new();
        task.spawn(async move { follow(client, &pods(), &to).await });
        Self { found, _task: task }
    }

    async fn until(&mut self, what: &str, done: impl Fn(&[&str], Option<&str>) -> bool) {
        let start = Instant::now();
        loop {
            let found = self.found.borrow_and_update().clone();
            let peers: Vec<&str> = found.peers.iter().flatten().map(String::as_str).collect();
            if done(&peers, found.problem.as_deref()) {
                return;
            }
            let left = LONG.saturating_sub(start.elapsed());
            let changed = timeout(left, self.found.changed()).await;
            changed.unwrap_or_else(|_| panic!("{what}: {found:?}")).unwrap();
        }
    }
}

#[tokio::test]
async fn endpoints_come_go_and_move() {
    let fake = Fake::start();
    fake.apply(&slice("a", "flowpin/peers", "192.0.2.1 192.0.2.2"));
    fake.apply(&(slice("o", "flowpin/other", "192.0.2.8") + &slice("p", "default/peers", "192.0.2.9")));
    let mut looking = Looking::at(&fake);
    looking.until("a list", |peers, no| peers == ["192.0.2.1:7000", "192.0.2.2:7000"] && no.is_none()).await;
    let asked = fake.requests();
    assert!(asked.iter().all(|it| it.contains("/namespaces/flowpin/endpointslices?")), "{asked:?}");
    fake.apply(&slice("b", "flowpin/peers", "192.0.2.3"));
    looking.until("one more", |peers, _| peers.len() == 3 && peers[2] == "192.0.2.3:7000").await;
    // To another slice: it is there in between, or not, and at the end.
    fake.apply(&slice("a", "flowpin/peers", "192.0.2.1"));
    fake.apply(&slice("b", "flowpin/peers", "192.0.2.3 192.0.2.2 192.0.2.4"));
    looking.until("one moved", |peers, _| peers.len() == 4 && peers[3] == "192.0.2.4:7000").await;
    fake.delete("endpointslices", "flowpin/b");
    looking.until("a slice less", |peers, no| peers == ["192.0.2.1:7000"] && no.is_none()).await;
    fake.delete("endpointslices", "flowpin/a");
    let empty = |peers: &[&str], why: Option<&str>| {
        peers.is_empty() && why.is_some_and(|why| why.contains("has no endpoints: is there one of this name"))
    };
    looking.until("none, and it is said", empty).await;
    fake.apply(&slice("a", "flowpin/peers", "192.0.2.5"));
    looking.until("one again", |peers, no| peers == ["192.0.2.5:7000"] && no.is_none()).await;
}

#[tokio::test]
async fn a_server_that_is_lost_takes_no_peer_with_it() {
    let fake = Fake::start();
    fake.apply(&slice("a", "flowpin/peers", "192.0.2.1 192.0.2.2"));
    let mut looking = Looking::at(&fake);
    looking.until("a list", |peers, _| peers.len() == 2).await;
    fake.stop();
    let kept = |peers: &[&str], why: Option<&str>| {
        assert_eq!(peers, ["192.0.2.1:7000", "192.0.2.2:7000"], "{why:?}");
        why.is_some_and(|why| why.contains("doesn't tell of EndpointSlices, what was known stays"))
    };
    looking.until("it is said", kept).await;
    // Nothing has changed meanwhile, and that it is back is known all the same.
    fake.restart();
    looking.until("it is back", |peers, no| peers.len() == 2 && no.is_none()).await;
    // What changes out of sight is known by the list, and history that is lost does no harm.
    fake.stop();
    looking.until("it is said again", kept).await;
    fake.apply(&slice("a", "flowpin/peers", "192.0.2.2 192.0.2.3"));
    fake.compact();
    fake.restart();
    looking
        .until("as it is by now", |peers, no| peers == ["192.0.2.2:7000", "192.0.2.3:7000"] && no.is_none())
        .await;
}

#[tokio::test]
async fn who_may_not_look_is_told_so() {
    let fake = Fake::start();
    fake.apply(&slice("a", "flowpin/peers", "192.0.2.1"));
    fake.fault(Fault::Refuse { plural: "endpointslices", status: 403, times: 2, wait: 0 });
    let mut looking = Looking::at(&fake);
    looking
        .until("it is said", |peers, why| peers.is_empty() && why.is_some_and(|why| why.contains("403")))
        .await;
    looking.until("it may by now", |peers, no| peers == ["192.0.2.1:7000"] && no.is_none()).await;
}
