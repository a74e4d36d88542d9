//! What one asks the simulated phones to do, and what they show.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A phone to be registered. Registering a number again changes its name and settings and keeps the rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewWhatsappPhone {
    /// E.164; the plus sign may be left out.
    pub number: String,
    /// The name its owner gave himself, which others see. Not empty.
    pub name: String,
    #[serde(flatten)]
    pub settings: WhatsappPhoneSettings,
}

impl NewWhatsappPhone {
    pub fn new(number: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            number: number.into(),
            name: name.into(),
            settings: WhatsappPhoneSettings::default(),
        }
    }
}

/// How a phone behaves by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WhatsappPhoneSettings {
    /// Switched off, a phone receives nothing; what is sent to it waits.
    pub online: bool,
    /// Reads what it receives after so many milliseconds; never by itself when `None`.
    pub read_after_ms: Option<u64>,
    /// Asks a device scanned by QR for a passkey before it is linked.
    pub passkey: bool,
    /// What the phone hands to a newly linked device as its history, oldest first.
    pub history: Vec<OldWhatsappMessage>,
}

impl Default for WhatsappPhoneSettings {
    fn default() -> Self {
        Self {
            online: true,
            read_after_ms: None,
            passkey: false,
            history: Vec::new(),
        }
    }
}

/// A message from before the device was linked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldWhatsappMessage {
    /// Number of the other side.
    pub chat: String,
    #[serde(default)]
    pub from_me: bool,
    pub text: String,
    pub id: String,
    pub at: DateTime<Utc>,
}

/// A phone with what is linked to it.
#[derive(Debug, Clone, Serialize)]
pub struct WhatsappPhone {
    /// Digits of the number, without a plus sign.
    pub number: String,
    pub name: String,
    /// The hidden identifier others address it by, digits only.
    pub lid: String,
    #[serde(flatten)]
    pub settings: WhatsappPhoneSettings,
    pub companions: Vec<LinkedCompanion>,
    pub chats: Vec<WhatsappChat>,
}

/// A device linked to a phone.
#[derive(Debug, Clone, Serialize)]
pub struct LinkedCompanion {
    pub device: u16,
    /// `number:device@s.whatsapp.net`.
    pub jid: String,
    /// `lid:device@lid`.
    pub lid: String,
    pub connected: bool,
    /// How often it has logged in.
    pub logins: u32,
    /// Stanzas the server keeps until the device acknowledges them.
    pub waiting: usize,
    /// One-time keys it has left on the server.
    pub prekeys: usize,
    pub linked_at: DateTime<Utc>,
}

/// One chat of a phone, newest last in the list of chats.
#[derive(Debug, Clone, Serialize)]
pub struct WhatsappChat {
    /// Number of the other side, or the group's JID.
    pub chat: String,
    pub messages: usize,
    pub unread: usize,
    /// `composing`, `recording` or `paused`, as the other side last said.
    pub typing: Option<String>,
}

/// What a person does with a phone: writes, reacts, edits, deletes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhatsappSend {
    /// Number of the sending phone; registered on the spot when unknown.
    pub from: String,
    /// A number, or a group's JID.
    pub to: String,
    #[serde(flatten)]
    pub content: WhatsappContent,
    /// Id of the message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quoted: Option<String>,
    /// The message's id, where a test must know it beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl WhatsappSend {
    pub fn new(from: impl Into<String>, to: impl Into<String>, content: WhatsappContent) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            content,
            quoted: None,
            id: None,
        }
    }

    pub fn text(from: impl Into<String>, to: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(from, to, WhatsappContent::Text(text.into()))
    }
}

/// In JSON one of these keys beside `from` and `to`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhatsappContent {
    Text(String),
    Image(WhatsappFile),
    Video(WhatsappFile),
    Audio(WhatsappFile),
    Document(WhatsappFile),
    Location(WhatsappLocation),
    Contact(WhatsappContact),
    Reaction(WhatsappReaction),
    Edit(WhatsappEdit),
    Delete(WhatsappDelete),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhatsappFile {
    /// The bytes in Base64.
    pub base64: String,
    pub mime: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhatsappLocation {
    pub latitude: f64,
    pub longitude: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatsappContact {
    pub name: String,
    pub number: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatsappReaction {
    pub message_id: String,
    /// Empty takes the reaction back.
    pub emoji: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatsappEdit {
    pub message_id: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatsappDelete {
    pub message_id: String,
}

/// How far a message came. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhatsappTick {
    Sent,
    Delivered,
    Read,
    Played,
}

/// A message as one phone has it.
#[derive(Debug, Clone, Serialize)]
pub struct WhatsappMessage {
    pub id: String,
    /// Number of the other side, or the group's JID.
    pub chat: String,
    /// Number of who wrote it.
    pub from: String,
    pub from_me: bool,
    /// Which of the writer's devices sent it; 0 is the phone itself.
    pub device: u16,
    /// `text image video audio document location contact reaction edit delete other`.
    pub kind: String,
    /// Text or caption; after an edit the new one.
    pub text: Option<String>,
    pub mime: Option<String>,
    pub file_name: Option<String>,
    /// Length of the decrypted file; its bytes are at `/sim/whatsapp-web/media`.
    pub file_bytes: Option<usize>,
    pub location: Option<WhatsappLocation>,
    pub contact: Option<WhatsappContact>,
    /// Which message a reaction, edit or delete is about.
    pub target: Option<String>,
    pub quoted: Option<String>,
    /// Last reaction of each number to this message.
    pub reactions: Vec<(String, String)>,
    pub edited: bool,
    pub deleted: bool,
    /// For messages of this phone: as far as the other side said. For received ones: read or not.
    pub tick: WhatsappTick,
    /// How often this id arrived and could be decrypted. More than 1 is a double.
    pub copies: u32,
    pub at: DateTime<Utc>,
    #[serde(skip)]
    pub(super) file: Option<bytes::Bytes>,
}

/// A message a phone could not decrypt. A retry was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct WhatsappFailure {
    pub id: String,
    pub from: String,
    pub device: u16,
    pub reason: String,
}

/// A group and who is in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhatsappGroup {
    /// `…@g.us`.
    pub jid: String,
    pub subject: String,
    pub creator: String,
    pub members: Vec<String>,
    pub created_at: DateTime<Utc>,
}

/// Switches that break things. Replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WhatsappFaults {
    /// Chance, 0 to 1, that a stanza from a device costs it its socket instead of being handled. A login alone takes
    /// some fifteen, so more than a few hundredths keep a device from ever coming back.
    pub drop_probability: f64,
    /// New sockets are refused with HTTP 503.
    pub refuse_dials: bool,
    /// Acknowledgements of messages come so many milliseconds late.
    pub ack_delay_ms: u64,
    /// So many next messages of devices are refused with `nack_code`, and go nowhere.
    pub nack_next: u32,
    /// 463 (reach-out lock), 479 (malformed) or any other.
    pub nack_code: u16,
    /// So many next messages of phones reach devices with a damaged ciphertext.
    pub damage_next: u32,
    /// Every stored message is delivered to devices twice.
    pub duplicate: bool,
}

/// What happens at once to devices that are connected, or to one number's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhatsappDisruption {
    /// The socket ends without a word.
    Drop,
    /// Stream error 503.
    Unavailable,
    /// A second copy of the session took over.
    Replaced,
}
