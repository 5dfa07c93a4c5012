//! The datapath's records of flows that open and end: a ring buffer, filled only while somebody listens.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
};

use aya::maps::{Array, Map, MapData, RingBuf};
use lb_common::abi::{Addr4, Addr6, Event, PortBe, maps};

use super::{DatapathError, pin::PinDir};

/// The reading end.
pub struct Events {
    ring: RingBuf<MapData>,
    listen: Array<MapData, u32>,
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Events {
    /// Opens it by its pins. Nobody listens, whatever an agent left that was killed.
    ///
    /// # Errors
    /// One is missing or of another kind, or the kernel refuses.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        let ring = pins.open_as(maps::EVENTS, Map::RingBuf)?;
        let listen = pins.open_as(maps::LISTEN, Map::Array)?;
        let mut events = Self { ring, listen };
        events.listen(false)?;
        Ok(events)
    }

    /// Lets the datapath write records, or not. What is still in the buffer is thrown away.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn listen(&mut self, listen: bool) -> Result<(), DatapathError> {
        while self.ring.next().is_some() {}
        self.listen.set(0, u32::from(listen), 0).map_err(DatapathError::kernel(maps::LISTEN))
    }

    /// The next record, if there is one.
    pub fn take(&mut self) -> Option<Event> {
        let item = self.ring.next()?;
        // SAFETY: a record is as long as an event, which any bytes are one of; it need not be aligned.
        (item.len() == size_of::<Event>()).then(|| unsafe { item.as_ptr().cast::<Event>().read_unaligned() })
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
