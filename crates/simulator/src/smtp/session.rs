//! One SMTP conversation (RFC 5321), with AUTH (RFC 4954), STARTTLS (RFC 3207), SIZE (RFC 1870) and PIPELINING
//! (RFC 2920).

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_rustls::TlsAcceptor;

use super::state::Taken;
use crate::world::World;

const MAX_MESSAGE: usize = 10 * 1024 * 1024;
/// Of a command; RFC 5321 asks for 512, AUTH for 12,288.
const MAX_LINE: u64 = 16 * 1024;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

struct Session {
    world: World,
    io: BufReader<Box<dyn Stream>>,
    tls: TlsAcceptor,
    is_tls: bool,
    /// The address one may send from after the login.
    mailbox: Option<String>,
    from: Option<String>,
    to: Vec<String>,
}

/// What to do after a command.
enum Next {
    Reply(&'static str),
    /// The answer was written already.
    Go,
    Close,
}

/// Talks until either side has enough. `at_once`: TLS from the first byte.
pub(super) async fn serve(
    world: World,
    socket: tokio::net::TcpStream,
    tls: TlsAcceptor,
    at_once: bool,
) -> io::Result<()> {
    let stream: Box<dyn Stream> = if at_once {
        Box::new(tls.accept(socket).await?)
    } else {
        Box::new(socket)
    };
    let mut session = Session {
        world,
        io: BufReader::new(stream),
        tls,
        is_tls: at_once,
        mailbox: None,
        from: None,
        to: Vec::new(),
    };
    session.write("220 simulator ESMTP").await?;
    while let Some(line) = session.line().await? {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let next = match verb.to_ascii_uppercase().as_str() {
            "EHLO" => session.hello().await?,
            "HELO" => Next::Reply("250 simulator"),
            "STARTTLS" if session.is_tls => Next::Reply("503 5.5.1 already protected"),
            "STARTTLS" => {
                session = session.protect().await?;
                Next::Go
            }
            "AUTH" => session.log_in(rest).await?,
            "MAIL" => session.sender(rest),
            "RCPT" => session.recipient(rest),
            "DATA" => session.data().await?,
            "RSET" => {
                session.reset();
                Next::Reply("250 2.0.0 forgotten")
            }
            "NOOP" => Next::Reply("250 2.0.0 here"),
            "QUIT" => {
                session.write("221 2.0.0 bye").await?;
                Next::Close
            }
            _ => Next::Reply("502 5.5.2 unknown command"),
        };
        match next {
            Next::Reply(reply) => session.write(reply).await?,
            Next::Go => {}
            Next::Close => break,
        }
    }
    session.io.shutdown().await
}

impl Session {
    async fn write(&mut self, reply: &str) -> io::Result<()> {
        let io = self.io.get_mut();
        io.write_all(format!("{reply}\r\n").as_bytes()).await?;
        io.flush().await
    }

    /// The next line, without its end; `None` when the client is gone.
    async fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        (&mut self.io)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    async fn hello(&mut self) -> io::Result<Next> {
        self.reset();
        self.write("250-simulator").await?;
        self.write("250-PIPELINING").await?;
        self.write("250-8BITMIME").await?;
        self.write("250-SMTPUTF8").await?;
        self.write(&format!("250-SIZE {MAX_MESSAGE}")).await?;
        if !self.is_tls {
            self.write("250-STARTTLS").await?;
        }
        Ok(Next::Reply("250 AUTH PLAIN LOGIN"))
    }

    /// Begins again under TLS.
    async fn protect(mut self) -> io::Result<Self> {
        self.write("220 2.0.0 go ahead").await?;
        if !self.io.buffer().is_empty() {
            // Commands slipped in before the handshake would be taken for protected ones.
            return Err(io::Error::other("commands behind STARTTLS"));
        }
        let stream = self.tls.accept(self.io.into_inner()).await?;
        Ok(Self {
            io: BufReader::new(Box::new(stream)),
            is_tls: true,
            mailbox: None,
            from: None,
            to: Vec::new(),
            ..self
        })
    }

    async fn log_in(&mut self, rest: &str) -> io::Result<Next> {
        let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        let (user, password) = match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => {
                let answer = if initial.is_empty() {
                    self.ask("").await?
                } else {
                    decoded(initial)
                };
                let mut parts = answer.splitn(3, '\0').skip(1).map(str::to_owned);
                (parts.next(), parts.next())
            }
            "LOGIN" => {
                let user = if initial.is_empty() {
                    self.ask("Username:").await?
                } else {
                    decoded(initial)
                };
                (Some(user), Some(self.ask("Password:").await?))
            }
            _ => return Ok(Next::Reply("504 5.5.4 unknown mechanism")),
        };
        let (user, password) = (user.unwrap_or_default(), password.unwrap_or_default());
        self.mailbox = self.world.mail().log_in(&user, &password);
        Ok(Next::Reply(match self.mailbox {
            Some(_) => "235 2.7.0 welcome",
            None => "535 5.7.8 wrong user or password",
        }))
    }

    async fn ask(&mut self, what: &str) -> io::Result<String> {
        self.write(&format!("334 {}", BASE64.encode(what))).await?;
        Ok(decoded(&self.line().await?.unwrap_or_default()))
    }

    fn sender(&mut self, rest: &str) -> Next {
        let Some(mailbox) = &self.mailbox else {
            return Next::Reply("530 5.7.0 log in first");
        };
        let Some((address, parameters)) = path(rest, "FROM:") else {
            return Next::Reply("501 5.5.4 MAIL FROM:<address>");
        };
        let is_too_large = parameters
            .split_whitespace()
            .filter_map(|parameter| parameter.strip_prefix("SIZE="))
            .any(|size| size.parse().is_ok_and(|size: usize| size > MAX_MESSAGE));
        if is_too_large {
            return Next::Reply("552 5.3.4 too large");
        }
        if !address.eq_ignore_ascii_case(mailbox) {
            return Next::Reply("553 5.7.1 not an address of yours");
        }
        self.from = Some(address.to_owned());
        self.to.clear();
        Next::Reply("250 2.1.0 ok")
    }

    fn recipient(&mut self, rest: &str) -> Next {
        if self.from.is_none() {
            return Next::Reply("503 5.5.1 MAIL first");
        }
        let Some((address, _)) = path(rest, "TO:").filter(|(address, _)| address.contains('@'))
        else {
            return Next::Reply("501 5.1.3 RCPT TO:<address>");
        };
        if let Some(refusal) = self.world.mail().refusal_of_recipient() {
            return Next::Reply(refusal);
        }
        self.to.push(address.to_owned());
        Next::Reply("250 2.1.5 ok")
    }

    async fn data(&mut self) -> io::Result<Next> {
        let (Some(from), false) = (self.from.clone(), self.to.is_empty()) else {
            return Ok(Next::Reply("503 5.5.1 RCPT first"));
        };
        self.write("354 end with a dot").await?;
        let mut message = Vec::new();
        let mut is_too_large = false;
        loop {
            let mut line = Vec::new();
            let limit = MAX_MESSAGE as u64;
            (&mut self.io)
                .take(limit)
                .read_until(b'\n', &mut line)
                .await?;
            if !line.ends_with(b"\n") {
                return Ok(Next::Close);
            }
            if line == b".\r\n" {
                break;
            }
            is_too_large |= message.len() + line.len() > MAX_MESSAGE;
            if !is_too_large {
                message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            }
        }
        let to = std::mem::take(&mut self.to);
        self.reset();
        if is_too_large {
            return Ok(Next::Reply("552 5.3.4 too large"));
        }
        let is_tls = self.is_tls;
        match super::take(&self.world, from, to, &message, is_tls) {
            Taken::Answer => Ok(Next::Reply("250 2.0.0 queued")),
            Taken::Silence => Ok(Next::Close),
        }
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }
}

fn decoded(text: &str) -> String {
    let bytes = BASE64.decode(text.trim()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `FROM:<a@b> SIZE=1` as `a@b` and the rest.
fn path<'a>(rest: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let start = rest.get(..word.len())?;
    let rest = rest[word.len()..].trim_start().strip_prefix('<')?;
    let (address, parameters) = rest.split_once('>')?;
    start
        .eq_ignore_ascii_case(word)
        .then_some((address, parameters))
}
