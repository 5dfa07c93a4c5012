//! The journal of systemd, by its own protocol: a datagram for each entry, fields by name (systemd.io/JOURNAL_NATIVE_PROTOCOL).

use std::{
    io::{self, Write as _},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    time::Duration,
};

use super::{block::Block, line, queue::Entry};

/// Where it listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// How long it may take to take an entry.
const WAIT: Duration = Duration::from_secs(1);
/// What entries of ended connections have in common: `journalctl MESSAGE_ID=...`.
const ENDED: &str = "5d0e2f6c8a1b4c7d9e3f60718293a4b5";
/// And those that say what is missing.
const LOST: &str = "5d0e2f6c8a1b4c7d9e3f60718293a4b6";

/// See the module.
pub struct Journal {
    path: PathBuf,
    open: Option<UnixDatagram>,
}

impl Default for Journal {
    fn default() -> Self {
        Self::at(SOCKET.into())
    }
}

impl Journal {
    const fn at(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Has it connect anew.
    pub fn forget(&mut self) {
        self.open = None;
    }

    fn open(&mut self) -> io::Result<&UnixDatagram> {
        if self.open.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(WAIT))?;
            socket.connect(&self.path)?;
            self.open = Some(socket);
        }
        self.open.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Writes what is left of the block.
    ///
    /// # Errors
    /// Not all of it could be written; the block says how much was.
    pub fn write(&mut self, block: &mut Block) -> io::Result<()> {
        let mut text = Vec::new();
        while let Some((entry, line)) = block.first() {
            text.clear();
            fields(&mut text, entry, line)?;
            match self.open()?.send(&text) {
                Ok(_) => block.next(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    if e.kind() != io::ErrorKind::WouldBlock {
                        self.forget();
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

/// An entry. Nothing in it has more than one line.
fn fields(text: &mut Vec<u8>, entry: &Entry, line: &[u8]) -> io::Result<()> {
    text.extend_from_slice(b"MESSAGE=");
    text.extend_from_slice(line);
    match entry {
        Entry::Ended(record) => {
            let (service, client, backend) = (&record.service, line::client(record), line::backend(record));
            write!(
                text,
                "\nPRIORITY=6\nMESSAGE_ID={ENDED}\nFLOWPIN_SERVICE={service}\nFLOWPIN_BACKEND={backend}"
            )?;
            let (client, end) = (client.ip(), line::termination(record.event.what));
            write!(text, "\nFLOWPIN_CLIENT_IP={client}\nFLOWPIN_TERMINATION={end}")?;
        }
        Entry::Lost { .. } => write!(text, "\nPRIORITY=4\nMESSAGE_ID={LOST}")?,
    }
    text.extend_from_slice(b"\nSYSLOG_IDENTIFIER=flowpin\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::block::tests::block, *};

    #[test]
    fn each_entry_is_a_datagram_with_fields() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let mut journal = Journal::at(path.clone());
        let mut two = block(2);
        assert!(journal.write(&mut two).is_err(), "nobody is there");
        let there = UnixDatagram::bind(&path).expect("a socket");
        journal.write(&mut two).expect("written");
        assert!(two.is_done());
        let mut got = Vec::new();
        for _ in 0..3 {
            let mut text = [0; 4096];
            let count = there.recv(&mut text).expect("a datagram");
            got.push(String::from_utf8(text[..count].to_vec()).expect("text"));
        }
        for text in &got {
            assert!(text.starts_with("MESSAGE={") && text.ends_with("\n"), "{text}");
            assert!(text.lines().all(|line| line.contains('=')), "{text}");
        }
        for field in
            ["PRIORITY=6", "FLOWPIN_SERVICE=", "FLOWPIN_CLIENT_IP=0.0.0.0", "FLOWPIN_TERMINATION=finished"]
        {
            assert!(got[1].lines().any(|line| line == field), "{field}: {}", got[1]);
        }
        assert!(got[1].contains("\"bytes_in\":1,"), "{}", got[1]);
        assert!(got[2].contains("\"lost\":3") && got[2].contains("\nPRIORITY=4\n"), "{}", got[2]);
        // One that went and came again.
        drop(there);
        std::fs::remove_file(&path).expect("removed");
        let mut one = block(1);
        assert!(journal.write(&mut one).is_err(), "it is gone");
        let _there = UnixDatagram::bind(&path).expect("a socket");
        journal.write(&mut one).expect("written");
    }
}
