//! Packets: built, run through a program with `BPF_PROG_TEST_RUN`, compared to the byte.

pub mod build;
pub mod crowd;
pub mod run;
pub mod stage;
pub mod sum;
pub mod world;
