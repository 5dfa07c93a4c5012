//! A crowd of clients: more than there could be sockets for.

use std::{net::IpAddr, os::fd::AsFd as _};

use super::run::{program_named, test_run};
use crate::harness::agent::tc_program;

/// Has a packet of each of so many clients met by the program that the agent has attached. `frame`: a client's, from an address and port of its own.
///
/// # Panics
/// There is no such program, or the kernel doesn't run it.
pub fn crowd(count: u32, frame: impl Fn(IpAddr, u16) -> Vec<u8>) {
    let program = program_named(tc_program()).expect("the agent's program");
    let mut out = Vec::new();
    for i in 0..count {
        let client = IpAddr::from([172, 16 + (i >> 20) as u8, (i >> 12) as u8, (i >> 4) as u8]);
        let mut frame = frame(client, 1024 + (i & 15) as u16);
        // The loopback's, by which such packets come in.
        frame[..6].fill(0);
        test_run(program.as_fd(), &frame, &mut out, 0).expect("the kernel runs it");
    }
}
