//! A provider's API on the loopback: notes what it is asked and gives prepared answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket};
use wasel_providers::conformance::Answer;

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    seen: Vec<Seen>,
}

pub struct StandIn {
    /// `http://127.0.0.1:…`
    pub base: String,
    script: Arc<Mutex<Script>>,
}

impl StandIn {
    /// Gives the answers in turn, and the last one for ever.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Arc::new(Mutex::new(Script {
            answers: answers.into_iter().collect(),
            seen: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base, script }
    }

    pub fn answer_with(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().answers = answers.into_iter().collect();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let seen = Seen {
        method: head.method,
        path: head.uri.to_string(),
        headers: head.headers,
        body: to_bytes(body, usize::MAX).await.unwrap(),
    };
    let answer = {
        let mut script = script.lock().unwrap();
        script.seen.push(seen);
        if script.answers.len() > 1 {
            script.answers.pop_front().unwrap()
        } else {
            script.answers.front().unwrap().clone()
        }
    };
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let body = if answer.is_cut {
        Body::from_stream(broken_off(answer.body))
    } else {
        Body::from(answer.body)
    };
    response.body(body).unwrap()
}

/// The bytes, then a failure, which makes the server drop the connection.
fn broken_off(bytes: Bytes) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    let failure = async {
        // The server writes out what it has whenever there is nothing more at once.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        Err(std::io::Error::other("cut"))
    };
    stream::iter([Ok(bytes)]).chain(stream::once(failure))
}

/// Takes each request's first bytes and hangs up without a word.
pub async fn start_hanging_up() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut bytes = [0; 64];
            let _ = socket.read(&mut bytes).await;
        }
    });
    base
}

/// An address where nobody listens, for as long as the socket is held.
pub fn nobody() -> (String, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base = format!("http://{}", socket.local_addr().unwrap());
    (base, socket)
}

/// A client as the server has it, never through a proxy of the environment.
pub fn client() -> reqwest::Client {
    client_with(reqwest::redirect::Policy::none())
}

pub fn client_with(redirects: reqwest::redirect::Policy) -> reqwest::Client {
    // The second of two tests finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(redirects)
        .build()
        .unwrap()
}
