//! The flow tables, walked in batches.

use std::os::fd::{AsFd, AsRawFd};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use lb_common::abi::{Addr, Addr4, Addr6, Flow, FlowKey, maps};

use super::{DatapathError, pin::PinDir};

/// Entries asked for at a time. The kernel holds a bucket's lock for the entries of that bucket only, so a batch delays no
/// packet by more than a handful of copies.
const BATCH: usize = 4096;
/// `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h).
const LOOKUP_BATCH: libc::c_long = 24;

/// The arguments of the batch commands (`union bpf_attr`, `batch`).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// One flow table.
pub struct FlowTable<A: Addr>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    map: HashMap<MapData, FlowKey<A>, Flow<A>>,
    fd: MapData,
}

/// Both.
pub struct FlowTables {
    /// IPv4.
    pub v4: FlowTable<Addr4>,
    /// IPv6.
    pub v6: FlowTable<Addr6>,
}

impl FlowTables {
    /// Opens them by their pins.
    ///
    /// # Errors
    /// One is missing or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        Ok(Self { v4: FlowTable::open(pins, maps::FLOWS4)?, v6: FlowTable::open(pins, maps::FLOWS6)? })
    }
}

impl<A: Addr> FlowTable<A>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    fn open(pins: &PinDir, name: &str) -> Result<Self, DatapathError> {
        let data = || MapData::from_pin(pins.map(name)).map_err(DatapathError::kernel(name.to_string()));
        let map = Map::HashMap(data()?).try_into().map_err(DatapathError::kernel(name.to_string()))?;
        Ok(Self { map, fd: data()? })
    }

    /// The entry with this key, if there is one.
    pub fn get(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        self.map.get(key, 0).ok()
    }

    /// Hands every entry to `visit`, a batch at a time, `pause` between batches. Entries that are made or removed meanwhile may
    /// or may not be seen; no entry that stays is missed or seen twice.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn walk(
        &self,
        mut visit: impl FnMut(&[FlowKey<A>], &[Flow<A>]),
        mut pause: impl FnMut(),
    ) -> Result<(), DatapathError> {
        let mut keys = vec![FlowKey::<A>::default(); BATCH];
        let mut values = vec![Flow::<A>::default(); BATCH];
        let (mut from, mut to) = (0u32, 0u32);
        let mut first = true;
        loop {
            let mut attr = BatchAttr {
                in_batch: if first { 0 } else { &raw const from as u64 },
                out_batch: &raw mut to as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: BATCH as u32,
                map_fd: self.fd.fd().as_fd().as_raw_fd().cast_unsigned(),
                ..BatchAttr::default()
            };
            // SAFETY: the attribute is the kernel's layout; keys and values have room for `count` entries of the map's sizes
            // (asserted when the map was opened), and are plain data that any bytes are valid for.
            let result =
                unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>()) };
            let error = std::io::Error::last_os_error();
            let last = result < 0 && error.raw_os_error() == Some(libc::ENOENT);
            if result < 0 && !last {
                return Err(DatapathError::io("walking the flow table")(error));
            }
            let count = attr.count as usize;
            visit(&keys[..count], &values[..count]);
            if last {
                return Ok(());
            }
            from = to;
            first = false;
            pause();
        }
    }
}
