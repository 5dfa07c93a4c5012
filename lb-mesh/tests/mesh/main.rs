//! Meshes over real sockets, in one process.

mod cluster;
mod converge;
mod keys;
mod refuse;
mod relay;
mod rotate;
mod stranger;
