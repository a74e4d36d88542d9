//! A connection that begins in clear and may go on protected (STARTTLS).
//!
//! Whoever sits between us and the mail server can put answers of their own behind the one to STARTTLS. A reader that
//! takes in more than the one answer keeps them, and gives them out later as if they had come protected
//! (CVE-2011-0411). lettre's does, so it is given no more than it asks for here: what came too early stays in the
//! socket, where the TLS handshake finds it and fails.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The type of a TLS record that begins a handshake (RFC 8446 section 5.1). No SMTP command begins with it.
const TLS_HANDSHAKE: u8 = 22;

#[derive(Debug)]
pub(super) struct Clear {
    socket: TcpStream,
    is_clear: bool,
}

impl Clear {
    pub fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            is_clear: true,
        }
    }
}

impl AsyncTokioStream for Clear {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }
}

impl AsyncRead for Clear {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_clear {
            return Pin::new(&mut self.socket).poll_read(context, buffer);
        }
        // A few hundred bytes in all: greeting, extensions, and the answer to STARTTLS.
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte[..buffer.remaining().min(1)]);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut one))?;
        buffer.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Clear {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_clear &= bytes.first() != Some(&TLS_HANDSHAKE);
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
