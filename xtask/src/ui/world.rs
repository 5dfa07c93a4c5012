//! A client and a node, in network namespaces: the node runs the agent, the backends and the browser.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc::channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{Shutdown, shutdown},
};
use serde_json::Value;
use std::os::fd::AsRawFd as _;

use crate::root;

/// Begins the name of everything that this makes.
const TAG: &str = "fpui";
/// Backends' addresses are 10.2.0.1 and up, all at the node itself.
const BACKENDS: u8 = 6;

/// See the module. All of it is gone when this is dropped.
pub struct World {
    /// Config, state, logs.
    pub dir: PathBuf,
    agent: Option<Child>,
    servers: Vec<(String, Arc<TcpListener>)>,
}

/// Runs a line and insists that it succeeds.
fn must(line: &str) -> anyhow::Result<()> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    let out = command.args(words).stdin(Stdio::null()).output().with_context(|| line.to_string())?;
    if !out.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Does something in a namespace, `c` or `n`: sockets that it makes are there.
fn within<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let namespace = File::open(format!("/run/netns/{TAG}-{name}"))?;
    let thread = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    });
    thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

fn pins() -> PathBuf {
    Path::new("/sys/fs/bpf").join(TAG)
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
        clean_up();
        // What can't be removed is in the way of nobody.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn clean_up() {
    for name in ["c", "n"] {
        // It may not be there.
        let _ = must(&format!("ip netns del {TAG}-{name}"));
    }
    let _ = fs::remove_dir_all(pins());
}

impl World {
    /// Without an agent.
    pub fn new() -> anyhow::Result<Self> {
        // One that was killed outright could not clean up.
        clean_up();
        let dir = std::env::temp_dir().join(TAG);
        fs::create_dir_all(&dir)?;
        let world = Self { dir, agent: None, servers: Vec::new() };
        for line in [
            "ip netns add fpui-c",
            "ip netns add fpui-n",
            "ip -n fpui-c link add up0 type veth peer name eth0 netns fpui-n",
            "ip -n fpui-c address add 10.1.0.2/24 dev up0",
            "ip -n fpui-n address add 10.1.0.1/24 dev eth0",
            "ip -n fpui-n link set lo up",
            "ip -n fpui-c link set up0 up",
            "ip -n fpui-n link set eth0 up",
            "ip -n fpui-c route add default via 10.1.0.1",
        ] {
            must(line)?;
        }
        for i in 1..=BACKENDS {
            must(&format!("ip -n {TAG}-n address add 10.2.0.{i}/32 dev lo"))?;
        }
        Ok(world)
    }

    /// A command in the node's namespace, which ends with this process.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/run/netns/{TAG}-n"), "setpriv", "--pdeathsig", "KILL", program]);
        command
    }

    /// Has a backend answer: it echoes.
    pub fn serve(&mut self, address: &str) -> anyhow::Result<()> {
        let to = address.to_string();
        let listener = Arc::new(within("n", move || TcpListener::bind(&to).context(to))?);
        self.servers.push((address.into(), listener.clone()));
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let echo = thread::Builder::new().stack_size(64 * 1024);
                let echoing = echo.spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..n]).is_err() {
                            return;
                        }
                    }
                });
                if echoing.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Has it take no new connections; those that are open stay.
    pub fn fail(&mut self, address: &str) -> anyhow::Result<()> {
        let at = self.servers.iter().position(|(name, _)| name == address).context("a server")?;
        shutdown(self.servers.remove(at).1.as_raw_fd(), Shutdown::Both)?;
        Ok(())
    }

    /// Connections of the client that have had something sent and answered.
    pub fn connect(&self, to: &str, count: usize) -> anyhow::Result<Vec<TcpStream>> {
        let to = to.to_string();
        within("c", move || {
            let open = |i: usize| {
                let mut stream = TcpStream::connect(&to)?;
                let sent = vec![7; 100 + i * 37 % 3000];
                stream.write_all(&sent)?;
                stream.read_exact(&mut vec![0; sent.len()])?;
                anyhow::Ok(stream)
            };
            (0..count).map(open).collect::<anyhow::Result<_>>().context(to)
        })
    }

    /// Sees that nothing takes a connection there.
    pub fn is_refused(&self, to: &str) -> anyhow::Result<()> {
        let to = to.to_string();
        within("c", move || match TcpStream::connect(&to) {
            Ok(_) => bail!("{to} takes connections"),
            Err(_) => Ok(()),
        })
    }

    /// Starts an agent with these services, and waits until it is ready.
    pub fn start(&mut self, services: &str) -> anyhow::Result<()> {
        let (dir, config) = (self.dir.display(), self.dir.join("flowpin.toml"));
        let text = format!(
            "[agent]\napi_socket = \"{dir}/api.sock\"\npin_dir = \"{}\"\nstate_file = \"{dir}/state.json\"\n\
             [conntrack]\nmax_flows = 131072\n[[interface]]\nmatch = \"eth0\"\nattach = \"tc\"\nrole = \"uplink\"\n{services}",
            pins().display()
        );
        fs::write(&config, text)?;
        let log = File::create(self.dir.join("agent.log"))?;
        let mut command = self.inside(&binary().display().to_string());
        command
            .arg("agent")
            .arg("--detach-on-exit")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(log);
        self.agent = Some(command.spawn().context("flowpin: cargo xtask build --release")?);
        let until = Instant::now() + Duration::from_secs(120);
        while self.cli(&["status", "-o", "json"]).is_err() {
            if Instant::now() > until {
                bail!("no agent: {}", fs::read_to_string(self.dir.join("agent.log"))?);
            }
            thread::park_timeout(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // It may have ended by itself.
            let _ = must(&format!("kill {}", agent.id()));
            let _ = agent.wait();
        }
    }

    /// What the command line answers.
    pub fn cli(&self, args: &[&str]) -> anyhow::Result<Value> {
        let socket = self.dir.join("api.sock");
        let out = Command::new(binary()).arg("--api-socket").arg(socket).args(args).output()?;
        if !out.status.success() {
            bail!("flowpin {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
        }
        // What isn't asked for as JSON is for people.
        Ok(serde_json::from_slice(&out.stdout).unwrap_or(Value::Null))
    }

    /// CPU time that the agent has had (proc(5): utime and stime, in hundredths of a second).
    fn cpu(&self) -> anyhow::Result<Duration> {
        let pid = self.agent.as_ref().context("an agent")?.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// The part of a core that the agent uses while this passes.
    pub fn load(&self, passes: Duration) -> anyhow::Result<f64> {
        let (began, before) = (Instant::now(), self.cpu()?);
        while let Some(left) = passes.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            thread::park_timeout(left);
        }
        Ok((self.cpu()? - before).as_secs_f64() / began.elapsed().as_secs_f64())
    }

    /// Somebody who looks at these views of the page, until the guard goes.
    pub fn viewers(&self, queries: &[&str]) -> anyhow::Result<impl Drop + use<>> {
        struct Viewers(Vec<TcpStream>);
        impl Drop for Viewers {
            fn drop(&mut self) {
                for stream in &self.0 {
                    // The agent may have closed it.
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                }
            }
        }
        let mut viewers = Viewers(Vec::new());
        for query in queries {
            let mut stream = within("n", || Ok(TcpStream::connect("127.0.0.1:9479")?))?;
            write!(stream, "GET /ui/events?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
            let (mut reader, (told, begun)) = (stream.try_clone()?, channel());
            thread::spawn(move || {
                let mut some = [0; 65_536];
                while let Ok(n @ 1..) = reader.read(&mut some) {
                    // Nobody waits for a second one.
                    let _ = told.send(some.starts_with(b"HTTP/1.1 200") && n > 0);
                }
            });
            if !begun.recv_timeout(Duration::from_secs(30))? {
                bail!("a viewer isn't let in");
            }
            viewers.0.push(stream);
        }
        Ok(viewers)
    }
}

fn binary() -> PathBuf {
    root().join("target/release/flowpin")
}
