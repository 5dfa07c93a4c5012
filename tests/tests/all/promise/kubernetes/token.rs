//! Who the agent is to the API server may change while that is away.

use super::{World, app};

#[test]
fn a_token_that_was_replaced_meanwhile() {
    let world = World::new();
    world.api.admit("first");
    world.api.apply(&app("b", 1, &[1], ""));
    world.served_by(1, &["b1"]);
    let mut open = world.open(0);
    world.api.stop();
    std::fs::write(world.agent.config().with_file_name("token"), "second").expect("a file");
    world.api.admit("second");
    world.api.apply(&app("b", 1, &[0], ""));
    world.net.node.run(|| world.api.restart());
    // Sooner than when the first is a minute old.
    world.served_by(1, &["b0"]);
    open.exchange(5_000).expect("what is open stays");
}
