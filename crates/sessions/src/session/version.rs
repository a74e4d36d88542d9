//! Which version of WhatsApp Web to claim: looked up once for all sessions.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use whatsapp_rust::wacore::version::parse_sw_js;

pub(crate) type Version = (u32, u32, u32);

const SOURCE: &str = "https://web.whatsapp.com/sw.js";
/// Without a browser's name the page is another one.
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
const KEPT: Duration = Duration::from_secs(24 * 3600);
const FAILED: &str = "WhatsApp's current version cannot be looked up";
const FAILURE_KEPT: Duration = Duration::from_secs(30);
/// The script is some hundred kilobytes.
const MAX_SCRIPT: u64 = 8 * 1024 * 1024;
/// For a server on this machine, which is not WhatsApp's and takes any.
pub(crate) const ANY: Version = (2, 3000, 1_030_000_000);

pub(crate) struct Versions {
    fixed: Option<Version>,
    http: reqwest::Client,
    known: Mutex<Option<(Version, Instant)>>,
    failed_at: Mutex<Option<Instant>>,
}

impl Versions {
    pub(crate) fn new(fixed: Option<Version>, http: reqwest::Client) -> Self {
        Self {
            fixed,
            http,
            known: Mutex::new(None),
            failed_at: Mutex::new(None),
        }
    }

    /// The version to claim. A lookup that fails falls back on an older answer.
    pub(crate) async fn get(&self) -> Result<Version, &'static str> {
        if let Some(fixed) = self.fixed {
            return Ok(fixed);
        }
        let mut known = self.known.lock().await;
        match *known {
            Some((version, at)) if at.elapsed() < KEPT => Ok(version),
            older => match self.look_up_now_and_then().await {
                Ok(version) => {
                    *known = Some((version, Instant::now()));
                    Ok(version)
                }
                Err(words) => older.map(|(version, _)| version).ok_or(words),
            },
        }
    }

    /// A version WhatsApp may take where it refused `refused`; `None` if there is no newer one.
    pub(crate) async fn after_refusal(&self, refused: Version) -> Option<Version> {
        if self.fixed.is_some() {
            return None;
        }
        let mut known = self.known.lock().await;
        if let Some((version, _)) = *known
            && version > refused
        {
            return Some(version);
        }
        let version = self.look_up().await.ok()?;
        *known = Some((version, Instant::now()));
        (version > refused).then_some(version)
    }

    /// After a failure not at once again: a thousand sessions may wait for it.
    async fn look_up_now_and_then(&self) -> Result<Version, &'static str> {
        let mut failed_at = self.failed_at.lock().await;
        if failed_at.is_some_and(|at| at.elapsed() < FAILURE_KEPT) {
            return Err(FAILED);
        }
        let found = self.look_up().await;
        *failed_at = found.is_err().then(Instant::now);
        found
    }

    async fn look_up(&self) -> Result<Version, &'static str> {
        let response = self
            .http
            .get(SOURCE)
            .header("sec-fetch-site", "none")
            .header(reqwest::header::USER_AGENT, BROWSER)
            .timeout(Duration::from_secs(20))
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| {
                tracing::warn!(%error, "{FAILED}");
                FAILED
            })?;
        let script = crate::http::bounded_body(response, MAX_SCRIPT)
            .await
            .map_err(|error| {
                tracing::warn!(%error, "{FAILED}");
                FAILED
            })?;
        parse_sw_js(&String::from_utf8_lossy(&script)).ok_or_else(|| {
            tracing::warn!("{FAILED}: the page has another form");
            FAILED
        })
    }
}
