//! Files: what customers send, and what the business uploads.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use ring::digest;
use serde::{Deserialize, Serialize};

use super::{Provider, WorldError};

/// All files together stay under this many bytes; the oldest go first.
pub(crate) const MEDIA_BUDGET: usize = 256 * 1024 * 1024;

/// A file held by the simulator.
#[derive(Clone)]
pub(crate) struct StoredMedia {
    pub(crate) id: String,
    pub(crate) provider: Provider,
    /// Meta: phone number id. Twilio: account SID.
    pub(crate) owner: String,
    /// Twilio: SID of the message.
    pub(crate) parent: Option<String>,
    pub(crate) mime_type: String,
    pub(crate) filename: Option<String>,
    pub(crate) bytes: Bytes,
    /// Twilio outbound: the address the business gave; the bytes were never here.
    pub(crate) external_url: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    /// Meta forgets files: uploads after 30 days, those of a webhook after 7.
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

impl StoredMedia {
    /// SHA-256 in lower-case hex, as `GET /{media_id}` gives it.
    pub(crate) fn sha256_hex(&self) -> String {
        hex::encode(digest::digest(&digest::SHA256, &self.bytes))
    }

    /// SHA-256 in base64, as webhooks give it.
    pub(crate) fn sha256_base64(&self) -> String {
        STANDARD.encode(digest::digest(&digest::SHA256, &self.bytes))
    }
}

/// A file a customer sends. Without `data` a small sample of the kind is made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomerMedia {
    /// The bytes, base64.
    pub data: Option<String>,
    pub mime_type: Option<String>,
    pub caption: Option<String>,
    /// Documents only.
    pub filename: Option<String>,
    /// Audio only: a voice note.
    pub voice: bool,
    /// Stickers only.
    pub animated: bool,
}

impl CustomerMedia {
    /// The bytes and MIME type of this file, or of a sample for `kind`.
    pub(crate) fn resolve(&self, kind: &str) -> Result<(Bytes, String), WorldError> {
        let (sample, sample_type) = sample(kind);
        let bytes = match &self.data {
            Some(data) => STANDARD
                .decode(data)
                .map_err(|_| WorldError::Invalid("media data is not base64".to_owned()))?
                .into(),
            None => sample,
        };
        let mime_type = self.mime_type.clone().unwrap_or(sample_type);
        Ok((bytes, mime_type))
    }
}

/// A small file of the kind. Images, stickers, audio and documents open in a viewer; the video is
/// only a container without a track.
fn sample(kind: &str) -> (Bytes, String) {
    let (bytes, mime_type): (Vec<u8>, &str) = match kind {
        "image" => (png(), "image/png"),
        "sticker" => (webp(), "image/webp"),
        "audio" => (ogg_opus(), "audio/ogg; codecs=opus"),
        "video" => (mp4(), "video/mp4"),
        _ => (pdf(), "application/pdf"),
    };
    (bytes.into(), mime_type.to_owned())
}

/// 1×1 pixel, lossless.
fn webp() -> Vec<u8> {
    let mut out = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0".to_vec();
    out.extend([
        0x2f, 0, 0, 0, 0x10, 0x07, 0x10, 0x11, 0x11, 0x88, 0x88, 0xfe, 0x07, 0,
    ]);
    out
}

/// 16×16 pixels of one green, in an uncompressed deflate block.
fn png() -> Vec<u8> {
    const SIDE: u32 = 16;
    // Each row is a filter byte and its pixels.
    let mut row = vec![0];
    row.extend([0x25, 0xd3, 0x66].repeat(SIDE as usize));
    let raw = row.repeat(SIDE as usize);
    let mut data = vec![0x78, 0x01, 0x01];
    let length = u16::try_from(raw.len()).unwrap_or(u16::MAX);
    data.extend(length.to_le_bytes());
    data.extend((!length).to_le_bytes());
    data.extend(&raw);
    let (mut a, mut b) = (1u32, 0u32);
    for byte in &raw {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    data.extend(((b << 16) | a).to_be_bytes());

    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], body: &[u8]| {
        out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        let mut checked = name.to_vec();
        checked.extend(body);
        out.extend(&checked);
        out.extend(crc32_reflected(&checked).to_be_bytes());
    };
    let mut header = Vec::new();
    header.extend(SIDE.to_be_bytes());
    header.extend(SIDE.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    chunk(b"IHDR", &header);
    chunk(b"IDAT", &data);
    chunk(b"IEND", b"");
    out
}

fn crc32_reflected(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// One second of silence in Opus packets (RFC 7845).
fn ogg_opus() -> Vec<u8> {
    let mut head = b"OpusHead\x01\x01".to_vec();
    head.extend(312u16.to_le_bytes());
    head.extend(48_000u32.to_le_bytes());
    head.extend([0, 0, 0]);
    let mut tags = b"OpusTags".to_vec();
    tags.extend(9u32.to_le_bytes());
    tags.extend(b"simulator");
    tags.extend(0u32.to_le_bytes());
    let silence: Vec<&[u8]> = vec![&[0xf8, 0xff, 0xfe]; 50];

    let mut out = ogg_page(0x02, 0, 0, &[&head]);
    out.extend(ogg_page(0x00, 0, 1, &[&tags]));
    out.extend(ogg_page(0x04, 48_000, 2, &silence));
    out
}

fn ogg_page(flags: u8, granule: u64, sequence: u32, packets: &[&[u8]]) -> Vec<u8> {
    let mut page = b"OggS\0".to_vec();
    page.push(flags);
    page.extend(granule.to_le_bytes());
    page.extend(1u32.to_le_bytes());
    page.extend(sequence.to_le_bytes());
    page.extend([0; 4]);
    page.push(u8::try_from(packets.len()).unwrap_or(u8::MAX));
    // Every packet here is shorter than 255 bytes: one lacing value each.
    page.extend(packets.iter().map(|p| u8::try_from(p.len()).unwrap_or(254)));
    for packet in packets {
        page.extend(*packet);
    }
    let mut crc = 0u32;
    for byte in &page {
        crc ^= u32::from(*byte) << 24;
        for _ in 0..8 {
            crc = (crc << 1) ^ (0x04C1_1DB7 & (crc >> 31).wrapping_neg());
        }
    }
    page[22..26].copy_from_slice(&crc.to_le_bytes());
    page
}

fn mp4() -> Vec<u8> {
    let mut out = vec![0, 0, 0, 24];
    out.extend(b"ftypmp42\0\0\0\0mp42isom");
    out.extend([0, 0, 0, 8]);
    out.extend(b"mdat");
    out
}

/// One empty page.
fn pdf() -> Vec<u8> {
    let objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>",
    ];
    let mut out = "%PDF-1.4\n".to_owned();
    let mut table = "0000000000 65535 f \n".to_owned();
    for (n, object) in (1..).zip(objects) {
        table.push_str(&format!("{:010} 00000 n \n", out.len()));
        out.push_str(&format!("{n} 0 obj{object}endobj\n"));
    }
    let start = out.len();
    out.push_str(&format!(
        "xref\n0 4\n{table}trailer<</Size 4/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n"
    ));
    out.into_bytes()
}

/// The MIME type the first bytes speak of, where they do.
pub(crate) fn sniff(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG") {
        Some("image/png")
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else if bytes.starts_with(b"OggS") {
        Some("audio/ogg")
    } else if bytes.get(4..8) == Some(b"ftyp") {
        Some("video/mp4")
    } else if bytes.starts_with(b"%PDF") {
        Some("application/pdf")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_what_they_say() {
        for kind in ["image", "sticker", "audio", "video", "document"] {
            let (bytes, mime_type) = sample(kind);
            let base = mime_type.split(';').next();
            assert_eq!(sniff(&bytes), base, "{kind}");
        }
    }

    #[test]
    fn the_png_checksum_is_the_standard_one() {
        assert_eq!(crc32_reflected(b"123456789"), 0xCBF4_3926);
    }
}
