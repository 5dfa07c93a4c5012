//! Embeds the BPF object that `cargo xtask build` made; an empty one if there is none, so that `cargo check` works anywhere.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=FLOWPIN_BPF_OBJECT");
    let name =
        if env::var_os("CARGO_FEATURE_NEXT").is_some() { "flowpin-bpf-next.o" } else { "flowpin-bpf.o" };
    let default = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../target/bpf")
        .join(name);
    let object = env::var_os("FLOWPIN_BPF_OBJECT").map_or(default, PathBuf::from);
    println!("cargo:rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).unwrap_or_default();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("flowpin-bpf.o");
    fs::write(out, bytes).expect("OUT_DIR is writable");
}
