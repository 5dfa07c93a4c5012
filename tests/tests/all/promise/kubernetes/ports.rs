//! Promise: a port that another process has is had when it is free, and told of until then.

use flowpin_tests::harness::{Net, eventually};

use super::{LIMIT, World, get};

#[test]
fn a_port_that_is_taken_is_had_when_it_is_free() {
    let net = Net::new(1);
    let taken = net.node.run(|| std::net::TcpListener::bind("0.0.0.0:10256")).expect("a port");
    let world = World::of(net);
    eventually("that is in the status", LIMIT, || match world.status()["not_listening"].to_string() {
        said if said.contains("10256") && said.contains("in use") => Ok(()),
        said => Err(said),
    });
    let event = eventually("an Event", LIMIT, || {
        let mut created = world.api.created().into_iter();
        created.find(|event| event["reason"] == "FailedToListen").ok_or("none".into())
    });
    let regarding = &event["regarding"];
    assert_eq!((&regarding["kind"], &regarding["name"]), (&"Node".into(), &"me".into()), "{event}");
    drop(taken);
    eventually("it answers", LIMIT, || match get(&world.net.client, "10.1.0.1:10256", "/livez") {
        Ok((head, _)) if head.contains("200 ok") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(world.status()["not_listening"].to_string(), "[]");
}
