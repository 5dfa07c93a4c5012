//! Binaries whose BPF object has programs that every kernel refuses.

use std::path::{Path, PathBuf};

/// What the verifier says of such a program: it begins with a read of a register that nothing was put into.
pub const REASON: &str = "R9 !read_ok";

/// `r0 = r9`
const READS_R9: [u8; 8] = [0xbf, 0x90, 0, 0, 0, 0, 0, 0];
/// `e_machine` of an object for BPF.
const EM_BPF: u64 = 247;
const SYMTAB: u64 = 2;

/// A copy of `binary` in `dir` in which these programs begin with [`READS_R9`].
///
/// # Panics
/// There is no object in it, or it has no such program.
pub fn binary(binary: &Path, dir: &Path, programs: &[&str]) -> PathBuf {
    let mut bytes = std::fs::read(binary).expect("the binary");
    let object = find_object(&bytes);
    for program in programs {
        let at = object + entry(&bytes[object..], program);
        bytes[at..at + READS_R9.len()].copy_from_slice(&READS_R9);
    }
    let (written, copy) = (dir.join("written"), dir.join("flowpin"));
    std::fs::write(&written, bytes).expect("a copy");
    let mode = std::fs::metadata(binary).expect("the binary").permissions();
    std::fs::set_permissions(&written, mode).expect("executable");
    // By another process: a child of another thread of this one may have what is written here open for a moment, and what
    // somebody may write to can't be run.
    let copied = std::process::Command::new("cp").arg("--preserve=mode").arg(&written).arg(&copy).status();
    assert!(copied.expect("cp").success());
    copy
}

/// A number of `size` bytes, little-endian.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// Where the object begins: an ELF header for BPF in the middle of the binary.
fn find_object(bytes: &[u8]) -> usize {
    let magic = [0x7f, b'E', b'L', b'F', 2, 1, 1];
    let starts = bytes.windows(magic.len()).enumerate().filter(|(_, w)| *w == magic).map(|(at, _)| at);
    starts
        .into_iter()
        .find(|at| bytes.len() > at + 64 && number(bytes, at + 18, 2) == EM_BPF)
        .expect("a BPF object in the binary")
}

/// Offset of a function's first instruction (elf(5): 64-bit headers, sections and symbols).
fn entry(object: &[u8], function: &str) -> usize {
    let at = |value: u64| usize::try_from(value).expect("an offset");
    let (table, count) = (at(number(object, 40, 8)), at(number(object, 60, 2)));
    let section = |i: usize| &object[table + i * 64..table + (i + 1) * 64];
    let offset = |section: &[u8]| at(number(section, 24, 8));
    let symbols = (0..count).map(section).find(|s| number(s, 4, 4) == SYMTAB).expect("symbols");
    let names = offset(section(at(number(symbols, 40, 4))));
    let (first, size) = (offset(symbols), at(number(symbols, 32, 8)));
    object[first..first + size]
        .chunks_exact(24)
        .find(|symbol| {
            let name = &object[names + at(number(symbol, 0, 4))..];
            name.starts_with(function.as_bytes()) && name[function.len()] == 0
        })
        .map(|symbol| offset(section(at(number(symbol, 6, 2)))) + at(number(symbol, 8, 8)))
        .unwrap_or_else(|| panic!("no {function} in the object"))
}
