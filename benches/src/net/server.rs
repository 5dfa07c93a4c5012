//! Servers behind every contender: one process's threads, blocking, the same for all.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use flowpin_tests::harness::Ns;

use super::load::{SERVER_CPU, pin};

/// One byte each way, then the server closes.
pub const BRIEF: u16 = 9001;
/// Whatever comes goes back.
pub const ECHO: u16 = 9002;
/// Whatever comes is read and forgotten.
pub const SINK: u16 = 9003;
/// Connections are kept, and counted.
pub const HOLD: u16 = 9004;
/// UDP, received and never read.
pub const DATAGRAMS: u16 = 9005;
/// Whatever comes goes back, from whichever CPU the scheduler likes.
pub const REQUESTS: u16 = 9006;
/// All of them: port, and is it TCP?
pub const PORTS: [(u16, bool); 6] =
    [(BRIEF, true), (ECHO, true), (SINK, true), (HOLD, true), (DATAGRAMS, false), (REQUESTS, true)];

/// Threads that take brief connections.
const ACCEPTING: usize = 4;
/// Stack of a thread, in bytes.
pub const STACK: usize = 256 * 1024;

/// A server in a namespace. Its threads end with the process.
#[derive(Clone, Debug)]
pub struct Server {
    held: Arc<Mutex<Vec<TcpStream>>>,
    count: Arc<AtomicUsize>,
    _datagrams: Arc<UdpSocket>,
}

impl Server {
    /// Listens on [`PORTS`], IPv4.
    ///
    /// # Errors
    /// As sockets have them.
    pub fn start(ns: &Ns) -> Result<Self> {
        let listen = |port| ns.run(move || TcpListener::bind(("0.0.0.0", port)));
        let datagrams = ns.run(|| UdpSocket::bind(("0.0.0.0", DATAGRAMS)))?;
        let server = Self { held: Arc::default(), count: Arc::default(), _datagrams: Arc::new(datagrams) };
        let brief_listener = listen(BRIEF)?;
        for _ in 0..ACCEPTING {
            accept(brief_listener.try_clone()?, |stream| {
                // An error is the end of the connection, whichever way it came.
                let _ = brief(stream);
            })?;
        }
        accept(listen(ECHO)?, |stream| in_thread(stream, echo_pinned))?;
        accept(listen(REQUESTS)?, |stream| in_thread(stream, echo))?;
        accept(listen(SINK)?, |stream| in_thread(stream, sink))?;
        let kept = server.clone();
        accept(listen(HOLD)?, move |stream| {
            kept.held.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
            kept.count.fetch_add(1, Ordering::SeqCst);
        })?;
        Ok(server)
    }

    /// Connections it keeps.
    pub fn held(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Closes those.
    pub fn let_go(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.count.store(0, Ordering::SeqCst);
    }
}

fn accept(listener: TcpListener, mut then: impl FnMut(TcpStream) + Send + 'static) -> Result<()> {
    std::thread::Builder::new().stack_size(STACK).spawn(move || {
        for stream in listener.incoming().flatten() {
            then(stream);
        }
    })?;
    Ok(())
}

fn in_thread(stream: TcpStream, serve: fn(TcpStream) -> std::io::Result<()>) {
    // Without a thread the connection closes, and the client says so.
    let _ = std::thread::Builder::new().stack_size(STACK).spawn(move || serve(stream));
}

fn brief(mut stream: TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)
}

fn echo_pinned(stream: TcpStream) -> std::io::Result<()> {
    pin(SERVER_CPU).map_err(std::io::Error::other)?;
    echo(stream)
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(buffer.get(..n).unwrap_or_default())?,
        }
    }
}

fn sink(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    while stream.read(&mut buffer)? != 0 {}
    Ok(())
}
