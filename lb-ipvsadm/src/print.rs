//! Tables in ipvsadm's columns: version 1.31's, to the blank at the end of a line. Only the program's name is
//! Flowpin's, and addresses and ports are always numbers.

mod connections;
mod servers;

pub use self::{
    connections::{Connection, State, connections},
    servers::{Heading, servers},
};
use crate::Timeouts;

/// What `-L --timeout` shows; those that aren't known are 0.
pub fn timeouts(timeouts: &Timeouts) -> String {
    let seconds = |time: Option<std::time::Duration>| time.unwrap_or_default().as_secs();
    let Timeouts { tcp, tcp_fin, udp } = *timeouts;
    format!("Timeout (tcp tcpfin udp): {} {} {}\n", seconds(tcp), seconds(tcp_fin), seconds(udp))
}
