use super::*;

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn settings(budget: &str) -> Settings {
    Settings::new(budget.parse().unwrap(), 1.2).unwrap()
}

fn pool(opens: &[u64]) -> Vec<Backend> {
    let backend = |(at, open): (usize, &u64)| Backend { key: BackendKey(at as u64), weight: 1, open: *open };
    opens.iter().enumerate().map(backend).collect()
}

/// Asks for so many of each backend.
fn ask(
    grants: &mut Grants,
    now: Duration,
    budget: &str,
    pool: &[Backend],
    wants: &[(u64, u64)],
) -> Vec<(u64, u64)> {
    let moves = |(backend, connections): &(u64, u64)| Move {
        backend: BackendKey(*backend),
        connections: *connections,
    };
    let ask = Ask { number: 5, wants: wants.iter().map(moves).collect() };
    let answer = grants.ask(now, &settings(budget), pool, &ask);
    assert_eq!(answer.number, 5);
    answer.grants.iter().map(|it| (it.backend.0, it.connections)).collect()
}

#[test]
fn a_new_owner_and_a_change_keep_it_quiet() {
    let mut grants = Grants::new(s(100));
    let pool = pool(&[100, 0]);
    let wants = [(0, 100)];
    assert_eq!(ask(&mut grants, s(161), "5%/min", &pool, &wants), []);
    assert_eq!(grants.look(s(161), &settings("5%/min"), &pool), State::Quiet { until: s(162) });
    assert_eq!(ask(&mut grants, s(162), "5%/min", &pool, &wants), [(0, 1)]);
    grants.changed(s(170));
    assert_eq!(ask(&mut grants, s(229), "5%/min", &pool, &wants), []);
    assert_eq!(ask(&mut grants, s(230), "5%/min", &pool, &wants), [(0, 1)]);
    assert_eq!(grants.look(s(230), &settings("5%/min"), &pool), State::Moving { granted: 2, above_fair: 50 });
}

#[test]
fn the_fullest_gives_first_and_nobody_below_fair() {
    let mut grants = Grants::new(s(0));
    let pool = pool(&[60, 58, 0, 2]);
    let all = [(0, 60), (1, 58), (2, 9), (3, 9), (77, 9)];
    // 10 a round, and twice that unseen.
    assert_eq!(ask(&mut grants, s(100), "100%/min", &pool, &all), [(0, 9), (1, 7)]);
    // Not even where it is asked for twice.
    assert_eq!(ask(&mut grants, s(103), "100%/min", &pool, &[(1, 2), (1, 99)]), [(1, 4)]);
    assert_eq!(ask(&mut grants, s(104), "100%/min", &pool, &all), []);
}

#[test]
fn what_was_granted_counts_until_totals_show_it_or_it_is_too_old() {
    let fair = [14, 10, 10, 6];
    let mut grants = Grants::new(s(0));
    let all = [(0, 99)];
    grants.begin();
    assert_eq!(ask(&mut grants, s(100), "100%/min", &pool(&fair), &all), [(0, 4)]);
    assert_eq!(grants.pending_of(BackendKey(0)), 4);
    grants.look(s(101), &settings("100%/min"), &pool(&[13, 10, 10, 7]));
    assert_eq!(grants.pending_of(BackendKey(0)), 3);
    // More have come: they don't hide those that are still to go.
    grants.look(s(102), &settings("100%/min"), &pool(&[15, 10, 10, 7]));
    assert_eq!(grants.pending_of(BackendKey(0)), 3);
    grants.look(s(105), &settings("100%/min"), &pool(&[15, 10, 10, 7]));
    assert_eq!(grants.pending_of(BackendKey(0)), 0);
}

#[test]
fn it_begins_above_the_threshold_and_ends_at_even() {
    let it = settings("10%/min");
    let mut grants = Grants::new(s(0));
    let mut state = |now, opens: &[u64]| grants.look(s(now), &it, &pool(opens));
    assert_eq!(state(100, &[120, 80]), State::Waiting { ratio: 1.2 });
    assert_eq!(state(101, &[121, 79]), State::Moving { granted: 0, above_fair: 21 });
    assert_eq!(state(102, &[110, 90]), State::Moving { granted: 0, above_fair: 10 });
    assert_eq!(state(103, &[101, 99]), State::Even);
    assert_eq!(state(104, &[110, 90]), State::Waiting { ratio: 1.1 });
    grants.begin();
    assert_eq!(grants.look(s(105), &it, &pool(&[110, 90])), State::Moving { granted: 0, above_fair: 10 });
}

#[test]
fn weight_0_is_left_alone() {
    let mut grants = Grants::new(s(0));
    let mut pool = pool(&[10, 10, 99]);
    pool[2].weight = 0;
    assert_eq!(ask(&mut grants, s(100), "100%/min", &pool, &[(2, 99)]), []);
    assert_eq!(grants.look(s(100), &settings("100%/min"), &pool), State::Even);
    pool[2].weight = 1;
    assert_eq!(ask(&mut grants, s(101), "100%/min", &pool, &[(2, 1)]), [(2, 1)]);
}

#[test]
fn futile_is_over_after_a_change_or_ten_minutes() {
    for change in [false, true] {
        let mut grants = Grants::new(s(0));
        let pool = pool(&[100, 0]);
        let mut now = s(100);
        let until = loop {
            ask(&mut grants, now, "100%/min", &pool, &[(0, 100)]);
            if let State::Futile { until } = grants.look(now, &settings("100%/min"), &pool) {
                break until;
            }
            now += s(1);
        };
        assert_eq!(until, now + FUTILE);
        assert_eq!(ask(&mut grants, until - s(1), "100%/min", &pool, &[(0, 1)]), []);
        if change {
            grants.changed(until - s(1));
            assert_eq!(ask(&mut grants, until - s(1) + QUIET, "100%/min", &pool, &[(0, 1)]), [(0, 1)]);
        } else {
            assert_eq!(ask(&mut grants, until, "100%/min", &pool, &[(0, 1)]), [(0, 1)]);
        }
    }
}

/// With seven of eight full, those on their way back lower the fair parts of all: that isn't to look as if it didn't
/// help.
#[test]
fn clients_that_are_still_on_their_way_back_are_waited_for() {
    let mut grants = Grants::new(s(0));
    grants.begin();
    let mut opens = [500, 500, 500, 500, 500, 500, 500, 0];
    let wants: Vec<_> = (0..7).map(|backend| (backend, 500)).collect();
    let mut back = VecDeque::new();
    let mut now = s(100);
    while grants.look(now, &settings("30%/min"), &pool(&opens)) != State::Even {
        now += s(1);
        while back.front().is_some_and(|at| *at <= now) {
            back.pop_front();
            opens[7] += 1;
        }
        for (backend, connections) in ask(&mut grants, now, "30%/min", &pool(&opens), &wants) {
            opens[backend as usize] -= connections;
            back.extend(std::iter::repeat_n(now + s(9), connections as usize));
        }
        let state = grants.look(now, &settings("30%/min"), &pool(&opens));
        assert!(matches!(state, State::Moving { .. } | State::Even), "{state:?} at {now:?}: {opens:?}");
    }
    assert!(now < s(200), "{now:?}");
}
