//! What people are told in the inbox: failures, and whatever other programs want them to know.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

use crate::{Result, SystemTx};

#[derive(Clone, Debug, FromRow)]
pub struct Notification {
    pub id: Uuid,
    /// Whom it is for; `None`: the owners and admins.
    pub user_id: Option<Uuid>,
    pub kind: String,
    /// `info`, `warning`, `error`.
    pub level: String,
    pub title: String,
    pub body: Option<String>,
    pub advice: Option<String>,
    pub message_id: Option<Uuid>,
    pub conversation_id: Option<Uuid>,
    pub channel_id: Option<Uuid>,
    pub error_code: Option<String>,
    pub data: Value,
    pub read_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

#[derive(Clone, Debug)]
pub struct NewNotification {
    /// `None`: for the owners and admins.
    pub user_id: Option<Uuid>,
    pub kind: String,
    /// `info`, `warning`, `error`.
    pub level: String,
    pub title: String,
    pub body: Option<String>,
    pub advice: Option<String>,
    pub data: Value,
}

/// Whose notifications are meant: those for one person, with those for the owners and admins if they are one.
#[derive(Clone, Copy, Debug)]
pub struct Mine<'a> {
    /// `None` for the service-role key.
    pub user_id: Option<UserId>,
    pub is_manager: bool,
    /// The channels an agent is limited to, as the read policy has it; `None` means all.
    pub channels: Option<&'a [Uuid]>,
}

impl Mine<'_> {
    fn push(self, query: &mut QueryBuilder<Postgres>) {
        query
            .push(" AND (user_id = ")
            .push_bind(self.user_id.map(|user| user.0));
        if self.is_manager {
            query.push(" OR user_id IS NULL");
        }
        query.push(")");
        if let Some(channels) = self.channels {
            query
                .push(" AND (channel_id IS NULL OR channel_id = ANY (")
                .push_bind(channels.to_vec())
                .push("))");
        }
    }
}

/// Which notifications a list shows. All conditions hold at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// `None`: everybody's.
    pub mine: Option<Mine<'a>>,
    pub unread: bool,
    pub kind: Option<&'a str>,
}

impl Filter<'_> {
    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(mine) = self.mine {
            mine.push(query);
        }
        if self.unread {
            query.push(" AND read_at IS NULL");
        }
        if let Some(kind) = self.kind {
            query.push(" AND kind = ").push_bind(kind.to_owned());
        }
    }
}

/// Newest first, after `before` (the last row of the page before: its time and id).
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    filter: &Filter<'_>,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Notification>> {
    let mut query = QueryBuilder::new("SELECT * FROM notifications WHERE org_id = ");
    query.push_bind(org.0);
    filter.push(&mut query);
    if let Some((at, id)) = before {
        query.push(" AND (created_at, id) < (").push_bind(at);
        query.push(", ").push_bind(id).push(")");
    }
    query
        .push(" ORDER BY created_at DESC, id DESC LIMIT ")
        .push_bind(limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}

/// How many the filter lets through.
pub async fn count(connection: &mut PgConnection, org: OrgId, filter: &Filter<'_>) -> Result<i64> {
    let mut query = QueryBuilder::new("SELECT count(*) FROM notifications WHERE org_id = ");
    query.push_bind(org.0);
    filter.push(&mut query);
    Ok(query.build_query_scalar().fetch_one(connection).await?)
}

pub async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    new: &NewNotification,
) -> Result<Notification> {
    Ok(sqlx::query_as(
        "INSERT INTO notifications (org_id, id, user_id, kind, level, title, body, advice, data)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *",
    )
    .bind(org.0)
    .bind(Uuid::now_v7())
    .bind(new.user_id)
    .bind(&new.kind)
    .bind(&new.level)
    .bind(&new.title)
    .bind(&new.body)
    .bind(&new.advice)
    .bind(&new.data)
    .fetch_one(connection)
    .await?)
}

/// Marks these as read, or all (`None`), as far as they are the person's. Returns how many were unread. As the system:
/// the write policy is that of owners and admins, and reading one's own is everybody's right.
pub async fn update_read(
    tx: &mut SystemTx,
    org: OrgId,
    mine: Mine<'_>,
    ids: Option<&[Uuid]>,
) -> Result<u64> {
    let mut query = QueryBuilder::new(
        "UPDATE notifications SET read_at = now() WHERE read_at IS NULL AND org_id = ",
    );
    query.push_bind(org.0);
    mine.push(&mut query);
    if let Some(ids) = ids {
        query
            .push(" AND id = ANY (")
            .push_bind(ids.to_vec())
            .push(")");
    }
    Ok(query.build().execute(&mut **tx).await?.rows_affected())
}

/// Whether the person had such a notification. As the system, for the same reason as [`update_read`].
pub async fn delete(tx: &mut SystemTx, org: OrgId, mine: Mine<'_>, id: Uuid) -> Result<bool> {
    let mut query = QueryBuilder::new("DELETE FROM notifications WHERE org_id = ");
    query.push_bind(org.0);
    query.push(" AND id = ").push_bind(id);
    mine.push(&mut query);
    Ok(query.build().execute(&mut **tx).await?.rows_affected() > 0)
}
