//! `/v1/contacts`: customers, their identities and what they consented to.

use std::collections::HashMap;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::consents;
use wasel_db::contacts::{self, Contact, ContactIdentity};
use wasel_domain::ContactId;

use super::{Page, cursor, limit_of, page_of};
use crate::auth::Caller;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{PathParam, QueryParams};
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ContactView {
    pub id: Uuid,
    pub name: Option<String>,
    /// E.164; `null` where the provider gives no number.
    pub phone_number: Option<String>,
    pub email: Option<String>,
    pub avatar_url: Option<String>,
    #[schema(value_type = Object)]
    pub attributes: Value,
    pub identities: Vec<IdentityView>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct IdentityView {
    /// `phone`, `bsuid`, `jid`, `lid`, `email`.
    pub kind: String,
    pub value: String,
}

/// A contact with the history of what they consented to.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContactDetail {
    #[serde(flatten)]
    pub contact: ContactView,
    /// Newest first.
    pub consents: Vec<ConsentView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ConsentView {
    /// `null`: every channel.
    pub channel_id: Option<Uuid>,
    pub category: String,
    /// `opted_in` or `opted_out`.
    pub state: String,
    /// `keyword`, `provider`, `agent`, `send_error`.
    pub source: String,
    pub at: DateTime<Utc>,
}

fn view(contact: Contact, identities: Vec<ContactIdentity>) -> ContactView {
    ContactView {
        id: contact.id,
        name: contact.name,
        phone_number: contact.phone_number,
        email: contact.email,
        avatar_url: contact.avatar_url,
        attributes: contact.attributes,
        identities: identities
            .into_iter()
            .map(|i| IdentityView {
                kind: i.kind,
                value: i.value,
            })
            .collect(),
        created_at: contact.created_at,
        updated_at: contact.updated_at,
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// In the name, number or e-mail address.
    search: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

/// Contacts, newest first.
#[utoipa::path(get, path = "/v1/contacts", tag = "contacts", params(ListQuery),
    responses((status = 200, body = Page<ContactView>), (status = 400, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<ContactView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    let before = query
        .cursor
        .as_deref()
        .map(cursor::decode)
        .transpose()?
        .map(|(_, id)| id);
    let search = query
        .search
        .as_deref()
        .map(str::trim)
        .filter(|search| !search.is_empty());
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rows = contacts::list(&mut tx, caller.org_id, search, before, limit + 1).await?;
    let ids: Vec<Uuid> = rows.iter().map(|contact| contact.id).collect();
    let mut identities: HashMap<Uuid, Vec<ContactIdentity>> = HashMap::new();
    for identity in contacts::list_identities(&mut tx, caller.org_id, &ids).await? {
        identities
            .entry(identity.contact_id)
            .or_default()
            .push(identity);
    }
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |contact| cursor::encode(None, contact.id),
        |contact| {
            let of_contact = identities.remove(&contact.id).unwrap_or_default();
            view(contact, of_contact)
        },
    )))
}

/// One contact, with consents.
#[utoipa::path(get, path = "/v1/contacts/{id}", tag = "contacts", params(("id" = Uuid, Path)),
    responses((status = 200, body = ContactDetail), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<ContactDetail>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let contact = contacts::find(&mut tx, caller.org_id, ContactId(id)).await?;
    let contact = contact.ok_or_else(|| ApiError::not_found("contact"))?;
    let identities = contacts::list_identities(&mut tx, caller.org_id, &[id]).await?;
    let consents = consents::list(&mut tx, caller.org_id.0, id).await?;
    tx.commit().await?;
    let consents = consents
        .into_iter()
        .map(|c| ConsentView {
            channel_id: c.channel_id,
            category: c.category,
            state: c.state,
            source: c.source,
            at: c.at,
        })
        .collect();
    Ok(axum::Json(ContactDetail {
        contact: view(contact, identities),
        consents,
    }))
}
