//! Reading dead letters again: after a parser was mended, or a channel was added.
//!
//! The signature was checked when the request came, so it is not checked again; but each event may only go to the
//! tenant the ledger row belongs to, or (for rows nobody claimed) to the channel that claims it now.

use std::collections::HashMap;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use bytes::Bytes;
use wasel_db::ingest::{ChannelEvent, Delivery};
use wasel_db::ledger::{self, WebhookEvent};
use wasel_domain::{ChannelId, EventId, OrgId};
use wasel_providers::{ChannelKind, WebhookRequest};

use super::accept::{Accepted, store};
use crate::http::error::ApiError;
use crate::state::AppState;

/// Reads one ledger row again and stores what can be stored now.
pub async fn replay(state: &AppState, row: WebhookEvent) -> Result<Accepted, ApiError> {
    let kind = ChannelKind::parse(&row.kind).ok_or_else(|| {
        ApiError::refused("unknown_kind", format!("no provider reads `{}`", row.kind))
    })?;
    let mut headers = HeaderMap::new();
    if let Some(content_type) = row
        .content_type
        .as_deref()
        .and_then(|text| HeaderValue::from_str(text).ok())
    {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    let url = format!("{}{}", state.public_url, row.url);
    let method = row.method.parse().unwrap_or(Method::POST);
    let body = Bytes::from(row.body);
    let request = WebhookRequest {
        method: &method,
        url: &url,
        headers: &headers,
        body: &body,
        received_at: row.received_at,
    };
    let own = OrgId(row.org_id);
    let mut by_org: HashMap<OrgId, (Option<ChannelId>, Vec<ChannelEvent>)> = HashMap::new();
    let mut trouble = Vec::new();
    match state.providers.of(kind).parse(&request) {
        Err(error) => trouble.push(format!("not understood: {error}")),
        Ok(events) => {
            for event in events {
                let claimed = state.registry.by_routes(&event.routes);
                let channel = claimed
                    .iter()
                    .find(|channel| own == OrgId::SYSTEM || channel.org_id == own);
                match channel {
                    Some(channel) => {
                        let entry = by_org
                            .entry(channel.org_id)
                            .or_insert_with(|| (Some(channel.id), Vec::new()));
                        entry.1.push(ChannelEvent {
                            channel_id: channel.id,
                            event: event.event,
                        });
                    }
                    None => {
                        let route = event.routes.first().map_or("nothing", String::as_str);
                        trouble.push(format!("no channel for {route}"));
                    }
                }
            }
        }
    }
    trouble.dedup();
    let dead_letter = (!trouble.is_empty()).then(|| trouble.join("; "));
    if by_org.is_empty() {
        by_org.insert(own, (None, Vec::new()));
    }
    // A row nobody claimed moves to the tenant that does now; to the first, if several share the request.
    if let Some(owner) = by_org
        .keys()
        .next()
        .copied()
        .filter(|owner| *owner != own && !by_org.contains_key(&own))
    {
        let mut tx = state.db.system().await?;
        ledger::update_owner(&mut tx, own, row.id, owner).await?;
        tx.commit().await?;
    }
    let mut first = true;
    let deliveries: Vec<Delivery> = by_org
        .into_iter()
        .map(|(org_id, (channel_id, events))| Delivery {
            id: if std::mem::take(&mut first) {
                EventId(row.id)
            } else {
                EventId::generate()
            },
            org_id,
            channel_id,
            kind: kind.as_str(),
            method: row.method.clone(),
            url: row.url.clone(),
            content_type: row.content_type.clone(),
            body: body.clone(),
            received_at: row.received_at,
            events,
            dead_letter: dead_letter.clone(),
            replay: true,
        })
        .collect();
    store(state, deliveries.into_iter()).await
}
