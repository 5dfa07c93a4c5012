//! House rules that no lint knows.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::bail;

use crate::root;

/// Longest file, in lines.
const LONGEST: usize = 400;
/// Files that may be longer, and how long: what reads as a table doesn't get clearer by being cut.
const LONGER: [(&str, usize); 2] = [("tests/src/packet/build.rs", 450), ("tests/src/packet/world.rs", 460)];
/// What may name aya: the kernel side of userspace, the one list of plain data, and the tests.
const AYA: [&str; 7] = [
    "lb-userspace/src/datapath/",
    "lb-common/src/abi/pod.rs",
    "guest/",
    "tests/",
    "lb-ebpf/",
    "xtask/",
    "lb-userspace/build.rs",
];
/// What walks the flow tables needs their plain-data bound.
const AYA_POD: [&str; 2] = ["lb-userspace/src/conntrack/sweep.rs", "lb-userspace/src/observe/connections.rs"];

/// The one place that sleeps.
const SLEEPS: &str = "tests/src/harness/eventually.rs";
/// Hosts of packages: where they come from is the business of the package managers' configuration. In halves, for this file's sake.
const HOSTS: [[&str; 2]; 6] = [
    ["deb.", "debian.org"],
    ["index.", "crates.io"],
    ["static.", "crates.io"],
    ["ghcr", ".io"],
    ["docker", ".io"],
    ["proxy.", "golang.org"],
];
/// Where texts are that are no Rust.
const TEXTS: [&str; 16] = [
    "",
    "scripts",
    ".ci",
    ".github",
    ".github/ISSUE_TEMPLATE",
    ".github/workflows",
    "docs",
    "docs/migration",
    "docs/site",
    "examples",
    "packaging",
    "packaging/kubernetes/base",
    "packaging/kubernetes/chart",
    "packaging/kubernetes/chart/templates",
    "tests/kubernetes",
    "tests/kubernetes/cluster",
];

/// Checks all of them, and says all that is wrong.
pub fn run() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    for part in [
        "fuzz",
        "guest",
        "import",
        "lb-cluster",
        "lb-common",
        "lb-ebpf",
        "lb-ipvsadm",
        "lb-mesh",
        "lb-probes",
        "lb-text",
        "lb-userspace",
        "tests",
        "xtask",
    ] {
        collect(&root().join(part), &mut files)?;
    }
    for file in &files {
        let name = file.strip_prefix(root())?.display().to_string();
        let text = fs::read_to_string(file)?;
        check(&name, &text, &mut wrong);
        hosts(&name, &text, &mut wrong);
    }
    for dir in TEXTS {
        for entry in fs::read_dir(root().join(dir))? {
            let path = entry?.path();
            // The lock file is cargo's.
            if path.is_file() && !path.ends_with("Cargo.lock") {
                let name = path.strip_prefix(root())?.display().to_string();
                hosts(&name, &String::from_utf8_lossy(&fs::read(&path)?), &mut wrong);
            }
        }
    }
    let explained = fs::read_to_string(root().join("docs/reasons.md"))?;
    let reasons = fs::read_to_string(root().join("lb-common/src/abi/reason.rs"))?;
    for line in reasons.lines().filter(|l| l.contains("=> \"") && l.contains("Self::")) {
        if let Some(label) = line.split('"').nth(1).filter(|l| !l.contains(' '))
            && !explained.contains(&format!("`{label}`"))
        {
            wrong.push(format!("docs/reasons.md: reason `{label}` is not explained"));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    println!("{} files in order", files.len());
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn check(name: &str, text: &str, wrong: &mut Vec<String>) {
    let lines = text.lines().count();
    let limit = LONGER.iter().find(|(file, _)| *file == name).map_or(LONGEST, |(_, limit)| *limit);
    if lines > limit {
        wrong.push(format!("{name}: {lines} lines; split it, the limit is {limit}"));
    }
    if !text.starts_with("//!") && !name.ends_with("tests.rs") {
        wrong.push(format!("{name}: does not open with what it is (//!)"));
    }
    let may = |list: &[&str]| list.iter().any(|p| name.starts_with(p));
    for line in text.lines().filter(|l| l.contains("aya::")) {
        let bound = may(&AYA_POD) && line.trim() == "use aya::Pod;";
        if !may(&AYA) && !bound {
            wrong.push(format!("{name}: aya belongs in lb-userspace/src/datapath"));
        }
    }
    let ignore = concat!("#[", "ignore");
    if text.contains(ignore) {
        wrong.push(format!("{name}: a test is ignored"));
    }
    let sleep = concat!("thread::", "sleep");
    if name != SLEEPS && text.contains(sleep) {
        wrong.push(format!(
            "{name}: sleeps; await an event, or in tests a condition with harness::eventually"
        ));
    }
}

fn hosts(name: &str, text: &str, wrong: &mut Vec<String>) {
    for host in HOSTS.map(|halves| halves.concat()) {
        if text.contains(&host) {
            wrong.push(format!("{name}: names the package host {host}; leave it to the package manager"));
        }
    }
}
