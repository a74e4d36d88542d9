//! One socket from upgrade to close, over any transport that gives and takes frames.

pub(crate) mod messages;
mod rate;
mod requests;
mod session;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::codec::Vsn;
use crate::hub::Hub;
use crate::outbox::{Outbox, Overflown};
use session::Session;

/// How long the close frame may take.
const CLOSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// A WebSocket frame as this crate sees it. Pings and pongs are the transport's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Text. What this crate sends is UTF-8; what it receives is checked.
    Text(Bytes),
    Binary(Bytes),
    /// The end, with code 1000 or none.
    Close,
}

impl Frame {
    /// Size of the content in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes.len(),
            Self::Close => 0,
        }
    }

    /// True for a frame without content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What was known at the upgrade.
#[derive(Clone, Debug)]
pub struct ConnectParams {
    /// Protocol version asked for.
    pub vsn: Vsn,
    /// The `apikey` where it is a token that proves something: the token of joins that carry none.
    pub apikey: Option<Arc<str>>,
    /// The tenant named by the connection, for people in several and for keys of none.
    pub org_id: Option<Uuid>,
}

/// Why a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The client closed, or its connection ended or broke.
    Client,
    /// The client said nothing for too long.
    Idle,
    /// The client read nothing for too long, or too slowly for what cannot be read again.
    SlowReader,
    /// The channels ended for their tokens, and none was joined since.
    Unauthorized,
    /// This server is going down; the client will come back elsewhere.
    Shutdown,
}

enum Wake<E> {
    Shutdown,
    Queue(Result<crate::outbox::Taken, Overflown>),
    Inbound(Option<Result<Frame, E>>),
    Timer,
}

/// Serves one socket until it ends. Dropping the future leaves all its channels.
pub async fn run<S, E>(
    hub: Arc<Hub>,
    mut socket: S,
    params: ConnectParams,
    shutdown: CancellationToken,
) -> Disconnect
where
    S: Stream<Item = Result<Frame, E>> + Sink<Frame, Error = E> + Unpin + Send,
{
    let _open = OpenSocket::count(&hub);
    let outbox = Arc::new(Outbox::new(params.vsn, &hub.limits));
    let mut session = Session::new(hub.clone(), outbox.clone(), params);
    let limits = hub.limits;
    let mut cancelled = pin!(shutdown.cancelled());
    let mut heard_at = Instant::now();
    let mut timer = pin!(tokio::time::sleep(limits.idle));

    let reason = loop {
        let wake = tokio::select! {
            () = &mut cancelled => Wake::Shutdown,
            taken = poll_fn(|cx| outbox.poll_take(cx)) => Wake::Queue(taken),
            frame = socket.next() => Wake::Inbound(frame),
            () = &mut timer => Wake::Timer,
        };
        match wake {
            Wake::Shutdown => break Disconnect::Shutdown,
            Wake::Queue(Err(Overflown)) => break Disconnect::SlowReader,
            Wake::Queue(Ok(taken)) => {
                let write = write(&mut socket, taken.frames, &outbox, limits.write);
                if let Err(reason) = Box::pin(write).await {
                    break reason;
                }
                if taken.behind {
                    session.catch_up();
                }
                if taken.recheck {
                    Box::pin(session.recheck_all()).await;
                }
            }
            Wake::Inbound(Some(Ok(Frame::Close)) | Some(Err(_)) | None) => {
                break Disconnect::Client;
            }
            Wake::Inbound(Some(Ok(frame))) => {
                heard_at = Instant::now();
                // Boxed, as everything that an idle socket does not need: its memory is there only while it runs.
                Box::pin(session.handle(frame)).await;
            }
            Wake::Timer => {
                if heard_at + limits.idle <= Instant::now() {
                    break Disconnect::Idle;
                }
                if session.is_unauthorized() {
                    break Disconnect::Unauthorized;
                }
                Box::pin(session.check_due()).await;
            }
        }
        let due = session
            .next_check()
            .map_or(heard_at + limits.idle, |check| {
                check.min(heard_at + limits.idle)
            });
        // A deadline that moved away is looked at when the timer fires; only nearer ones set it anew.
        if timer.is_elapsed() || due < timer.deadline() {
            timer.as_mut().reset(due);
        }
    };

    match reason {
        Disconnect::Shutdown => {
            session.end_all();
            if let Some(frames) = outbox.take_now()
                && let Err(error) = write(&mut socket, frames, &outbox, CLOSE_TIMEOUT).await
            {
                tracing::debug!(?error, "a socket did not take its last frames");
            }
        }
        Disconnect::SlowReader => {
            hub.counters
                .slow_readers_cut
                .fetch_add(1, Ordering::Relaxed);
        }
        Disconnect::Unauthorized => {
            hub.counters
                .unauthorized_closed
                .fetch_add(1, Ordering::Relaxed);
        }
        Disconnect::Client | Disconnect::Idle => {}
    }
    drop(session);
    // The peer may be gone already; then there is nobody to tell.
    if timeout(CLOSE_TIMEOUT, socket.send(Frame::Close))
        .await
        .is_err()
    {
        tracing::debug!(?reason, "a socket did not take its close frame");
    }
    reason
}

/// Writes what is queued and flushes once, unless the reader falls behind meanwhile.
async fn write<S, E>(
    socket: &mut S,
    frames: VecDeque<Frame>,
    outbox: &Outbox,
    limit: std::time::Duration,
) -> Result<(), Disconnect>
where
    S: Sink<Frame, Error = E> + Unpin,
{
    if frames.is_empty() {
        return Ok(());
    }
    let write = async {
        for frame in frames {
            in_time(limit, socket.feed(frame)).await?;
        }
        in_time(limit, socket.flush()).await
    };
    tokio::select! {
        biased;
        written = write => written,
        () = poll_fn(|cx| outbox.poll_overflown(cx)) => Err(Disconnect::SlowReader),
    }
}

/// However slow a reader is: a frame must leave within the limit.
async fn in_time<E>(
    limit: std::time::Duration,
    write: impl Future<Output = Result<(), E>>,
) -> Result<(), Disconnect> {
    match timeout(limit, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Disconnect::Client),
        Err(_) => Err(Disconnect::SlowReader),
    }
}

/// Counts the socket as open while it lives.
struct OpenSocket<'a>(&'a AtomicU64);

impl<'a> OpenSocket<'a> {
    fn count(hub: &'a Hub) -> Self {
        hub.counters.sockets.fetch_add(1, Ordering::Relaxed);
        Self(&hub.counters.sockets)
    }
}

impl Drop for OpenSocket<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
