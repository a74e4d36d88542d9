//! Many WebSocket clients in this process: they join, listen, and note when each frame came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::world::Message;

/// Connections opened at the same time; more would overflow the listener's queue.
const OPENING: usize = 64;
/// As supabase-js.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// Latencies are counted in tenths of a millisecond up to ten seconds.
const BUCKETS: usize = 100_000;
const BUCKETS_PER_MS: f64 = 10.0;
/// What stands before the time in a frame that is measured: microseconds of [`Clock`], as digits.
const MARK: &str = "sent@";
/// A message's id carries its number, which is the time.
const WAMID: &str = "wamid.";
/// Frames are small; the default buffers would take 128 KB a socket.
const BUFFER: usize = 2 * 1024;

/// What one client asks for.
pub struct Listener {
    /// Everything after the host.
    pub path: String,
    /// The channel it joins, with bindings; the bare server has none.
    pub join: Option<Value>,
}

/// The time in frames: microseconds since the run began.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The words that carry the time in a frame.
    pub fn stamp(self) -> String {
        format!("{MARK}{:012}", self.now())
    }

    /// Microseconds.
    pub fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// What has come so far, over all clients.
pub struct Heard {
    clock: Clock,
    deliveries: AtomicU64,
    bytes: AtomicU64,
    latencies: Vec<AtomicU32>,
}

impl Heard {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            deliveries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            latencies: (0..=BUCKETS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    fn note(&self, frame: &str) {
        let stamped = |mark: &str| frame.find(mark).and_then(|at| frame.get(at..));
        let of_stamp = || {
            stamped(MARK)?
                .get(MARK.len()..MARK.len() + 12)?
                .parse()
                .ok()
        };
        let of_webhook = || Message::number_of(stamped(WAMID)?);
        let Some(sent) = of_stamp().or_else(of_webhook) else {
            return;
        };
        let took_ms = self.clock.now().saturating_sub(sent) as f64 / 1000.0;
        let bucket = ((took_ms * BUCKETS_PER_MS) as usize).min(BUCKETS);
        self.latencies[bucket].fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    pub fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// Mean size of a measured frame.
    pub fn frame_bytes(&self) -> usize {
        let bytes = self.bytes.load(Ordering::Relaxed) as usize;
        bytes / (self.deliveries() as usize).max(1)
    }

    /// In milliseconds; `share` from 0 to 1.
    pub fn percentile(&self, share: f64) -> f64 {
        let wanted = (self.deliveries() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.latencies.iter().enumerate() {
            seen += u64::from(count.load(Ordering::Relaxed));
            if seen >= wanted.max(1) {
                return (bucket + 1) as f64 / BUCKETS_PER_MS;
            }
        }
        f64::NAN
    }

    /// Forgets what came, before the next case.
    pub fn clear(&self) {
        self.deliveries.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        for count in &self.latencies {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Waits until so many frames have come; an error says how many there were when the time was up.
    pub async fn wait_for(&self, deliveries: u64, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while self.deliveries() < deliveries {
            if Instant::now() > deadline {
                bail!(
                    "{} of {deliveries} deliveries came within {patience:?}",
                    self.deliveries()
                );
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// Clients that listen until they are dismissed.
pub struct Audience {
    pub heard: Arc<Heard>,
    readers: Vec<JoinHandle<()>>,
}

impl Audience {
    /// Connects all and returns when the last one has joined.
    pub async fn gather(
        server: SocketAddr,
        clock: Clock,
        listeners: Vec<Listener>,
    ) -> Result<Self> {
        let heard = Arc::new(Heard::new(clock));
        let mut readers = Vec::with_capacity(listeners.len());
        let mut opening = JoinSet::new();
        for listener in listeners {
            if opening.len() >= OPENING
                && let Some(socket) = opening.join_next().await
            {
                readers.push(tokio::spawn(listen(socket??, heard.clone())));
            }
            opening.spawn(open(server, listener));
        }
        while let Some(socket) = opening.join_next().await {
            readers.push(tokio::spawn(listen(socket??, heard.clone())));
        }
        Ok(Self { heard, readers })
    }

    /// Hangs up.
    pub async fn dismiss(self) {
        for reader in self.readers {
            reader.abort();
            // It was told to end; that it did so by being stopped is no news.
            let _ = reader.await;
        }
    }
}

type Socket = WebSocketStream<TcpStream>;

async fn open(server: SocketAddr, listener: Listener) -> Result<Socket> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let request = format!("ws://{server}{}", listener.path).into_client_request()?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0);
    let (mut socket, _) =
        tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    let Some(join) = listener.join else {
        return Ok(socket);
    };
    let join = json!(["1", "1", "realtime:bench", "phx_join", join]);
    socket.send(Frame::text(join.to_string())).await?;
    let wants_changes = join[4]["config"]["postgres_changes"]
        .as_array()
        .is_some_and(|bindings| !bindings.is_empty());
    loop {
        let frame = socket.next().await.context("the server hung up")??;
        let Frame::Text(text) = frame else { continue };
        let said: Value = serde_json::from_str(&text)?;
        let answered = said[3] == "phx_reply" && !wants_changes || said[3] == "system";
        if said[4]["status"] == "error" {
            bail!("the join was refused: {}", said[4]);
        }
        if answered {
            return Ok(socket);
        }
    }
}

async fn listen(mut socket: Socket, heard: Arc<Heard>) {
    let mut beat = tokio::time::interval(HEARTBEAT);
    beat.tick().await;
    loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Some(Ok(Frame::Text(text))) => heard.note(&text),
                Some(Ok(_)) => {}
                // Deliveries that do not come any more are missed by whoever counts them.
                Some(Err(_)) | None => return,
            },
            _ = beat.tick() => {
                let heartbeat = r#"[null,"2","phoenix","heartbeat",{}]"#;
                if socket.send(Frame::text(heartbeat)).await.is_err() {
                    return;
                }
            }
        }
    }
}
