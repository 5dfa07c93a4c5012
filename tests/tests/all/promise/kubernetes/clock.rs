//! Promise: an agent whose clock is of another hour than the API server's, or is set while it runs, follows it all the same.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;

use flowpin_tests::harness::eventually;

use super::{LIMIT, World, app};

/// The library that gives a process another clock, of Debian's package libfaketime.
fn library() -> String {
    let name = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    assert!(Path::new(&name).exists(), "no {name}: scripts/setup installs it");
    name
}

/// How many hours the agent's clock is ahead, by when it says that it has started.
fn ahead(world: &World) -> f64 {
    let events = world.api.created();
    let event = events.iter().rev().find(|e| e["reason"] == "Starting").expect("it has started");
    let said = humantime::parse_rfc3339(event["eventTime"].as_str().expect("a time")).expect("a time");
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    (seconds(said) - seconds(SystemTime::now())) / 3600.0
}

fn is_ahead(world: &World, wanted: f64) {
    eventually("its clock is of another hour", LIMIT, || match ahead(world) {
        hours if (hours - wanted).abs() < 0.1 => Ok(()),
        hours => Err(format!("{hours} hours")),
    });
}

#[test]
fn a_clock_of_another_hour() {
    let mut world = World::new();
    let clock = world.agent.config().with_file_name("clock");
    let token = world.agent.config().with_file_name("token");
    // Renamed into its place: it is read at any time.
    let set = |offset: &str| {
        let new = clock.with_file_name("clock-new");
        std::fs::write(&new, offset).expect("a file");
        std::fs::rename(&new, &clock).expect("a file");
    };
    set("+1h");
    world.agent.env.extend(
        [
            ("LD_PRELOAD", library().as_str()),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("UTF-8")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.into(), value.into())),
    );
    world.api.admit("first");
    let mut open = world.open(0);
    world.agent.end(Signal::SIGTERM);
    world.agent.up();
    world.synced();
    is_ahead(&world, 1.0);
    world.api.apply(&app("b", 1, &[1], ""));
    world.served_by(1, &["b1"]);
    // Set back by two hours as it runs; the server forgets, a Service goes, the token is replaced.
    set("-1h");
    world.api.apply(&app("b", 1, &[0], ""));
    world.served_by(1, &["b0"]);
    world.api.stop();
    world.api.apply(&app("b", 1, &[1], ""));
    world.api.apply(&app("c", 2, &[0], ""));
    world.api.delete("services", "d/b");
    world.api.compact();
    std::fs::write(&token, "second").expect("a file");
    world.api.admit("second");
    open.exchange(5_000).expect("what is open stays");
    world.net.node.run(|| world.api.restart());
    world.served_by(2, &["b0"]);
    world.are(&["cli", "d/a:http", "d/c:http", "file"]);
    // Forward again, and an event breaks off.
    set("+1h");
    world.api.break_next();
    world.api.apply(&app("c", 2, &[1], ""));
    world.served_by(2, &["b1"]);
    open.exchange(5_000).expect("what is open stays");
    // It starts an hour behind.
    set("-1h");
    world.agent.end(Signal::SIGTERM);
    world.agent.up();
    world.synced();
    is_ahead(&world, -1.0);
    world.api.apply(&app("c", 2, &[0], ""));
    world.served_by(2, &["b0"]);
    open.exchange(5_000).expect("what is open stays");
    // No deadline and no age of a connection went by it.
    world.agent.sweeps(3);
    assert_eq!(world.agent.active("d/a:http"), [1]);
}
