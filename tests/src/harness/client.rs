//! A TCP client that knows its backend and checks every byte.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

/// How long a byte may take. A connection that is lost never answers; a busy machine may take its time, and is not what is tested.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection through a VIP.
#[derive(Debug)]
pub struct Conn {
    /// The stream.
    pub stream: TcpStream,
    /// Who answered.
    pub backend: String,
    seed: u64,
}

/// `address:port`, brackets for IPv6.
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

impl Conn {
    /// Connects and hears who is there.
    ///
    /// # Errors
    /// As sockets have them; nothing for [`PATIENCE`] is one.
    pub fn open(to: SocketAddr) -> std::io::Result<Self> {
        Self::from_stream(TcpStream::connect_timeout(&to, PATIENCE)?)
    }

    /// The same from an address and port of the client's; port 0: any. Connections to several servers may share it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_from(from: SocketAddr, to: SocketAddr) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Self::from_stream(socket.into())
    }

    /// Hears who is there on a connection that was made otherwise.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_stream(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut conn = Self { seed: stream.local_addr()?.port().into(), stream, backend: String::new() };
        let mut byte = [0];
        loop {
            conn.stream.read_exact(&mut byte)?;
            if byte[0] == b'\n' {
                return Ok(conn);
            }
            conn.backend.push(byte[0].into());
        }
    }

    /// Sends `len` bytes that nobody could guess and insists on getting them back.
    ///
    /// # Errors
    /// As sockets have them; other bytes are [`InvalidData`](std::io::ErrorKind::InvalidData).
    pub fn exchange(&mut self, len: usize) -> std::io::Result<()> {
        let mut sent = Vec::with_capacity(len + 8);
        while sent.len() < len {
            // xorshift64; never a lone command byte, since at least 8 bytes are sent.
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            sent.extend_from_slice(&self.seed.to_le_bytes());
        }
        self.stream.write_all(&sent)?;
        let mut received = vec![0; sent.len()];
        self.stream.read_exact(&mut received)?;
        if sent == received {
            Ok(())
        } else {
            Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "other bytes"))
        }
    }

    /// Resets the connection.
    ///
    /// # Errors
    /// As sockets have them.
    pub fn reset(self) -> std::io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }
}
