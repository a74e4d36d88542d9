use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use futures_util::{Sink, Stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, PollSender};
use uuid::Uuid;
use wasel_realtime::{
    Authorizer, Catalog, Change, ChangeOp, Claims, Column, ConnectParams, Disconnect, ErrorCode,
    Frame, Hub, Limits, TableInfo, TokenError, TopicRights, Vsn, run,
};

/// Tokens and what they prove; unknown ones are malformed.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<String, Result<Claims, TokenError>>>);

impl Tokens {
    pub fn set(&self, token: &str, claims: Claims) {
        self.put(token, Ok(claims));
    }

    pub fn put(&self, token: &str, answer: Result<Claims, TokenError>) {
        self.0
            .lock()
            .expect("not poisoned")
            .insert(token.to_owned(), answer);
    }
}

#[async_trait]
impl Authorizer for Tokens {
    async fn authorize(&self, token: &str, _org_id: Option<Uuid>) -> Result<Claims, TokenError> {
        let tokens = self.0.lock().expect("not poisoned");
        tokens.get(token).cloned().unwrap_or_else(|| {
            Err(TokenError::new(
                ErrorCode::MalformedJwt,
                "The token provided is not a valid JWT",
            ))
        })
    }

    /// `user:` topics are their person's, on `quiet` nobody may speak, the rest is everybody's.
    async fn open_private(&self, claims: &Claims, topic: &str) -> Result<TopicRights, TokenError> {
        let owner = topic.strip_prefix("user:");
        if owner.is_some_and(|owner| claims.user_id.map(|id| id.to_string()) != Some(owner.into()))
        {
            return Err(TokenError::new(ErrorCode::Unauthorized, "Not your topic"));
        }
        Ok(TopicRights {
            send: topic != "quiet",
        })
    }
}

pub const ORG_A: Uuid = Uuid::from_u128(0xa);
pub const ORG_B: Uuid = Uuid::from_u128(0xb);
pub const CHANNEL_1: Uuid = Uuid::from_u128(0xc1);
pub const CHANNEL_2: Uuid = Uuid::from_u128(0xc2);

pub fn member_of(org_id: Uuid) -> Claims {
    Claims {
        org_id: Some(org_id),
        role: "authenticated".to_owned(),
        user_id: Some(Uuid::from_u128(1)),
        expires_at: Some(Utc::now() + Duration::from_secs(3600)),
        channels: None,
    }
}

pub fn anon() -> Claims {
    Claims {
        org_id: None,
        role: "anon".to_owned(),
        user_id: None,
        expires_at: None,
        channels: None,
    }
}

pub struct World {
    pub hub: Arc<Hub>,
    pub tokens: Arc<Tokens>,
    pub shutdown: CancellationToken,
}

impl World {
    /// Tokens `a` and `b` are members of the two tenants, `anon` is nobody's.
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let tokens = Arc::new(Tokens::default());
        tokens.set("a", member_of(ORG_A));
        tokens.set("b", member_of(ORG_B));
        tokens.set("anon", anon());
        Self {
            hub: Arc::new(Hub::new(tokens.clone(), catalog(), limits)),
            tokens,
            shutdown: CancellationToken::new(),
        }
    }

    pub fn connect(&self, vsn: Vsn) -> Client {
        self.connect_with(vsn, Some("anon"), 64)
    }

    /// `capacity` frames fit on the way to the client.
    pub fn connect_with(&self, vsn: Vsn, apikey: Option<&str>, capacity: usize) -> Client {
        let (to_server, from_client) = mpsc::channel(64);
        let (to_client, from_server) = mpsc::channel(capacity);
        let socket = ServerSide {
            from_client,
            to_client: PollSender::new(to_client),
        };
        let params = ConnectParams {
            vsn,
            apikey: apikey.map(Arc::from),
            org_id: None,
        };
        let task = tokio::spawn(run(self.hub.clone(), socket, params, self.shutdown.clone()));
        Client {
            vsn,
            to_server,
            from_server,
            task,
        }
    }
}

struct ServerSide {
    from_client: mpsc::Receiver<Frame>,
    to_client: PollSender<Frame>,
}

impl Stream for ServerSide {
    type Item = Result<Frame, Gone>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.from_client.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

#[derive(Debug)]
pub struct Gone;

impl From<Infallible> for Gone {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Sink<Frame> for ServerSide {
    type Error = Gone;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.to_client)
            .poll_ready(cx)
            .map_err(|_| Gone)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), Gone> {
        Pin::new(&mut self.to_client)
            .start_send(frame)
            .map_err(|_| Gone)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.to_client)
            .poll_flush(cx)
            .map_err(|_| Gone)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.to_client)
            .poll_close(cx)
            .map_err(|_| Gone)
    }
}

pub struct Client {
    vsn: Vsn,
    to_server: mpsc::Sender<Frame>,
    from_server: mpsc::Receiver<Frame>,
    task: JoinHandle<Disconnect>,
}

impl Client {
    pub async fn send(&self, text: &str) {
        self.send_frame(Frame::Text(Bytes::copy_from_slice(text.as_bytes())))
            .await;
    }

    pub async fn send_frame(&self, frame: Frame) {
        self.to_server
            .send(frame)
            .await
            .expect("the socket is open");
    }

    /// Sends `[join_ref, ref, topic, event, payload]` in the form of the socket's version.
    pub async fn say(&self, message: Value) {
        let text = match self.vsn {
            Vsn::V2 => message.to_string(),
            Vsn::V1 => json!({
                "topic": message[2], "event": message[3], "payload": message[4],
                "ref": message[1], "join_ref": message[0],
            })
            .to_string(),
        };
        self.send(&text).await;
    }

    pub async fn next_frame(&mut self) -> Frame {
        tokio::time::timeout(Duration::from_secs(600), self.from_server.recv())
            .await
            .expect("a frame was awaited")
            .expect("the socket is open")
    }

    /// The next message as `[join_ref, ref, topic, event, payload]`.
    pub async fn next(&mut self) -> Value {
        let Frame::Text(text) = self.next_frame().await else {
            panic!("a text frame was awaited");
        };
        let message: Value = serde_json::from_slice(&text).expect("JSON");
        match self.vsn {
            Vsn::V2 => message,
            Vsn::V1 => json!([
                message["join_ref"],
                message["ref"],
                message["topic"],
                message["event"],
                message["payload"]
            ]),
        }
    }

    /// Joins with a token and reads what follows a join: the reply and, with bindings, the system event.
    pub async fn join(&mut self, topic: &str, token: &str, bindings: Value) -> Value {
        self.join_with(
            topic,
            json!({
                "config": {"postgres_changes": bindings, "presence": {"enabled": false}},
                "access_token": token,
            }),
        )
        .await
    }

    pub async fn join_with(&mut self, topic: &str, payload: Value) -> Value {
        self.say(json!(["1", "1", topic, "phx_join", payload]))
            .await;
        let reply = self.next().await;
        assert_eq!(reply[3], "phx_reply", "{reply}");
        assert_eq!(reply[4]["status"], "ok", "{reply}");
        let bindings = reply[4]["response"]["postgres_changes"].clone();
        if bindings.as_array().is_some_and(|list| !list.is_empty()) {
            let system = self.next().await;
            assert_eq!(system[3], "system", "{system}");
            assert_eq!(system[4]["status"], "ok", "{system}");
        }
        bindings
    }

    /// Asserts that nothing else was sent before the answer to a heartbeat.
    pub async fn has_nothing(&mut self) {
        self.say(json!([null, "beat", "phoenix", "heartbeat", {}]))
            .await;
        let next = self.next().await;
        assert_eq!(next[1], "beat", "something else came: {next}");
    }

    /// Waits for the end and says why it came.
    pub async fn ended(mut self) -> Disconnect {
        // Read on, so that the server can say its last words.
        while self.from_server.recv().await.is_some() {}
        self.task.await.expect("no panic")
    }

    /// Waits for the end without reading.
    pub async fn ended_unread(self) -> Disconnect {
        self.task.await.expect("no panic")
    }

    pub fn hang_up(self) -> JoinHandle<Disconnect> {
        self.task
    }
}

pub fn catalog() -> Catalog {
    let table = |columns: &[(&str, &str)]| TableInfo {
        columns: columns
            .iter()
            .map(|(name, type_)| Column {
                name: (*name).to_owned(),
                type_: (*type_).to_owned(),
            })
            .collect(),
        primary_key: vec!["id".to_owned()],
        ..TableInfo::default()
    };
    let messages = table(&[
        ("id", "int8"),
        ("body", "text"),
        ("conversation_id", "int8"),
    ]);
    Catalog(HashMap::from([
        ("messages".to_owned(), messages.clone()),
        (
            "whatsapp_messages".to_owned(),
            TableInfo {
                alias: true,
                ..messages
            },
        ),
        (
            "audit_logs".to_owned(),
            TableInfo {
                roles: Some(vec!["owner".to_owned()]),
                ..table(&[("id", "int8")])
            },
        ),
    ]))
}

pub fn insert(org_id: Uuid, name: &str, record: Value) -> Change {
    Change {
        seq: 1,
        org_id,
        channel_id: None,
        name: Arc::from(name),
        op: ChangeOp::Insert,
        record: Some(record),
        old_record: None,
        committed_at: "2026-01-02T03:04:05.678Z".parse().expect("a time"),
    }
}

pub fn all_of(table: &str) -> Value {
    json!([{"event": "*", "schema": "public", "table": table}])
}
