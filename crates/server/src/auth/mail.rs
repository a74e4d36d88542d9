//! Mails of the identity itself: invitations, recovery, a new address. Kept in memory until the mail server has them;
//! a mail lost with the process is asked for again by whoever waits for it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;
use wasel_domain::event::{Identity, IdentityKind};
use wasel_domain::{AttemptId, ChannelId, MessageId, OutboundContent};
use wasel_providers::{
    ChannelKind, ErrorClass, OpenChannel, Outbound, Providers, SendError, SettingsError,
};

/// Mails waiting at a time; more are refused.
const MAX_WAITING: usize = 1_000;
/// The waits between attempts while the mail server has trouble.
const WAITS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
];

/// Sends mails in the server's own name. Cheap to clone; without a mail server and a sender address it sends nothing.
#[derive(Clone, Default)]
pub struct Mailer(Option<Arc<Post>>);

struct Post {
    channel: Arc<dyn OpenChannel>,
    http: reqwest::Client,
    waiting: Mutex<VecDeque<Letter>>,
    wake: Arc<Notify>,
}

/// One mail to one person.
struct Letter {
    id: MessageId,
    to: Identity,
    content: OutboundContent,
    attempts: usize,
    not_before: Instant,
}

impl Mailer {
    /// Through the server-wide mail server. `from` is a mailbox such as `Name <name@example.com>`.
    pub fn open(
        providers: &Providers,
        from: &str,
        http: reqwest::Client,
    ) -> Result<Self, SettingsError> {
        let kind = ChannelKind::Email;
        let channel = providers.of(kind).open(
            ChannelId::generate(),
            kind,
            &json!({ "from": from }),
            &json!({}),
        )?;
        Ok(Self(Some(Arc::new(Post {
            channel,
            http,
            waiting: Mutex::default(),
            wake: Arc::default(),
        }))))
    }

    /// Whether mails can be sent at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands a mail to the sending job. Not inside a transaction: what is rolled back must not have been told.
    /// `false`: it will not be sent.
    pub(crate) fn post(&self, to: &str, content: OutboundContent) -> bool {
        let Some(post) = &self.0 else {
            return false;
        };
        let mut waiting = post.waiting();
        if waiting.len() >= MAX_WAITING {
            tracing::warn!("too many mails wait for the mail server; one was not taken");
            return false;
        }
        waiting.push_back(Letter {
            id: MessageId::generate(),
            to: Identity {
                kind: IdentityKind::Email,
                value: to.to_owned(),
            },
            content,
            attempts: 0,
            not_before: Instant::now(),
        });
        drop(waiting);
        post.wake.notify_one();
        true
    }

    /// Wakes the job when there is a mail.
    pub(crate) fn wake(&self) -> Arc<Notify> {
        self.0
            .as_ref()
            .map(|post| post.wake.clone())
            .unwrap_or_default()
    }

    /// Sends what is due, one after the other. Returns how long the next one has to wait, if there is one.
    pub(crate) async fn send_due(&self) -> Option<Duration> {
        let post = self.0.as_ref()?;
        while let Some(letter) = post.take_due(Instant::now()) {
            post.send(letter).await;
        }
        post.next_wait(Instant::now())
    }
}

impl Post {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Letter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_due(&self, now: Instant) -> Option<Letter> {
        let mut waiting = self.waiting();
        let due = waiting.iter().position(|letter| letter.not_before <= now)?;
        waiting.remove(due)
    }

    fn next_wait(&self, now: Instant) -> Option<Duration> {
        let waiting = self.waiting();
        let next = waiting.iter().map(|letter| letter.not_before).min()?;
        Some(next.saturating_duration_since(now))
    }

    async fn send(&self, mut letter: Letter) {
        let outbound = Outbound {
            message_id: letter.id,
            attempt_id: AttemptId::generate(),
            to: &letter.to,
            content: &letter.content,
            quoted_message_id: None,
            thread: None,
            group_id: None,
            status_callback: None,
        };
        let Err(error) = self.channel.send(&self.http, &outbound).await else {
            return;
        };
        // By class and code only: whose mail it is, and what is in it, is nobody's to read in a log.
        let (class, code) = (error.class, error.code.as_deref().unwrap_or("-"));
        match wait_after(&error, letter.attempts) {
            Some(wait) => {
                tracing::warn!(error.class = ?class, error.code = code, "a mail of the identity could not be sent yet");
                letter.attempts += 1;
                letter.not_before = Instant::now() + wait;
                self.waiting().push_back(letter);
            }
            None => {
                tracing::error!(error.class = ?class, error.code = code, "a mail of the identity could not be sent");
            }
        }
    }
}

/// How long to wait before the next attempt; `None`: there is no use in one.
fn wait_after(error: &SendError, attempts: usize) -> Option<Duration> {
    let is_passing = matches!(
        error.class,
        ErrorClass::Transient
            | ErrorClass::ThrottledChannel
            | ErrorClass::ThrottledPair
            | ErrorClass::ThrottledAccount
            | ErrorClass::NotNow
    );
    let wait = *WAITS.get(attempts).filter(|_| is_passing)?;
    Some(error.retry_after.unwrap_or(wait).max(wait))
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mailer").field(&self.is_on()).finish()
    }
}
