//! Our message as WhatsApp's.

use wasel_domain::OutboundContent;
use whatsapp_rust::Jid;
use whatsapp_rust::prelude::{MessageField, wa};
use whatsapp_rust::upload::UploadResponse;
use whatsapp_rust::wacore::download::MediaType;
use whatsapp_rust::wacore::proto_helpers::build_reaction_message;
use whatsapp_rust::wacore_binary::JidExt as _;

use super::{Outgoing, Quoted, SendFailure, cards, fallback};
use crate::media::FileKind;

/// A file as WhatsApp keeps it: where it is and what opens it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(super) url: String,
    pub(super) direct_path: String,
    pub(super) media_key: Vec<u8>,
    pub(super) file_sha256: Vec<u8>,
    pub(super) file_enc_sha256: Vec<u8>,
    pub(super) file_length: u64,
    pub(super) media_key_timestamp: i64,
    pub(super) streaming_sidecar: Option<Vec<u8>>,
}

impl From<UploadResponse> for Stored {
    fn from(upload: UploadResponse) -> Self {
        Self {
            url: upload.url,
            direct_path: upload.direct_path,
            media_key: upload.media_key.to_vec(),
            file_sha256: upload.file_sha256.to_vec(),
            file_enc_sha256: upload.file_enc_sha256.to_vec(),
            file_length: upload.file_length,
            media_key_timestamp: upload.media_key_timestamp,
            streaming_sidecar: upload.streaming_sidecar,
        }
    }
}

/// One of the messages with a file; these fields all of them have.
macro_rules! stored {
    ($kind:ident, $upload:ident, { $($field:ident: $value:expr),* $(,)? }) => {
        MessageField::some(wa::message::$kind {
            url: Some($upload.url),
            direct_path: Some($upload.direct_path),
            media_key: Some($upload.media_key),
            file_sha256: Some($upload.file_sha256),
            file_enc_sha256: Some($upload.file_enc_sha256),
            file_length: Some($upload.file_length),
            media_key_timestamp: Some($upload.media_key_timestamp),
            $($field: $value,)*
            ..Default::default()
        })
    };
}

/// How the file of a message is to be encrypted; `None` for a message without one.
pub(crate) fn upload_type(content: &OutboundContent) -> Option<MediaType> {
    let kind = match content {
        OutboundContent::Image(_) => FileKind::Image,
        OutboundContent::Video(_) => FileKind::Video,
        OutboundContent::Audio(_) => FileKind::Audio,
        OutboundContent::Document(_) => FileKind::Document,
        OutboundContent::Sticker(_) => FileKind::Sticker,
        _ => return None,
    };
    Some(kind.media_type())
}

/// What WhatsApp would take and then not show is refused before anything is uploaded.
pub(crate) fn check(message: &Outgoing) -> Result<(), SendFailure> {
    let refuse = |field, reason: &str| {
        Err(SendFailure::Content {
            field,
            reason: reason.to_owned(),
        })
    };
    let mime_type = message.media.as_ref().map(|file| file.mime_type.as_str());
    match (&message.content, mime_type) {
        (content, None) if upload_type(content).is_some() => refuse("media", "its file is missing"),
        (OutboundContent::Sticker(_), Some(mime_type)) if !is(mime_type, "image/webp") => {
            refuse("media", "a sticker must be WebP")
        }
        (OutboundContent::Audio(audio), Some(mime_type))
            if audio.voice && !is(mime_type, "audio/ogg") =>
        {
            refuse("media", "a voice note must be OGG with Opus")
        }
        (OutboundContent::Email { .. }, _) => refuse("type", "an e-mail cannot go by WhatsApp"),
        (OutboundContent::Template(template), _) if template.text.is_none() => refuse(
            "template",
            "a linked phone sends a template as its text, and this one has none",
        ),
        (OutboundContent::Interactive { interactive }, _)
            if fallback::text(interactive).is_none() =>
        {
            refuse("interactive", "it has no text")
        }
        (OutboundContent::Contacts { contacts }, _) if contacts.is_empty() => {
            refuse("contacts", "none is given")
        }
        _ => Ok(()),
    }
}

/// Without its parameters (`audio/ogg; codecs=opus`).
fn is(mime_type: &str, wanted: &str) -> bool {
    let essence = mime_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(wanted)
}

/// The message to `chat`. `own` is how we are known there, `now` in Unix milliseconds.
pub(crate) fn compose(
    message: &Outgoing,
    upload: Option<Stored>,
    chat: &Jid,
    own: &Jid,
    now: i64,
) -> Result<wa::Message, SendFailure> {
    check(message)?;
    let context = message
        .quoted
        .as_ref()
        .map(|quoted| Box::new(quote(quoted, chat, own)));
    let mime_type = message.media.as_ref().map(|file| file.mime_type.clone());
    Ok(match (&message.content, upload) {
        (OutboundContent::Text { body, .. }, _) => text(body, context),
        (OutboundContent::Template(template), _) => {
            text(template.text.as_deref().unwrap_or_default(), context)
        }
        (OutboundContent::Interactive { interactive }, _) => {
            text(&fallback::text(interactive).unwrap_or_default(), context)
        }
        (OutboundContent::Image(image), Some(upload)) => wa::Message {
            image_message: stored!(ImageMessage, upload, {
                caption: image.caption.clone(),
                mimetype: mime_type,
                context_info: field(context),
            }),
            ..Default::default()
        },
        (OutboundContent::Video(video), Some(upload)) => wa::Message {
            video_message: stored!(VideoMessage, upload, {
                caption: video.caption.clone(),
                mimetype: mime_type,
                streaming_sidecar: upload.streaming_sidecar,
                context_info: field(context),
            }),
            ..Default::default()
        },
        (OutboundContent::Audio(audio), Some(upload)) => wa::Message {
            audio_message: stored!(AudioMessage, upload, {
                // The phones play a voice note only under its full name.
                mimetype: if audio.voice {
                    Some("audio/ogg; codecs=opus".to_owned())
                } else {
                    mime_type
                },
                ptt: Some(audio.voice),
                streaming_sidecar: upload.streaming_sidecar,
                context_info: field(context),
            }),
            ..Default::default()
        },
        (OutboundContent::Document(document), Some(upload)) => wa::Message {
            document_message: stored!(DocumentMessage, upload, {
                mimetype: mime_type,
                file_name: document.filename.clone(),
                title: document.filename.clone(),
                caption: document.caption.clone(),
                context_info: field(context),
            }),
            ..Default::default()
        },
        (OutboundContent::Sticker(_), Some(upload)) => wa::Message {
            sticker_message: stored!(StickerMessage, upload, {
                mimetype: Some("image/webp".to_owned()),
                context_info: field(context),
            }),
            ..Default::default()
        },
        (
            OutboundContent::Location {
                latitude,
                longitude,
                name,
                address,
            },
            _,
        ) => wa::Message {
            location_message: MessageField::some(wa::message::LocationMessage {
                degrees_latitude: Some(*latitude),
                degrees_longitude: Some(*longitude),
                name: name.clone(),
                address: address.clone(),
                context_info: field(context),
                ..Default::default()
            }),
            ..Default::default()
        },
        (OutboundContent::Contacts { contacts }, _) => cards::message(contacts, field(context)),
        (OutboundContent::Reaction { message_id, emoji }, _) => {
            // Who wrote the message comes with it; where nobody says, a customer did.
            let about = message
                .quoted
                .as_ref()
                .filter(|quoted| quoted.provider_message_id == *message_id);
            let from_us = about.is_some_and(|quoted| quoted.from_us);
            let participant = about
                .and_then(|quoted| quoted.participant.clone())
                .filter(|_| chat.is_group() && !from_us);
            let key = wa::MessageKey {
                remote_jid: Some(chat.to_non_ad_string()),
                from_me: Some(from_us),
                id: Some(message_id.clone()),
                participant,
            };
            build_reaction_message(key, emoji.as_str(), now)
        }
        // [`check`] has said what is wrong with the rest.
        (OutboundContent::Email { .. }, _) | (_, None) => {
            return Err(SendFailure::Content {
                field: "media",
                reason: "its file is missing".to_owned(),
            });
        }
    })
}

fn field(context: Option<Box<wa::ContextInfo>>) -> MessageField<wa::ContextInfo> {
    context.map(MessageField::from_box).unwrap_or_default()
}

fn text(body: &str, context: Option<Box<wa::ContextInfo>>) -> wa::Message {
    match context {
        None => wa::Message {
            conversation: Some(body.to_owned()),
            ..Default::default()
        },
        Some(context) => wa::Message {
            extended_text_message: MessageField::some(wa::message::ExtendedTextMessage {
                text: Some(body.to_owned()),
                context_info: MessageField::from_box(context),
                ..Default::default()
            }),
            ..Default::default()
        },
    }
}

/// A quote shows the words it is given, so they go along.
fn quote(quoted: &Quoted, chat: &Jid, own: &Jid) -> wa::ContextInfo {
    let author = if quoted.from_us {
        own.to_non_ad_string()
    } else {
        quoted
            .participant
            .clone()
            .filter(|_| chat.is_group())
            .unwrap_or_else(|| chat.to_non_ad_string())
    };
    wa::ContextInfo {
        stanza_id: Some(quoted.provider_message_id.clone()),
        participant: Some(author),
        quoted_message: MessageField::some(wa::Message {
            conversation: Some(quoted.text.clone().unwrap_or_default()),
            ..Default::default()
        }),
        ..Default::default()
    }
}
