//! Does kube-proxy run on this node? By its process, where that may be seen, or by whoever listens at its ports.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

/// Where it says whether it is healthy.
const HEALTH: u16 = 10_256;
/// Where it says in which mode it runs.
const METRICS: u16 = 10_249;
/// How long an answer from this machine may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// As processes are called.
const NAME: &str = "kube-proxy";
const OURS: &str = "flowpin";

/// By what it is seen to run, in words. `proc`: where that is mounted.
pub fn seen(proc: &Path) -> Option<String> {
    let all = processes(proc);
    let own = std::fs::read_link(proc.join("self/ns/net")).ok();
    // One in another network namespace is another node's.
    let here = |pid: &Path| std::fs::read_link(pid.join("ns/net")).ok().is_none_or(|ns| Some(ns) == own);
    if let Some((pid, _)) = all.iter().find(|(pid, name)| name == NAME && here(pid)) {
        return Some(format!("process {NAME} (pid {})", id(pid)));
    }
    let listener = listener(proc, HEALTH)?;
    let link = format!("socket:[{listener}]");
    let holds = |pid: &Path| {
        let files = std::fs::read_dir(pid.join("fd")).into_iter().flatten().flatten();
        files.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|to| to.as_os_str() == link.as_str())
    };
    match all.iter().find(|(pid, _)| holds(pid)) {
        Some((_, name)) if name == OURS => None,
        Some((pid, name)) => {
            Some(format!("port {HEALTH}, its health port, at which {name} (pid {}) listens", id(pid)))
        }
        None => {
            Some(format!("port {HEALTH}, its health port, at which a process that can't be seen listens"))
        }
    }
}

/// The mode that it runs in, if it says so: `iptables`, `nftables`, `ipvs`.
pub fn mode() -> Option<String> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS));
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /proxyMode HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    ["iptables", "nftables", "ipvs"].into_iter().find(|mode| body.trim() == *mode).map(String::from)
}

fn id(pid: &Path) -> String {
    pid.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Processes that can be seen, and their names.
fn processes(proc: &Path) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten().map(|entry| entry.path());
    let numbered = entries.filter(|path| id(path).bytes().all(|b| b.is_ascii_digit()));
    let named = |path: PathBuf| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?.trim_end().to_string();
        Some((path, name))
    };
    numbered.filter_map(named).collect()
}

/// Inode of a socket that listens at a port (proc(5): /proc/net/tcp).
fn listener(proc: &Path, port: u16) -> Option<String> {
    let ending = format!(":{port:04X}");
    ["self/net/tcp", "self/net/tcp6"].iter().find_map(|name| {
        let text = std::fs::read_to_string(proc.join(name)).ok()?;
        text.lines().skip(1).find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let listens = words.get(3) == Some(&"0A") && words.get(1)?.ends_with(&ending);
            listens.then(|| words.get(9).map(ToString::to_string)).flatten()
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A process, its network namespace, and a socket that it has.
    fn process(proc: &Path, pid: &str, name: &str, ns: &str, socket: &str) {
        let dir = proc.join(pid);
        std::fs::create_dir_all(dir.join("fd")).unwrap();
        std::fs::create_dir_all(dir.join("ns")).unwrap();
        std::fs::write(dir.join("comm"), format!("{name}\n")).unwrap();
        symlink(format!("net:[{ns}]"), dir.join("ns/net")).unwrap();
        symlink(format!("socket:[{socket}]"), dir.join("fd/7")).unwrap();
    }

    #[test]
    fn it_runs_if_its_process_or_its_port_is_seen() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let line = |port: u16, state: &str| {
            format!(
                "   0: 00000000:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 \
                 4711 1 0 100 0 0 10 0\n"
            )
        };
        for (name, ns, socket, listening, wanted) in [
            ("kube-proxy", "1", "1", String::new(), Some("process kube-proxy (pid 42)")),
            ("kube-proxy", "2", "1", String::new(), None),
            ("flowpin", "1", "4711", line(10_256, "0A"), None),
            ("flowpin", "1", "1", line(10_256, "0A"), Some("can't be seen")),
            ("k3s-server", "1", "4711", line(10_256, "0A"), Some("k3s-server (pid 42)")),
            ("other", "1", "4711", line(10_256, "01"), None),
            ("other", "1", "4711", line(10_255, "0A"), None),
        ] {
            let dir = tempfile::TempDir::new().unwrap();
            process(dir.path(), "self", "flowpin", "1", "9");
            process(dir.path(), "42", name, ns, socket);
            std::fs::create_dir_all(dir.path().join("self/net")).unwrap();
            std::fs::write(dir.path().join("self/net/tcp6"), format!("{head}{listening}")).unwrap();
            let found = seen(dir.path());
            match wanted {
                Some(part) => assert!(found.as_ref().is_some_and(|f| f.contains(part)), "{name}: {found:?}"),
                None => assert_eq!(found, None, "{name} in {ns}: {listening}"),
            }
        }
    }
}
