//! One task per socket: bytes to stanzas and back, until either side ends it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use wacore_binary::Node;

use super::{
    Broken, Hub,
    frames::{Frames, append_frame, decode_node, encode_node},
    login::Session,
    noise::{Handshake, Progress, Transport},
    state::{Socket, SocketSender, ToSocket},
};

/// A thousand sockets at the library's 128 KiB each would cost more than all else together.
const BUFFER: usize = 4 << 10;
/// A client that does not finish its handshake by then is not one.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Stanzas that go out in one WebSocket message, at most.
const BATCH: usize = 64;

pub(super) fn router() -> Router<Arc<Hub>> {
    Router::new().route("/whatsapp-web/ws/chat", get(connect))
}

async fn connect(State(hub): State<Arc<Hub>>, upgrade: WebSocketUpgrade) -> Response {
    if hub.lock().faults.refuse_dials {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    upgrade
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .on_upgrade(async move |socket| serve(hub, socket).await)
}

/// What ends a connection from this side.
enum End {
    /// Nothing more is said.
    Silent,
    Broken(Broken),
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

struct Connection {
    hub: Arc<Hub>,
    socket: WebSocket,
    frames: Frames,
    id: u64,
    sender: SocketSender,
    inbox: UnboundedReceiver<ToSocket>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "what a slow client does not read is kept for it anyway, up to a bound of its own"
)]
async fn serve(hub: Arc<Hub>, socket: WebSocket) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let (sender, inbox) = mpsc::unbounded_channel();
    let entry = Socket {
        sender: sender.clone(),
        owner: None,
    };
    hub.lock().sockets.insert(id, entry);
    let stop = hub.stop.clone();
    let mut connection = Connection {
        hub: Arc::clone(&hub),
        socket,
        frames: Frames::default(),
        id,
        sender,
        inbox,
    };
    let ended = tokio::select! {
        () = stop.cancelled() => End::Silent,
        ended = connection.run() => ended,
    };
    if let End::Broken(error) = ended {
        tracing::debug!(%error, "a WhatsApp Web client was cut off");
    }
    hub.left(id);
}

impl Connection {
    async fn run(&mut self) -> End {
        let established = match tokio::time::timeout(HANDSHAKE, self.shake_hands()).await {
            Ok(Ok(established)) => established,
            Ok(Err(end)) => return end,
            Err(_) => return End::Broken(Broken::Handshake("took too long")),
        };
        let (mut transport, client_key, payload) = established;
        let hub = Arc::clone(&self.hub);
        let mut session = match hub.log_in(self.id, &self.sender, client_key, &payload) {
            Ok(session) => session,
            Err(broken) => return broken.into(),
        };
        loop {
            let outcome = tokio::select! {
                told = self.inbox.recv() => self.say(&mut transport, told).await,
                bytes = next_bytes(&mut self.socket) => match bytes {
                    Some(bytes) => {
                        self.frames.feed(&bytes);
                        self.hear(&mut transport, &mut session)
                    }
                    None => Err(End::Silent),
                },
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn shake_hands(&mut self) -> Result<(Transport, [u8; 32], Vec<u8>), End> {
        let mut handshake = Handshake::Start;
        loop {
            while let Some(frame) = self.frames.next()? {
                match handshake.read(&frame, &self.hub.keys)? {
                    Progress::Reply(reply) => self.send_clear(&reply).await?,
                    Progress::Done(done) => {
                        if let Some(reply) = &done.reply {
                            self.send_clear(reply).await?;
                        }
                        return Ok((done.transport, done.client_key, done.payload));
                    }
                }
            }
            let bytes = next_bytes(&mut self.socket).await.ok_or(End::Silent)?;
            self.frames.feed(&bytes);
        }
    }

    async fn send_clear(&mut self, payload: &[u8]) -> Result<(), End> {
        let mut out = Vec::with_capacity(payload.len() + 3);
        append_frame(payload, &mut out)?;
        self.write(out).await
    }

    /// Reads all whole frames at hand.
    fn hear(&mut self, transport: &mut Transport, session: &mut Session) -> Result<(), End> {
        while let Some(mut frame) = self.frames.next()? {
            transport.open(&mut frame)?;
            let node: Node = decode_node(frame)?.to_owned_node();
            if self.hub.loses_socket() {
                return Err(End::Silent);
            }
            self.hub.hear(session, &self.sender, &node);
        }
        Ok(())
    }

    /// Writes what it was told and whatever else has piled up meanwhile.
    async fn say(&mut self, transport: &mut Transport, first: Option<ToSocket>) -> Result<(), End> {
        let mut out = Vec::new();
        let mut next = first;
        let mut last = false;
        for said in 1.. {
            let mut sealed = match next {
                None | Some(ToSocket::Drop) => return Err(End::Silent),
                Some(ToSocket::Stanza(stanza)) => encode_node(&stanza)?,
                Some(ToSocket::Farewell(stanza)) => {
                    last = true;
                    encode_node(&stanza)?
                }
            };
            transport.seal(&mut sealed)?;
            append_frame(&sealed, &mut out)?;
            if last || said == BATCH {
                break;
            }
            match self.inbox.try_recv() {
                Ok(more) => next = Some(more),
                Err(_) => break,
            }
        }
        self.write(out).await?;
        if last {
            // An error here is a client that was faster.
            drop(self.socket.send(Message::Close(None)).await);
            return Err(End::Silent);
        }
        Ok(())
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        self.socket
            .send(Message::Binary(bytes.into()))
            .await
            .map_err(|_| End::Silent)
    }
}

/// What the client sent next; `None` when it has gone.
async fn next_bytes(socket: &mut WebSocket) -> Option<bytes::Bytes> {
    loop {
        match socket.recv().await? {
            Ok(Message::Binary(bytes)) => return Some(bytes),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
