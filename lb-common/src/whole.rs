//! A limit of a whole service: most connections of all its backends together. The number is nobody's to keep; it is
//! summed up from the backends' counts where a flow is opened.
//!
//! Who opens one looks whether there is room for one more, takes a place on a backend, which is a full barrier, and
//! sums up again, with that place. If that is one too many it gives the place back, and begins again. So there are
//! never more than the limit that keep their place: of those that do, the last to take it has seen the others', or
//! they were gone already.

/// Has a service more connections than its limit? `limit` 0: it has none.
#[inline(always)]
pub const fn is_beyond(all: u32, limit: u32) -> bool {
    limit != 0 && all > limit
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Backends.
    const BACKENDS: usize = 2;
    /// How often one begins again, as often as the programs do.
    const AGAIN: u8 = 4;

    /// How far one who opens a flow has got. `sum`: of the counts before `next`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    enum At {
        Looks {
            next: usize,
            sum: u32,
        },
        Takes,
        SumsUp {
            next: usize,
            sum: u32,
        },
        GivesBack,
        In,
        Refused {
            tired: bool,
        },
        /// It had a place from the start.
        Open,
        Left,
    }

    /// Whose place is on which backend, and how often it has begun again.
    #[derive(Clone, PartialEq, Eq, Hash, Debug)]
    struct State {
        counts: [u32; BACKENDS],
        flows: Vec<(At, usize, u8)>,
    }

    impl State {
        /// The next thing that a flow does; `None`: nothing more.
        fn step(&self, who: usize, limit: u32) -> Option<Self> {
            let mut state = self.clone();
            let (at, backend, again) = state.flows[who];
            let begin = At::Looks { next: 0, sum: 1 };
            let next = match at {
                At::Looks { next, sum } if next < BACKENDS => {
                    At::Looks { next: next + 1, sum: sum + state.counts[next] }
                }
                At::Looks { sum, .. } if is_beyond(sum, limit) => At::Refused { tired: false },
                At::Looks { .. } => At::Takes,
                At::Takes => {
                    state.counts[backend] += 1;
                    At::SumsUp { next: 0, sum: 0 }
                }
                At::SumsUp { next, sum } if next < BACKENDS => {
                    At::SumsUp { next: next + 1, sum: sum + state.counts[next] }
                }
                At::SumsUp { sum, .. } if is_beyond(sum, limit) => At::GivesBack,
                At::SumsUp { .. } => At::In,
                At::GivesBack => {
                    state.counts[backend] -= 1;
                    state.flows[who].2 += 1;
                    if again < AGAIN { begin } else { At::Refused { tired: true } }
                }
                At::Open => {
                    state.counts[backend] -= 1;
                    At::Left
                }
                At::In | At::Refused { .. } | At::Left => return None,
            };
            state.flows[who].0 = next;
            Some(state)
        }

        fn has(&self, at: At) -> usize {
            self.flows.iter().filter(|flow| flow.0 == at).count()
        }
    }

    /// Every order in which flows of these backends can be opened, beside open ones; returns all ends.
    fn orders(opening: &[usize], open: &[usize], limit: u32) -> Vec<State> {
        let begin = |backend: &usize| (At::Looks { next: 0, sum: 1 }, *backend, 0);
        let mut flows: Vec<_> = opening.iter().map(begin).collect();
        let mut counts = [0; BACKENDS];
        for backend in open {
            counts[*backend] += 1;
            flows.push((At::Open, *backend, 0));
        }
        let (mut todo, mut ends) = (vec![State { counts, flows }], Vec::new());
        let mut seen = HashSet::new();
        while let Some(state) = todo.pop() {
            assert!(state.has(At::In) + state.has(At::Open) <= limit as usize, "{state:?}");
            let next: Vec<State> = (0..state.flows.len()).filter_map(|who| state.step(who, limit)).collect();
            if next.is_empty() {
                ends.push(state);
            } else {
                todo.extend(next.into_iter().filter(|next| seen.insert(next.clone())));
            }
        }
        ends
    }

    #[test]
    fn there_are_never_more_than_the_limit_whatever_the_order() {
        for (opening, open, limit) in [
            (&[0, 1][..], &[][..], 1),
            (&[0, 0, 1], &[], 2),
            (&[0, 1], &[0], 1),
            (&[0, 1, 1], &[0, 1], 2),
            (&[0, 1, 1], &[0, 1], 3),
        ] {
            let ends = orders(opening, open, limit);
            assert!(ends.iter().any(|end| end.has(At::In) > 0), "limit {limit}: somebody gets in");
        }
    }

    #[test]
    fn who_takes_the_last_place_at_the_same_instant_as_others_has_it_unless_all_give_up() {
        for (opening, limit) in [(&[0, 1][..], 1), (&[0, 0][..], 1), (&[0, 1, 1][..], 2)] {
            for end in orders(opening, &[], limit) {
                let in_place = end.has(At::In);
                let tired = end.has(At::Refused { tired: true });
                assert!(in_place == limit as usize || tired > 0, "{end:?}");
            }
        }
    }

    #[test]
    fn without_a_limit_nothing_is_too_much() {
        assert!(!is_beyond(u32::MAX, 0) && !is_beyond(7, 7) && is_beyond(8, 7));
    }
}
