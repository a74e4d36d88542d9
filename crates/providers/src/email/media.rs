//! Getting a file out of the mail that brought it.

use bytes::Bytes;
use mail_parser::{Encoding, PartType};
use wasel_domain::MediaRef;

use super::{errors, inbound, parse};
use crate::{ErrorClass, FetchedMedia, SendError};

/// The part's bytes, decoded. Text comes as UTF-8, whatever it was written in.
pub(super) fn fetch(
    webhook_body: Option<&[u8]>,
    media: &MediaRef,
    max_bytes: u64,
) -> Result<FetchedMedia, SendError> {
    let raw = webhook_body.ok_or_else(|| gone("the mail that brought the file is gone"))?;
    let number: u32 = media
        .provider_id
        .as_deref()
        .and_then(|id| id.strip_prefix(inbound::PART))
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| gone("the file names no part of a mail"))?;
    let mail = parse::read(raw).map_err(|_| gone("the mail that brought the file is damaged"))?;
    let part = mail
        .part(number)
        .filter(|_| mail.attachments.contains(&number))
        .ok_or_else(|| gone("the mail has no such file"))?;
    let bytes = match &part.body {
        // A mail within the mail is a file of its own: what lies between its part's headers and end.
        PartType::Message(_) if part.encoding == Encoding::None => raw
            .get(part.raw_body_offset() as usize..part.raw_end_offset() as usize)
            .ok_or_else(|| gone("the mail that brought the file is damaged"))?,
        _ => part.contents(),
    };
    if bytes.len() as u64 > max_bytes {
        return Err(gone("the file is larger than allowed"));
    }
    let mut mime_type = inbound::mime_type(part);
    if part.is_text() {
        mime_type += "; charset=utf-8";
    }
    Ok(FetchedMedia {
        bytes: Bytes::copy_from_slice(bytes),
        mime_type,
    })
}

/// Asking again changes nothing.
fn gone(detail: &str) -> SendError {
    errors::plain(ErrorClass::Content, detail)
}
