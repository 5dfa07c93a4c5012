//! Least-connections over a whole cluster: the least of a backend's own and others' connections, for its weight, and
//! an order that decides among equals.
//!
//! The agent writes a word for each backend: the connections of other nodes, and in the low bits a fraction of one
//! connection. What is compared is
//! `(own + others + fraction) / weight`. The fractions put backends on a circle, each with an arc as long as its
//! weight; a node's phase is a point on it, and the first pick is the backend whose arc that point is in, to a 1024th
//! of the circle: over all phases as often as its weight says. All nodes know how many they are, so their points lie
//! evenly on the circle, though nobody has been asked: as many nodes as backends begin each with another backend.

/// Bits of the fraction in a word.
pub const ORDER_BITS: u32 = 10;

/// All that counts of a word when others' connections aren't known.
pub const ORDER: u32 = (1 << ORDER_BITS) - 1;

/// Most connections of others that fit in a word.
pub const MAX_OTHERS: u32 = u32::MAX >> ORDER_BITS;

/// A word for a backend: connections of others, [`MAX_OTHERS`] if they are more, and [`order`].
pub const fn word(others: u64, order: u32) -> u32 {
    let others = if others < MAX_OTHERS as u64 { others as u32 } else { MAX_OTHERS };
    others << ORDER_BITS | order & ORDER
}

/// A node's place among all: where its order begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rank {
    /// The node's place in the sorted list of nodes, from 0 on.
    pub place: u32,
    /// How many nodes there are; 0 counts as 1.
    pub nodes: u32,
}

impl Rank {
    /// A node that knows of no other.
    pub const ALONE: Self = Self { place: 0, nodes: 1 };

    /// The point of the circle where the node's order begins. `ended`: connections of its that have come and gone;
    /// with each the point moves on by a backend, so that backends take turns also when connections end before the
    /// next one comes.
    pub const fn phase(self, ended: u64, backends: u32) -> u32 {
        let start = part(self.place as u64, self.nodes);
        start.wrapping_add(part(ended, backends))
    }
}

/// So many of `of` equal parts of the circle.
const fn part(parts: u64, of: u32) -> u32 {
    if of == 0 { 0 } else { (((parts % of as u64) << 32) / of as u64) as u32 }
}

/// Where a backend's arc ends. `weights`: of all backends up to it, and with it; `all`: of all backends, not 0.
pub const fn arc_end(weights: u64, all: u64) -> u32 {
    (((weights as u128) << 32) / all as u128) as u32
}

/// The fraction of a backend whose arc ends there, in 1024ths.
pub const fn order(arc_end: u32, phase: u32) -> u32 {
    arc_end.wrapping_sub(phase) >> (32 - ORDER_BITS)
}

/// What is compared, for a weight of 1. `word`: as it lies in the map, or [`ORDER`] of it.
#[inline(always)]
pub const fn value(active: u32, word: u32) -> u64 {
    ((active as u64) << ORDER_BITS) + word as u64
}

/// The connections of its own that a backend had when it was compared, if its word is still the same: what a place
/// may be taken on.
#[inline(always)]
pub const fn active_of(value: u64, word: u32) -> u32 {
    (value.wrapping_sub(word as u64) >> ORDER_BITS) as u32
}

/// Nobody of a block.
pub const NOBODY16: u64 = u64::MAX;

/// The least value of 16 slots of the same weight and limit, and whose it is: `value << 4 | slot`, or [`NOBODY16`] if
/// all have `limit` connections of their own. One compare for each: of equals the first. `set`: slots that matter, a
/// bit each.
#[inline(always)]
pub fn least16(set: u32, limit: u32, active: impl Fn(usize) -> u32, word: impl Fn(usize) -> u32) -> u64 {
    let mut least = NOBODY16;
    for slot in 0..16 {
        let own = active(slot);
        // All ones for who doesn't matter or is full: the kernel's verifier follows each branch.
        let out = u64::from(set >> slot & 1).wrapping_sub(1);
        let full = (u64::from(limit).wrapping_sub(u64::from(own) + 1) as i64 >> 63) as u64;
        let mine = (value(own, word(slot)) << 4 | slot as u64) | out | full;
        if mine < least {
            least = mine;
        }
    }
    least
}

/// The best backend offered so far. Of equals it is the first.
///
/// Ratios are compared by cross-multiplication: exact, no division. A value has 43 bits, a weight 16.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ranked {
    value: u64,
    /// 0: nobody yet, whose ratio is infinite.
    weight: u32,
    group: u32,
    slot: u32,
    padding: u32,
}

impl Ranked {
    /// Nothing offered yet.
    pub const NONE: Self = Self { value: 1, weight: 0, group: 0, slot: 0, padding: 0 };

    /// Offers a slot of a group. `value`: of [`value`]; weight: 1..=65535.
    #[inline(always)]
    pub const fn offer(&mut self, group: u32, slot: u32, value: u64, weight: u32) {
        if value * (self.weight as u64) < self.value * (weight as u64) {
            (self.value, self.weight, self.group, self.slot) = (value, weight, group, slot);
        }
    }

    /// Offers the best of 16 slots of a group, all of this weight, as [`least16`] found it.
    #[inline(always)]
    pub const fn offer16(&mut self, group: u32, least: u64, weight: u32) {
        if least != NOBODY16 {
            self.offer(group, least as u32 & 0xf, least >> 4, weight);
        }
    }

    /// The winner's value, for [`active_of`]; of no meaning without one.
    #[inline(always)]
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// The winner: its group and slot; `None` if nobody was offered.
    #[inline(always)]
    pub const fn best(&self) -> Option<(u32, u32)> {
        if self.weight == 0 { None } else { Some((self.group, self.slot)) }
    }
}

#[cfg(test)]
mod tests;
