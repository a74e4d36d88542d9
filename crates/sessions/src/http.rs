//! HTTP for the protocol crate, bounded and towards WhatsApp only.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use url::Url;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};

use crate::media::MediaLimits;
use crate::settings::{TRUSTS_SIMULATOR, is_loopback};

/// A file that crawls is better tried again later.
const TIMEOUT: Duration = Duration::from_secs(120);

/// One per process; sessions share it.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) client: reqwest::Client,
    pub(crate) limits: MediaLimits,
}

#[async_trait]
impl HttpClient for Http {
    /// Any answer is `Ok`, whatever its status: the caller tells an expired file from a bad host by it.
    async fn execute(&self, request: HttpRequest) -> anyhow::Result<HttpResponse> {
        let url = allowed(&request.url, self.limits, TRUSTS_SIMULATOR)?;
        let method = reqwest::Method::from_bytes(request.method.as_bytes())?;
        let mut outgoing = self.client.request(method, url).timeout(TIMEOUT);
        for (name, value) in &request.headers {
            outgoing = outgoing.header(name, value);
        }
        if let Some(body) = request.body {
            outgoing = outgoing.body(body);
        }
        // Without the address: it carries the token of the upload.
        let response = outgoing
            .send()
            .await
            .map_err(|error| anyhow::Error::new(error.without_url()))?;
        let status_code = response.status().as_u16();
        let body = bounded_body(response, self.limits.max_bytes).await?;
        Ok(HttpResponse { status_code, body })
    }
}

/// Reads a body up to `max` bytes; a longer one is an error.
pub(crate) async fn bounded_body(
    mut response: reqwest::Response,
    max: u64,
) -> anyhow::Result<Vec<u8>> {
    let too_large = || anyhow::Error::new(TooLarge(max));
    if response.content_length().is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| anyhow::Error::new(error.without_url()))?
    {
        if u64::try_from(body.len() + chunk.len()).unwrap_or(u64::MAX) > max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[derive(Debug, thiserror::Error)]
#[error("larger than {0} bytes")]
pub(crate) struct TooLarge(pub(crate) u64);

/// The address to ask for `address`: WhatsApp's own hosts, or the simulator's, which has no certificate and is asked
/// without TLS.
fn allowed(address: &str, limits: MediaLimits, trusts_simulator: bool) -> anyhow::Result<Url> {
    let mut url = Url::parse(address).context("not an address")?;
    if trusts_simulator {
        anyhow::ensure!(
            limits.loopback && is_loopback(&url),
            "this build connects to this machine only"
        );
        url.set_scheme("http")
            .map_err(|()| anyhow::anyhow!("not a web address"))?;
        return Ok(url);
    }
    anyhow::ensure!(url.scheme() == "https", "not an https address");
    anyhow::ensure!(
        url.domain().is_some_and(is_whatsapp),
        "not a host of WhatsApp"
    );
    Ok(url)
}

fn is_whatsapp(host: &str) -> bool {
    ["whatsapp.net", "whatsapp.com"].iter().any(|domain| {
        host.strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
pub(crate) fn client_for_tests() -> reqwest::Client {
    // An error means that a provider of cryptography is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .build()
        .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MediaLimits = MediaLimits {
        max_bytes: 10,
        loopback: true,
    };

    #[test]
    fn only_the_hosts_of_whatsapp_are_whatsapp() {
        for host in [
            "mmg.whatsapp.net",
            "media-fra3-1.cdn.whatsapp.net",
            "web.whatsapp.com",
        ] {
            assert!(is_whatsapp(host), "{host}");
        }
        for host in [
            "evilwhatsapp.net",
            "whatsapp.net.example.com",
            "example.com",
        ] {
            assert!(!is_whatsapp(host), "{host}");
        }
    }

    #[test]
    fn the_simulators_files_are_asked_for_without_tls_and_nobody_elses() {
        let address = "https://127.0.0.1:4000/mms/image/x?token=1";
        let url = allowed(address, LIMITS, true).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:4000/mms/image/x?token=1");
        for address in [
            "https://mmg.whatsapp.net/x",
            "https://10.0.0.1/x",
            "file:///etc/passwd",
        ] {
            assert!(allowed(address, LIMITS, true).is_err(), "{address}");
        }
    }

    #[test]
    fn files_come_from_whatsapp_over_tls_and_from_nowhere_else() {
        assert!(allowed("https://mmg.whatsapp.net/v/t62", LIMITS, false).is_ok());
        for address in [
            "http://mmg.whatsapp.net/x",
            "https://127.0.0.1/x",
            "https://169.254.169.254/latest",
            "https://user@evil.example/mmg.whatsapp.net",
        ] {
            assert!(allowed(address, LIMITS, false).is_err(), "{address}");
        }
    }
}
