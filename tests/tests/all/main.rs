//! Packet tables and promises, on a real kernel, as root.

mod packet;
mod promise;
