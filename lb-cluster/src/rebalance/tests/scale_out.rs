//! From 4 backends to 8, with 400 idle connections.

use super::*;

/// How many minutes after the scale-out all are within 10 % of even, and all are even; and what the backends have
/// after each minute.
fn scale_out(nodes: usize) -> (u64, u64) {
    let settings = Settings::new("5%/min".parse().unwrap(), 1.2).unwrap();
    let conditions =
        Conditions { clients: Clients::Least, back: 2_000, lost: 1, doubled: 0, late: 20, stale: 1 };
    // 100 with each of the four, over all nodes.
    let share = |node: usize| (100 * (node + 1) / nodes - 100 * node / nodes) as u64;
    let open = (0..nodes).map(|node| [vec![share(node); 4], vec![0; 4]].concat()).collect();
    let mut world = World::new(settings, conditions, vec![1; 8], open, 7);
    // The owner isn't new, the backends are.
    world.run(NEW_OWNER - QUIET);
    world.changed();
    let (mut near, mut minute) = (None, 0);
    println!("{nodes} nodes\nminute  backends");
    while world.state() != State::Even {
        minute += 1;
        assert!(minute < 60, "{:?}", world.totals());
        world.run(Duration::from_secs(60));
        let totals = world.totals();
        println!("{minute:>6}  {totals:?}");
        if near.is_none() && totals.iter().all(|open| (45..=55).contains(open)) {
            near = Some(minute);
        }
    }
    budget_kept(&world);
    assert_eq!(world.settings.budget.of(400), 20);
    assert_eq!(world.totals().iter().sum::<u64>(), 400);
    (near.unwrap(), minute)
}

#[test]
fn new_backends_get_their_share_in_minutes() {
    // A minute of quiet, 180 of 400 at 20 a minute to 45, and 200 to 50.
    for nodes in [1, 40, 400] {
        let (near, even) = scale_out(nodes);
        println!("within 10 % after {near} minutes, even after {even}");
        assert!((10..=12).contains(&near) && (11..=14).contains(&even), "{nodes} nodes: {near}, {even}");
    }
}
