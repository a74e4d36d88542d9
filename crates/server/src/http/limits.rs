//! Rate limits (S4.11). General requests: per caller, in this process. Sends: per organisation, exact across
//! processes, in the database.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ring::digest;

use super::error::{ApiError, DocumentError};
use crate::auth::Caller;
use crate::state::AppState;

/// Keys kept before old ones are dropped.
const MANY_KEYS: usize = 10_000;

/// The general limit of the `/api` paths.
#[derive(Clone)]
pub struct ApiLimiter(Option<Arc<DefaultKeyedRateLimiter<[u8; 32]>>>);

impl ApiLimiter {
    /// `requests` per `window`, all of which may come at once; 0 sets no limit.
    #[must_use]
    pub fn new(requests: u32, window: Duration) -> Self {
        let quota = NonZeroU32::new(requests)
            .and_then(|burst| Some(Quota::with_period(window / burst.get())?.allow_burst(burst)));
        Self(quota.map(|quota| Arc::new(RateLimiter::keyed(quota))))
    }

    fn check(&self, key: &[u8; 32]) -> Result<(), Duration> {
        let Some(limiter) = &self.0 else {
            return Ok(());
        };
        if limiter.len() > MANY_KEYS {
            limiter.retain_recent();
        }
        limiter
            .check_key(key)
            .map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }
}

/// Middleware: one bucket per bearer token, else per address.
pub async fn limit_api(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    let key = match request.headers().get(header::AUTHORIZATION) {
        Some(token) => digest::digest(&digest::SHA256, token.as_bytes()),
        None => {
            let address = client_address(
                request.headers(),
                peer,
                state.config.server.trusted_proxy_hops,
            );
            digest::digest(
                &digest::SHA256,
                address
                    .map(|ip| ip.to_string())
                    .unwrap_or_default()
                    .as_bytes(),
            )
        }
    };
    let mut hash = [0; 32];
    hash.copy_from_slice(key.as_ref());
    match state.limiter.check(&hash) {
        Ok(()) => next.run(request).await,
        Err(wait) => DocumentError(ApiError::too_many("too many requests", wait)).into_response(),
    }
}

/// The caller's address: the entry that our own outermost proxy added to X-Forwarded-For, else the peer.
#[must_use]
pub fn client_address(
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    trusted_hops: u8,
) -> Option<IpAddr> {
    if trusted_hops == 0 {
        return peer;
    }
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    forwarded
        .len()
        .checked_sub(usize::from(trusted_hops))
        .and_then(|index| forwarded[index].parse().ok())
        .or(peer)
}

/// Counts one send of the organisation on the documents' paths (10 a minute by default).
pub async fn take_org_send(state: &AppState, caller: &Caller) -> Result<(), ApiError> {
    let allowed = state.config.limits.org_sends_per_minute;
    take(
        state,
        caller,
        "org_sends".to_owned(),
        allowed,
        "your organisation's messages per minute are used up",
    )
    .await
}

/// Counts one send of a signed-in person (S2.2: 5 a minute by default).
pub async fn take_user_send(state: &AppState, caller: &Caller) -> Result<(), ApiError> {
    let user = caller
        .user_id
        .map(|user| user.to_string())
        .unwrap_or_default();
    let allowed = state.config.limits.user_sends_per_minute;
    let message = "your messages per minute are used up";
    take(
        state,
        caller,
        format!("user_sends:{user}"),
        allowed,
        message,
    )
    .await
}

async fn take(
    state: &AppState,
    caller: &Caller,
    key: String,
    allowed: u32,
    message: &str,
) -> Result<(), ApiError> {
    if allowed == 0 {
        return Ok(());
    }
    let mut tx = state.db.system().await?;
    let wait = wasel_db::rate_limits::take(
        &mut tx,
        caller.org_id,
        &key,
        allowed,
        Duration::from_secs(60),
    )
    .await?;
    tx.commit().await?;
    match wait {
        None => Ok(()),
        Some(wait) => Err(ApiError::too_many(message, wait)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(forwarded: &str, hops: u8) -> Option<IpAddr> {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", forwarded.parse().unwrap());
        client_address(&headers, Some("10.0.0.1".parse().unwrap()), hops)
    }

    #[test]
    fn a_forwarded_address_counts_only_as_far_as_our_own_proxies_wrote_it() {
        let (forged, real, peer) = ("1.1.1.1", "2.2.2.2", "10.0.0.1".parse().unwrap());
        assert_eq!(address(&format!("{forged}, {real}"), 0), Some(peer));
        assert_eq!(
            address(&format!("{forged}, {real}"), 1),
            Some(real.parse().unwrap())
        );
        assert_eq!(address("", 1), Some(peer));
    }

    #[test]
    fn all_requests_of_a_window_may_come_at_once_and_the_next_is_told_how_long_to_wait() {
        let limiter = ApiLimiter::new(100, Duration::from_secs(900));
        for _ in 0..100 {
            assert!(limiter.check(&[1; 32]).is_ok());
        }
        let wait = limiter.check(&[1; 32]).unwrap_err();
        assert!(wait <= Duration::from_secs(9), "{wait:?}");
        assert!(
            limiter.check(&[2; 32]).is_ok(),
            "another caller has their own"
        );
        assert!(
            ApiLimiter::new(0, Duration::from_secs(1))
                .check(&[1; 32])
                .is_ok()
        );
    }
}
