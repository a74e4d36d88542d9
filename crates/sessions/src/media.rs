//! Files that customers sent: fetched and decrypted without a session.
//!
//! A message carries the place and the key of its file. Both go into [`MediaRef::provider_id`], so that the file can be
//! fetched by any node, at any time while WhatsApp keeps it.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;
use wasel_domain::MediaRef;
use whatsapp_rust::TokioRuntime;
use whatsapp_rust::download::{DownloadParams, MediaDownloadError, MediaDownloader};
use whatsapp_rust::wacore::download::{Downloadable, MediaHost, MediaRoute, MediaType};

use crate::http::{Http, TooLarge};
use crate::settings::is_loopback;

/// What bounds a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaLimits {
    pub max_bytes: u64,
    /// Files may come from this machine, without TLS: the simulator's. Only honoured by a build that trusts it.
    pub loopback: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The reference is none of ours, or damaged.
    #[error("not a reference to a file at WhatsApp")]
    BadReference,
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// WhatsApp keeps files for some weeks only.
    #[error("the file is no longer at WhatsApp")]
    Gone,
    /// Not reachable now, or not what the message announced.
    #[error("{0}")]
    Unavailable(String),
}

/// How a file is encrypted depends on what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileKind {
    Image,
    Video,
    Audio,
    Document,
    Sticker,
}

impl FileKind {
    pub(crate) const fn media_type(self) -> MediaType {
        match self {
            Self::Image => MediaType::Image,
            Self::Video => MediaType::Video,
            Self::Audio => MediaType::Audio,
            Self::Document => MediaType::Document,
            Self::Sticker => MediaType::Sticker,
        }
    }

    const fn usual_mime_type(self) -> &'static str {
        match self {
            Self::Image => "image/jpeg",
            Self::Video => "video/mp4",
            Self::Audio => "audio/ogg",
            Self::Document => "application/octet-stream",
            Self::Sticker => "image/webp",
        }
    }
}

/// What [`MediaRef::provider_id`] holds, as JSON in base64url.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Ticket {
    #[serde(rename = "t")]
    kind: FileKind,
    #[serde(rename = "p")]
    path: String,
    #[serde(rename = "k")]
    key: String,
    #[serde(rename = "s")]
    sha256: String,
    #[serde(rename = "e")]
    encrypted_sha256: String,
    #[serde(rename = "l")]
    length: u64,
    /// Host and port of a file that is on this machine.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
}

/// `None` where the message lacks what is needed to fetch its file.
pub(crate) fn reference(
    file: &dyn Downloadable,
    kind: FileKind,
    mime_type: Option<&str>,
    url: &Option<String>,
) -> Option<MediaRef> {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let host = url
        .as_deref()
        .and_then(|url| Url::parse(url).ok())
        .filter(is_loopback)
        .map(|url| url.authority().to_owned());
    let ticket = Ticket {
        kind,
        path: file.direct_path()?.to_owned(),
        key: encode(file.media_key()?),
        sha256: encode(file.file_sha256()?),
        encrypted_sha256: encode(file.file_enc_sha256()?),
        length: file.file_length().unwrap_or(0),
        host,
    };
    Some(MediaRef {
        provider_id: Some(encode(&serde_json::to_vec(&ticket).ok()?)),
        url: None,
        mime_type: mime_type.map(str::to_owned),
        filename: None,
        sha256: file.file_sha256().map(|hash| BASE64_STANDARD.encode(hash)),
        voice: false,
    })
}

/// Fetches and decrypts the file of a message that came in. Returns its bytes and MIME type.
pub async fn fetch_media(
    http: &reqwest::Client,
    media: &MediaRef,
    limits: MediaLimits,
) -> Result<(Bytes, String), FetchError> {
    let ticket = media
        .provider_id
        .as_deref()
        .and_then(|id| BASE64_URL_SAFE_NO_PAD.decode(id).ok())
        .and_then(|json| serde_json::from_slice::<Ticket>(&json).ok())
        .ok_or(FetchError::BadReference)?;
    if ticket.length > limits.max_bytes {
        return Err(FetchError::TooLarge(limits.max_bytes));
    }
    let decode = |text: &str| {
        BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| FetchError::BadReference)
    };
    let params = DownloadParams::encrypted(
        &ticket.path,
        &decode(&ticket.key)?,
        &decode(&ticket.sha256)?,
        &decode(&ticket.encrypted_sha256)?,
        ticket.length,
        ticket.kind.media_type(),
    );
    let route = match ticket.host {
        Some(host) if limits.loopback => MediaRoute::unauthenticated(vec![MediaHost::new(host)]),
        _ => MediaRoute::default_hosts(),
    };
    let http = Http {
        client: http.clone(),
        limits: MediaLimits {
            // Encryption pads and signs.
            max_bytes: limits.max_bytes + 64,
            ..limits
        },
    };
    let bytes = MediaDownloader::new(Arc::new(http), Arc::new(TokioRuntime), route)
        .download(&params)
        .await
        .map_err(|error| fetch_error(error, limits))?;
    let mime_type = media
        .mime_type
        .clone()
        .unwrap_or_else(|| ticket.kind.usual_mime_type().to_owned());
    Ok((bytes.into(), mime_type))
}

fn fetch_error(error: MediaDownloadError, limits: MediaLimits) -> FetchError {
    match &error {
        MediaDownloadError::ReferenceRejected(_) => FetchError::Gone,
        MediaDownloadError::Other(_) => FetchError::BadReference,
        MediaDownloadError::HostsUnreachable(cause)
            if cause.chain().any(|cause| cause.is::<TooLarge>()) =>
        {
            FetchError::TooLarge(limits.max_bytes)
        }
        _ => FetchError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use whatsapp_rust::prelude::wa;

    use super::*;

    #[test]
    fn a_reference_holds_all_that_is_needed_to_fetch_the_file_and_no_address() {
        let image = wa::message::ImageMessage {
            url: Some("https://mmg.whatsapp.net/v/t62/secret.enc".to_owned()),
            direct_path: Some("/v/t62/secret.enc".to_owned()),
            media_key: Some(vec![1; 32]),
            file_sha256: Some(vec![2; 32]),
            file_enc_sha256: Some(vec![3; 32]),
            file_length: Some(77),
            ..Default::default()
        };
        let media = reference(&image, FileKind::Image, Some("image/png"), &image.url).unwrap();
        assert_eq!(media.url, None);
        assert_eq!(media.mime_type.as_deref(), Some("image/png"));
        let json = BASE64_URL_SAFE_NO_PAD
            .decode(media.provider_id.unwrap())
            .unwrap();
        let ticket: Ticket = serde_json::from_slice(&json).unwrap();
        assert_eq!(ticket.path, "/v/t62/secret.enc");
        assert_eq!(ticket.length, 77);
        assert_eq!(ticket.host, None);

        let without_key = wa::message::ImageMessage {
            media_key: None,
            ..image
        };
        assert!(reference(&without_key, FileKind::Image, None, &None).is_none());
    }

    #[tokio::test]
    async fn what_is_no_reference_or_too_large_is_refused_before_anything_is_fetched() {
        let http = crate::http::client_for_tests();
        let limits = MediaLimits {
            max_bytes: 10,
            loopback: false,
        };
        let fetch = async |id: Option<String>| {
            let media = MediaRef {
                provider_id: id,
                ..MediaRef::default()
            };
            fetch_media(&http, &media, limits).await.unwrap_err()
        };
        assert!(matches!(fetch(None).await, FetchError::BadReference));
        let rubbish = Some("rubbish".to_owned());
        assert!(matches!(fetch(rubbish).await, FetchError::BadReference));
        let large = wa::message::DocumentMessage {
            direct_path: Some("/x".to_owned()),
            media_key: Some(vec![1; 32]),
            file_sha256: Some(vec![2; 32]),
            file_enc_sha256: Some(vec![3; 32]),
            file_length: Some(11),
            ..Default::default()
        };
        let media = reference(&large, FileKind::Document, None, &None).unwrap();
        assert!(matches!(
            fetch(media.provider_id).await,
            FetchError::TooLarge(10)
        ));
    }
}
