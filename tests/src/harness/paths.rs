//! What is under test, and what a test needs before it can begin.

use std::path::{Path, PathBuf};

/// The workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// The BPF object that `cargo xtask build` left.
///
/// # Panics
/// There is none.
pub fn object() -> PathBuf {
    let path = workspace().join("target/bpf/flowpin-bpf.o");
    assert!(path.exists(), "no BPF object at {}: run `cargo xtask build --release` first", path.display());
    path
}

/// These tests load BPF programs and make network namespaces. They fail without root rather than pass for nothing.
///
/// # Panics
/// Not root.
pub fn need_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: sudo scripts/test");
}
