//! What a message holds, inbound and outbound, the same for every provider.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The kind of an inbound or outbound message; the `message_type` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    Text,
    Image,
    Video,
    Audio,
    Document,
    Sticker,
    Location,
    Contacts,
    /// Buttons, lists and flows we send, and the customer's choice among them.
    Interactive,
    /// A tap on a template's quick-reply button.
    Button,
    Order,
    Template,
    /// A reaction we send. One that arrives is an annotation ([`crate::event::Reaction`]), not a message.
    Reaction,
    /// Something the provider tells about the customer ("changed their number").
    System,
    /// A kind the provider or we cannot show; kept so that the agent sees that something came.
    Unsupported,
}

impl MessageKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Document => "document",
            Self::Sticker => "sticker",
            Self::Location => "location",
            Self::Contacts => "contacts",
            Self::Interactive => "interactive",
            Self::Button => "button",
            Self::Order => "order",
            Self::Template => "template",
            Self::Reaction => "reaction",
            Self::System => "system",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A file that a provider holds for us.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MediaRef {
    /// The provider's media id (Meta), if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Where the provider serves it; may expire and may need the channel's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Lower-case hex or base64, as the provider gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// A voice note, not an audio file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub voice: bool,
}

/// The content of a message that arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageContent {
    pub kind: MessageKind,
    /// What a list of conversations shows and a search finds: the body, the caption, the chosen button's
    /// title, the place's name.
    pub text: Option<String>,
    pub media: Vec<MediaRef>,
    /// What the text does not carry, in one shape per kind for all providers:
    /// - location `{latitude, longitude, name?, address?, url?}`
    /// - contacts `{contacts: […]}` as the provider lists them
    /// - interactive `{type: button_reply|list_reply|nfm_reply|…, id?, title?, description?, response?}`
    /// - button `{payload?, text}`
    /// - order `{catalog_id?, text?, product_items: […]}`
    /// - system `{type, …}`; unsupported `{type, errors?}`
    ///
    /// `Value::Null` where there is nothing to add.
    pub detail: Value,
}

impl MessageContent {
    #[must_use]
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            kind: MessageKind::Text,
            text: Some(body.into()),
            media: Vec::new(),
            detail: Value::Null,
        }
    }
}

/// Where an outbound file comes from: exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaSource {
    /// A public `http(s)` address that the provider fetches.
    Link(String),
    /// An id from the provider's own upload.
    ProviderId(String),
}

/// The content of a message to send. Its JSON is the `content` column and the body of `POST /v1/messages`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutboundContent {
    Text {
        body: String,
        #[serde(default)]
        preview_url: bool,
    },
    Image(OutboundMedia),
    Video(OutboundMedia),
    Audio(OutboundMedia),
    Document(OutboundMedia),
    Sticker(OutboundMedia),
    Location {
        latitude: f64,
        longitude: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
    },
    /// An e-mail with its own subject; at least one of the two parts. Other content can go by e-mail too, under the
    /// thread's subject.
    Email {
        subject: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        html: Option<String>,
    },
    /// Contact cards in WhatsApp's format.
    Contacts {
        contacts: Vec<Value>,
    },
    /// Buttons, a list, a call-to-action … in WhatsApp's `interactive` format.
    Interactive {
        interactive: Value,
    },
    /// An approved template by name (WhatsApp Cloud) or by Content SID (Twilio).
    Template(OutboundTemplate),
    /// A reaction to a message, by the *provider's* message id; an empty emoji removes it.
    Reaction {
        message_id: String,
        emoji: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboundMedia {
    #[serde(flatten)]
    pub source: MediaSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Shown for a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Audio sent as a voice note (OGG/Opus).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub voice: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutboundTemplate {
    /// Meta's template name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Meta's language code, `ar` or `en_US`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Meta's components with their parameters, already filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Value>,
    /// Twilio's Content SID (`HX…`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_sid: Option<String>,
    /// Twilio's content variables, name → value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<serde_json::Map<String, Value>>,
    /// The text a person would see, for our own log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl OutboundContent {
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Text { .. } | Self::Email { .. } => MessageKind::Text,
            Self::Image(_) => MessageKind::Image,
            Self::Video(_) => MessageKind::Video,
            Self::Audio(_) => MessageKind::Audio,
            Self::Document(_) => MessageKind::Document,
            Self::Sticker(_) => MessageKind::Sticker,
            Self::Location { .. } => MessageKind::Location,
            Self::Contacts { .. } => MessageKind::Contacts,
            Self::Interactive { .. } => MessageKind::Interactive,
            Self::Template(_) => MessageKind::Template,
            Self::Reaction { .. } => MessageKind::Reaction,
        }
    }

    /// The text that lists and searches show.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text { body, .. } => Some(body),
            Self::Email { subject, text, .. } => Some(text.as_deref().unwrap_or(subject)),
            Self::Image(media)
            | Self::Video(media)
            | Self::Audio(media)
            | Self::Document(media)
            | Self::Sticker(media) => media.caption.as_deref(),
            Self::Location { name, address, .. } => name.as_deref().or(address.as_deref()),
            Self::Contacts { .. } => None,
            Self::Interactive { interactive } => {
                interactive.pointer("/body/text").and_then(Value::as_str)
            }
            Self::Template(template) => template.text.as_deref().or(template.name.as_deref()),
            Self::Reaction { emoji, .. } => Some(emoji),
        }
    }

    /// The file in it, if any.
    #[must_use]
    pub fn media(&self) -> Option<&OutboundMedia> {
        match self {
            Self::Image(media)
            | Self::Video(media)
            | Self::Audio(media)
            | Self::Document(media)
            | Self::Sticker(media) => Some(media),
            _ => None,
        }
    }

    /// Whether WhatsApp takes it outside the 24-hour window.
    #[must_use]
    pub fn is_template(&self) -> bool {
        matches!(self, Self::Template(_))
    }
}
