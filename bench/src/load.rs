//! The load: closed loop (each connection sends its next message when the last is answered) and open loop (messages
//! are due at a fixed rate, whatever the answers do).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::world::{Message, World};

/// One in so many messages is a repeat of an earlier one, as when Meta did not hear our answer.
const REPEATS: u32 = 50;

/// Sends one message and returns whether it was acknowledged.
pub trait Sender: Send + 'static {
    fn send(&mut self, message: Message) -> impl Future<Output = Result<bool>> + Send;
}

/// What was sent and how long each answer took.
#[derive(Debug, Default)]
pub struct Sent {
    /// Microseconds: closed loop from sending, open loop from when it was due.
    pub latencies: Vec<u32>,
    /// Numbers of acknowledged messages, each once.
    pub acknowledged: Vec<u64>,
    pub repeats: u64,
    /// Not acknowledged.
    pub refused: u64,
    pub elapsed: Duration,
}

impl Sent {
    pub fn answers(&self) -> usize {
        self.latencies.len()
    }

    pub fn per_second(&self) -> f64 {
        self.answers() as f64 / self.elapsed.as_secs_f64()
    }

    /// In milliseconds; `share` from 0 to 1.
    pub fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index =
            ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(index).map_or(0.0, |us| f64::from(*us) / 1000.0)
    }

    pub fn absorb(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.acknowledged.extend(other.acknowledged);
        self.repeats += other.repeats;
        self.refused += other.refused;
    }
}

/// The numbers one connection gives to its messages.
struct Numbers {
    next: u64,
    random: SmallRng,
    sent: Sent,
}

impl Numbers {
    /// `case` and `connection` keep the numbers of a run apart.
    fn new(case: u16, connection: u16) -> Self {
        let next = (u64::from(case) << 48) | (u64::from(connection) << 32);
        Self {
            next,
            random: SmallRng::seed_from_u64(next),
            sent: Sent::default(),
        }
    }

    /// A new number, or now and then one that was acknowledged already.
    fn choose(&mut self) -> (u64, bool) {
        let known = &self.sent.acknowledged;
        if !known.is_empty() && self.random.random_range(0..REPEATS) == 0 {
            return (known[self.random.random_range(0..known.len())], true);
        }
        self.next += 1;
        (self.next, false)
    }

    fn note(&mut self, number: u64, repeated: bool, acknowledged: bool, took: Duration) {
        self.sent
            .latencies
            .push(took.as_micros().try_into().unwrap_or(u32::MAX));
        match (acknowledged, repeated) {
            (true, false) => self.sent.acknowledged.push(number),
            (true, true) => self.sent.repeats += 1,
            (false, _) => self.sent.refused += 1,
        }
    }
}

/// Sends from each of `senders` without pause for `length`.
pub async fn closed<S: Sender>(
    world: &Arc<World>,
    senders: Vec<S>,
    case: u16,
    length: Duration,
) -> Result<Sent> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (connection, mut sender) in (0..).zip(senders) {
        let world = world.clone();
        tasks.spawn(async move {
            let mut numbers = Numbers::new(case, connection);
            while started.elapsed() < length {
                let (number, repeated) = numbers.choose();
                let begun = Instant::now();
                let acknowledged = sender.send(world.message(number)).await?;
                numbers.note(number, repeated, acknowledged, begun.elapsed());
            }
            anyhow::Ok(numbers.sent)
        });
    }
    gather(tasks, started).await
}

/// Messages are due every 1/`rate` seconds for `length`; whichever of `senders` is free takes the next. When all are
/// busy it waits, and that counts: a slow answer is not hidden by sending less.
pub async fn open<S: Sender>(
    world: &Arc<World>,
    senders: Vec<S>,
    case: u16,
    rate: u32,
    length: Duration,
) -> Result<Sent> {
    let total = u64::from(rate) * length.as_millis() as u64 / 1000;
    let due = Arc::new(Semaphore::new(0));
    let taken = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let due_at =
        move |slot: u64| started + Duration::from_nanos(slot * 1_000_000_000 / u64::from(rate));
    let mut tasks = JoinSet::new();
    for (connection, mut sender) in (0..).zip(senders) {
        let (world, due, taken) = (world.clone(), due.clone(), taken.clone());
        tasks.spawn(async move {
            let mut numbers = Numbers::new(case, connection);
            loop {
                due.acquire().await?.forget();
                let slot = taken.fetch_add(1, Ordering::Relaxed);
                if slot >= total {
                    return Ok(numbers.sent);
                }
                let (number, repeated) = numbers.choose();
                let acknowledged = sender.send(world.message(number)).await?;
                numbers.note(number, repeated, acknowledged, due_at(slot).elapsed());
            }
        });
    }
    let connections = tasks.len();
    // A thread of its own: the runtime's timers are too coarse for this.
    let abandoned = Arc::new(AtomicBool::new(false));
    let pacer = std::thread::spawn({
        let abandoned = abandoned.clone();
        move || {
            for slot in 0..total {
                if abandoned.load(Ordering::Relaxed) {
                    return;
                }
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a thread of its own, and finer than a timer"
                )]
                std::thread::sleep(due_at(slot).saturating_duration_since(Instant::now()));
                due.add_permits(1);
            }
            due.add_permits(connections);
        }
    });
    let sent = gather(tasks, started).await;
    abandoned.store(true, Ordering::Relaxed);
    if pacer.join().is_err() {
        bail!("the pacing thread failed");
    }
    sent
}

async fn gather(mut tasks: JoinSet<Result<Sent>>, started: Instant) -> Result<Sent> {
    let mut all = Sent::default();
    while let Some(sent) = tasks.join_next().await {
        all.absorb(sent??);
    }
    all.elapsed = started.elapsed();
    Ok(all)
}

/// A keep-alive HTTP connection that posts webhooks.
pub struct Http {
    world: Arc<World>,
    stream: TcpStream,
    request: Vec<u8>,
    body: Vec<u8>,
    answer: Vec<u8>,
}

impl Http {
    pub async fn connect_all(
        world: &Arc<World>,
        address: SocketAddr,
        count: usize,
    ) -> Result<Vec<Self>> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let stream = TcpStream::connect(address)
                .await
                .context("connecting to the server")?;
            stream.set_nodelay(true)?;
            let (request, body, answer) = (Vec::new(), Vec::new(), Vec::with_capacity(2048));
            all.push(Self {
                world: world.clone(),
                stream,
                request,
                body,
                answer,
            });
        }
        Ok(all)
    }

    /// Reads one whole answer and returns its status.
    async fn read_answer(&mut self) -> Result<u16> {
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the server hung up");
            }
            if let Some(head) = find(&self.answer, b"\r\n\r\n") {
                let (status, length) = parse_head(&self.answer[..head])?;
                if self.answer.len() >= head + 4 + length {
                    return Ok(status);
                }
            }
        }
    }
}

impl Sender for Http {
    async fn send(&mut self, message: Message) -> Result<bool> {
        let Self {
            world,
            request,
            body,
            ..
        } = self;
        world.write_request(message, body, request);
        self.stream.write_all(&self.request).await?;
        Ok(self.read_answer().await? == 200)
    }
}

pub fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Status and content length.
pub fn parse_head(head: &[u8]) -> Result<(u16, usize)> {
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .context("no status line")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .context("no content-length")?;
    Ok((status, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slow;

    impl Sender for Slow {
        async fn send(&mut self, _: Message) -> Result<bool> {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(true)
        }
    }

    #[tokio::test]
    async fn an_open_loop_counts_the_wait_for_a_free_connection() {
        let world = Arc::new(World::new(2, 2));
        // Ten messages due within 10 ms, one connection, 50 ms each: the last waits for nine others.
        let sent = open(&world, vec![Slow], 1, 1000, Duration::from_millis(10))
            .await
            .unwrap();
        assert_eq!(sent.answers(), 10);
        assert!(sent.percentile(1.0) >= 450.0, "{}", sent.percentile(1.0));
    }

    #[test]
    fn an_answer_is_read_by_its_status_and_length() {
        assert_eq!(
            parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 16").unwrap(),
            (200, 16)
        );
        assert_eq!(
            parse_head(b"HTTP/1.1 503 Later\r\ncontent-length:0\r\nx: y").unwrap(),
            (503, 0)
        );
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked").is_err());
    }
}
