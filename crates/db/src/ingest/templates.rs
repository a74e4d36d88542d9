//! News about the templates a provider keeps, applied to what we know of them.

use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::event::{TemplateChange, TemplateEvent};
use wasel_domain::provider_template::with_new_texts;

use super::batch::{Item, known_time};
use super::{clean, clean_json};
use crate::{Result, ledger};

#[derive(FromRow)]
struct Known {
    id: Uuid,
    channel_id: Uuid,
    provider_id: Option<String>,
    components: Option<Json<Vec<Value>>>,
    /// The news are older than what is known.
    is_late: bool,
}

/// Returns whether anything changed. The same news for another number of the account then change nothing more.
pub(super) async fn store(
    connection: &mut PgConnection,
    item: &Item<'_>,
    event: &TemplateEvent,
) -> Result<bool> {
    let at = known_time(event.at, item.received_at);
    let (name, language) = (clean(&event.name), clean(&event.language));
    let provider_id = event.provider_id.as_deref().map(clean);
    // The webhook's clock has whole seconds.
    let known: Vec<Known> = sqlx::query_as(
        "SELECT id, channel_id, provider_id, components, $6 < date_trunc('second', status_at) AS is_late
         FROM provider_templates
         WHERE org_id = $1 AND (provider_id = $3 OR (channel_id = $2 AND name = $4 AND language = $5))
         ORDER BY id FOR UPDATE",
    )
    .bind(item.org_id)
    .bind(item.channel_id)
    .bind(provider_id.as_deref())
    .bind(&*name)
    .bind(&*language)
    .bind(at)
    .fetch_all(&mut *connection)
    .await?;
    let mut changed = false;
    for row in &known {
        // Its name may have gone to a new template: the end of the old one is not the new one's.
        let is_same = row.provider_id.is_none()
            || provider_id.is_none()
            || row.provider_id.as_deref() == provider_id.as_deref();
        if is_same {
            changed |= apply(connection, item, row, event, at).await?;
        } else if !row.is_late && !is_end(&event.change) {
            take_over(connection, item, row, provider_id.as_deref()).await?;
            apply(connection, item, row, event, at).await?;
            changed = true;
        }
    }
    let here = known.iter().any(|row| row.channel_id == item.channel_id);
    let mut stored = changed;
    if !here && let Some(status) = first_status(&event.change) {
        let id: Option<Uuid> = sqlx::query_scalar(
            "INSERT INTO provider_templates (org_id, channel_id, provider_id, name, language, status, status_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING id",
        )
        .bind(item.org_id)
        .bind(item.channel_id)
        .bind(provider_id.as_deref())
        .bind(&*name)
        .bind(&*language)
        .bind(clean(status))
        .bind(at)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(id) = id {
            let row = Known {
                id,
                channel_id: item.channel_id,
                provider_id: None,
                components: None,
                is_late: false,
            };
            apply(connection, item, &row, event, at).await?;
            stored = true;
            // Otherwise known from another number of the account, and told already.
            changed |= known.is_empty();
        }
    }
    if changed {
        ledger::insert_notice(
            connection,
            item.org_id,
            item.channel_id,
            &event.topic,
            &event.detail,
        )
        .await?;
        notify(connection, item, event).await?;
    }
    Ok(stored)
}

/// It went away: nothing to know it by from now on.
fn is_end(change: &TemplateChange) -> bool {
    matches!(change, TemplateChange::Status { status: Some(status), .. }
        if status == "DELETED" || status == "PENDING_DELETION")
}

/// The status of a template that is new to us. One we hear of by anything else is found by the next sync.
fn first_status(change: &TemplateChange) -> Option<&str> {
    match change {
        TemplateChange::Status {
            status: Some(status),
            ..
        } if !is_end(change) => Some(status),
        _ => None,
    }
}

/// The name belongs to another template now, of which nothing else is known yet.
async fn take_over(
    connection: &mut PgConnection,
    item: &Item<'_>,
    row: &Known,
    provider_id: Option<&str>,
) -> Result<()> {
    sqlx::query(
        "UPDATE provider_templates SET provider_id = $3, components = NULL, quality = NULL, announced_category = NULL
         WHERE org_id = $1 AND id = $2",
    )
    .bind(item.org_id)
    .bind(row.id)
    .bind(provider_id)
    .execute(connection)
    .await?;
    Ok(())
}

async fn apply(
    connection: &mut PgConnection,
    item: &Item<'_>,
    row: &Known,
    event: &TemplateEvent,
    at: chrono::DateTime<chrono::Utc>,
) -> Result<bool> {
    let query = match &event.change {
        TemplateChange::Status { .. } if row.is_late => return Ok(false),
        TemplateChange::Status {
            status,
            category,
            reason,
            alarming,
        } => sqlx::query(
            "UPDATE provider_templates SET status = coalesce($3, status), category = coalesce($4, category),
                 rejected_reason = CASE WHEN $6 THEN $5 END, provider_id = coalesce(provider_id, $8), status_at = $7
             WHERE org_id = $1 AND id = $2 AND (status, category, rejected_reason) IS DISTINCT FROM
                 (coalesce($3, status), coalesce($4, category), CASE WHEN $6 THEN $5 END)",
        )
        .bind(item.org_id)
        .bind(row.id)
        .bind(status.as_deref().map(clean))
        .bind(category.as_deref().map(clean))
        .bind(reason.as_deref().map(clean))
        .bind(*alarming)
        .bind(at)
        .bind(event.provider_id.as_deref().map(clean)),
        TemplateChange::Quality(quality) => sqlx::query(
            "UPDATE provider_templates SET quality = $3 WHERE org_id = $1 AND id = $2 AND quality IS DISTINCT FROM $3",
        )
        .bind(item.org_id)
        .bind(row.id)
        .bind(clean(quality)),
        TemplateChange::Category { now, announced } => sqlx::query(
            "UPDATE provider_templates SET category = coalesce($3, category), announced_category = $4
             WHERE org_id = $1 AND id = $2
               AND (category, announced_category) IS DISTINCT FROM (coalesce($3, category), $4)",
        )
        .bind(item.org_id)
        .bind(row.id)
        .bind(now.as_deref().map(clean))
        .bind(announced.as_deref().map(clean)),
        TemplateChange::Texts(components) => {
            let old = row.components.as_ref().map_or(&[][..], |json| &json.0);
            let merged = Value::Array(with_new_texts(old, components));
            sqlx::query(
                "UPDATE provider_templates SET components = $3::jsonb
                 WHERE org_id = $1 AND id = $2 AND components IS DISTINCT FROM $3::jsonb",
            )
            .bind(item.org_id)
            .bind(row.id)
            .bind(clean_json(&merged))
        }
    };
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

/// Tells the owners and admins when a template stopped being sent, or will soon.
async fn notify(
    connection: &mut PgConnection,
    item: &Item<'_>,
    event: &TemplateEvent,
) -> Result<()> {
    let TemplateChange::Status {
        status,
        reason,
        alarming: true,
        ..
    } = &event.change
    else {
        return Ok(());
    };
    let locale: Option<String> =
        sqlx::query_scalar("SELECT locale FROM organizations WHERE id = $1")
            .bind(item.org_id)
            .fetch_optional(&mut *connection)
            .await?;
    let is_arabic = locale.is_some_and(|locale| locale.starts_with("ar"));
    let (title, advice) = words(status.as_deref(), &event.name, &event.language, is_arabic);
    let data = json!({ "name": event.name, "language": event.language, "status": status, "reason": reason,
        "provider_id": event.provider_id });
    sqlx::query(
        "INSERT INTO notifications (org_id, id, kind, level, title, body, advice, channel_id, data)
         VALUES ($1, $2, 'template_status', $3, $4, $5, $6, $7, $8::jsonb)",
    )
    .bind(item.org_id)
    .bind(Uuid::now_v7())
    .bind(if status.is_some() { "error" } else { "warning" })
    .bind(clean(&title))
    .bind(reason.as_deref().map(clean))
    .bind(advice)
    .bind(item.channel_id)
    .bind(clean_json(&data))
    .execute(connection)
    .await?;
    Ok(())
}

/// Title and advice.
fn words(
    status: Option<&str>,
    name: &str,
    language: &str,
    is_arabic: bool,
) -> (String, &'static str) {
    let (arabic, english, arabic_advice, advice) = match status {
        Some("REJECTED") => (
            "رفض واتساب القالب",
            "WhatsApp rejected the template",
            "عدّل النص وأرسله للمراجعة من جديد.",
            "Change the text and hand it in again.",
        ),
        Some("PAUSED") => (
            "أوقف واتساب القالب مؤقتاً",
            "WhatsApp paused the template",
            "شكا منه عملاء كثيرون: انتظر أو أرسل قالباً آخر.",
            "Too many customers complained about it: wait, or send another one.",
        ),
        Some(_) => (
            "عطّل واتساب القالب",
            "WhatsApp disabled the template",
            "استعمل قالباً آخر.",
            "Use another template.",
        ),
        None => (
            "سيعطّل واتساب القالب قريباً",
            "WhatsApp will soon disable the template",
            "حسّن النص أو أرسله إلى عملاء أقل.",
            "Improve the text, or send it to fewer customers.",
        ),
    };
    if is_arabic {
        (format!("{arabic} {name} ({language})"), arabic_advice)
    } else {
        (format!("{english} {name} ({language})"), advice)
    }
}
