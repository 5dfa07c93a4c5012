//! The contract across the BPF boundary: one file per map, names and capacities here.
//!
//! Everything in a map is plain data: `repr(C)`, no implicit padding, every bit pattern valid. Addresses and ports are kept
//! in network byte order and converted only in [`addr`].

pub mod addr;
pub mod affinity;
pub mod backend;
pub mod counters;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod interface;
pub mod layout;
pub mod limit;
pub mod mac;
mod meaning;
mod pod;
pub mod pool;
pub mod reason;
pub mod service;
pub mod settings;
pub mod snat;
pub mod socket;
pub mod source_ranges;
pub mod spoken;
pub mod sweep;
pub mod table;
pub mod vip;

pub use addr::{Addr, Addr4, Addr6, IpVersion, PortBe, Proto, V4, V6};
pub use affinity::{AffinityEntry, AffinityKey, HostKey};
pub use backend::{Backend, BackendId};
pub use counters::{BackendCounters, DURATION_BUCKETS, DurationHistogram};
pub use event::{Event, What};
pub use flow::{ASKED_SHIFT, Bucket, CREATED_SHIFT, Direction, Flow, FlowKey};
pub use fragment::{FirstFragment, FragmentKey};
pub use interface::Interface;
pub use limit::{LIMIT_BLOCKS, ServiceLimit};
pub use mac::Mac;
pub use pool::{Active, BLOCK_SLOTS, BlockId, PoolBlock};
pub use reason::{Answer, Reason};
pub use service::{Algorithm, Forward, List, Service, ServiceId, ServiceKey, ServiceName, Source, Stray};
pub use settings::{MARK, Settings};
pub use snat::{MAX_SOURCE_PORTS, MAX_SOURCES, SourceKey, SourcePorts, Sources};
pub use socket::{SocketPin, SocketPlace};
pub use source_ranges::{Client, SourceRanges};
pub use spoken::Spoken;
pub use vip::Vip;

/// Names of the maps, as in the BPF object and under `pin_dir/maps`.
pub mod maps {
    /// Flow table, IPv4: buckets → [`super::Bucket`]. Array, mapped by the agent; as long as
    /// [`buckets`](crate::flow_table::buckets) says.
    pub const FLOWS4: &str = "FLOWS4";
    /// Flow table, IPv6.
    pub const FLOWS6: &str = "FLOWS6";
    /// Heads of the buckets, IPv4: what lies in which lane. Array of `u64`, mapped by the agent.
    pub const FLOW_HEADS4: &str = "FLOW_HEADS4";
    /// Heads of the buckets, IPv6.
    pub const FLOW_HEADS6: &str = "FLOW_HEADS6";
    /// Services, IPv4: [`super::ServiceKey`] → [`super::Service`], one entry per port and protocol. Hash, not preallocated.
    pub const SERVICES4: &str = "SERVICES4";
    /// Services, IPv6.
    pub const SERVICES6: &str = "SERVICES6";
    /// Addresses that are a VIP of some service, IPv4: [`super::Addr4`] → [`super::Vip`]. Read only for packets that belong
    /// to no flow and no service.
    pub const VIPS4: &str = "VIPS4";
    /// Addresses that are a VIP of some service, IPv6.
    pub const VIPS6: &str = "VIPS6";
    /// Eligibility and limits, a block of 16 backends a value: block → [`super::PoolBlock`]. Written by the agent only.
    pub const POOLS: &str = "POOLS";
    /// Active connections, same indices: block → [`super::Active`]. Written by the datapath only, mapped by the
    /// agent.
    pub const ACTIVE: &str = "ACTIVE";
    /// Clients bound to backends that have an open flow, same indices: block → [`super::Active`]. Written by the datapath only.
    pub const CLIENTS: &str = "CLIENTS";
    /// Who is bound to whom: [`super::AffinityKey`] → [`super::AffinityEntry`]. Hash, not preallocated; as large as the agent says.
    pub const AFFINITY: &str = "AFFINITY";
    /// Where a host is in a service's pool, for services with affinity: [`super::HostKey`] → [`super::BackendId`]. Hash, not
    /// preallocated. Written by the agent only.
    pub const HOSTS: &str = "HOSTS";
    /// Where backends are: [`super::BackendId`] → [`super::Backend`]. Written by the agent only.
    pub const BACKENDS: &str = "BACKENDS";
    /// Per-CPU counters: [`super::BackendId`] → [`super::BackendCounters`].
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";
    /// Maglev tables: [`super::table::index`] of a service and a list → array of [`super::table::Chunk`].
    pub const TABLES: &str = "TABLES";
    /// Per-CPU refusals and drops: [`super::Reason`] → `u64`.
    pub const REASONS: &str = "REASONS";
    /// Connection durations: [`super::ServiceId`] → [`super::DurationHistogram`].
    pub const DURATIONS: &str = "DURATIONS";
    /// Names of services, so that an agent that adopts the maps knows whose entries they are: id → [`super::ServiceName`].
    pub const SERVICE_NAMES: &str = "SERVICE_NAMES";
    /// What may be a service's or of a flow, a bit each: words of [`filter`](crate::filter).
    pub const FILTER: &str = "FILTER";
    /// Records of flows that open and end, for those who follow: [`super::Event`]. Ring buffer.
    pub const EVENTS: &str = "EVENTS";
    /// Who wants them: [`super::event::listen`] → `u32`. Array, written by the agent.
    pub const LISTEN: &str = "LISTEN";
    /// Records that found no room, per CPU: [`super::event::lost`] → `u64`.
    pub const LOST: &str = "LOST";
    /// One [`super::Settings`]: what the maps were made for.
    pub const SETTINGS: &str = "SETTINGS";
    /// What lies in which map: name → text of its [`MapLayout`](super::layout::MapLayout); `VERSION` → the version that made them. Hash, made and read
    /// by the agent alone.
    pub const LAYOUTS: &str = "LAYOUTS";
    /// Bytes of a name there, zero-padded.
    pub const NAME_BYTES: usize = 32;
    /// Bytes of a text there, zero-padded.
    pub const LAYOUT_BYTES: usize = 1024;
    /// Entries there.
    pub const MAX_LAYOUTS: u32 = 256;
    /// Addresses for source NAT, IPv4: one [`super::Sources`].
    pub const SOURCES4: &str = "SOURCES4";
    /// The same for IPv6.
    pub const SOURCES6: &str = "SOURCES6";
    /// Their ports that are taken, IPv4: [`super::SourceKey`] → [`super::SourcePorts`]. Hash, not preallocated.
    pub const SOURCE_PORTS4: &str = "SOURCE_PORTS4";
    /// The same for IPv6.
    pub const SOURCE_PORTS6: &str = "SOURCE_PORTS6";
    /// Datagrams whose first fragment has come, IPv4: [`super::FragmentKey`] → [`super::FirstFragment`]. LRU hash; not pinned.
    pub const FRAGMENTS4: &str = "FRAGMENTS4";
    /// The same for IPv6.
    pub const FRAGMENTS6: &str = "FRAGMENTS6";
    /// Whom clients have asked by UDP, IPv4: [`super::FlowKey`] of what the backend sends → [`super::Spoken`]. LRU hash; not pinned.
    pub const SPOKEN4: &str = "SPOKEN4";
    /// The same for IPv6.
    pub const SPOKEN6: &str = "SPOKEN6";
    /// Sockets of processes of the node's that use services: place → [`super::SocketPlace`]. Array, mapped by the agent.
    pub const SOCKETS: &str = "SOCKETS";
    /// Where they were led: place → [`super::SocketPin`]. Likewise.
    pub const SOCKET_PINS: &str = "SOCKET_PINS";
    /// Who may open flows of services that aren't everybody's, IPv4: [`super::Client`] → `u32`. LPM trie. Written by the agent only.
    pub const SOURCE_RANGES4: &str = "SOURCE_RANGES4";
    /// The same for IPv6.
    pub const SOURCE_RANGES6: &str = "SOURCE_RANGES6";
    /// What is known of interfaces: index → [`super::Interface`]. Hash, not preallocated. Written by the agent only.
    pub const INTERFACES: &str = "INTERFACES";
    /// The node's MAC addresses: [`super::Mac`] → `u32`, and [`super::Mac::COMPLETE`]. Hash, not preallocated. Written by the agent only.
    pub const MACS: &str = "MACS";
    /// Entry points of pools that are too long to be walked whole: first block → [`super::pool::STARTS`] blocks. Hash, not preallocated. Written by the
    /// agent only.
    pub const STARTS: &str = "STARTS";
    /// Limits of services as a whole: service → [`super::ServiceLimit`]. Hash, not preallocated. Written by the agent only.
    pub const LIMITS: &str = "LIMITS";
    /// Programs of further steps by XDP: index in [`XDP_STEPS`](super::programs::XDP_STEPS) → program. Pinned for each build by itself.
    pub const XDP_TAILS: &str = "TAILS_XDP";
    /// The same by TC: index in [`TC_STEPS`](super::programs::TC_STEPS).
    pub const TC_TAILS: &str = "TAILS_TC";
    /// One `u32`: 1: flows past us have been pinned (see `pipeline::past`), so that packets to backends' own addresses may be of one. Written by the datapath.
    pub const PAST: &str = "PAST";
    /// Other nodes' connections, a word for each backend ([`crate::ranked`]): block → 16 of them. Array, mapped and written by the agent; not pinned.
    pub const OTHERS: &str = "OTHERS";
    /// One `u64`: until when these are good, jiffies. Likewise.
    pub const OTHERS_VALID: &str = "OTHERS_VALID";
    /// Services that have got a connection since the agent looked: service → `u32`, 1 by the datapath, 0 by the agent. Array, mapped; not pinned.
    pub const DIRTY: &str = "DIRTY";
    /// Wakes the agent when the first of these is set: a record of no meaning. Ring buffer; not pinned.
    pub const WAKE: &str = "WAKE";
    /// Whose turn it is, for round robin: [`super::table::index`] → how many flows were given so far. Not pinned.
    pub const TURNS: &str = "TURNS";
    /// For the tests of upgrades: one that a later version has.
    #[cfg(feature = "next")]
    pub const NEXT: &str = "NEXT";
    /// All that are pinned.
    pub const ALL: [&str; 37 + cfg!(feature = "next") as usize] = [
        FLOWS4,
        FLOWS6,
        FLOW_HEADS4,
        FLOW_HEADS6,
        SERVICES4,
        SERVICES6,
        VIPS4,
        VIPS6,
        POOLS,
        ACTIVE,
        CLIENTS,
        AFFINITY,
        HOSTS,
        BACKENDS,
        BACKEND_COUNTERS,
        TABLES,
        REASONS,
        DURATIONS,
        SERVICE_NAMES,
        FILTER,
        EVENTS,
        LISTEN,
        LOST,
        SOURCES4,
        SOURCES6,
        SOURCE_PORTS4,
        SOURCE_PORTS6,
        SOCKETS,
        SOCKET_PINS,
        SOURCE_RANGES4,
        SOURCE_RANGES6,
        INTERFACES,
        MACS,
        STARTS,
        LIMITS,
        PAST,
        SETTINGS,
        #[cfg(feature = "next")]
        NEXT,
    ];
}

/// Names of the programs in the BPF object.
pub mod programs {
    /// XDP, for devices whose packets arrive with complete checksums (real NICs).
    pub const XDP: &str = "flowpin_xdp";
    /// XDP, for veth, tun and tap: a packet of a local sender may carry only the start of a checksum (the
    /// pseudo-header's sum), to be completed later.
    pub const XDP_VIRTUAL: &str = "flowpin_xdp_virt";
    /// XDP, translating answers of backends where they come in.
    pub const XDP_INGRESS: &str = "flowpin_xdp_ingress";
    /// The same for veth, tun and tap.
    pub const XDP_VIRTUAL_INGRESS: &str = "flowpin_xdp_virt_ingress";
    /// XDP, likewise, sending what is translated back by the same interface where the way to the backend leads there.
    pub const XDP_FAST: &str = "flowpin_xdp_fast";
    /// The same for veth, tun and tap.
    pub const XDP_VIRTUAL_FAST: &str = "flowpin_xdp_virt_fast";
    /// TC ingress.
    pub const TC: &str = "flowpin_tc";
    /// TC ingress, translating answers of backends where they come in.
    pub const TC_INGRESS: &str = "flowpin_tc_ingress";
    /// TC ingress, likewise, sending on past the IP stack.
    pub const TC_FAST: &str = "flowpin_tc_fast";
    /// TC ingress beside XDP, for what goes to backends that answer past the node.
    pub const TC_BESIDES: &str = "flowpin_tc_besides";
    /// TC egress: answers of backends, and the node's own ICMP errors.
    pub const EGRESS: &str = "flowpin_egress";
    /// What a packet's further steps are, in the order of the program arrays.
    ///
    /// A program of a hook sees to established flows, and hands everything else on by a tail call: `flow`, a packet that changes or may change a flow's
    /// state; `open`, a packet of no flow; `past`, one of no service either; `reuse`, one whose port a closed flow still has; `carry`, one that goes on, but not simply; `answer`, one that is refused; `aside`, one without ports.
    pub const STEPS: u32 = 7;
    /// Steps by XDP, a pair for each, IPv4 and IPv6: as [`XDP_TAILS`](super::maps::XDP_TAILS) has them. The second half is for veth, tun and tap.
    pub const XDP_STEPS: [&str; 28] = [
        "flowpin_xdp_flow4",
        "flowpin_xdp_flow6",
        "flowpin_xdp_open4",
        "flowpin_xdp_open6",
        "flowpin_xdp_past4",
        "flowpin_xdp_past6",
        "flowpin_xdp_reuse4",
        "flowpin_xdp_reuse6",
        "flowpin_xdp_carry4",
        "flowpin_xdp_carry6",
        "flowpin_xdp_answer4",
        "flowpin_xdp_answer6",
        "flowpin_xdp_aside4",
        "flowpin_xdp_aside6",
        "flowpin_xdp_virt_flow4",
        "flowpin_xdp_virt_flow6",
        "flowpin_xdp_virt_open4",
        "flowpin_xdp_virt_open6",
        "flowpin_xdp_virt_past4",
        "flowpin_xdp_virt_past6",
        "flowpin_xdp_virt_reuse4",
        "flowpin_xdp_virt_reuse6",
        "flowpin_xdp_virt_carry4",
        "flowpin_xdp_virt_carry6",
        "flowpin_xdp_virt_answer4",
        "flowpin_xdp_virt_answer6",
        "flowpin_xdp_virt_aside4",
        "flowpin_xdp_virt_aside6",
    ];
    /// Steps by TC, likewise: as [`TC_TAILS`](super::maps::TC_TAILS) has them.
    pub const TC_STEPS: [&str; 14] = [
        "flowpin_tc_flow4",
        "flowpin_tc_flow6",
        "flowpin_tc_open4",
        "flowpin_tc_open6",
        "flowpin_tc_past4",
        "flowpin_tc_past6",
        "flowpin_tc_reuse4",
        "flowpin_tc_reuse6",
        "flowpin_tc_carry4",
        "flowpin_tc_carry6",
        "flowpin_tc_answer4",
        "flowpin_tc_answer6",
        "flowpin_tc_aside4",
        "flowpin_tc_aside6",
    ];
    /// Removes flows the agent found to be over, IPv4. Never attached: the agent runs it with `BPF_PROG_TEST_RUN`.
    pub const SWEEP4: &str = "flowpin_sweep4";
    /// The same for IPv6.
    pub const SWEEP6: &str = "flowpin_sweep6";
    /// Forgets clients. Never attached.
    pub const FORGET: &str = "flowpin_forget";
    /// Lets go of what sockets are pinned to. Never attached.
    pub const SWEEP_SOCKETS: &str = "flowpin_sweep_sockets";
    /// What is attached to a cgroup for the node's own processes: address hooks, by the kernel's names.
    pub const SOCKET_ADDRESS: [&str; 8] = [
        "flowpin_connect4",
        "flowpin_connect6",
        "flowpin_sendmsg4",
        "flowpin_sendmsg6",
        "flowpin_recvmsg4",
        "flowpin_recvmsg6",
        "flowpin_getpeername4",
        "flowpin_getpeername6",
    ];
    /// The same: the end of a socket.
    pub const SOCKET_RELEASE: &str = "flowpin_sock_release";
    /// Reads the kernel's clocks for the agent (jiffies). Never attached.
    pub const CLOCK: &str = "flowpin_clock";
}

/// Capacities. A configuration that asks for more is refused with the figure.
pub mod limits {
    /// Services, both families together. Each has a block at least, see [`MAX_BLOCKS`].
    pub const MAX_SERVICES: u32 = 16_000;
    /// Ports over all services of one family, ranges counted port by port.
    pub const MAX_PORTS: u32 = 262_144;
    /// Different VIPs of one family.
    pub const MAX_VIPS: u32 = 16_384;
    /// Backends of one service.
    pub const MAX_BACKENDS_PER_SERVICE: u32 = 8_192;
    /// Blocks that are looked at for one new flow: balance is exact up to as many.
    pub const MAX_WALK: u32 = 64;
    /// Pools that are longer than that.
    pub const MAX_LONG_POOLS: u32 = 256;
    /// Blocks of 16 backends, all services together. Block 0 is never used: 0 ends a chain.
    pub const MAX_BLOCKS: u32 = 16_384;
    /// Backend ids: 16 a block.
    pub const MAX_BACKEND_IDS: u32 = MAX_BLOCKS * super::BLOCK_SLOTS as u32;
    /// Longest chain of blocks of one service.
    pub const MAX_CHAIN: u32 = MAX_BACKENDS_PER_SERVICE / super::BLOCK_SLOTS as u32;
    /// Default of `conntrack.max_flows`, for each CPU of the machine; see
    /// [`default_flows`](crate::flow_table::default_flows).
    pub const DEFAULT_FLOWS_OF_A_CPU: u32 = 32_768;
    /// The least that it is by default.
    pub const LEAST_DEFAULT_FLOWS: u32 = 131_072;
    /// The most that it is by default.
    pub const MOST_DEFAULT_FLOWS: u32 = 1_048_576;
    /// Default of `conntrack.max_clients`.
    pub const DEFAULT_MAX_CLIENTS: u32 = 262_144;
    /// Hosts over all services with affinity.
    pub const MAX_HOSTS: u32 = 65_536;
    /// Datagrams in fragments that are remembered, for each IP version.
    pub const MAX_FRAGMENTED: u32 = 8_192;
    /// UDP flows that are remembered after they were forgotten, for each IP version.
    pub const MAX_SPOKEN: u32 = 65_536;
    /// Backends' addresses and ports that are reached by source NAT, times addresses of ours, for each IP version.
    pub const MAX_SOURCE_KEYS: u32 = 16_384;
    /// Places for sockets of the node's processes that use services, a power of two: made for half as many.
    pub const SOCKET_PLACES: u32 = 262_144;
    /// Interfaces of which something is known.
    pub const MAX_INTERFACES: u32 = 16_384;
    /// MAC addresses: one for each interface, and what says that they are complete.
    pub const MAX_MACS: u32 = MAX_INTERFACES + 1;
    /// Prefixes of clients over all services of one family.
    pub const MAX_SOURCE_RANGES: u32 = 65_536;
    /// Bytes of the ring buffer of events: 43,690 records, four seconds of 10,000 connections that end in each.
    pub const EVENT_BYTES: u32 = 1 << 22;
    /// Bytes of the ring buffer that wakes the agent: the largest page of any machine.
    pub const WAKE_BYTES: u32 = 1 << 16;
    /// Longest service name in bytes.
    pub const MAX_NAME: usize = 253;
    /// Bytes of a name in a map.
    pub const NAME_BYTES: usize = 256;
}
