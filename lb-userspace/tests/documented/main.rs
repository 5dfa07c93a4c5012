//! What the documentation says, tried: its commands are parsed and run, its config files are checked, and the files in `packaging` that
//! references are made from are what the binary has. Needs no root.

mod blocks;
mod commands;
mod configs;
mod metrics;
mod shell;

use std::path::{Path, PathBuf};

/// The workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// What people read, by its path in the workspace: the texts at its top, `docs` and `examples`.
fn texts() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for dir in ["", "docs", "docs/migration", "examples"] {
        let entries = std::fs::read_dir(root().join(dir)).unwrap_or_else(|e| panic!("{dir}: {e}"));
        let paths = entries.map(|entry| entry.expect("an entry").path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    files.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("below").display().to_string();
        (name, std::fs::read_to_string(&path).expect("text"))
    };
    files.into_iter().map(read).collect()
}
