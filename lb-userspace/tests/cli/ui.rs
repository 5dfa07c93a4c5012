//! The stats page as a browser meets it: what is served, what is shown, and what is refused.

use std::{net::SocketAddr, time::Duration};

use flowpin::api::server;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    api::{Answer, exchange, request},
    fake::{Agent, backend, service},
};

const LONG: Duration = Duration::from_secs(30);

/// The metrics listener of a fake agent.
struct Page {
    agent: Agent,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// A browser's look at events.
struct Look {
    stream: TcpStream,
    text: String,
}

impl Page {
    fn new(shows: bool) -> Self {
        let agent = Agent::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = agent.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = agent.spawn(server::serve_metrics(listener, agent.fake.clone(), shows, async {
            let _ = stopped.await;
        }));
        Self { agent, address, stop, server }
    }

    fn ask(&self, method: &str, path: &str) -> Answer {
        self.agent.block_on(async {
            let stream = TcpStream::connect(self.address).await.expect("connected");
            exchange(stream, &request(method, path, "")).await
        })
    }

    fn look(&self, query: &str) -> Look {
        let (head, look) = self.try_to_look(query);
        assert!(
            head.contains(" 200 OK\r\n") && head.contains("content-type: text/event-stream\r\n"),
            "{head}"
        );
        look
    }

    /// By HTTP/1.0, whose bodies aren't in chunks.
    fn try_to_look(&self, query: &str) -> (String, Look) {
        self.agent.block_on(async {
            let mut stream = TcpStream::connect(self.address).await.expect("connected");
            let request = format!("GET /ui/events{query} HTTP/1.0\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut look = Look { stream, text: String::new() };
            (look.read("\r\n\r\n").await, look)
        })
    }

    /// Events of a look up to the next tick, by name.
    fn next(&self, look: &mut Look) -> Vec<(String, Value)> {
        let text = self.agent.block_on(async { look.read("event: tick\n").await + &look.read("\n\n").await });
        let events = text.split("\n\n").filter_map(|event| {
            let (name, data) = event.split_once('\n')?;
            let data = data.strip_prefix("data: ")?;
            assert!(!data.contains('\n'), "{event}");
            Some((name.strip_prefix("event: ")?.into(), serde_json::from_str(data).expect("JSON")))
        });
        events.collect()
    }
}

impl Look {
    /// Reads up to and with this text.
    async fn read(&mut self, until: &str) -> String {
        let mut some = [0; 4096];
        loop {
            if let Some(at) = self.text.find(until) {
                let rest = self.text.split_off(at + until.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let read = timeout(LONG, self.stream.read(&mut some)).await.expect("in time").expect("read");
            assert!(read > 0, "it ended after {}", self.text);
            self.text.push_str(std::str::from_utf8(&some[..read]).expect("ASCII"));
        }
    }
}

#[track_caller]
fn of<'a>(events: &'a [(String, Value)], name: &str) -> &'a Value {
    &events.iter().find(|(event, _)| event == name).unwrap_or_else(|| panic!("no {name} in {events:?}")).1
}

#[test]
fn files_have_their_types_and_may_do_nothing_else() {
    let page = Page::new(true);
    for (path, media) in [
        ("/ui", "text/html; charset=utf-8"),
        ("/ui/page.css", "text/css; charset=utf-8"),
        ("/ui/page.js", "text/javascript; charset=utf-8"),
        ("/ui/live.js", "text/javascript; charset=utf-8"),
        ("/ui/icon.svg", "image/svg+xml"),
    ] {
        let answer = page.ask("GET", path);
        assert_eq!(answer.status, 200, "{path}");
        for header in [
            &format!("content-type: {media}\r\n"),
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
            "x-content-type-options: nosniff\r\n",
            "x-frame-options: deny\r\n",
            "cache-control: no-cache\r\n",
        ] {
            assert!(answer.head.contains(header), "{path}: {header} is not in {}", answer.head);
        }
        assert!(answer.body.len() > 100, "{path}");
        assert_eq!(page.ask("POST", path).status, 405, "{path}");
    }
    let html = page.ask("GET", "/ui").body;
    for refused in ["style=", "<style", "<script>", "onclick", "//"] {
        assert!(!html.contains(refused), "the policy lets nothing be done by {refused}");
    }
    let script = page.ask("GET", "/ui/page.js").body + &page.ask("GET", "/ui/live.js").body;
    for risky in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
        assert!(!script.contains(risky), "names come from users: {risky}");
    }
    let answer = page.ask("GET", "/ui/");
    assert!(answer.status == 308 && answer.head.contains("location: /ui\r\n"), "{}", answer.head);
}

#[test]
fn a_view_shows_what_the_api_says() {
    let page = Page::new(true);
    let mut look = page.look("");
    let events = page.next(&mut look);
    let list = of(&events, "list");
    assert_eq!((&list["page"], &list["pages"], &list["found"]), (&1.into(), &1.into(), &2.into()));
    assert_eq!(list["names"], serde_json::json!(["app", "ns/six"]));
    let rows = of(&events, "rows");
    assert_eq!(rows[0]["totals"]["active_connections"], 3);
    assert_eq!(rows[0]["totals"]["total_connections"], 2 * 1_234_567);
    let expected = page.agent.world(|w| serde_json::to_value(&w.services[0].backends).expect("JSON"));
    assert_eq!(rows[0]["backends"], expected);
    assert_eq!(of(&events, "overview")["totals"]["active_connections"], 7);
    assert_eq!(of(&events, "drops"), &serde_json::json!({"no_backend": 3, "stray": 0}));
    assert_eq!(of(&events, "node")["version"], "0.1.0");
    assert!(of(&events, "reasons").as_array().is_some_and(|all| all.len() >= 19));

    page.agent.world(|w| w.services[0].backends[1].active_connections = 500);
    let events = page.next(&mut look);
    let rows = of(&events, "rows").as_array().expect("rows");
    assert_eq!((rows.len(), &rows[0]["totals"]["active_connections"]), (1, &502.into()));
    assert!(
        events.iter().all(|(name, _)| name != "list" && name != "reasons"),
        "what is as it was: {events:?}"
    );

    let mut look = page.look("?service=app&search=:5432");
    let events = page.next(&mut look);
    assert_eq!(of(&events, "service")["totals"]["backends"], 2);
    assert_eq!(of(&events, "list")["names"], serde_json::json!(["10.0.1.12:5432"]));
    assert_eq!(of(&events, "rows")[0]["active_connections"], 500);
    page.agent.world(|w| w.services.retain(|s| s.name != "app"));
    let said = page.agent.block_on(async { look.read("event: failure\n").await + &look.read("\n\n").await });
    assert!(said.ends_with("data: {\"error\":\"there is no service \\\"app\\\"\"}\n\n"), "{said}");
}

#[test]
fn names_stay_text() {
    let page = Page::new(true);
    let name = "</script><img src=x onerror=alert(1)>\n\nevent: node\ndata: {}\u{2028}";
    page.agent.world(|w| w.services = vec![service(name, "10.96.0.10", vec![backend("10.0.0.1", 1)])]);
    let events = page.next(&mut page.look(""));
    assert_eq!(of(&events, "rows")[0]["name"], name);
    assert_eq!(events.iter().filter(|(event, _)| event == "node").count(), 1);
    assert!(of(&events, "node")["version"].is_string());
}

#[test]
fn what_cannot_be_shown_is_refused_in_one_sentence() {
    let page = Page::new(true);
    let refused = |query: &str, status| page.ask("GET", &format!("/ui/events?{query}")).refused(status);
    assert_eq!(refused("page=0", 400), "page \"0\" is not a page; use 1 to 10000");
    assert!(refused("page=99999999999999999999", 400).contains("use 1 to 10000"));
    assert!(refused("sort=size", 400).contains("use name, active, total, imbalance or health"));
    assert!(refused(&format!("search={}", "x".repeat(101)), 400).contains("use at most 100"));
    assert!(refused("serach=app", 400).contains("serach"));
    assert!(refused("service=nope", 404).contains("nope"));
    assert_eq!(page.ask("POST", "/ui/events").status, 405);
}

#[test]
fn switched_off_it_says_so_and_shows_nothing() {
    let page = Page::new(false);
    assert!(page.ask("GET", "/ui").refused(404).contains("set ui = true in [agent]"));
    for path in ["/ui/page.js", "/ui/events"] {
        page.ask("GET", path).refused(404);
    }
    assert_eq!(page.ask("GET", "/metrics").status, 200);
}

#[test]
fn viewers_are_limited_and_scrapers_are_not_kept_waiting() {
    let page = Page::new(true);
    let mut looks: Vec<Look> = (0..32).map(|_| page.look("")).collect();
    for look in &mut looks {
        page.next(look);
    }
    assert!(page.ask("GET", "/ui/events").refused(503).contains("32 viewers"));
    assert_eq!(page.ask("GET", "/metrics").status, 200);
    looks.pop();
    // The agent hears of it when it has something to send.
    let begun = std::time::Instant::now();
    let mut look = loop {
        let (head, look) = page.try_to_look("");
        if head.contains(" 200 OK\r\n") {
            break look;
        }
        assert!(begun.elapsed() < LONG, "one has gone, and nobody else may come");
    };
    page.next(&mut look);
}

#[test]
fn a_look_ends_with_the_agent() {
    let page = Page::new(true);
    let mut look = page.look("");
    page.next(&mut look);
    let Page { agent, stop, server, .. } = page;
    stop.send(()).expect("it still runs");
    agent.block_on(async {
        // Well before requests would be cut short.
        timeout(Duration::from_millis(1_500), server).await.expect("in time").expect("it ends when told");
        let mut rest = Vec::new();
        look.stream.read_to_end(&mut rest).await.expect("an end");
    });
}
