//! The bare limit: a WebSocket server that does nothing but hand the same bytes to everybody. Buffers of 1 KB, a bounded
//! queue a client, and one flush for all frames that wait: what a broadcast can be at best with this library.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::audience::Clock;

const BUFFER: usize = 1024;
/// As many as the server under test lets wait.
const QUEUE: usize = 4096;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    port: u16,
}

type Clients = Arc<Mutex<Vec<mpsc::Sender<Utf8Bytes>>>>;

/// Serves until it is ended.
pub async fn run(args: Args) -> Result<()> {
    let router = Router::new()
        .route("/readyz", get(|| async { StatusCode::OK }))
        .route("/socket", get(connect))
        .route("/publish", post(publish))
        .with_state(Clients::default());
    let address = SocketAddr::from(([127, 0, 0, 1], args.port));
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(axum::serve(listener, router).await?)
}

async fn connect(State(clients): State<Clients>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .on_upgrade(move |socket| {
            let (sender, frames) = mpsc::channel(QUEUE);
            let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
            clients.push(sender);
            pass_on(socket, frames)
        })
}

/// Writes what waits and flushes once, until either side is gone.
async fn pass_on(socket: WebSocket, mut frames: mpsc::Receiver<Utf8Bytes>) {
    let (mut sink, mut stream) = socket.split();
    loop {
        tokio::select! {
            frame = frames.recv() => {
                let Some(frame) = frame else { return };
                let mut next = Some(frame);
                while let Some(frame) = next {
                    if sink.feed(Message::Text(frame)).await.is_err() {
                        return;
                    }
                    next = frames.try_recv().ok();
                }
                if sink.flush().await.is_err() {
                    return;
                }
            }
            received = stream.next() => {
                if !matches!(received, Some(Ok(_))) {
                    return;
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Publish {
    /// How often.
    times: u32,
}

/// Hands the body to every client. A full queue makes the publisher wait, so nothing is lost.
async fn publish(
    State(clients): State<Clients>,
    Query(query): Query<Publish>,
    body: String,
) -> StatusCode {
    let clients: Vec<_> = {
        let clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.clone()
    };
    let frame = Utf8Bytes::from(body);
    for _ in 0..query.times {
        for client in &clients {
            // One that hung up needs nothing more.
            let _ = client.send(frame.clone()).await;
        }
    }
    StatusCode::NO_CONTENT
}

/// Tells the bare server what to hand out.
pub struct Publisher {
    stream: TcpStream,
    frame_bytes: usize,
}

impl Publisher {
    pub async fn connect(server: SocketAddr, frame_bytes: usize) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            frame_bytes,
        })
    }

    /// Has one frame of the size of the other server's handed out so many times.
    pub async fn publish(&mut self, clock: Clock, times: u32) -> Result<()> {
        let body = format!("{:<width$}", clock.stamp(), width = self.frame_bytes);
        let request = format!(
            "POST /publish?times={times} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 1024];
        let read = self.stream.read(&mut answer).await?;
        if !answer[..read].starts_with(b"HTTP/1.1 204") {
            bail!("the bare server did not publish");
        }
        Ok(())
    }
}
