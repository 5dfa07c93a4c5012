mod scale_out;
mod world;

use proptest::prelude::*;
use world::{Clients, Conditions, World};

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Weight(usize, u32),
    RestartOwner,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1u64..200).prop_map(Event::Wait),
        1 => (0usize..6, 0u32..5).prop_map(|(at, weight)| Event::Weight(at, weight)),
        1 => Just(Event::RestartOwner),
    ]
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let clients = prop_oneof![2 => Just(Clients::Least), 1 => Just(Clients::Same), 1 => Just(Clients::Never)];
    // What has been granted is used within 2 s, and the client is back and seen within 10 s of the grant.
    (clients, 0u64..6_000, 0u32..40, 0u32..30, 0u64..3_000, 0usize..10).prop_map(
        |(clients, back, lost, doubled, late, stale)| Conditions {
            clients,
            back,
            lost,
            doubled,
            late,
            stale,
        },
    )
}

fn cluster() -> impl Strategy<Value = (Vec<u32>, Vec<Vec<u64>>)> {
    let opens = (1usize..6, 2usize..7).prop_flat_map(|(nodes, backends)| {
        let node = prop::collection::vec(prop_oneof![Just(0u64), 0u64..60], backends);
        (prop::collection::vec(0u32..5, backends), prop::collection::vec(node, nodes))
    });
    opens.prop_filter("somebody takes new flows", |(weights, _)| weights.iter().any(|weight| *weight != 0))
}

fn settings() -> impl Strategy<Value = Settings> {
    (prop_oneof![Just("1%/min"), Just("7.5%/min"), Just("30%/min"), Just("100%/min")], 1.0f64..2.0)
        .prop_map(|(budget, above)| Settings::new(budget.parse().unwrap(), above).unwrap())
}

/// The most that happened within any time of this length, and the most connections then.
fn most_within(window: Duration, log: &[(Duration, u64, u64)]) -> Vec<(u64, u64)> {
    let until = |(now, ..): &(Duration, u64, u64)| {
        let within = || log.iter().filter(|(at, ..)| *at <= *now && *at + window > *now);
        (within().map(|it| it.1).sum(), within().map(|it| it.2).max().unwrap_or_default())
    };
    log.iter().filter(|it| it.1 != 0).map(until).collect()
}

fn budget_kept(world: &World) {
    for (moved, of) in most_within(Duration::from_millis(60_001), &world.moved) {
        let budget = world.settings.budget.of(of);
        assert!(moved <= budget, "{moved} of {of} moved in a minute, {budget} allowed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..Default::default() })]

    /// Never below fair and never in quiet: the world looks at each move and each grant.
    #[test]
    fn the_budget_is_kept_whatever_happens(
        it in conditions(),
        settings in settings(),
        (weights, open) in cluster(),
        events in prop::collection::vec(event(), 1..12),
        seed: u64,
    ) {
        let mut world = World::new(settings, it, weights, open, seed);
        for event in events {
            match event {
                Event::Wait(seconds) => world.run(Duration::from_secs(seconds)),
                Event::Weight(at, weight) => {
                    let at = at % world.weights.len();
                    let before = std::mem::replace(&mut world.weights[at], weight);
                    if world.weights.iter().all(|weight| *weight == 0) {
                        world.weights[at] = before;
                    } else if before != weight {
                        world.changed();
                    }
                }
                Event::RestartOwner => world.restart_owner(),
            }
        }
        budget_kept(&world);
    }

    /// Then nobody has more than one above fair, and no more was moved than was above it. Where much is granted in
    /// vain it may look futile, and takes longer.
    #[test]
    fn it_ends_where_clients_go_to_the_least_loaded(
        it in conditions(),
        well: bool,
        (weights, open) in cluster(),
        seed: u64,
    ) {
        let settings = Settings::new("100%/min".parse().unwrap(), 1.0).unwrap();
        let (lost, doubled) = if well { (0, 0) } else { (it.lost, it.doubled) };
        let conditions = Conditions { clients: Clients::Least, lost, doubled, late: it.late % 800, ..it };
        let mut world = World::new(settings, conditions, weights, open, seed);
        let above = shares::Shares::of(&world.pool()).above_fair;
        let before = world.totals().iter().sum::<u64>();
        let mut left = 2_000;
        while world.state() != State::Even {
            world.run(Duration::from_secs(10));
            left -= 1;
            let futile = matches!(world.state(), State::Futile { .. });
            prop_assert!(left != 0 && !(well && futile), "{:?}: {:?}", world.state(), world.totals());
        }
        world.run(RETURN);
        prop_assert_eq!(world.state(), State::Even);
        let moved: u64 = world.moved.iter().map(|it| it.1).sum();
        prop_assert!(moved <= above, "{moved} moved, {above} were above fair");
        prop_assert_eq!(world.totals().iter().sum::<u64>(), before);
        budget_kept(&world);
    }

    /// One round, and what was granted until that could be seen.
    #[test]
    fn it_stops_where_clients_go_back_or_away(
        it in conditions(),
        settings in settings(),
        full in 60u64..300,
        never: bool,
        seed: u64,
    ) {
        let clients = if never { Clients::Never } else { Clients::Same };
        let conditions = Conditions { clients, ..it };
        let mut world = World::new(settings, conditions, vec![1; 4], vec![vec![full, 0, 0, 0]; 3], seed);
        let most = 2 * (3 * full).div_ceil(20).max(10);
        let mut left = 4_000;
        while !matches!(world.state(), State::Futile { .. }) {
            world.run(Duration::from_secs(1));
            left -= 1;
            prop_assert!(left != 0, "{:?}", world.state());
        }
        world.run(Duration::from_secs(590));
        let futile = matches!(world.state(), State::Futile { .. });
        prop_assert!(futile, "{:?}", world.state());
        let granted: u64 = world.granted.iter().map(|it| it.1).sum();
        prop_assert!((10..=most).contains(&granted), "{} granted, {} at most", granted, most);
    }

    /// A clock that is set back stands still, so that less is granted and not more; one that jumps ahead brings at
    /// most what comes in a few seconds.
    #[test]
    fn a_clock_that_steps_spends_nothing_twice(
        steps in prop::collection::vec(prop_oneof![8 => 0i64..5_000, 1 => -4_000_000i64..4_000_000], 1..300),
        open in 10u64..2_000,
    ) {
        let settings = Settings::new("10%/min".parse().unwrap(), 1.2).unwrap();
        let backend = |key, open| Backend { key: BackendKey(key), weight: 1, open };
        let pool = [backend(1, open), backend(2, 0)];
        let mut grants = Grants::new(Duration::ZERO);
        let (mut clock, mut latest) = (0i64, Duration::ZERO);
        let mut log: Vec<(Duration, u64, u64)> = Vec::new();
        for step in steps {
            clock = (clock + step).max(0);
            let now = Duration::from_millis(clock as u64);
            latest = latest.max(now);
            let wants = vec![Move { backend: BackendKey(1), connections: open }];
            let answer = grants.ask(now, &settings, &pool, &Ask { number: 1, wants });
            let granted = answer.grants.iter().map(|it| it.connections).sum();
            prop_assert!(granted == 0 || latest >= NEW_OWNER);
            log.push((latest, granted, open));
        }
        for (granted, of) in most_within(WINDOW, &log) {
            prop_assert!(granted <= settings.budget.of(of), "{granted} of {of}");
        }
    }
}
