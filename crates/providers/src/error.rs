//! The closed list of ways a send can fail. Each class knows whether and when to try again, whose fault it is
//! and what to tell a person. Providers map their codes to classes; nothing else looks at a code.

use std::time::Duration;

/// A failed send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class:?} {}: {detail}", code.as_deref().unwrap_or("-"))]
pub struct SendError {
    pub class: ErrorClass,
    /// The provider's own code (`131047`, `21610`), or an HTTP status as `http_503`.
    pub code: Option<String>,
    /// The provider's words. Never holds a token, a body or a phone number.
    pub detail: String,
    /// How long the provider asks us to wait.
    pub retry_after: Option<Duration>,
}

/// What kind of failure, and so what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The provider has trouble: try again soon.
    Transient,
    /// Too fast for this channel: slow the channel, try again.
    ThrottledChannel,
    /// Too fast for this recipient: only this pair waits (4ⁿ seconds at Meta).
    ThrottledPair,
    /// An hourly account limit: pause the account for minutes.
    ThrottledAccount,
    /// Token, permission, payment or ban: the channel cannot send until somebody acts. The queue is kept.
    ChannelBlocked,
    /// Not now for this person (marketing limits, spam limits).
    NotNow,
    /// The 24-hour window is closed: a template is needed.
    NeedsTemplate,
    /// The recipient opted out at the provider.
    OptedOut,
    /// The recipient opted out of marketing at the provider; other messages may go on.
    OptedOutOfMarketing,
    /// This recipient cannot be reached.
    Recipient,
    /// This content cannot be sent.
    Content,
    /// The request may or may not have been taken: the answer was lost.
    Ambiguous,
}

/// Who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Provider,
    Account,
    Recipient,
    Sender,
}

impl ErrorClass {
    pub const ALL: [ErrorClass; 12] = [
        Self::Transient,
        Self::ThrottledChannel,
        Self::ThrottledPair,
        Self::ThrottledAccount,
        Self::ChannelBlocked,
        Self::NotNow,
        Self::NeedsTemplate,
        Self::OptedOut,
        Self::OptedOutOfMarketing,
        Self::Recipient,
        Self::Content,
        Self::Ambiguous,
    ];

    /// Its name in the timeline and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::ThrottledChannel => "throttled_channel",
            Self::ThrottledPair => "throttled_pair",
            Self::ThrottledAccount => "throttled_account",
            Self::ChannelBlocked => "channel_blocked",
            Self::NotNow => "not_now",
            Self::NeedsTemplate => "needs_template",
            Self::OptedOut => "opted_out",
            Self::OptedOutOfMarketing => "opted_out_of_marketing",
            Self::Recipient => "recipient",
            Self::Content => "content",
            Self::Ambiguous => "ambiguous",
        }
    }

    /// Whether sending the same again can succeed without anybody changing anything about the message.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Transient
                | Self::ThrottledChannel
                | Self::ThrottledPair
                | Self::ThrottledAccount
                | Self::ChannelBlocked
        )
    }

    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::Transient | Self::Ambiguous => Fault::Provider,
            Self::ThrottledChannel
            | Self::ThrottledPair
            | Self::ThrottledAccount
            | Self::ChannelBlocked => Fault::Account,
            Self::NotNow | Self::OptedOut | Self::OptedOutOfMarketing | Self::Recipient => {
                Fault::Recipient
            }
            Self::NeedsTemplate | Self::Content => Fault::Sender,
        }
    }

    /// What to tell the person who sent it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Transient => "The provider has trouble; the message is being tried again.",
            Self::ThrottledChannel => "This number sends too fast; the message waits its turn.",
            Self::ThrottledPair => {
                "Too many messages to this person in a short time; the message waits."
            }
            Self::ThrottledAccount => "The account reached an hourly limit; sending goes on later.",
            Self::ChannelBlocked => {
                "The channel cannot send: check its token, permissions and payment at the provider."
            }
            Self::NotNow => {
                "The provider does not deliver this kind of message to this person now; try another day."
            }
            Self::NeedsTemplate => "The 24-hour window is closed: send an approved template.",
            Self::OptedOut => "This person asked not to be written to.",
            Self::OptedOutOfMarketing => "This person does not want marketing messages.",
            Self::Recipient => "This person cannot be reached at this address on this channel.",
            Self::Content => {
                "The provider does not accept this content: see the detail and change the message."
            }
            Self::Ambiguous => "It is not known whether the provider took the message.",
        }
    }
}

impl SendError {
    /// Turns a failed HTTP exchange into an error. Only a connection that was never made is surely not a send;
    /// anything later may have been taken.
    #[must_use]
    pub fn from_http(error: &reqwest::Error) -> Self {
        let class = if error.is_connect() || error.is_builder() {
            ErrorClass::Transient
        } else {
            ErrorClass::Ambiguous
        };
        // Not the error's own text: it holds the URL, and so ids of the account.
        let detail = if error.is_timeout() {
            "the provider did not answer in time"
        } else {
            "the connection to the provider failed"
        };
        Self {
            class,
            code: None,
            detail: detail.to_owned(),
            retry_after: None,
        }
    }
}
