//! What the simulated world is made of.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whose API a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    Meta,
    Twilio,
}

/// A business number on the Cloud API, as its owner configured it at Meta.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetaNumber {
    pub waba_id: String,
    pub phone_number_id: String,
    /// Any spelling; compared by its digits.
    pub display_phone_number: String,
    pub access_token: String,
    /// Key of `X-Hub-Signature-256`.
    pub app_secret: String,
    pub verify_token: String,
    /// Where webhooks go; none are sent while empty.
    #[serde(default)]
    pub webhook_url: String,
    #[serde(default = "default_verified_name")]
    pub verified_name: String,
    /// Templates of the WABA; added to those it has, replacing the same name and language.
    #[serde(default)]
    pub templates: Vec<Template>,
}

fn default_verified_name() -> String {
    "Simulated business".to_owned()
}

/// A message template of a WABA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// A number in digits, as Meta's are; made up when empty.
    #[serde(default)]
    pub id: String,
    pub name: String,
    pub language: String,
    /// `UTILITY`, `MARKETING` or `AUTHENTICATION`.
    #[serde(default = "default_category")]
    pub category: String,
    /// `APPROVED`, `PENDING`, `REJECTED`, `PAUSED`, `DISABLED`.
    #[serde(default = "default_template_status")]
    pub status: String,
    /// In Meta's form: `[{type: BODY, text: "Hello {{1}}"}]`.
    pub components: Vec<Value>,
    /// `POSITIONAL` or `NAMED`.
    #[serde(default = "default_parameter_format")]
    pub parameter_format: String,
    /// `GREEN`, `YELLOW`, `RED`; `UNKNOWN` when empty.
    #[serde(default)]
    pub quality: String,
    #[serde(default)]
    pub rejected_reason: Option<String>,
}

fn default_category() -> String {
    "UTILITY".to_owned()
}

fn default_template_status() -> String {
    "APPROVED".to_owned()
}

fn default_parameter_format() -> String {
    "POSITIONAL".to_owned()
}

/// A Twilio account with its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwilioAccount {
    /// `AC` + 32 hex digits.
    pub account_sid: String,
    /// Password of Basic auth and key of `X-Twilio-Signature`.
    pub auth_token: String,
    /// API keys: they open the API, they never sign webhooks.
    #[serde(default)]
    pub api_keys: Vec<TwilioApiKey>,
    #[serde(default)]
    pub numbers: Vec<TwilioNumber>,
    #[serde(default)]
    pub messaging_services: Vec<MessagingService>,
    #[serde(default)]
    pub contents: Vec<TwilioContent>,
}

/// A key that opens an account's API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwilioApiKey {
    /// `SK…`
    pub sid: String,
    pub secret: String,
}

/// A sender of a Twilio account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwilioNumber {
    /// E.164, without the `whatsapp:` prefix.
    pub number: String,
    pub channel: TwilioChannel,
    /// Where incoming messages are posted; `#rc=3&rp=all` asks for retries, as at Twilio.
    #[serde(default)]
    pub webhook_url: String,
    /// Tried when `webhook_url` fails.
    #[serde(default)]
    pub fallback_url: String,
}

impl TwilioNumber {
    /// The address as requests and webhooks write it: `+1…` or `whatsapp:+1…`.
    pub fn address(&self) -> String {
        self.channel.address(&self.number)
    }
}

/// What a Twilio number speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TwilioChannel {
    Sms,
    Whatsapp,
}

impl TwilioChannel {
    pub(crate) fn address(self, number: &str) -> String {
        match self {
            Self::Sms => number.to_owned(),
            Self::Whatsapp => format!("whatsapp:{number}"),
        }
    }
}

/// A pool of senders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessagingService {
    /// `MG` + 32 hex digits.
    pub sid: String,
    /// Addresses (`+1…`, `whatsapp:+1…`) of the account's numbers.
    pub senders: Vec<String>,
    /// Adds `OptOutType` to webhooks and handles WhatsApp opt-outs too.
    #[serde(default)]
    pub advanced_opt_out: bool,
}

/// A template of Twilio's Content API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwilioContent {
    /// `HX` + 32 hex digits.
    pub sid: String,
    pub friendly_name: String,
    pub language: String,
    /// With `{{1}}` or `{{name}}` placeholders.
    pub body: String,
    /// Approved for WhatsApp; only then may it open a conversation.
    #[serde(default = "yes")]
    pub approved: bool,
}

fn yes() -> bool {
    true
}

/// A person with a phone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    /// E.164.
    pub number: String,
    /// WhatsApp profile name.
    #[serde(default)]
    pub name: String,
    /// Business-scoped user id; made from the number when empty.
    #[serde(default)]
    pub user_id: String,
    /// Once set, Meta's webhooks leave the phone number out (2026 usernames).
    #[serde(default)]
    pub username: Option<String>,
    /// False: the number is not on WhatsApp (131026, 63024) and its phone is off (30003).
    #[serde(default = "yes")]
    pub reachable: bool,
    /// Stopped marketing messages on WhatsApp (131050).
    #[serde(default)]
    pub marketing_stopped: bool,
}

/// How the simulated world behaves by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Milliseconds from acceptance to `sent`; `null`: never by itself.
    pub sent_after_ms: Option<u64>,
    /// Milliseconds from `sent` to `delivered`; `null`: never by itself.
    pub delivered_after_ms: Option<u64>,
    /// Milliseconds from `delivered` to `read`; `null`: the customer reads when told to.
    pub read_after_ms: Option<u64>,
    /// The customer answers each delivered message with this text.
    pub auto_reply: Option<String>,
    /// Messages per second and Meta number, in and out together (130429); `null`: no limit. Meta's default is 80.
    pub throughput_per_second: Option<u32>,
    /// One message per 6 s to one user after a burst of 45 (131056).
    pub pair_rate: bool,
    /// Templates created by API are approved at once, with the webhook that says so.
    pub approve_templates: bool,
    /// Attempts of a Meta webhook that is not answered 200.
    pub webhook_attempts: u32,
    /// Milliseconds before the second attempt; doubled for each further one, at most 30 s.
    pub webhook_retry_ms: u64,
    /// Newest items kept: messages, accepted sends and media.
    pub keep_messages: usize,
    /// Newest items kept: requests received and webhooks sent.
    pub keep_requests: usize,
    /// Base of the addresses handed out for media, when the server reaches the simulator under another name.
    pub public_base: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sent_after_ms: Some(0),
            delivered_after_ms: Some(50),
            read_after_ms: None,
            auto_reply: None,
            throughput_per_second: None,
            pair_rate: false,
            approve_templates: true,
            webhook_attempts: 10,
            webhook_retry_ms: 200,
            keep_messages: 200_000,
            keep_requests: 20_000,
            public_base: None,
        }
    }
}

/// How far a message got. Moves forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tick {
    /// Twilio only: waits for its `SendAt`.
    Scheduled,
    Accepted,
    Sent,
    Delivered,
    Read,
    Failed,
    /// Twilio only.
    Canceled,
}

impl Tick {
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Read | Self::Failed | Self::Canceled)
    }
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Customer,
    /// The server, through the provider's API.
    Api,
    /// The business, in the WhatsApp app on its own phone (coexistence).
    BusinessApp,
    /// Twilio: what the webhook's answer, or Twilio's own opt-out handling, sent.
    Reply,
}

/// A message as the simulated phones see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `wamid.…`, `SM…` or `MM…`.
    pub id: String,
    pub provider: Provider,
    /// Meta: phone number id. Twilio: address of the business (`+1…`, `whatsapp:+1…`).
    pub line: String,
    /// E.164 of the customer.
    pub customer: String,
    pub origin: Origin,
    /// `text`, `image`, `template`, …
    pub kind: String,
    /// What a person reads: body, caption or filled-in template.
    pub text: Option<String>,
    /// The provider's own object for this kind.
    pub content: Value,
    pub tick: Tick,
    pub error_code: Option<u32>,
    /// The message this one answers.
    pub context_id: Option<String>,
    /// `biz_opaque_callback_data` or `StatusCallback` of the request.
    pub reference: Option<String>,
    pub at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub edited: bool,
    pub revoked: bool,
    /// Emoji of each side.
    pub customer_reaction: Option<String>,
    pub business_reaction: Option<String>,
    #[serde(skip)]
    pub(crate) meta: Option<crate::meta::MetaExtra>,
    #[serde(skip)]
    pub(crate) twilio: Option<crate::twilio::TwilioExtra>,
}

impl Message {
    pub(crate) fn is_from_customer(&self) -> bool {
        self.origin == Origin::Customer
    }
}

/// A conversation in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadSummary {
    pub provider: Provider,
    pub line: String,
    pub customer: String,
    pub messages: usize,
    /// Messages of the business the customer has not read.
    pub unread: usize,
    pub last: Option<Message>,
    /// When the 24-hour window closes; absent for SMS or when the customer never wrote.
    pub window_closes_at: Option<DateTime<Utc>>,
}

/// A simulated phone: a customer and their conversations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phone {
    pub customer: Customer,
    pub threads: Vec<ThreadSummary>,
}

/// A business address one can write to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub provider: Provider,
    /// What to put into `line` elsewhere.
    pub line: String,
    /// E.164 as a person dials it.
    pub number: String,
    /// `whatsapp` or `sms`.
    pub channel: String,
    pub name: String,
}

/// One accepted send: the provider took it, whether or not the caller heard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptedSend {
    pub provider: Provider,
    pub message_id: String,
    pub line: String,
    pub customer: String,
    pub reference: Option<String>,
    pub at: DateTime<Utc>,
}

/// One request the server made. Credentials are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedRequest {
    pub provider: Provider,
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    pub content_type: Option<String>,
    /// Up to 16 KB of text bodies; absent for multipart.
    pub body: Option<String>,
    pub body_bytes: usize,
    /// Absent while being handled, and where the connection was cut.
    pub answered: Option<u16>,
    pub at: DateTime<Utc>,
    #[serde(skip)]
    pub(crate) number: u64,
}

/// One attempt to deliver a webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookAttempt {
    pub provider: Provider,
    pub line: String,
    pub url: String,
    /// `message`, `status`, …: what it told.
    pub about: String,
    pub message_id: Option<String>,
    pub attempt: u32,
    /// HTTP status of the answer; absent when none came.
    pub status: Option<u16>,
    /// True when a fault lost it on the way.
    pub dropped: bool,
    pub at: DateTime<Utc>,
}

/// An entry of Twilio's debugger: a webhook answer it could not use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub code: u32,
    pub url: String,
    pub at: DateTime<Utc>,
}

/// What `GET /sim/events` streams.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A message appeared in a thread.
    Message { message: Message },
    /// A message changed: tick, reaction, edit, revoke.
    MessageChanged { message: Message },
    /// The business types; until a message comes or 25 s have passed.
    Typing { line: String, customer: String },
    /// The server made a request.
    Request { request: RecordedRequest },
    /// A webhook was tried.
    Webhook { attempt: WebhookAttempt },
    /// The listener was too slow and lost this many events.
    Missed { count: u64 },
}
