//! A webhook receiver that remembers raw requests and answers as told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Notify};

#[derive(Clone)]
pub struct Hook {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub query: Option<String>,
}

impl Hook {
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).expect("header is there");
        value.to_str().expect("header is text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("body is JSON")
    }

    /// `value` of the only change.
    pub fn change(&self) -> Value {
        self.json()["entry"][0]["changes"][0]["value"].clone()
    }

    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body)
            .into_owned()
            .collect()
    }

    pub fn field(&self, key: &str) -> Option<String> {
        let form = self.form();
        form.into_iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }
}

/// Status, content type, body.
pub type Answer = (u16, &'static str, &'static str);

#[derive(Default)]
struct Shared {
    hooks: Mutex<Vec<Hook>>,
    answers: Mutex<VecDeque<Answer>>,
    verify_token: Mutex<String>,
    arrived: Notify,
}

#[derive(Clone)]
pub struct Receiver {
    shared: Arc<Shared>,
    pub url: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panicked under the lock")
}

impl Receiver {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .route("/hook", post(receive).get(handshake))
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            shared,
            url: format!("http://{address}/hook"),
        }
    }

    /// The next requests get these answers; later ones 200 and nothing.
    pub fn will_answer(&self, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.shared.answers).extend(answers);
    }

    pub fn expect_token(&self, token: &str) {
        token.clone_into(&mut lock(&self.shared.verify_token));
    }

    pub fn hooks(&self) -> Vec<Hook> {
        lock(&self.shared.hooks).clone()
    }

    /// Waits until at least `count` webhooks that pass `wanted` are here, and returns them.
    pub async fn wait_for(&self, count: usize, wanted: impl Fn(&Hook) -> bool) -> Vec<Hook> {
        let search = async {
            loop {
                let arrived = self.shared.arrived.notified();
                let found: Vec<Hook> = self.hooks().into_iter().filter(|h| wanted(h)).collect();
                if found.len() >= count {
                    return found;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), search)
            .await
            .unwrap_or_else(|_| panic!("{count} webhooks expected, {} came", self.hooks().len()))
    }

    pub async fn wait(&self, count: usize) -> Vec<Hook> {
        self.wait_for(count, |_| true).await
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    lock(&shared.hooks).push(Hook {
        headers,
        body,
        query,
    });
    let answer = lock(&shared.answers).pop_front();
    shared.arrived.notify_waiters();
    let (status, kind, body) = answer.unwrap_or((200, "text/plain", ""));
    let status = StatusCode::from_u16(status).expect("status");
    (status, [(CONTENT_TYPE, kind)], body).into_response()
}

async fn handshake(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let get = |key: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.into_owned())
    };
    let known = lock(&shared.verify_token).clone();
    if get("hub.mode").as_deref() == Some("subscribe") && get("hub.verify_token") == Some(known) {
        get("hub.challenge").unwrap_or_default().into_response()
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}
