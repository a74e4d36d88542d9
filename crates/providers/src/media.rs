//! Files fetched from a provider.

use bytes::Bytes;

/// A downloaded file.
#[derive(Clone, Debug)]
pub struct FetchedMedia {
    pub bytes: Bytes,
    /// As the provider declares it; `application/octet-stream` where it does not.
    pub mime_type: String,
}
