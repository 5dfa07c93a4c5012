//! The other end of a check's stream: what is sent to it, and what came, within bounds.

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::text::excerpt;

/// Most bytes that a check reads of one answer, or, of a database, in all: 16 KiB. Enough for any answer that is to
/// the point, and nothing that a backend which never stops could fill a node's memory with.
pub const MOST_READ: usize = 16 << 10;

/// A connected backend.
pub struct Peer<S> {
    stream: S,
    /// What came and hasn't been taken.
    came: Vec<u8>,
    /// What was taken.
    taken: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, came: Vec::new(), taken: 0 }
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// The backend is gone. Its last words, which often say why, are told.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let Err(error) = sent.await else { return Ok(()) };
        // It doesn't take anything any more: so this ends.
        while matches!(self.more().await, Ok(true)) {}
        if self.came.is_empty() {
            return Err(format!("takes nothing: {error}"));
        }
        Err(format!("takes nothing: {error}; it had answered {}", excerpt(&self.came)))
    }

    /// Says goodbye and ends this direction. How the check came out is known by now, so that nothing here can change
    /// it.
    pub async fn leave(&mut self, farewell: &[u8]) {
        if self.stream.write_all(farewell).await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    /// What came and hasn't been taken.
    pub fn came(&self) -> &[u8] {
        &self.came
    }

    /// Takes the first `n` bytes, or all if there are fewer.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        let n = n.min(self.came.len());
        self.taken += n;
        self.came.drain(..n).collect()
    }

    /// Takes what came, and counts anew.
    pub fn forget(&mut self) {
        self.came.clear();
        self.taken = 0;
    }

    /// Reads some more. False: the backend has closed.
    ///
    /// # Errors
    /// The connection failed, or [`MOST_READ`] bytes have been read.
    pub async fn more(&mut self) -> Result<bool, String> {
        let left = MOST_READ.saturating_sub(self.taken + self.came.len());
        if left == 0 {
            return Err(format!("answers more than {} KiB", MOST_READ >> 10));
        }
        let read = (&mut self.stream).take(left as u64).read_buf(&mut self.came).await;
        match read {
            Ok(n) => Ok(n > 0),
            Err(error) if self.came.is_empty() && error.kind() == ErrorKind::TimedOut => {
                Err(error.to_string())
            }
            Err(error) if self.came.is_empty() => Err(format!("no answer: {error}")),
            Err(error) => Err(format!("answers {}, then: {error}", excerpt(&self.came))),
        }
    }

    /// Reads until `n` bytes are there, and takes them.
    ///
    /// # Errors
    /// Fewer came.
    pub async fn exactly(&mut self, n: usize) -> Result<Vec<u8>, String> {
        while self.came.len() < n {
            if !self.more().await? {
                return Err(self.closed());
            }
        }
        Ok(self.take(n))
    }

    /// It closed before its answer was whole: why that is a failure.
    pub fn closed(&self) -> String {
        if self.came.is_empty() {
            "closes without an answer".into()
        } else {
            format!("closes after {}", excerpt(&self.came))
        }
    }
}
