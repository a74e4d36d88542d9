//! Handing a message to the mail server: connections that are kept, and one transaction at a time on each.
//!
//! lettre's own pool answers every failure with one kind of error, which does not say how far the transaction had
//! come. What a `550` means depends on that, and so does whether the server may have the message, so the commands are
//! given one by one here, on lettre's connection. Until the server has asked for the message (354) nothing was sent;
//! from then on, until its last reply, a lost connection is [`ErrorClass::Ambiguous`], even where the message was
//! perhaps not yet complete.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Mechanism;
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, CertificateStore, TlsParameters, TlsParametersBuilder,
};
use lettre::transport::smtp::commands::{Data, Mail, Noop, Rcpt};
use lettre::transport::smtp::extension::{Extension, MailParameter};
use tokio::net::TcpStream;

use super::clear::Clear;
use super::errors::{self, Phase};
use super::settings::{Security, Server};
use crate::{ErrorClass, SendError};

/// From the first packet to the end of the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// For one command. RFC 5321 section 4.5.3.2 allows servers five minutes; a sender of ours does not wait that long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// For the message and the last reply: servers check for spam and viruses before they answer.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(120);
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Servers hang up on idle clients, often after a minute.
const KEEP_IDLE_FOR: Duration = Duration::from_secs(45);
const KEEP_IDLE: usize = 4;

const NOT_CONNECTED: &str = "the connection to the mail server failed";

/// Strongest first. XOAUTH2 needs tokens that a URL cannot carry.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

pub(super) struct Relay {
    server: Server,
    /// Reading the system's certificates takes a while, and channels are opened to check webhooks, too.
    tls: OnceLock<TlsParameters>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
}

/// One message for one recipient.
pub(super) struct Parcel<'a> {
    pub from: &'a Address,
    pub to: &'a Address,
    pub message: &'a [u8],
    /// What no error may repeat.
    pub private: &'a [&'a str],
}

impl Relay {
    pub fn new(server: Server) -> Self {
        Self {
            server,
            tls: OnceLock::new(),
            idle: Mutex::default(),
        }
    }

    /// Returns once the server has taken the message.
    pub async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), SendError> {
        let mut private = parcel.private.to_vec();
        private.extend(self.server.password.as_deref());
        let mut connection = match self.take_idle().await {
            Some(connection) => connection,
            None => self.connect(&private).await?,
        };
        match transact(&mut connection, parcel, &private).await {
            Ok(()) => {
                self.keep(connection);
                Ok(())
            }
            Err(error) => {
                // Rare enough to start afresh. Whether the farewell arrives is of no matter.
                drop(tokio::time::timeout(QUIT_TIMEOUT, connection.abort()).await);
                Err(error)
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle();
        if idle.len() < KEEP_IDLE {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// A connection that is still answered.
    async fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let Idle {
                mut connection,
                since,
            } = self.idle().pop()?;
            if since.elapsed() > KEEP_IDLE_FOR {
                continue;
            }
            let answer = tokio::time::timeout(QUIT_TIMEOUT, connection.command(Noop)).await;
            if matches!(answer, Ok(Ok(_))) {
                return Some(connection);
            }
        }
    }

    /// A fresh connection, protected and logged in as the settings say.
    async fn connect(&self, private: &[&str]) -> Result<AsyncSmtpConnection, SendError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.log_in(private)).await {
            Ok(result) => result,
            Err(_) => Err(errors::plain(
                ErrorClass::Transient,
                "the mail server did not answer in time",
            )),
        }
    }

    async fn log_in(&self, private: &[&str]) -> Result<AsyncSmtpConnection, SendError> {
        let server = &self.server;
        let address = (server.host.as_str(), server.port);
        let refused = |phase, error: Error| not_sent(phase, &error, private);
        let connected = match server.security {
            Security::StartTls | Security::Opportunistic => {
                let socket = TcpStream::connect(address)
                    .await
                    .map_err(|_| errors::plain(ErrorClass::Transient, NOT_CONNECTED))?;
                let clear = Box::new(Clear::new(socket));
                AsyncSmtpConnection::connect_with_transport(clear, &server.hello).await
            }
            Security::Tls | Security::Plain => {
                let tls = match server.security {
                    Security::Tls => Some(self.tls()?),
                    _ => None,
                };
                let timeout = Some(CONNECT_TIMEOUT);
                AsyncSmtpConnection::connect_tokio1(address, timeout, &server.hello, tls, None)
                    .await
            }
        };
        let mut connection = connected.map_err(|error| refused(Phase::Greeting, error))?;

        let wants_tls = match server.security {
            Security::StartTls => true,
            Security::Opportunistic => connection.can_starttls(),
            Security::Plain | Security::Tls => false,
        };
        if wants_tls {
            if !connection.can_starttls() {
                return Err(errors::plain(
                    ErrorClass::ChannelBlocked,
                    "the mail server offers no STARTTLS, without which nothing is sent",
                ));
            }
            connection
                .starttls(self.tls()?, &server.hello)
                .await
                .map_err(|error| refused(Phase::Greeting, error))?;
        }
        if let Some(credentials) = &server.credentials {
            let info = connection.server_info();
            if info.get_auth_mechanism(&MECHANISMS).is_none() {
                return Err(errors::plain(
                    ErrorClass::ChannelBlocked,
                    "the mail server offers no login by password (PLAIN or LOGIN)",
                ));
            }
            connection
                .auth(&MECHANISMS, credentials)
                .await
                .map_err(|error| refused(Phase::Auth, error))?;
        }
        Ok(connection)
    }

    fn tls(&self) -> Result<TlsParameters, SendError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let mut builder = TlsParametersBuilder::new(self.server.host.clone());
        if let Some(root) = &self.server.root {
            builder = builder
                .certificate_store(CertificateStore::None)
                .add_root_certificate(root.clone());
        }
        let tls = builder.build().map_err(|_| {
            errors::plain(
                ErrorClass::ChannelBlocked,
                "TLS cannot be set up: check smtp_ca or the system's certificates",
            )
        })?;
        Ok(self.tls.get_or_init(|| tls).clone())
    }
}

async fn transact(
    connection: &mut AsyncSmtpConnection,
    parcel: &Parcel<'_>,
    private: &[&str],
) -> Result<(), SendError> {
    let mut options = Vec::new();
    if ![parcel.from, parcel.to]
        .iter()
        .all(|address| AsRef::<str>::as_ref(address).is_ascii())
    {
        if !connection
            .server_info()
            .supports_feature(Extension::SmtpUtfEight)
        {
            return Err(errors::plain(
                ErrorClass::Recipient,
                "the mail server cannot carry addresses that are not ASCII (SMTPUTF8)",
            ));
        }
        options.push(MailParameter::SmtpUtfEight);
    }
    let mail = Mail::new(Some(parcel.from.clone()), options);
    command(connection, mail, Phase::Sender, private).await?;
    let rcpt = Rcpt::new(parcel.to.clone(), Vec::new());
    command(connection, rcpt, Phase::Recipient, private).await?;
    command(connection, Data, Phase::Content, private).await?;

    let lost = || {
        errors::plain(
            ErrorClass::Ambiguous,
            "the connection to the mail server was lost before it confirmed the message",
        )
    };
    match tokio::time::timeout(MESSAGE_TIMEOUT, connection.message(parcel.message)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(reply(Phase::Content, &error, private).unwrap_or_else(lost)),
        Err(_) => Err(lost()),
    }
}

async fn command(
    connection: &mut AsyncSmtpConnection,
    command: impl std::fmt::Display,
    phase: Phase,
    private: &[&str],
) -> Result<(), SendError> {
    match tokio::time::timeout(COMMAND_TIMEOUT, connection.command(command)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(not_sent(phase, &error, private)),
        Err(_) => Err(errors::plain(
            ErrorClass::Transient,
            "the mail server did not answer in time",
        )),
    }
}

/// A failure before the server asked for the message.
fn not_sent(phase: Phase, error: &Error, private: &[&str]) -> SendError {
    reply(phase, error, private).unwrap_or_else(|| {
        // Not the error's own text: it may hold addresses.
        let detail = if error.is_tls() || is_certificate_error(error) {
            "no protected connection to the mail server: its certificate is not trusted"
        } else {
            NOT_CONNECTED
        };
        errors::plain(ErrorClass::Transient, detail)
    })
}

/// The server's own words, if it was the server that refused.
fn reply(phase: Phase, error: &Error, private: &[&str]) -> Option<SendError> {
    let code = error.status()?;
    let words = std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default();
    Some(errors::from_reply(phase, code.into(), &words, private))
}

/// A handshake that fails shows up as a failed connection, with the reason somewhere inside.
fn is_certificate_error(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.to_string().contains("certificate") {
            return true;
        }
        source = cause.source();
    }
    false
}
