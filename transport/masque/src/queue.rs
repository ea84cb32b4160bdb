//! Datagrams that wait, between a socket and a stream: one reader, any number of writers, and a limit in bytes.
//!
//! What does not fit is given back, never put in place of an older one, so a writer knows what it dropped. The last datagram may reach
//! past the limit, by less than [`PAYLOAD_BYTES_MAX`](crate::PAYLOAD_BYTES_MAX): whether there is room does not depend on what comes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

/// What each datagram is counted with besides its bytes, so that empty ones do not wait in any number.
const ENTRY_BYTES: usize = 64;

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    Closed,
}

#[derive(Debug, Default)]
struct Waiting {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
    reader: Option<Waker>,
    /// Bounded by the tasks that write, for each waits once.
    writers: Vec<Waker>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    bytes_max: usize,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `datagram` behind the others.
    ///
    /// # Errors
    /// When there is no room, or nobody reads any more.
    pub(crate) fn push(&self, datagram: Bytes) -> Result<(), NotTaken> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(NotTaken::Closed);
        }
        if waiting.bytes >= self.bytes_max {
            return Err(NotTaken::Full);
        }
        waiting.bytes += datagram.len() + ENTRY_BYTES;
        waiting.datagrams.push_back(datagram);
        let reader = waiting.reader.take();
        drop(waiting);
        reader.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn take(&self, mut waiting: MutexGuard<'_, Waiting>) -> Option<Bytes> {
        let datagram = waiting.datagrams.pop_front()?;
        waiting.bytes -= datagram.len() + ENTRY_BYTES;
        let writers = std::mem::take(&mut waiting.writers);
        drop(waiting);
        writers.into_iter().for_each(Waker::wake);
        Some(datagram)
    }

    /// The oldest datagram, or none when the queue is closed and empty.
    pub(crate) fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut waiting = self.lock();
        if waiting.datagrams.is_empty() && !waiting.closed {
            waiting.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(self.take(waiting))
    }

    /// As [`Queue::poll_pop`].
    pub(crate) async fn pop(&self) -> Option<Bytes> {
        poll_fn(|context| self.poll_pop(context)).await
    }

    /// The oldest datagram, if one waits.
    pub(crate) fn try_pop(&self) -> Option<Bytes> {
        self.take(self.lock())
    }

    /// Ready when there is room, or never will be again.
    pub(crate) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.bytes < self.bytes_max {
            return Poll::Ready(());
        }
        if !waiting.writers.iter().any(|writer| writer.will_wake(context.waker())) {
            waiting.writers.push(context.waker().clone());
        }
        Poll::Pending
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().datagrams.is_empty()
    }

    /// Bytes that wait, each datagram counted with [`ENTRY_BYTES`].
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Nothing more is taken; what waits can still be read. Everyone who waits is woken.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let wakers = std::mem::take(&mut waiting.writers).into_iter().chain(waiting.reader.take());
        drop(waiting);
        wakers.for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_given_back_and_room_comes_with_reading() {
        let queue = Queue::new(1000);
        let mut context = Context::from_waker(Waker::noop());
        let taken = (0..100).filter(|_| queue.push(Bytes::from_static(&[7; 136])).is_ok()).count();
        assert_eq!((taken, queue.bytes()), (5, 1000));
        assert_eq!(queue.push(Bytes::new()), Err(NotTaken::Full));
        assert_eq!(queue.poll_room(&mut context), Poll::Pending);
        assert!(queue.try_pop().is_some());
        assert_eq!(queue.poll_room(&mut context), Poll::Ready(()));
        assert_eq!(queue.push(Bytes::new()), Ok(()));
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_ends() {
        let queue = Queue::new(1000);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(queue.poll_pop(&mut context), Poll::Pending);
        assert_eq!(queue.push(Bytes::from_static(b"one")), Ok(()));
        queue.close();
        assert_eq!(queue.push(Bytes::from_static(b"two")), Err(NotTaken::Closed));
        assert_eq!(queue.poll_pop(&mut context), Poll::Ready(Some(Bytes::from_static(b"one"))));
        assert_eq!(queue.poll_pop(&mut context), Poll::Ready(None));
    }
}
