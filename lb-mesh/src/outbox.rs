//! What is still to be sent to a node. Bounded: if the node is too slow, the oldest is dropped, since later frames say
//! more. Whoever misses one of the numbered totals or reports asks for all of it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

/// Most frames that wait.
const FRAMES: usize = 1_024;
/// Most bytes that wait; a single frame may have more.
const BYTES: usize = 4 << 20;
/// What is written at once, about.
pub(crate) const PORTION: usize = 64 << 10;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

impl Outbox {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame last. How many were dropped for it.
    pub(crate) fn push(&self, frame: Bytes) -> u64 {
        let mut dropped = 0;
        let mut queue = self.queue();
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        while queue.frames.len() > 1 && (queue.frames.len() > FRAMES || queue.bytes > BYTES) {
            let first = queue.frames.pop_front().unwrap_or_default();
            queue.bytes -= first.len();
            dropped += 1;
        }
        drop(queue);
        self.filled.notify_one();
        dropped
    }

    /// Waits for frames, and moves some of them into `buffer`, which has no more than `most` bytes then unless a single
    /// frame has. How many.
    pub(crate) async fn take(&self, buffer: &mut BytesMut, most: usize) -> u64 {
        loop {
            let taken = self.take_now(buffer, most);
            if taken != 0 {
                return taken;
            }
            self.filled.notified().await;
        }
    }

    fn take_now(&self, buffer: &mut BytesMut, most: usize) -> u64 {
        let mut queue = self.queue();
        let mut taken = 0;
        let fits = |buffer: &BytesMut, frame: &Bytes| buffer.is_empty() || buffer.len() + frame.len() <= most;
        while let Some(frame) = queue.frames.pop_front_if(|frame| fits(buffer, frame)) {
            queue.bytes -= frame.len();
            buffer.extend_from_slice(&frame);
            taken += 1;
        }
        taken
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.queue().frames.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_are_dropped_by_number_and_by_size() {
        let outbox = Outbox::default();
        let number = |i: usize| Bytes::from(i.to_be_bytes().to_vec());
        assert_eq!((0..FRAMES + 3).map(|i| outbox.push(number(i))).sum::<u64>(), 3);
        let mut buffer = BytesMut::new();
        assert_eq!(outbox.take(&mut buffer, PORTION).await, FRAMES as u64);
        assert_eq!(&buffer[..8], 3usize.to_be_bytes());

        let large = Bytes::from(vec![0; BYTES / 2]);
        assert_eq!([0; 3].map(|_| outbox.push(large.clone())), [0, 0, 1]);
        assert_eq!(outbox.push(Bytes::from(vec![1; BYTES + 1])), 2, "one goes however large it is");
        buffer.clear();
        assert_eq!((outbox.take(&mut buffer, PORTION).await, buffer.len()), (1, BYTES + 1));
        assert_eq!(outbox.len(), 0);
    }

    #[tokio::test]
    async fn no_more_is_taken_than_fits() {
        let outbox = Outbox::default();
        for length in [40, 60, 1, 101] {
            assert_eq!(outbox.push(Bytes::from(vec![0; length])), 0);
        }
        let mut buffer = BytesMut::new();
        for expected in [(2, 100), (1, 1), (1, 101)] {
            assert_eq!((outbox.take(&mut buffer, 100).await, buffer.len()), expected);
            buffer.clear();
        }
    }
}
