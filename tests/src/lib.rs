//! What the tests stand on: namespaces, topologies, the real agent, servers and clients that check what they carry, and packets
//! that are built, run through a program and compared.
//!
//! Everything needs root, and says so: a test never skips.

pub mod cluster;
pub mod harness;
pub mod packet;
