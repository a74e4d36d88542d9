//! The connection to WhatsApp, which carries nothing once the lease is over.
//!
//! The check sits below TLS and WebSocket framing, right at the system call: whatever waits in a buffer or for a lock
//! above it when the process is stopped is refused when the process goes on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_websockets::ClientBuilder;
use url::Url;
use whatsapp_rust::transport::{
    Connector, Transport, TransportEvent, TransportFactory, default_tls_connector, from_websocket,
};
use whatsapp_rust::wacore::net::WHATSAPP_WEB_ORIGIN;

use crate::lease::Deadline;

/// Where WhatsApp is and how to get there; one for all sessions.
pub(crate) struct Route {
    uri: http::Uri,
    host: String,
    port: u16,
    tls: Connector,
}

impl Route {
    pub(crate) fn new(url: &Url) -> anyhow::Result<Self> {
        let secure = url.scheme() == "wss";
        Ok(Self {
            uri: url.as_str().parse()?,
            host: url
                .host_str()
                .unwrap_or_default()
                .trim_matches(['[', ']'])
                .to_owned(),
            port: url.port().unwrap_or(if secure { 443 } else { 80 }),
            // One set of root certificates for all connections.
            tls: if secure {
                default_tls_connector()
            } else {
                Connector::Plain
            },
        })
    }
}

/// Lets frames through while the lease holds and its client is the session's newest.
pub(crate) struct Gate {
    deadline: Arc<Deadline>,
    is_closed: AtomicBool,
}

impl Gate {
    pub(crate) fn new(deadline: Arc<Deadline>) -> Self {
        Self {
            deadline,
            is_closed: AtomicBool::new(false),
        }
    }

    /// For good: a client that did not end in time must not meet its successor.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire) && self.deadline.holds()
    }
}

/// What the session wants to know of its dials; the protocol crate only logs failures.
pub(crate) trait DialNews: Send + Sync {
    fn dialled(&self, result: Result<(), &'static str>);
}

/// The protocol crate's own limit is 20 seconds.
const DIAL_WITHIN: std::time::Duration = std::time::Duration::from_secs(15);

pub(crate) struct Dialler {
    pub(crate) route: Arc<Route>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) news: Arc<dyn DialNews>,
}

#[async_trait]
impl TransportFactory for Dialler {
    async fn create_transport(
        &self,
    ) -> anyhow::Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>)> {
        // Before the protocol crate gives it up without a word.
        let result = match tokio::time::timeout(DIAL_WITHIN, self.dial()).await {
            Ok(result) => result,
            Err(late) => Err(DialFailure {
                words: "WhatsApp does not answer",
                cause: late.into(),
            }),
        };
        self.news.dialled(match &result {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.words),
        });
        result.map_err(|failure| failure.cause)
    }
}

struct DialFailure {
    /// For the session's row.
    words: &'static str,
    cause: anyhow::Error,
}

impl Dialler {
    async fn dial(
        &self,
    ) -> Result<(Arc<dyn Transport>, async_channel::Receiver<TransportEvent>), DialFailure> {
        let failed = |words| {
            move |error: anyhow::Error| DialFailure {
                words,
                cause: error,
            }
        };
        if !self.gate.is_open() {
            return Err(failed("the session moved to another node")(
                anyhow::anyhow!("the lease is over"),
            ));
        }
        let route = &self.route;
        let socket = TcpStream::connect((route.host.as_str(), route.port))
            .await
            .map_err(|error| failed("WhatsApp cannot be reached")(error.into()))?;
        socket
            .set_nodelay(true)
            .map_err(|error| failed("WhatsApp cannot be reached")(error.into()))?;
        let gated = Gated {
            socket,
            gate: self.gate.clone(),
        };
        let stream = route
            .tls
            .wrap(&route.host, gated)
            .await
            .map_err(|error| failed("no secure connection to WhatsApp")(error.into()))?;
        let (websocket, _) = ClientBuilder::from_uri(route.uri.clone())
            .add_header(
                http::header::ORIGIN,
                http::HeaderValue::from_static(WHATSAPP_WEB_ORIGIN),
            )
            .map_err(|error| failed("WhatsApp refused the connection")(error.into()))?
            .connect_on(stream)
            .await
            .map_err(|error| failed("WhatsApp refused the connection")(error.into()))?;
        Ok(from_websocket(websocket))
    }
}

/// A socket that works while its gate is open.
struct Gated<S> {
    socket: S,
    gate: Arc<Gate>,
}

impl<S> Gated<S> {
    fn check(&self) -> io::Result<()> {
        if self.gate.is_open() {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the lease is over",
            ))
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// Always allowed: it says nothing in the session's name and frees the connection.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::lease::testing::Hands;

    #[tokio::test]
    async fn after_the_lease_nothing_is_written_and_nothing_is_read() {
        let hands = Hands::at(1_000);
        let deadline = Arc::new(Deadline::new(hands.clock(), 1_000, Duration::from_secs(10)));
        let (near, mut far) = tokio::io::duplex(1024);
        let mut gated = Gated {
            socket: near,
            gate: Arc::new(Gate::new(deadline.clone())),
        };

        gated.write_all(b"before").await.unwrap();
        far.write_all(b"answer").await.unwrap();
        hands.forward(Duration::from_secs(10));
        let refused = gated.write_all(b"after").await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionAborted);
        assert!(gated.flush().await.is_err());
        assert!(gated.read(&mut [0; 16]).await.is_err());
        assert!(!deadline.extend(11_000, Duration::from_secs(10)));
        assert!(gated.write_all(b"after").await.is_err());

        drop(gated);
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, b"before");
    }

    #[tokio::test]
    async fn a_client_that_has_a_successor_is_shut_out_although_the_lease_holds() {
        let hands = Hands::at(1_000);
        let lease = Duration::from_secs(10);
        let deadline = Arc::new(Deadline::new(hands.clock(), 1_000, lease));
        let gate = Arc::new(Gate::new(deadline));
        let (near, _far) = tokio::io::duplex(1024);
        let mut gated = Gated {
            socket: near,
            gate: gate.clone(),
        };
        gated.write_all(b"before").await.unwrap();
        gate.close();
        assert!(gated.write_all(b"after").await.is_err());
    }
}
