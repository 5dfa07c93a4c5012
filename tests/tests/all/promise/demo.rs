//! Promise: `flowpin demo` shows what it says it shows, and leaves nothing behind, however it ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use flowpin_tests::harness::{agent::binary, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A demo that runs, its temporary files in a directory of the test's.
struct Demo {
    child: Child,
    steps: BufReader<ChildStdout>,
}

impl Demo {
    fn start(dir: &TempDir) -> Self {
        let mut command = Command::new(binary());
        command.args(["demo", "-o", "json"]).env("TMPDIR", dir.path());
        // An agent of the host's, which isn't there: it is none of the demo's business.
        command.env("FLOWPIN_API_SOCKET", "/nonexistent/api.sock");
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the demo starts");
        let steps = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, steps }
    }

    /// The next step; `None`: there is no more.
    fn step(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.steps.read_line(&mut line).expect("text");
        (!line.is_empty()).then(|| serde_json::from_str(&line).expect("JSON"))
    }

    /// Reads on until a step of that name is done.
    fn until(&mut self, name: &str) {
        while self.step().expect("it goes on")["step"] != name {}
    }

    fn tag(&self) -> String {
        format!("flowpin-demo-{}", self.child.id())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("kill");
    }

    /// Its exit code and what it said on stderr.
    fn end(self) -> (Option<i32>, String) {
        drop(self.steps);
        let out = self.child.wait_with_output().expect("it ends");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

/// What there is of a demo: namespaces, pins, files, and processes that have its name on their command line.
fn left(tag: &str, dir: &TempDir) -> Vec<String> {
    let places = [Path::new("/run/netns"), Path::new("/sys/fs/bpf"), dir.path()];
    let entries = places.into_iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let named = entries.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(tag));
    let processes = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        line.contains(tag).then(|| line.replace('\0', " "))
    });
    named.chain(processes).collect()
}

/// Open connections by backend, `b1` first.
fn counts(step: &Value, way: &str) -> Vec<u64> {
    let spread = step["connections"][way].as_object().unwrap_or_else(|| panic!("{way} in {step}"));
    spread.values().map(|count| count.as_u64().expect("a count")).collect()
}

/// One after the other: a demo removes what others left.
#[test]
fn it_shows_what_it_says_and_leaves_nothing_however_it_ends() {
    whole();
    killed_and_ended();
}

fn whole() {
    let dir = TempDir::new().expect("a directory");
    let mut demo = Demo::start(&dir);
    let tag = demo.tag();
    let steps: Vec<Value> = std::iter::from_fn(|| demo.step()).collect();
    assert_eq!(demo.end(), (Some(0), String::new()), "{steps:#?}");
    assert_eq!(left(&tag, &dir), [""; 0]);
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(names, ["service", "spread", "scale-out", "drain", "kill", "remove", "end"]);
    let step = |name: &str| steps.iter().find(|step| step["step"] == name).expect("checked above");
    let open = |name: &str| counts(step(name), "flowpin");
    assert_eq!(open("spread"), [50, 50, 50, 50, 0]);
    assert_eq!(open("scale-out"), [50; 5]);
    assert_eq!(open("drain"), [50, 60, 60, 60, 60]);
    assert_eq!(open("kill"), [50, 65, 65, 65, 65]);
    assert_eq!(open("remove"), [0, 65, 65, 65, 65]);
    // By lot: only how many there are is known.
    assert_eq!(counts(step("spread"), "iptables").iter().sum::<u64>(), 200);
    assert_eq!(counts(step("scale-out"), "iptables").iter().sum::<u64>(), 250);
    assert!(step("drain")["connections"]["iptables"].is_null());
    let traffic = &step("end")["traffic"];
    assert!(traffic["rounds"].as_u64() > Some(3) && traffic["broken"] == 0, "{traffic}");
    assert_eq!(step("drain")["commands"], json!(["flowpin backend drain web 10.2.1.2"]));
}

/// SIGTERM ends it, and what one left that was killed outright goes with the next.
fn killed_and_ended() {
    let dir = TempDir::new().expect("a directory");
    let mut killed = Demo::start(&dir);
    killed.until("spread");
    let first = killed.tag();
    killed.signal(Signal::SIGKILL);
    killed.end();
    assert!(left(&first, &dir).len() > 5, "{:?}", left(&first, &dir));

    let mut ended = Demo::start(&dir);
    ended.until("drain");
    let second = ended.tag();
    ended.signal(Signal::SIGTERM);
    let (code, said) = ended.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.ends_with("flowpin: interrupted; everything that the demo made is gone\n"), "{said}");
    for tag in [first, second] {
        // Processes that were killed take a moment to go.
        eventually("all of it is gone", Duration::from_secs(10), || {
            let left = left(&tag, &dir);
            if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
        });
    }
}
