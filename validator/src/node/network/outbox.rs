//! What waits to be written to one peer: bounded by bytes, the oldest dropped first.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::node::frame::Wire;

/// Most bytes that wait for one peer: some proposals with all their contents.
pub const OUTBOX_BYTES_MAX: usize = 2 << 20;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Wire>,
    bytes: usize,
}

/// Frames for a peer.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

impl Outbox {
    /// Adds a frame, and says how many were dropped for it.
    pub fn push(&self, frame: Wire) -> u64 {
        let mut queue = self.lock();
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        let mut dropped = 0;
        while queue.bytes > OUTBOX_BYTES_MAX && queue.frames.len() > 1 {
            let Some(oldest) = queue.frames.pop_front() else { break };
            queue.bytes -= oldest.len();
            dropped += 1;
        }
        drop(queue);
        self.filled.notify_one();
        dropped
    }

    /// Everything that waits, as soon as there is something.
    pub async fn take(&self) -> VecDeque<Wire> {
        loop {
            let taken = std::mem::take(&mut *self.lock());
            if !taken.frames.is_empty() {
                return taken.frames;
            }
            self.filled.notified().await;
        }
    }

    /// Forgets everything: the peer is another one now, or has missed so much that it asks.
    pub fn clear(&self) {
        *self.lock() = Queue::default();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here can panic half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn what_is_too_much_drops_the_oldest() {
        let outbox = Outbox::default();
        let frame = |first: u8| -> Wire { Arc::new(vec![first; OUTBOX_BYTES_MAX / 4].into()) };
        let dropped: u64 = (0..6).map(|first| outbox.push(frame(first))).sum();
        assert_eq!(dropped, 2);
        let left: Vec<_> = outbox.take().await.iter().map(|frame| frame[0]).collect();
        assert_eq!(left, [2, 3, 4, 5]);
    }
}
