//! Servers and clients of the demo.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use nix::sys::signal::SigSet;

use super::world::PORTS;

/// Between two rounds of data: connections that live for hours are mostly quiet, and the node's agent shares these CPUs.
const PAUSE: Duration = Duration::from_millis(10);

/// Lets a child get the signals that its parent holds back.
pub fn heed_signals(command: &mut Command, signals: SigSet) {
    // SAFETY: setting the mask is async-signal-safe; nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(move || Ok(signals.thread_unblock()?));
    }
}

/// A server that says who it is and then echoes. Prints a line once it listens.
pub fn serve(name: &str) -> anyhow::Result<()> {
    let listeners = PORTS.map(|port| TcpListener::bind(("0.0.0.0", port)));
    let mut accepting = Vec::new();
    for listener in listeners {
        let (listener, greeting) = (listener?, format!("{name}\n"));
        accepting.push(std::thread::spawn(move || accept(&listener, &greeting)));
    }
    println!("{name}");
    for thread in accepting {
        thread.join().map_err(|_| anyhow::anyhow!("a server's thread panicked"))??;
    }
    Ok(())
}

fn accept(listener: &TcpListener, greeting: &str) -> anyhow::Result<()> {
    for stream in listener.incoming() {
        let (mut stream, greeting) = (stream?, greeting.to_string());
        std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            let mut echo = || -> std::io::Result<()> {
                stream.set_nodelay(true)?;
                stream.write_all(greeting.as_bytes())?;
                let mut buffer = [0; 4096];
                loop {
                    match stream.read(&mut buffer)? {
                        0 => return Ok(()),
                        n => stream.write_all(&buffer[..n])?,
                    }
                }
            };
            // However it ends, it has ended.
            let _ = echo();
        })?;
    }
    Ok(())
}

/// Opens connections, says to whom, and then sends and checks data on all of them until its input ends. Each line of input is
/// answered with how it is going.
pub fn hold(address: &str, count: usize) -> anyhow::Result<()> {
    let mut conns = Vec::new();
    let mut spread: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        let (mut name, mut byte) = (String::new(), [0]);
        while byte[0] != b'\n' {
            stream.read_exact(&mut byte)?;
            name.push(byte[0].into());
        }
        *spread.entry(name.trim().into()).or_default() += 1;
        conns.push(stream);
    }
    let shown: Vec<String> = spread.iter().map(|(name, n)| format!("{name}={n}")).collect();
    println!("{}", shown.join(" "));
    let (rounds, broken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (stop, stopped) = mpsc::channel::<()>();
    let traffic = {
        let (rounds, broken) = (rounds.clone(), broken.clone());
        std::thread::spawn(move || {
            let mut round = 0u64;
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                round += 1;
                conns.retain_mut(|stream| {
                    let sent = [round.to_le_bytes(), (!round).to_le_bytes()].concat();
                    let mut received = vec![0; sent.len()];
                    let result = stream.write_all(&sent).and_then(|()| stream.read_exact(&mut received));
                    let good = result.is_ok() && sent == received;
                    broken.fetch_add(u64::from(!good), Ordering::Relaxed);
                    good
                });
                rounds.store(round, Ordering::Relaxed);
            }
        })
    };
    for line in std::io::stdin().lock().lines() {
        line?;
        // Whole rounds only: what was asked for after some event is answered by data that was exchanged after it.
        let target = rounds.load(Ordering::Relaxed) + 2;
        while rounds.load(Ordering::Relaxed) < target {
            std::thread::park_timeout(PAUSE);
        }
        println!("{} {}", rounds.load(Ordering::Relaxed), broken.load(Ordering::Relaxed));
    }
    drop(stop);
    let _ = traffic.join();
    Ok(())
}
