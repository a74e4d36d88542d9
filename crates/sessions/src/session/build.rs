//! The protocol client of one round, over the session's own state.

use std::sync::Arc;
use std::time::Duration;

use whatsapp_rust::bot::Bot;
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::{CacheConfig, CacheEntryConfig, TokioRuntime};

use super::ears::{Ears, Hook};
use super::run::{Next, Task};
use super::transport::{Dialler, Gate};
use super::version::Version;
use crate::host::{HostError, SessionNews, StopReason};
use crate::store::Store;

/// Failures to read the state in a row before somebody must look.
const STATE_TRIES: u32 = 6;

impl Task {
    pub(super) async fn build(
        &mut self,
        store: Store,
        ears: Arc<Ears>,
        gate: Arc<Gate>,
        version: Version,
    ) -> Result<Bot, Next> {
        let live = &self.live;
        let dialler = Dialler {
            route: live.shared.route.clone(),
            gate,
            news: ears,
        };
        let history = live.options.history_days > 0;
        let mut builder = Bot::builder()
            .with_backend_arc(Arc::new(store))
            .with_transport_factory(dialler)
            .with_http_client(live.shared.http.clone())
            .with_runtime(TokioRuntime)
            .with_version(version)
            .with_cache_config(small_caches(history))
            .with_inbound_durability_hook(Hook(live.clone()));
        if !history {
            builder = builder.skip_history_sync();
        }
        if let Some(phone) = &live.options.pair_with_phone {
            builder = builder.with_pair_code(PairCodeOptions {
                phone_number: phone.trim_start_matches('+').to_owned(),
                ..Default::default()
            });
        }
        match builder.build().await {
            Ok(bot) => Ok(bot),
            Err(error) => {
                tracing::warn!(session = %live.lease.session.id, %error, "a session's state cannot be read");
                if is_away(&error) {
                    return Err(self.again_after("the database is not available").await);
                }
                self.unreadable += 1;
                if self.unreadable < STATE_TRIES {
                    return Err(self.again_after("the session's state cannot be read").await);
                }
                Err(self
                    .end(SessionNews::Stopped {
                        reason: StopReason::State,
                        detail: "the session's state cannot be read".to_owned(),
                    })
                    .await)
            }
        }
    }
}

/// Whether the database was away, which passes by itself.
fn is_away(error: &(impl std::error::Error + 'static)) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(HostError::Unavailable) = error.downcast_ref() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A thousand sessions in one process: what a business needs at a time, not what a person's phone does. The map of
/// hidden numbers stays whole; without an entry a message goes to the wrong address.
fn small_caches(history: bool) -> CacheConfig {
    let hour = Some(Duration::from_secs(3600));
    CacheConfig {
        group_cache: CacheEntryConfig::new(hour, 50),
        device_registry_cache: CacheEntryConfig::new(hour, 1_500),
        message_retry_counts: CacheEntryConfig::new(hour, 200),
        undecryptable_dispatched: CacheEntryConfig::new(hour, 200),
        sender_key_devices_cache: CacheEntryConfig::new(hour, 50),
        session_recreate_history: CacheEntryConfig::new(hour, 100),
        session_locks_capacity: 2_000,
        chat_lanes_capacity: 500,
        group_distribution_locks_capacity: 50,
        resend_rate_limiter_capacity: 256,
        seed_msg_secrets_from_history: history,
        ..CacheConfig::default()
    }
}
