//! The BPF object: loaded over the maps that are pinned, or over new ones.

use std::{
    fs::File,
    path::PathBuf,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{CgroupAttachMode, Program, SchedClassifier, TestRun, TestRunOptions, Xdp, links::FdLink},
};
use lb_common::{
    abi::{MARK, Settings, limits, maps, programs},
    flow_table,
};

use super::{
    Clock, DatapathError, clock,
    generation::{self, Found, Upgrade},
    links,
    pin::PinDir,
    refusal::{self, Refusals},
    steps::{self, Arrays, Kind},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flowpin-bpf.o"));

/// What to load.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Capacity of each flow table. Counts when maps are made.
    pub max_flows: u32,
    /// Capacity of the affinity table, likewise.
    pub max_clients: u32,
    /// Key of consistent hashing.
    pub hash_seed: u64,
    /// Are counts shared with other nodes?
    pub shares: bool,
    /// Cookie of the node's network namespace. 0: not known; no sockets are led.
    pub netns: u64,
    /// Whose sockets are led: one of [`lb_common::abi::socket::led`].
    pub sockets_led: u32,
    /// Compile the records of new flows in.
    pub log: bool,
}

/// The maps, and the programs that were wanted so far.
pub struct Object {
    ebpf: Ebpf,
    /// Kernel time.
    pub clock: Clock,
    /// Were the maps there already?
    pub adopted: bool,
    /// Capacity that the maps were made with.
    pub max_flows: u32,
    /// Seed of the flow tables' hash.
    pub seed: u64,
    /// Key of consistent hashing.
    pub hash_seed: u64,
    arrays: Arrays,
    refusals: Refusals,
    /// Maps of another build, until this one's are in force.
    upgrade: Option<Upgrade>,
    /// Since when the datapath is held.
    held: Option<Instant>,
}

/// The agent's own programs. Without one of them the others do their work.
const OWN: [&str; 4] = [programs::SWEEP4, programs::SWEEP6, programs::SWEEP_SOCKETS, programs::FORGET];

impl Object {
    /// Loads the agent's own programs, and makes the maps. Maps that a previous agent left are adopted, those of another build as far as their
    /// layouts are the same; of the others new ones are made, which are in force once they are [taken over](Self::take_over). What a first start left
    /// unfinished is made anew.
    ///
    /// # Errors
    /// No object, no permission, maps that can't be taken over, or the kernel refuses.
    pub fn load(pins: &PinDir, wanted: &Wanted) -> Result<Self, DatapathError> {
        if OBJECT.is_empty() {
            pins.remove_empty();
            return Err(DatapathError::NoObject);
        }
        pins.remove_next()?;
        let (settings, upgrade) = match generation::look(pins)? {
            Found::Nothing => {
                pins.remove_maps()?;
                (None, None)
            }
            Found::Own(settings) => (Some(settings), None),
            Found::Other(settings, upgrade) => {
                upgrade.begin(pins)?;
                (Some(settings), Some(upgrade))
            }
        };
        Self::load_over(pins, settings, upgrade, wanted).inspect_err(|_| {
            if settings.is_none() {
                // As if nobody had been here.
                if let Err(e) = pins.remove_maps() {
                    tracing::warn!("clearing up: {e}");
                }
                pins.remove_empty();
            }
        })
    }

    fn load_over(
        pins: &PinDir,
        settings: Option<Settings>,
        upgrade: Option<Upgrade>,
        wanted: &Wanted,
    ) -> Result<Self, DatapathError> {
        let clock = Self::read_clock()?;
        let max_flows = settings.map_or(wanted.max_flows, |s| s.max_flows);
        let max_clients = settings.map_or(wanted.max_clients, |s| s.max_clients);
        let seed = settings.map_or_else(rand::random, |s| s.seed());
        let buckets = flow_table::buckets(max_flows);
        let level: u8 = if wanted.log { aya_log::Level::Debug as u8 } else { 0 };
        let shares = u32::from(wanted.shares);
        let mut loader = EbpfLoader::new();
        loader
            .verifier_log_level(refusal::LOG)
            .override_global("FLOW_BUCKETS", &buckets, true)
            .override_global("FLOW_SEED", &seed, true)
            .override_global("HASH_SEED", &wanted.hash_seed, true)
            .override_global("CLUSTER", &shares, true)
            .override_global(aya_log::LEVEL, &level, true)
            .override_global("NODE_NETNS", &wanted.netns, true)
            .override_global("SOCKETS_LED", &wanted.sockets_led, true)
            .override_global("TICK_HZ", &clock.hz, true);
        for name in [maps::FLOWS4, maps::FLOWS6, maps::FLOW_HEADS4, maps::FLOW_HEADS6] {
            loader.map_max_entries(name, buckets);
        }
        loader.map_max_entries(maps::AFFINITY, max_clients);
        if !wanted.shares {
            loader.map_max_entries(maps::OTHERS, 1).map_max_entries(maps::DIRTY, 1);
        }
        for name in maps::ALL {
            loader.map_pin_path(name, pins.map(name));
        }
        let ebpf = loader.load(OBJECT).map_err(refused("loading the BPF object"))?;
        match &upgrade {
            Some(upgrade) => upgrade.prepare(pins)?,
            None if settings.is_none() => generation::describe(pins)?,
            None => {}
        }
        let refusals = Refusals::default();
        let adopted = settings.is_some();
        let arrays = Arrays::pin(&ebpf, pins)?;
        let hash_seed = wanted.hash_seed;
        let mut object =
            Self { ebpf, clock, adopted, max_flows, seed, hash_seed, arrays, refusals, upgrade, held: None };
        object.load_own()?;
        if settings.is_none() {
            let mut map: Array<_, Settings> = pins.open_as(maps::SETTINGS, aya::maps::Map::Array)?;
            // Last: maps without the mark are those of a first start that didn't get here.
            let (low, seed_high) = (seed as u32, (seed >> 32) as u32);
            map.set(0, Settings { layout: MARK, max_flows, seed: low, max_clients, seed_high }, 0)
                .map_err(DatapathError::kernel("SETTINGS"))?;
        }
        Ok(object)
    }

    /// Are this build's maps not in force yet?
    pub const fn is_upgrade(&self) -> bool {
        self.upgrade.is_some()
    }

    /// Puts this build's maps in force. All programs that are to be attached are loaded by now; until they are, and that is [said](Self::taken_over),
    /// no flow may be opened or closed.
    ///
    /// # Errors
    /// The kernel refuses; the maps and programs of before are as they were.
    pub fn take_over(&mut self, pins: &PinDir) -> Result<(), DatapathError> {
        if let Some(upgrade) = &self.upgrade {
            let began = Instant::now();
            self.held = upgrade.commit(pins)?.then_some(began);
        }
        Ok(())
    }

    /// The programs are attached: lets them go on, if they are held, and removes the maps of before.
    ///
    /// # Errors
    /// The kernel or the file system refuses.
    pub fn taken_over(&mut self, pins: &PinDir) -> Result<(), DatapathError> {
        let Some(upgrade) = self.upgrade.take() else { return Ok(()) };
        let held = self.held.take();
        if held.is_some() {
            let loaded = Kind::ALL.map(|kind| (kind, kind.is_loaded(&self.ebpf)));
            for (kind, _) in loaded.into_iter().filter(|(_, loaded)| *loaded) {
                steps::load(&mut self.ebpf, kind, &mut self.refusals)?;
            }
        }
        tracing::info!(
            made_by = upgrade.made_by,
            maps = upgrade.changed().join(" "),
            held = ?held.map_or(Duration::ZERO, |since| since.elapsed()),
            "the maps of another build are taken over"
        );
        pins.remove_next()
    }

    /// Loads the agent's own programs, as far as they aren't and the kernel takes them.
    fn load_own(&mut self) -> Result<(), DatapathError> {
        OWN.into_iter().try_for_each(|name| refusal::unless_refused(self.xdp(name).map(drop)))
    }

    /// One of the object's maps.
    pub(super) fn map(&self, name: &str) -> Option<&aya::maps::Map> {
        self.ebpf.map(name)
    }

    /// This agent's arrays of programs, and their pins.
    pub(super) fn arrays(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        self.arrays.pins()
    }

    /// The programs that this kernel refused.
    pub const fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Tries refused programs once more: the agent's own now, others when they are wanted.
    ///
    /// # Errors
    /// This process may not load programs.
    pub fn retry_refused(&mut self) -> Result<(), DatapathError> {
        self.refusals.clear();
        self.load_own()
    }

    /// Loads nothing but the clock, to know the tick rate before the other programs need it.
    fn read_clock() -> Result<Clock, DatapathError> {
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(refusal::LOG);
        shrink(&mut loader);
        let mut ebpf = loader.load(OBJECT).map_err(refused("loading the BPF object"))?;
        let program = Self::xdp_in(&mut ebpf, programs::CLOCK)?;
        program.load().map_err(refused(programs::CLOCK))?;
        clock::read(program)
    }

    fn xdp_in<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, DatapathError> {
        ebpf.program_mut(name)
            .ok_or(DatapathError::NoObject)?
            .try_into()
            .map_err(DatapathError::kernel(name.to_string()))
    }

    /// Loads what a program goes on with, if it isn't loaded yet.
    fn load_steps(&mut self, name: &str) -> Result<(), DatapathError> {
        let Some(kind) = Kind::of(name) else { return Ok(()) };
        self.arrays.keep();
        let loaded = self.ebpf.program(name).is_some_and(|program| program.fd().is_ok());
        if loaded { Ok(()) } else { steps::load(&mut self.ebpf, kind, &mut self.refusals) }
    }

    /// All programs that are attached are this agent's by now: what those of earlier ones went on with may go.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn forget_earlier(&self) -> Result<(), DatapathError> {
        self.arrays.forget_earlier()
    }

    /// An XDP program. Loaded when it is first wanted: the verifier takes the better part of a second for each.
    ///
    /// # Errors
    /// The object doesn't have it, or the kernel refuses it.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp, DatapathError> {
        self.load_steps(name)?;
        let program = loaded(&mut self.ebpf, name, &mut self.refusals)?;
        program.try_into().map_err(DatapathError::kernel(name.to_string()))
    }

    /// A TC program, likewise.
    ///
    /// # Errors
    /// As for [`Object::xdp`].
    pub fn tc(&mut self, name: &str) -> Result<&mut SchedClassifier, DatapathError> {
        self.load_steps(name)?;
        let program = loaded(&mut self.ebpf, name, &mut self.refusals)?;
        program.try_into().map_err(DatapathError::kernel(name.to_string()))
    }

    /// Loads a program for processes' sockets, likewise.
    ///
    /// # Errors
    /// As for [`Object::xdp`].
    pub fn load_for_cgroup(&mut self, name: &str) -> Result<(), DatapathError> {
        loaded(&mut self.ebpf, name, &mut self.refusals).map(drop)
    }

    /// Attaches a program for processes' sockets to a cgroup.
    ///
    /// # Errors
    /// The object doesn't have it, or the kernel refuses it.
    pub fn attach_to_cgroup(&mut self, name: &str, cgroup: &File) -> Result<FdLink, DatapathError> {
        self.load_for_cgroup(name)?;
        // A link shares its hook with others by itself, and doesn't take the flag that says so (`cgroup_bpf_link_attach`).
        let multiple = CgroupAttachMode::Single;
        let failed = || refused(name);
        match self.ebpf.program_mut(name).ok_or(DatapathError::NoObject)? {
            Program::CgroupSockAddr(program) => {
                let id = program.attach(cgroup, multiple).map_err(failed())?;
                program.take_link(id).map_err(failed())?.try_into().map_err(refused(name))
            }
            Program::CgroupSock(program) => {
                let id = program.attach(cgroup, multiple).map_err(failed())?;
                program.take_link(id).map_err(failed())?.try_into().map_err(refused(name))
            }
            _ => Err(DatapathError::NoObject),
        }
    }

    /// Runs a program on a packet of the agent's making; returns its verdict.
    ///
    /// # Errors
    /// The kernel refuses it, or refused the program.
    pub fn run(&self, name: &str, packet: &[u8]) -> Result<u32, DatapathError> {
        self.refusals.check(name)?;
        let Some(Program::Xdp(program)) = self.ebpf.program(name) else {
            return Err(DatapathError::NoObject);
        };
        let options = TestRunOptions { data_in: Some(packet), ..TestRunOptions::new() };
        Ok(program.test_run(options).map_err(DatapathError::kernel(name.to_string()))?.return_value)
    }
}

/// A program, loaded now if it isn't yet.
///
/// # Errors
/// The object doesn't have it, or the kernel refuses it.
pub(super) fn loaded<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
    refusals: &mut Refusals,
) -> Result<&'a mut Program, DatapathError> {
    let program = ebpf.program_mut(name).ok_or(DatapathError::NoObject)?;
    if program.fd().is_err() {
        refusals.attempt(name, || refusal::load(program))?;
    }
    Ok(program)
}

/// The object's bytes.
///
/// # Errors
/// The binary was built without.
pub(super) const fn bytes() -> Result<&'static [u8], DatapathError> {
    if OBJECT.is_empty() { Err(DatapathError::NoObject) } else { Ok(OBJECT) }
}

/// For programs that are loaded to be looked at: makes maps as small as possible. A ring buffer's length is in pages.
pub(super) fn shrink(loader: &mut EbpfLoader<'_>) {
    for name in maps::ALL {
        loader.map_max_entries(name, if name == maps::EVENTS { limits::EVENT_BYTES } else { 1 });
    }
    loader.map_max_entries(maps::OTHERS, 1).map_max_entries(maps::DIRTY, 1);
}

/// The records of new flows, for the log.
///
/// # Errors
/// The programs have no log.
pub fn flow_log(object: &mut Object) -> Result<aya_log::EbpfLogger<FlowLog>, DatapathError> {
    aya_log::EbpfLogger::init_with_logger(&mut object.ebpf, FlowLog)
        .map_err(DatapathError::kernel("flow log"))
}

/// A permission problem gets its own words.
pub(super) fn refused<E: std::error::Error + 'static>(what: &str) -> impl FnOnce(E) -> DatapathError {
    let what = what.to_string();
    move |error| {
        if links::errno(&error) == Some(libc::EPERM) {
            return DatapathError::NoPermission;
        }
        DatapathError::kernel(what)(error)
    }
}

/// Hands the programs' records to the agent's log.
pub struct FlowLog;

impl log::Log for FlowLog {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: "flowpin::flows", "{}", record.args());
    }
    fn flush(&self) {}
}
