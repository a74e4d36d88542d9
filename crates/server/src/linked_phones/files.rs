//! The files that messages name by a link: ours from storage, others from the web.
//!
//! Elsewhere a provider fetches such a link; here this server does, for any address a tenant cares to name. So it
//! connects to public addresses only, whatever the name resolves to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url, form_urlencoded};
use uuid::Uuid;
use wasel_config::{Config, Switch};
use wasel_db::storage::{self, BUCKET};
use wasel_domain::storage_path::ObjectName;
use wasel_domain::{ChannelId, OrgId};
use wasel_sessions::{MediaFile, TRUSTS_SIMULATOR};

use crate::auth::Caller;
use crate::state::AppState;
use crate::storage::signed_url::Use;

/// The most that WhatsApp takes of images and videos is less; documents are held in memory.
const MAX_BYTES: u64 = 100 * 1024 * 1024;
const MAX_REDIRECTS: usize = 3;

/// Why a file was not got.
#[derive(Debug)]
pub(super) struct Failed {
    /// Trying again may help.
    pub again: bool,
    pub reason: String,
}

impl Failed {
    fn for_good(reason: impl Into<String>) -> Self {
        Self {
            again: false,
            reason: reason.into(),
        }
    }

    fn for_now(reason: impl Into<String>) -> Self {
        Self {
            again: true,
            reason: reason.into(),
        }
    }
}

/// Gets files for messages.
pub(super) struct Files {
    http: reqwest::Client,
}

impl Files {
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let redirect = reqwest::redirect::Policy::custom(|attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("too many redirects")
            } else if check(attempt.url()).is_err() {
                attempt.error("redirects to an address that is not public")
            } else {
                attempt.follow()
            }
        });
        let http = reqwest::Client::builder()
            .connect_timeout(config.providers.connect_timeout)
            .timeout(config.providers.media_timeout)
            .redirect(redirect)
            // A proxy would resolve the names instead of us.
            .no_proxy()
            .dns_resolver(Arc::new(PublicOnly))
            .user_agent(concat!("wasel/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http })
    }

    /// The file behind a link of a message on this channel.
    pub async fn get(
        &self,
        state: &AppState,
        channel: ChannelId,
        link: &str,
    ) -> Result<MediaFile, Failed> {
        if let Some(id) = own_media(&state.public_url, link) {
            return stored(state, channel, id).await;
        }
        match own_object(&state.public_url, link) {
            Some(object) => from_bucket(state, &object).await,
            None => self.download(link).await,
        }
    }

    async fn download(&self, link: &str) -> Result<MediaFile, Failed> {
        let url: Url = link
            .parse()
            .map_err(|_| Failed::for_good("the link is not a URL"))?;
        check(&url).map_err(Failed::for_good)?;
        let response = self
            .http
            .get(url)
            .send()
            .await
            .map_err(|error| Failed::for_now(without_url(error)))?;
        let status = response.status();
        if !status.is_success() {
            let reason = format!("the link answers {status}");
            return Err(if status.is_server_error() || status.as_u16() == 429 {
                Failed::for_now(reason)
            } else {
                Failed::for_good(reason)
            });
        }
        let too_large = || Failed::for_good(format!("the file is larger than {MAX_BYTES} bytes"));
        if response
            .content_length()
            .is_some_and(|length| length > MAX_BYTES)
        {
            return Err(too_large());
        }
        let mime_type = response
            .headers()
            .get(reqwest::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("application/octet-stream")
            .to_owned();
        let mut bytes = bytes::BytesMut::new();
        let mut body = response.bytes_stream();
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| Failed::for_now(without_url(error)))?;
            if (bytes.len() + part.len()) as u64 > MAX_BYTES {
                return Err(too_large());
            }
            bytes.extend_from_slice(&part);
        }
        Ok(MediaFile {
            bytes: bytes.freeze(),
            mime_type,
        })
    }
}

/// The link may carry a token in its query.
fn without_url(error: reqwest::Error) -> String {
    format!("the link cannot be read: {}", error.without_url())
}

/// `/v1/media/{id}` of this server.
fn own_media(public_url: &str, link: &str) -> Option<Uuid> {
    link.strip_prefix(public_url)
        .unwrap_or(link)
        .strip_prefix("/v1/media/")?
        .parse()
        .ok()
}

/// A file of the bucket by its public or signed address.
#[derive(Debug, PartialEq, Eq)]
struct OwnObject {
    name: ObjectName,
    token: Option<String>,
}

fn own_object(public_url: &str, link: &str) -> Option<OwnObject> {
    let path = link.strip_prefix(public_url)?;
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (kind, name) = path
        .strip_prefix("/storage/v1/object/")?
        .split_once(&format!("/{BUCKET}/"))?;
    let name = percent_decode_str(name).decode_utf8().ok()?;
    let name = ObjectName::parse(&name).ok()?;
    let token = form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "token")
        .map(|(_, token)| token.into_owned());
    match (kind, token) {
        ("public", _) => Some(OwnObject { name, token: None }),
        ("sign", Some(token)) => Some(OwnObject {
            name,
            token: Some(token),
        }),
        _ => None,
    }
}

/// Not by way of the network: this server may not reach itself by its public address, and must not be made to ask
/// for what the address does not open.
async fn from_bucket(state: &AppState, object: &OwnObject) -> Result<MediaFile, Failed> {
    let missing = || Failed::for_good("there is no such file");
    let org = match &object.token {
        Some(token) => state
            .url_signer
            .verify(token, Use::Download, &object.name)
            .map(|url| url.org_id)
            .map_err(|error| Failed::for_good(error.to_string()))?,
        None if state.config.storage.public_media == Switch::On => {
            object.name.public_org().ok_or_else(missing)?
        }
        None => return Err(missing()),
    };
    // Whoever has the address may fetch it, another tenant too: its file counts as any on the web.
    let caller = Caller::service(OrgId(org), None);
    let unavailable = |_| Failed::for_now("the database is not available");
    let mut tx = state
        .db
        .tenant(&caller.claims())
        .await
        .map_err(unavailable)?;
    let found = storage::find(&mut tx, caller.org_id, object.name.as_str())
        .await
        .map_err(unavailable)?;
    tx.commit().await.map_err(unavailable)?;
    let found = found.ok_or_else(missing)?;
    let size = u64::try_from(found.size_bytes).unwrap_or_default();
    let unreadable = |error: object_store::Error| Failed::for_now(error.to_string());
    let mut parts = state
        .storage
        .read(found.bytes(), 0, size)
        .await
        .map_err(unreadable)?;
    let mut bytes = bytes::BytesMut::new();
    while let Some(part) = parts.next().await {
        bytes.extend_from_slice(&part.map_err(unreadable)?);
    }
    Ok(MediaFile {
        bytes: bytes.freeze(),
        mime_type: found.mime_type,
    })
}

async fn stored(state: &AppState, channel: ChannelId, id: Uuid) -> Result<MediaFile, Failed> {
    let org = state
        .registry
        .by_id(channel)
        .map(|channel| channel.org_id)
        .ok_or_else(|| Failed::for_now("the channel is gone"))?;
    let file = find(state, org, id)
        .await
        .map_err(|_| Failed::for_now("the database is not available"))?
        .ok_or_else(|| Failed::for_good("there is no such file"))?;
    let key = file
        .storage_key
        .ok_or_else(|| Failed::for_now("the file is still being fetched"))?;
    let bytes = state
        .storage
        .get(&key)
        .await
        .map_err(|error| Failed::for_now(error.to_string()))?;
    Ok(MediaFile {
        bytes,
        mime_type: file
            .mime_type
            .unwrap_or_else(|| "application/octet-stream".to_owned()),
    })
}

async fn find(
    state: &AppState,
    org: OrgId,
    id: Uuid,
) -> wasel_db::Result<Option<wasel_db::media::Media>> {
    let mut tx = state.db.system().await?;
    let found = wasel_db::media::find(&mut tx, org, id).await?;
    tx.commit().await?;
    Ok(found)
}

/// Refuses what is no web address, and addresses that are not public. Names are judged when they are resolved.
fn check(url: &Url) -> Result<(), &'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the link must be http:// or https://");
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) => return Ok(()),
        None => return Err("the link names no host"),
    };
    if is_allowed(address) {
        Ok(())
    } else {
        Err("the link's address is not public")
    }
}

/// The demo's and the tests' files are on this machine.
fn is_allowed(address: IpAddr) -> bool {
    is_public(address) || (TRUSTS_SIMULATOR && address.is_loopback())
}

/// Nothing of this machine, of a private network, or of a cloud's metadata service (IANA's special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b == 18 || b == 19)))
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return is_public(IpAddr::V4(v4));
            }
            let [first, second, ..] = v6.segments();
            // Global unicast without documentation, Teredo and 6to4, which carry IPv4 addresses inside.
            first & 0xe000 == 0x2000
                && !(first == 0x2001 && (second == 0 || second == 0xdb8))
                && first != 0x2002
        }
    }
}

/// The system's resolver, without the addresses that are not public.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| is_allowed(address.ip())).collect();
            if allowed.is_empty() {
                return Err("no public address".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_are_not_public() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["1.1.1.1", "93.184.216.34", "2606:4700::1111"] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn a_link_to_our_own_file_is_known_with_and_without_our_address() {
        let id = Uuid::now_v7();
        let path = format!("/v1/media/{id}");
        assert_eq!(own_media("https://wasel.example", &path), Some(id));
        let whole = format!("https://wasel.example{path}");
        assert_eq!(own_media("https://wasel.example", &whole), Some(id));
        assert_eq!(
            own_media("https://wasel.example", "https://x.example/a.png"),
            None
        );
    }

    #[test]
    fn a_link_to_a_file_of_the_bucket_is_known_by_our_address() {
        let base = "https://wasel.example";
        let own = |path: &str| own_object(base, &format!("{base}/storage/v1/object/{path}"));
        let public = own("public/whatsapp-media/x/public/a%20b.png?download=").unwrap();
        assert_eq!(
            (public.name.as_str(), public.token),
            ("x/public/a b.png", None)
        );
        let signed = own("sign/whatsapp-media/a.png?token=t.o.k").unwrap();
        assert_eq!(
            (signed.name.as_str(), signed.token.as_deref()),
            ("a.png", Some("t.o.k"))
        );
        for path in [
            "sign/whatsapp-media/a.png",
            "whatsapp-media/a.png",
            "public/avatars/a.png",
            "public/whatsapp-media/../a",
        ] {
            assert_eq!(own(path), None, "{path}");
        }
        assert_eq!(
            own_object(
                base,
                "https://x.example/storage/v1/object/public/whatsapp-media/a"
            ),
            None
        );
    }

    #[test]
    fn other_schemes_are_refused() {
        for link in ["file:///etc/passwd", "ftp://example.com/a", "gopher://x"] {
            assert!(check(&link.parse().unwrap()).is_err(), "{link}");
        }
    }
}
