//! A TCP server that says who it is and then echoes. It knows how many connections it has.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use socket2::{Domain, Socket, Type};

use super::Ns;

/// A byte that asks the server to reset the connection.
pub const PLEASE_RESET: u8 = 0xff;
/// A byte that asks it to close its side first.
pub const PLEASE_CLOSE: u8 = 0xfe;

/// A server in a namespace. Its threads end with the process.
#[derive(Clone, Debug)]
pub struct Server {
    open: Arc<AtomicUsize>,
}

impl Server {
    /// Listens on these ports, both families, and introduces itself as `name`.
    pub fn start(ns: &Ns, name: &str, ports: impl IntoIterator<Item = u16>) -> Self {
        let server = Self { open: Arc::default() };
        let ports: Vec<u16> = ports.into_iter().collect();
        let listeners: Vec<TcpListener> = ns.run(|| ports.into_iter().map(listen).collect());
        for listener in listeners {
            let (open, greeting) = (server.open.clone(), format!("{name}\n"));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(stream) = stream else { continue };
                    open.fetch_add(1, Ordering::SeqCst);
                    let (open, greeting) = (open.clone(), greeting.clone());
                    let serve = move || {
                        // An error is the end of the connection, whichever way it came.
                        let _ = serve(stream, greeting.as_bytes());
                        open.fetch_sub(1, Ordering::SeqCst);
                    };
                    std::thread::Builder::new().stack_size(64 * 1024).spawn(serve).expect("a thread");
                }
            });
        }
        server
    }

    /// Connections that the server has.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

fn listen(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.set_only_v6(false).expect("both families");
    socket.bind(&SocketAddr::from(([0u16; 8], port)).into()).expect("bind");
    socket.listen(4096).expect("listen");
    socket.into()
}

fn serve(mut stream: TcpStream, greeting: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(greeting)?;
    let mut buffer = [0; 16 * 1024];
    loop {
        let n = stream.read(&mut buffer)?;
        match buffer.get(..n) {
            Some([]) | None => return Ok(()),
            Some([PLEASE_RESET]) => {
                return socket2::SockRef::from(&stream).set_linger(Some(Default::default()));
            }
            Some([PLEASE_CLOSE]) => return Ok(()),
            Some(data) => stream.write_all(data)?,
        }
    }
}
