//! What providers tell us, in one shape. A provider's parser turns one webhook request into a list of these.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::consent::Consent;
use crate::content::MessageContent;
use crate::ids::AttemptId;
use crate::status::MessageStatus;

/// One event with the channel it claims to be for. The claim is checked against that channel's own secret.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutedEvent {
    /// Keys that name the channel, the most specific first; see `OpenChannel::routing_keys` in `providers`.
    pub routes: Vec<String>,
    pub event: ProviderEvent,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ProviderEvent {
    /// A customer wrote.
    Message(InboundMessage),
    /// The business wrote from elsewhere (the phone app beside the API): outbound, already sent.
    Echo(InboundMessage),
    /// A message we sent moved on.
    Status(StatusEvent),
    Reaction(Reaction),
    Edit(Edit),
    Revoke(Revoke),
    /// The provider says that these identities are one person.
    SamePerson(SamePerson),
    Consent(ConsentEvent),
    /// A template at the provider changed.
    Template(TemplateEvent),
    /// About the account, not a conversation: template states, quality, bans. Kept for the tenant's admin.
    Notice(Notice),
}

/// One way to name a person. `wa_id` and SMS numbers are kind `Phone` with a value in E.164.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    pub kind: IdentityKind,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentityKind {
    /// E.164 with `+`; short codes and alphanumeric senders as they are.
    Phone,
    /// Meta's business-scoped user id (`EG.1349…`), since 2026 sometimes all there is.
    Bsuid,
    /// WhatsApp Web address.
    Jid,
    /// WhatsApp Web's hidden-number address.
    Lid,
    Email,
}

impl IdentityKind {
    pub const ALL: [IdentityKind; 5] =
        [Self::Phone, Self::Bsuid, Self::Jid, Self::Lid, Self::Email];

    /// What [`Self::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Bsuid => "bsuid",
            Self::Jid => "jid",
            Self::Lid => "lid",
            Self::Email => "email",
        }
    }
}

impl Identity {
    #[must_use]
    pub fn new(kind: IdentityKind, value: impl Into<String>) -> Self {
        Self {
            kind,
            value: value.into(),
        }
    }
}

/// The customer, as one event names them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Party {
    /// At least one; the first is the one to answer to.
    pub identities: Vec<Identity>,
    /// The profile name they chose.
    pub name: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InboundMessage {
    /// Unique per channel: `wamid.…`, `SM…`.
    pub provider_message_id: String,
    pub customer: Party,
    /// By the provider's clock; the Unix epoch where it tells none.
    pub sent_at: DateTime<Utc>,
    pub content: MessageContent,
    /// The provider's id of the message this one answers; it may be unknown to us.
    pub quoted_message_id: Option<String>,
    /// The provider's ids of earlier messages in its thread (e-mail's References), the newest first. One we know
    /// places the message into that conversation, whatever address it came from.
    pub thread_ids: Vec<String>,
    pub forwarded: bool,
    /// The ad or post that brought the customer here, as the provider describes it.
    pub referral: Option<Value>,
    /// Set for a message in a group.
    pub group_id: Option<String>,
    /// It was said before the channel was connected and is no news.
    pub from_history: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StatusEvent {
    pub provider_message_id: String,
    /// Our attempt, where the provider carried it back (`biz_opaque_callback_data`, our callback URL's query).
    pub attempt_id: Option<AttemptId>,
    pub status: MessageStatus,
    pub at: DateTime<Utc>,
    pub error: Option<ProviderError>,
    /// What else the provider said: pricing, conversation, carrier receipt.
    pub detail: Value,
}

/// A provider's own error code and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderError {
    pub code: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reaction {
    /// The id of the event itself.
    pub provider_message_id: String,
    /// The message reacted to.
    pub target_message_id: String,
    pub customer: Party,
    /// `None` when the reaction was taken back.
    pub emoji: Option<String>,
    pub at: DateTime<Utc>,
    /// The business reacted, from the phone app.
    pub from_us: bool,
}

/// Who changed a message. Only its author may.
#[derive(Clone, Debug, PartialEq)]
pub enum Actor {
    /// The business: a message we sent.
    Us,
    Customer(Party),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    pub target_message_id: String,
    pub by: Actor,
    pub content: MessageContent,
    pub at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Revoke {
    pub target_message_id: String,
    pub by: Actor,
    pub at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SamePerson {
    /// How we may know them.
    pub known: Vec<Identity>,
    /// What is to be added.
    pub now: Vec<Identity>,
    /// The system message's words, to show in the conversation.
    pub text: Option<String>,
    pub provider_message_id: Option<String>,
    pub at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConsentEvent {
    pub customer: Party,
    /// Set where anybody could have written the report and only a real attempt at a message to that customer makes it
    /// believable (complaints about e-mail).
    pub about_attempt: Option<AttemptId>,
    pub consent: Consent,
    /// `all`, or `marketing` where the provider limits it.
    pub category: String,
    pub at: DateTime<Utc>,
}

/// News about a template that the provider keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateEvent {
    pub provider_id: Option<String>,
    pub name: String,
    /// As the provider's API writes it, whatever the webhook wrote: `en_US`.
    pub language: String,
    pub change: TemplateChange,
    /// By the provider's clock; the Unix epoch where it tells none.
    pub at: DateTime<Utc>,
    /// The provider's name for the news.
    pub topic: String,
    /// The news as they came.
    pub detail: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TemplateChange {
    Status {
        /// `None` where the news leave the status as it is (a warning).
        status: Option<String>,
        category: Option<String>,
        reason: Option<String>,
        /// Somebody has to look: it stopped being sent, or will soon.
        alarming: bool,
    },
    Quality(String),
    Category {
        now: Option<String>,
        /// What it will be.
        announced: Option<String>,
    },
    /// New texts and buttons, in the form of [`crate::provider_template::ProviderTemplate::components`].
    Texts(Vec<Value>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The provider's name for it, e.g. `message_template_status_update`.
    pub topic: String,
    /// The channel must stop sending until somebody looks (ban, restriction).
    pub pauses_channel: bool,
    pub detail: Value,
}
