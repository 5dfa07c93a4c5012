//! Packet tables: one packet in; verdict, every byte and the counted reasons out. At XDP, XDP on virtual devices and TC, in IPv4
//! and IPv6; a file per kind of packet, and a million random ones.
//!
//! Which [`Reason`](lb_common::abi::Reason) is produced where: `no_backend` reset, unreachable; `backends_full` choose; `table_full`
//! full; `stray`, `stray_reset` reset; `fragment` fragments; `malformed` malformed; `flow_busy` close; `unanswered`
//! unreachable; `internal` internal; `no_source_port` snat; `no_service`, `no_local_backend` frontends.

use flowpin_tests::packet::{build, run, stage, sum, world};

mod affinity;
mod astray;
mod choose;
mod close;
mod counters;
mod extensions;
mod forged;
mod fragments;
mod frontends;
mod full;
mod fuzz;
mod hashed;
mod icmp;
mod internal;
mod leaving;
mod malformed;
mod not_ours;
mod offload;
mod provisional;
mod reset;
mod reuse;
mod scarce;
mod sizes;
mod snat;
mod source_ranges;
mod spoken;
mod sweep;
mod tcp;
mod together;
mod turns;
mod udp;
mod unreachable;
mod vlan;
mod whole;
