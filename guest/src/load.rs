//! Loads every program of an object, one by one, and asks the verifier for its figures.
//!
//! Maps, constants and BTF are made as the agent makes them. The programs are given to the kernel here rather than by aya, which
//! keeps the log of a refusal only.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use aya::{Ebpf, EbpfLoader, maps::Map};
use aya_obj::{
    Function, Object, Program, ProgramSection,
    generated::{
        BPF_F_XDP_HAS_FRAGS, bpf_attach_type, bpf_attr, bpf_cmd, bpf_func_info, bpf_prog_info, bpf_prog_type,
    },
};
use lb_common::{abi::maps, flow_table};

use crate::{
    stack::CallGraph,
    verdict::{Frame, Refusal, Stats, Verdict},
};

/// Flows that the tables are made for.
const FLOWS: u32 = 16_384;
/// Clients that the affinity table is made for.
const CLIENTS: u32 = 1_024;
/// `BPF_LOG_STATS`: figures and errors, no trace.
const LOG_STATS: u32 = 4;
/// Bytes for the verifier's log.
const LOG_BYTES: usize = 1 << 20;

/// Functions that a program may have (`BPF_MAX_SUBPROGS`).
const MOST_FUNCTIONS: usize = 256;

/// The object, its maps made, its programs linked but not yet loaded.
pub struct Loader {
    /// Holds the maps open.
    _maps: Ebpf,
    btf: Option<OwnedFd>,
    object: Object,
    names: HashMap<u32, String>,
}

impl Loader {
    /// Makes the maps and links the programs.
    ///
    /// # Errors
    /// No object of ours, no permission, or the kernel refuses a map.
    pub fn new(bytes: &[u8]) -> anyhow::Result<Self> {
        let made = make_maps(bytes)?;
        let mut object = Object::parse(bytes)?;
        let btf = match aya::features().btf() {
            Some(features) => match object.fixup_and_sanitize_btf(features)? {
                Some(btf) => Some(load_btf(&btf.to_bytes()).context("BTF")?),
                None => None,
            },
            None => None,
        };
        let fds: Vec<(String, i32)> =
            made.maps().map(|(name, map)| Ok((name.to_string(), fd(map)?))).collect::<anyhow::Result<_>>()?;
        let own = std::mem::take(&mut object.maps);
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(
            fds.iter().filter_map(|(name, fd)| Some((name.as_str(), *fd, own.get(name)?))),
            &sections,
        )?;
        // A function's entry in the BTF is the only thing that tells it apart once programs are linked.
        let names = object
            .functions
            .values()
            .filter_map(|f| Some((f.func_info.func_info.first()?.type_id, plain(&f.name))))
            .collect();
        object.relocate_calls(&sections)?;
        Ok(Self { _maps: made, btf, object, names })
    }

    /// Tries each program whose name begins with `prefix`, in the order of their names, for `limit` at most.
    pub fn try_all(&self, prefix: &str, limit: Duration) -> impl Iterator<Item = anyhow::Result<Verdict>> {
        let programs: BTreeMap<&String, &Program> =
            self.object.programs.iter().filter(|(name, _)| name.starts_with(prefix)).collect();
        programs.into_iter().map(move |(name, program)| self.try_one(name, program, limit))
    }

    fn try_one(&self, name: &str, program: &Program, limit: Duration) -> anyhow::Result<Verdict> {
        let function = self.object.functions.get(&program.function_key()).context("program without code")?;
        let kind = Kind::of(&program.section)?;
        let start = Instant::now();
        let (log, loaded) = self.load(name, program, function, &kind, limit);
        let took = start.elapsed();
        let kept = loaded.as_ref().ok().map(kept_functions).transpose()?;
        let refused = loaded.err().map(|e| {
            let stopped = e.raw_os_error() == Some(libc::EAGAIN) || e.raw_os_error() == Some(libc::EINTR);
            let error = if stopped && took >= limit {
                format!("still in the verifier after {} s", limit.as_secs())
            } else {
                e.to_string()
            };
            Refusal::new(error, &log)
        });
        let stats = Stats::of(&log);
        let graph = CallGraph::of(&function.instructions);
        let types: HashMap<usize, u32> =
            function.func_info.func_info.iter().map(|info| (info.insn_off as usize, info.type_id)).collect();
        let type_of = |index: usize| types.get(&graph.starts[index]).copied();
        let frames = match &kept {
            // What is never called is taken out, and what is never reached needs no stack.
            Some(kept) if kept.len() == stats.frames.len() => {
                let told: HashMap<u32, (u32, u32)> = kept.iter().copied().zip(stats.frames).collect();
                (0..graph.starts.len())
                    .map(|index| type_of(index).and_then(|id| told.get(&id)).copied().unwrap_or_default())
                    .collect()
            }
            _ => stats.frames,
        };
        let frame = |index: usize| Frame {
            name: type_of(index)
                .and_then(|id| self.names.get(&id).cloned())
                .unwrap_or_else(|| format!("#{index}")),
            bytes: frames[index].0,
            instructions: frames[index].1,
        };
        let mut verdict = Verdict {
            program: name.into(),
            section: kind.name,
            millis: took.as_millis().try_into().unwrap_or(u64::MAX),
            instructions: stats.instructions,
            stack: 0,
            chain: Vec::new(),
            frames: Vec::new(),
            refused,
        };
        // A program that was refused at once has none; a kernel may add some of its own behind ours.
        if frames.len() >= graph.starts.len() {
            let bytes: Vec<u32> = frames.iter().map(|(bytes, _)| *bytes).collect();
            let deepest = graph.deepest(&bytes);
            verdict.stack = deepest.bytes;
            verdict.chain = deepest.frames.into_iter().map(frame).collect();
            verdict.frames = (0..graph.starts.len()).map(frame).collect();
        }
        Ok(verdict)
    }

    /// The log, and the program or why there is none.
    fn load(
        &self,
        name: &str,
        program: &Program,
        function: &Function,
        kind: &Kind,
        limit: Duration,
    ) -> (String, io::Result<OwnedFd>) {
        let mut log = vec![0_u8; LOG_BYTES];
        let functions = function.func_info.func_info_bytes();
        let lines = function.line_info.line_info_bytes();
        // SAFETY: plain data, for which zeroes are good: they mean "not given".
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: this is the member of the union that BPF_PROG_LOAD reads, and all of it was zeroed.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        for (to, from) in load.prog_name.iter_mut().zip(name.bytes().take(15)) {
            *to = from as libc::c_char;
        }
        load.prog_type = kind.program as u32;
        load.expected_attach_type = kind.attach.map_or(0, |attach| attach as u32);
        load.prog_flags = kind.flags;
        load.insns = function.instructions.as_ptr() as u64;
        load.insn_cnt = function.instructions.len() as u32;
        load.license = program.license.as_ptr() as u64;
        load.log_level = LOG_STATS;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = log.len() as u32;
        if let Some(btf) = &self.btf {
            load.prog_btf_fd = btf.as_raw_fd() as u32;
            load.func_info = functions.as_ptr() as u64;
            load.func_info_cnt = function.func_info.len() as u32;
            load.func_info_rec_size = function.func_info_rec_size as u32;
            load.line_info = lines.as_ptr() as u64;
            load.line_info_cnt = function.line_info.len() as u32;
            load.line_info_rec_size = function.line_info_rec_size as u32;
        }
        let loaded = {
            let _alarm = Alarm::after(limit);
            bpf(bpf_cmd::BPF_PROG_LOAD, &attr)
        };
        let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
        (String::from_utf8_lossy(&log[..end]).into_owned(), loaded)
    }
}

/// BTF types of the functions that the verifier left in a loaded program, in its order.
fn kept_functions(program: &OwnedFd) -> io::Result<Vec<u32>> {
    // SAFETY: plain data, for which zeroes are good.
    let empty: bpf_func_info = unsafe { std::mem::zeroed() };
    let mut functions = vec![empty; MOST_FUNCTIONS];
    // SAFETY: likewise; zeroes mean "not wanted".
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    info.nr_func_info = MOST_FUNCTIONS as u32;
    info.func_info_rec_size = size_of::<bpf_func_info>() as u32;
    info.func_info = functions.as_mut_ptr() as u64;
    // SAFETY: likewise.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = &raw mut info as u64;
    bpf_call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &attr)?;
    functions.truncate(info.nr_func_info as usize);
    Ok(functions.into_iter().map(|f| f.type_id).collect())
}

/// How the kernel is to take a program.
struct Kind {
    name: String,
    program: bpf_prog_type,
    attach: Option<bpf_attach_type>,
    flags: u32,
}

impl Kind {
    fn of(section: &ProgramSection) -> anyhow::Result<Self> {
        let kind =
            |name: &str, program, attach, flags| Self { name: name.to_lowercase(), program, attach, flags };
        Ok(match section {
            ProgramSection::Xdp { frags: true, attach_type } => kind(
                "xdp.frags",
                bpf_prog_type::BPF_PROG_TYPE_XDP,
                Some((*attach_type).into()),
                BPF_F_XDP_HAS_FRAGS,
            ),
            ProgramSection::Xdp { frags: false, attach_type } => {
                kind("xdp", bpf_prog_type::BPF_PROG_TYPE_XDP, Some((*attach_type).into()), 0)
            }
            ProgramSection::SchedClassifier => {
                kind("classifier", bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, None, 0)
            }
            ProgramSection::CgroupSockAddr { attach_type } => kind(
                &format!("cgroup/{attach_type:?}"),
                bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
                Some((*attach_type).into()),
                0,
            ),
            ProgramSection::CgroupSock { attach_type } => kind(
                &format!("cgroup/{attach_type:?}"),
                bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK,
                Some((*attach_type).into()),
                0,
            ),
            other => bail!("a program of a kind that isn't known here: {other:?}"),
        })
    }
}

/// As `lb-userspace/src/datapath/object.rs` makes them, with few entries and nothing pinned.
fn make_maps(bytes: &[u8]) -> anyhow::Result<Ebpf> {
    let buckets = flow_table::buckets(FLOWS);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("FLOW_BUCKETS", &buckets, false)
        .override_global("FLOW_SEED", &0x5eed_u64, false)
        .override_global("AYA_LOG_LEVEL", &0_u8, false)
        .override_global("NODE_NETNS", &1_u64, false)
        .override_global("SOCKETS_OF_ALL", &0_u32, false)
        .override_global("TICK_HZ", &250_u32, false);
    for name in [maps::FLOWS4, maps::FLOWS6, maps::FLOW_HEADS4, maps::FLOW_HEADS6] {
        loader.map_max_entries(name, buckets);
    }
    loader.map_max_entries(maps::AFFINITY, CLIENTS);
    loader.load(bytes).context("making the maps")
}

fn fd(map: &Map) -> anyhow::Result<i32> {
    let data = match map {
        Map::Array(m)
        | Map::ArrayOfMaps(m)
        | Map::HashMap(m)
        | Map::HashOfMaps(m)
        | Map::LpmTrie(m)
        | Map::LruHashMap(m)
        | Map::PerCpuArray(m)
        | Map::PerCpuHashMap(m)
        | Map::PerCpuLruHashMap(m)
        | Map::PerfEventArray(m)
        | Map::ProgramArray(m)
        | Map::RingBuf(m)
        | Map::SkStorage(m)
        | Map::CpuMap(m)
        | Map::DevMap(m)
        | Map::DevMapHash(m)
        | Map::Unsupported(m) => m,
        other => bail!("a map of a kind that isn't known here: {other:?}"),
    };
    Ok(data.fd().as_fd().as_raw_fd())
}

/// A function's name as it is written in the source.
fn plain(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: plain data, for which zeroes are good.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: this is the member of the union that BPF_BTF_LOAD reads, and all of it was zeroed.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = bytes.as_ptr() as u64;
    load.btf_size = bytes.len() as u32;
    bpf(bpf_cmd::BPF_BTF_LOAD, &attr)
}

/// For the commands that give a descriptor.
fn bpf(command: bpf_cmd, attr: &bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just given it, to nobody else.
    bpf_call(command, attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf_call(command: bpf_cmd, attr: &bpf_attr) -> io::Result<i32> {
    // SAFETY: the attributes are of the kernel's layout, and what they point to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// A signal after a while, upon which the verifier gives up (`EAGAIN`). Gone when dropped.
struct Alarm;

impl Alarm {
    fn after(limit: Duration) -> Self {
        extern "C" fn nothing(_: i32) {}
        let handler: extern "C" fn(i32) = nothing;
        // SAFETY: the handler does nothing; plain data, for which zeroes are good: no flags, so that calls are interrupted.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
            libc::alarm(limit.as_secs().max(1) as u32);
        }
        Self
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: it has no conditions.
        unsafe { libc::alarm(0) };
    }
}
