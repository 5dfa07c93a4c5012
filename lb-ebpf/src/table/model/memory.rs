//! A table in a test's memory. Whoever touches a word of it that others may touch lets any of them go first, and before that
//! everything must be right. Of all "CPUs" one runs at a time.

use std::{cell::Cell, ptr};

use lb_common::abi::{Addr4, Bucket, Flow};
use shuttle::sync::atomic::{AtomicBool, Ordering};

use crate::maps::Maps;

/// What the maps hold otherwise.
pub struct Memory {
    pub heads: Vec<u64>,
    pub buckets: Vec<Bucket<Addr4>>,
    pub scratch: Vec<[Flow<Addr4>; 2]>,
}

thread_local! {
    // shuttle runs all its threads on one thread of the system's.
    static MEMORY: Cell<*mut Memory> = const { Cell::new(ptr::null_mut()) };
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// Makes a table for as long as this lives.
pub struct Guard;

impl Guard {
    pub fn new(buckets: usize, cpus: usize) -> Self {
        let memory = Memory {
            heads: vec![0; buckets],
            buckets: vec![Bucket::default(); buckets],
            scratch: vec![[Flow::default(); 2]; cpus],
        };
        MEMORY.set(Box::into_raw(Box::new(memory)));
        Self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let memory = MEMORY.replace(ptr::null_mut());
        // SAFETY: made by `new`; all that used it have been joined.
        drop(unsafe { Box::from_raw(memory) });
    }
}

/// Runs as this CPU from now on.
pub fn be(cpu: usize) {
    CPU.set(cpu);
}

/// The table.
fn memory() -> *mut Memory {
    let memory = MEMORY.get();
    assert!(!memory.is_null(), "a test of tables begins with a Guard");
    memory
}

/// A copy of the heads and the entries, of one moment.
pub fn snapshot() -> (Vec<u64>, Vec<Bucket<Addr4>>) {
    // SAFETY: nobody runs beside this, and nobody keeps a reference.
    unsafe { ((*memory()).heads.clone(), (*memory()).buckets.clone()) }
}

fn nth<T>(all: *mut Vec<T>, number: u32) -> Option<*mut T> {
    // SAFETY: nobody runs beside this; the vectors keep their size.
    unsafe { (&mut *all).get_mut(number as usize).map(ptr::from_mut) }
}

pub fn head<V: Maps>(bucket: u32) -> Option<*mut u64> {
    assert_eq!(size_of::<V::Addr>(), size_of::<Addr4>(), "IPv4 only");
    // SAFETY: the place of a field.
    nth(unsafe { &raw mut (*memory()).heads }, bucket)
}

pub fn entries<V: Maps>(bucket: u32) -> Option<*mut Bucket<V::Addr>> {
    assert_eq!(size_of::<Bucket<V::Addr>>(), size_of::<Bucket<Addr4>>(), "IPv4 only");
    // SAFETY: the place of a field.
    nth(unsafe { &raw mut (*memory()).buckets }, bucket).map(<*mut _>::cast)
}

pub fn scratch<V: Maps>(which: u32) -> Option<*mut Flow<V::Addr>> {
    // SAFETY: the place of a field.
    let own = nth(unsafe { &raw mut (*memory()).scratch }, CPU.get() as u32)?;
    // SAFETY: within the pair.
    (which < 2).then(|| unsafe { own.cast::<Flow<Addr4>>().add(which as usize) }.cast())
}

pub fn shape() -> (u64, u32) {
    // SAFETY: nobody runs beside this.
    (0, unsafe { (*memory()).heads.len() } as u32)
}

pub fn others_may_go_first() {
    super::all_is_right();
    let cpu = CPU.get();
    // shuttle lets another thread go before any use of an atomic.
    AtomicBool::new(false).load(Ordering::SeqCst);
    CPU.set(cpu);
}
