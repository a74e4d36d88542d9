//! Fetching a customer's file.
//!
//! The address comes from a webhook, so it is checked before our credentials go anywhere: they go to the API's
//! own host only. Twilio answers with a redirect to its storage; that is followed here by hand, without
//! credentials (storage refuses them, and they are none of its business).
//!
//! The client must not follow redirects by itself (`redirect::Policy::none()`), or these rules are reqwest's.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, LOCATION};
use reqwest::Response;
use url::Url;
use wasel_domain::MediaRef;

use super::{TwilioChannel, errors, send};
use crate::{ErrorClass, FetchedMedia, SendError};

const MAX_REDIRECTS: usize = 5;

impl TwilioChannel {
    pub(super) async fn download(
        &self,
        http: &reqwest::Client,
        media: &MediaRef,
        max_bytes: u64,
    ) -> Result<FetchedMedia, SendError> {
        let url = media
            .url
            .as_deref()
            .and_then(|url| Url::parse(url).ok())
            .ok_or_else(|| refused("the file has no address"))?;
        if url.origin() != self.api_base.origin() {
            return Err(refused("the file's address is not at Twilio's API"));
        }
        let request = http
            .get(url.clone())
            .basic_auth(&self.settings.account_sid, self.settings.auth_token());
        let mut response = request.send().await.map_err(interrupted)?;
        let mut url = url;
        for _ in 0..MAX_REDIRECTS {
            if !response.status().is_redirection() {
                break;
            }
            url = target(&url, &response)?;
            response = http.get(url.clone()).send().await.map_err(interrupted)?;
        }
        if !response.status().is_success() {
            return Err(failed(&response));
        }
        let mime_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .or(media.mime_type.as_deref())
            .unwrap_or("application/octet-stream")
            .to_owned();
        Ok(FetchedMedia {
            bytes: read_at_most(response, max_bytes).await?,
            mime_type,
        })
    }
}

/// Where a redirect leads: the web, and never from https to http.
fn target(from: &Url, response: &Response) -> Result<Url, SendError> {
    let target = response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| refused("the file's address redirects to nowhere"))?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => Ok(target),
        _ => Err(refused("the file's address redirects to an unsafe one")),
    }
}

async fn read_at_most(mut response: Response, max_bytes: u64) -> Result<Bytes, SendError> {
    let too_large = || refused("the file is larger than allowed");
    if response
        .content_length()
        .is_some_and(|length| length > max_bytes)
    {
        return Err(too_large());
    }
    // The declared length is a promise; the bytes are counted as they come.
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(interrupted)? {
        if (bytes.len() + chunk.len()) as u64 > max_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// Asking again changes nothing.
fn refused(detail: &str) -> SendError {
    SendError {
        class: ErrorClass::Content,
        code: None,
        detail: detail.to_owned(),
        retry_after: None,
    }
}

/// A download has no side effects, so a lost answer is no riddle: it can be asked for again.
fn interrupted(error: reqwest::Error) -> SendError {
    SendError {
        class: ErrorClass::Transient,
        ..SendError::from_http(&error)
    }
}

/// The answers of an API and of a file store mean other things than those to a message: what is missing or
/// has expired is gone, and only the API's own 401 says something about the channel.
fn failed(response: &Response) -> SendError {
    let status = response.status();
    let mut error = errors::from_answer(status, send::retry_after(response), &[], &[]);
    error.class = match status {
        StatusCode::UNAUTHORIZED => ErrorClass::ChannelBlocked,
        StatusCode::TOO_MANY_REQUESTS => ErrorClass::ThrottledChannel,
        StatusCode::REQUEST_TIMEOUT => ErrorClass::Transient,
        status if status.is_server_error() => ErrorClass::Transient,
        _ => ErrorClass::Content,
    };
    error
}
