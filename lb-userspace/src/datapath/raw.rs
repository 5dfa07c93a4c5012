//! Calls of the kernel's for maps whose types are known only when they are met, and for what aya has no word for.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{
    bpf_attach_type::{BPF_TCX_EGRESS, BPF_TCX_INGRESS, BPF_XDP},
    bpf_cmd::{
        BPF_MAP_DELETE_ELEM, BPF_MAP_GET_NEXT_KEY, BPF_MAP_LOOKUP_BATCH, BPF_MAP_LOOKUP_ELEM,
        BPF_MAP_UPDATE_BATCH, BPF_MAP_UPDATE_ELEM, BPF_PROG_GET_FD_BY_ID, BPF_PROG_LOAD, BPF_PROG_QUERY,
    },
    bpf_prog_type::{BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_XDP},
};

use super::batch::Plain;

/// `BPF_F_XDP_HAS_FRAGS` (include/uapi/linux/bpf.h): as the programs of XDP's steps have it.
const XDP_HAS_FRAGS: u32 = 1 << 5;

/// `XDP_DROP` and `TC_ACT_SHOT`.
const XDP_DROP: i32 = 1;
const TC_SHOT: i32 = 2;

/// The part of `union bpf_attr` for entries of maps.
#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

/// The same for many entries at once.
#[repr(C)]
#[derive(Default)]
struct Batch {
    before: u64,
    last: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// The same for loading a program, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach: u32,
}

/// The same for asking who is on a hook.
#[repr(C)]
#[derive(Default)]
struct Query {
    interface: u32,
    attach: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    _pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// Most programs that a TCX hook takes (`BPF_MPROG_MAX`).
const MOST: usize = 64;

/// `struct bpf_insn`, of instructions that use register 0 alone.
#[repr(C)]
struct Instruction {
    opcode: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

/// `attr` is a part of `union bpf_attr`, as the command wants it; what it points to outlives the call.
fn bpf<T>(command: u32, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: a structure of the size that is given; its makers, all in this file, see to what it points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn element(map: BorrowedFd<'_>, key: u64, value: u64) -> Element {
    Element { map: map.as_raw_fd().cast_unsigned(), _pad: 0, key, value, flags: 0 }
}

/// "There is none" as nothing.
fn there(result: io::Result<libc::c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads an entry. Key and value are as long as the map has them, per-CPU values those of all CPUs. False: there is none.
///
/// # Errors
/// The kernel refuses.
pub fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let (key, value) = (key.as_ptr().addr() as u64, value.as_mut_ptr().expose_provenance() as u64);
    there(bpf(BPF_MAP_LOOKUP_ELEM as u32, &mut element(map, key, value)))
}

/// Writes an entry, likewise.
///
/// # Errors
/// The kernel refuses.
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let (key, value) = (key.as_ptr().addr() as u64, value.as_ptr().addr() as u64);
    bpf(BPF_MAP_UPDATE_ELEM as u32, &mut element(map, key, value)).map(drop)
}

/// Removes an entry. False: there is none.
///
/// # Errors
/// The kernel refuses.
pub fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    there(bpf(BPF_MAP_DELETE_ELEM as u32, &mut element(map, key.as_ptr().addr() as u64, 0)))
}

/// The key after this one, or the first. False: it was the last.
///
/// # Errors
/// The kernel refuses.
pub fn next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let key = key.map_or(0, |key| key.as_ptr().addr() as u64);
    let next = next.as_mut_ptr().expose_provenance() as u64;
    there(bpf(BPF_MAP_GET_NEXT_KEY as u32, &mut element(map, key, next)))
}

/// Reads elements of an array, from the one after `before` on, or the first, into as many values as there are keys (Linux 5.6). How many it read, and
/// how that ended: not all were there (`false`), all were, or the kernel refused. `values`: for each key as many as the map has of each element.
pub fn lookup_batch<T: Plain>(
    map: BorrowedFd<'_>,
    before: Option<u32>,
    keys: &mut [u32],
    values: &mut [T],
) -> (usize, io::Result<bool>) {
    let mut last = 0u32;
    let mut attr = Batch {
        before: before.as_ref().map_or(0, |before| (&raw const *before).expose_provenance() as u64),
        last: (&raw mut last).expose_provenance() as u64,
        keys: keys.as_mut_ptr().expose_provenance() as u64,
        values: values.as_mut_ptr().expose_provenance() as u64,
        count: keys.len() as u32,
        map: map.as_raw_fd().cast_unsigned(),
        ..Batch::default()
    };
    let result = there(bpf(BPF_MAP_LOOKUP_BATCH as u32, &mut attr));
    (attr.count as usize, result)
}

/// Writes descriptors of maps into a map of maps (Linux 5.19). How many.
///
/// # Errors
/// The kernel refuses.
pub fn update_batch(map: BorrowedFd<'_>, keys: &[u32], values: &[libc::c_int]) -> io::Result<usize> {
    let mut attr = Batch {
        keys: keys.as_ptr().addr() as u64,
        values: values.as_ptr().addr() as u64,
        count: keys.len().min(values.len()) as u32,
        map: map.as_raw_fd().cast_unsigned(),
        ..Batch::default()
    };
    bpf(BPF_MAP_UPDATE_BATCH as u32, &mut attr)?;
    Ok(attr.count as usize)
}

/// A program in an array of programs, by its id.
///
/// # Errors
/// The kernel refuses: it takes CAP_SYS_ADMIN.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    let fd = bpf(BPF_PROG_GET_FD_BY_ID as u32, &mut attr)?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::c_int::try_from(fd).map_err(io::Error::other)?) })
}

/// Ids of the programs on one of an interface's TCX hooks. Unlike aya's question it asks for nothing else of them, which would take
/// CAP_SYS_ADMIN.
///
/// # Errors
/// The kernel refuses: it has no TCX (before 6.6), or there is no such interface.
pub fn tcx_programs(interface: u32, egress: bool) -> io::Result<Vec<u32>> {
    let mut found = vec![0; MOST];
    let mut attr = Query {
        interface,
        attach: if egress { BPF_TCX_EGRESS } else { BPF_TCX_INGRESS } as u32,
        programs: found.as_mut_ptr().addr() as u64,
        count: MOST as u32,
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY as u32, &mut attr)?;
    found.truncate(attr.count as usize);
    Ok(found)
}

/// A program that drops every packet and counts nothing, for an array of steps of XDP (`xdp`) or TC.
///
/// # Errors
/// The kernel refuses.
pub fn dropping(xdp: bool) -> io::Result<OwnedFd> {
    let verdict = if xdp { XDP_DROP } else { TC_SHOT };
    // `r0 = verdict; exit` (Documentation/bpf/standardization/instruction-set.rst).
    let instruction = |opcode, value| Instruction { opcode, registers: 0, offset: 0, value };
    let code = [instruction(0xb7, verdict), instruction(0x95, 0)];
    let license = c"GPL";
    let mut name = [0; 16];
    name[..12].copy_from_slice(b"flowpin_hold");
    let mut attr = Load {
        kind: if xdp { BPF_PROG_TYPE_XDP } else { BPF_PROG_TYPE_SCHED_CLS } as u32,
        instructions: code.len() as u32,
        code: code.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        flags: if xdp { XDP_HAS_FRAGS } else { 0 },
        attach: if xdp { BPF_XDP as u32 } else { 0 },
        name,
        ..Load::default()
    };
    let fd = bpf(BPF_PROG_LOAD as u32, &mut attr)?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::c_int::try_from(fd).map_err(io::Error::other)?) })
}

/// Waits until every program that runs now has ended: all of them run in read-side critical sections of RCU.
///
/// # Errors
/// The kernel doesn't do that: it runs with `nohz_full`.
pub fn quiesce() -> io::Result<()> {
    // It waits for a grace period (kernel/sched/membarrier.c).
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
