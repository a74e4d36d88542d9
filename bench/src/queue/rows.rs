//! Customers and messages made inside the database, and the tenants they belong to.

use anyhow::Result;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::provider::PREFIX;

/// The first customer's number, without its country code.
const FIRST_PHONE: u64 = 1_000_000_000;

/// An organisation with its one channel.
#[derive(Clone, Copy, Debug)]
pub struct Tenant {
    pub org_id: Uuid,
    pub channel_id: Uuid,
    /// What the provider knows the channel by.
    pub phone_number_id: u64,
}

/// Messages to make: `count` of them, evenly among the tenants, numbered from `first`.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub first: u64,
    pub count: u64,
    /// Each customer gets so many of them, in turns.
    pub each: u64,
}

/// All tenants, in the order in which they were declared.
pub async fn tenants(pool: &PgPool) -> Result<Vec<Tenant>> {
    let rows: Vec<(Uuid, Uuid, i64)> = sqlx::query_as(
        "SELECT org_id, id, (settings ->> 'phone_number_id')::bigint AS number FROM channels ORDER BY number",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(org_id, channel_id, number)| Tenant {
            org_id,
            channel_id,
            phone_number_id: number as u64,
        })
        .collect())
}

/// Lets these channels send so much a second.
pub async fn set_rates(pool: &PgPool, tenants: &[Tenant], per_second: u32) -> Result<()> {
    let channels: Vec<Uuid> = tenants.iter().map(|tenant| tenant.channel_id).collect();
    sqlx::query(
        "UPDATE channels SET limits = jsonb_build_object('messages_per_second', $2::int) WHERE id = ANY ($1)",
    )
    .bind(channels)
    .bind(per_second as i32)
    .execute(pool)
    .await?;
    Ok(())
}

/// Makes customers and queued messages with their first events, without triggers.
/// Ids rise with the numbers, as those of the server do.
///
/// The messages are in the outbox once the returned transaction is committed: nothing can leave before.
pub async fn make(
    pool: &PgPool,
    tenants: &[Tenant],
    batch: Batch,
) -> Result<Transaction<'static, Postgres>> {
    let mut tx = make_customers(pool, tenants, batch).await?;
    sqlx::query(
        "INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, body,
             content, address)
         SELECT org_id, id, customer_id, channel_id, customer_id, 'outbound', 'text', 'queued', text,
             jsonb_build_object('type', 'text', 'body', text, 'preview_url', false), phone
         FROM made, LATERAL (SELECT $1 || n || ': your order is ready; reply with the time that suits you.' AS text) t
         ORDER BY org_id, n",
    )
    .bind(PREFIX)
    .execute(&mut *tx)
    .await?;
    for statement in [
        "INSERT INTO message_events (org_id, id, message_id, event, at) SELECT org_id, id, id, 'queued', now() FROM made
         ORDER BY org_id, n",
        // One after the other, as they would have been asked for.
        "INSERT INTO outbox (org_id, message_id, channel_id, conversation_id, created_at, due_at)
         SELECT org_id, id, channel_id, customer_id, now() + n * interval '1 microsecond', NULL FROM made ORDER BY org_id, n",
        "ANALYZE contacts, contact_identities, conversations, messages, message_events, outbox",
    ] {
        sqlx::query(statement).execute(&mut *tx).await?;
    }
    Ok(tx)
}

/// Makes the customers of these messages, with conversations in which the window is open, in the transaction returned.
pub async fn make_customers(
    pool: &PgPool,
    tenants: &[Tenant],
    batch: Batch,
) -> Result<Transaction<'static, Postgres>> {
    let mut tx = pool.begin().await?;
    sqlx::query("SET LOCAL session_replication_role = replica")
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "CREATE TEMP TABLE made ON COMMIT DROP AS
         SELECT t.org_id, t.channel_id, n, ('0192f000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id,
             ('0192f000-0000-7000-8000-' || lpad(to_hex(customer), 12, '0'))::uuid AS customer_id, customer, n = customer AS is_first,
             '+20' || ($6 + customer)::text AS phone
         FROM (SELECT n, $3::bigint + (n - $3::bigint) % ($4::bigint / $5::bigint / cardinality($1::uuid[]) * cardinality($1)) AS customer
               FROM generate_series($3::bigint, $3::bigint + $4::bigint - 1) n) n
         JOIN unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS t(org_id, channel_id, place)
             ON t.place = 1 + (n.n - $3) % cardinality($1)",
    )
    .bind(tenants.iter().map(|tenant| tenant.org_id).collect::<Vec<_>>())
    .bind(
        tenants
            .iter()
            .map(|tenant| tenant.channel_id)
            .collect::<Vec<_>>(),
    )
    .bind(batch.first as i64)
    .bind(batch.count as i64)
    .bind(batch.each as i64)
    .bind(FIRST_PHONE as i64)
    .execute(&mut *tx)
    .await?;
    for statement in [
        "INSERT INTO contacts (org_id, id, name, phone_number)
         SELECT org_id, id, 'Customer ' || n, phone FROM made WHERE is_first ORDER BY org_id, n",
        "INSERT INTO contact_identities (org_id, kind, value, contact_id)
         SELECT org_id, 'phone', phone, id FROM made WHERE is_first ORDER BY org_id, n",
        "INSERT INTO conversations (org_id, id, channel_id, contact_id, phone_number, last_message_at, last_inbound_at)
         SELECT org_id, id, channel_id, id, phone, now(), now() FROM made WHERE is_first ORDER BY org_id, n",
    ] {
        sqlx::query(statement).execute(&mut *tx).await?;
    }
    Ok(tx)
}

/// The number of the customer who gets the message with this number, where each gets one.
pub fn phone(number: u64) -> String {
    format!("+20{}", FIRST_PHONE + number)
}

/// How many of these messages the provider took, as the database has it.
pub async fn count_accepted(pool: &PgPool, batch: Batch) -> Result<u64> {
    let id = |number: u64| Uuid::from_u128(0x0192_f000_0000_7000_8000 << 48 | u128::from(number));
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM messages WHERE id >= $1 AND id < $2 AND provider_message_id IS NOT NULL",
    )
    .bind(id(batch.first))
    .bind(id(batch.first + batch.count))
    .fetch_one(pool)
    .await?;
    Ok(count as u64)
}

/// Whether nothing of these tenants is left to send.
pub async fn is_drained(pool: &PgPool, tenants: &[Tenant]) -> Result<bool> {
    let orgs: Vec<Uuid> = tenants.iter().map(|tenant| tenant.org_id).collect();
    Ok(sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT FROM unnest($1::uuid[]) t(id) CROSS JOIN LATERAL (
             SELECT FROM outbox o WHERE o.org_id = t.id LIMIT 1) o)",
    )
    .bind(orgs)
    .fetch_one(pool)
    .await?)
}
