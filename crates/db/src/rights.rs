//! Whether people with an open connection still have the rights with which they opened it.

use uuid::Uuid;

use crate::{Result, SystemTx};

/// A mark of each person's rights in a tenant, in the order asked: equal marks mean that nothing changed.
pub async fn marks(tx: &mut SystemTx, orgs: &[Uuid], users: &[Uuid]) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT md5(concat(
             (SELECT string_agg(p.org_id::text || p.role, ',' ORDER BY p.org_id) FROM profiles p WHERE p.id = a.id), '/',
             (SELECT string_agg(m.channel_id::text, ',' ORDER BY m.channel_id) FROM channel_members m
              WHERE m.org_id = a.org_id AND m.user_id = a.id)))
         FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS a (org_id, id, n) ORDER BY a.n",
    )
    .bind(orgs)
    .bind(users)
    .fetch_all(&mut **tx)
    .await?)
}

/// The sessions of the built-in identity that ended within the last `seconds`, each with its person.
pub async fn list_ended_sessions(tx: &mut SystemTx, seconds: i32) -> Result<Vec<(Uuid, Uuid)>> {
    Ok(sqlx::query_as(
        "SELECT id, user_id FROM wasel.auth_sessions WHERE ended_at > now() - make_interval(secs => $1)",
    )
    .bind(f64::from(seconds))
    .fetch_all(&mut **tx)
    .await?)
}

/// Whether that session of the built-in identity has ended; sessions of other identity providers are unknown here.
pub async fn has_ended(tx: &mut SystemTx, session: Uuid) -> Result<bool> {
    let ended: Option<bool> =
        sqlx::query_scalar("SELECT ended_at IS NOT NULL FROM wasel.auth_sessions WHERE id = $1")
            .bind(session)
            .fetch_optional(&mut **tx)
            .await?;
    Ok(ended.unwrap_or(false))
}
