//! What the sessions need of the server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use serde_json::{Map, json};
use uuid::Uuid;
use wasel_db::ingest::{ChannelEvent, Delivery};
use wasel_db::{conversations, sessions};
use wasel_domain::event::Party;
use wasel_domain::{ChannelId, EventId, OrgId, ProviderEvent};
use wasel_providers::ChannelKind;
use wasel_providers::whatsapp_web::STORED_PATH;
use wasel_realtime::codec::BroadcastPayload;
use wasel_sessions::{
    Claimed, Host, HostError, KeyRows, Lease, LiveSignal, Session, SessionNews, SessionOptions,
};

use super::key_rows::KeyVault;
use super::news;
use crate::state::AppState;

/// The server as the sessions see it.
pub struct ServerHost {
    state: AppState,
    /// This process, in the leases.
    node: Uuid,
    keys: KeyVault,
}

impl ServerHost {
    #[must_use]
    pub fn new(state: AppState) -> Self {
        Self {
            keys: KeyVault::new(state.db.clone(), state.sealer.clone()),
            state,
            node: Uuid::now_v7(),
        }
    }

    async fn find_conversation(
        &self,
        session: &Session,
        from: &Party,
        group: Option<&str>,
    ) -> wasel_db::Result<Option<Uuid>> {
        let mut tx = self.state.db.system().await?;
        let (org, channel) = (session.org_id, session.channel_id);
        let found =
            conversations::find_of_party(&mut tx, org, channel, &from.identities, group).await?;
        tx.commit().await?;
        Ok(found)
    }
}

/// Our row of a lease.
pub(super) fn row(lease: &Lease) -> sessions::Lease {
    sessions::Lease {
        org_id: lease.session.org_id.0,
        session_id: lease.session.id,
        token: lease.token,
    }
}

fn rows(leases: &[Lease]) -> Vec<sessions::Lease> {
    leases.iter().map(row).collect()
}

/// As the sessions tell errors apart.
pub(super) fn host_error(error: wasel_db::Error) -> HostError {
    if error.is_unavailable() || error.is_conflict() {
        HostError::Unavailable
    } else {
        HostError::Broken(error.to_string())
    }
}

#[async_trait]
impl Host for ServerHost {
    async fn claim(&self, limit: usize, ttl: Duration) -> Result<Vec<Claimed>, HostError> {
        let take = async {
            let mut tx = self.state.db.system().await?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let taken = sessions::claim(&mut tx, self.node, limit, ttl).await?;
            tx.commit().await?;
            Ok(taken)
        };
        let taken = take.await.map_err(host_error)?;
        Ok(taken
            .into_iter()
            .map(|taken| Claimed {
                lease: Lease {
                    session: Session {
                        org_id: OrgId(taken.org_id),
                        id: taken.session_id,
                        channel_id: ChannelId(taken.channel_id),
                    },
                    token: taken.token,
                },
                options: SessionOptions {
                    pair_with_phone: taken.pair_with_phone,
                    auto_reconnect: taken.auto_reconnect,
                    history_days: u16::try_from(taken.history_days).unwrap_or(0),
                },
            })
            .collect())
    }

    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>, HostError> {
        let renew = async {
            let mut tx = self.state.db.system().await?;
            let renewed = sessions::renew(&mut tx, &rows(leases), ttl).await?;
            tx.commit().await?;
            Ok(renewed)
        };
        let renewed: std::collections::HashSet<sessions::Lease> =
            renew.await.map_err(host_error)?.into_iter().collect();
        Ok(leases
            .iter()
            .filter(|lease| renewed.contains(&row(lease)))
            .copied()
            .collect())
    }

    async fn release(&self, leases: &[Lease]) -> Result<(), HostError> {
        let release = async {
            let mut tx = self.state.db.system().await?;
            sessions::release(&mut tx, &rows(leases)).await?;
            tx.commit().await
        };
        release.await.map_err(host_error)
    }

    fn key_rows(&self, lease: &Lease) -> Arc<dyn KeyRows> {
        Arc::new(self.keys.rows(lease))
    }

    async fn news(&self, lease: &Lease, news: SessionNews) -> Result<(), HostError> {
        news::record(&self.state, lease, news).await?;
        self.state.signals.commits.changes.notify_one();
        self.state.signals.outbox.notify_one();
        Ok(())
    }

    async fn commit(
        &self,
        session: &Session,
        raw: Bytes,
        events: Vec<ProviderEvent>,
    ) -> Result<(), HostError> {
        let delivery = Delivery {
            id: EventId::generate(),
            org_id: session.org_id,
            channel_id: Some(session.channel_id),
            kind: ChannelKind::WhatsappWeb.as_str(),
            method: "SESSION".to_owned(),
            url: format!("{STORED_PATH}{}", session.channel_id),
            content_type: None,
            body: raw,
            received_at: Utc::now(),
            events: events
                .into_iter()
                .map(|event| ChannelEvent {
                    channel_id: session.channel_id,
                    event,
                })
                .collect(),
            dead_letter: None,
            replay: false,
        };
        // Every outcome is a commit, a dead letter, too.
        self.state
            .ingest
            .store(delivery)
            .await
            .map(drop)
            .map_err(|_| HostError::Unavailable)
    }

    async fn signal(&self, session: &Session, signal: LiveSignal) {
        let (from, group, event, mut payload) = match &signal {
            LiveSignal::Typing {
                from,
                group,
                typing,
                recording,
            } => (
                from,
                group.as_deref(),
                "typing",
                Map::from_iter([
                    ("from".to_owned(), json!("contact")),
                    ("is_typing".to_owned(), json!(typing)),
                    ("typing".to_owned(), json!(typing)),
                    ("recording".to_owned(), json!(recording)),
                ]),
            ),
            LiveSignal::Presence {
                from,
                online,
                last_seen,
            } => (
                from,
                None,
                "presence",
                Map::from_iter([
                    ("online".to_owned(), json!(online)),
                    ("last_seen".to_owned(), json!(last_seen)),
                ]),
            ),
        };
        let conversation = match self.find_conversation(session, from, group).await {
            Ok(Some(conversation)) => conversation,
            // Somebody who has not written yet: nobody looks at that conversation.
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(session.id = %session.id, %error, "a signal was not shown");
                return;
            }
        };
        payload.insert("conversation_id".to_owned(), json!(conversation));
        let topic = format!("conversation:{conversation}");
        match serde_json::value::to_raw_value(&payload) {
            Ok(payload) => {
                let payload = BroadcastPayload::Json(payload);
                let hub = &self.state.hub;
                hub.broadcast(session.org_id.0, &topic, true, event, &payload);
            }
            Err(error) => tracing::debug!(%error, "a signal is not JSON"),
        }
    }
}
