//! What keeps an upload from taking more time or memory than a file needs.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

/// Nothing comes.
const SILENCE: Duration = Duration::from_secs(30);
/// All the waiting that is for nothing.
const GRACE: Duration = Duration::from_secs(60);
/// Bytes per second that make up for the waiting.
const SLOWEST: u64 = 8 * 1024;
/// What of a form is in memory beside its file: fields, the heads of its parts, what is not told apart yet.
const FORM: usize = 1024 * 1024;

/// How long a client may keep us waiting: a while, and longer for what it has sent. Only waiting counts, so that a slow
/// storage is not held against it.
#[derive(Default)]
pub struct Patience {
    waited: Duration,
    bytes: u64,
}

impl Patience {
    /// `None` if what is waited for did not come in time.
    pub async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Option<T> {
        let since = Instant::now();
        let result = tokio::time::timeout(self.left(), next).await.ok();
        self.waited += since.elapsed();
        result
    }

    /// Some bytes came.
    pub fn earn(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn left(&self) -> Duration {
        let earned = GRACE + Duration::from_secs(self.bytes / SLOWEST);
        earned.saturating_sub(self.waited).min(SILENCE)
    }
}

/// What a form keeps in memory, shared by its body and its reader.
#[derive(Default)]
pub struct FormMemory {
    held: AtomicUsize,
    is_discarding: AtomicBool,
}

impl FormMemory {
    /// Bytes of the file went on to where files are kept.
    pub fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// From now on nothing that comes is looked at.
    pub fn discard(&self) {
        self.is_discarding.store(true, Ordering::Relaxed);
    }
}

/// The body of a form. The parser gathers whatever it is given until it knows what it is, so it is given one piece at a
/// time, and no more than [`FORM`] that is not of the file.
pub struct FormBody<S> {
    body: S,
    memory: Arc<FormMemory>,
    gave: bool,
    /// Of what nobody looks at.
    discardable: usize,
}

impl<S> FormBody<S> {
    /// Reads up to `discardable` bytes once [`FormMemory::discard`] was called.
    pub fn new(body: S, memory: Arc<FormMemory>, discardable: usize) -> Self {
        Self {
            body,
            memory,
            gave: false,
            discardable,
        }
    }
}

impl<S, E> Stream for FormBody<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.gave) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let bytes = match ready!(this.body.poll_next_unpin(context)) {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                None => return Poll::Ready(None),
            };
            if this.memory.is_discarding.load(Ordering::Relaxed) {
                this.discardable = this.discardable.saturating_sub(bytes.len());
                if this.discardable == 0 {
                    return Poll::Ready(None);
                }
                continue;
            }
            this.gave = true;
            let before = this.memory.held.fetch_add(bytes.len(), Ordering::Relaxed);
            if before + bytes.len() > FORM {
                let message = format!("the form has more than {FORM} bytes beside its file");
                return Poll::Ready(Some(Err(io::Error::other(message))));
            }
            return Poll::Ready(Some(Ok(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    #[test]
    fn a_client_that_sends_slowly_runs_out_of_time_and_one_that_sends_does_not() {
        let mut patience = Patience::default();
        assert_eq!(patience.left(), SILENCE);
        // A byte now and then buys nothing.
        for _ in 0..2 {
            patience.waited += Duration::from_secs(29);
            patience.earn(1);
        }
        assert_eq!(patience.left(), Duration::from_secs(2));
        patience.waited += Duration::from_secs(2);
        assert_eq!(patience.left(), Duration::ZERO);
        patience.earn(10 * 8 * 1024);
        assert_eq!(patience.left(), Duration::from_secs(10));
        patience.earn(1_000_000);
        assert_eq!(patience.left(), SILENCE);
    }

    fn body(pieces: usize) -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin {
        let piece = Bytes::from(vec![0; FORM / 4]);
        stream::iter((0..pieces).map(move |_| Ok(piece.clone())))
    }

    #[tokio::test]
    async fn a_form_holds_so_much_and_its_file_does_not_count() {
        let memory = Arc::new(FormMemory::default());
        let mut all = FormBody::new(body(5), memory.clone(), FORM);
        for _ in 0..4 {
            assert!(all.next().await.unwrap().is_ok());
        }
        assert!(all.next().await.unwrap().is_err());

        let memory = Arc::new(FormMemory::default());
        let mut file = FormBody::new(body(100), memory.clone(), FORM);
        let mut read = 0;
        while let Some(bytes) = file.next().await {
            let bytes = bytes.unwrap();
            memory.release(bytes.len());
            read += bytes.len();
        }
        assert_eq!(read, 25 * FORM);
    }

    #[tokio::test]
    async fn what_is_discarded_is_read_up_to_a_limit_and_given_to_nobody() {
        let memory = Arc::new(FormMemory::default());
        let mut form = FormBody::new(body(100), memory.clone(), FORM);
        assert!(form.next().await.is_some());
        memory.discard();
        assert!(form.next().await.is_none());
        let (left, _) = form.body.size_hint();
        assert_eq!(left, 100 - 1 - 4);
    }
}
