//! What lies in each map, said so that another build can tell what it finds: whether it may use a map as it is, how entries are to be copied into
//! its own, or that it had better leave them alone. Kept beside the maps as text ([`LAYOUTS`](super::maps::LAYOUTS)), and read back by name of
//! fields: a build needs to know nothing of one that comes later.
//!
//! A field may be added to a record in any place, and taken out again, within a minor version. What a field means, and how wide it is, stays; where
//! it can't, the map's meaning has another number, and maps with that are not taken over.

use core::{fmt, mem::offset_of};

use super::{meaning, table::Chunk, *};

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name. Those that begin with an underscore are zero, and fill up.
    pub name: &'static str,
    /// Where in the record, in bytes.
    pub offset: usize,
    /// How long, in bytes.
    pub size: usize,
}

/// What is plain data with fields, all of which are listed, or one value as a whole.
pub trait Record: Sized {
    /// The fields; none: it is one value.
    const FIELDS: &'static [Field] = &[];
    /// How it lies in a key or a value.
    const SHAPE: Shape = Shape { size: size_of::<Self>(), count: 1, fields: Self::FIELDS };
}

/// Records, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of one.
    pub size: usize,
    /// How many.
    pub count: usize,
    /// Its fields; none: it is one value.
    pub fields: &'static [Field],
}

const fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// The name by which a layout knows a field: its own, or the one that it had when maps with it were first made.
macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

macro_rules! records {
    ($($(@$generic:ident)? $record:ty { $($(#[$meta:meta])* $field:ident $(= $name:literal)?),* $(,)? })*) => {$(
        impl $(<$generic: Addr>)? Record for $record {
            const FIELDS: &'static [Field] = &[$(
                $(#[$meta])*
                Field {
                    name: name!($field $($name)?),
                    offset: offset_of!(Self, $field),
                    size: size_of_field(|record: &Self| &record.$field),
                }
            ),*];
        }
    )*};
}

records! {
    @A FlowKey<A> { src, dst, sport, dport, proto, _pad }
    @A Flow<A> {
        state, src, dst, sport, dport, proto, direction, asked_at, nat_addr, nat_port, packets_high, packets_low, mark, _fill, bytes, last_seen,
        created, backend, fin, #[cfg(feature = "next")] next,
    }
    @A ServiceKey<A> { vip, port, proto, _pad }
    Service {
        id, first_block, ranges, target, algorithm, stray, affine, source_ranges, forward, local, scarce, limited, _pad, #[cfg(feature = "next")] next,
    }
    @A Client<A> { service, addr }
    PoolBlock {
        weight, limit, next, service, even, even_weight, even_limit, client_bits, group, remember, bound, lists, by_port, starts,
    }
    ServiceLimit { most, count, blocks }
    Active { count }
    AffinityKey { group, high, low }
    AffinityEntry { key, binding = "bond", last, _pad }
    HostKey { service, addr }
    Backend { addr, port, family, flags = "retired", service }
    BackendCounters { connections, packets_in, bytes_in, packets_out, bytes_out, accepted, refused, unanswered }
    DurationHistogram { sum_jiffies, buckets }
    Settings { layout, max_flows, seed, max_clients, seed_high }
    @A Sources<A> { count, first, ports, addr }
    @A SourceKey<A> { backend, source, port, proto, _pad }
    SourcePorts { taken, next }
    SocketPlace { state, strays, _pad }
    SocketPin { vip, addr, vip_port, port, backend, last_seen, created, proto, family, bound, connected, _pad }
}

impl Record for u32 {}
impl Record for u64 {}
impl Record for Addr4 {}
impl Record for Addr6 {}
impl Record for BackendId {}
impl Record for Vip {}
impl Record for Interface {}
impl Record for Mac {}
impl Record for ServiceName {}
impl Record for Chunk {}
impl Record for Event {}
impl Record for [BlockId; pool::STARTS] {}

impl<A: Addr> Record for Bucket<A> {
    const SHAPE: Shape =
        Shape { size: size_of::<Flow<A>>(), count: crate::flow_table::LANES, fields: Flow::<A>::FIELDS };
}

/// Who keeps what is in a map, and so what becomes of it when another build has another layout for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Packets write it, and it is known nowhere else: copied while nothing of it changes.
    Packets,
    /// The agent writes it, and later ones must know it.
    Agent,
    /// The agent writes it, and can make it anew from what is declared: copied if it can be, so that little need be done.
    Derived,
    /// Nothing in it outlasts the programs that use it.
    Nobody,
}

/// Of one map.
#[derive(Clone, Copy, Debug)]
pub struct MapLayout {
    /// Its name.
    pub name: &'static str,
    /// Who keeps what is in it.
    pub keeper: Keeper,
    /// What the bits of its fields mean, as a number: of test vectors, or by hand.
    pub meaning: u64,
    /// How many entries; 0: as many as the agent has asked for.
    pub entries: u32,
    /// Its key.
    pub key: Shape,
    /// Its value.
    pub value: Shape,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.size, self.count)?;
        for (i, Field { name, offset, size }) in self.fields.iter().enumerate() {
            write!(f, "{}{name}@{offset}+{size}", if i == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

/// As it is kept: `meaning=0 entries=64 key=4x1 value=8x1:first@0+4,second@4+4`.
impl fmt::Display for MapLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { meaning, entries, key, value, .. } = self;
        write!(f, "meaning={meaning:x} entries={entries} key={key} value={value}")
    }
}

/// Of all maps that are pinned.
pub fn all() -> [MapLayout; maps::ALL.len()] {
    use Keeper::{Agent, Derived, Nobody, Packets};
    use limits::*;
    fn of<K: Record, V: Record>(name: &'static str, keeper: Keeper, meaning: u64, entries: u32) -> MapLayout {
        MapLayout { name, keeper, meaning, entries, key: K::SHAPE, value: V::SHAPE }
    }
    let (flows, bindings, sockets) = (meaning::flows(), meaning::affinity(), meaning::sockets());
    let ids = MAX_BACKEND_IDS;
    [
        of::<u32, Bucket<Addr4>>(maps::FLOWS4, Packets, flows, 0),
        of::<u32, Bucket<Addr6>>(maps::FLOWS6, Packets, flows, 0),
        of::<u32, u64>(maps::FLOW_HEADS4, Packets, flows, 0),
        of::<u32, u64>(maps::FLOW_HEADS6, Packets, flows, 0),
        of::<ServiceKey<Addr4>, Service>(maps::SERVICES4, Derived, 0, MAX_PORTS),
        of::<ServiceKey<Addr6>, Service>(maps::SERVICES6, Derived, 0, MAX_PORTS),
        of::<Addr4, Vip>(maps::VIPS4, Derived, 0, MAX_VIPS),
        of::<Addr6, Vip>(maps::VIPS6, Derived, 0, MAX_VIPS),
        of::<u32, PoolBlock>(maps::POOLS, Agent, 0, MAX_BLOCKS),
        of::<u32, Active>(maps::ACTIVE, Packets, 0, MAX_BLOCKS),
        of::<u32, Active>(maps::CLIENTS, Packets, 0, MAX_BLOCKS),
        of::<AffinityKey, AffinityEntry>(maps::AFFINITY, Packets, bindings, 0),
        of::<HostKey, BackendId>(maps::HOSTS, Derived, 0, MAX_HOSTS),
        of::<u32, Backend>(maps::BACKENDS, Agent, 0, ids),
        of::<u32, BackendCounters>(maps::BACKEND_COUNTERS, Packets, 0, ids),
        of::<u32, Chunk>(maps::TABLES, Nobody, meaning::tables(), MAX_SERVICES * List::COUNT as u32),
        of::<u32, u64>(maps::REASONS, Packets, 0, Reason::ROOM as u32),
        of::<u32, DurationHistogram>(maps::DURATIONS, Packets, 0, MAX_SERVICES),
        of::<u32, ServiceName>(maps::SERVICE_NAMES, Agent, 0, MAX_SERVICES),
        of::<u32, u64>(maps::FILTER, Nobody, meaning::filter(), crate::filter::WORDS as u32),
        of::<u32, Event>(maps::EVENTS, Nobody, 0, EVENT_BYTES),
        of::<u32, u32>(maps::LISTEN, Nobody, 0, event::listen::LENGTH),
        of::<u32, u64>(maps::LOST, Nobody, 0, event::lost::LENGTH),
        of::<u32, Sources<Addr4>>(maps::SOURCES4, Derived, 0, 1),
        of::<u32, Sources<Addr6>>(maps::SOURCES6, Derived, 0, 1),
        of::<SourceKey<Addr4>, SourcePorts>(maps::SOURCE_PORTS4, Packets, 0, MAX_SOURCE_KEYS),
        of::<SourceKey<Addr6>, SourcePorts>(maps::SOURCE_PORTS6, Packets, 0, MAX_SOURCE_KEYS),
        of::<u32, SocketPlace>(maps::SOCKETS, Packets, sockets, SOCKET_PLACES),
        of::<u32, SocketPin>(maps::SOCKET_PINS, Packets, sockets, SOCKET_PLACES),
        of::<Client<Addr4>, u32>(maps::SOURCE_RANGES4, Derived, 0, MAX_SOURCE_RANGES),
        of::<Client<Addr6>, u32>(maps::SOURCE_RANGES6, Derived, 0, MAX_SOURCE_RANGES),
        of::<u32, Interface>(maps::INTERFACES, Derived, 0, MAX_INTERFACES),
        of::<Mac, u32>(maps::MACS, Derived, 0, MAX_MACS),
        of::<u32, [BlockId; pool::STARTS]>(maps::STARTS, Derived, 0, MAX_LONG_POOLS),
        of::<u32, ServiceLimit>(maps::LIMITS, Derived, 0, MAX_SERVICES),
        of::<u32, u32>(maps::PAST, Packets, 0, 1),
        of::<u32, Settings>(maps::SETTINGS, Agent, 0, 1),
        #[cfg(feature = "next")]
        of::<u32, u64>(maps::NEXT, Packets, 0, 16),
    ]
}

#[cfg(test)]
mod tests {
    use std::{
        format,
        string::{String, ToString},
        vec::Vec,
    };

    use super::*;

    #[test]
    fn every_map_and_every_byte_is_described() {
        let all = all();
        let mut names: Vec<&str> = all.iter().map(|map| map.name).collect();
        let mut wanted = maps::ALL.to_vec();
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        for map in all {
            for Shape { size, fields, .. } in [map.key, map.value] {
                let mut end = 0;
                let mut fields = fields.to_vec();
                fields.sort_by_key(|field| field.offset);
                for field in &fields {
                    assert_eq!(field.offset, end, "{}: before {}", map.name, field.name);
                    end += field.size;
                }
                assert!(fields.is_empty() || end == size, "{}: {end} of {size} bytes", map.name);
            }
            assert!(map.to_string().len() <= maps::LAYOUT_BYTES, "{}", map.name);
            assert!(map.name.len() <= maps::NAME_BYTES, "{}", map.name);
        }
    }

    /// Whoever changes this changes what agents before and after take over of each other.
    #[test]
    fn layouts_are_as_they_were() {
        let all: String = all().map(|map| format!("{} {map}\n", map.name)).concat();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/abi/layouts.txt");
        let kept = std::fs::read_to_string(path).expect("a file");
        if cfg!(not(feature = "next")) {
            assert_eq!(all, kept, "{path} is not what this build has");
        }
    }
}
