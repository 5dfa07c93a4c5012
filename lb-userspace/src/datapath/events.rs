//! The datapath's records of flows that open and end: a ring buffer, filled only while somebody listens.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
};

use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use lb_common::abi::{
    Addr4, Addr6, Event, PortBe,
    event::{listen, lost},
    maps,
};

use super::{DatapathError, pin::PinDir};

/// The reading end.
pub struct Events {
    ring: RingBuf<MapData>,
    listen: Array<MapData, u32>,
    lost: PerCpuArray<MapData, u64>,
    /// What is written: bits of [`listen`].
    wanted: u32,
    /// Records that were lost, as of the last look.
    seen: Lost,
}

/// Records that found no room in the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Of flows that opened.
    pub opened: u64,
    /// Of flows that ended.
    pub ended: u64,
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Events {
    /// Opens it by its pins. What an agent has left in it that kept a log is there for the next one that does.
    ///
    /// # Errors
    /// One is missing or of another kind, or the kernel refuses.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        let ring = pins.open_as(maps::EVENTS, Map::RingBuf)?;
        let listen: Array<_, u32> = pins.open_as(maps::LISTEN, Map::Array)?;
        let lost = pins.open_as(maps::LOST, Map::PerCpuArray)?;
        let get = |which| listen.get(&which, 0).map_err(DatapathError::kernel(maps::LISTEN));
        let (wanted, said) = (get(listen::WANTED)?, get(listen::SAID)?);
        let mut events = Self { ring, listen, lost, wanted, seen: Lost::default() };
        events.seen = events.count()?;
        if wanted & listen::ENDED != 0 {
            // What was lost since an agent last said so is still to be said.
            let unsaid = (events.seen.ended as u32).wrapping_sub(said);
            events.seen.ended = events.seen.ended.saturating_sub(unsaid.into());
        }
        Ok(events)
    }

    /// Has the datapath write records of these kinds, bits of [`listen`]. What is in the buffer of a time when nobody wanted any is
    /// thrown away.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn listen(&mut self, wanted: u32) -> Result<(), DatapathError> {
        if self.wanted & wanted & listen::ENDED == 0 {
            while self.ring.next().is_some() {}
            self.seen = self.count()?;
            self.listen
                .set(listen::SAID, self.seen.ended as u32, 0)
                .map_err(DatapathError::kernel(maps::LISTEN))?;
        }
        self.listen.set(listen::WANTED, wanted, 0).map_err(DatapathError::kernel(maps::LISTEN))?;
        self.wanted = wanted;
        Ok(())
    }

    /// The next record, if there is one.
    pub fn take(&mut self) -> Option<Event> {
        let item = self.ring.next()?;
        // SAFETY: a record is as long as an event, which any bytes are one of; it need not be aligned.
        (item.len() == size_of::<Event>()).then(|| unsafe { item.as_ptr().cast::<Event>().read_unaligned() })
    }

    /// Records that were lost since the last look.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn lost(&mut self) -> Result<Lost, DatapathError> {
        let (now, before) = (self.count()?, self.seen);
        if now.ended != before.ended {
            let said = now.ended as u32;
            self.listen.set(listen::SAID, said, 0).map_err(DatapathError::kernel(maps::LISTEN))?;
        }
        self.seen = now;
        Ok(Lost { opened: now.opened - before.opened, ended: now.ended - before.ended })
    }

    /// All that were lost since the maps were made.
    fn count(&self) -> Result<Lost, DatapathError> {
        let of = |which| {
            let found = self.lost.get(&which, 0).map_err(DatapathError::kernel(maps::LOST));
            found.map(|values| values.iter().sum::<u64>())
        };
        Ok(Lost { opened: of(lost::OPENED)?, ended: of(lost::ENDED)? })
    }
}

/// An address and port of an event.
pub fn socket(event: &Event, addr: [u32; 4], port: PortBe) -> SocketAddr {
    let ip = if event.v6 == 0 {
        IpAddr::V4(Ipv4Addr::from(Addr4(addr[0])))
    } else {
        IpAddr::V6(Ipv6Addr::from(Addr6(addr)))
    };
    SocketAddr::new(ip, port.get())
}
