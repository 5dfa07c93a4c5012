//! Promise: a disk that is full, or a state file that can't be read or written, changes nothing of what is live; what isn't kept is
//! said, and isn't done.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// A file system of 64 KiB.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let options = Some("size=64k,mode=700");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), options).expect("a tmpfs");
        Self(dir)
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state.json")
    }

    /// Not a byte is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.path().join("fill")).expect("a file");
        for size in [4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.path().join("fill")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

struct Scene {
    net: Net,
    disk: Disk,
    agent: Agent,
    open: Vec<Conn>,
    _servers: Vec<Server>,
}

/// A service of the file's and one of the command line's, a backend of each drained, and a connection that is open to each.
fn scene() -> Scene {
    let net = Net::new(2);
    let servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let (targets, disk) = ([V4.backend(0), V4.backend(1)], Disk::new());
    let mut agent = Agent::prepare(&net.node, "");
    configure(&agent, &disk, "");
    agent.up();
    agent.done(&["service", "add", "cli", "--vip", &V4.vip(1), "--port", "80/tcp"]);
    targets.iter().for_each(|target| drop(agent.done(&["backend", "add", "cli", target])));
    let open = net.client.run(|| [0, 1].map(|i| Conn::open(at(&V4.vip(i), 80)).expect("answered")).into());
    ["file", "cli"].iter().for_each(|name| drop(agent.done(&["backend", "drain", name, &targets[0]])));
    Scene { net, disk, agent, open, _servers: servers }
}

/// Keeps its state on that disk.
fn configure(agent: &Agent, disk: &Disk, more: &str) {
    let targets = [V4.backend(0), V4.backend(1)];
    let services = service("file", &V4.vip(0), "\"80/tcp\"", &targets, "") + more;
    agent.write_config(&(interfaces(&[("c0", "tc"), ("b*", "tc")]) + &services));
    let text = std::fs::read_to_string(agent.config()).expect("the file");
    let here = |path: &Path| path.display().to_string();
    std::fs::write(agent.config(), text.replace(&here(&agent.state()), &here(&disk.state())))
        .expect("written");
}

impl Scene {
    fn shape(&self) -> Vec<Value> {
        let list = self.agent.json(&["service", "list"]);
        let of = |s: &Value| {
            let backends = s["backends"].as_array().expect("a list").iter();
            let backends = backends.map(|b| json!([b["address"], b["weight"], b["state"] != "active"]));
            json!([s["name"], s["vip"], s["ports"], s["origin"], backends.collect::<Vec<_>>()])
        };
        list.as_array().expect("a list").iter().map(of).collect()
    }

    /// What is open goes on, and what is new goes where it is to.
    fn live(&mut self, what: &str) {
        self.open.iter_mut().for_each(|conn| conn.exchange(10).expect(what));
        for i in [0, 1] {
            let new = self.net.client.run(|| Conn::open(at(&V4.vip(i), 80)).expect(what));
            assert_eq!(new.backend, "b1", "{what}: the other is drained");
        }
    }

    fn status(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually("the status says so", SOON, || {
            let out = self.agent.cli(&["status", "-o", "json"]);
            let status: Value = serde_json::from_slice(&out.stdout)
                .map_err(|_| String::from_utf8_lossy(&out.stderr).into_owned())?;
            if wanted(&status) { Ok(status) } else { Err(status["problems"].to_string()) }
        })
    }

    fn refused(&self, args: &[&str], says: &str) {
        let out = self.agent.cli(args);
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && error.lines().count() == 1, "{args:?}: {error}");
        let path = self.disk.state().display().to_string();
        assert!(error.contains(says) && error.contains(&path), "{args:?}: {error}");
    }
}

#[test]
fn a_full_disk_changes_nothing_that_is_live() {
    let mut scene = scene();
    let before = scene.shape();
    let kept = std::fs::read(scene.disk.state()).expect("a state file");
    scene.disk.fill();
    let full = "No space left on device";
    scene.refused(&["service", "add", "more", "--vip", &V4.vip(2), "--port", "80/tcp"], full);
    scene.refused(&["backend", "undrain", "cli", &V4.backend(0)], full);
    scene.refused(&["backend", "drain", "file", &V4.backend(1), "--deadline", "1h"], full);
    scene.refused(&["service", "remove", "cli"], full);
    scene.refused(&["detach", "--hand-over"], full);
    assert_eq!(scene.shape(), before);
    assert_eq!(std::fs::read(scene.disk.state()).expect("a state file"), kept);
    scene.live("a full disk");
    // What the file says is in force, and can't be kept for the day on which the file is broken.
    let more = service("more", &V4.vip(2), "\"80/tcp\"", &[V4.backend(1)], "");
    configure(&scene.agent, &scene.disk, &more);
    scene.agent.signal(Signal::SIGHUP);
    let said = scene.status(|s| s["problems"].to_string().contains("last good config"));
    assert!(said["services"] == 3 && said["problems"].to_string().contains(full), "{said}");
    configure(&scene.agent, &scene.disk, "");
    scene.agent.signal(Signal::SIGHUP);
    scene.status(|s| s["services"] == 2);
    // Whoever is started then finds what there is.
    scene.agent.end(Signal::SIGKILL);
    scene.agent.spawn(&[]);
    scene.status(|s| s["services"] == 2);
    assert_eq!(scene.shape(), before);
    scene.live("an agent that is started with a full disk");
    // A torn file that can't even be kept aside.
    scene.agent.end(Signal::SIGKILL);
    std::fs::OpenOptions::new()
        .write(true)
        .open(scene.disk.state())
        .and_then(|file| file.set_len(kept.len() as u64 / 2))
        .expect("torn");
    std::fs::write(scene.disk.0.path().join("fill2"), vec![b'x'; 65_536]).expect_err("full again");
    scene.agent.spawn(&[]);
    scene.status(|s| s["problems"].to_string().contains("and can't be replaced"));
    assert_eq!(scene.shape(), before);
    scene.live("a torn file on a full disk");
    // With room again all is as ever.
    scene.disk.empty();
    let _ = std::fs::remove_file(scene.disk.0.path().join("fill2"));
    scene.agent.done(&["backend", "undrain", "cli", &V4.backend(0)]);
    scene.agent.done(&["backend", "drain", "cli", &V4.backend(0)]);
    scene.agent.end(Signal::SIGKILL);
    scene.agent.up();
    assert_eq!(scene.shape(), before);
    scene.live("with room again");
}

#[test]
fn a_state_file_that_cannot_be_read_changes_nothing_that_is_live() {
    let mut scene = scene();
    let before = scene.shape();
    scene.agent.end(Signal::SIGKILL);
    // Who is root may read any file, but no directory as one.
    std::fs::remove_file(scene.disk.state()).expect("removed");
    std::fs::create_dir(scene.disk.state()).expect("a directory");
    scene.agent.spawn(&[]);
    let said = scene.status(|s| s["problems"].to_string().contains("and can't be replaced"));
    assert!(said["state"] == "degraded" && said["problems"].to_string().contains("Is a directory"), "{said}");
    assert_eq!(scene.shape(), before);
    scene.live("no state file");
    scene.refused(&["backend", "undrain", "cli", &V4.backend(0)], "directory");
    assert_eq!(scene.shape(), before);
    std::fs::remove_dir(scene.disk.state()).expect("removed");
    scene.agent.done(&["backend", "undrain", "cli", &V4.backend(0)]);
    scene.agent.done(&["backend", "drain", "cli", &V4.backend(0)]);
    scene.agent.end(Signal::SIGKILL);
    scene.agent.up();
    assert_eq!(scene.shape(), before);
    scene.live("one that can be written again");
}
