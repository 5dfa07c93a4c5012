//! What a guest boots into: busybox, the modules of its kernel, our programs and the libraries that they need, in memory.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use super::fetch::{Kernel, output};

/// Modules that the tests need, each with those that it needs.
const MODULES: [&str; 7] = ["veth", "sch_ingress", "cls_bpf", "8021q", "bonding", "ipvlan", "wireguard"];
/// Programs of this machine that a guest needs besides busybox.
const PROGRAMS: [&str; 3] = ["ip", "ethtool", "wg"];

/// What goes in, besides what every guest has.
pub struct Contents<'a> {
    /// Our programs, for `/bin`.
    pub programs: &'a [PathBuf],
    /// Files, for `/`.
    pub files: &'a [PathBuf],
    /// A shell script: what to do.
    pub task: &'a str,
}

/// Makes one; `work` is for this and nothing else.
///
/// # Errors
/// A program isn't there, or the kernel lacks a module.
pub fn make(kernel: &Kernel, contents: &Contents, work: &Path) -> anyhow::Result<PathBuf> {
    let root = work.join("root");
    for dir in ["bin", "dev", "proc", "sys", "tmp", "run", "modules"] {
        fs::create_dir_all(root.join(dir))?;
    }
    symlink("bin", root.join("sbin"))?;
    fs::write(root.join("init"), include_str!("init.sh"))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("task"), contents.task)?;
    for file in contents.files {
        fs::copy(file, root.join(file.file_name().context("a file has a name")?))
            .with_context(|| file.display().to_string())?;
    }
    let mut libraries = BTreeSet::new();
    for program in contents.programs {
        let to = add(program, &root, &mut libraries)?;
        output(Command::new("strip").arg(&to))?;
    }
    for name in PROGRAMS.into_iter().chain(["busybox"]) {
        let path = output(Command::new("sh").args(["-c", &format!("command -v {name}")]))?;
        add(Path::new(path.trim()), &root, &mut libraries)?;
    }
    for library in libraries {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a library lies somewhere")?)?;
        fs::copy(&library, to).with_context(|| library.clone())?;
    }
    modules(kernel, &root.join("modules"))?;
    pack(&root, work)
}

/// A program, and the libraries that it needs.
fn add(program: &Path, root: &Path, libraries: &mut BTreeSet<String>) -> anyhow::Result<PathBuf> {
    let to = root.join("bin").join(program.file_name().context("a program has a name")?);
    fs::copy(program, &to).with_context(|| program.display().to_string())?;
    // Of what is linked statically it says so, and fails.
    let needed = Command::new("ldd").arg(program).output().context("ldd")?;
    let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
    libraries.extend(needed.split_whitespace().filter(|word| word.starts_with('/')).map(String::from));
    Ok(to)
}

/// Unpacked modules and, in `order`, their names as they are to be loaded.
fn modules(kernel: &Kernel, to: &Path) -> anyhow::Result<()> {
    let mut order = Vec::new();
    for name in MODULES {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-d").arg(&kernel.root).args(["-S", &kernel.release, "--show-depends", name]);
        for line in output(&mut modprobe)?.lines() {
            // `builtin NAME` needs nothing. Options may follow a path.
            let Some(path) = line.strip_prefix("insmod ").and_then(|path| path.split_whitespace().next())
            else {
                continue;
            };
            let path = PathBuf::from(path);
            let file = path.file_name().context("a module has a name")?.to_string_lossy().into_owned();
            let plain = file.trim_end_matches(".xz").trim_end_matches(".zst").to_string();
            if order.contains(&plain) {
                continue;
            }
            let unpack = if file.ends_with(".xz") {
                Some("xz")
            } else if file.ends_with(".zst") {
                Some("zstd")
            } else {
                None
            };
            match unpack {
                None => fs::copy(&path, to.join(&plain)).map(drop)?,
                Some(program) => {
                    let out = Command::new(program).arg("-dc").arg(&path).output().context(program)?;
                    ensure!(out.status.success(), "{program} -dc {}", path.display());
                    fs::write(to.join(&plain), out.stdout)?;
                }
            }
            order.push(plain);
        }
    }
    fs::write(to.join("order"), order.join("\n") + "\n")?;
    Ok(())
}

fn pack(root: &Path, work: &Path) -> anyhow::Result<PathBuf> {
    let image = work.join("initrd");
    let status = Command::new("sh")
        .args(["-c", "find . | cpio --quiet -o -H newc"])
        .current_dir(root)
        .stdout(fs::File::create(&image)?)
        .stderr(Stdio::inherit())
        .status()?;
    ensure!(status.success(), "cpio: {status}: run scripts/setup");
    fs::remove_dir_all(root)?;
    Ok(image)
}
