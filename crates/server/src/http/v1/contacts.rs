//! `/v1/contacts`: customers, their identities and what they consented to.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::consents::{self, ConsentEntry, NewConsent};
use wasel_db::contacts::{self, Contact, ContactIdentity};
use wasel_db::governor::{self, Held};
use wasel_domain::consent::Consent;
use wasel_domain::{Category, ChannelId, ContactId};

use super::conversations::present;
use super::messages::visible_channel;
use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::governor::HoldReason;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, update))
        .routes(routes!(create_consent))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ContactView {
    pub id: Uuid,
    pub name: Option<String>,
    /// E.164; `null` where the provider gives no number.
    pub phone_number: Option<String>,
    pub email: Option<String>,
    pub avatar_url: Option<String>,
    /// An IANA name, where somebody set it; else the number's country tells when quiet hours are.
    pub timezone: Option<String>,
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

impl From<ConsentEntry> for ConsentView {
    fn from(entry: ConsentEntry) -> Self {
        Self {
            channel_id: entry.channel_id,
            category: entry.category,
            state: entry.state,
            source: entry.source,
            at: entry.at,
        }
    }
}

fn view(contact: Contact, identities: Vec<ContactIdentity>) -> ContactView {
    ContactView {
        id: contact.id,
        name: contact.name,
        phone_number: contact.phone_number,
        email: contact.email,
        avatar_url: contact.avatar_url,
        timezone: contact.timezone,
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
    let consents = consents.into_iter().map(Into::into).collect();
    Ok(axum::Json(ContactDetail {
        contact: view(contact, identities),
        consents,
    }))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateContactRequest {
    /// An IANA name such as `Asia/Riyadh`; `null`: as the number's country.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    timezone: Option<Option<String>>,
}

/// Sets a contact's time zone.
#[utoipa::path(patch, path = "/v1/contacts/{id}", tag = "contacts", params(("id" = Uuid, Path)),
    request_body = UpdateContactRequest,
    responses((status = 200, body = ContactView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<UpdateContactRequest>,
) -> Result<axum::Json<ContactView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let zone = request
        .timezone
        .ok_or_else(|| ApiError::invalid("timezone", "is missing"))?;
    let zone = zone
        .map(|name| {
            name.parse::<chrono_tz::Tz>().map_err(|_| {
                ApiError::invalid("timezone", "must be an IANA name such as Asia/Riyadh")
            })
        })
        .transpose()?;
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    contacts::update_timezone(&mut tx, org, ContactId(id), zone.map(|zone| zone.name())).await?;
    let contact = contacts::find(&mut tx, org, ContactId(id)).await?;
    let contact = contact.ok_or_else(|| ApiError::not_found("contact"))?;
    let identities = contacts::list_identities(&mut tx, org, &[id]).await?;
    tx.commit().await?;
    // Of all channels, also those that an agent does not see.
    let mut tx = state.db.system().await?;
    let reasons = [HoldReason::QuietHours.as_str()];
    governor::release_held(&mut tx, org.0, Held::Contact(id), &reasons).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    state.signals.outbox.notify_one();
    Ok(axum::Json(view(contact, identities)))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateConsentRequest {
    state: ConsentState,
    /// `all`, `marketing`, `utility`, `service` or `authentication`.
    #[schema(example = "marketing")]
    category: String,
    /// Every channel if left out.
    channel_id: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ConsentState {
    OptedIn,
    OptedOut,
}

/// Writes down what a contact said about being written to. The newest word counts; it also holds for messages that wait.
#[utoipa::path(post, path = "/v1/contacts/{id}/consents", tag = "contacts", params(("id" = Uuid, Path)),
    request_body = CreateConsentRequest,
    responses((status = 201, body = ConsentView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn create_consent(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<CreateConsentRequest>,
) -> Result<(StatusCode, axum::Json<ConsentView>), ApiError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    if request.category != "all" && Category::parse(&request.category).is_none() {
        return Err(ApiError::invalid(
            "category",
            "must be `all`, `marketing`, `utility`, `service` or `authentication`",
        ));
    }
    if matches!(request.state, ConsentState::OptedIn) && request.category == "all" {
        // It outweighs the customer's own STOP: not for whoever wants to get one more message out.
        caller.require(&[Role::Owner, Role::Admin])?;
    }
    if let Some(channel) = request.channel_id {
        visible_channel(&state, &caller, ChannelId(channel)).await?;
    }
    let org = caller.org_id;
    let consent = NewConsent {
        org_id: org.0,
        contact_id: id,
        channel_id: request.channel_id,
        category: &request.category,
        state: match request.state {
            ConsentState::OptedIn => Consent::OptedIn,
            ConsentState::OptedOut => Consent::OptedOut,
        },
        source: "agent",
        at: Utc::now(),
    };
    let mut tx = state.db.tenant(&caller.claims()).await?;
    contacts::find(&mut tx, org, ContactId(id))
        .await?
        .ok_or_else(|| ApiError::not_found("contact"))?;
    consents::insert(&mut tx, &consent).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    let view = ConsentView {
        channel_id: consent.channel_id,
        category: consent.category.to_owned(),
        state: consent.state.as_str().to_owned(),
        source: consent.source.to_owned(),
        at: consent.at,
    };
    Ok((StatusCode::CREATED, axum::Json(view)))
}
