//! Servers and clients of the demo.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::{SigHandler, Signal, signal};

/// Undoes for a child what the parent ignores.
pub fn heed_signals(command: &mut Command) {
    // SAFETY: signal is async-signal-safe; nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(|| {
            for s in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
                signal(s, SigHandler::SigDfl)?;
            }
            Ok(())
        });
    }
}

/// A server that says who it is and then echoes.
pub fn serve(name: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", 80))?;
    let greeting = format!("{name}\n");
    for stream in listener.incoming() {
        let (mut stream, greeting) = (stream?, greeting.clone());
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
    let (stop, rounds, broken) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let traffic = {
        let (stop, rounds, broken) = (stop.clone(), rounds.clone(), broken.clone());
        std::thread::spawn(move || {
            let mut round = 0u64;
            while !stop.load(Ordering::Relaxed) {
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
            std::thread::yield_now();
        }
        println!("{} {}", rounds.load(Ordering::Relaxed), broken.load(Ordering::Relaxed));
    }
    stop.store(true, Ordering::Relaxed);
    let _ = traffic.join();
    Ok(())
}
