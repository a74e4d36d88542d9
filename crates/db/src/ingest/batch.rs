//! One group of deliveries, one transaction.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_domain::event::{
    Actor, ConsentEvent, Edit, InboundMessage, Notice, Party, ProviderEvent, Revoke, SamePerson,
};
use wasel_domain::{AttemptId, MessageContent, MessageKind, consent};

use super::resolve::{Cache, Key, Target, resolve};
use super::{
    CommitSignals, Delivery, IngestError, Outcome, clean, clean_json, is_transient, templates,
};
use crate::consents::{self, NewConsent};
use crate::messages::{self, NewInbound, StatusUpdate};
use crate::{Db, Error, Result, contacts, ledger, media, reactions};

/// Repeats of a group after another transaction got in its way, before the requesters are told.
const CONFLICT_RETRIES: u32 = 3;
/// Repeats on a new connection after one broke: a provider would rather hear "later" than wait.
const CONNECTION_RETRIES: u32 = 1;

pub(super) struct Writer {
    db: Db,
    cache: Cache,
    signals: CommitSignals,
    /// The transaction under way holds files to fetch.
    has_files: bool,
}

/// One event of the group and the delivery it came in.
pub(super) struct Item<'a> {
    delivery: usize,
    event_id: Uuid,
    pub org_id: Uuid,
    pub channel_id: Uuid,
    pub received_at: DateTime<Utc>,
    event: &'a ProviderEvent,
}

impl Writer {
    pub fn new(db: Db, signals: CommitSignals) -> Self {
        Self {
            db,
            cache: Cache::default(),
            signals,
            has_files: false,
        }
    }

    /// Stores the group; the answers are in the order of the deliveries. A delivery that the database refuses by
    /// itself becomes a dead letter and takes nobody else down.
    pub async fn store(&mut self, deliveries: Vec<Delivery>) -> Vec<Result<Outcome, IngestError>> {
        match self.store_with_retries(&deliveries).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error) if is_transient(&error) => {
                tracing::warn!(ingest.deliveries = deliveries.len(), %error, "a group of webhooks was not stored");
                deliveries
                    .iter()
                    .map(|_| Err(IngestError::Unavailable))
                    .collect()
            }
            Err(_) => {
                let mut outcomes = Vec::with_capacity(deliveries.len());
                for delivery in deliveries {
                    outcomes.push(self.store_alone(delivery).await);
                }
                outcomes
            }
        }
    }

    async fn store_alone(&mut self, delivery: Delivery) -> Result<Outcome, IngestError> {
        let error = match self
            .store_with_retries(std::slice::from_ref(&delivery))
            .await
        {
            Ok(outcomes) => return Ok(outcomes[0]),
            Err(error) if is_transient(&error) => return Err(IngestError::Unavailable),
            Err(error) => error,
        };
        tracing::error!(event.id = %delivery.id, %error, "a webhook could not be stored and becomes a dead letter");
        let reason = format!("the database refused it: {error}");
        let dead = Delivery {
            events: Vec::new(),
            dead_letter: Some(reason),
            ..delivery
        };
        match self.store_with_retries(std::slice::from_ref(&dead)).await {
            Ok(outcomes) => Ok(outcomes[0]),
            Err(_) => Err(IngestError::Unavailable),
        }
    }

    async fn store_with_retries(&mut self, deliveries: &[Delivery]) -> Result<Vec<Outcome>> {
        let mut attempt = 0;
        loop {
            match self.try_store(deliveries).await {
                Ok(outcomes) => {
                    self.cache.keep();
                    self.signals.changes.notify_one();
                    if self.has_files {
                        self.signals.media.notify_one();
                    }
                    return Ok(outcomes);
                }
                Err(error) => {
                    // Whatever went wrong, what the cache says may be why (a row erased meanwhile).
                    self.cache.clear();
                    attempt += 1;
                    let allowed = match &error {
                        error if error.is_unavailable() => CONNECTION_RETRIES,
                        error if error.is_conflict() => CONFLICT_RETRIES,
                        // The cache named a row that is gone.
                        Error::Constraint { .. } => 1,
                        _ => 0,
                    };
                    if attempt > allowed {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn try_store(&mut self, deliveries: &[Delivery]) -> Result<Vec<Outcome>> {
        self.cache.drop_fresh();
        self.has_files = false;
        let items: Vec<Item<'_>> = deliveries
            .iter()
            .enumerate()
            .flat_map(|(delivery, d)| {
                d.events.iter().map(move |event| Item {
                    delivery,
                    event_id: d.id.0,
                    org_id: d.org_id.0,
                    channel_id: event.channel_id.0,
                    received_at: d.received_at,
                    event: &event.event,
                })
            })
            .collect();
        let mut tx = self.db.ingest_pool().begin().await?;
        // Which deliveries brought something new.
        let mut news = vec![false; deliveries.len()];
        self.store_messages(&mut tx, &items, &mut news).await?;
        store_statuses(&mut tx, &items, &mut news).await?;
        for item in &items {
            news[item.delivery] |= store_other(&mut tx, &mut self.cache, item).await?;
        }
        let outcomes: Vec<Outcome> = deliveries
            .iter()
            .zip(&news)
            .map(|(delivery, new)| match (&delivery.dead_letter, new) {
                (Some(_), _) => Outcome::DeadLetter,
                (None, true) => Outcome::Stored,
                (None, false) => Outcome::Duplicate,
            })
            .collect();
        ledger::insert(&mut tx, deliveries, &outcomes).await?;
        tx.commit().await?;
        Ok(outcomes)
    }

    async fn store_messages(
        &mut self,
        connection: &mut PgConnection,
        items: &[Item<'_>],
        news: &mut [bool],
    ) -> Result<()> {
        let mut found: Vec<(&Item<'_>, Key, &InboundMessage, bool)> = Vec::new();
        for item in items {
            let (message, from_customer) = match item.event {
                ProviderEvent::Message(message) => (message, true),
                ProviderEvent::Echo(message) => (message, false),
                _ => continue,
            };
            let key = Key::of(
                item.org_id,
                item.channel_id,
                &message.customer,
                message.group_id.as_deref(),
            );
            let Some(key) = key else { continue };
            found.push((item, key, message, from_customer));
        }
        if found.is_empty() {
            return Ok(());
        }
        let threads = find_threads(connection, &found).await?;
        let wanted: Vec<(Key, &Party)> = found
            .iter()
            .enumerate()
            .filter(|(index, _)| !threads.contains_key(index))
            .map(|(_, (_, key, message, _))| (key.clone(), &message.customer))
            .collect();
        resolve(connection, &mut self.cache, &wanted).await?;
        let mut rows = Vec::with_capacity(found.len());
        let mut files = Vec::new();
        for (index, (item, key, message, from_customer)) in found.iter().enumerate() {
            let target = match threads.get(&index) {
                Some(thread) => thread,
                None => self.cache.get(key).ok_or(Error::Raced)?,
            };
            let id = Uuid::now_v7();
            let refs: Vec<media::NewMedia> = message
                .content
                .media
                .iter()
                .map(|source| {
                    media::NewMedia::new(item.org_id, id, item.channel_id, item.event_id, source)
                })
                .collect();
            rows.push(NewInbound {
                org_id: item.org_id,
                id,
                conversation_id: target.conversation_id,
                channel_id: item.channel_id,
                contact_id: target.contact_id,
                from_customer: *from_customer,
                message_type: message.content.kind.as_str(),
                body: message
                    .content
                    .text
                    .as_deref()
                    .map(|text| clean(text).into_owned()),
                content: clean_json(&message.content.detail),
                media: (!refs.is_empty()).then(|| media::listing(&refs)),
                address: target.address.clone(),
                customer_name: target.customer_name.clone(),
                provider_message_id: clean(&message.provider_message_id).into_owned(),
                quoted_message_id: message
                    .quoted_message_id
                    .as_deref()
                    .map(|id| clean(id).into_owned()),
                referral: message.referral.as_ref().and_then(clean_json),
                metadata: metadata_of(message),
                sent_at: known_time(message.sent_at, item.received_at),
            });
            files.extend(refs);
        }
        let fresh = messages::insert_inbound(connection, &rows).await?;
        files.retain(|file| fresh.contains(&file.message_id));
        if !files.is_empty() {
            media::insert(connection, &files).await?;
            self.has_files = true;
        }
        for (index, ((item, _, message, from_customer), row)) in found.iter().zip(&rows).enumerate()
        {
            if !fresh.contains(&row.id) {
                continue;
            }
            news[item.delivery] = true;
            let by_stranger = threads
                .get(&index)
                .is_some_and(|thread| thread.identities.is_empty());
            if !*from_customer {
                // The phone app's own messages get statuses too, and one may have come first.
                messages::status::apply_pending_of(
                    connection,
                    &[row.org_id],
                    &[row.channel_id],
                    &[Some(&row.provider_message_id)],
                    &[Uuid::nil()],
                )
                .await?;
            } else if !by_stranger {
                insert_keyword_consent(connection, row, &message.content).await?;
            }
        }
        Ok(())
    }
}

/// The conversations of messages that name an earlier message of ours, by their place in `found`: an answer belongs
/// there whatever address it came from.
async fn find_threads(
    connection: &mut PgConnection,
    found: &[(&Item<'_>, Key, &InboundMessage, bool)],
) -> Result<HashMap<usize, Target>> {
    let (mut places, mut orgs, mut channels, mut ids) = (vec![], vec![], vec![], vec![]);
    let (mut kinds, mut senders) = (vec![], vec![]);
    for (place, (item, _, message, _)) in found.iter().enumerate() {
        let Some(sender) = message.customer.identities.first() else {
            continue;
        };
        for id in &message.thread_ids {
            places.push(place as i64);
            orgs.push(item.org_id);
            channels.push(item.channel_id);
            ids.push(clean(id).into_owned());
            kinds.push(sender.kind.as_str());
            senders.push(clean(&sender.value).into_owned());
        }
    }
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    // The newest id comes first.
    let rows: Vec<(i64, Uuid, Uuid, Option<String>, bool)> = sqlx::query_as(
        "SELECT DISTINCT ON (n.place) n.place, m.conversation_id, m.contact_id, c.customer_name,
             EXISTS (SELECT FROM contact_identities i WHERE i.org_id = n.org_id AND i.kind = n.kind AND i.value = n.sender
                 AND i.contact_id = m.contact_id)
         FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[]) WITH ORDINALITY
             AS n(place, org_id, channel_id, provider_message_id, kind, sender, rank)
         JOIN messages m ON m.org_id = n.org_id AND m.channel_id = n.channel_id
             AND m.provider_message_id = n.provider_message_id
         JOIN conversations c ON c.org_id = m.org_id AND c.id = m.conversation_id
         ORDER BY n.place, n.rank",
    )
    .bind(&places)
    .bind(&orgs)
    .bind(&channels)
    .bind(&ids)
    .bind(&kinds)
    .bind(&senders)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(
            |(place, conversation_id, contact_id, conversation_name, is_contact)| {
                let place = place as usize;
                let customer = &found[place].2.customer;
                let name = customer
                    .name
                    .as_deref()
                    .map(|name| clean(name).into_owned());
                let target = Target {
                    contact_id,
                    conversation_id,
                    customer_name: name.or(conversation_name),
                    address: customer
                        .identities
                        .first()
                        .map(|identity| clean(&identity.value).into_owned())
                        .unwrap_or_default(),
                    // Empty for a stranger in the thread, who decides nothing for the contact.
                    identities: customer
                        .identities
                        .iter()
                        .take(usize::from(is_contact))
                        .cloned()
                        .collect(),
                };
                (place, target)
            },
        )
        .collect())
}

/// A provider that tells no time leaves the epoch; then it happened when we heard of it.
pub(super) fn known_time(told: DateTime<Utc>, received_at: DateTime<Utc>) -> DateTime<Utc> {
    if told == DateTime::UNIX_EPOCH {
        received_at
    } else {
        told
    }
}

fn metadata_of(message: &InboundMessage) -> Option<String> {
    let mut metadata = json!({});
    if message.forwarded {
        metadata["forwarded"] = json!(true);
    }
    if message.from_history {
        metadata["from_history"] = json!(true);
    }
    if let Some(group) = &message.group_id {
        metadata["group_id"] = json!(group);
    }
    metadata
        .as_object()
        .is_some_and(|fields| !fields.is_empty())
        .then(|| clean_json(&metadata))
        .flatten()
}

/// "STOP" and "إلغاء" are recorded as what they are, besides being messages.
async fn insert_keyword_consent(
    connection: &mut PgConnection,
    row: &NewInbound,
    content: &MessageContent,
) -> Result<()> {
    let spoken = matches!(
        content.kind,
        MessageKind::Text | MessageKind::Button | MessageKind::Interactive
    );
    let Some(state) = content
        .text
        .as_deref()
        .filter(|_| spoken)
        .and_then(consent::keyword)
    else {
        return Ok(());
    };
    consents::insert(
        connection,
        &NewConsent {
            org_id: row.org_id,
            contact_id: row.contact_id,
            channel_id: Some(row.channel_id),
            category: "all",
            state,
            source: "keyword",
            at: row.sent_at,
        },
    )
    .await?;
    Ok(())
}

async fn store_statuses(
    connection: &mut PgConnection,
    items: &[Item<'_>],
    news: &mut [bool],
) -> Result<()> {
    let mut owners = Vec::new();
    let mut updates = Vec::new();
    for item in items {
        if let ProviderEvent::Status(status) = item.event {
            owners.push(item.delivery);
            let mut update = StatusUpdate::new(item.org_id, item.channel_id, status.clone());
            update.at = known_time(update.at, item.received_at);
            updates.push(update);
        }
    }
    if updates.is_empty() {
        return Ok(());
    }
    let fresh: HashSet<Uuid> = messages::advance_status(connection, &updates).await?;
    for (owner, update) in owners.iter().zip(&updates) {
        news[*owner] |= fresh.contains(&update.id);
    }
    Ok(())
}

/// The rare kinds, one by one. Returns whether anything changed.
async fn store_other(
    connection: &mut PgConnection,
    cache: &mut Cache,
    item: &Item<'_>,
) -> Result<bool> {
    match item.event {
        ProviderEvent::Message(_) | ProviderEvent::Echo(_) | ProviderEvent::Status(_) => Ok(false),
        ProviderEvent::Reaction(reaction) => {
            reactions::upsert(connection, item.org_id, item.channel_id, reaction).await
        }
        ProviderEvent::Edit(edit) => update_edited(connection, item, edit).await,
        ProviderEvent::Revoke(revoke) => update_revoked(connection, item, revoke).await,
        ProviderEvent::SamePerson(same) => store_same_person(connection, cache, item, same).await,
        ProviderEvent::Consent(consent) => store_consent(connection, cache, item, consent).await,
        ProviderEvent::Template(event) => templates::store(connection, item, event).await,
        ProviderEvent::Notice(notice) => store_notice(connection, item, notice).await,
    }
}

/// Kinds and values of who may have written a customer's message; `None` where it was us.
fn identities_of(by: &Actor) -> (Option<Vec<&'static str>>, Option<Vec<Cow<'_, str>>>) {
    match by {
        Actor::Us => (None, None),
        Actor::Customer(customer) => {
            let identities = customer.identities.iter();
            let (kinds, values) = identities
                .map(|identity| (identity.kind.as_str(), clean(&identity.value)))
                .unzip();
            (Some(kinds), Some(values))
        }
    }
}

async fn update_edited(
    connection: &mut PgConnection,
    item: &Item<'_>,
    edit: &Edit,
) -> Result<bool> {
    let (kinds, values) = identities_of(&edit.by);
    let done = sqlx::query(
        "UPDATE messages SET body = $4, content = $5::jsonb, edited_at = $6, updated_at = now(),
             metadata = metadata || jsonb_build_object('original_body', coalesce(metadata -> 'original_body', to_jsonb(body)))
         WHERE org_id = $1 AND channel_id = $2 AND provider_message_id = $3
           AND (edited_at IS NULL OR edited_at < $6)
           AND CASE WHEN $7::text[] IS NULL THEN direction = 'outbound' ELSE direction = 'inbound' AND contact_id IN (
                SELECT i.contact_id FROM unnest($7::text[], $8::text[]) AS n(kind, value)
                JOIN contact_identities i ON i.org_id = $1 AND i.kind = n.kind AND i.value = n.value) END",
    )
    .bind(item.org_id)
    .bind(item.channel_id)
    .bind(clean(&edit.target_message_id))
    .bind(edit.content.text.as_deref().map(clean))
    .bind(clean_json(&edit.content.detail))
    .bind(edit.at)
    .bind(kinds)
    .bind(values)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

async fn update_revoked(
    connection: &mut PgConnection,
    item: &Item<'_>,
    revoke: &Revoke,
) -> Result<bool> {
    let (kinds, values) = identities_of(&revoke.by);
    let done = sqlx::query(
        "WITH revoked AS (
             UPDATE messages SET revoked_at = $4, updated_at = now()
             WHERE org_id = $1 AND channel_id = $2 AND provider_message_id = $3 AND revoked_at IS NULL
           AND CASE WHEN $5::text[] IS NULL THEN direction = 'outbound' ELSE direction = 'inbound' AND contact_id IN (
                SELECT i.contact_id FROM unnest($5::text[], $6::text[]) AS n(kind, value)
                JOIN contact_identities i ON i.org_id = $1 AND i.kind = n.kind AND i.value = n.value) END
             RETURNING org_id, conversation_id, created_at
         ), preview AS (
             -- The list must not go on showing what was taken back.
             UPDATE conversations c SET last_message = '[deleted]', updated_at = now() FROM revoked r
             WHERE c.org_id = r.org_id AND c.id = r.conversation_id AND c.last_message_at = r.created_at
         )
         SELECT FROM revoked",
    )
    .bind(item.org_id)
    .bind(item.channel_id)
    .bind(clean(&revoke.target_message_id))
    .bind(revoke.at)
    .bind(kinds)
    .bind(values)
    .fetch_optional(connection)
    .await?;
    Ok(done.is_some())
}

/// The provider says that these identities are one person: link them, merging contacts where both were known.
async fn store_same_person(
    connection: &mut PgConnection,
    cache: &mut Cache,
    item: &Item<'_>,
    same: &SamePerson,
) -> Result<bool> {
    let all: Vec<_> = same.known.iter().chain(&same.now).cloned().collect();
    let known = contacts::list_by_identities(connection, item.org_id, &all).await?;
    let Some((keep, others)) = known.split_first() else {
        return Ok(false);
    };
    for other in others {
        contacts::merge(connection, item.org_id, *keep, *other).await?;
    }
    let mut added = false;
    for identity in &all {
        added |= contacts::insert_identity(connection, item.org_id, *keep, identity).await?;
    }
    cache.clear();
    Ok(added || !others.is_empty())
}

async fn store_consent(
    connection: &mut PgConnection,
    cache: &mut Cache,
    item: &Item<'_>,
    consent: &ConsentEvent,
) -> Result<bool> {
    let contact_id = match consent.about_attempt {
        Some(attempt) => contact_of_attempt(connection, item, attempt).await?,
        None => contact_of(connection, cache, item, &consent.customer).await?,
    };
    let Some(contact_id) = contact_id else {
        return Ok(false);
    };
    consents::insert(
        connection,
        &NewConsent {
            org_id: item.org_id,
            contact_id,
            channel_id: Some(item.channel_id),
            category: &consent.category,
            state: consent.consent,
            source: "provider",
            at: consent.at,
        },
    )
    .await
}

async fn contact_of_attempt(
    connection: &mut PgConnection,
    item: &Item<'_>,
    attempt: AttemptId,
) -> Result<Option<Uuid>> {
    Ok(sqlx::query_scalar(
        "SELECT m.contact_id FROM message_attempts t JOIN messages m ON m.org_id = t.org_id AND m.id = t.message_id
         WHERE t.org_id = $1 AND t.id = $2 AND t.channel_id = $3",
    )
    .bind(item.org_id)
    .bind(attempt.0)
    .bind(item.channel_id)
    .fetch_optional(connection)
    .await?)
}

async fn contact_of(
    connection: &mut PgConnection,
    cache: &mut Cache,
    item: &Item<'_>,
    customer: &Party,
) -> Result<Option<Uuid>> {
    let Some(key) = Key::of(item.org_id, item.channel_id, customer, None) else {
        return Ok(None);
    };
    resolve(connection, cache, &[(key.clone(), customer)]).await?;
    Ok(cache.get(&key).map(|target| target.contact_id))
}

async fn store_notice(
    connection: &mut PgConnection,
    item: &Item<'_>,
    notice: &Notice,
) -> Result<bool> {
    ledger::insert_notice(
        connection,
        item.org_id,
        item.channel_id,
        &notice.topic,
        &notice.detail,
    )
    .await?;
    if notice.pauses_channel {
        let reason = notice
            .detail
            .get("event")
            .and_then(Value::as_str)
            .unwrap_or(&notice.topic);
        let (org, channel) = (item.org_id.into(), item.channel_id.into());
        crate::channels::update_status(connection, org, channel, "blocked", Some(&clean(reason)))
            .await?;
    }
    Ok(true)
}
