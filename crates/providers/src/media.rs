//! Files fetched from a provider.

use bytes::Bytes;

/// Where a file can be got from.
#[derive(Clone, Copy, Debug)]
pub struct FetchFrom<'a> {
    pub http: &'a reqwest::Client,
    /// The body of the webhook request that brought it, where the channel asks for it
    /// ([`crate::Capabilities::media_in_webhook`]).
    pub webhook_body: Option<&'a [u8]>,
}

impl<'a> FetchFrom<'a> {
    /// From the provider's server only.
    #[must_use]
    pub fn server(http: &'a reqwest::Client) -> Self {
        Self {
            http,
            webhook_body: None,
        }
    }
}

/// A downloaded file.
#[derive(Clone, Debug)]
pub struct FetchedMedia {
    pub bytes: Bytes,
    /// As the provider declares it; `application/octet-stream` where it does not.
    pub mime_type: String,
}
