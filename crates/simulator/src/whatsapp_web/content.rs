//! Messages in words, and the encoded messages clients exchange.

use bytes::Bytes;
use wacore::download::MediaType;
use waproto::{
    buffa::MessageField,
    whatsapp::{self as wa, message as part},
};

use super::{
    Hub, WhatsappContent, WhatsappWebError,
    media::{Stored, Upload},
    model::{WhatsappContact, WhatsappFile, WhatsappLocation, WhatsappMessage},
};

/// What a message says, for a person.
#[derive(Default)]
pub(super) struct Summary {
    pub(super) kind: &'static str,
    pub(super) text: Option<String>,
    pub(super) mime: Option<String>,
    pub(super) file_name: Option<String>,
    pub(super) file: Option<Bytes>,
    pub(super) location: Option<WhatsappLocation>,
    pub(super) contact: Option<WhatsappContact>,
    pub(super) target: Option<String>,
    pub(super) quoted: Option<String>,
}

/// What wraps a message says only how it is to be shown.
fn unwrapped(message: &wa::Message) -> &wa::Message {
    let wrappers = [
        &message.ephemeral_message,
        &message.view_once_message,
        &message.document_with_caption_message,
        &message.edited_message,
    ];
    wrappers
        .into_iter()
        .find_map(|wrapper| wrapper.as_option()?.message.as_option())
        .unwrap_or(message)
}

/// Reads a decrypted message, fetching and decrypting its file. `None` when it says nothing to a person.
pub(super) fn read(hub: &Hub, message: &wa::Message) -> Option<Summary> {
    let message = unwrapped(message);
    let mut summary = Summary::default();
    if let Some(text) = &message.conversation {
        summary.kind = "text";
        summary.text = Some(text.clone());
    } else if let Some(text) = message.extended_text_message.as_option() {
        summary.kind = "text";
        summary.text.clone_from(&text.text);
        summary.quoted = quoted(&text.context_info);
    } else if read_file(hub, message, &mut summary) {
        // Filled in.
    } else if let Some(location) = message.location_message.as_option() {
        summary.kind = "location";
        summary.location = Some(WhatsappLocation {
            latitude: location.degrees_latitude.unwrap_or_default(),
            longitude: location.degrees_longitude.unwrap_or_default(),
            name: location.name.clone(),
            address: location.address.clone(),
        });
        summary.quoted = quoted(&location.context_info);
    } else if let Some(contact) = message.contact_message.as_option() {
        summary.kind = "contact";
        summary.contact = Some(WhatsappContact {
            name: contact.display_name.clone().unwrap_or_default(),
            number: number_of_vcard(contact.vcard.as_deref().unwrap_or_default()),
        });
        summary.quoted = quoted(&contact.context_info);
    } else if let Some(reaction) = message.reaction_message.as_option() {
        summary.kind = "reaction";
        summary.text.clone_from(&reaction.text);
        summary.target.clone_from(&reaction.key.id);
    } else if let Some(protocol) = message.protocol_message.as_option() {
        return read_protocol(protocol);
    } else if message.sender_key_distribution_message.is_set() {
        return None;
    } else {
        summary.kind = "other";
    }
    Some(summary)
}

fn read_protocol(protocol: &part::ProtocolMessage) -> Option<Summary> {
    use part::protocol_message::Type;
    let target = protocol.key.id.clone();
    match protocol.r#type? {
        Type::REVOKE => Some(Summary {
            kind: "delete",
            target,
            ..Default::default()
        }),
        Type::MESSAGE_EDIT => {
            let edited = unwrapped(&protocol.edited_message);
            let extended = edited.extended_text_message.text.clone();
            Some(Summary {
                kind: "edit",
                text: edited.conversation.clone().or(extended),
                target,
                ..Default::default()
            })
        }
        _ => None,
    }
}

fn read_file(hub: &Hub, message: &wa::Message, summary: &mut Summary) -> bool {
    macro_rules! file {
        ($field:ident, $kind:literal, $media:ident, $caption:expr) => {
            if let Some(file) = message.$field.as_option() {
                summary.kind = $kind;
                summary.text = ($caption)(file);
                summary.mime.clone_from(&file.mimetype);
                summary.quoted = quoted(&file.context_info);
                summary.file = file
                    .direct_path
                    .as_deref()
                    .zip(file.media_key.as_deref())
                    .and_then(|(path, key)| hub.fetch(path, key, MediaType::$media));
                return true;
            }
        };
    }
    file!(image_message, "image", Image, |f: &part::ImageMessage| f
        .caption
        .clone());
    file!(video_message, "video", Video, |f: &part::VideoMessage| f
        .caption
        .clone());
    file!(audio_message, "audio", Audio, |_: &part::AudioMessage| None);
    if let Some(document) = message.document_message.as_option() {
        summary.file_name.clone_from(&document.file_name);
    }
    file!(
        document_message,
        "document",
        Document,
        |f: &part::DocumentMessage| f.caption.clone()
    );
    false
}

fn quoted(context: &MessageField<wa::ContextInfo>) -> Option<String> {
    context.stanza_id.clone()
}

fn number_of_vcard(card: &str) -> String {
    card.lines()
        .find(|line| line.starts_with("TEL"))
        .and_then(|line| line.rsplit(':').next())
        .unwrap_or_default()
        .to_owned()
}

/// What a message is about: chat and writer of another one, for its key.
pub(super) struct About<'a> {
    pub(super) message: &'a WhatsappMessage,
    /// The chat as the message's key has it.
    pub(super) chat_jid: String,
    /// In groups, who wrote it.
    pub(super) participant: Option<String>,
}

impl About<'_> {
    fn key(&self) -> wa::MessageKey {
        wa::MessageKey {
            remote_jid: Some(self.chat_jid.clone()),
            from_me: Some(self.message.from_me),
            id: Some(self.message.id.clone()),
            participant: self.participant.clone(),
        }
    }

    fn context(&self) -> MessageField<wa::ContextInfo> {
        let quoted = wa::Message {
            conversation: Some(self.message.text.clone().unwrap_or_default()),
            ..Default::default()
        };
        MessageField::some(wa::ContextInfo {
            stanza_id: Some(self.message.id.clone()),
            participant: self.participant.clone(),
            quoted_message: MessageField::some(quoted),
            ..Default::default()
        })
    }
}

/// The message a person's wish becomes.
///
/// # Errors
/// When a file is not Base64, or nothing is said to be quoted, reacted to, edited or deleted.
pub(super) fn write(
    hub: &Hub,
    content: &WhatsappContent,
    about: Option<&About<'_>>,
) -> Result<wa::Message, WhatsappWebError> {
    let context = about.map(About::context).unwrap_or_default();
    let key = || {
        about
            .map(|about| MessageField::some(about.key()))
            .ok_or(WhatsappWebError::UnknownMessage)
    };
    let mut message = wa::Message::default();
    match content {
        WhatsappContent::Text(text) if context.is_unset() => {
            message.conversation = Some(text.clone());
        }
        WhatsappContent::Text(text) => {
            message.extended_text_message = MessageField::some(part::ExtendedTextMessage {
                text: Some(text.clone()),
                context_info: context,
                ..Default::default()
            });
        }
        WhatsappContent::Image(file) => {
            let Stored { path, url, sealed } = store(hub, file, MediaType::Image)?;
            message.image_message = MessageField::some(part::ImageMessage {
                url: Some(url),
                direct_path: Some(path),
                mimetype: Some(file.mime.clone()),
                caption: file.caption.clone(),
                media_key: Some(sealed.media_key.to_vec()),
                file_sha256: Some(sealed.file_sha256.to_vec()),
                file_enc_sha256: Some(sealed.file_enc_sha256.to_vec()),
                file_length: Some(sealed.file_length),
                context_info: context,
                ..Default::default()
            });
        }
        WhatsappContent::Video(file) => {
            let Stored { path, url, sealed } = store(hub, file, MediaType::Video)?;
            message.video_message = MessageField::some(part::VideoMessage {
                url: Some(url),
                direct_path: Some(path),
                mimetype: Some(file.mime.clone()),
                caption: file.caption.clone(),
                media_key: Some(sealed.media_key.to_vec()),
                file_sha256: Some(sealed.file_sha256.to_vec()),
                file_enc_sha256: Some(sealed.file_enc_sha256.to_vec()),
                file_length: Some(sealed.file_length),
                context_info: context,
                ..Default::default()
            });
        }
        WhatsappContent::Audio(file) => {
            let Stored { path, url, sealed } = store(hub, file, MediaType::Audio)?;
            message.audio_message = MessageField::some(part::AudioMessage {
                url: Some(url),
                direct_path: Some(path),
                mimetype: Some(file.mime.clone()),
                media_key: Some(sealed.media_key.to_vec()),
                file_sha256: Some(sealed.file_sha256.to_vec()),
                file_enc_sha256: Some(sealed.file_enc_sha256.to_vec()),
                file_length: Some(sealed.file_length),
                seconds: Some(1),
                ptt: Some(true),
                context_info: context,
                ..Default::default()
            });
        }
        WhatsappContent::Document(file) => {
            let Stored { path, url, sealed } = store(hub, file, MediaType::Document)?;
            let name = file.file_name.clone().unwrap_or_else(|| "file".to_owned());
            message.document_message = MessageField::some(part::DocumentMessage {
                url: Some(url),
                direct_path: Some(path),
                mimetype: Some(file.mime.clone()),
                title: Some(name.clone()),
                file_name: Some(name),
                caption: file.caption.clone(),
                media_key: Some(sealed.media_key.to_vec()),
                file_sha256: Some(sealed.file_sha256.to_vec()),
                file_enc_sha256: Some(sealed.file_enc_sha256.to_vec()),
                file_length: Some(sealed.file_length),
                context_info: context,
                ..Default::default()
            });
        }
        WhatsappContent::Location(place) => {
            message.location_message = MessageField::some(part::LocationMessage {
                degrees_latitude: Some(place.latitude),
                degrees_longitude: Some(place.longitude),
                name: place.name.clone(),
                address: place.address.clone(),
                context_info: context,
                ..Default::default()
            });
        }
        WhatsappContent::Contact(contact) => {
            message.contact_message = MessageField::some(part::ContactMessage {
                display_name: Some(contact.name.clone()),
                vcard: Some(vcard(contact)),
                context_info: context,
                ..Default::default()
            });
        }
        WhatsappContent::Reaction(reaction) => {
            message.reaction_message = MessageField::some(part::ReactionMessage {
                key: key()?,
                text: Some(reaction.emoji.clone()),
                sender_timestamp_ms: Some(chrono::Utc::now().timestamp_millis()),
                ..Default::default()
            });
        }
        WhatsappContent::Edit(edit) => {
            let edited = wa::Message {
                conversation: Some(edit.text.clone()),
                ..Default::default()
            };
            message.protocol_message = MessageField::some(part::ProtocolMessage {
                key: key()?,
                r#type: Some(part::protocol_message::Type::MESSAGE_EDIT),
                edited_message: MessageField::some(edited),
                timestamp_ms: Some(chrono::Utc::now().timestamp_millis()),
                ..Default::default()
            });
        }
        WhatsappContent::Delete(_) => {
            message.protocol_message = MessageField::some(part::ProtocolMessage {
                key: key()?,
                r#type: Some(part::protocol_message::Type::REVOKE),
                ..Default::default()
            });
        }
    }
    Ok(message)
}

/// The id of the message `content` is about, where it is about one.
pub(super) fn target(content: &WhatsappContent) -> Option<&str> {
    match content {
        WhatsappContent::Reaction(reaction) => Some(&reaction.message_id),
        WhatsappContent::Edit(edit) => Some(&edit.message_id),
        WhatsappContent::Delete(delete) => Some(&delete.message_id),
        _ => None,
    }
}

/// The stanza's `type` and `edit`, and the ciphertext's `mediatype`.
pub(super) fn stanza_marks(
    content: &WhatsappContent,
) -> (&'static str, Option<&'static str>, Option<&'static str>) {
    match content {
        WhatsappContent::Text(_) => ("text", None, None),
        WhatsappContent::Image(_) => ("media", None, Some("image")),
        WhatsappContent::Video(_) => ("media", None, Some("video")),
        WhatsappContent::Audio(_) => ("media", None, Some("ptt")),
        WhatsappContent::Document(_) => ("media", None, Some("document")),
        WhatsappContent::Location(_) => ("media", None, Some("location")),
        WhatsappContent::Contact(_) => ("media", None, Some("vcard")),
        WhatsappContent::Reaction(_) => ("reaction", None, None),
        WhatsappContent::Edit(_) => ("text", Some("1"), None),
        WhatsappContent::Delete(_) => ("text", Some("7"), None),
    }
}

fn store(hub: &Hub, file: &WhatsappFile, kind: MediaType) -> Result<Stored, WhatsappWebError> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let plain = BASE64_STANDARD
        .decode(&file.base64)
        .map_err(|error| WhatsappWebError::Invalid(format!("base64: {error}")))?;
    hub.store(&Upload { plain, kind })
        .map_err(|error| WhatsappWebError::Invalid(error.to_string()))
}

fn vcard(contact: &WhatsappContact) -> String {
    let digits: String = contact
        .number
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    format!(
        "BEGIN:VCARD\nVERSION:3.0\nFN:{}\nTEL;type=CELL;waid={digits}:+{digits}\nEND:VCARD",
        contact.name
    )
}
