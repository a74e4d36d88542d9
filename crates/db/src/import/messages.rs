//! Messages: by far the most rows, so they come by binary `COPY` into a temporary table and go on in one statement.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;
use wasel_domain::MessageStatus;

use super::threads::{Found, Threads, Wanted};
use super::{
    Claim, Importer, Outcome, RETRIES, Target, Thread, already_claimed, claim, disclaim,
    is_passing, point_to,
};
use crate::Result;

/// A message of an old table. Text holds no NUL.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    pub external_id: String,
    /// Used if it is free.
    pub id: Uuid,
    /// Used if it is not.
    pub spare_id: Uuid,
    pub thread: Thread,
    pub inbound: bool,
    /// A `wasel_domain::MessageKind`.
    pub message_type: &'static str,
    pub status: MessageStatus,
    pub body: Option<String>,
    /// JSON text.
    pub content: Option<String>,
    /// JSON text.
    pub media: Option<String>,
    /// The conversation's if `None`.
    pub customer_name: Option<String>,
    pub provider_message_id: Option<String>,
    pub sender_id: Option<Uuid>,
    pub request_id: Option<String>,
    pub trigger_type: Option<String>,
    pub related_entity_id: Option<String>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// JSON text of an object.
    pub metadata: String,
    pub retry_count: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub scheduled_at: Option<DateTime<Utc>>,
    pub sent_at: Option<DateTime<Utc>>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub read_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
}

/// Row-level security does not go with `COPY` into `messages` itself.
pub(super) const STAGING: &str = "CREATE TEMPORARY TABLE import_messages (
    id uuid, conversation_id uuid, channel_id uuid, contact_id uuid, direction text, message_type text, status text,
    body text, content jsonb, media jsonb, address text, customer_name text, provider_message_id text, sender_id uuid,
    request_id text, trigger_type text, related_entity_id text, error_code text, error_message text, metadata jsonb,
    retry_count int, created_at timestamptz, updated_at timestamptz, scheduled_at timestamptz, sent_at timestamptz,
    delivered_at timestamptz, read_at timestamptz, failed_at timestamptz) ON COMMIT DELETE ROWS";
const COLUMNS: i16 = 28;

const INSERT: &str = "INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type,
        status, body, content, media, address, customer_name, provider_message_id, sender_id, request_id, trigger_type,
        related_entity_id, error_code, error_message, metadata, retry_count, created_at, updated_at, scheduled_at,
        sent_at, delivered_at, read_at, failed_at)
    SELECT $1, id, conversation_id, channel_id, contact_id, direction, message_type, status, body, content, media,
        address, customer_name, provider_message_id, sender_id, request_id, trigger_type, related_entity_id, error_code,
        error_message, metadata, retry_count, created_at, updated_at, scheduled_at, sent_at, delivered_at, read_at,
        failed_at
    FROM import_messages
    ON CONFLICT DO NOTHING RETURNING id";

impl Importer {
    /// Moves a batch of the old table `kind`; one outcome per row.
    pub async fn write_messages(
        &mut self,
        kind: &str,
        rows: &[NewMessage],
    ) -> Result<Vec<Outcome>> {
        if let Some(seen) = &mut self.seen {
            return seen
                .messages(&mut self.connection, &self.target, kind, rows)
                .await;
        }
        let mut attempt = 0;
        loop {
            match self.resolve_threads(kind, rows).await {
                Ok(()) => break,
                Err(error) if self.may_retry(&error, attempt) => attempt += 1,
                Err(error) => return Err(error),
            }
        }
        // What the rows need is there: the halves have nothing to do with each other, and there is a core for each.
        let (one, other) = rows.split_at(rows.len() / 2);
        let (target, threads) = (&self.target, &self.threads);
        let (mut outcomes, others) = tokio::try_join!(
            write_half(&mut self.connection, target, threads, kind, one),
            write_half(&mut self.second, target, threads, kind, other),
        )?;
        outcomes.extend(others);
        Ok(outcomes)
    }

    /// Makes the contacts and conversations of the rows that are still to be moved, in a transaction of its own.
    async fn resolve_threads(&mut self, kind: &str, rows: &[NewMessage]) -> Result<()> {
        let names: Vec<&str> = rows.iter().map(|row| row.external_id.as_str()).collect();
        let mut tx = Self::transaction(&mut self.connection).await?;
        let claimed = already_claimed(&mut tx, &self.target, kind, &names).await?;
        let wanted: Vec<Wanted<'_>> = rows
            .iter()
            .enumerate()
            .filter(|(place, _)| !claimed.contains(place))
            .map(|(_, row)| Wanted {
                thread: &row.thread,
                customer_name: row.customer_name.as_deref(),
                at: row.created_at,
            })
            .collect();
        self.threads.resolve(&mut tx, &self.target, &wanted).await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn write_half(
    connection: &mut PgConnection,
    target: &Target,
    threads: &Threads,
    kind: &str,
    rows: &[NewMessage],
) -> Result<Vec<Outcome>> {
    let mut attempt = 0;
    loop {
        match try_write_half(connection, target, threads, kind, rows).await {
            Err(error) if is_passing(&error) && attempt < RETRIES => attempt += 1,
            result => return result,
        }
    }
}

async fn try_write_half(
    connection: &mut PgConnection,
    target: &Target,
    threads: &Threads,
    kind: &str,
    rows: &[NewMessage],
) -> Result<Vec<Outcome>> {
    let org = target.org;
    let mut tx = connection.begin().await?;
    let claims: Vec<Claim<'_>> = rows
        .iter()
        .map(|row| Claim {
            external_id: &row.external_id,
            id: row.id,
        })
        .collect();
    let fresh = claim(&mut tx, target, kind, &claims).await?;
    let mut outcomes: Vec<Outcome> = fresh
        .iter()
        .map(|fresh| match fresh {
            true => Outcome::Moved,
            false => Outcome::AlreadyMoved,
        })
        .collect();
    let ours = || (0..rows.len()).filter(|place| fresh[*place]);
    let mut staged: Vec<(usize, &Found)> = Vec::with_capacity(rows.len());
    for place in ours() {
        match threads.get(&rows[place].thread) {
            Some(found) => staged.push((place, found)),
            None => outcomes[place] = Outcome::NoConversation,
        }
    }
    let mut left: Vec<usize> = Vec::new();
    if !staged.is_empty() {
        stage(
            &mut tx,
            staged
                .iter()
                .map(|(place, found)| (&rows[*place], rows[*place].id, *found)),
        )
        .await?;
        let mut inserted: HashSet<Uuid> = insert(&mut tx, org).await?;
        // Two rows of one id: the first has it.
        left = staged
            .iter()
            .map(|(place, _)| *place)
            .filter(|place| !inserted.remove(&rows[*place].id))
            .collect();
    }
    if !left.is_empty() {
        let known = known_provider_ids(
            &mut tx,
            org,
            left.iter().filter_map(|place| {
                let channel = threads.get(&rows[*place].thread)?.channel_id;
                Some((channel, rows[*place].provider_message_id.as_deref()?))
            }),
        )
        .await?;
        let found = |place: usize| threads.get(&rows[place].thread);
        let (in_log, id_taken): (Vec<usize>, Vec<usize>) = left.into_iter().partition(|place| {
            let row = &rows[*place];
            matches!((found(*place), &row.provider_message_id), (Some(found), Some(id))
                    if known.contains(&(found.channel_id, id.clone())))
        });
        for place in in_log {
            outcomes[place] = Outcome::InTheLog;
        }
        sqlx::query("DELETE FROM import_messages")
            .execute(&mut *tx)
            .await?;
        stage(
            &mut tx,
            id_taken
                .iter()
                .filter_map(|place| Some((&rows[*place], rows[*place].spare_id, found(*place)?))),
        )
        .await?;
        let inserted = insert(&mut tx, org).await?;
        let mut moved = Vec::new();
        for place in id_taken {
            if inserted.contains(&rows[place].spare_id) {
                moved.push(&rows[place]);
            } else {
                outcomes[place] = Outcome::InTheLog;
            }
        }
        let names: Vec<&str> = moved.iter().map(|row| row.external_id.as_str()).collect();
        let ids: Vec<Uuid> = moved.iter().map(|row| row.spare_id).collect();
        point_to(&mut tx, target, kind, &names, &ids).await?;
    }
    let not_ours: Vec<&str> = outcomes
        .iter()
        .zip(rows)
        .filter(|(outcome, _)| !matches!(outcome, Outcome::Moved | Outcome::AlreadyMoved))
        .map(|(_, row)| row.external_id.as_str())
        .collect();
    disclaim(&mut tx, target, kind, &not_ours).await?;
    tx.commit().await?;
    Ok(outcomes)
}

async fn insert(tx: &mut PgConnection, org: Uuid) -> Result<HashSet<Uuid>> {
    let ids: Vec<Uuid> = sqlx::query_scalar(INSERT).bind(org).fetch_all(tx).await?;
    Ok(ids.into_iter().collect())
}

/// Which of these provider ids the channels have.
pub(super) async fn known_provider_ids(
    connection: &mut PgConnection,
    org: Uuid,
    asked: impl Iterator<Item = (Uuid, &str)>,
) -> Result<HashSet<(Uuid, String)>> {
    let (channels, ids): (Vec<Uuid>, Vec<&str>) = asked.unzip();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT n.channel_id, n.provider_id FROM unnest($2::uuid[], $3::text[]) AS n(channel_id, provider_id)
         CROSS JOIN LATERAL (SELECT FROM messages m WHERE m.org_id = $1 AND m.channel_id = n.channel_id
             AND m.provider_message_id BETWEEN n.provider_id AND n.provider_id
             ORDER BY m.provider_message_id LIMIT 1) m",
    )
    .bind(org)
    .bind(&channels)
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Signature, flags and the length of the header's extension (PostgreSQL documentation, COPY, "Binary Format").
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_END: [u8; 2] = (-1_i16).to_be_bytes();
/// The network layer copes with larger pieces, only less well.
const PIECE: usize = 256 * 1024;

async fn stage<'a>(
    tx: &mut PgConnection,
    rows: impl Iterator<Item = (&'a NewMessage, Uuid, &'a Found)>,
) -> Result<()> {
    let mut copy = tx
        .copy_in_raw("COPY import_messages FROM STDIN (FORMAT binary)")
        .await?;
    let mut tuple = Tuples(Vec::with_capacity(PIECE + PIECE / 4));
    tuple.0.extend_from_slice(COPY_HEADER);
    for (row, id, found) in rows {
        tuple.row(row, id, found);
        if tuple.0.len() >= PIECE {
            copy.send(tuple.0.as_slice()).await?;
            tuple.0.clear();
        }
    }
    tuple.0.extend_from_slice(&COPY_END);
    copy.send(tuple.0.as_slice()).await?;
    copy.finish().await?;
    Ok(())
}

/// Rows in the binary format of `COPY`: each value as its length and Postgres's own bytes.
struct Tuples(Vec<u8>);

/// Postgres counts time from 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Tuples {
    fn row(&mut self, row: &NewMessage, id: Uuid, found: &Found) {
        self.0.extend_from_slice(&COLUMNS.to_be_bytes());
        self.bytes(id.as_bytes());
        self.bytes(found.conversation_id.as_bytes());
        self.bytes(found.channel_id.as_bytes());
        self.bytes(found.contact_id.as_bytes());
        self.bytes(if row.inbound { b"inbound" } else { b"outbound" });
        self.bytes(row.message_type.as_bytes());
        self.bytes(row.status.as_str().as_bytes());
        self.text(row.body.as_deref());
        self.json(row.content.as_deref());
        self.json(row.media.as_deref());
        self.text(found.address.as_deref());
        self.text(
            row.customer_name
                .as_deref()
                .or(found.customer_name.as_deref()),
        );
        self.text(row.provider_message_id.as_deref());
        self.option(row.sender_id.as_ref().map(|id| id.as_bytes().as_slice()));
        self.text(row.request_id.as_deref());
        self.bytes(row.trigger_type.as_deref().unwrap_or("manual").as_bytes());
        self.text(row.related_entity_id.as_deref());
        self.text(row.error_code.as_deref());
        self.text(row.error_message.as_deref());
        self.json(Some(&row.metadata));
        self.bytes(&row.retry_count.to_be_bytes());
        self.time(Some(row.created_at));
        self.time(Some(row.updated_at));
        self.time(row.scheduled_at);
        self.time(row.sent_at);
        self.time(row.delivered_at);
        self.time(row.read_at);
        self.time(row.failed_at);
    }

    fn bytes(&mut self, value: &[u8]) {
        // Postgres takes no value of 1 GB anyway.
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
    }

    fn option(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bytes(value),
            None => self.0.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }

    fn text(&mut self, value: Option<&str>) {
        self.option(value.map(str::as_bytes));
    }

    /// `jsonb`: a version byte, then the text.
    fn json(&mut self, value: Option<&str>) {
        match value {
            Some(text) => {
                let length = i32::try_from(text.len() + 1).unwrap_or(i32::MAX);
                self.0.extend_from_slice(&length.to_be_bytes());
                self.0.push(1);
                self.0.extend_from_slice(text.as_bytes());
            }
            None => self.option(None),
        }
    }

    fn time(&mut self, value: Option<DateTime<Utc>>) {
        let micros = value.map(|at| (at.timestamp_micros() - POSTGRES_EPOCH_MICROS).to_be_bytes());
        self.option(micros.as_ref().map(<[u8; 8]>::as_slice));
    }
}
