//! What the governor asks the database about a whole batch of messages, each question in one statement.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{Result, SystemTx};

/// One message, as the rules see it.
#[derive(Clone, Debug, FromRow)]
pub struct Facts {
    pub org_id: Uuid,
    pub message_id: Uuid,
    /// The customer's last message in this conversation.
    pub last_inbound_at: Option<DateTime<Utc>>,
    /// What is written with the contact.
    pub timezone: Option<String>,
    pub phone_number: Option<String>,
    /// They asked not to be written to at all.
    pub opted_out: bool,
    /// They asked not to get messages of this category.
    pub opted_out_of_category: bool,
}

/// The facts of these messages, as `(org, message)`.
pub async fn list_facts(tx: &mut SystemTx, messages: &[(Uuid, Uuid)]) -> Result<Vec<Facts>> {
    let (orgs, ids): (Vec<Uuid>, Vec<Uuid>) = messages.iter().copied().unzip();
    Ok(sqlx::query_as(
        "SELECT m.org_id, m.id AS message_id, v.last_inbound_at, c.timezone, c.phone_number,
             coalesce(whole.state = 'opted_out', false) AS opted_out,
             coalesce(part.state = 'opted_out', false) AS opted_out_of_category
         FROM unnest($1::uuid[], $2::uuid[]) AS asked(org_id, id)
         JOIN messages m ON m.org_id = asked.org_id AND m.id = asked.id
         JOIN contacts c ON c.org_id = m.org_id AND c.id = m.contact_id
         JOIN conversations v ON v.org_id = m.org_id AND v.id = m.conversation_id
         LEFT JOIN LATERAL (
             SELECT k.state FROM consents k WHERE k.org_id = m.org_id AND k.contact_id = m.contact_id
               AND k.category = 'all' AND (k.channel_id = m.channel_id OR k.channel_id IS NULL)
             ORDER BY k.at DESC, k.id DESC LIMIT 1) whole ON true
         LEFT JOIN LATERAL (
             SELECT k.state FROM consents k WHERE k.org_id = m.org_id AND k.contact_id = m.contact_id
               AND k.category IN ('all', m.category) AND (k.channel_id = m.channel_id OR k.channel_id IS NULL)
             ORDER BY k.at DESC, k.id DESC LIMIT 1) part ON true",
    )
    .bind(orgs)
    .bind(ids)
    .fetch_all(&mut **tx)
    .await?)
}

/// What an organisation set for itself.
#[derive(Clone, Debug, FromRow)]
pub struct OrganizationRules {
    pub id: Uuid,
    pub timezone: String,
    /// `wasel_domain::limits::SendingPolicy`.
    pub sending_policy: Value,
}

pub async fn list_organizations(
    tx: &mut SystemTx,
    orgs: &[Uuid],
) -> Result<Vec<OrganizationRules>> {
    Ok(
        sqlx::query_as(
            "SELECT id, timezone, sending_policy FROM organizations WHERE id = ANY ($1)",
        )
        .bind(orgs)
        .fetch_all(&mut **tx)
        .await?,
    )
}

/// A channel's limits as they are now: the registry's may be a moment older.
#[derive(Clone, Debug, FromRow)]
pub struct ChannelRules {
    pub org_id: Uuid,
    pub id: Uuid,
    /// Meta's account, whose numbers share one reach.
    pub waba_id: Option<String>,
    /// The least reach set on any number of that account; without an account the channel's own.
    pub daily_reach: Option<i64>,
    /// `wasel_domain::limits::ChannelLimits`.
    pub limits: Value,
}

/// The limits of these channels, as `(org, channel)`.
pub async fn list_channels(
    connection: &mut PgConnection,
    channels: &[(Uuid, Uuid)],
) -> Result<Vec<ChannelRules>> {
    let (orgs, ids): (Vec<Uuid>, Vec<Uuid>) = channels.iter().copied().unzip();
    Ok(sqlx::query_as(
        "SELECT c.org_id, c.id, nullif(c.settings ->> 'waba_id', '') AS waba_id, shared.daily_reach, c.limits
         FROM unnest($1::uuid[], $2::uuid[]) AS asked(org_id, id)
         JOIN channels c ON c.org_id = asked.org_id AND c.id = asked.id
         CROSS JOIN LATERAL (
             SELECT min(CASE WHEN jsonb_typeof(s.limits -> 'daily_reach') = 'number'
                             THEN trunc((s.limits ->> 'daily_reach')::numeric)::int8 END) AS daily_reach
             FROM channels s WHERE s.org_id = c.org_id
               AND (s.id = c.id OR s.settings ->> 'waba_id' = nullif(c.settings ->> 'waba_id', ''))) shared",
    )
    .bind(orgs)
    .bind(ids)
    .fetch_all(connection)
    .await?)
}

/// Lets only one transaction at a time count under each of these names, until it ends. Always in one order, so that two
/// of them do not wait for each other.
pub async fn lock_counts(tx: &mut SystemTx, names: &[String]) -> Result<()> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    sqlx::query(
        "SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest($1::text[]) AS name",
    )
    .bind(names)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A question about one person and what they got since a time.
#[derive(Clone, Debug)]
pub struct CapQuestion {
    pub org_id: Uuid,
    pub contact_id: Uuid,
    pub categories: Vec<String>,
    pub since: DateTime<Utc>,
}

/// One counted message.
#[derive(Clone, Debug, FromRow)]
pub struct Capped {
    pub org_id: Uuid,
    pub contact_id: Uuid,
    pub at: DateTime<Utc>,
}

/// A message asked for longer ago than this is not looked for: it waited longer than a hold ever does.
const CAP_LOOKS_BACK_DAYS: i32 = 31;

/// What these people got, or are being sent, since the times given, over all their conversations; without the messages in
/// `except`.
pub async fn list_capped(
    tx: &mut SystemTx,
    questions: &[CapQuestion],
    except: &[Uuid],
) -> Result<Vec<Capped>> {
    let column = |f: fn(&CapQuestion) -> Uuid| questions.iter().map(f).collect::<Vec<_>>();
    // An array of arrays must be rectangular; a list in one text need not.
    let categories: Vec<String> = questions.iter().map(|q| q.categories.join(",")).collect();
    let since: Vec<_> = questions.iter().map(|q| q.since).collect();
    Ok(sqlx::query_as(
        "SELECT q.org_id, q.contact_id, coalesce(m.sent_at, m.delivered_at, o.claimed_at, m.updated_at) AS at
         FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[]) AS q(org_id, contact_id, categories, since)
         JOIN messages m ON m.org_id = q.org_id AND m.contact_id = q.contact_id
         -- Another sender has it in hand; its status does not show that yet.
         LEFT JOIN outbox o ON o.org_id = m.org_id AND o.message_id = m.id AND o.leased_until IS NOT NULL
         WHERE m.direction = 'outbound' AND m.category IN ('marketing', 'utility')
           AND m.category = ANY (string_to_array(q.categories, ','))
           AND m.created_at > q.since - make_interval(days => $6)
           AND (m.status IN ('sending', 'unknown', 'sent', 'delivered', 'read') OR o.message_id IS NOT NULL)
           AND coalesce(m.sent_at, m.delivered_at, o.claimed_at, m.updated_at) > q.since
           AND m.id <> ALL ($5)",
    )
    .bind(column(|q| q.org_id))
    .bind(column(|q| q.contact_id))
    .bind(categories)
    .bind(since)
    .bind(except)
    .bind(CAP_LOOKS_BACK_DAYS)
    .fetch_all(&mut **tx)
    .await?)
}

/// A question about one reach group: how full is it, and when does it get room?
#[derive(Clone, Debug)]
pub struct ReachQuestion {
    pub org_id: Uuid,
    pub group: String,
    /// People it may have in the window.
    pub limit: u32,
    /// Whoever was reached later than this counts.
    pub since: DateTime<Utc>,
    /// Room that comes free up to this person's turn has been promised to somebody.
    pub promised: Option<DateTime<Utc>>,
}

/// The answer to a [`ReachQuestion`].
#[derive(Clone, Debug, FromRow)]
pub struct ReachState {
    pub org_id: Uuid,
    pub reach_group: String,
    pub people: i64,
    /// When those were reached whose leaving makes room, the earliest first.
    pub leaving: Vec<DateTime<Utc>>,
}

/// How full these groups are. Up to `slots` of those who leave next are told.
pub async fn list_reach(
    tx: &mut SystemTx,
    questions: &[ReachQuestion],
    slots: i64,
) -> Result<Vec<ReachState>> {
    let orgs: Vec<_> = questions.iter().map(|q| q.org_id).collect();
    let groups: Vec<_> = questions.iter().map(|q| q.group.clone()).collect();
    let limits: Vec<_> = questions.iter().map(|q| i64::from(q.limit)).collect();
    let since: Vec<_> = questions.iter().map(|q| q.since).collect();
    let promised: Vec<_> = questions.iter().map(|q| q.promised).collect();
    Ok(sqlx::query_as(
        "SELECT q.org_id, q.reach_group, used.people, coalesce(next.leaving, '{}') AS leaving
         FROM unnest($1::uuid[], $2::text[], $3::int8[], $4::timestamptz[], $5::timestamptz[])
             AS q(org_id, reach_group, allowed, since, promised)
         CROSS JOIN LATERAL (
             SELECT count(*) AS people FROM channel_reach r
             WHERE r.org_id = q.org_id AND r.reach_group = q.reach_group AND r.at > q.since) used
         LEFT JOIN LATERAL (
             SELECT array_agg(l.at ORDER BY l.at) AS leaving FROM (
                 SELECT r.at FROM (
                     SELECT r.at FROM channel_reach r
                     WHERE r.org_id = q.org_id AND r.reach_group = q.reach_group AND r.at > q.since
                     -- With limits lowered meanwhile, several must leave before one may come.
                     ORDER BY r.at OFFSET greatest(used.people - q.allowed, 0)) r
                 WHERE q.promised IS NULL OR r.at > q.promised
                 LIMIT $6) l) next ON used.people > q.allowed - $6",
    )
    .bind(orgs)
    .bind(groups)
    .bind(limits)
    .bind(since)
    .bind(promised)
    .bind(slots)
    .fetch_all(&mut **tx)
    .await?)
}

/// Organisation, group and person: the group counts the person.
pub type Reached = (Uuid, String, Uuid);

/// Which of these the groups count already, and when they were reached last, since the time given.
pub async fn list_reached(
    tx: &mut SystemTx,
    people: &[Reached],
    since: DateTime<Utc>,
) -> Result<Vec<(Reached, DateTime<Utc>)>> {
    let (orgs, groups, contacts) = columns(people);
    let rows: Vec<(Uuid, String, Uuid, DateTime<Utc>)> = sqlx::query_as(
        "SELECT DISTINCT r.org_id, r.reach_group, r.contact_id, r.at
         FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS q(org_id, reach_group, contact_id)
         JOIN channel_reach r USING (org_id, reach_group, contact_id) WHERE r.at > $4",
    )
    .bind(orgs)
    .bind(groups)
    .bind(contacts)
    .bind(since)
    .fetch_all(&mut **tx)
    .await?;
    let of_row = |(org, group, contact, at)| ((org, group, contact), at);
    Ok(rows.into_iter().map(of_row).collect())
}

/// Counts these people from now on.
pub async fn upsert_reached(
    tx: &mut SystemTx,
    people: &[Reached],
    at: DateTime<Utc>,
) -> Result<()> {
    let mut people = people.to_vec();
    // In one order, and nobody twice.
    people.sort_unstable();
    people.dedup();
    let (orgs, groups, contacts) = columns(&people);
    sqlx::query(
        "INSERT INTO channel_reach (org_id, reach_group, contact_id, at)
         SELECT q.org_id, q.reach_group, q.contact_id, $4
         FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS q(org_id, reach_group, contact_id)
         ON CONFLICT (org_id, reach_group, contact_id) DO UPDATE SET at = greatest(channel_reach.at, excluded.at)",
    )
    .bind(orgs)
    .bind(groups)
    .bind(contacts)
    .bind(at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn columns(people: &[Reached]) -> (Vec<Uuid>, Vec<String>, Vec<Uuid>) {
    let orgs = people.iter().map(|(org, _, _)| *org).collect();
    let groups = people.iter().map(|(_, group, _)| group.clone()).collect();
    let contacts = people.iter().map(|(_, _, contact)| *contact).collect();
    (orgs, groups, contacts)
}

/// How many people a group has reached since a time.
pub async fn count_reached(
    connection: &mut PgConnection,
    org: Uuid,
    group: &str,
    since: DateTime<Utc>,
) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM channel_reach WHERE org_id = $1 AND reach_group = $2 AND at > $3",
    )
    .bind(org)
    .bind(group)
    .bind(since)
    .fetch_one(connection)
    .await?)
}

/// Forgets who no longer counts.
pub async fn delete_old_reach(tx: &mut SystemTx, before: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query("DELETE FROM channel_reach WHERE at <= $1")
        .bind(before)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected())
}

/// Which waiting messages are to be looked at again.
#[derive(Clone, Copy, Debug)]
pub enum Held {
    /// All of the organisation's.
    Organization,
    Channel(Uuid),
    Contact(Uuid),
}

/// Ends the waiting of messages held for one of these reasons: what held them may be no more. If it still is, they are
/// held again. Returns how many there were.
pub async fn release_held(
    tx: &mut SystemTx,
    org: Uuid,
    whose: Held,
    reasons: &[&str],
) -> Result<u64> {
    let (channel, contact) = match whose {
        Held::Organization => (None, None),
        Held::Channel(id) => (Some(id), None),
        Held::Contact(id) => (None, Some(id)),
    };
    let done = sqlx::query(
        "UPDATE outbox SET due_at = now() WHERE org_id = $1 AND due_at > now() AND leased_until IS NULL
           AND hold_reason = ANY ($2) AND ($3::uuid IS NULL OR channel_id = $3)
           AND ($4::uuid IS NULL OR conversation_id IN (
               SELECT id FROM conversations WHERE org_id = $1 AND contact_id = $4))",
    )
    .bind(org)
    .bind(reasons)
    .bind(channel)
    .bind(contact)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}
