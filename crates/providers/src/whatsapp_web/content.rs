//! What a phone can say.

use wasel_domain::OutboundContent;
use wasel_domain::content::{MediaSource, OutboundMedia};

use crate::ContentError;

/// Refuses what no phone can send.
pub(super) fn check(message: &OutboundContent, max_text_chars: usize) -> Result<(), ContentError> {
    let refuse = |field: &str, reason: String| {
        Err(ContentError {
            field: field.to_owned(),
            reason,
        })
    };
    match message {
        OutboundContent::Text { body, .. } => {
            if body.trim().is_empty() {
                return refuse("content.body", "is empty".to_owned());
            }
            if body.chars().count() > max_text_chars {
                return refuse(
                    "content.body",
                    format!("is longer than {max_text_chars} characters"),
                );
            }
            Ok(())
        }
        OutboundContent::Image(media)
        | OutboundContent::Video(media)
        | OutboundContent::Audio(media)
        | OutboundContent::Document(media)
        | OutboundContent::Sticker(media) => check_media(media),
        OutboundContent::Location {
            latitude,
            longitude,
            ..
        } => {
            if !(-90.0..=90.0).contains(latitude) {
                return refuse("content.latitude", "must lie between -90 and 90".to_owned());
            }
            if !(-180.0..=180.0).contains(longitude) {
                return refuse(
                    "content.longitude",
                    "must lie between -180 and 180".to_owned(),
                );
            }
            Ok(())
        }
        OutboundContent::Contacts { contacts } if contacts.is_empty() => {
            refuse("content.contacts", "is empty".to_owned())
        }
        OutboundContent::Reaction { message_id, .. } if message_id.is_empty() => {
            refuse("content.message_id", "is missing".to_owned())
        }
        OutboundContent::Template(template) if template.text.is_none() => refuse(
            "content.type",
            "a linked phone has no approved templates; send its text".to_owned(),
        ),
        OutboundContent::Email { .. } => {
            refuse("content.type", "a linked phone sends no e-mail".to_owned())
        }
        // Buttons and lists become numbered options.
        OutboundContent::Interactive { .. } if message.text().is_none() => refuse(
            "content.interactive.body.text",
            "is missing: a linked phone shows the text and numbered options".to_owned(),
        ),
        OutboundContent::Contacts { .. }
        | OutboundContent::Reaction { .. }
        | OutboundContent::Template(_)
        | OutboundContent::Interactive { .. } => Ok(()),
    }
}

fn check_media(media: &OutboundMedia) -> Result<(), ContentError> {
    match &media.source {
        MediaSource::Link(_) => Ok(()),
        MediaSource::ProviderId(_) => Err(ContentError {
            field: "content.provider_id".to_owned(),
            reason: "a linked phone keeps no uploads; give a link".to_owned(),
        }),
    }
}
