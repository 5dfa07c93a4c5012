//! The command line and the API as scripts and people meet them: the real binary and the real server, over an agent without a
//! kernel. Needs no root.

mod alone;
mod api;
mod changes;
mod cluster;
mod commands;
mod drains;
mod fake;
mod ipvsadm;
mod ran;
mod running;
mod ui;
mod usage;
mod views;
