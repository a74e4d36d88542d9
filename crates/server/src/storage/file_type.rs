//! The files the bucket takes: what WhatsApp sends, no larger than it sends them, and only if they are what they say.
//!
//! Source: Meta, Cloud API, "Supported media types". A sticker (WebP) may be as large as a picture here, because other
//! channels send WebP as one.

const MB: u64 = 1024 * 1024;

/// A kind of file.
#[derive(Debug, PartialEq, Eq)]
pub struct FileType {
    /// Without parameters.
    pub mime: &'static str,
    /// As the documents and providers call it: `image`, `audio`, `video`, `document`.
    pub kind: &'static str,
    /// In bytes.
    pub max_size: u64,
    /// Whether a browser may show it by itself. Anything else is a download, so that no file runs on our origin.
    pub shown: bool,
    signature: Signature,
    extension: &'static str,
}

/// What the first bytes show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    Jpeg,
    Png,
    Webp,
    Pdf,
    Ogg,
    Mp3,
    Aac,
    Amr,
    /// The container of MP4, M4A and 3GP.
    IsoMedia,
    /// Word, Excel and PowerPoint until 2003.
    Ole,
    /// And since.
    Zip,
    Text,
}

/// How many of the first bytes are looked at.
pub const HEAD: usize = 512;

const fn file(
    mime: &'static str,
    kind: &'static str,
    max_size: u64,
    shown: bool,
    signature: Signature,
    extension: &'static str,
) -> FileType {
    FileType {
        mime,
        kind,
        max_size,
        shown,
        signature,
        extension,
    }
}

/// All of them; of several with one signature the first is meant where nothing else tells.
#[rustfmt::skip]
pub const TYPES: [FileType; 19] = [
    file("image/jpeg", "image", 5 * MB, true, Signature::Jpeg, "jpg"),
    file("image/png", "image", 5 * MB, true, Signature::Png, "png"),
    file("image/webp", "image", 5 * MB, true, Signature::Webp, "webp"),
    file("audio/ogg", "audio", 16 * MB, true, Signature::Ogg, "ogg"),
    file("audio/mpeg", "audio", 16 * MB, true, Signature::Mp3, "mp3"),
    file("audio/aac", "audio", 16 * MB, true, Signature::Aac, "aac"),
    file("audio/amr", "audio", 16 * MB, true, Signature::Amr, "amr"),
    file("video/mp4", "video", 16 * MB, true, Signature::IsoMedia, "mp4"),
    file("audio/mp4", "audio", 16 * MB, true, Signature::IsoMedia, "m4a"),
    file("video/3gpp", "video", 16 * MB, true, Signature::IsoMedia, "3gp"),
    file("application/pdf", "document", 100 * MB, true, Signature::Pdf, "pdf"),
    file("text/plain", "document", 100 * MB, false, Signature::Text, "txt"),
    file("application/msword", "document", 100 * MB, false, Signature::Ole, "doc"),
    file("application/vnd.ms-excel", "document", 100 * MB, false, Signature::Ole, "xls"),
    file("application/vnd.ms-powerpoint", "document", 100 * MB, false, Signature::Ole, "ppt"),
    file("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "document", 100 * MB, false,
        Signature::Zip, "docx"),
    file("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "document", 100 * MB, false,
        Signature::Zip, "xlsx"),
    file("application/vnd.openxmlformats-officedocument.presentationml.presentation", "document", 100 * MB, false,
        Signature::Zip, "pptx"),
    file("audio/opus", "audio", 16 * MB, true, Signature::Ogg, "opus"),
];

/// Other words for the same.
const ALIASES: [(&str, &str); 5] = [
    ("image/jpg", "image/jpeg"),
    ("audio/mp3", "audio/mpeg"),
    ("audio/m4a", "audio/mp4"),
    ("audio/x-m4a", "audio/mp4"),
    ("application/ogg", "audio/ogg"),
];

/// What says nothing: clients send these for whatever they have not looked at (supabase-js: `text/plain`).
const VAGUE: [&str; 4] = [
    "",
    "application/octet-stream",
    "binary/octet-stream",
    "text/plain",
];

impl FileType {
    /// By its MIME type.
    #[must_use]
    pub fn of(mime: &str) -> Option<&'static Self> {
        let essence = essence(mime);
        let essence = ALIASES
            .iter()
            .find(|(alias, _)| *alias == essence)
            .map_or(essence.as_str(), |(_, mime)| mime);
        TYPES.iter().find(|file| file.mime == essence)
    }

    /// What a file is: as declared if its first bytes agree, as they show where nothing is declared.
    ///
    /// # Errors
    /// The type that is not taken, for people.
    pub fn judge(declared: &str, name: &str, head: &[u8]) -> Result<&'static Self, String> {
        let essence = essence(declared);
        let shown = signature_of(head);
        let named = Self::of(&essence);
        if let Some(file) = named.filter(|file| shown == Some(file.signature)) {
            return Ok(file);
        }
        if VAGUE.contains(&essence.as_str()) {
            let like = |file: &&Self| Some(file.signature) == shown;
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
            let by_name = TYPES
                .iter()
                .filter(like)
                .find(|file| file.extension.eq_ignore_ascii_case(extension));
            // An old or new Office file is told by its name alone, and so is any other archive.
            let certain = !matches!(shown, Some(Signature::Zip | Signature::Ole));
            let by_bytes = TYPES.iter().find(like).filter(|_| certain);
            return by_name
                .or(by_bytes)
                .ok_or_else(|| "mime type of the file is not supported".to_owned());
        }
        Err(match named {
            Some(_) => format!("the file is not of the type {essence}"),
            None => format!("mime type {essence} is not supported"),
        })
    }
}

fn essence(mime: &str) -> String {
    let essence = mime.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

fn signature_of(head: &[u8]) -> Option<Signature> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    Some(if starts(b"\xff\xd8\xff") {
        Signature::Jpeg
    } else if starts(b"\x89PNG\r\n\x1a\n") {
        Signature::Png
    } else if starts(b"RIFF") && at(8, b"WEBP") {
        Signature::Webp
    } else if starts(b"%PDF-") {
        Signature::Pdf
    } else if starts(b"OggS") {
        Signature::Ogg
    } else if starts(b"ID3") {
        Signature::Mp3
    } else if starts(b"#!AMR") {
        Signature::Amr
    } else if at(4, b"ftyp") {
        Signature::IsoMedia
    } else if starts(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        Signature::Ole
    } else if starts(b"PK\x03\x04") {
        Signature::Zip
    } else if head.len() >= 2 && head[0] == 0xff && head[1] & 0xe0 == 0xe0 {
        // Sync word of MPEG audio; the layer tells an AAC stream (ADTS: 0) from MP3.
        if head[1] & 0x06 == 0 {
            Signature::Aac
        } else {
            Signature::Mp3
        }
    } else if head
        .iter()
        .all(|byte| !byte.is_ascii_control() || b"\t\n\r\x0c".contains(byte))
    {
        // Any encoding of text but UTF-16.
        Signature::Text
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const MP4: &[u8] = b"\0\0\0\x20ftypisom\0\0\x02\0";
    const ZIP: &[u8] = b"PK\x03\x04\x14\0\x06\0";

    fn judged(declared: &str, name: &str, head: &[u8]) -> Result<&'static str, String> {
        FileType::judge(declared, name, head).map(|file| file.mime)
    }

    #[test]
    fn a_file_is_what_its_first_bytes_agree_to() {
        assert_eq!(judged("image/jpeg", "a", JPEG), Ok("image/jpeg"));
        assert_eq!(judged("IMAGE/JPG; x=y", "a", JPEG), Ok("image/jpeg"));
        assert_eq!(
            judged("audio/ogg; codecs=opus", "a", b"OggS\0\x02"),
            Ok("audio/ogg")
        );
        assert_eq!(judged("audio/mp4", "a", MP4), Ok("audio/mp4"));
        assert_eq!(
            judged("text/plain;charset=UTF-8", "a", "مرحبا".as_bytes()),
            Ok("text/plain")
        );
        assert_eq!(judged("text/plain", "a", b""), Ok("text/plain"));
        assert_eq!(
            judged("audio/aac", "a", b"\xff\xf1\x50\x80"),
            Ok("audio/aac")
        );
        assert_eq!(
            judged("audio/mpeg", "a", b"\xff\xfb\x90\x64"),
            Ok("audio/mpeg")
        );
    }

    #[test]
    fn what_nobody_looked_at_is_looked_at() {
        for vague in ["", "application/octet-stream", "text/plain;charset=UTF-8"] {
            assert_eq!(judged(vague, "a.jpg", PNG), Ok("image/png"), "{vague}");
        }
        assert_eq!(judged("", "a.3gp", MP4), Ok("video/3gpp"));
        assert_eq!(judged("", "a", MP4), Ok("video/mp4"));
        assert!(
            judged("", "a.DOCX", ZIP)
                .unwrap()
                .contains("wordprocessingml")
        );
        assert!(judged("", "a.zip", ZIP).is_err());
        assert!(judged("", "a.exe", b"MZ\x90\0\x03").is_err());
    }

    #[test]
    fn a_page_or_a_disguise_is_refused() {
        for (declared, head) in [
            ("text/html", &b"<html>"[..]),
            ("image/svg+xml", b"<svg>"),
            ("application/javascript", b"alert(1)"),
            ("image/png", JPEG),
            ("image/png", b"<html>"),
            ("application/pdf", b""),
            ("application/zip", ZIP),
            ("text/csv", b"a,b"),
        ] {
            assert!(judged(declared, "a", head).is_err(), "{declared}");
        }
    }

    #[test]
    fn nothing_that_can_hold_a_script_is_shown() {
        for file in &TYPES {
            assert!(
                !file.shown
                    || ["image/", "audio/", "video/", "application/pdf"]
                        .iter()
                        .any(|of| file.mime.starts_with(of)),
                "{}",
                file.mime
            );
            assert!(!file.mime.contains("svg") && !file.mime.contains("html"));
        }
    }
}
