//! A client's binding with a backend, as one 64-bit word that moves by compare-and-swap. Bits 0..18 the backend, 18..40 open flows of the
//! client, 40 whether one of them was ever confirmed, 41..64 a tag that is drawn when the binding is made.
//!
//! **Counting clients.** A backend's count of clients is the number of bindings with it that have an open flow. Whoever moves a word from
//! no open flow to one adds one, whoever moves it back, or to another backend, subtracts: exactly once, as with flows.
//!
//! **Who is remembered.** A client of whom a flow was open, so that it is there and has heard of its backend. Who has only said that he wants
//! to connect is forgotten with his last flow: anybody can say so in anybody's name.
//!
//! **Removal.** Only a binding without open flows is removed, by whoever moved it to [`Binding::gone`]. The memory may be another client's a
//! moment later; who still holds a pointer to it finds another key or, at the latest, fails its compare-and-swap by the tag.

use crate::abi::{AffinityKey, BackendId, PortBe, Proto};

const HOME_BITS: u32 = 18;
const OPEN_BITS: u32 = 22;
const HOME: u64 = (1 << HOME_BITS) - 1;
const OPEN_ONE: u64 = 1 << HOME_BITS;
const OPEN: u64 = ((1 << OPEN_BITS) - 1) << HOME_BITS;
const CONFIRMED: u64 = 1 << (HOME_BITS + OPEN_BITS);
const TAG_SHIFT: u32 = HOME_BITS + OPEN_BITS + 1;

/// Every backend id fits.
const _: () = assert!(crate::abi::limits::MAX_BACKEND_IDS <= 1 << HOME_BITS);

/// See the module.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding(pub u64);

impl Binding {
    /// With one open flow. `chance`: random bits, 23 used.
    #[inline(always)]
    pub const fn new(home: BackendId, chance: u32) -> Self {
        Self((chance as u64) << TAG_SHIFT | OPEN_ONE | home.0 as u64 & HOME)
    }
    /// Whom the client is bound to. Id 0: to nobody any more, the entry is being removed.
    #[inline(always)]
    pub const fn home(self) -> BackendId {
        BackendId((self.0 & HOME) as u32)
    }
    /// Open flows of the client.
    #[inline(always)]
    pub const fn open(self) -> u32 {
        ((self.0 & OPEN) >> HOME_BITS) as u32
    }
    /// With one more flow, at this backend from now on. `None`: no more can be counted.
    #[inline(always)]
    pub const fn more(self, home: BackendId) -> Option<Self> {
        if self.0 & OPEN == OPEN {
            return None;
        }
        Some(Self((self.0 & !HOME | home.0 as u64 & HOME) + OPEN_ONE))
    }
    /// With one flow less; the same if there is none.
    #[inline(always)]
    pub const fn less(self) -> Self {
        if self.0 & OPEN == 0 { self } else { Self(self.0 - OPEN_ONE) }
    }
    /// The same, of a client of whom a flow was open.
    #[inline(always)]
    pub const fn confirmed(self) -> Self {
        Self(self.0 | CONFIRMED)
    }
    /// Is there nothing to be remembered of the client?
    #[inline(always)]
    pub const fn is_void(self) -> bool {
        self.0 & (OPEN | CONFIRMED) == 0
    }
    /// Being removed.
    #[inline(always)]
    pub const fn gone(self) -> Self {
        Self(self.0 & !HOME)
    }
}

/// The key of a client: the first `bits` (0..=128) of its address count. IPv4 addresses count whole, whatever `bits` says: they come as
/// ::ffff:a.b.c.d.
#[inline(always)]
pub const fn key(group: u64, (high, low): (u64, u64), bits: u32) -> AffinityKey {
    if high == 0 && low >> 32 == 0xffff {
        return AffinityKey { group, high, low };
    }
    AffinityKey { group, high: high & mask(bits), low: low & mask(bits.saturating_sub(64)) }
}

/// The group in which clients of one port are bound, where each port has bindings of its own: of the service's group, the VIP's port and protocol.
#[inline(always)]
pub const fn group_at(group: u64, port: PortBe, proto: Proto) -> u64 {
    // Fibonacci hashing (Knuth, "The Art of Computer Programming", volume 3, section 6.4), odd, so that no port is lost.
    let at = (proto.0 as u64) << 16 | port.0 as u64 | 1 << 24;
    let mixed = (group ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32) | 1
}

/// The first `bits` of 64; all of them from 64 on.
#[inline(always)]
const fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { !(u64::MAX >> bits) }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::abi::{Addr, Addr4, Addr6};

    fn of6(text: &str, bits: u32) -> AffinityKey {
        key(7, Addr6::from(text.parse::<Ipv6Addr>().unwrap()).wide(), bits)
    }

    #[test]
    fn clients_are_told_apart_by_as_many_bits_as_count() {
        assert_eq!(of6("2001:db8:1:2:3::4", 64), of6("2001:db8:1:2:ffff::1", 64));
        assert_ne!(of6("2001:db8:1:2::4", 64), of6("2001:db8:1:3::4", 64));
        assert_eq!(of6("2001:db8::1:ffff", 112), of6("2001:db8::1:1", 112));
        assert_ne!(of6("2001:db8::1", 128), of6("2001:db8::2", 128));
        assert_eq!(of6("2001:db8::1", 0), of6("::2", 0));
        let v4 = |text: &str| key(7, Addr4::from(text.parse::<Ipv4Addr>().unwrap()).wide(), 56);
        assert_ne!(v4("192.0.2.1"), v4("192.0.2.2"));
        assert_eq!((v4("192.0.2.1").high, v4("192.0.2.1").low), (0, 0xffff_c000_0201));
    }

    #[test]
    fn a_binding_holds_what_it_may() {
        let full = Binding(Binding::new(BackendId(16), 1).0 | OPEN);
        assert_eq!(full.more(BackendId(17)), None);
        assert_eq!(full.less().more(BackendId(17)).map(Binding::home), Some(BackendId(17)));
        let last = BackendId(crate::abi::limits::MAX_BACKEND_IDS - 1);
        assert_eq!(Binding::new(last, u32::MAX).home(), last);
    }

    proptest! {
        #[test]
        fn a_binding_counts_flows_and_moves_and_keeps_its_tag(
            home in 16u32..1 << 18, chance: u32, steps in prop::collection::vec((any::<bool>(), 16u32..1 << 18), 0..100),
        ) {
            let mut binding = Binding::new(BackendId(home), chance);
            let (tag, mut open, mut at) = (binding.0 >> 41, 1u32, home);
            for (more, to) in steps {
                if more {
                    (binding, at, open) = (binding.more(BackendId(to)).unwrap(), to, open + 1);
                } else {
                    (binding, open) = (binding.less(), open.saturating_sub(1));
                }
                prop_assert_eq!((binding.open(), binding.home(), binding.0 >> 41), (open, BackendId(at), tag));
                prop_assert_eq!(binding.is_void(), open == 0);
                prop_assert!(!binding.confirmed().is_void());
            }
            prop_assert_eq!((binding.gone().home(), binding.gone().0 >> 41), (BackendId(0), tag));
        }
    }
}
