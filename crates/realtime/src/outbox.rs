//! The bounded queue between the hub and one socket.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::codec::Vsn;
use crate::limits::Limits;
use crate::socket::Frame;

/// Frames that wait for one socket. The hub pushes, the socket's task takes; neither waits for the other.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub vsn: Vsn,
    max_frames: usize,
    max_bytes: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    overflown: bool,
    recheck: bool,
    waker: Option<Waker>,
}

/// What the socket has to do.
#[derive(Debug)]
pub(crate) struct Taken {
    pub frames: VecDeque<Frame>,
    /// Tokens must be verified again.
    pub recheck: bool,
}

/// The reader was too slow and frames were lost: the socket must close, its client resumes elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflown;

impl Outbox {
    pub fn new(vsn: Vsn, limits: &Limits) -> Self {
        Self {
            vsn,
            max_frames: limits.queue_frames,
            max_bytes: limits.queue_bytes,
            queue: Mutex::default(),
        }
    }

    /// Queues a frame. Past the bound everything queued is given up and the socket is told.
    pub fn push(&self, frame: Frame) {
        let mut queue = self.lock();
        if queue.overflown {
            return;
        }
        let len = frame.len();
        let too_many = queue.frames.len() >= self.max_frames;
        let too_large = !queue.frames.is_empty() && queue.bytes + len > self.max_bytes;
        if too_many || too_large {
            queue.overflown = true;
            queue.frames = VecDeque::new();
            queue.bytes = 0;
        } else {
            queue.bytes += len;
            queue.frames.push_back(frame);
        }
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Asks the socket to verify its tokens again.
    pub fn ask_recheck(&self) {
        let mut queue = self.lock();
        queue.recheck = true;
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes everything queued, or waits for something.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Result<Taken, Overflown>> {
        let mut queue = self.lock();
        if queue.overflown {
            return Poll::Ready(Err(Overflown));
        }
        if queue.frames.is_empty() && !queue.recheck {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        queue.bytes = 0;
        Poll::Ready(Ok(Taken {
            frames: std::mem::take(&mut queue.frames),
            recheck: std::mem::take(&mut queue.recheck),
        }))
    }

    /// Takes what is queued without waiting; `None` when frames were lost.
    pub fn take_now(&self) -> Option<VecDeque<Frame>> {
        let mut queue = self.lock();
        queue.bytes = 0;
        (!queue.overflown).then(|| std::mem::take(&mut queue.frames))
    }

    /// Waits until the bound is passed. For the time in which the socket's task is busy writing.
    pub fn poll_overflown(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.lock();
        if queue.overflown {
            return Poll::Ready(());
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::future::poll_fn;

    fn outbox(queue_frames: usize, queue_bytes: usize) -> Outbox {
        let limits = Limits {
            queue_frames,
            queue_bytes,
            ..Limits::default()
        };
        Outbox::new(Vsn::V2, &limits)
    }

    #[tokio::test]
    async fn frames_come_out_in_order_and_all_at_once() {
        let outbox = outbox(10, 100);
        outbox.push(Frame::Text(Bytes::from_static(b"a")));
        outbox.push(Frame::Text(Bytes::from_static(b"b")));
        let taken = poll_fn(|cx| outbox.poll_take(cx)).await.expect("in bounds");
        assert_eq!(
            taken.frames,
            [
                Frame::Text(Bytes::from_static(b"a")),
                Frame::Text(Bytes::from_static(b"b"))
            ]
        );
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_told_to_go() {
        for outbox in [outbox(2, 1000), outbox(1000, 2)] {
            for _ in 0..3 {
                outbox.push(Frame::Text(Bytes::from_static(b"x")));
            }
            poll_fn(|cx| outbox.poll_overflown(cx)).await;
            assert_eq!(
                poll_fn(|cx| outbox.poll_take(cx)).await.err(),
                Some(Overflown)
            );
        }
    }

    #[tokio::test]
    async fn one_frame_above_the_bound_passes_when_nothing_else_waits() {
        let outbox = outbox(10, 2);
        outbox.push(Frame::Text(Bytes::from_static(b"large")));
        assert!(poll_fn(|cx| outbox.poll_take(cx)).await.is_ok());
    }
}
