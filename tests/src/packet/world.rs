//! A node without an agent: the BPF object loaded but not pinned or attached, its maps filled by hand, one program to run, or two.

mod affinity;
mod entries;
mod flows;
mod services;
mod snat;
mod source_ranges;

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, ArrayOfMaps, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuValues, lpm_trie::Key},
    programs::ProgramFd,
};
use flowpin::datapath::filter::Filter;
use lb_common::{
    abi::{
        Active, Addr4, Addr6, AffinityEntry, AffinityKey, BLOCK_SLOTS, Backend, BackendCounters, BackendId,
        Client, FirstFragment, FlowKey, Forward, FragmentKey, HostKey, Interface, Mac, PoolBlock, Reason,
        Service, ServiceId, ServiceKey, ServiceLimit, SourceKey, SourcePorts, SourceRanges, Sources, Spoken,
        Vip, maps, table,
    },
    flow_table, ranked,
};

pub use affinity::Affinity;
pub use entries::Flows;

use super::run::{Hook, Runner, Verdict};
use crate::harness::paths;

type Tables = ArrayOfMaps<MapData, Array<MapData, table::Chunk>>;

/// `BPF_F_INNER_MAP`: arrays of different lengths in one outer map.
const INNER_MAP: u32 = 0x1000;

/// A backend to be added.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Where.
    pub addr: IpAddr,
    /// `None`: the service's port.
    pub port: Option<u16>,
    /// 0: takes no new flows.
    pub weight: u32,
    /// `u32::MAX`: no limit.
    pub limit: u32,
    /// It is one of this node's.
    pub local: bool,
    /// It is the node itself.
    pub on_node: bool,
}

impl Member {
    /// Weight 1, no limit.
    pub const fn new(addr: IpAddr, port: u16) -> Self {
        Self { addr, port: Some(port), weight: 1, limit: u32::MAX, local: false, on_node: false }
    }
}

/// A service that was added.
#[derive(Clone, Debug)]
pub struct Added {
    /// Its id.
    pub id: ServiceId,
    /// Its backends, in the order given.
    pub backends: Vec<BackendId>,
}

/// Loaded programs and their maps.
pub struct World {
    /// Where packets come in.
    pub hook: Hook,
    runner: Runner,
    /// The program that packets leave by, once one has.
    leaving: Option<Runner>,
    out: Vec<u8>,
    ebpf: Ebpf,
    /// Flow table, IPv4.
    pub flows4: Flows<Addr4>,
    /// Flow table, IPv6.
    pub flows6: Flows<Addr6>,
    services4: HashMap<MapData, ServiceKey<Addr4>, Service>,
    services6: HashMap<MapData, ServiceKey<Addr6>, Service>,
    vips4: HashMap<MapData, Addr4, Vip>,
    vips6: HashMap<MapData, Addr6, Vip>,
    admitted4: LpmTrie<MapData, Client<Addr4>, u32>,
    admitted6: LpmTrie<MapData, Client<Addr6>, u32>,
    sources4: Array<MapData, Sources<Addr4>>,
    sources6: Array<MapData, Sources<Addr6>>,
    ports4: HashMap<MapData, SourceKey<Addr4>, SourcePorts>,
    ports6: HashMap<MapData, SourceKey<Addr6>, SourcePorts>,
    interfaces: HashMap<MapData, u32, Interface>,
    macs: HashMap<MapData, Mac, u32>,
    fragments4: HashMap<MapData, FragmentKey<Addr4>, FirstFragment>,
    fragments6: HashMap<MapData, FragmentKey<Addr6>, FirstFragment>,
    spoken4: HashMap<MapData, FlowKey<Addr4>, Spoken<Addr4>>,
    spoken6: HashMap<MapData, FlowKey<Addr6>, Spoken<Addr6>>,
    filter: Filter,
    pools: Array<MapData, PoolBlock>,
    limits: HashMap<MapData, u32, ServiceLimit>,
    active: Array<MapData, Active>,
    clients: Array<MapData, Active>,
    affinity: HashMap<MapData, AffinityKey, AffinityEntry>,
    hosts: HashMap<MapData, HostKey, BackendId>,
    backends: Array<MapData, Backend>,
    counters: PerCpuArray<MapData, BackendCounters>,
    reasons: PerCpuArray<MapData, u64>,
    tables: Tables,
    next_block: u32,
    next_service: u32,
    /// What addresses of services that are added from now on are.
    pub vip: Vip,
    /// Whether services that are added from now on send what comes from elsewhere to backends of this node only.
    pub local: bool,
    /// How packets of services that are added from now on reach their backends.
    pub forward: Forward,
    /// The same of packets that come from a pod.
    pub forward_of_pods: Forward,
    /// Whether flows of services that are added from now on may give their places back.
    pub scarce: bool,
    /// The limit, as a whole, of services that are added from now on.
    pub limit: Option<u32>,
    /// Whether services that are added from now on ask who their clients are.
    pub source_ranges: SourceRanges,
}

/// The flow tables' capacity unless a test wants another, in entries (two a flow).
const FLOW_ENTRIES: u32 = 4096;
/// The tick rate that programs go by, unless a test wants another.
pub const HZ: u32 = 250;
/// The seed of its flow tables.
pub const SEED: u64 = 0x5eed_5eed_1234_5678;
/// Clients that the affinity table has room for.
pub const CLIENTS: u32 = 8;
/// Ids that the tables here have room for: more than any test uses, and quickly made.
const BLOCKS: u32 = 64;

/// Removes every key.
fn empty<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) -> Result<()> {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    keys.iter().try_for_each(|key| Ok(map.remove(key)?))
}

impl World {
    /// An empty node.
    ///
    /// # Errors
    /// No object, no root, or the kernel refuses.
    pub fn new(hook: Hook) -> Result<Self> {
        Self::with_flows(hook, FLOW_ENTRIES)
    }

    /// An empty node with flow tables made for this many entries (two a flow) each. For 2, a table is one bucket.
    ///
    /// # Errors
    /// As for [`World::new`].
    pub fn with_flows(hook: Hook, entries: u32) -> Result<Self> {
        Self::with_sizes(hook, entries, BLOCKS * BLOCK_SLOTS as u32, HZ)
    }

    /// The same, with room for this many backends in `BACKENDS`, on a kernel that ticks `hz` times a second.
    ///
    /// # Errors
    /// As for [`World::new`].
    pub fn with_sizes(hook: Hook, entries: u32, backends: u32, hz: u32) -> Result<Self> {
        Self::load(hook, entries, backends, hz, false)
    }

    /// A node of several that share their counts, with flow tables as for [`World::with_flows`]: what it knows of others
    /// is good for as long as the machine runs, and by turns one of them has 0 to 15 connections with a backend.
    ///
    /// # Errors
    /// As for [`World::new`].
    pub fn sharing(hook: Hook, entries: u32) -> Result<Self> {
        let mut world = Self::load(hook, entries, BLOCKS * BLOCK_SLOTS as u32, HZ, true)?;
        let mut words: Array<_, Active> = world.ebpf.take_map(maps::OTHERS).context("words")?.try_into()?;
        for block in 0..BLOCKS {
            let word = |slot| ranked::word(slot as u64, (block * 7 + slot as u32 * 61) & ranked::ORDER);
            words.set(block, Active { count: std::array::from_fn(word) }, 0)?;
        }
        let mut valid: Array<_, u64> =
            world.ebpf.take_map(maps::OTHERS_VALID).context("until")?.try_into()?;
        valid.set(0, u64::MAX, 0)?;
        Ok(world)
    }

    fn load(hook: Hook, entries: u32, backends: u32, hz: u32, shares: bool) -> Result<Self> {
        paths::need_root();
        let path: PathBuf = paths::object();
        let buckets = flow_table::buckets(entries / 2);
        let mut ebpf = EbpfLoader::new()
            .override_global("FLOW_BUCKETS", &buckets, true)
            .override_global("FLOW_SEED", &SEED, true)
            .override_global("TICK_HZ", &hz, true)
            .override_global("CLUSTER", &u32::from(shares), true)
            .map_max_entries(maps::FLOWS4, buckets)
            .map_max_entries(maps::FLOWS6, buckets)
            .map_max_entries(maps::FLOW_HEADS4, buckets)
            .map_max_entries(maps::FLOW_HEADS6, buckets)
            .map_max_entries(maps::POOLS, BLOCKS)
            .map_max_entries(maps::ACTIVE, BLOCKS)
            .map_max_entries(maps::OTHERS, BLOCKS)
            .map_max_entries(maps::CLIENTS, BLOCKS)
            .map_max_entries(maps::AFFINITY, CLIENTS)
            .map_max_entries(maps::BACKENDS, backends)
            .map_max_entries(maps::BACKEND_COUNTERS, BLOCKS * BLOCK_SLOTS as u32)
            .load_file(&path)
            .with_context(|| format!("loading {}", path.display()))?;
        let runner = Runner::load(&mut ebpf, hook)?;
        let mut take =
            |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        Ok(Self {
            hook,
            runner,
            leaving: None,
            out: Vec::new(),
            flows4: Flows::over(take(maps::FLOW_HEADS4)?, take(maps::FLOWS4)?, SEED)?,
            flows6: Flows::over(take(maps::FLOW_HEADS6)?, take(maps::FLOWS6)?, SEED)?,
            services4: take(maps::SERVICES4)?.try_into()?,
            services6: take(maps::SERVICES6)?.try_into()?,
            vips4: take(maps::VIPS4)?.try_into()?,
            vips6: take(maps::VIPS6)?.try_into()?,
            admitted4: take(maps::SOURCE_RANGES4)?.try_into()?,
            admitted6: take(maps::SOURCE_RANGES6)?.try_into()?,
            sources4: take(maps::SOURCES4)?.try_into()?,
            sources6: take(maps::SOURCES6)?.try_into()?,
            ports4: take(maps::SOURCE_PORTS4)?.try_into()?,
            ports6: take(maps::SOURCE_PORTS6)?.try_into()?,
            interfaces: take(maps::INTERFACES)?.try_into()?,
            macs: take(maps::MACS)?.try_into()?,
            fragments4: take(maps::FRAGMENTS4)?.try_into()?,
            fragments6: take(maps::FRAGMENTS6)?.try_into()?,
            spoken4: take(maps::SPOKEN4)?.try_into()?,
            spoken6: take(maps::SPOKEN6)?.try_into()?,
            filter: Filter::over(take(maps::FILTER)?.try_into()?),
            pools: take(maps::POOLS)?.try_into()?,
            limits: take(maps::LIMITS)?.try_into()?,
            active: take(maps::ACTIVE)?.try_into()?,
            clients: take(maps::CLIENTS)?.try_into()?,
            affinity: take(maps::AFFINITY)?.try_into()?,
            hosts: take(maps::HOSTS)?.try_into()?,
            backends: take(maps::BACKENDS)?.try_into()?,
            counters: take(maps::BACKEND_COUNTERS)?.try_into()?,
            reasons: take(maps::REASONS)?.try_into()?,
            tables: take(maps::TABLES)?.try_into()?,
            ebpf,
            next_block: 1,
            next_service: 0,
            vip: Vip::SHARED,
            scarce: false,
            limit: None,
            local: false,
            forward: Forward::NAT,
            forward_of_pods: Forward::NAT,
            source_ranges: SourceRanges::OPEN,
        })
    }

    /// Takes everything out again, so that a loaded object serves many tests: loading is what takes time.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reset(&mut self) -> Result<()> {
        self.flows4.clear()?;
        self.flows6.clear()?;
        empty(&mut self.services4)?;
        empty(&mut self.services6)?;
        empty(&mut self.vips4)?;
        empty(&mut self.vips6)?;
        self.admit_nobody()?;
        self.sources4.set(0, Sources::default(), 0)?;
        self.sources6.set(0, Sources::default(), 0)?;
        empty(&mut self.ports4)?;
        empty(&mut self.ports6)?;
        empty(&mut self.fragments4)?;
        empty(&mut self.fragments6)?;
        empty(&mut self.spoken4)?;
        empty(&mut self.spoken6)?;
        empty(&mut self.affinity)?;
        empty(&mut self.hosts)?;
        let cpus = aya::util::nr_cpus().map_err(|(path, e)| anyhow::anyhow!("{path}: {e}"))?;
        for block in 0..self.next_block {
            self.pools.set(block, PoolBlock::FREE, 0)?;
            self.active.set(block, Active::default(), 0)?;
            self.clients.set(block, Active::default(), 0)?;
            for slot in 0..BLOCK_SLOTS as u32 {
                let id = BackendId::new(block, slot);
                self.backends.set(id.0, Backend::default(), 0)?;
                self.counters.set(
                    id.0,
                    PerCpuValues::try_from(vec![BackendCounters::default(); cpus])?,
                    0,
                )?;
            }
        }
        for reason in 0..Reason::COUNT as u32 {
            self.reasons.set(reason, PerCpuValues::try_from(vec![0; cpus])?, 0)?;
        }
        (self.next_block, self.next_service) = (1, 0);
        (self.forward, self.source_ranges) = (Forward::NAT, SourceRanges::OPEN);
        (self.vip, self.local, self.forward_of_pods) = (Vip::SHARED, false, Forward::NAT);
        empty(&mut self.interfaces)?;
        empty(&mut self.macs)?;
        empty(&mut self.limits)?;
        (self.scarce, self.limit) = (false, None);
        Ok(())
    }

    /// Says that these are the MAC addresses of the node.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn addressed_by(&mut self, macs: &[[u8; 6]]) -> Result<()> {
        let all = macs.iter().copied().map(Mac::new).chain([Mac::COMPLETE]);
        Ok(all.into_iter().try_for_each(|mac| self.macs.insert(mac, 1, 0))?)
    }

    /// Says that a pod of this node is behind an interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pod_behind(&mut self, interface: u32) -> Result<()> {
        Ok(self.interfaces.insert(interface, Interface::new(false, true), 0)?)
    }

    /// The program that packets come in by.
    pub const fn program(&self) -> &ProgramFd {
        self.runner.program()
    }

    /// Runs a frame through; the frame that comes out is valid until the next run.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&mut self, frame: &[u8]) -> Result<(Verdict, &[u8])> {
        self.run_flags(frame, 0)
    }

    /// The same with flags of the command.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run_flags(&mut self, frame: &[u8], flags: u32) -> Result<(Verdict, &[u8])> {
        let verdict = self.runner.run(frame, &mut self.out, flags)?;
        Ok((verdict, &self.out))
    }

    /// Runs a frame through the program that packets leave by, over the same maps.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn leave(&mut self, frame: &[u8]) -> Result<(Verdict, &[u8])> {
        self.leaving()?;
        let runner = self.leaving.as_ref().context("it was just loaded")?;
        let verdict = runner.run(frame, &mut self.out, 0)?;
        Ok((verdict, &self.out))
    }

    /// The program that packets leave by, over the same maps; loaded when it is first asked for.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn leaving(&mut self) -> Result<&ProgramFd> {
        if self.leaving.is_none() {
            self.leaving = Some(Runner::load(&mut self.ebpf, Hook::Out)?);
        }
        Ok(self.leaving.as_ref().context("it was just loaded")?.program())
    }

    /// Runs a frame through, on behalf of one of several threads.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run_shared(&self, frame: &[u8], out: &mut Vec<u8>) -> Result<Verdict> {
        self.runner.run(frame, out, 0)
    }

    /// Active connections of a backend.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn active(&self, id: BackendId) -> Result<u32> {
        Ok(self.active.get(&id.block(), 0)?.count[id.slot()])
    }

    /// Gives every backend of this one's block so many active connections.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_active(&mut self, id: BackendId, count: u32) -> Result<()> {
        Ok(self.active.set(id.block(), Active { count: [count; BLOCK_SLOTS] }, 0)?)
    }

    /// Counters of a backend, summed over CPUs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counters(&self, id: BackendId) -> Result<BackendCounters> {
        let mut sum = BackendCounters::default();
        for c in self.counters.get(&id.0, 0)?.iter() {
            sum = sum.plus(*c);
        }
        Ok(sum)
    }

    /// How often each reason was counted, by index.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reasons(&self) -> Result<[u64; Reason::COUNT]> {
        let mut sums = [0; Reason::COUNT];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = self.reasons.get(&(i as u32), 0)?.iter().sum();
        }
        Ok(sums)
    }

    /// Datagrams whose first fragment is remembered.
    pub fn datagrams(&self) -> usize {
        self.fragments4.keys().count() + self.fragments6.keys().count()
    }

    /// Entries in both flow tables: two a flow.
    pub fn entries(&self) -> usize {
        self.flows4.entries().len() + self.flows6.entries().len()
    }
}
