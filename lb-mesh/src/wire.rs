//! Frames on a stream: 4 bytes of length, most significant first, a byte that says which side of the node it is for,
//! and the frame as [`lb_cluster::frame`] has it. The length is that of all but itself; 0 and nothing behind it: here
//! I am.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use lb_cluster::frame::{Frame, FrameError, MAX_FRAME, length_allowed};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

/// How often each end of a connection says that it is there, if it has nothing else to say.
pub(crate) const ALIVE: Duration = Duration::from_secs(1);
/// A connection on which nothing has come for so long is given up.
pub(crate) const SILENT: Duration = Duration::from_secs(3);
/// An end says that it is there.
pub(crate) const HERE: [u8; 4] = [0; 4];

const LENGTH: usize = 4;
/// What is read at once.
const PORTION: usize = 16 << 10;

/// Which of a node's state machines a frame is for: `Ask` may be for either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Side {
    /// The owner's.
    Owner = 0,
    /// The agent's.
    Agent = 1,
}

/// A frame as it goes over the line.
///
/// # Errors
/// The other end wouldn't take it.
pub(crate) fn pack(side: Side, frame: &Frame) -> Result<Bytes, FrameError> {
    let frame = frame.encode()?;
    let mut bytes = BytesMut::with_capacity(LENGTH + 1 + frame.len());
    bytes.put_u32(1 + frame.len() as u32);
    bytes.put_u8(side as u8);
    bytes.extend_from_slice(&frame);
    Ok(bytes.freeze())
}

/// What [`Reader::next`] has found, without its length: any bytes at all.
pub(crate) fn unpack(bytes: &[u8]) -> Result<(Side, Frame), String> {
    let (side, frame) = match bytes.split_first() {
        Some((0, frame)) => (Side::Owner, frame),
        Some((1, frame)) => (Side::Agent, frame),
        Some((side, _)) => return Err(format!("a frame for side {side} of the node, there are 0 and 1")),
        None => return Err(FrameError::Empty.to_string()),
    };
    Ok((side, Frame::decode(frame).map_err(|error| error.to_string())?))
}

/// Takes the next frame from a whole number of them, still packed; empty: the other end is there. `None`: there are no
/// more.
///
/// # Errors
/// What is left are no frames.
pub(crate) fn take(bytes: &mut Bytes) -> Result<Option<Bytes>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let Some(length) = bytes.first_chunk::<LENGTH>() else {
        return Err(format!("{} bytes where a frame should begin", bytes.len()));
    };
    let length = u32::from_be_bytes(*length) as usize;
    bytes.advance(LENGTH);
    if length > bytes.len() {
        return Err(format!("a frame of {length} bytes, of which {} are there", bytes.len()));
    }
    Ok(Some(bytes.split_to(length)))
}

/// Why no more frames can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The other end has closed the connection, or its kernel has.
    #[error("{0}")]
    Closed(String),
    /// It said nothing for [`SILENT`].
    #[error("the other end has said nothing for {SILENT:?}")]
    Silent,
    /// What it says are no frames.
    #[error(transparent)]
    Malformed(FrameError),
}

/// Reads frames.
pub(crate) struct Reader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame, still packed; empty: the other end is there. No more memory is set aside than for what has come.
    /// What was read is kept if the future is dropped.
    ///
    /// # Errors
    /// There are no more.
    pub(crate) async fn next(&mut self) -> Result<Bytes, ReadError> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<LENGTH>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > MAX_FRAME {
                    length_allowed(length - 1).map_err(ReadError::Malformed)?;
                }
                if let Some(rest) = self.buffer.len().checked_sub(LENGTH)
                    && rest >= length
                {
                    self.buffer.advance(LENGTH);
                    return Ok(self.buffer.split_to(length).freeze());
                }
            }
            self.buffer.reserve(PORTION);
            match timeout(SILENT, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(ReadError::Closed("the other end has closed the connection".into())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(ReadError::Closed(error.to_string())),
                Err(_) => return Err(ReadError::Silent),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_cluster::{NodeId, ServiceKey, frame::Subscribe};
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn frames_come_as_they_were_sent_in_any_portions() {
        let frame = |node| Frame::Subscribe(Subscribe { node: NodeId(node), service: ServiceKey(7) });
        let sent = [(Side::Owner, frame(1)), (Side::Agent, frame(2))];
        let mut bytes = HERE.to_vec();
        for (side, frame) in &sent {
            bytes.extend_from_slice(&pack(*side, frame).unwrap());
        }
        for portion in [1, 3, 7, bytes.len()] {
            let (mut to, from) = tokio::io::duplex(portion);
            let mut reader = Reader::new(from);
            let write = async {
                for portion in bytes.chunks(portion) {
                    to.write_all(portion).await.unwrap();
                }
                drop(to);
            };
            let read = async {
                assert!(reader.next().await.unwrap().is_empty());
                for (side, frame) in &sent {
                    assert_eq!(unpack(&reader.next().await.unwrap()), Ok((*side, frame.clone())));
                }
                assert!(matches!(reader.next().await, Err(ReadError::Closed(_))));
            };
            tokio::join!(write, read);
        }
    }

    #[tokio::test]
    async fn memory_is_set_aside_for_what_has_come_and_never_for_too_much() {
        for (length, fits) in [(1 + MAX_FRAME as u32, true), (2 + MAX_FRAME as u32, false), (u32::MAX, false)]
        {
            let (mut to, from) = tokio::io::duplex(64);
            let mut reader = Reader::new(from);
            to.write_all(&length.to_be_bytes()).await.unwrap();
            drop(to);
            let error = reader.next().await.unwrap_err();
            assert_eq!(matches!(error, ReadError::Closed(_)), fits, "{length}: {error}");
            assert!(reader.buffer.capacity() <= 2 * PORTION);
        }
    }
}
