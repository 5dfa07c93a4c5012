//! Kernels of Debian's archive: asked for by series, unpacked once into a cache outside the checkout. What is in the cache is taken as it is; the
//! archive is asked only for what isn't there, since old versions vanish from it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};

use crate::run;

/// Suites that have kernels, beside those of the security archive.
const SUITES: &str =
    "bookworm bookworm-updates bookworm-backports trixie trixie-updates trixie-backports sid";
/// The same, of the security archive.
const SECURITY: &str = "bookworm-security trixie-security";
/// What signs both.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// What it is called here.
    pub name: &'static str,
    /// Series that will do, best first; empty: the newest of all.
    pub series: &'static [&'static str],
    /// Who runs it.
    pub whose: &'static str,
}

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As in [`Wanted`].
    pub name: &'static str,
    /// What `uname -r` says there.
    pub release: String,
    /// The kernel.
    pub image: PathBuf,
    /// What `lib/modules` lies in.
    pub root: PathBuf,
}

impl Kernel {
    /// Version without what the distribution adds: `6.1.192`.
    ///
    /// # Errors
    /// The cache lacks the note of it.
    pub fn version(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.root.join("version"))?.trim().to_string())
    }
}

/// From the cache, or from the archive; `None`: the archive has none of the series.
///
/// # Errors
/// No network, no package manager, or what came is no kernel.
pub fn kernel(wanted: &'static Wanted) -> anyhow::Result<Option<Kernel>> {
    let root = cache()?.join(wanted.name);
    if !root.exists() {
        let archive = Archive::open()?;
        let Some(release) = archive.newest(wanted)? else { return Ok(None) };
        println!("{}: fetching {release}", wanted.name);
        archive.unpack(&release, &root)?;
    }
    let modules = root.join("lib/modules");
    let release = fs::read_dir(&modules)
        .with_context(|| modules.display().to_string())?
        .next()
        .context("no modules")??
        .file_name()
        .to_string_lossy()
        .into_owned();
    let places = [root.join(format!("boot/vmlinuz-{release}")), modules.join(&release).join("vmlinuz")];
    let image = places.into_iter().find(|p| p.exists()).context("the packages have no vmlinuz")?;
    Ok(Some(Kernel { name: wanted.name, release, image, root }))
}

/// Where kernels stay between runs.
fn cache() -> anyhow::Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let cache = base.join("flowpin/kernels");
    fs::create_dir_all(&cache)?;
    Ok(cache)
}

/// The archive with lists of its own, so that the machine's package manager sees none of these suites.
struct Archive {
    dir: PathBuf,
}

impl Archive {
    fn open() -> anyhow::Result<Self> {
        let dir = cache()?.join("apt");
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
        ensure!(
            architecture.trim() == "amd64",
            "the matrix of kernels is for amd64, not {}",
            architecture.trim()
        );
        let (main, security) = mirrors()?;
        let source = |uri: &str, suites: &str| {
            format!("Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n\n")
        };
        fs::write(dir.join("own.sources"), source(&main, SUITES) + &source(&security, SECURITY))?;
        let shown = dir.display();
        fs::write(
            dir.join("apt.conf"),
            format!(
                "Dir::Etc::sourcelist \"{shown}/own.sources\";\nDir::Etc::sourceparts \"/dev/null\";\n\
                 Dir::State::lists \"{shown}/lists\";\nDir::Cache \"{shown}\";\nAcquire::Languages \"none\";\n\
                 APT::Sandbox::User \"root\";\n"
            ),
        )?;
        let archive = Self { dir };
        run(archive.apt("apt-get").args(["update", "-qq"]))?;
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf"));
        command
    }

    /// The newest cloud kernel of the first series that there is, as `uname -r` will say it.
    fn newest(&self, wanted: &Wanted) -> anyhow::Result<Option<String>> {
        let found = output(self.apt("apt-cache").args(["pkgnames", "linux-"]))?;
        let releases = found.lines().filter_map(release_of);
        let mut releases: Vec<&str> = releases.collect();
        releases.sort_by_cached_key(|release| numbers(release));
        let of = |series: &str| releases.iter().rev().find(|r| r.starts_with(&format!("{series}."))).copied();
        let newest = match wanted.series {
            [] => releases.last().copied(),
            series => series.iter().find_map(|series| of(series)),
        };
        Ok(newest.map(String::from))
    }

    /// Downloads and unpacks a kernel. It is there as a whole or not at all.
    fn unpack(&self, release: &str, root: &Path) -> anyhow::Result<()> {
        let known = output(self.apt("apt-cache").args(["pkgnames", "linux-"]))?;
        // Newer kernels come in two packages.
        let packages: Vec<String> = match known.lines().any(|p| p == format!("linux-binary-{release}")) {
            true => ["binary", "modules"].map(|part| format!("linux-{part}-{release}")).to_vec(),
            false => vec![format!("linux-image-{release}")],
        };
        let packages: Vec<String> =
            packages.into_iter().filter(|package| known.lines().any(|p| p == package)).collect();
        let work = root.with_extension("partial");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(work.join("debs"))?;
        run_in(&work.join("debs"), self.apt("apt-get").args(["download", "-qq"]).args(&packages))?;
        let mut version = String::new();
        for deb in fs::read_dir(work.join("debs"))? {
            let deb = deb?.path();
            run(Command::new("dpkg").arg("-x").arg(&deb).arg(&work))?;
            version = output(Command::new("dpkg-deb").arg("-f").arg(&deb).arg("Version"))?;
        }
        fs::write(work.join("version"), version.split('-').next().unwrap_or_default())?;
        fs::remove_dir_all(work.join("debs"))?;
        if !work.join("lib").exists() {
            symlink("usr/lib", work.join("lib"))?;
        }
        // Warnings about lists of what is built in: not every kernel's packages have them.
        output(Command::new("depmod").arg("-b").arg(&work).arg(release))?;
        fs::rename(&work, root).with_context(|| root.display().to_string())
    }
}

/// `6.1.0-56-cloud-amd64` of `linux-image-6.1.0-56-cloud-amd64`; `None`: not a kernel as such.
fn release_of(package: &str) -> Option<&str> {
    let release = ["linux-image-", "linux-binary-"].iter().find_map(|kind| package.strip_prefix(kind))?;
    let version = release.strip_suffix("-cloud-amd64")?;
    // Meta packages have no third number; release candidates are somebody else's business.
    let whole = version.split(['-', '+']).next()?.split('.').count() >= 3 && !version.contains("rc");
    whole.then_some(release)
}

/// Numbers of a version, to order by: `6.12.9` comes before `6.12.10`.
fn numbers(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

/// The mirrors that this machine's packages come from: of the archive, and of security updates.
fn mirrors() -> anyhow::Result<(String, String)> {
    let format = "$(REPO_URI) $(RELEASE)";
    let targets =
        output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let of = |security: bool| {
        targets
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(_, release)| release.ends_with("-security") == security)
            .map(|(uri, _)| uri.to_string())
    };
    let main = of(false).context("no Debian archive in this machine's package sources")?;
    let security = of(true).context("no security archive in this machine's package sources")?;
    Ok((main, security))
}

fn run_in(dir: &Path, command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command.current_dir(dir).status().with_context(|| shown.clone())?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}

/// What a command says.
///
/// # Errors
/// It fails, or isn't there.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let out = command.output().with_context(|| format!("{shown}: run scripts/setup"))?;
    if !out.status.success() {
        bail!("{shown}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_from_meta_packages_and_ordered_by_number() {
        assert_eq!(release_of("linux-image-6.1.0-56-cloud-amd64"), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(release_of("linux-binary-7.3.4+deb13-cloud-amd64"), Some("7.3.4+deb13-cloud-amd64"));
        for other in
            ["linux-image-6.12-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64-dbg", "linux-libc-dev"]
        {
            assert_eq!(release_of(other), None, "{other}");
        }
        assert!(numbers("6.12.9+deb12-cloud-amd64") < numbers("6.12.10+deb12-cloud-amd64"));
        assert!(numbers("6.1.0-9-cloud-amd64") < numbers("6.1.0-56-cloud-amd64"));
    }
}
