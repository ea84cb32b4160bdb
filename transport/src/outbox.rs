//! What waits to be written to one neighbour: bounded by bytes, the oldest frame dropped first. Messages beside frames are few and never dropped.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Messages beside frames that wait, at most; a neighbour that takes none of them is gone.
const MESSAGES_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    messages: VecDeque<Bytes>,
}

/// Frames and messages for one neighbour.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    bytes_max: usize,
}

/// Everything that waited.
#[derive(Debug)]
pub struct Taken {
    /// Messages, as they go over the wire.
    pub messages: VecDeque<Bytes>,
    /// Frames.
    pub frames: VecDeque<Bytes>,
}

impl Outbox {
    pub fn new(bytes_max: usize) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), bytes_max }
    }

    /// Adds a frame. Those that were dropped for it.
    pub fn push(&self, frame: Bytes) -> u64 {
        let mut queue = self.lock();
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        let mut dropped = 0;
        while queue.bytes > self.bytes_max && queue.frames.len() > 1 {
            let Some(oldest) = queue.frames.pop_front() else { break };
            queue.bytes -= oldest.len();
            dropped += 1;
        }
        drop(queue);
        self.filled.notify_one();
        dropped
    }

    /// Adds a message. False when too many wait.
    pub fn say(&self, message: Bytes) -> bool {
        let mut queue = self.lock();
        let room = queue.messages.len() < MESSAGES_MAX;
        if room {
            queue.messages.push_back(message);
        }
        drop(queue);
        self.filled.notify_one();
        room
    }

    /// Whether frames wait.
    pub fn has_frames(&self) -> bool {
        !self.lock().frames.is_empty()
    }

    /// Everything that waits, as soon as there is something.
    pub async fn take(&self) -> Taken {
        loop {
            {
                let mut queue = self.lock();
                if !queue.frames.is_empty() || !queue.messages.is_empty() {
                    queue.bytes = 0;
                    let (messages, frames) = (std::mem::take(&mut queue.messages), std::mem::take(&mut queue.frames));
                    return Taken { messages, frames };
                }
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here can panic half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
