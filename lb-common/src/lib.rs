//! What both sides of the BPF boundary agree on (`abi`, a file per map), and every decision that can be taken without
//! touching a packet or a map. `abi` is what both sides see; the rest decides and touches nothing: time, randomness and
//! counts are arguments. No allocation outside `maglev` and `turns`, which only
//! userspace builds.
#![cfg_attr(not(any(test, feature = "user")), no_std)]
#![warn(missing_docs)]

pub mod abi;
pub mod affinity;
pub mod checksum;
pub mod expiry;
pub mod filter;
pub mod flow_state;
pub mod flow_table;
pub mod hash;
#[cfg(any(test, feature = "user"))]
pub mod maglev;
pub mod pick;
pub mod ranked;
pub mod socket_table;
#[cfg(any(test, feature = "user"))]
pub mod turns;
pub mod whole;
pub mod window;
