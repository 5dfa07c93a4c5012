//! The flow tables, read where they lie.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use aya::maps::MapData;
use lb_common::{
    abi::{Addr, Addr4, Addr6, Bucket, Flow, FlowKey, PortBe, Proto, maps},
    flow_state::Word,
    flow_table::{LANES, free, lowest, place, rest, with_tag},
};

use super::{DatapathError, mapping::Mapping, pin::PinDir};

/// Buckets between two pauses of a walk.
const BATCH: u32 = 1024;
/// Heads in a cache line.
const LINE: u32 = 8;
/// The tags in a head, without its version.
const TAGS: u64 = u64::MAX >> 8;

/// One flow table.
pub struct FlowTable<A: Addr> {
    heads: Mapping<u64>,
    /// Where entries are.
    map: MapData,
    /// Mapped when the first of them is to be read. What is mapped counts as the agent's memory, and an IP version that nobody uses has no entries.
    buckets: OnceLock<Mapping<Bucket<A>>>,
    count: u32,
    seed: u64,
}

/// Both.
pub struct FlowTables {
    /// IPv4.
    pub v4: FlowTable<Addr4>,
    /// IPv6.
    pub v6: FlowTable<Addr6>,
}

impl FlowTables {
    /// Opens them by their pins. `seed`: that of their hash, from the settings.
    ///
    /// # Errors
    /// One is missing or of another kind.
    pub fn open(pins: &PinDir, seed: u64) -> Result<Self, DatapathError> {
        Ok(Self {
            v4: FlowTable::over(&pins.data(maps::FLOW_HEADS4)?, pins.data(maps::FLOWS4)?, seed)?,
            v6: FlowTable::over(&pins.data(maps::FLOW_HEADS6)?, pins.data(maps::FLOWS6)?, seed)?,
        })
    }
}

impl FlowTables {
    /// If there is a TCP flow between these, as its packets come in: what its forward entry says of the client's numbers, which
    /// is [`Flow::fin`]. `None`: there is no such flow.
    pub fn numbered(&self, from: SocketAddr, to: SocketAddr) -> Option<u32> {
        let (sport, dport) = (PortBe::new(from.port()), PortBe::new(to.port()));
        match (from.ip(), to.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let key = FlowKey::new(src.into(), dst.into(), sport, dport, Proto::TCP);
                self.v4.get(&key).map(|flow| flow.fin)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let key = FlowKey::new(src.into(), dst.into(), sport, dport, Proto::TCP);
                self.v6.get(&key).map(|flow| flow.fin)
            }
            _ => None,
        }
    }

    /// Addresses that packets of the flows are sent to before they are translated.
    pub fn destinations(&self) -> BTreeSet<IpAddr> {
        let mut all = BTreeSet::new();
        self.v4.walk(|flows| all.extend(flows.iter().filter_map(destination)), || {});
        self.v6.walk(|flows| all.extend(flows.iter().filter_map(destination)), || {});
        all
    }
}

/// Where an entry's packets are sent, if that is an address of ours: a VIP, or one for source NAT.
fn destination<A: Addr>(flow: &Flow<A>) -> Option<IpAddr> {
    (!flow.direction.is_plain_reply()).then(|| flow.dst.to_ip())
}

impl<A: Addr> FlowTable<A> {
    /// The table that lies in these two maps.
    ///
    /// # Errors
    /// They are not of the lengths that they should be, or can't be mapped.
    pub fn over(heads: &MapData, map: MapData, seed: u64) -> Result<Self, DatapathError> {
        let heads = Mapping::new(heads, "heads of flows")?;
        let (count, about) = (heads.len(), map.info().map_err(DatapathError::kernel("flow table"))?);
        let size = about.value_size() as usize;
        if about.max_entries() != count || size != size_of::<Bucket<A>>() {
            let error = format!("{count} heads, {} buckets of {size} bytes", about.max_entries());
            return Err(DatapathError::Kernel { what: "flow table".into(), error });
        }
        Ok(Self { heads, map, buckets: OnceLock::new(), count, seed })
    }

    fn buckets_mapped(&self) -> Option<&Mapping<Bucket<A>>> {
        if let Some(mapped) = self.buckets.get() {
            return Some(mapped);
        }
        match Mapping::new(&self.map, "flows") {
            Ok(mapped) => Some(self.buckets.get_or_init(|| mapped)),
            Err(e) => {
                tracing::error!("flows can't be read: {e}");
                None
            }
        }
    }

    /// Buckets.
    pub const fn buckets(&self) -> u32 {
        self.count
    }

    /// The head of a bucket.
    ///
    /// # Panics
    /// There is no such bucket.
    pub fn head(&self, bucket: u32) -> u64 {
        // SAFETY: within the mapping, 8-byte aligned, and all writers use atomics.
        unsafe { AtomicU64::from_ptr(self.heads.at(bucket)) }.load(Ordering::Acquire)
    }

    /// The entry in a lane, if it can be read: neither being written nor given to another flow meanwhile.
    fn entry(&self, bucket: u32, lane: usize) -> Option<Flow<A>> {
        assert!(lane < LANES);
        let buckets = self.buckets_mapped()?;
        // SAFETY: within the mapping, 8-byte aligned; entries are plain data that any bytes are valid for. Others write
        // meanwhile: a copy counts only if the state, which is 0 while they do, was the same flow's before and after.
        let (before, flow, after) = unsafe {
            let at = buckets.at(bucket).cast::<Flow<A>>().add(lane);
            let state = AtomicU64::from_ptr((&raw mut (*at).state).cast());
            let before = state.load(Ordering::Acquire);
            let flow = at.read_volatile();
            fence(Ordering::Acquire);
            (before, flow, state.load(Ordering::Relaxed))
        };
        (before != 0 && Word(before).tag() == Word(after).tag()).then_some(flow)
    }

    /// The entry with this key, if there is one.
    pub fn get(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        let place = place(key, self.seed, self.count);
        [place.first, place.second].into_iter().find_map(|bucket| {
            let mut set = with_tag(self.head(bucket), place.tag);
            while set != 0 {
                if let Some(flow) = self.entry(bucket, lowest(set)).filter(|flow| flow.key() == *key) {
                    return Some(flow);
                }
                set = rest(set);
            }
            None
        })
    }

    /// The reply entry of a forward entry, if it is there and the same flow's.
    pub fn reply(&self, flow: &Flow<A>) -> Option<Flow<A>> {
        let found = if flow.direction.is_full() {
            let (bucket, lane) = (flow.nat_addr.place() >> 3, flow.nat_addr.place() as usize & 7);
            if bucket < self.count && lane < LANES { self.entry(bucket, lane) } else { None }
        } else {
            self.get(&flow.key().twin(flow))
        };
        found.filter(|reply| Word(reply.state).tag() == Word(flow.state).tag())
    }

    /// The 5-tuple with which a forward entry's packets reach the backend; `None`: it has just been removed.
    pub fn beyond(&self, flow: &Flow<A>) -> Option<FlowKey<A>> {
        if flow.direction.is_full() {
            self.reply(flow).map(|reply| reply.key().reversed())
        } else {
            Some(flow.translated())
        }
    }

    /// Hands every entry to `visit`, a batch at a time, `pause` between batches. Entries that are made or removed meanwhile may
    /// or may not be seen; no entry that stays is missed or seen twice.
    pub fn walk(&self, mut visit: impl FnMut(&[Flow<A>]), mut pause: impl FnMut()) {
        let mut batch = Vec::new();
        for first in (0..self.count).step_by(BATCH as usize) {
            for bucket in self.used(first..self.count.min(first + BATCH)) {
                let used = !free(self.head(bucket));
                batch.extend(
                    (0..LANES)
                        .filter(|lane| used >> (8 * lane + 7) & 1 == 1)
                        .filter_map(|lane| self.entry(bucket, lane)),
                );
            }
            if !batch.is_empty() {
                visit(&batch);
                batch.clear();
                pause();
            }
        }
    }

    /// Buckets that have entries. Most tables are nearly empty, so that heads are looked at a cache line at a time.
    fn used(&self, buckets: Range<u32>) -> impl Iterator<Item = u32> {
        let tags = |bucket: u32| {
            // SAFETY: within the mapping, 8-byte aligned, and all writers use atomics.
            unsafe { AtomicU64::from_ptr(self.heads.at(bucket)) }.load(Ordering::Relaxed) & TAGS
        };
        let end = buckets.end;
        buckets.step_by(LINE as usize).flat_map(move |first| {
            let line = first..end.min(first + LINE);
            let any = line.clone().fold(0, |any, bucket| any | tags(bucket)) != 0;
            line.filter(move |_| any)
        })
    }

    /// Every entry. For tables that are small or at rest.
    pub fn entries(&self) -> Vec<Flow<A>> {
        let mut all = Vec::new();
        self.walk(|flows| all.extend_from_slice(flows), || {});
        all
    }
}
