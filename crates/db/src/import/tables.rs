//! The tables that were taken over with their columns: linked phones, templates, the notification queue.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::{Claim, Importer, Outcome, claim, disclaim};
use crate::Result;

/// A linked phone. Its keys are not moved: it has to be linked again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NewSession {
    #[serde(skip)]
    pub external_id: String,
    /// Used if it is free.
    pub id: Uuid,
    pub phone_number: Option<String>,
    pub whatsapp_id: Option<String>,
    pub display_name: Option<String>,
    pub last_connected_at: Option<DateTime<Utc>>,
    pub last_disconnected_at: Option<DateTime<Utc>>,
    /// What to do about it.
    pub connection_error: String,
    pub auto_reconnect: bool,
    pub enabled: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NewTemplate {
    #[serde(skip)]
    pub external_id: String,
    /// Used if it is free.
    pub id: Uuid,
    pub name: String,
    pub description: Option<String>,
    /// One of the five of the table.
    pub category: &'static str,
    pub message_template: String,
    /// A JSON list.
    pub variables: Value,
    /// `image` or `document`.
    pub media_type: Option<&'static str>,
    pub media_url: Option<String>,
    pub is_active: bool,
    pub usage_count: i64,
    pub last_used_at: Option<DateTime<Utc>>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NewQueued {
    #[serde(skip)]
    pub external_id: String,
    /// Used if it is free.
    pub id: Uuid,
    /// `whatsapp`, `email` or `sms`.
    pub notification_type: &'static str,
    pub recipient_id: Option<Uuid>,
    pub recipient_phone: Option<String>,
    pub recipient_email: Option<String>,
    /// The old one; replaced where that template got another id here.
    pub template_id: Option<Uuid>,
    pub message_data: Value,
    pub priority: i16,
    pub scheduled_for: DateTime<Utc>,
    /// A status of the table.
    pub status: &'static str,
    pub attempts: i32,
    pub max_attempts: i32,
    pub last_attempt_at: Option<DateTime<Utc>>,
    pub error_message: Option<String>,
    pub whatsapp_message_id: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub completed_at: Option<DateTime<Utc>>,
}

const SESSIONS: &str = "INSERT INTO whatsapp_sessions (org_id, id, status, phone_number, whatsapp_id, display_name,
        last_connected_at, last_disconnected_at, connection_error, auto_reconnect, enabled, created_at, updated_at)
    SELECT $1, n.id, 'disconnected', n.phone_number, n.whatsapp_id, n.display_name, n.last_connected_at,
        n.last_disconnected_at, n.connection_error, n.auto_reconnect, n.enabled, n.created_at, n.updated_at
    FROM jsonb_to_recordset($2) AS n(id uuid, phone_number text, whatsapp_id text, display_name text,
        last_connected_at timestamptz, last_disconnected_at timestamptz, connection_error text, auto_reconnect boolean,
        enabled boolean, created_at timestamptz, updated_at timestamptz)";

const TEMPLATES: &str = "INSERT INTO templates (org_id, id, name, description, category, message_template, variables,
        media_type, media_url, is_active, usage_count, last_used_at, created_by, created_at, updated_at)
    SELECT $1, n.id, n.name, n.description, n.category, n.message_template, n.variables, n.media_type, n.media_url,
        n.is_active, n.usage_count, n.last_used_at, n.created_by, n.created_at, n.updated_at
    FROM jsonb_to_recordset($2) AS n(id uuid, name text, description text, category text, message_template text,
        variables jsonb, media_type text, media_url text, is_active boolean, usage_count bigint,
        last_used_at timestamptz, created_by uuid, created_at timestamptz, updated_at timestamptz)";

const QUEUE: &str = "INSERT INTO notification_queue (org_id, id, notification_type, recipient_id, recipient_phone,
        recipient_email, template_id, message_data, priority, scheduled_for, status, attempts, max_attempts,
        last_attempt_at, error_message, whatsapp_message_id, created_at, updated_at, completed_at)
    SELECT $1, n.id, n.notification_type, n.recipient_id, n.recipient_phone, n.recipient_email,
        coalesce((SELECT r.row_id FROM external_refs r WHERE r.org_id = $1 AND r.source = $3
            AND r.kind = 'whatsapp_templates' AND r.external_id = n.template_id::text), n.template_id),
        n.message_data, n.priority, n.scheduled_for, n.status, n.attempts, n.max_attempts, n.last_attempt_at,
        n.error_message, n.whatsapp_message_id, n.created_at, n.updated_at, n.completed_at
    FROM jsonb_to_recordset($2) AS n(id uuid, notification_type text, recipient_id uuid, recipient_phone text,
        recipient_email text, template_id uuid, message_data jsonb, priority smallint, scheduled_for timestamptz,
        status text, attempts int, max_attempts int, last_attempt_at timestamptz, error_message text,
        whatsapp_message_id uuid, created_at timestamptz, updated_at timestamptz, completed_at timestamptz)";

/// What the three have in common.
trait Row: Clone + Serialize {
    const TABLE: &'static str;
    const INSERT: &'static str;
    fn external_id(&self) -> &str;
    fn id(&mut self) -> &mut Uuid;
    /// Where names are unique in the tenant.
    fn name(&self) -> Option<&str> {
        None
    }
}

impl Row for NewSession {
    const TABLE: &'static str = "whatsapp_sessions";
    const INSERT: &'static str = SESSIONS;
    fn external_id(&self) -> &str {
        &self.external_id
    }
    fn id(&mut self) -> &mut Uuid {
        &mut self.id
    }
}

impl Row for NewTemplate {
    const TABLE: &'static str = "templates";
    const INSERT: &'static str = TEMPLATES;
    fn external_id(&self) -> &str {
        &self.external_id
    }
    fn id(&mut self) -> &mut Uuid {
        &mut self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl Row for NewQueued {
    const TABLE: &'static str = "notification_queue";
    const INSERT: &'static str = QUEUE;
    fn external_id(&self) -> &str {
        &self.external_id
    }
    fn id(&mut self) -> &mut Uuid {
        &mut self.id
    }
}

impl Importer {
    pub async fn write_sessions(
        &mut self,
        kind: &str,
        rows: &[NewSession],
    ) -> Result<Vec<Outcome>> {
        self.write_rows(kind, rows).await
    }

    pub async fn write_templates(
        &mut self,
        kind: &str,
        rows: &[NewTemplate],
    ) -> Result<Vec<Outcome>> {
        self.write_rows(kind, rows).await
    }

    /// Rows that are `pending` will be sent by whoever works the queue off.
    pub async fn write_queue(&mut self, kind: &str, rows: &[NewQueued]) -> Result<Vec<Outcome>> {
        self.write_rows(kind, rows).await
    }

    async fn write_rows<T: Row>(&mut self, kind: &str, rows: &[T]) -> Result<Vec<Outcome>> {
        if let Some(seen) = &mut self.seen {
            let names: Option<Vec<(&str, &str)>> = rows
                .iter()
                .map(|row| Some((row.external_id(), row.name()?)))
                .collect();
            let ids: Vec<&str> = rows.iter().map(Row::external_id).collect();
            return match names {
                Some(names) => {
                    seen.templates(&mut self.connection, &self.target, kind, &names)
                        .await
                }
                None => {
                    seen.rows(&mut self.connection, &self.target, kind, &ids)
                        .await
                }
            };
        }
        let mut attempt = 0;
        loop {
            match self.try_write_rows(kind, rows).await {
                Err(error) if self.may_retry(&error, attempt) => attempt += 1,
                result => return result,
            }
        }
    }

    async fn try_write_rows<T: Row>(&mut self, kind: &str, rows: &[T]) -> Result<Vec<Outcome>> {
        let org = self.target.org;
        let mut rows = rows.to_vec();
        let mut tx = Self::transaction(&mut self.connection).await?;
        let ids: Vec<Uuid> = rows.iter_mut().map(|row| *row.id()).collect();
        let mut taken: HashSet<Uuid> = sqlx::query_scalar::<_, Uuid>(AssertSqlSafe(format!(
            "SELECT id FROM {} WHERE org_id = $1 AND id = ANY ($2)",
            T::TABLE
        )))
        .bind(org)
        .bind(&ids)
        .fetch_all(&mut *tx)
        .await?
        .into_iter()
        .collect();
        for row in &mut rows {
            // Taken, or by an earlier row of this batch.
            if !taken.insert(*row.id()) {
                *row.id() = Uuid::now_v7();
            }
        }
        let ids: Vec<Uuid> = rows.iter_mut().map(|row| *row.id()).collect();
        let claims: Vec<Claim<'_>> = rows
            .iter()
            .zip(ids)
            .map(|(row, id)| Claim {
                external_id: row.external_id(),
                id,
            })
            .collect();
        let fresh = claim(&mut tx, &self.target, kind, &claims).await?;
        let names: Vec<&str> = rows.iter().filter_map(Row::name).collect();
        let mut taken = taken_names(&mut tx, org, &names).await?;
        let (mut outcomes, mut ours, mut not_ours) = (Vec::new(), Vec::new(), Vec::new());
        for (row, fresh) in rows.iter().zip(fresh) {
            if !fresh {
                outcomes.push(Outcome::AlreadyMoved);
            } else if row
                .name()
                .is_some_and(|name| !taken.insert(name.to_owned()))
            {
                not_ours.push(row.external_id());
                outcomes.push(Outcome::NameTaken);
            } else {
                ours.push(row);
                outcomes.push(Outcome::Moved);
            }
        }
        sqlx::query(T::INSERT)
            .bind(org)
            .bind(sqlx::types::Json(&ours))
            .bind(&self.target.source)
            .execute(&mut *tx)
            .await?;
        disclaim(&mut tx, &self.target, kind, &not_ours).await?;
        tx.commit().await?;
        Ok(outcomes)
    }
}

/// Which of these template names the tenant uses.
pub(super) async fn taken_names(
    connection: &mut PgConnection,
    org: Uuid,
    names: &[&str],
) -> Result<HashSet<String>> {
    if names.is_empty() {
        return Ok(HashSet::new());
    }
    let taken: Vec<String> =
        sqlx::query_scalar("SELECT name FROM templates WHERE org_id = $1 AND name = ANY ($2)")
            .bind(org)
            .bind(names)
            .fetch_all(connection)
            .await?;
    Ok(taken.into_iter().collect())
}
