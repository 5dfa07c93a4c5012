use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

use proptest::prelude::*;

use super::*;
use crate::abi::socket::PINS;

struct Table(Vec<(AtomicU64, AtomicU32)>);

impl Table {
    fn new() -> Self {
        Self((0..SOCKET_PLACES).map(|_| Default::default()).collect())
    }
    /// Pins a socket, as the hooks do.
    fn pin(&self, cookie: u64, chance: u32) -> u32 {
        let at = claim(self, cookie);
        assert!(at == NOWHERE || self.exchange(at, claimed(cookie), pinned(cookie, chance)));
        at
    }
    fn pins(&self, cookie: u64) -> BTreeSet<(u32, u64)> {
        let mut all = BTreeSet::new();
        each(self, cookie, |at, state| {
            assert!(all.insert((at, state)), "seen twice");
            false
        });
        assert!(all.is_empty() || may_have(self, cookie));
        all
    }
    fn release_all(&self, cookie: u64) -> usize {
        self.pins(cookie).into_iter().filter(|(at, state)| free(self, *at, *state)).count()
    }
    fn is_empty(&self) -> bool {
        self.0.iter().all(|(state, strays)| state.load(SeqCst) == 0 && strays.load(SeqCst) == 0)
    }
}

impl Places for Table {
    fn state(&self, at: u32) -> u64 {
        self.0[at as usize].0.load(SeqCst)
    }
    fn exchange(&self, at: u32, old: u64, new: u64) -> bool {
        self.0[at as usize].0.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
    fn strays(&self, at: u32) -> u32 {
        self.0[at as usize].1.load(SeqCst)
    }
    fn add_strays(&self, at: u32, change: u32) {
        self.0[at as usize].1.fetch_add(change, SeqCst);
    }
}

#[test]
fn states_say_whose_and_whether_it_counts() {
    for cookie in [1, 77, u64::from(u32::MAX) + 5] {
        assert!(!counts(claimed(cookie)) && owner(claimed(cookie)) == cookie);
        for chance in [0, 1, 0x1_0000, u32::MAX] {
            assert!(counts(pinned(cookie, chance)) && owner(pinned(cookie, chance)) == cookie);
        }
    }
    assert!(!counts(0) && owner(0) == 0);
}

#[test]
fn neighbours_stay_neighbours() {
    // A row is one page of pins.
    for row in [0u64, 1, 5_000_000_000] {
        let homes: BTreeSet<u32> = (0..64).map(|i| home(row * 64 + i)).collect();
        assert_eq!(homes.len(), 64);
        assert_eq!(homes.iter().map(|home| home / 64).collect::<BTreeSet<_>>().len(), 1);
    }
}

#[test]
fn half_of_all_places_can_be_used_whichever_sockets_are_led() {
    let used = u64::from(SOCKET_PLACES / 2);
    let random = |i| u64::from(hash::mix(i as u32 ^ 0x5eed)) << 4 | i & 15;
    let kinds: [(&str, &dyn Fn(u64) -> u64); 5] = [
        ("all in a row", &|i| i + 1),
        ("every other", &|i| 2 * i + 1),
        ("every 64th, as of one kind on one CPU", &|i| 64 * i + 7),
        ("a batch of the kernel's in four", &|i| i / 4096 * 4 * 4096 + i % 4096 + 1),
        ("those that stayed open of many", &random),
    ];
    for (kind, cookie) in kinds {
        let table = Table::new();
        for i in 0..used {
            assert_ne!(table.pin(cookie(i), i as u32), NOWHERE, "{kind}: the {i}th");
        }
        let far = (0..SOCKET_PLACES).filter(|at| table.strays(*at) != 0).count();
        assert!(far < SOCKET_PLACES as usize / 5, "{kind}: {far} places with strays");
        for i in 0..used {
            assert_eq!(table.pins(cookie(i)).len(), 1, "{kind}: the {i}th");
            assert_eq!(table.release_all(cookie(i)), 1);
        }
        assert!(table.is_empty(), "{kind}");
    }
}

#[test]
fn a_full_table_refuses_and_recovers() {
    let table = Table::new();
    // As many as can lie where this one's may.
    let cookie = 9;
    for n in 0..PROBES {
        let at = probe(home(cookie), n);
        assert!(table.exchange(at, 0, pinned(1 << 40, 1)), "the {n}th place is another's");
    }
    assert_eq!(table.pin(cookie, 1), NOWHERE);
    assert!(!may_have(&table, cookie));
    let last = probe(home(cookie), PROBES - 1);
    assert!(table.exchange(last, pinned(1 << 40, 1), 0));
    assert_eq!(table.pin(cookie, 1), last);
    assert_eq!(table.release_all(cookie), 1);
}

/// So many sockets with one home.
fn meeting(sockets: usize) -> Vec<u64> {
    let target = home(1);
    let rows = (0..400_000u64).filter(|row| home(row * 64) / ROW == target / ROW);
    let cookies = rows.filter_map(|row| (0..64).map(|i| row * 64 + i).find(|cookie| home(*cookie) == target));
    let cookies: Vec<u64> = cookies.filter(|cookie| *cookie != 0).take(sockets).collect();
    assert_eq!(cookies.len(), sockets);
    cookies
}

/// What happens to a socket of few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Pin(u64),
    Release(u64),
    ReleaseOne(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cookie = proptest::sample::select(meeting(12));
    let step = prop_oneof![
        3 => cookie.clone().prop_map(Step::Pin),
        1 => cookie.clone().prop_map(Step::Release),
        1 => cookie.prop_map(Step::ReleaseOne),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn pins_are_found_until_they_are_let_go_of(steps in steps()) {
        let table = Table::new();
        let mut model: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Pin(cookie) if model.get(&cookie).map_or(0, |pins| pins.len()) < PINS as usize => {
                    let at = table.pin(cookie, number as u32);
                    if at == NOWHERE {
                        let taken = (0..PROBES).all(|n| table.state(probe(home(cookie), n)) != 0);
                        prop_assert!(taken);
                    } else {
                        prop_assert!(model.entry(cookie).or_default().insert(at));
                    }
                }
                Step::Pin(_) => {}
                Step::Release(cookie) => {
                    let expected = model.remove(&cookie).unwrap_or_default().len();
                    prop_assert_eq!(table.release_all(cookie), expected);
                }
                Step::ReleaseOne(cookie) => {
                    if let Some((at, state)) = table.pins(cookie).first().copied() {
                        prop_assert!(free(&table, at, state));
                        prop_assert!(!free(&table, at, state), "freed twice");
                        model.entry(cookie).or_default().remove(&at);
                    }
                }
            }
            for (cookie, pins) in &model {
                let found: BTreeSet<u32> = table.pins(*cookie).into_iter().map(|(at, _)| at).collect();
                prop_assert_eq!(&found, pins);
            }
        }
        for cookie in model.into_keys() {
            table.release_all(cookie);
        }
        prop_assert!(table.is_empty());
    }
}

#[test]
fn threads_that_meet_lose_nothing() {
    let table = Table::new();
    std::thread::scope(|scope| {
        // Fewer pins than places, so that there is always one.
        for cookie in meeting(5) {
            let table = &table;
            scope.spawn(move || {
                for turn in 0..20_000u32 {
                    let mine = turn % PINS + 1;
                    let places: BTreeSet<u32> = (0..mine).map(|i| table.pin(cookie, turn + i)).collect();
                    assert_eq!(places.len(), mine as usize);
                    assert_eq!(
                        table.pins(cookie).into_iter().map(|(at, _)| at).collect::<BTreeSet<_>>(),
                        places
                    );
                    assert_eq!(table.release_all(cookie), mine as usize);
                }
            });
        }
    });
    assert!(table.is_empty());
}
