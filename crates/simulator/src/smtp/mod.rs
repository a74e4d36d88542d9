//! A mail server and the customers behind it: takes what the business sends over SMTP, and posts what customers answer
//! and what could not be delivered to the business's webhook, signed, as a mail server's script would.

mod compose;
mod control;
mod model;
mod session;
mod state;
mod tls;

use std::{io, net::SocketAddr, time::Duration};

use mail_parser::{HeaderValue, MessageParser};
use ring::hmac;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

pub(crate) use control::router;
pub use model::{
    CustomerEmail, EmailAttachment, EmailBounce, MailFaults, MailServer, Mailbox, ReceivedEmail,
};
pub(crate) use state::Mail;
use state::Taken;

use crate::world::{World, WorldError};

/// How long a webhook may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The listening sockets, before there is a world to serve.
pub(crate) struct Listeners {
    smtp: TcpListener,
    smtps: TcpListener,
    tls: TlsAcceptor,
}

impl Listeners {
    /// Takes two free ports at this address.
    pub(crate) async fn bind(near: SocketAddr) -> io::Result<(Self, MailServer)> {
        let smtp = TcpListener::bind(SocketAddr::new(near.ip(), 0)).await?;
        let smtps = TcpListener::bind(SocketAddr::new(near.ip(), 0)).await?;
        let (tls, ca_pem) = tls::acceptor()?;
        let server = MailServer {
            smtp: crate::server::reachable(smtp.local_addr()?).to_string(),
            smtps: crate::server::reachable(smtps.local_addr()?).to_string(),
            ca_pem,
        };
        Ok((Self { smtp, smtps, tls }, server))
    }

    /// Serves until the world stops.
    pub(crate) fn serve(self, world: &World) {
        for (listener, at_once) in [(self.smtp, false), (self.smtps, true)] {
            let (handle, tls) = (world.clone(), self.tls.clone());
            world.spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let (world, tls) = (handle.clone(), tls.clone());
                    handle.spawn(async move {
                        if let Err(error) = session::serve(world, socket, tls, at_once).await {
                            tracing::debug!(%error, "SMTP conversation broken off");
                        }
                    });
                }
            });
        }
    }
}

impl World {
    /// Where the mail server listens, and whom to trust.
    pub fn mail_server(&self) -> MailServer {
        self.mail().server.clone()
    }

    /// Registers a mailbox, or replaces the one with this address.
    ///
    /// # Errors
    /// [`WorldError::Invalid`] where the address is none.
    pub fn register_mailbox(&self, mailbox: Mailbox) -> Result<(), WorldError> {
        if !mailbox.address.contains('@') {
            return Err(WorldError::Invalid(
                "address is no e-mail address".to_owned(),
            ));
        }
        let key = mailbox.address.to_lowercase();
        self.mail().mailboxes.insert(key, mailbox);
        Ok(())
    }

    pub fn mailboxes(&self) -> Vec<Mailbox> {
        self.mail().mailboxes.values().cloned().collect()
    }

    /// What the mail server took, the oldest first. A message sent twice is here twice.
    pub fn emails(&self) -> Vec<ReceivedEmail> {
        self.mail().received.iter().cloned().collect()
    }

    pub fn mail_faults(&self) -> MailFaults {
        self.mail().faults.clone()
    }

    /// Replaces all mail faults.
    pub fn set_mail_faults(&self, faults: MailFaults) {
        self.mail().faults = faults;
    }

    /// Writes as a customer, and posts it in the background. Returns the Message-ID.
    ///
    /// # Errors
    /// Where the mailbox or the answered e-mail is unknown, or nobody writes.
    pub fn send_email(&self, mut email: CustomerEmail) -> Result<String, WorldError> {
        let answered = match &email.in_reply_to {
            Some(id) => Some(self.mail().find(id).ok_or(WorldError::UnknownMessage)?),
            None => None,
        };
        if let Some(answered) = &answered {
            if email.mailbox.is_empty() {
                email.mailbox.clone_from(&answered.mail_from);
            }
            if let (true, Some(customer)) = (email.from.is_empty(), answered.recipients.first()) {
                email.from.clone_from(customer);
            }
        }
        let mailbox = self.mailbox(&email.mailbox)?;
        let Some((_, domain)) = email.from.rsplit_once('@') else {
            return Err(WorldError::Invalid("from is no e-mail address".to_owned()));
        };
        let id = format!("{}@{domain}", Uuid::new_v4());
        let raw = compose::customer_mail(&mailbox, &email, answered.as_ref(), &id, self.now());
        self.post_mail(mailbox, raw);
        Ok(id)
    }

    /// Reports on an e-mail, in the background.
    ///
    /// # Errors
    /// Where the e-mail or its mailbox is unknown.
    pub fn bounce_email(&self, bounce: &EmailBounce) -> Result<(), WorldError> {
        let email = self.mail().find(&bounce.message_id);
        let email = email.ok_or(WorldError::UnknownMessage)?;
        let mailbox = self.mailbox(&email.mail_from)?;
        let raw = compose::bounce(&mailbox, &email, bounce, self.now());
        self.post_mail(mailbox, raw);
        Ok(())
    }

    /// Posts any raw mail to a mailbox's webhook, in the background.
    ///
    /// # Errors
    /// Where the mailbox is unknown.
    pub fn post_raw_email(&self, mailbox: &str, raw: String) -> Result<(), WorldError> {
        let mailbox = self.mailbox(mailbox)?;
        self.post_mail(mailbox, raw);
        Ok(())
    }

    fn mailbox(&self, address: &str) -> Result<Mailbox, WorldError> {
        let mail = self.mail();
        let found = mail.mailboxes.get(&address.to_lowercase());
        found.cloned().ok_or(WorldError::UnknownLine)
    }

    /// Posts until it is taken, as a mail server keeps what its script could not pass on.
    fn post_mail(&self, mailbox: Mailbox, raw: String) {
        if mailbox.webhook_url.is_empty() {
            return;
        }
        let world = self.clone();
        self.spawn(async move {
            let settings = world.settings();
            let mut pause = Duration::from_millis(settings.webhook_retry_ms);
            for _ in 0..settings.webhook_attempts {
                if post_once(&world, &mailbox, &raw).await {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_RETRY);
            }
        });
    }
}

/// Whether it was taken.
async fn post_once(world: &World, mailbox: &Mailbox, raw: &str) -> bool {
    // Receivers compare with their own clock, which nobody moved.
    let seconds = chrono::Utc::now().timestamp();
    let key = hmac::Key::new(hmac::HMAC_SHA256, mailbox.webhook_secret.as_bytes());
    let tag = hmac::sign(&key, format!("{seconds}.{raw}").as_bytes());
    let answer = world
        .http()
        .post(&mailbox.webhook_url)
        .timeout(ANSWER_TIMEOUT)
        .header("Content-Type", "message/rfc822")
        .header(
            "X-Wasel-Signature",
            format!("t={seconds},v1={}", hex::encode(tag)),
        )
        .body(raw.to_owned())
        .send()
        .await;
    match answer {
        Ok(answer) => answer.status().is_success(),
        Err(error) => {
            tracing::debug!(error = %error.without_url(), "webhook not answered");
            false
        }
    }
}

/// Keeps a message that came over SMTP.
fn take(world: &World, from: String, to: Vec<String>, message: &[u8], over_tls: bool) -> Taken {
    let email = read(world, from, to, message, over_tls);
    let bounce = EmailBounce::of(&email.message_id);
    let (answer, bounces) = world.mail().keep(email);
    if bounces && let Err(error) = world.bounce_email(&bounce) {
        tracing::warn!(%error, "bounce impossible");
    }
    answer
}

fn read(
    world: &World,
    mail_from: String,
    recipients: Vec<String>,
    message: &[u8],
    over_tls: bool,
) -> ReceivedEmail {
    let parsed = MessageParser::default().parse(message).unwrap_or_default();
    let has_headers = !parsed.parts.is_empty();
    let parsed = has_headers.then_some(&parsed);
    let text = |text: Option<std::borrow::Cow<'_, str>>| text.map(std::borrow::Cow::into_owned);
    // The parser makes one of the other where only one is there; only what was sent counts.
    let has_html = parsed.is_some_and(|mail| mail.parts.iter().any(|part| part.is_text_html()));
    ReceivedEmail {
        mail_from,
        recipients,
        message_id: parsed
            .and_then(|mail| mail.message_id())
            .unwrap_or_default()
            .to_owned(),
        from_name: parsed
            .and_then(|mail| mail.from()?.first()?.name())
            .map(str::to_owned),
        subject: parsed
            .and_then(|mail| mail.subject())
            .unwrap_or_default()
            .to_owned(),
        in_reply_to: parsed.and_then(|mail| ids(mail.in_reply_to()).pop()),
        references: parsed
            .map(|mail| ids(mail.references()))
            .unwrap_or_default(),
        attempt_id: parsed
            .and_then(|mail| mail.header("X-Wasel-Attempt-Id")?.as_text())
            .map(|id| id.trim().to_owned()),
        text: parsed.and_then(|mail| text(mail.body_text(0))),
        html: parsed
            .filter(|_| has_html)
            .and_then(|mail| text(mail.body_html(0))),
        over_tls,
        at: world.now(),
        raw: String::from_utf8_lossy(message).into_owned(),
    }
}

fn ids(header: &HeaderValue<'_>) -> Vec<String> {
    match header {
        HeaderValue::Text(id) => vec![id.to_string()],
        HeaderValue::TextList(ids) => ids.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}
