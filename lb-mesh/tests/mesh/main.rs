//! Meshes over real sockets, in one process.

mod cluster;
mod converge;
mod keys;
mod nats;
mod refuse;
mod relay;
mod rotate;
mod stranger;
mod talk;
