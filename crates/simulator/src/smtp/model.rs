//! What the mail side of the simulated world is made of.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A business mailbox: who may send from it, and where mail to it is posted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mailbox {
    /// `shop@example.com`
    pub address: String,
    /// Login at the mail server.
    pub user: String,
    pub password: String,
    /// Where mail to it is posted as it is; none while empty.
    #[serde(default)]
    pub webhook_url: String,
    /// Key of `X-Wasel-Signature`.
    #[serde(default)]
    pub webhook_secret: String,
}

/// Where the mail server listens. The ports are free ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MailServer {
    /// Plain, with STARTTLS: `127.0.0.1:1234`.
    pub smtp: String,
    /// TLS from the first byte.
    pub smtps: String,
    /// The root that signed the server's certificate (for `localhost` and the loopback addresses), made at the start.
    pub ca_pem: String,
}

/// Mail faults that strike the next so many times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MailFaults {
    /// `450 4.2.0` to a recipient.
    pub greylist: u32,
    /// `550 5.1.1` to a recipient.
    pub reject_recipient: u32,
    /// `535 5.7.8` to a login that is right.
    pub refuse_login: u32,
    /// The message is taken and the connection cut before the answer: the caller cannot know.
    pub drop_before_reply: u32,
    /// The message is taken, and a delivery report says later that it failed.
    pub bounce: u32,
}

/// An e-mail the server took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceivedEmail {
    /// Of the envelope.
    pub mail_from: String,
    /// Of the envelope.
    pub recipients: Vec<String>,
    /// As it stands in the header, without angle brackets, like all ids here.
    pub message_id: String,
    pub from_name: Option<String>,
    pub subject: String,
    pub in_reply_to: Option<String>,
    /// The oldest first.
    pub references: Vec<String>,
    /// `X-Wasel-Attempt-Id`
    pub attempt_id: Option<String>,
    pub text: Option<String>,
    pub html: Option<String>,
    /// Whether it came over TLS.
    pub over_tls: bool,
    pub at: DateTime<Utc>,
    /// As it came.
    pub raw: String,
}

/// A customer writes a mail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomerEmail {
    /// Id of a received e-mail this one answers: it then has its subject, goes to its sender and quotes it.
    pub in_reply_to: Option<String>,
    /// The business mailbox; may be left out of an answer.
    pub mailbox: String,
    /// The customer's address; may be left out of an answer.
    pub from: String,
    pub name: String,
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
    pub attachments: Vec<EmailAttachment>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmailAttachment {
    pub filename: String,
    pub mime_type: String,
    pub base64: String,
}

/// A delivery report about a received e-mail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmailBounce {
    /// Id of the received e-mail.
    pub message_id: String,
    /// RFC 3463.
    #[serde(default = "no_such_mailbox")]
    pub status: String,
    /// `failed`, `delayed`, `delivered` (RFC 3464).
    #[serde(default = "failed")]
    pub action: String,
}

fn no_such_mailbox() -> String {
    "5.1.1".to_owned()
}

fn failed() -> String {
    "failed".to_owned()
}

impl EmailBounce {
    /// The mailbox does not exist.
    pub fn of(message_id: impl Into<String>) -> Self {
        Self {
            message_id: message_id.into(),
            status: no_such_mailbox(),
            action: failed(),
        }
    }
}
