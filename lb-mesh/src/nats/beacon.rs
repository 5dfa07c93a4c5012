//! What a node says to all: that it is there, and until when it should be heard again.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::wire::ALIVE;

/// The longest time between two.
pub(crate) const LONGEST: Duration = Duration::from_secs(10);
/// So many nodes may say it each second: 10,000 messages a second for the server to deliver, a tenth of a core.
const OFTEN: usize = 100;
/// A node that was to be heard so often and wasn't is gone.
const MISSED: u32 = 3;

/// See the module. 12 bytes: milliseconds until the next one, 0 for none, and the life, both most significant first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Beacon {
    /// Time until the next one; zero: there is none, the agent ends.
    pub(crate) every: Duration,
    /// Which connection of the node's with its server it is: on another one it may know nobody.
    pub(crate) life: u64,
}

impl Beacon {
    /// How often one of so many nodes says that it is there: once a second, as on TCP. In a large cluster others than
    /// those that own services say it less often, since each one goes to all.
    pub(crate) fn pace(nodes: usize, owns: bool) -> Duration {
        let by_number = ALIVE * nodes as u32 / OFTEN as u32;
        if owns { ALIVE } else { by_number.clamp(ALIVE, LONGEST) }
    }

    /// Silence after which a node is gone that was to be heard again after this time.
    pub(crate) fn patience(every: Duration) -> Duration {
        every * MISSED
    }

    pub(crate) fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(12);
        bytes.put_u32(self.every.as_millis() as u32);
        bytes.put_u64(self.life);
        bytes.freeze()
    }

    /// # Errors
    /// It isn't any.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Some((every, Ok(life))) =
            bytes.split_first_chunk().map(|(every, life)| (u32::from_be_bytes(*every), life.try_into()))
        else {
            return Err(format!("a beacon of {} bytes: it has 12", bytes.len()));
        };
        let every = Duration::from_millis(every.into());
        if every.is_zero() || (ALIVE..=LONGEST).contains(&every) {
            Ok(Self { every, life: u64::from_be_bytes(life) })
        } else {
            Err(format!("a beacon every {every:?}: it comes every {ALIVE:?} to {LONGEST:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_read_and_nothing_else() {
        for every in [Duration::ZERO, ALIVE, Duration::from_millis(1_234), LONGEST] {
            let beacon = Beacon { every, life: u64::MAX - 1 };
            assert_eq!(Beacon::decode(&beacon.encode()), Ok(beacon));
        }
        for bad in [&b""[..], &[0; 11], &[0; 13], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[255; 12]] {
            assert!(Beacon::decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn many_say_it_less_often_and_owners_always_each_second() {
        let pace = |nodes, owns| Beacon::pace(nodes, owns).as_millis();
        assert_eq!([1, 100, 250, 5_000].map(|nodes| pace(nodes, false)), [1_000, 1_000, 2_500, 10_000]);
        assert_eq!(pace(5_000, true), 1_000);
        assert_eq!(Beacon::patience(Beacon::pace(2, false)), crate::wire::SILENT);
    }
}
