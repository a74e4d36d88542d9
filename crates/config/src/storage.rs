use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::values::{Secret, WebUrl, optional};

/// Where files are kept.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// A directory or `s3://bucket/prefix`; `None` for the directory `media` in the data directory.
    #[serde(with = "optional")]
    pub url: Option<String>,
    /// `None` for Amazon's own.
    #[serde(with = "optional")]
    pub endpoint: Option<WebUrl>,
    pub region: String,
    #[serde(with = "optional")]
    pub access_key_id: Option<String>,
    #[serde(with = "optional")]
    pub secret_access_key: Option<Secret>,
    #[serde(with = "crate::values::size")]
    pub max_file: usize,
    pub public_media: Switch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    On,
    Off,
}

impl Storage {
    /// Bucket and prefix, where files are kept in S3. The prefix has no slash at its ends and may be empty.
    #[must_use]
    pub fn s3(&self) -> Option<(&str, &str)> {
        let rest = self.url.as_deref()?.strip_prefix("s3://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        Some((bucket, prefix.trim_matches('/')))
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let is_other_scheme = self
            .url
            .as_deref()
            .is_some_and(|url| url.contains("://") && !url.starts_with("s3://"));
        let is_bucketless = self.s3().is_some_and(|(bucket, _)| bucket.is_empty());
        if is_other_scheme || is_bucketless {
            return Err("must be a directory or s3://bucket/prefix".to_owned());
        }
        // Keys are never sent, but what is stored is: in the clear only on this machine.
        if self
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| !is_private(endpoint.as_str()))
        {
            return Err("must be https, or http on this machine".to_owned());
        }
        if self.region.trim().is_empty() {
            return Err("must not be empty".to_owned());
        }
        Ok(())
    }
}

fn is_private(endpoint: &str) -> bool {
    Url::parse(endpoint).is_ok_and(|url| {
        url.scheme() == "https"
            || match url.host() {
                Some(Host::Ipv4(ip)) => ip.is_loopback(),
                Some(Host::Ipv6(ip)) => ip.is_loopback(),
                Some(Host::Domain(name)) => name == "localhost",
                None => false,
            }
    })
}
