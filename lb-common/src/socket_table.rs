//! Where the pins of sockets lie: by the socket's cookie, in an array of places.
//!
//! The kernel counts cookies up (`sock_gen_cookie`, net/core/sock_diag.c), so that sockets of one moment are neighbours in it. Here they stay
//! neighbours, 64 to a row: looking a socket up, which is done whenever any socket of the node is closed, meets memory that was in use a moment
//! ago, where a hash would scatter them over all of it. Which row is the hash's to say.
//!
//! A pin lies at its socket's home, or, if that is taken, at the first free place of others that follow from it; the home counts those strays, and
//! where there are none nobody need look any further. At the load that the array is made for, one half, fewer than one place in five has any.

use crate::{abi::limits::SOCKET_PLACES, hash};

/// Places that a pin may lie at. With half of all taken by lot, none of these is free for one socket in four billion.
pub const PROBES: u32 = 32;
/// No place.
pub const NOWHERE: u32 = u32::MAX;

/// Cookies in a row.
const ROW: u32 = 64;
const TAG_BITS: u32 = 16;

/// A place's state while a pin of this socket is being written there.
#[inline(always)]
pub const fn claimed(cookie: u64) -> u64 {
    cookie << TAG_BITS
}

/// And when it counts. `chance`: random, so that it is not what it was when the same socket had another pin there.
#[inline(always)]
pub const fn pinned(cookie: u64, chance: u32) -> u64 {
    claimed(cookie) | chance as u16 as u64 | 1
}

/// Whose pin lies there; 0: nobody's.
#[inline(always)]
pub const fn owner(state: u64) -> u64 {
    state >> TAG_BITS
}

/// Does it count?
#[inline(always)]
pub const fn counts(state: u64) -> bool {
    state as u16 != 0
}

/// Where a socket's pin belongs.
#[inline(always)]
pub const fn home(cookie: u64) -> u32 {
    let row = hash::mix((cookie / ROW as u64) as u32);
    // Which of its neighbours is where differs from row to row: every other socket may be of the kind that is never led.
    row.wrapping_mul(ROW).wrapping_add((cookie as u32).wrapping_add(row >> 26) % ROW) % SOCKET_PLACES
}

/// The `n`th place for those who belong there: row by row, by triangular numbers, which meet no row twice (Knuth, "The Art of Computer
/// Programming", volume 3, section 6.4, exercise 20).
#[inline(always)]
pub const fn probe(home: u32, n: u32) -> u32 {
    home.wrapping_add(n * (n + 1) / 2 * ROW) % SOCKET_PLACES
}

/// The array.
pub trait Places {
    /// What lies there.
    fn state(&self, at: u32) -> u64;
    /// Moves a state. False: it wasn't `old`.
    fn exchange(&self, at: u32, old: u64, new: u64) -> bool;
    /// Pins that belong there and lie elsewhere.
    fn strays(&self, at: u32) -> u32;
    /// Adds to their count.
    fn add_strays(&self, at: u32, change: u32);
}

/// A place for a pin of this socket, which is [`claimed`] from now on, or [`NOWHERE`].
#[inline(always)]
pub fn claim(places: &impl Places, cookie: u64) -> u32 {
    let home = home(cookie);
    let take = |at| places.state(at) == 0 && places.exchange(at, 0, claimed(cookie));
    if take(home) {
        return home;
    }
    // Before it is there: nobody misses it.
    places.add_strays(home, 1);
    let mut n = 1;
    while n < PROBES {
        let at = probe(home, n);
        if take(at) {
            return at;
        }
        n += 1;
    }
    places.add_strays(home, u32::MAX);
    NOWHERE
}

/// Frees a place. True if it was in this state, that is, for one of those who try.
#[inline(always)]
pub fn free(places: &impl Places, at: u32, state: u64) -> bool {
    if !places.exchange(at, state, 0) {
        return false;
    }
    let home = home(owner(state));
    if at != home {
        places.add_strays(home, u32::MAX);
    }
    true
}

/// Has this socket pins? False is certain.
#[inline(always)]
pub fn may_have(places: &impl Places, cookie: u64) -> bool {
    let home = home(cookie);
    owner(places.state(home)) == cookie || places.strays(home) != 0
}

/// Hands the places of a socket's pins, and their states, to `visit`, until that says true.
#[inline(always)]
pub fn each(places: &impl Places, cookie: u64, mut visit: impl FnMut(u32, u64) -> bool) {
    let home = home(cookie);
    let mut n = 0;
    while n < PROBES {
        let at = probe(home, n);
        let state = places.state(at);
        if owner(state) == cookie && visit(at, state) || n == 0 && places.strays(home) == 0 {
            return;
        }
        n += 1;
    }
}

#[cfg(test)]
mod tests;
