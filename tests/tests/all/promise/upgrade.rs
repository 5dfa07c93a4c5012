//! Promise: an upgrade cuts nothing, nor does going back, whatever the other version has of its own, and whenever the agent dies over it.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use flowpin_tests::harness::{
    Agent, Net,
    agent::{binary, interfaces, next_version, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
};
use lb_common::abi::maps::{self, LAYOUT_BYTES, LAYOUTS, NAME_BYTES};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(180);

/// A node with connections that never stop exchanging data.
struct Scene<'a> {
    net: &'a Net,
    family: Family,
    agent: Agent,
    rounds: &'a AtomicU64,
    broken: &'a AtomicBool,
}

impl Scene<'_> {
    /// Whole rounds of all connections from now on.
    fn endured(&self, what: &str) {
        let target = self.rounds.load(Ordering::Relaxed) + 2;
        eventually(what, LIMIT, || {
            assert!(!self.broken.load(Ordering::Relaxed), "after: {what}");
            let now = self.rounds.load(Ordering::Relaxed);
            if now >= target { Ok(()) } else { Err(format!("{now} rounds")) }
        });
    }

    /// A new connection comes in, counts, ends, and counts no more; so every count is as it should be.
    fn counts(&self, open: u64) {
        let active = || self.agent.active("app").iter().sum::<u64>();
        assert_eq!(active(), open);
        let mut conn = self.net.client.run(|| Conn::open(at(&self.family.vip(0), 80)).expect("a new one"));
        conn.exchange(1000).expect("both ways");
        assert_eq!(active(), open + 1);
        drop(conn);
        eventually(
            "it is closed",
            LIMIT,
            || if active() == open { Ok(()) } else { Err(active().to_string()) },
        );
        let status = self.agent.sweeps(2);
        assert_eq!((&status["accounting_drift"], &status["state"]), (&0.into(), &"ok".into()), "{status}");
        let drops = &self.agent.json(&["stats"])["drops"];
        // A RST that crosses the last FIN may find its connection gone.
        let none = |(reason, count): (&String, &serde_json::Value)| *count == 0 || reason == "stray_reset";
        assert!(drops.as_object().expect("reasons").iter().all(none), "{drops}");
    }

    fn bytes(&self, name: &str) -> usize {
        let map = MapData::from_pin(self.agent.pins().join("maps").join(name));
        map.ok().map_or(0, |map| map.info().expect("info").value_size() as usize)
    }

    /// Flows, services, and what only the later version has: bytes of a value, 0 for no map.
    fn sizes(&self) -> [usize; 3] {
        let flows = if self.family == V4 { maps::FLOWS4 } else { maps::FLOWS6 };
        [self.bytes(flows), self.bytes(maps::SERVICES4), self.bytes("NEXT")]
    }

    fn is_of(&self, later: bool) {
        let (lane, word) = (if self.family == V4 { 64 } else { 104 }, usize::from(later));
        assert_eq!(self.sizes(), [7 * (lane + 8 * word), 24 + 4 * word, 8 * word]);
        assert!(!self.agent.pins().join("maps-next").exists(), "what was before is gone");
    }
}

/// Does `what` under 1,000 connections; none of them breaks.
fn under_traffic(family: Family, (client, backend): (&str, &str), what: impl FnOnce(&mut Scene<'_>)) {
    let net = Net::new(4);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [8080])).collect();
    let targets: Vec<String> = (0..4).map(|i| family.target(i, 8080)).collect();
    let config = interfaces(&[("c0", client), ("b*", backend)])
        + &service("app", &family.vip(0), "\"80/tcp\"", &targets, "");
    let agent = Agent::start(&net.node, &config);
    let (stop, rounds, broken) = (AtomicBool::new(false), AtomicU64::new(0), AtomicBool::new(false));
    let opened: Vec<Conn> =
        net.client.run(|| (0..1_000).map(|_| Conn::open(at(&family.vip(0), 80)).expect("connect")).collect());
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut conns = opened;
            while !stop.load(Ordering::Relaxed) {
                for (i, conn) in conns.iter_mut().enumerate() {
                    if let Err(e) = conn.exchange(64 + i % 100 * 40) {
                        broken.store(true, Ordering::Relaxed);
                        panic!("connection {i} on {} broke: {e}", conn.backend);
                    }
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            conns
        });
        let mut scene = Scene { net: &net, family, agent, rounds: &rounds, broken: &broken };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scene.endured("connected");
            what(&mut scene);
            scene.endured("all is done");
            scene.counts(1_000);
        }));
        stop.store(true, Ordering::Relaxed);
        let conns = traffic.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_eq!(conns.len(), 1_000);
    });
}

fn there_and_back(family: Family, hooks: (&str, &str)) {
    under_traffic(family, hooks, |scene| {
        for later in [true, false] {
            scene.agent.end(Signal::SIGTERM);
            scene.agent.binary = if later { next_version() } else { binary() };
            scene.agent.up();
            scene.endured("another version");
            scene.is_of(later);
            scene.counts(1_000);
        }
        let log = scene.agent.log();
        let taken: Vec<&str> = log.lines().filter(|line| line.contains("are taken over")).collect();
        println!("{}", taken.join("\n"));
        assert_eq!(taken.len(), 2, "{log}");
    });
}

#[test]
fn there_and_back_by_tc() {
    there_and_back(V4, ("tc", "tc"));
}

#[test]
fn there_and_back_by_xdp() {
    there_and_back(V6, ("xdp", "xdp"));
}

#[test]
fn there_and_back_past_the_ip_stack() {
    there_and_back(V4, ("fast", "fast"));
}

/// What an agent asks of the kernel on its way from one version's maps to the other's.
const CALLS: &str = "bpf,membarrier,renameat2,mkdir,rmdir,unlink,unlinkat";

/// `strace`, with these options besides.
fn traced(more: &[&str]) -> Vec<String> {
    ["strace", "-f", "-qq"].iter().chain(more).map(ToString::to_string).collect()
}

/// What the agent's first thread asks until its maps are in force and the others are gone: call by call, which one, and the
/// how manieth of its kind. And the first of them that holds the datapath.
fn calls(scene: &mut Scene<'_>, binary: PathBuf) -> (Vec<(String, usize)>, usize) {
    let log = scene.agent.config().with_file_name("calls");
    scene.agent.binary = binary;
    scene.agent.under = traced(&["-o", log.to_str().expect("UTF-8"), "-e", &format!("trace={CALLS}")]);
    scene.agent.up();
    end_traced(scene);
    let text = std::fs::read_to_string(&log).expect("a trace");
    let first = text.split_whitespace().next().expect("a thread").to_string();
    let mut kinds = std::collections::HashMap::new();
    let mut calls = Vec::new();
    let (mut held, mut last) = (None, 0);
    for line in text.lines().filter(|line| line.split_whitespace().next() == Some(&first)) {
        let Some(name) = line.split_whitespace().nth(1).and_then(|call| call.split('(').next()) else {
            continue;
        };
        if !CALLS.split(',').any(|known| known == name) {
            continue;
        }
        let nth = kinds.entry(name.to_string()).or_insert(0);
        *nth += 1;
        calls.push((name.to_string(), *nth));
        if name == "membarrier" {
            held.get_or_insert(calls.len() - 1);
        }
        if line.contains("maps-next") {
            last = calls.len();
        }
    }
    calls.truncate(last);
    std::fs::remove_file(&log).expect("it was there");
    (calls, held.expect("it is held"))
}

/// Ends the agent that runs under `strace`: that of which it has just been the parent.
fn end_traced(scene: &mut Scene<'_>) {
    let parent = scene.agent.pid();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("strace");
    let child: i32 = children.split_whitespace().next().expect("an agent").parse().expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGTERM).expect("kill");
    assert!(scene.agent.ends_before("nothing says this"));
}

/// So many points of an upgrade, and of the way back, at which the agent is killed; half of them while the datapath is held, or just before or after.
const POINTS: usize = 50;

#[test]
fn killed_at_fifty_points_of_it() {
    under_traffic(V4, ("tc", "xdp"), |scene| {
        scene.agent.end(Signal::SIGTERM);
        let there = calls(scene, next_version());
        scene.is_of(true);
        let back = calls(scene, binary());
        scene.is_of(false);
        for (what, (calls, held)) in [("upgrade", &there), ("back", &back)] {
            println!("{what}: held at call {held} of {}", calls.len());
        }
        let mut killed = 0;
        for turn in 0.. {
            let point = turn % POINTS;
            assert!(turn < 2 * POINTS, "{killed} of {turn}");
            // There, there, back, back: so that each is also tried from where the other died.
            let later = turn / 2 % 2 == 0;
            let (calls, held) = if later { &there } else { &back };
            let from = held.saturating_sub(5);
            let share = |first: usize, last: usize| first + (last - first) * point / POINTS;
            let at = if point.is_multiple_of(2) { share(0, from) } else { share(from, calls.len()) };
            let (name, nth) = &calls[at];
            scene.agent.binary = if later { next_version() } else { binary() };
            scene.agent.under =
                traced(&["-o", "/dev/null", "-e", &format!("inject={name}:signal=SIGKILL:when={nth}")]);
            scene.agent.spawn(&[]);
            if scene.agent.ends_before("INFO flowpin::agent: ready") {
                killed += 1;
            } else {
                // It had less to do, since another had come so far.
                end_traced(scene);
            }
            scene.endured(&format!("killed at {name} {nth}, call {at} of {}, point {point}", calls.len()));
            if killed == POINTS {
                println!("killed at {POINTS} points of {} tries", turn + 1);
                break;
            }
        }
        scene.agent.under.clear();
        for later in [true, false] {
            scene.agent.binary = if later { next_version() } else { binary() };
            scene.agent.up();
            scene.endured("another version");
            scene.is_of(later);
            scene.counts(1_000);
            scene.agent.end(Signal::SIGTERM);
        }
        scene.agent.up();
    });
}

#[test]
fn what_cant_be_taken_over_goes_on() {
    under_traffic(V4, ("tc", "tc"), |scene| {
        // Says something else of a map; returns what was said.
        let say = |scene: &Scene<'_>, name: &str, other: &dyn Fn(&str) -> String| -> String {
            let map = MapData::from_pin(scene.agent.pins().join("maps").join(LAYOUTS)).expect("it is there");
            let mut texts: HashMap<_, [u8; NAME_BYTES], [u8; LAYOUT_BYTES]> =
                Map::HashMap(map).try_into().expect("a hash map");
            let mut key = [0; NAME_BYTES];
            key[..name.len()].copy_from_slice(name.as_bytes());
            let text = texts.get(&key, 0).expect("a text");
            let text =
                String::from_utf8(text.into_iter().take_while(|byte| *byte != 0).collect()).expect("UTF-8");
            let mut value = [0; LAYOUT_BYTES];
            let new = other(&text);
            value[..new.len()].copy_from_slice(new.as_bytes());
            texts.insert(key, value, 0).expect("written");
            text
        };
        let refused = |scene: &mut Scene<'_>, expect: &str| {
            scene.agent.spawn(&[]);
            let (code, log) = scene.agent.fails();
            let said = log.lines().last().unwrap_or_default();
            assert_eq!(code, Some(1), "{said}");
            assert!(
                said.contains(expect) && said.contains("the programs there go on; run version"),
                "{said}"
            );
            scene.endured("refused");
        };
        scene.agent.end(Signal::SIGTERM);
        // A table that is hashed otherwise.
        let heads = say(scene, maps::FLOW_HEADS4, &|text| {
            format!("meaning=1 {}", text.split_once(' ').expect("words").1)
        });
        refused(scene, "FLOW_HEADS4: what is in it is encoded in another way");
        say(scene, maps::FLOW_HEADS4, &|_| heads.clone());
        // A later version than this knows.
        let services = say(scene, maps::SERVICES4, &|text| text.replace("local@", "zone@"));
        let version = say(scene, "VERSION", &|_| "0.2.0".into());
        refused(scene, "which is older than that by more than a patch");
        say(scene, "VERSION", &|_| version.clone());
        say(scene, maps::SERVICES4, &|_| services.clone());
        scene.agent.up();
    });
}

#[test]
fn ipv6_and_ipv4_are_both_taken_over() {
    // Both tables are copied, whichever has flows: the other one's must be found empty.
    under_traffic(V6, ("tc", "xdp"), |scene| {
        scene.agent.end(Signal::SIGKILL);
        scene.agent.binary = next_version();
        scene.agent.up();
        scene.is_of(true);
        assert_eq!(scene.bytes(maps::FLOWS4), 7 * 72);
        scene.counts(1_000);
        scene.agent.end(Signal::SIGKILL);
        scene.agent.binary = binary();
        scene.agent.up();
    });
}
