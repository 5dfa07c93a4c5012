//! Packet tests: one packet in, one verdict and every byte out, by `BPF_PROG_TEST_RUN`; at XDP, XDP on virtual devices and TC, in
//! IPv4 and IPv6. Below `build`, `run`, `world` and `stage` is a file per kind of packet.
//!
//! Which [`Reason`](lb_common::abi::Reason) is produced where: `no_backend` udp, reset; `backends_full` choose; `table_full` full;
//! `stray`, `stray_reset` reset; `fragment` fragments; `malformed` malformed; `flow_busy` close; `port_conflict` reuse;
//! `unanswered` unreachable; `internal` internal.

pub mod build;
pub mod run;
pub mod stage;
pub mod sum;
pub mod world;

#[cfg(test)]
mod choose;
#[cfg(test)]
mod close;
#[cfg(test)]
mod counters;
#[cfg(test)]
mod extensions;
#[cfg(test)]
mod fragments;
#[cfg(test)]
mod full;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hashed;
#[cfg(test)]
mod internal;
#[cfg(test)]
mod malformed;
#[cfg(test)]
mod not_ours;
#[cfg(test)]
mod offload;
#[cfg(test)]
mod reset;
#[cfg(test)]
mod reuse;
#[cfg(test)]
mod sizes;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod tcp;
#[cfg(test)]
mod udp;
#[cfg(test)]
mod unreachable;
#[cfg(test)]
mod vlan;
