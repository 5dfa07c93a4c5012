//! One promise a file, stated in its first line, kept with real traffic.

mod accounting;
mod affinity;
mod anywhere;
mod attach;
mod balance;
mod close;
mod fallback;
mod health;
mod host;
mod hostrules;
mod lifecycle;
mod matrix;
mod million;
mod neighbours;
mod paths;
mod persistent;
mod pinning;
mod programs;
mod refusal;
mod refused;
mod sight;
mod snat;
mod sockets;
mod stick;
mod timeouts;
