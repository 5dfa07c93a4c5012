//! Every map. What is in them, who writes and who reads: `lb_common::abi`.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    abi::{limits::*, pool::STARTS as STARTING_POINTS, socket::led, table::CHUNK_WORDS, *},
    filter::WORDS,
    flow_table::buckets,
};

use crate::{
    conntrack::{
        Opening,
        waiting::{RINGS, Ring},
    },
    family::maps_of_family,
    parse::Parsed,
    pipeline::Choosing,
    quota::Quota,
};

/// Length of a flow table's maps unless the agent sets another.
const BUCKETS: usize = buckets(MOST_DEFAULT_FLOWS) as usize;
/// The agent reads them without a system call an entry.
const MAPPED: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
/// Inner arrays of different lengths in one outer map (Linux 5.10).
const INNER_MAP: usize = 0x1000;

/// A flow table's buckets.
pub type Flows<A> = Array<Bucket<A>, BUCKETS, MAPPED>;
/// What a packet is, per CPU: the stack has no room for it, the verifier doesn't follow what lies in maps, which saves it most of the ways it would
/// go, and the programs of a packet's further steps find it there.
pub type Parsing<A> = PerCpuArray<Parsed<A>, 1>;
/// A new flow's two entries, per CPU.
pub type Scratch<A> = PerCpuArray<Flow<A>, 2>;
/// Services of one family.
pub type Services<A> = HashMap<ServiceKey<A>, Service, { MAX_PORTS as usize }, NO_PREALLOC>;
/// Datagrams in fragments of one family.
pub type Fragments<A> = LruHashMap<FragmentKey<A>, FirstFragment, { MAX_FRAGMENTED as usize }>;
/// UDP flows of one family, by what their backends send.
pub type SpokenOf<A> = LruHashMap<FlowKey<A>, Spoken<A>, { MAX_SPOKEN as usize }>;
/// Ports of ours of one family.
pub type PortsTaken<A> = HashMap<SourceKey<A>, SourcePorts, { MAX_SOURCE_KEYS as usize }, NO_PREALLOC>;
/// Addresses of ours of one family.
pub type OurSources<A> = Array<Sources<A>, 1>;
/// Room for a key of these.
pub type SourceKeys<A> = PerCpuArray<SourceKey<A>, 1>;
/// Clients of services of one family.
pub type SourceTrie<A> = LpmTrie<Client<A>, u32, { MAX_SOURCE_RANGES as usize }>;
/// VIPs of one family.
pub type Vips<A> = HashMap<A, Vip, { MAX_VIPS as usize }, NO_PREALLOC>;
/// Heads of a flow table's buckets: words, whatever the family.
pub type Heads<A> = Array<<A as OfFamily>::Head, BUCKETS, MAPPED>;

/// What is the same for both families.
pub trait OfFamily {
    /// A bucket's head.
    type Head;
}
impl<A> OfFamily for A {
    type Head = u64;
}

maps_of_family! {
    /// The maps of an IP version.
    pub trait Maps {
        /// Its flow table's buckets.
        flows: Flows, FLOWS4, FLOWS6;
        /// Their heads.
        heads: Heads, FLOW_HEADS4, FLOW_HEADS6;
        /// What the packet at hand is; not pinned.
        parsed: Parsing, PARSED4, PARSED6;
        /// Where a new flow's entries are put together; not pinned, private to `table`.
        scratch: Scratch, SCRATCH4, SCRATCH6;
        /// Its services.
        services: Services, SERVICES4, SERVICES6;
        /// Who may open flows of its services.
        source_ranges: SourceTrie, SOURCE_RANGES4, SOURCE_RANGES6;
        /// Its VIPs.
        vips: Vips, VIPS4, VIPS6;
        /// Its datagrams in fragments.
        fragments: Fragments, FRAGMENTS4, FRAGMENTS6;
        /// Whom its clients have asked.
        spoken: SpokenOf, SPOKEN4, SPOKEN6;
        /// Its addresses for source NAT.
        sources: OurSources, SOURCES4, SOURCES6;
        /// Their ports.
        ports: PortsTaken, SOURCE_PORTS4, SOURCE_PORTS6;
        /// A key of these, per CPU; not pinned, private to `snat`.
        source_key: SourceKeys, SOURCE_KEY4, SOURCE_KEY6;
    }
}

/// Programs of a packet's further steps; pinned for each build, since an array that nobody has open is emptied.
#[btf_map]
pub static TAILS_XDP: ProgramArray<{ programs::XDP_STEPS.len() }> = ProgramArray::new();
#[btf_map]
pub static TAILS_TC: ProgramArray<{ programs::TC_STEPS.len() }> = ProgramArray::new();
/// All ports free; not pinned, private to `snat`.
#[btf_map]
pub static NO_PORTS: Array<SourcePorts, 1> = Array::new();
#[btf_map]
pub static SOCKETS: Array<SocketPlace, { SOCKET_PLACES as usize }, MAPPED> = Array::new();
#[btf_map]
pub static SOCKET_PINS: Array<SocketPin, { SOCKET_PLACES as usize }, MAPPED> = Array::new();
#[btf_map]
pub static INTERFACES: HashMap<u32, Interface, { MAX_INTERFACES as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static MACS: HashMap<Mac, u32, { MAX_MACS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static FILTER: Array<u64, WORDS> = Array::new();
#[btf_map]
pub static POOLS: Array<PoolBlock, { MAX_BLOCKS as usize }> = Array::new();
#[btf_map]
pub static STARTS: HashMap<BlockId, [BlockId; STARTING_POINTS], { MAX_LONG_POOLS as usize }, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
pub static LIMITS: HashMap<ServiceId, ServiceLimit, { MAX_SERVICES as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static ACTIVE: Array<Active, { MAX_BLOCKS as usize }, MAPPED> = Array::new();
#[btf_map]
pub static CLIENTS: Array<Active, { MAX_BLOCKS as usize }, MAPPED> = Array::new();
/// What the agent knows of other nodes' connections: a word for each backend, see `lb_common::ranked`. Not pinned: whoever comes after this agent has
/// heard nothing yet. The agent makes it for all blocks where nodes share.
#[btf_map]
pub static OTHERS: Array<Active, { MAX_BLOCKS as usize }, MAPPED> = Array::new();
/// Until when that is good, jiffies; from then on only the order among equals is.
#[btf_map]
pub static OTHERS_VALID: Array<u64, 1, MAPPED> = Array::new();
/// 1: a service has got a connection since the agent looked.
#[btf_map]
pub static DIRTY: Array<u32, { MAX_SERVICES as usize }, MAPPED> = Array::new();
/// Wakes the agent to look. What is written doesn't matter.
#[btf_map]
pub static WAKE: RingBuf<u32, { WAKE_BYTES as usize }> = RingBuf::new();
/// How many flows were given in turn, by `table::index`. Not pinned: where another build begins is as good.
#[btf_map]
pub static TURNS: Array<u32, { MAX_SERVICES as usize * List::COUNT }> = Array::new();
#[btf_map]
pub static AFFINITY: HashMap<AffinityKey, AffinityEntry, { DEFAULT_MAX_CLIENTS as usize }, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
pub static HOSTS: HashMap<HostKey, BackendId, { MAX_HOSTS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static BACKENDS: Array<Backend, { MAX_BACKEND_IDS as usize }> = Array::new();
#[btf_map]
pub static BACKEND_COUNTERS: PerCpuArray<BackendCounters, { MAX_BACKEND_IDS as usize }> = PerCpuArray::new();
/// A Maglev table. Its value is no struct: up to Linux 6.1 the kernel takes only arrays whose type tells it as much as the template's does
/// (`bpf_map_meta_equal`, kernel/bpf/map_in_map.c), and the agent makes them without types.
pub type Table = Array<[u32; CHUNK_WORDS], 1, INNER_MAP>;
#[btf_map]
pub static TABLES: ArrayOfMaps<Table, { MAX_SERVICES as usize * List::COUNT }> = ArrayOfMaps::new();
#[btf_map]
pub static REASONS: PerCpuArray<u64, { Reason::ROOM }> = PerCpuArray::new();
#[btf_map]
pub static DURATIONS: Array<DurationHistogram, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
pub static SERVICE_NAMES: Array<ServiceName, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, { EVENT_BYTES as usize }> = RingBuf::new();
#[btf_map]
pub static LISTEN: Array<u32, { event::listen::LENGTH as usize }> = Array::new();
#[btf_map]
pub static LOST: PerCpuArray<u64, { event::lost::LENGTH as usize }> = PerCpuArray::new();
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
pub static PAST: Array<u32, 1> = Array::new();
/// For the tests of upgrades: one that a later version has.
#[cfg(feature = "next")]
#[btf_map]
pub static NEXT: Array<u64, 16> = Array::new();
/// Answers that may still be given, per CPU and kind; not pinned, private to `quota`. Low half: tick of the last one, high half: how
/// many were left then.
#[btf_map]
pub static ANSWERS: PerCpuArray<u64, { Quota::KINDS }> = PerCpuArray::new();

/// A choice that is being made, per CPU; not pinned, private to `pipeline::open`.
#[btf_map]
pub static CHOOSING: PerCpuArray<Choosing, 1> = PerCpuArray::new();

/// Flows that wait for their handshake's end, of services whose places are numbered; not pinned, private to `conntrack`.
#[btf_map]
pub static WAITING: Array<Ring, RINGS> = Array::new();

/// What a flow that is being pinned is to be, per CPU; not pinned, private to `conntrack`.
#[btf_map]
pub static OPENING: PerCpuArray<Opening, 1> = PerCpuArray::new();

/// Ticks a second (`CONFIG_HZ`), found out and set by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static TICK_HZ: Global<u32> = Global::new(250);

/// Length of the flow tables' maps, set by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static FLOW_BUCKETS: Global<u32> = Global::new(BUCKETS as u32);

/// Seed of the flow tables' hash, the same for as long as the maps live; set by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static FLOW_SEED: Global<u64> = Global::new(0);

/// Seed of consistent hashing, the same on all nodes; set by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static HASH_SEED: Global<u64> = Global::new(lb_common::hash::DEFAULT_SEED);

/// Cookie of the node's network namespace. Set by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static NODE_NETNS: Global<u64> = Global::new(0);

/// 1: nodes share their counts. Set by the agent likewise.
#[unsafe(no_mangle)]
pub static CLUSTER: Global<u32> = Global::new(0);

/// Whose sockets are led to backends, one of [`led`]. Set by the agent likewise.
#[unsafe(no_mangle)]
pub static SOCKETS_LED: Global<u32> = Global::new(led::OF_THE_NODE);
