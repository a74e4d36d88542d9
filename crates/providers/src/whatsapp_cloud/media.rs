//! Files from customers: a media id gives an address that lives five minutes, and the address gives the file.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/business-phone-numbers/media>

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde::Deserialize;
use url::{Host, Url};
use wasel_domain::MediaRef;

use super::errors;
use super::graph::{Graph, repeatable};
use crate::{ErrorClass, FetchedMedia, SendError};

/// Only these get our token, whatever address a webhook names.
const MEDIA_HOSTS: [&str; 3] = ["fbsbx.com", "facebook.com", "whatsapp.net"];
const MAX_REDIRECTS: usize = 3;

pub(super) async fn fetch(
    graph: &Graph,
    http: &reqwest::Client,
    media: &MediaRef,
    max_bytes: u64,
) -> Result<FetchedMedia, SendError> {
    let Some(id) = &media.provider_id else {
        let address = media
            .url
            .as_deref()
            .ok_or_else(|| refused("the file has neither a media id nor an address"))?;
        return download(graph, http, address, media, max_bytes).await;
    };
    let url = address_of(graph, http, id).await?;
    match download(graph, http, &url, media, max_bytes).await {
        // The address has expired, or its server does not have the file yet: Meta says to ask for a new one.
        Err(error) if error.code.as_deref() == Some("http_404") => {
            let url = address_of(graph, http, id).await?;
            download(graph, http, &url, media, max_bytes).await
        }
        result => result,
    }
}

async fn address_of(graph: &Graph, http: &reqwest::Client, id: &str) -> Result<String, SendError> {
    #[derive(Deserialize)]
    struct Address {
        url: String,
    }

    let mut url = graph.url(&[id]);
    // Meta then checks that the file was sent to this number.
    url.query_pairs_mut()
        .append_pair("phone_number_id", &graph.phone_number_id);
    let body = graph.call(http.get(url), &[]).await.map_err(|error| {
        match error.code.as_deref() {
            // An id that Meta has forgotten (after seven days), not a channel that cannot send.
            Some("100" | "http_404") => refused("the provider no longer has the file"),
            _ => repeatable(error),
        }
    })?;
    let address: Address = serde_json::from_slice(&body).map_err(|_| SendError {
        class: ErrorClass::Transient,
        code: None,
        detail: "the provider's answer could not be read".to_owned(),
        retry_after: None,
    })?;
    Ok(address.url)
}

async fn download(
    graph: &Graph,
    http: &reqwest::Client,
    address: &str,
    media: &MediaRef,
    max_bytes: u64,
) -> Result<FetchedMedia, SendError> {
    let response = get(graph, http, address).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(match status.as_u16() {
            // Not the channel's fault, so not `ChannelBlocked`: the file is gone.
            404 | 410 => SendError {
                class: ErrorClass::Content,
                code: Some(format!("http_{}", status.as_u16())),
                detail: "the provider no longer has the file".to_owned(),
                retry_after: None,
            },
            _ => errors::from_status(status, response.headers()),
        });
    }
    let declared = response.headers().get(CONTENT_TYPE);
    let declared = declared.and_then(|value| value.to_str().ok());
    let mime_type = declared
        .or(media.mime_type.as_deref())
        .unwrap_or("application/octet-stream")
        .to_owned();
    Ok(FetchedMedia {
        bytes: read(response, max_bytes).await?,
        mime_type,
    })
}

/// Follows redirects itself where the client leaves them to us. Where the client follows them, it drops the token
/// as soon as the host or port changes; the place it ends at is checked all the same.
async fn get(graph: &Graph, http: &reqwest::Client, address: &str) -> Result<Response, SendError> {
    let mut url = Url::parse(address).map_err(|_| refused("the file's address is no URL"))?;
    for _ in 0..=MAX_REDIRECTS {
        check_host(graph, &url)?;
        let response = http
            .get(url.clone())
            .bearer_auth(graph.access_token.expose())
            .send()
            .await
            .map_err(|error| repeatable(SendError::from_http(&error)))?;
        check_host(graph, response.url())?;
        if !response.status().is_redirection() {
            return Ok(response);
        }
        let target = response.headers().get(LOCATION);
        let target = target.and_then(|value| value.to_str().ok());
        url = target
            .and_then(|target| response.url().join(target).ok())
            .ok_or_else(|| refused("the file's server redirects to nowhere"))?;
    }
    Err(refused("the file's server redirects in circles"))
}

fn check_host(graph: &Graph, url: &Url) -> Result<(), SendError> {
    let is_metas = match url.host() {
        Some(Host::Domain(host)) => MEDIA_HOSTS.iter().any(|domain| {
            host == *domain
                || host
                    .strip_suffix(domain)
                    .is_some_and(|prefix| prefix.ends_with('.'))
        }),
        _ => false,
    };
    if graph.is_own_server(url) || (is_metas && url.scheme() == "https") {
        Ok(())
    } else {
        Err(refused("the file's address is not one of the provider's"))
    }
}

/// Stops reading as soon as the file is larger than allowed, whatever its declared length.
async fn read(mut response: Response, max_bytes: u64) -> Result<Bytes, SendError> {
    let too_large = || refused("the file is larger than allowed");
    let declared = response.content_length().unwrap_or(0);
    if declared > max_bytes {
        return Err(too_large());
    }
    // The declared length is only a hint; a liar does not make us reserve much.
    let mut bytes = BytesMut::with_capacity(declared.min(1024 * 1024) as usize);
    loop {
        let chunk = response.chunk().await;
        match chunk.map_err(|error| repeatable(SendError::from_http(&error)))? {
            None => return Ok(bytes.freeze()),
            Some(chunk) if (bytes.len() + chunk.len()) as u64 > max_bytes => {
                return Err(too_large());
            }
            Some(chunk) => bytes.extend_from_slice(&chunk),
        }
    }
}

fn refused(reason: &str) -> SendError {
    SendError {
        class: ErrorClass::Content,
        code: None,
        detail: reason.to_owned(),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::settings::Settings;
    use super::*;
    use crate::ProviderConfig;

    #[test]
    fn only_metas_own_hosts_over_https_are_asked_for_files() {
        let config = ProviderConfig {
            meta_graph_base: "http://127.0.0.1:9".to_owned(),
            ..ProviderConfig::default()
        };
        let settings = json!({"waba_id": "1", "phone_number_id": "2"});
        let secrets = json!({"access_token": "t"});
        let settings = Settings::read(&config, &settings, &secrets).unwrap();
        let graph = Graph::new(&config, &settings).unwrap();
        let is_allowed = |url: &str| check_host(&graph, &Url::parse(url).unwrap()).is_ok();
        for url in [
            "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1",
            "https://graph.facebook.com/v26.0/1",
            "https://mmg.whatsapp.net/x",
            "http://127.0.0.1:9/file",
        ] {
            assert!(is_allowed(url), "{url}");
        }
        for url in [
            "http://lookaside.fbsbx.com/x",
            "https://evilfbsbx.com/x",
            "https://fbsbx.com.evil.example/x",
            "https://fbsbx.com@evil.example/x",
            "https://169.254.169.254/latest",
            "http://127.0.0.1:10/file",
            "https://127.0.0.1:9/file",
            "file:///etc/passwd",
        ] {
            assert!(!is_allowed(url), "{url}");
        }
    }
}
