//! Cost per packet without a network, by `BPF_PROG_TEST_RUN`.

use crate::{Options, measure::Series};

/// All of it.
///
/// # Errors
/// The kernel refuses a program, or there is no permission.
pub fn run(_options: &Options) -> anyhow::Result<Vec<Series>> {
    Ok(Vec::new())
}
