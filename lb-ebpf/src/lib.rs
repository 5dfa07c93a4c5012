//! The packet's path, a file per step, in the order in which a packet meets them:
//!
//! ```text
//! main ─▶ pipeline ─▶ parse ─▶ conntrack::find ─ hit ─▶ track ─▶ account ─▶ rewrite ─▶ pass on
//!                                   └─ miss ─▶ service ─▶ affinity, choose ─▶ conntrack::pin ─▶ account ─▶ rewrite
//!                                                 └─ not ours: pass     └─ refused: reset | unreachable | drop
//! ```
//!
//! `socket` is a road of its own: the node's processes, whose sockets are led to a backend when they connect.
//!
//! Beside the road: `fragment` gives later fragments the ports of their first, `icmp` answers pings and translates errors, `snat` finds ports of ours, `direct` sends
//! packets that stay as they are.
//! `packet` is the only place that knows XDP from TC; `maps` names every map. `parse`, `rewrite`, `reset` and `unreachable` touch
//! bytes and no map; `service`, `choose`, `conntrack`, `account` touch maps and no bytes. A library, so that the steps that touch
//! bytes only are tested on the host; `main.rs` holds the entry points.
#![cfg_attr(not(test), no_std)]
// The instructions that `core` doesn't offer (see `atomic`); aya-ebpf needs the same.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod account;
pub mod affinity;
pub mod atomic;
pub mod choose;
pub mod conntrack;
pub mod direct;
pub mod events;
mod family;
pub mod foreign;
pub mod fragment;
pub mod icmp;
pub mod maps;
pub mod packet;
pub mod parse;
pub mod pipeline;
pub mod quota;
pub mod reset;
pub mod rewrite;
pub mod service;
pub mod snat;
pub mod socket;
mod spoken;
pub mod sweep;
pub mod table;
pub mod unreachable;
