//! What all providers' webhooks have in common.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use bytes::Bytes;
use chrono::Utc;
use wasel_db::ingest::{ChannelEvent, Delivery, IngestError, Outcome};
use wasel_domain::{ChannelId, EventId, OrgId, ProviderEvent, RoutedEvent};
use wasel_providers::{ChannelKind, VerifyError, WebhookRequest};

use crate::http::error::ApiError;
use crate::registry::Channel;
use crate::state::AppState;

/// A webhook request as it came in.
pub struct Arrival {
    /// The kinds of channel this address serves; the first names the parser.
    pub kinds: &'static [ChannelKind],
    /// Set for an address of one channel.
    pub channel_id: Option<ChannelId>,
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a signature covers of the request's address, besides our base.
#[must_use]
pub fn path_and_query(uri: &Uri) -> String {
    uri.path_and_query()
        .map_or_else(|| uri.path().to_owned(), ToString::to_string)
}

/// What became of the request, over all tenants in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    pub stored: usize,
    pub duplicate: usize,
    pub dead_lettered: usize,
}

/// Verifies, parses and stores. `Ok` means committed: the provider may forget it.
pub async fn accept(state: &AppState, arrival: Arrival) -> Result<Accepted, ApiError> {
    let received_at = Utc::now();
    let url = format!("{}{}", base_url(state, &arrival.headers), arrival.path);
    let request = WebhookRequest {
        method: &arrival.method,
        url: &url,
        headers: &arrival.headers,
        body: &arrival.body,
        received_at,
    };
    let parsed = state.providers.of(arrival.kinds[0]).parse(&request);
    let mut verified = Verified {
        request: &request,
        results: HashMap::new(),
    };
    let mut sorted = Sorted::default();
    match parsed {
        Ok(events) => {
            for event in events {
                sort(state, &arrival, event, &mut verified, &mut sorted).await?;
            }
        }
        Err(error) => sorted.trouble.push(format!("not understood: {error}")),
    }
    if let (true, Some(reason)) = (sorted.by_org.is_empty(), &sorted.forged) {
        // It names channels of ours, and none of their secrets signed it.
        tracing::warn!(webhook.kind = arrival.kinds[0].as_str(), %reason, "a webhook was refused");
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "bad_signature",
            "the signature does not match",
        ));
    }
    if sorted.by_org.is_empty() {
        // Nothing could be given to a channel. Authentic or not, that is the question.
        let owner = owner_of_unclaimed(state, &arrival, &mut verified)?;
        sorted.by_org.insert(owner.0, (owner.1, Vec::new()));
    }
    let trouble = sorted.trouble_text();
    let deliveries = sorted
        .by_org
        .into_iter()
        .map(|(org_id, (channel_id, events))| Delivery {
            id: EventId::generate(),
            org_id,
            channel_id,
            kind: arrival.kinds[0].as_str(),
            method: arrival.method.to_string(),
            url: arrival.path.clone(),
            content_type: header(&arrival.headers, "content-type"),
            body: arrival.body.clone(),
            received_at,
            events,
            dead_letter: trouble.clone(),
            replay: false,
        });
    store(state, deliveries).await
}

/// Stores every tenant's part; all must be committed.
pub(super) async fn store(
    state: &AppState,
    deliveries: impl Iterator<Item = Delivery>,
) -> Result<Accepted, ApiError> {
    let mut accepted = Accepted::default();
    let results =
        futures_util::future::join_all(deliveries.map(|delivery| state.ingest.store(delivery)))
            .await;
    for result in results {
        match result {
            Ok(Outcome::Stored) => accepted.stored += 1,
            Ok(Outcome::Duplicate) => accepted.duplicate += 1,
            Ok(Outcome::DeadLetter) => accepted.dead_lettered += 1,
            Err(IngestError::Overloaded | IngestError::Unavailable | IngestError::ShuttingDown) => {
                return Err(ApiError::unavailable());
            }
        }
    }
    Ok(accepted)
}

/// Our address as the provider knows it. Without PUBLIC_URL the request's own Host is taken: a signature over it still
/// needs the channel's secret.
fn base_url(state: &AppState, headers: &HeaderMap) -> String {
    match (&state.config.server.public_url, header(headers, "host")) {
        (None, Some(host)) => format!("http://{host}"),
        _ => state.public_url.to_string(),
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

/// Which channels' secrets signed this request; each is tried once.
struct Verified<'a> {
    request: &'a WebhookRequest<'a>,
    results: HashMap<ChannelId, Result<(), VerifyError>>,
}

impl Verified<'_> {
    fn by(&mut self, channel: &Channel) -> Result<(), VerifyError> {
        *self
            .results
            .entry(channel.id)
            .or_insert_with(|| channel.open.verify(self.request))
    }
}

#[derive(Default)]
struct Sorted {
    by_org: HashMap<OrgId, (Option<ChannelId>, Vec<ChannelEvent>)>,
    /// Parts that could not be used, in words for the dead letter.
    trouble: Vec<String>,
    /// Part of an authentic request may claim a channel that it was not signed for.
    forged: Option<String>,
}

impl Sorted {
    fn give(&mut self, channel: &Channel, event: ProviderEvent) {
        let entry = self
            .by_org
            .entry(channel.org_id)
            .or_insert_with(|| (Some(channel.id), Vec::new()));
        entry.1.push(ChannelEvent {
            channel_id: channel.id,
            event,
        });
    }

    fn trouble_text(&self) -> Option<String> {
        let mut lines: Vec<&str> = self
            .trouble
            .iter()
            .map(String::as_str)
            .chain(self.forged.as_deref())
            .collect();
        lines.dedup();
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

/// Gives one event to the channel it claims, if that channel's secret signed the request.
async fn sort(
    state: &AppState,
    arrival: &Arrival,
    event: RoutedEvent,
    verified: &mut Verified<'_>,
    sorted: &mut Sorted,
) -> Result<(), ApiError> {
    let claimed = candidates(state, arrival, &event.routes).await?;
    let Some(first) = event.routes.first() else {
        sorted.trouble.push("an event names no channel".to_owned());
        return Ok(());
    };
    if claimed.is_empty() {
        sorted.trouble.push(format!("no channel for {first}"));
        return Ok(());
    }
    let mut signed = claimed
        .iter()
        .filter(|channel| verified.by(channel).is_ok());
    let Some(channel) = signed.next() else {
        sorted.forged = Some(format!("the signature is not that of {first}"));
        return Ok(());
    };
    // News about an account concern all its numbers; anything else has one owner.
    if matches!(
        event.event,
        ProviderEvent::Notice(_) | ProviderEvent::Template(_)
    ) {
        for sibling in signed.filter(|sibling| sibling.org_id == channel.org_id) {
            sorted.give(sibling, event.event.clone());
        }
    }
    sorted.give(channel, event.event);
    Ok(())
}

async fn candidates(
    state: &AppState,
    arrival: &Arrival,
    routes: &[String],
) -> Result<Vec<Arc<Channel>>, ApiError> {
    let mut channels = state.registry.find_by_routes(routes).await?;
    channels.retain(|channel| arrival.kinds.contains(&channel.kind));
    if let Some(id) = arrival.channel_id {
        // An address of one channel accepts that channel's events, and those of its siblings in the same tenant.
        let org = state.registry.by_id(id).map(|channel| channel.org_id);
        channels.retain(|channel| Some(channel.org_id) == org);
    }
    Ok(channels)
}

/// Who owns a request that no channel claims: the tenant whose secret signed it, or the system organisation where the
/// secret is the installation's. Not signed by anybody known: refused, nothing stored.
fn owner_of_unclaimed(
    state: &AppState,
    arrival: &Arrival,
    verified: &mut Verified<'_>,
) -> Result<(OrgId, Option<ChannelId>), ApiError> {
    let channels = match arrival.channel_id {
        Some(id) => match state
            .registry
            .by_id(id)
            .filter(|channel| arrival.kinds.contains(&channel.kind))
        {
            Some(channel) => vec![channel],
            None => return Err(ApiError::not_found("channel")),
        },
        None => state.registry.of_kinds(arrival.kinds),
    };
    let mut refusal = VerifyError::Mismatch;
    let mut owners: Vec<Arc<Channel>> = Vec::new();
    for channel in channels {
        match verified.by(&channel) {
            Ok(()) => owners.push(channel),
            Err(VerifyError::NoSecret) => {}
            Err(error) => refusal = error,
        }
    }
    let Some(first) = owners.first() else {
        tracing::warn!(webhook.kind = arrival.kinds[0].as_str(), reason = %refusal, "a webhook was refused");
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "bad_signature",
            refusal.to_string(),
        ));
    };
    if owners.iter().all(|owner| owner.id == first.id) {
        Ok((first.org_id, Some(first.id)))
    } else if owners.iter().all(|owner| owner.org_id == first.org_id) {
        Ok((first.org_id, None))
    } else {
        Ok((OrgId::SYSTEM, None))
    }
}
