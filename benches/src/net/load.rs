//! What clients do, and what it takes: blocking sockets on threads, the same for every contender.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};

use super::{
    server::{BRIEF, DATAGRAMS, ECHO, HOLD, REQUESTS, SINK, STACK},
    stage::Stage,
};

/// Clients at once for new connections, each with an address of its own, so that ports last.
pub const CLIENTS: usize = 16;
/// Connections that are kept for requests, each with a client of its own.
const KEPT: usize = 64;
/// Streams at once for bulk.
const STREAMS: usize = 4;
/// Threads that send datagrams, one for each CPU.
const SENDERS: usize = 2;
/// Where the client sits when latency is measured, and where the server does.
const CLIENT_CPU: usize = 0;
/// The other one.
pub const SERVER_CPU: usize = 1;
/// How long an answer may take before the run is void.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something was done so often, at this expense of CPU.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Times a second.
    pub per_second: f64,
    /// CPU time of the whole machine, in seconds for each time.
    pub cpu: f64,
}

/// Latencies in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Half are below.
    pub p50: f64,
    /// 99 % are below.
    pub p99: f64,
    /// 99.9 % are below.
    pub p999: f64,
}

/// Seconds that all CPUs together have been busy since boot.
fn busy() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    let [user, nice, system, _, _, irq, softirq, ..] = *ticks else { anyhow::bail!("/proc/stat: {line}") };
    let hz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("CLK_TCK")?;
    Ok((user + nice + system + irq + softirq) as f64 / hz as f64)
}

/// Runs `work` on so many threads of the client for a while; what it counted, as a rate.
fn timed(
    stage: &Stage,
    threads: usize,
    lasts: Duration,
    work: impl Fn(usize, &AtomicBool, &AtomicU64) -> Result<()> + Sync,
) -> Result<Rate> {
    let (stop, done, ready) = (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(threads + 1));
    stage.clients().run(|| {
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            for number in 0..threads {
                let (stop, done, ready, work) = (&stop, &done, &ready, &work);
                let body = move || {
                    ready.wait();
                    work(number, stop, done)
                };
                running.push(std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, body)?);
            }
            ready.wait();
            // The first tenth warms up.
            std::thread::sleep(lasts / 10);
            let (before, started, counted) = (busy()?, Instant::now(), done.load(Ordering::SeqCst));
            std::thread::sleep(lasts);
            let (count, took) = (done.load(Ordering::SeqCst) - counted, started.elapsed());
            let spent = busy()? - before;
            stop.store(true, Ordering::SeqCst);
            for thread in running {
                thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            ensure!(count > 0, "{}: nothing got through", stage.name);
            Ok(Rate { per_second: count as f64 / took.as_secs_f64(), cpu: spent / count as f64 })
        })
    })
}

/// Connects from an address of the client's.
fn connect(from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    bind_address_only(&socket)?;
    socket.bind(&SocketAddrV4::new(from, 0).into())?;
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&to.into(), PATIENCE).with_context(|| format!("connecting to {to}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Leaves the choice of a port to `connect`, which knows the destination and so has all ports to choose from.
fn bind_address_only(socket: &Socket) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: an option of type int on a socket that is open.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>())?,
        )
    };
    ensure!(set == 0, "IP_BIND_ADDRESS_NO_PORT: {}", std::io::Error::last_os_error());
    Ok(())
}

/// New connections: open, one byte each way, close.
///
/// # Errors
/// One failed.
pub fn connections(stage: &Stage, lasts: Duration) -> Result<Rate> {
    timed(stage, CLIENTS, lasts, |number, stop, done| {
        let mut turn = number;
        while !stop.load(Ordering::Relaxed) {
            let mut stream = connect(stage.from(number), stage.target(BRIEF, turn))?;
            stream.write_all(b"x")?;
            let mut answer = Vec::with_capacity(2);
            stream.read_to_end(&mut answer).context("no answer")?;
            ensure!(answer == b"x", "another answer");
            done.fetch_add(1, Ordering::Relaxed);
            turn += 1;
        }
        Ok(())
    })
}

/// Requests of 64 bytes and answers as long, on [`KEPT`] open connections at once.
///
/// # Errors
/// One failed.
pub fn requests(stage: &Stage, lasts: Duration) -> Result<Rate> {
    timed(stage, KEPT, lasts, |number, stop, done| {
        let mut stream = connect(stage.from(number), stage.target(REQUESTS, number))?;
        let mut answer = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            stream.write_all(&[7; 64])?;
            stream.read_exact(&mut answer).context("no answer")?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
}

/// Round trips of 64 bytes on open connections, one after the other.
///
/// # Errors
/// One failed.
pub fn latency(stage: &Stage, trips: usize) -> Result<Latency> {
    stage.clients().run(|| {
        // One end here, the other on the other CPU: where the scheduler would put them is not what is asked.
        let _here = Pinned::to(CLIENT_CPU)?;
        let mut streams: Vec<TcpStream> =
            (0..CLIENTS).map(|i| connect(stage.from(i), stage.target(ECHO, i))).collect::<Result<_>>()?;
        let (mut took, mut answer) = (Vec::with_capacity(trips), [0; 64]);
        for trip in 0..trips + trips / 10 {
            let stream = streams.get_mut(trip % CLIENTS).context("a stream")?;
            let start = Instant::now();
            stream.write_all(&[7; 64])?;
            stream.read_exact(&mut answer)?;
            // The first tenth warms up.
            if trip >= trips / 10 {
                took.push(start.elapsed());
            }
        }
        took.sort();
        let at =
            |share: f64| took.get((trips as f64 * share) as usize).copied().unwrap_or_default().as_secs_f64();
        Ok(Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
    })
}

/// This thread stays on a CPU for as long as this lives.
struct Pinned(CpuSet);

impl Pinned {
    fn to(cpu: usize) -> Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        pin(cpu)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Where the thread runs afterwards matters to no figure.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// Keeps this thread on a CPU from now on.
///
/// # Errors
/// There is no such CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Bytes over a few streams; a "time" is a byte.
///
/// # Errors
/// A stream broke.
pub fn bulk(stage: &Stage, lasts: Duration) -> Result<Rate> {
    timed(stage, STREAMS, lasts, |number, stop, done| {
        let mut stream = connect(stage.from(number), stage.target(SINK, number))?;
        let chunk = vec![7; 64 * 1024];
        while !stop.load(Ordering::Relaxed) {
            stream.write_all(&chunk)?;
            done.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    })
}

/// Datagrams of 16 bytes, as many as go through, 32 flows.
///
/// # Errors
/// As sockets have them.
pub fn datagrams(stage: &Stage, lasts: Duration) -> Result<Rate> {
    let before = stage.arrived()?;
    let started = Instant::now();
    let sent = timed(stage, SENDERS, lasts, |number, stop, done| {
        let sockets: Vec<UdpSocket> = (0..CLIENTS)
            .map(|i| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(stage.target(DATAGRAMS, number + i))?;
                Ok(socket)
            })
            .collect::<Result<_>>()?;
        let data = [7; 16];
        let iov = [[std::io::IoSlice::new(&data)]; 32];
        let nobody: [Option<SockaddrIn>; 32] = [None; 32];
        let mut headers = MultiHeaders::preallocate(iov.len(), None);
        'all: loop {
            for socket in &sockets {
                if stop.load(Ordering::Relaxed) {
                    break 'all;
                }
                // Refused for the moment is as good as lost.
                let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &iov, nobody, [], MsgFlags::empty())
                    .map_or(0, Iterator::count);
                done.fetch_add(sent as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    })?;
    let took = started.elapsed();
    let arrived = (stage.arrived()? - before) as f64 / took.as_secs_f64();
    ensure!(arrived > 0.0, "{}: no datagram arrived", stage.name);
    // CPU time was taken over the packets sent; those that arrived had to bear it.
    Ok(Rate { per_second: arrived, cpu: sent.cpu * sent.per_second / arrived })
}

/// Opens so many long-lived connections one after the other; the fullest backend's share over the mean.
///
/// # Errors
/// One failed, or the servers have another number of them.
pub fn balance(stage: &Stage, connections: usize) -> Result<f64> {
    let open =
        || (0..connections).map(|i| connect(stage.from(i), stage.target(HOLD, i))).collect::<Result<_>>();
    let streams: Vec<TcpStream> = stage.clients().run(open)?;
    let deadline = Instant::now() + PATIENCE;
    let counts = loop {
        let counts: Vec<usize> = stage.servers.iter().map(super::server::Server::held).collect();
        if counts.iter().sum::<usize>() == connections {
            break counts;
        }
        ensure!(Instant::now() < deadline, "{}: {counts:?} of {connections} connections", stage.name);
        std::thread::yield_now();
    };
    drop(streams);
    stage.servers.iter().for_each(super::server::Server::let_go);
    let fullest = counts.iter().max().copied().unwrap_or(0);
    Ok((fullest * counts.len()) as f64 / connections as f64)
}
