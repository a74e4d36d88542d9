//! A keep-alive HTTP connection that sends and gets JSON.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{find, parse_head};

pub struct Caller {
    stream: TcpStream,
    request: String,
    answer: Vec<u8>,
}

impl Caller {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: String::new(),
            answer: Vec::with_capacity(2048),
        })
    }

    /// Posts `body` and returns status and body of the answer. `headers`: whole lines, each with its line end.
    pub async fn post(&mut self, path: &str, headers: &str, body: &str) -> Result<(u16, &[u8])> {
        self.ask("POST", path, headers, body).await
    }

    /// As [`Self::post`], without a body.
    pub async fn get(&mut self, path: &str, headers: &str) -> Result<(u16, &[u8])> {
        self.ask("GET", path, headers, "").await
    }

    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Result<(u16, &[u8])> {
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        self.stream.write_all(self.request.as_bytes()).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("{path}: hung up");
            }
            let Some(head) = find(&self.answer, b"\r\n\r\n") else {
                continue;
            };
            let (status, length) = parse_head(&self.answer[..head])?;
            if self.answer.len() >= head + 4 + length {
                return Ok((status, &self.answer[head + 4..]));
            }
        }
    }
}
