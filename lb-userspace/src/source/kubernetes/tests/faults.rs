//! Watches of a server that fails.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use fake_apiserver::{Fake, Fault};
use kube::Config;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{NODE, own, show};
use crate::{
    model::ServiceSpec,
    proxy::Requests,
    source::kubernetes::{
        Options,
        client::Servers,
        feed::{Change, Feed, FeedStatus, Wanted, start},
        watch::Selection,
    },
};

/// Whatever is awaited comes much sooner.
const LONG: Duration = Duration::from_secs(20);

/// What an agent would have by what it was told.
struct View {
    feed: Feed,
    task: tokio::task::JoinHandle<()>,
    own: watch::Sender<crate::model::OwnAddresses>,
    specs: BTreeMap<String, Arc<ServiceSpec>>,
    /// All that was ever taken away.
    removed: Vec<String>,
    last: Option<Change>,
    dir: tempfile::TempDir,
}

impl View {
    fn of(servers: Servers) -> Self {
        Self::with(servers, None, tempfile::tempdir().unwrap(), Wanted::PATIENCE)
    }

    #[expect(clippy::disallowed_methods, reason = "the test hears of a panic")]
    fn with(servers: Servers, proxy_name: Option<&str>, dir: tempfile::TempDir, patience: Duration) -> Self {
        let (to, addresses) = watch::channel(own());
        let selection = Selection { node: "me".into(), proxy_name: proxy_name.map(Into::into) };
        let saved = dir.path().join("kubernetes.json");
        let wanted = Wanted { selection, options: Options::default(), saved, patience };
        let (feed, task) = start(servers, wanted, addresses);
        let task = tokio::spawn(task);
        Self { feed, task, own: to, specs: BTreeMap::new(), removed: Vec::new(), last: None, dir }
    }

    async fn next(&mut self) {
        let change = timeout(LONG, self.feed.changes.recv()).await.expect("a change").expect("a feed");
        if change.synced && change.delta.first {
            let all: Vec<&String> = change.delta.changed.iter().map(|spec| &spec.name).collect();
            self.removed.extend(self.specs.keys().filter(|name| !all.contains(name)).cloned());
            self.specs.retain(|name, _| all.contains(&name));
        }
        for spec in &change.delta.changed {
            self.specs.insert(spec.name.clone(), spec.clone());
        }
        for name in &change.delta.removed {
            self.specs.remove(name);
            self.removed.push(name.clone());
        }
        self.last = Some(change);
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < LONG, "{what}: {:?}", self.shown());
            self.next().await;
        }
    }

    fn shown(&self) -> Vec<String> {
        self.specs.values().map(|spec| show(spec)).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.specs.keys().map(String::as_str).collect()
    }

    fn has(&self, text: &str) -> bool {
        self.shown().iter().any(|spec| spec.contains(text))
    }

    /// Ends as an agent does.
    async fn end(self) -> tempfile::TempDir {
        let Self { own, feed, task, dir, .. } = self;
        drop(own);
        drop(feed);
        timeout(LONG, task).await.expect("it ends").unwrap();
        dir
    }
}

fn servers(of: &[SocketAddr]) -> Servers {
    let list = of.iter().map(|at| format!("http://{at}").parse().unwrap()).collect::<Vec<http::Uri>>();
    let mut config = Config::new(list[0].clone());
    config.default_retry = false;
    Servers::new(config, list, Requests::default())
}

fn service(name: &str, ip: &str, more: &str) -> String {
    format!(
        "- {{kind: Service, metadata: {{namespace: d, name: {name}, {more}}}, spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}}}\n"
    )
}

fn slice(name: &str, service: &str, endpoints: &str, more: &str) -> String {
    let list: Vec<String> = endpoints.split_whitespace().map(|a| format!("{{addresses: [{a}]}}")).collect();
    format!(
        "- {{kind: EndpointSlice, metadata: {{namespace: d, name: {name}, labels: {{kubernetes.io/service-name: {service}, {more}}}}}, \
            addressType: IPv4, ports: [{{name: '', port: 80}}], endpoints: [{}]}}\n",
        list.join(", ")
    )
}

async fn two_services() -> Fake {
    let fake = Fake::start();
    fake.apply(NODE);
    fake.apply(&(service("a", "10.96.0.1", "") + &service("b", "10.96.0.2", "")));
    fake.apply(&(slice("a-1", "a", "10.1.0.1 10.1.0.2", "") + &slice("b-1", "b", "10.1.0.3", "")));
    fake
}

#[tokio::test]
async fn changes_are_followed() {
    let fake = two_services().await;
    let mut view = View::of(servers(&[fake.at]));
    view.next().await;
    assert!(view.last.as_ref().unwrap().synced && view.last.as_ref().unwrap().delta.first);
    assert_eq!(view.names(), ["d/a", "d/b"]);
    fake.apply(&slice("a-1", "a", "10.1.0.1 10.1.0.9", ""));
    view.until("an endpoint", |v| v.has("10.1.0.9") && !v.has("10.1.0.2")).await;
    assert_eq!(view.last.as_ref().unwrap().delta.changed.len(), 1, "its Service alone");
    fake.apply(&service("c", "10.96.0.3", ""));
    view.until("a Service", |v| v.names() == ["d/a", "d/b", "d/c"]).await;
    fake.delete("services", "d/b");
    view.until("one gone", |v| v.names() == ["d/a", "d/c"]).await;
    fake.apply(&NODE.replace("zone: a", "zone: b"));
    fake.apply(&NODE.replace(
        "metadata: {name: me,",
        "spec: {taints: [{key: ToBeDeletedByClusterAutoscaler}]}\nmetadata: {name: me,",
    ));
    view.until("the node is to go", |v| v.last.as_ref().unwrap().node_stays == Some(false)).await;
    fake.bookmark();
    fake.apply(&service("e", "10.96.0.5", ""));
    view.until("one after a bookmark", |v| v.names() == ["d/a", "d/c", "d/e"]).await;
    assert_eq!(view.feed.status.borrow().unseen, BTreeMap::new());
    view.end().await;
}

#[tokio::test]
async fn long_lists_come_by_pages() {
    let fake = Fake::start();
    fake.apply(NODE);
    let all: String = (0..1100)
        .map(|i| service(&format!("s{i}"), &format!("10.96.{}.{}", i / 250, i % 250 + 1), ""))
        .collect();
    fake.apply(&all);
    let mut view = View::of(servers(&[fake.at]));
    view.next().await;
    assert_eq!(view.specs.len(), 1100);
    let asked = fake.requests();
    let pages =
        asked.iter().filter(|r| r.contains("/services?") && r.contains("limit=500") && !r.contains("watch"));
    assert_eq!(pages.clone().count(), 3, "{asked:?}");
    assert_eq!(pages.filter(|r| r.contains("continue=")).count(), 2);
    // The list is too old in the middle of it: it is begun anew.
    fake.fault(Fault::Refuse { plural: "services", status: 410, times: 1, wait: 0 });
    fake.compact();
    fake.stop();
    fake.delete("services", "d/s7");
    fake.restart();
    view.until("one gone", |v| v.specs.len() == 1099).await;
    assert_eq!(view.removed, ["d/s7"]);
}

#[tokio::test]
async fn w1_w2_w4_who_is_selected() {
    let fake = two_services().await;
    let proxy = "labels: {service.kubernetes.io/service-proxy-name: flowpin}";
    fake.apply(&service("x", "10.96.0.9", proxy));
    fake.apply(
        "{kind: Service, metadata: {namespace: d, name: h}, spec: {clusterIP: None, ports: [{port: 80}]}}",
    );
    fake.apply(&slice("a-2", "a", "10.1.0.7", "service.kubernetes.io/headless: ''"));
    let mut view = View::of(servers(&[fake.at]));
    view.next().await;
    assert_eq!(view.names(), ["d/a", "d/b"]);
    assert!(!view.has("10.1.0.7"));
    // Labels come and go.
    fake.apply(&service("a", "10.96.0.1", proxy));
    view.until("one is another's", |v| v.names() == ["d/b"]).await;
    fake.apply(&service("a", "10.96.0.1", ""));
    view.until("one is ours", |v| v.names() == ["d/a", "d/b"]).await;
    fake.apply(&slice("a-2", "a", "10.1.0.7", ""));
    view.until("a slice is ours", |v| v.has("10.1.0.7")).await;
    fake.apply(&slice("a-2", "a", "10.1.0.7", "service.kubernetes.io/headless: ''"));
    view.until("a slice isn't ours", |v| !v.has("10.1.0.7")).await;
    let asked = fake.requests();
    assert!(asked.iter().any(|r| r.contains("/nodes?") && r.contains("metadata.name%3Dme")), "{asked:?}");
    let dir = view.end().await;
    let mut other = View::with(servers(&[fake.at]), Some("flowpin"), dir, Wanted::PATIENCE);
    other.next().await;
    assert_eq!(other.names(), ["d/x"]);
}

#[tokio::test]
async fn what_was_missed_is_made_up_for() {
    for at_once in [false, true] {
        let fake = two_services().await;
        if at_once {
            fake.fault(Fault::GoneAtOnce);
        }
        let mut view = View::of(servers(&[fake.at]));
        view.next().await;
        // Down; meanwhile much changes, and the history is forgotten.
        fake.stop();
        fake.delete("services", "d/b");
        fake.delete("endpointslices", "d/b-1");
        fake.apply(&(service("c", "10.96.0.3", "") + &slice("a-1", "a", "10.1.0.2 10.1.0.4", "")));
        fake.compact();
        let back = Instant::now();
        fake.restart();
        view.until("all", |v| v.names() == ["d/a", "d/c"] && v.has("10.1.0.4")).await;
        assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
        assert_eq!(view.removed, ["d/b"], "nothing else ever went");
        fake.apply(&service("e", "10.96.0.5", ""));
        view.until("what comes then", |v| v.names() == ["d/a", "d/c", "d/e"]).await;
    }
}

#[tokio::test]
async fn half_an_object_is_none() {
    let fake = two_services().await;
    let mut view = View::of(servers(&[fake.at]));
    view.next().await;
    fake.break_next();
    fake.apply(&slice("a-1", "a", "10.1.0.1 10.1.0.2 10.1.0.8", ""));
    view.until("it comes whole", |v| v.has("10.1.0.8")).await;
    assert!(view.has("10.1.0.1") && view.has("10.1.0.2"));
    assert_eq!(view.removed, Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    let fake = two_services().await;
    for (plural, status, wait) in [("services", 429, 1), ("endpointslices", 500, 0), ("nodes", 503, 0)] {
        fake.fault(Fault::Refuse { plural, status, times: 2, wait });
    }
    let mut view = View::of(servers(&[fake.at]));
    view.next().await;
    assert_eq!(view.names(), ["d/a", "d/b"]);
    let lists = fake.requests().iter().filter(|r| r.contains("/services?") && !r.contains("watch")).count();
    assert_eq!(lists, 3);
    view.until("all is seen", |v| v.feed.status.borrow().unseen.is_empty()).await;
}

#[tokio::test]
async fn a_watch_that_stands_again_is_seen_though_nothing_changes() {
    let fake = two_services().await;
    let mut view = View::of(servers(&[fake.at]));
    view.next().await;
    let mut status = view.feed.status.clone();
    fake.stop();
    let all = ["EndpointSlice", "Namespace", "Node", "Service", "ServiceCIDR"];
    let unseen = |status: &FeedStatus| status.unseen.keys().copied().eq(all);
    timeout(LONG, status.wait_for(unseen)).await.expect("it is noticed").expect("a feed");
    assert!(status.borrow().problem().is_some());
    let asked = fake.requests().len();
    fake.restart();
    let seen = |status: &FeedStatus| status.unseen.is_empty();
    timeout(LONG, status.wait_for(seen)).await.expect("all is seen again").expect("a feed");
    let lists = fake.requests()[asked..].iter().filter(|request| !request.contains("watch")).count();
    assert_eq!((lists, view.feed.changes.len()), (0, 0), "the same watches, and nothing was told");
}

#[tokio::test]
async fn w3_what_can_be_done_without_keeps_nobody() {
    let fake = two_services().await;
    fake.fault(Fault::Refuse { plural: "servicecidrs", status: 404, times: 99, wait: 0 });
    fake.fault(Fault::Refuse { plural: "namespaces", status: 403, times: 99, wait: 0 });
    let mut view = View::of(servers(&[fake.at]));
    view.next().await;
    assert_eq!(view.names(), ["d/a", "d/b"]);
    let unseen: Vec<_> = view.feed.status.borrow().unseen.keys().copied().collect();
    assert_eq!(unseen, ["Namespace", "ServiceCIDR"]);
}

#[tokio::test]
async fn the_next_address_is_tried() {
    let first = two_services().await;
    let second = first.beside();
    let servers = servers(&[first.at, second.at]);
    let mut view = View::of(servers.clone());
    view.next().await;
    assert_eq!(second.requests(), Vec::<String>::new());
    first.stop();
    second.apply(&service("c", "10.96.0.3", ""));
    view.until("the other's", |v| v.names() == ["d/a", "d/b", "d/c"]).await;
    assert_eq!(servers.current().to_string(), format!("http://{}/", second.at));
    assert_eq!(view.removed, Vec::<String>::new());
    // And back again, when that one goes.
    second.stop();
    first.restart();
    first.apply(&service("e", "10.96.0.5", ""));
    view.until("the first one's", |v| v.names() == ["d/a", "d/b", "d/c", "d/e"]).await;
}

#[tokio::test]
async fn a_start_without_a_server_has_the_last_list() {
    let fake = two_services().await;
    let mut view = View::of(servers(&[fake.at]));
    view.next().await;
    let before = view.shown();
    let dir = view.end().await;
    fake.stop();
    let mut view = View::with(servers(&[fake.at]), None, dir, Duration::ZERO);
    view.next().await;
    let first = view.last.as_ref().unwrap();
    assert!(first.delta.first && !first.synced, "others may be there that the list lacks");
    assert_eq!(view.shown(), before);
    fake.delete("services", "d/b");
    fake.restart();
    view.until("what is so by now", |v| v.last.as_ref().unwrap().synced).await;
    assert_eq!(view.removed, ["d/b"]);
    let dir = view.end().await;
    // Another node's list, and one that is torn, are none.
    let path = dir.path().join("kubernetes.json");
    let text = std::fs::read_to_string(&path).unwrap();
    fake.stop();
    for bad in [
        text.replace("\"node\":\"me\"", "\"node\":\"you\""),
        text[..text.len() / 2].into(),
        text.replace("\"version\":1", "\"version\":2"),
    ] {
        assert_ne!(bad, text);
        std::fs::write(&path, &bad).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kubernetes.json"), &bad).unwrap();
        let mut view = View::with(servers(&[fake.at]), None, dir, Duration::ZERO);
        fake.restart();
        view.next().await;
        assert!(view.last.as_ref().unwrap().synced);
        fake.stop();
    }
}

#[tokio::test]
async fn n5_the_nodes_addresses_are_followed() {
    let fake = Fake::start();
    fake.apply(NODE);
    fake.apply("{kind: Service, metadata: {namespace: d, name: a}, spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080}]}}");
    let mut view = View::of(servers(&[fake.at]));
    view.until("a node port", |v| v.has("192.0.2.1 30080/tcp all snat|snat")).await;
    view.own.send_replace(["2001:db8::1".parse().unwrap()].into());
    view.until("without an address of the family nothing stands in for clients", |v| {
        v.has("192.0.2.1 30080/tcp all nat|nat")
    })
    .await;
}

#[test]
fn b5_never_by_its_own_address() {
    let at = |text: &str| text.parse::<http::Uri>().unwrap();
    let vip = at("https://10.96.0.1");
    let servers = Servers::new(Config::new(vip.clone()), vec![vip.clone()], Requests::default());
    let own = |ip: std::net::IpAddr| ip.to_string() == "10.96.0.1";
    assert!(!servers.avoid(own, &[]), "nowhere else to go");
    assert!(servers.avoid(own, &["192.0.2.1:6443".parse().unwrap(), "[2001:db8::1]:6443".parse().unwrap()]));
    assert_eq!(*servers.list(), [at("https://192.0.2.1:6443"), at("https://[2001:db8::1]:6443")]);
    assert!(!servers.avoid(own, &["192.0.2.9:6443".parse().unwrap()]), "it isn't any more");
}
