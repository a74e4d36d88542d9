//! What the servers on one database tell each other. Each message at most once, those of one node in order.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use crate::{Result, SystemTx};

/// A node that was not seen for so long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);
/// Messages are kept for so long; whoever did not read them by then was dead.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// A message of another node.
#[derive(Clone, Debug, FromRow)]
pub struct NodeMessage {
    pub node_id: Uuid,
    pub seq: i64,
    pub body: Vec<u8>,
    /// How long ago it was written.
    pub age_ms: i64,
}

/// Says that a node lives. `true` when nobody knew it, or it had been given up.
pub async fn beat(tx: &mut SystemTx, node: Uuid) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "INSERT INTO wasel.nodes (node_id) VALUES ($1)
         ON CONFLICT (node_id) DO UPDATE SET seen_at = now() RETURNING xmax = 0",
    )
    .bind(node)
    .fetch_one(&mut **tx)
    .await?)
}

/// Forgets dead nodes and what nobody needs any more; the other nodes that live.
pub async fn list_others(tx: &mut SystemTx, node: Uuid) -> Result<Vec<Uuid>> {
    sqlx::query("DELETE FROM wasel.nodes WHERE seen_at < now() - make_interval(secs => $1)")
        .bind(DEAD_AFTER.as_secs_f64())
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "DELETE FROM wasel.node_messages WHERE created_at < now() - make_interval(secs => $1)",
    )
    .bind(KEPT_FOR.as_secs_f64())
    .execute(&mut **tx)
    .await?;
    Ok(
        sqlx::query_scalar("SELECT node_id FROM wasel.nodes WHERE node_id <> $1")
            .bind(node)
            .fetch_all(&mut **tx)
            .await?,
    )
}

/// Takes a node that stops out of the list.
pub async fn delete(tx: &mut SystemTx, node: Uuid) -> Result<()> {
    sqlx::query("DELETE FROM wasel.nodes WHERE node_id = $1")
        .bind(node)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Writes a node's messages, numbered from `first`. Doing it again changes nothing.
pub async fn insert(tx: &mut SystemTx, node: Uuid, first: i64, bodies: &[Vec<u8>]) -> Result<()> {
    sqlx::query(
        "INSERT INTO wasel.node_messages (node_id, seq, body)
         SELECT $1, $2 + n - 1, body FROM unnest($3::bytea[]) WITH ORDINALITY AS m (body, n)
         ON CONFLICT DO NOTHING",
    )
    .bind(node)
    .bind(first)
    .bind(bodies)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The messages of these nodes after the numbers given with them, in each node's order, at most `limit` of each.
pub async fn list_after(
    tx: &mut SystemTx,
    nodes: &[Uuid],
    after: &[i64],
    limit: i64,
) -> Result<Vec<NodeMessage>> {
    Ok(sqlx::query_as(
        "SELECT m.node_id, m.seq, m.body,
             (extract(epoch FROM now() - m.created_at) * 1000)::bigint AS age_ms
         FROM unnest($1::uuid[], $2::bigint[]) AS heard (node_id, seq)
         CROSS JOIN LATERAL (
             SELECT * FROM wasel.node_messages m WHERE m.node_id = heard.node_id AND m.seq > heard.seq
             ORDER BY m.seq LIMIT $3) m
         ORDER BY m.node_id, m.seq",
    )
    .bind(nodes)
    .bind(after)
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?)
}
