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
    /// `None` for one that is of no use any more.
    pub body: Option<Vec<u8>>,
    /// Place in its node's part of the page, from 1.
    pub number: i64,
    /// Length of the bodies of its node's part of the page up to here.
    pub bytes: i64,
}

/// How much is read of each node at once.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    pub messages: i64,
    /// Exceeded by the last message at most.
    pub bytes: i64,
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

/// A page of the messages of each of these nodes after the numbers given with them, in each node's order. Messages that
/// go on after four bytes with the `stale` prefix and are older than its time come without their bodies.
pub async fn list_after(
    tx: &mut SystemTx,
    nodes: &[Uuid],
    after: &[i64],
    page: PageSize,
    stale: (&[u8], Duration),
) -> Result<Vec<NodeMessage>> {
    let (prefix, age) = stale;
    Ok(sqlx::query_as(
        "SELECT page.node_id, page.seq, page.number, page.bytes,
             CASE WHEN page.is_of_use THEN (SELECT m.body FROM wasel.node_messages m
                 WHERE m.node_id = page.node_id AND m.seq = page.seq) END AS body
         FROM unnest($1::uuid[], $2::bigint[]) AS heard (node_id, seq)
         CROSS JOIN LATERAL (
             SELECT sized.node_id, sized.seq, sized.is_of_use, sized.length,
                 row_number() OVER (ORDER BY sized.seq) AS number,
                 (sum(sized.length) OVER (ORDER BY sized.seq))::bigint AS bytes
             FROM (
                 SELECT m.node_id, m.seq, judged.is_of_use,
                     CASE WHEN judged.is_of_use THEN octet_length(m.body) ELSE 0 END AS length
                 FROM wasel.node_messages m
                 CROSS JOIN LATERAL (
                     SELECT m.created_at > now() - make_interval(secs => $6)
                         OR substring(m.body FROM 5 FOR octet_length($5::bytea)) <> $5::bytea AS is_of_use
                 ) judged
                 WHERE m.node_id = heard.node_id AND m.seq > heard.seq
                 ORDER BY m.seq LIMIT $3) sized
         ) page
         WHERE page.bytes - page.length < $4
         ORDER BY page.node_id, page.seq",
    )
    .bind(nodes)
    .bind(after)
    .bind(page.messages)
    .bind(page.bytes)
    .bind(prefix)
    .bind(age.as_secs_f64())
    .fetch_all(&mut **tx)
    .await?)
}
