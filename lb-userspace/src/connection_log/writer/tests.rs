use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    sync::Mutex,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use super::{super::queue::tests::record, *};
use crate::connection_log::Totals;

/// A log with a writer, what it has told of how it stands, and how it is stopped.
struct Running {
    log: Arc<ConnectionLog>,
    told: Arc<Mutex<Vec<Result<(), String>>>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Running {
    fn start(room: usize) -> Self {
        let (log, told) = (Arc::new(ConnectionLog::with_room(room)), Arc::new(Mutex::default()));
        let (stop, stopped) = watch::channel(false);
        let notes: Arc<Mutex<Vec<_>>> = told.clone();
        let hands = Hands {
            active: Box::new(|_| 0),
            note: Box::new(move |said| notes.lock().expect("nobody panicked").push(said)),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(run(log.clone(), hands, stopped));
        Self { log, told, stop, tasks }
    }

    fn to(&self, target: &str) {
        let connections = Target::parse(target).expect("a target");
        self.log.set(Some(Arc::new(LogSpec { connections, node: None })));
    }

    /// Waits until so many records are written or lost.
    async fn settled(&self, records: u64) -> Totals {
        loop {
            let totals = self.log.totals().unwrap_or_default();
            if totals.written + totals.lost >= records {
                return totals;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until it has told so often how it stands.
    async fn told(&self, times: usize) -> Vec<Result<(), String>> {
        loop {
            let told = self.told.lock().expect("nobody panicked").clone();
            if told.len() >= times {
                return told;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn end(mut self) {
        self.log.close(true);
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// `bytes_in` of a file's lines, in order, and how many are said to be missing.
fn lines(path: &Path) -> (Vec<u64>, u64) {
    let text = fs::read_to_string(path).expect("a file");
    let (mut there, mut lost) = (Vec::new(), 0);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        match line["lost"].as_u64() {
            Some(count) => lost += count,
            None => there.push(line["bytes_in"].as_u64().expect("a number")),
        }
    }
    (there, lost)
}

#[tokio::test]
async fn all_is_written_in_order_over_rotations_and_to_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, old) = (dir.path().join("c.log"), dir.path().join("c.log.1"));
    let running = Running::start(queue::ROOM);
    running.log.push((0..10).map(record));
    running.to(path.to_str().expect("UTF-8"));
    assert_eq!(running.settled(10).await, Totals { written: 10, lost: 0 });
    fs::rename(&path, &old).expect("renamed");
    running.log.push((10..20).map(record));
    running.log.reopen();
    running.settled(20).await;
    // With nothing to write, too: whoever rotates waits for the file.
    fs::remove_file(&path).expect("removed");
    running.log.reopen();
    while !path.exists() {
        sleep(Duration::from_millis(1)).await;
    }
    let there = lines(&old).0;
    assert_eq!(there, (0..10).collect::<Vec<_>>());
    running.log.push((20..5000).map(record));
    running.end().await;
    assert_eq!(lines(&path), ((20..5000).collect(), 0));
}

#[tokio::test]
async fn what_cannot_be_written_waits_and_what_cannot_wait_is_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("none").join("c.log");
    let running = Running::start(50);
    running.to(path.to_str().expect("UTF-8"));
    let told = running.told(1).await;
    let problem = told[0].as_ref().expect_err("it can't be written");
    assert!(problem.contains(path.to_str().expect("UTF-8")) && problem.contains("os error 2"), "{problem}");
    running.log.push((0..70).map(record));
    running.log.lose(5);
    assert_eq!(running.log.totals(), Some(Totals { written: 0, lost: 25 }));
    fs::create_dir(dir.path().join("none")).expect("a directory");
    assert_eq!(running.settled(75).await, Totals { written: 50, lost: 25 });
    assert_eq!(running.told(2).await[1], Ok(()));
    running.log.push([record(70)]);
    running.settled(76).await;
    let (there, lost) = lines(&path);
    assert_eq!((there, lost), ((0..50).chain([70]).collect(), 25));
    running.end().await;
}

#[tokio::test]
async fn a_full_disk_is_said_and_another_place_takes_what_waits() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.log");
    let running = Running::start(50);
    running.to("/dev/full");
    running.log.push((0..3).map(record));
    let told = running.told(1).await;
    assert!(told[0].as_ref().is_err_and(|e| e.contains("No space left on device")), "{told:?}");
    running.to(path.to_str().expect("UTF-8"));
    running.settled(3).await;
    assert_eq!(lines(&path).0, [0, 1, 2]);
    assert_eq!(running.told(2).await[1], Ok(()));
    // Nowhere: what comes after isn't kept.
    running.log.set(None);
    running.end().await;
}

#[tokio::test]
async fn what_takes_lines_slowly_gets_all_at_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut end = fs::OpenOptions::new().read(true).write(true).open(&path).expect("both ends");
    let running = Running::start(queue::ROOM);
    running.to(path.to_str().expect("UTF-8"));
    running.log.push((0..5000).map(record));
    // More than the pipe has room for: some wait.
    running.settled(1).await;
    let from = end.try_clone().expect("the other end");
    let mut reader = JoinSet::new();
    reader.spawn_blocking(move || {
        let lines = BufReader::new(from).lines().map(|line| line.expect("a line"));
        lines.take_while(|line| line != "end").filter(|line| !line.is_empty()).count()
    });
    running.end().await;
    end.write_all(b"\nend\n").expect("written");
    assert_eq!(reader.join_next().await.expect("a reader").expect("it is well"), 5000);
}

#[tokio::test]
async fn a_collector_that_is_silent_holds_up_no_end_and_what_it_has_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let running = Running::start(50);
    running.log.push((0..3).map(record));
    running.to(&format!("otlp:http://{}", listener.local_addr().expect("an address")));
    let _silent = listener.accept().await.expect("a request");
    running.log.push((3..5).map(record));
    let (log, began) = (running.log.clone(), Instant::now());
    running.end().await;
    assert!(began.elapsed() < LAST * 3, "{:?}", began.elapsed());
    assert_eq!(log.totals(), Some(Totals { written: 0, lost: 5 }));
}

/// Answers requests with these statuses and bodies, one connection after the other, and hands over what they asked.
async fn collector(listener: TcpListener, answers: Vec<(&'static str, &'static str)>) -> Vec<Value> {
    let mut asked = Vec::new();
    for (status, body) in answers {
        let (mut stream, _) = listener.accept().await.expect("somebody");
        let mut text = Vec::new();
        let body_from = loop {
            assert!(stream.read_buf(&mut text).await.expect("a request") > 0);
            let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
            assert!(
                head.starts_with("post /v1/logs http/1.1") && head.contains("application/json"),
                "{head}"
            );
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            if text.len() == end + 4 + length.parse::<usize>().expect("a number") {
                break end + 4;
            }
        };
        asked.push(serde_json::from_slice(&text[body_from..]).expect("JSON"));
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.expect("answered");
    }
    asked
}

#[tokio::test]
async fn a_collector_gets_all_and_what_it_refuses_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let answers = vec![
        ("503 Service Unavailable", "later"),
        ("200 OK", "{}"),
        ("200 OK", r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"old"}}"#),
        ("400 Bad Request", "no"),
        ("200 OK", "{}"),
    ];
    let mut there = JoinSet::new();
    there.spawn(collector(listener, answers));
    let running = Running::start(50);
    running.log.push((0..3).map(record));
    running.to(&format!("otlp:http://{at}"));
    assert_eq!(running.settled(3).await, Totals { written: 3, lost: 0 });
    running.log.push((3..6).map(record));
    assert_eq!(running.settled(6).await, Totals { written: 4, lost: 2 });
    // Refused with what says that two were.
    running.log.push((6..8).map(record));
    assert_eq!(running.settled(8).await, Totals { written: 4, lost: 4 });
    running.log.push((8..9).map(record));
    assert_eq!(running.settled(9).await, Totals { written: 5, lost: 4 });
    running.end().await;
    let asked = there.join_next().await.expect("a collector").expect("it is well");
    let records = |value: &Value| value["resourceLogs"][0]["scopeLogs"][0]["logRecords"].clone();
    let first = &records(&asked[1])[0];
    assert_eq!(records(&asked[0])[0]["body"], first["body"], "asked again");
    assert!(
        first["body"]["stringValue"].as_str().is_some_and(|line| line.contains("\"bytes_in\":0")),
        "{first}"
    );
    assert_eq!(first["timeUnixNano"], "0");
    assert_eq!(asked[1]["resourceLogs"][0]["resource"]["attributes"][0]["value"]["stringValue"], "flowpin");
    assert_eq!(first["attributes"][2]["value"]["stringValue"], "finished");
}
