//! Every map. What is in them, who writes and who reads: `lb_common::abi`.

use crate::{conntrack, events, parse::Parsed, snat, sweep, table};
use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    abi::{limits::*, table::Chunk, *},
    filter::WORDS,
    flow_table::buckets,
};

/// Length of a flow table's maps unless the agent sets another.
const BUCKETS: usize = buckets(DEFAULT_MAX_FLOWS) as usize;
/// The agent reads them without a system call an entry.
const MAPPED: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
/// Inner arrays of different lengths in one outer map (Linux 5.10).
const INNER_MAP: usize = 0x1000;

/// A flow table's buckets.
pub type Flows<A> = Array<Bucket<A>, BUCKETS, MAPPED>;
/// Their heads.
pub type Heads = Array<u64, BUCKETS, MAPPED>;
/// What a packet is, per CPU.
pub type Parsing<A> = PerCpuArray<Parsed<A>, 1>;
/// A flow's two entries, per CPU.
pub type Scratch<A> = PerCpuArray<Flow<A>, 2>;
/// Services of one family.
pub type Services<A> = HashMap<ServiceKey<A>, Service, { MAX_PORTS as usize }, NO_PREALLOC>;
/// Datagrams in fragments of one family.
pub type Fragments<A> = LruHashMap<FragmentKey<A>, FirstFragment, { MAX_FRAGMENTED as usize }>;
/// Ports of ours of one family.
pub type PortsTaken<A> = HashMap<SourceKey<A>, SourcePorts, { MAX_SOURCE_KEYS as usize }, NO_PREALLOC>;
/// Clients of services of one family.
pub type Admitted<A> = LpmTrie<Client<A>, u32, { MAX_ADMITTED as usize }>;
/// VIPs of one family.
pub type Vips<A> = HashMap<A, u32, { MAX_VIPS as usize }, NO_PREALLOC>;

#[btf_map]
pub static FLOWS4: Flows<Addr4> = Flows::new();
#[btf_map]
pub static FLOWS6: Flows<Addr6> = Flows::new();
#[btf_map]
pub static FLOW_HEADS4: Heads = Heads::new();
#[btf_map]
pub static FLOW_HEADS6: Heads = Heads::new();
#[btf_map]
pub static SERVICES4: Services<Addr4> = Services::new();
#[btf_map]
pub static SERVICES6: Services<Addr6> = Services::new();
#[btf_map]
pub static VIPS4: Vips<Addr4> = Vips::new();
#[btf_map]
pub static VIPS6: Vips<Addr6> = Vips::new();
#[btf_map]
pub static ADMITTED4: Admitted<Addr4> = Admitted::new();
#[btf_map]
pub static ADMITTED6: Admitted<Addr6> = Admitted::new();
#[btf_map]
pub static SOURCES4: Array<Sources<Addr4>, 1> = Array::new();
#[btf_map]
pub static SOURCES6: Array<Sources<Addr6>, 1> = Array::new();
#[btf_map]
pub static SOURCE_PORTS4: PortsTaken<Addr4> = PortsTaken::new();
#[btf_map]
pub static SOURCE_PORTS6: PortsTaken<Addr6> = PortsTaken::new();
/// All ports free; not pinned, private to `snat`.
#[btf_map]
pub static NO_PORTS: Array<SourcePorts, 1> = Array::new();
#[btf_map]
pub static SOCKETS: Array<SocketPlace, { SOCKET_PLACES as usize }, MAPPED> = Array::new();
#[btf_map]
pub static SOCKET_PINS: Array<SocketPin, { SOCKET_PLACES as usize }, MAPPED> = Array::new();
#[btf_map]
pub static PEERS: HashMap<u32, u32, { MAX_PEERS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static FRAGMENTS4: Fragments<Addr4> = Fragments::new();
#[btf_map]
pub static FRAGMENTS6: Fragments<Addr6> = Fragments::new();
#[btf_map]
pub static FILTER: Array<u64, WORDS> = Array::new();
#[btf_map]
pub static POOLS: Array<PoolBlock, { MAX_BLOCKS as usize }> = Array::new();
#[btf_map]
pub static ACTIVE: Array<Active, { MAX_BLOCKS as usize }> = Array::new();
#[btf_map]
pub static CLIENTS: Array<Active, { MAX_BLOCKS as usize }> = Array::new();
#[btf_map]
pub static AFFINITY: HashMap<AffinityKey, AffinityEntry, { DEFAULT_MAX_CLIENTS as usize }, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
pub static HOSTS: HashMap<HostKey, BackendId, { MAX_HOSTS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static BACKENDS: Array<Backend, { MAX_BACKEND_IDS as usize }> = Array::new();
#[btf_map]
pub static BACKEND_COUNTERS: PerCpuArray<BackendCounters, { MAX_BACKEND_IDS as usize }> = PerCpuArray::new();
#[btf_map]
pub static TABLES: ArrayOfMaps<Array<Chunk, 1, INNER_MAP>, { MAX_SERVICES as usize }> = ArrayOfMaps::new();
#[btf_map]
pub static REASONS: PerCpuArray<u64, { Reason::COUNT }> = PerCpuArray::new();
#[btf_map]
pub static DURATIONS: Array<DurationHistogram, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
pub static SERVICE_NAMES: Array<ServiceName, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, { EVENT_BYTES as usize }> = RingBuf::new();
#[btf_map]
pub static LISTEN: Array<u32, 1> = Array::new();
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();
/// Answers that may still be given, per CPU; not pinned, private to `unreachable`. Low half: tick of the last one, high half: how
/// many were left then.
#[btf_map]
pub static ANSWERS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// What the packet at hand is, per CPU, since the stack has no room for it, and since the verifier doesn't follow what lies in
/// maps, which saves it most of the ways it would go; not pinned, private to `pipeline`.
#[btf_map]
pub static PARSED4: Parsing<Addr4> = Parsing::new();
#[btf_map]
pub static PARSED6: Parsing<Addr6> = Parsing::new();

/// Which client is being bound, per CPU; not pinned, private to `affinity`.
#[btf_map]
pub static BINDING: PerCpuArray<AffinityEntry, 1> = PerCpuArray::new();

/// Where a new flow's entries are put together, or the key of one that is to go, per CPU, since the stack has no room for it; not pinned,
/// private to `table`.
#[btf_map]
pub static SCRATCH4: Scratch<Addr4> = Scratch::new();
#[btf_map]
pub static SCRATCH6: Scratch<Addr6> = Scratch::new();

/// The maps of an IP version.
pub trait Tables: IpVersion {
    /// Its flow table's buckets.
    fn flows() -> &'static Flows<Self::Addr>;
    /// Their heads.
    fn heads() -> &'static Heads;
    /// What the packet at hand is.
    fn parsed() -> &'static Parsing<Self::Addr>;
    /// Its scratch entries.
    fn scratch() -> &'static Scratch<Self::Addr>;
    /// [`table::claim`]'s global function.
    fn claim(which: u32) -> u32;
    /// [`table::remove`]'s.
    fn remove();
    /// [`conntrack::remove`]'s.
    fn unlink();
    /// [`table::visit`]'s.
    fn locate() -> u32;
    /// [`events::tell`]'s.
    fn tell(what: u32);
    /// [`sweep::run`]'s.
    fn serve(what: u32, state: u64, seen_forward: u32, seen_reply: u32) -> u32;
    /// Its services.
    fn services() -> &'static Services<Self::Addr>;
    /// Who may open flows of its services.
    fn admitted() -> &'static Admitted<Self::Addr>;
    /// Its VIPs.
    fn vips() -> &'static Vips<Self::Addr>;
    /// Its datagrams in fragments.
    fn fragments() -> &'static Fragments<Self::Addr>;
    /// Its addresses for source NAT.
    fn sources() -> &'static Array<Sources<Self::Addr>, 1>;
    /// Their ports.
    fn ports() -> &'static PortsTaken<Self::Addr>;
    /// [`snat::take`]'s global function.
    fn take_port(lot: u32) -> u32;
    /// [`snat::claim`]'s global function.
    fn claim_ours(lot: u32) -> u32;
    /// [`snat::give_back`]'s.
    fn free_port();
    /// A backend's address in this family.
    fn address(backend: &Backend) -> Self::Addr;
    /// Buckets of its flow table.
    #[inline(always)]
    fn buckets() -> u32 {
        FLOW_BUCKETS.load()
    }
    /// Seed of its flow table.
    #[inline(always)]
    fn seed() -> u32 {
        FLOW_SEED.load()
    }
}

impl Tables for V4 {
    #[inline(always)]
    fn flows() -> &'static Flows<Addr4> {
        &FLOWS4
    }
    #[inline(always)]
    fn services() -> &'static Services<Addr4> {
        &SERVICES4
    }
    #[inline(always)]
    fn admitted() -> &'static Admitted<Addr4> {
        &ADMITTED4
    }
    #[inline(always)]
    fn vips() -> &'static Vips<Addr4> {
        &VIPS4
    }
    #[inline(always)]
    fn fragments() -> &'static Fragments<Addr4> {
        &FRAGMENTS4
    }
    #[inline(always)]
    fn sources() -> &'static Array<Sources<Addr4>, 1> {
        &SOURCES4
    }
    #[inline(always)]
    fn ports() -> &'static PortsTaken<Addr4> {
        &SOURCE_PORTS4
    }
    #[inline(always)]
    fn take_port(lot: u32) -> u32 {
        snat::flowpin_take_port4(lot)
    }
    #[inline(always)]
    fn claim_ours(lot: u32) -> u32 {
        snat::flowpin_claim_ours4(lot)
    }
    #[inline(always)]
    fn free_port() {
        snat::flowpin_free_port4();
    }
    #[inline(always)]
    fn heads() -> &'static Heads {
        &FLOW_HEADS4
    }
    #[inline(always)]
    fn parsed() -> &'static Parsing<Addr4> {
        &PARSED4
    }
    #[inline(always)]
    fn scratch() -> &'static Scratch<Addr4> {
        &SCRATCH4
    }
    #[inline(always)]
    fn claim(which: u32) -> u32 {
        table::flowpin_claim4(which)
    }
    #[inline(always)]
    fn remove() {
        table::flowpin_remove4();
    }
    #[inline(always)]
    fn unlink() {
        conntrack::flowpin_unlink4();
    }
    #[inline(always)]
    fn locate() -> u32 {
        table::flowpin_locate4()
    }
    #[inline(always)]
    fn tell(what: u32) {
        events::flowpin_tell4(what);
    }
    #[inline(always)]
    fn serve(what: u32, state: u64, seen_forward: u32, seen_reply: u32) -> u32 {
        sweep::flowpin_serve4(what, state, seen_forward, seen_reply)
    }
    #[inline(always)]
    fn address(backend: &Backend) -> Addr4 {
        Addr4(backend.addr[0])
    }
}

impl Tables for V6 {
    #[inline(always)]
    fn flows() -> &'static Flows<Addr6> {
        &FLOWS6
    }
    #[inline(always)]
    fn services() -> &'static Services<Addr6> {
        &SERVICES6
    }
    #[inline(always)]
    fn admitted() -> &'static Admitted<Addr6> {
        &ADMITTED6
    }
    #[inline(always)]
    fn vips() -> &'static Vips<Addr6> {
        &VIPS6
    }
    #[inline(always)]
    fn fragments() -> &'static Fragments<Addr6> {
        &FRAGMENTS6
    }
    #[inline(always)]
    fn sources() -> &'static Array<Sources<Addr6>, 1> {
        &SOURCES6
    }
    #[inline(always)]
    fn ports() -> &'static PortsTaken<Addr6> {
        &SOURCE_PORTS6
    }
    #[inline(always)]
    fn take_port(lot: u32) -> u32 {
        snat::flowpin_take_port6(lot)
    }
    #[inline(always)]
    fn claim_ours(lot: u32) -> u32 {
        snat::flowpin_claim_ours6(lot)
    }
    #[inline(always)]
    fn free_port() {
        snat::flowpin_free_port6();
    }
    #[inline(always)]
    fn heads() -> &'static Heads {
        &FLOW_HEADS6
    }
    #[inline(always)]
    fn parsed() -> &'static Parsing<Addr6> {
        &PARSED6
    }
    #[inline(always)]
    fn scratch() -> &'static Scratch<Addr6> {
        &SCRATCH6
    }
    #[inline(always)]
    fn claim(which: u32) -> u32 {
        table::flowpin_claim6(which)
    }
    #[inline(always)]
    fn remove() {
        table::flowpin_remove6();
    }
    #[inline(always)]
    fn unlink() {
        conntrack::flowpin_unlink6();
    }
    #[inline(always)]
    fn locate() -> u32 {
        table::flowpin_locate6()
    }
    #[inline(always)]
    fn tell(what: u32) {
        events::flowpin_tell6(what);
    }
    #[inline(always)]
    fn serve(what: u32, state: u64, seen_forward: u32, seen_reply: u32) -> u32 {
        sweep::flowpin_serve6(what, state, seen_forward, seen_reply)
    }
    #[inline(always)]
    fn address(backend: &Backend) -> Addr6 {
        Addr6(backend.addr)
    }
}

/// Ticks a second (`CONFIG_HZ`), found out and set by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static TICK_HZ: Global<u32> = Global::new(250);

/// Length of the flow tables' maps, set by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static FLOW_BUCKETS: Global<u32> = Global::new(BUCKETS as u32);

/// Seed of the flow tables' hash, the same for as long as the maps live; set by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static FLOW_SEED: Global<u32> = Global::new(0);

/// Cookie of the node's network namespace. Set by the agent before it loads the programs.
#[unsafe(no_mangle)]
pub static NODE_NETNS: Global<u64> = Global::new(0);

/// Whose sockets are led to backends: 0: those of processes in the node's network namespace; 1: everybody's. Set by the agent likewise.
#[unsafe(no_mangle)]
pub static SOCKETS_OF_ALL: Global<u32> = Global::new(0);
