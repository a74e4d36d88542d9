//! The bounded queue between the hub and one socket.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

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
    behind: bool,
    waker: Option<Waker>,
    /// Those who wait for room.
    waiting: Vec<Waker>,
}

/// What the socket has to do.
#[derive(Debug)]
pub(crate) struct Taken {
    pub frames: VecDeque<Frame>,
    /// Tokens must be verified again.
    pub recheck: bool,
    /// Some channel has fallen behind and must read history.
    pub behind: bool,
}

/// The reader was too slow and frames were lost that cannot be read again: the socket must close.
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

    /// Queues a frame that cannot be had again. Past the bound everything queued is given up and the socket is told.
    pub fn push(&self, frame: Frame) {
        let mut queue = self.lock();
        if queue.overflown {
            return;
        }
        let len = frame.len();
        let too_many = queue.frames.len() >= self.max_frames;
        let too_large = !queue.frames.is_empty() && queue.bytes + len > self.max_bytes;
        if too_many || too_large {
            queue.overflow();
        } else {
            queue.bytes += len;
            queue.frames.push_back(frame);
        }
        queue.wake_socket();
    }

    /// Queues the frames of one change, all or none; `false` when there is no room. They may fill half the queue: what
    /// cannot be had again needs the rest.
    pub fn offer(&self, frames: &[Bytes]) -> bool {
        let mut queue = self.lock();
        if queue.overflown {
            // Nobody will read them, and nobody needs to try again.
            return true;
        }
        let len: usize = frames.iter().map(Bytes::len).sum();
        let fits = queue.frames.is_empty()
            || (queue.frames.len() + frames.len() <= self.max_frames / 2
                && queue.bytes + len <= self.max_bytes / 2);
        if !fits {
            return false;
        }
        queue.bytes += len;
        queue.frames.extend(frames.iter().cloned().map(Frame::Text));
        queue.wake_socket();
        true
    }

    /// Gives up everything queued and ends the socket.
    pub fn overflow(&self) {
        let mut queue = self.lock();
        queue.overflow();
        queue.wake_socket();
    }

    /// Tells the socket that one of its channels has fallen behind.
    pub fn ask_catch_up(&self) {
        let mut queue = self.lock();
        queue.behind = true;
        queue.wake_socket();
    }

    /// Waits until at most a quarter of the queue is taken.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.lock();
        if queue.frames.len() <= self.max_frames / 4 && queue.bytes <= self.max_bytes / 4 {
            return Poll::Ready(());
        }
        queue.waiting.push(cx.waker().clone());
        Poll::Pending
    }

    /// Asks the socket to verify its tokens again.
    pub fn ask_recheck(&self) {
        let mut queue = self.lock();
        queue.recheck = true;
        queue.wake_socket();
    }

    /// Takes everything queued, or waits for something.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Result<Taken, Overflown>> {
        let mut queue = self.lock();
        if queue.overflown {
            return Poll::Ready(Err(Overflown));
        }
        if queue.frames.is_empty() && !queue.recheck && !queue.behind {
            queue.wait(cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(Taken {
            frames: queue.take(),
            recheck: std::mem::take(&mut queue.recheck),
            behind: std::mem::take(&mut queue.behind),
        }))
    }

    /// Takes what is queued without waiting; `None` when frames were lost.
    pub fn take_now(&self) -> Option<VecDeque<Frame>> {
        let mut queue = self.lock();
        (!queue.overflown).then(|| queue.take())
    }

    /// Waits until the bound is passed. For the time in which the socket's task is busy writing.
    pub fn poll_overflown(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.lock();
        if queue.overflown {
            return Poll::Ready(());
        }
        queue.wait(cx);
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn overflow(&mut self) {
        self.overflown = true;
        self.take();
    }

    fn take(&mut self) -> VecDeque<Frame> {
        self.bytes = 0;
        for waker in std::mem::take(&mut self.waiting) {
            waker.wake();
        }
        std::mem::take(&mut self.frames)
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn wake_socket(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[tokio::test]
    async fn changes_take_half_the_queue_all_or_none_and_room_is_told() {
        let outbox = outbox(8, 1000);
        let frame = || Bytes::from_static(b"x");
        assert!(outbox.offer(&[frame(), frame(), frame()]));
        assert!(!outbox.offer(&[frame(), frame()]), "four are half");
        assert!(outbox.offer(&[frame()]));
        outbox.push(Frame::Text(frame()));
        let room = poll_fn(|cx| outbox.poll_room(cx));
        let taken = async {
            let taken = poll_fn(|cx| outbox.poll_take(cx)).await.expect("in bounds");
            assert_eq!(taken.frames.len(), 5);
        };
        tokio::join!(room, taken);
        assert!(outbox.offer(&vec![frame(); 20]), "alone it may be larger");
    }
}
