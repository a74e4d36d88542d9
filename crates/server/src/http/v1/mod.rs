//! Our own API. Lists answer `{data, next_cursor}`, errors `{error: {code, message, field?}}`.

pub mod automations;
pub mod bulk_jobs;
pub mod changes;
pub mod channels;
pub mod contacts;
pub mod conversations;
mod cursor;
pub mod invitations;
pub mod media;
pub mod messages;
pub mod notification_queue;
pub mod notifications;
pub mod provider_templates;
pub mod reports;
pub mod scheduled_messages;
pub mod sessions;
pub mod settings;
pub mod template_mappings;
pub mod templates;
pub mod webhook_events;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

/// One page of a list.
#[derive(Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Pass it as `cursor` to get the next page; `null` at the end.
    pub next_cursor: Option<String>,
}

/// A page is this long unless asked otherwise, and never longer than [`MAX_LIMIT`].
pub const DEFAULT_LIMIT: i64 = 50;
pub const MAX_LIMIT: i64 = 200;

/// Rows to ask for: one more than the page holds tells whether there is a next one.
pub(crate) fn page_of<R, T>(
    mut rows: Vec<R>,
    limit: i64,
    cursor: impl Fn(&R) -> String,
    view: impl FnMut(R) -> T,
) -> Page<T> {
    let limit = limit as usize;
    let next_cursor = (rows.len() > limit).then(|| {
        rows.truncate(limit);
        rows.last().map(&cursor)
    });
    Page {
        next_cursor: next_cursor.flatten(),
        data: rows.into_iter().map(view).collect(),
    }
}

/// A requested page length.
pub(crate) fn limit_of(limit: Option<i64>) -> Result<i64, crate::http::error::ApiError> {
    match limit {
        None => Ok(DEFAULT_LIMIT),
        Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
        Some(_) => Err(crate::http::error::ApiError::invalid(
            "limit",
            format!("must be from 1 to {MAX_LIMIT}"),
        )),
    }
}

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(messages::router())
        .merge(conversations::router())
        .merge(channels::router())
        .merge(contacts::router())
        .merge(changes::router())
        .merge(media::router())
        .merge(templates::router())
        .merge(provider_templates::router())
        .merge(template_mappings::router())
        .merge(notifications::router())
        .merge(notification_queue::router())
        .merge(bulk_jobs::router())
        .merge(scheduled_messages::router())
        .merge(sessions::router())
        .merge(reports::router())
        .merge(settings::router())
        .merge(webhook_events::router())
        .merge(automations::router())
        .merge(invitations::router())
}
