//! Files that customers sent: fetched and decrypted without a session.

use bytes::Bytes;
use wasel_domain::MediaRef;

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
    /// What came is not what the message announced.
    #[error("the file is damaged")]
    Damaged,
    #[error("{0}")]
    Unavailable(String),
}

/// Fetches and decrypts the file of a message that came in. Returns its bytes and MIME type.
pub async fn fetch_media(
    _http: &reqwest::Client,
    _media: &MediaRef,
    _limits: MediaLimits,
) -> Result<(Bytes, String), FetchError> {
    Err(FetchError::BadReference)
}
