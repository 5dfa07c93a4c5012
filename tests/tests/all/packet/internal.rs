//! Maps that contradict each other, which the agent never writes: the packet is dropped and it shows.

use lb_common::abi::Reason;

use super::{
    build::SYN,
    run::Hook,
    stage::{Expect::*, NET4, NET6, Stage, TCP},
    tcp::request,
    world::{HZ, World},
};

#[test]
fn a_backend_that_is_nowhere() {
    for hook in Hook::ALL {
        for net in [&NET4, &NET6] {
            // Pools for many backends, and places to write down where they are for none.
            let mut world = World::with_sizes(hook, 64, 1, HZ).unwrap();
            let s = &mut Stage { world: &mut world, net };
            s.world.add_placeless(net.vip, &[(TCP, 80)]).unwrap();
            s.step("SYN", request(net, SYN), Drop(Reason::Internal));
            assert_eq!(s.world.entries(), 0);
        }
    }
}
