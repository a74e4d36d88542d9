//! Templates that a provider keeps, where messages are made: standing in for ours outside the 24-hour window, checked
//! before anything is queued, and suggested where a window is closed.

use axum::http::StatusCode;
use chrono::Utc;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_db::conversations;
use wasel_db::provider_templates::{self, Mapping, ProviderTemplateRow, Usable};
use wasel_domain::content::OutboundTemplate;
use wasel_domain::event::Identity;
use wasel_domain::{Category, OrgId, OutboundContent, window};
use wasel_providers::{ChannelKind, ErrorClass, ProviderTemplates, SendError};

use crate::http::error::ApiError;
use crate::registry::Channel;

/// Suggestions in an answer.
const SUGGESTIONS: i64 = 10;

/// The channel's templates at its provider, or why there are none.
pub fn of(channel: &Channel) -> Result<&dyn ProviderTemplates, ApiError> {
    channel.open.templates().ok_or_else(|| {
        ApiError::refused(
            "no_provider_templates",
            format!(
                "the provider of a {} channel keeps no templates that can be read",
                channel.kind.as_str()
            ),
        )
    })
}

/// What a message is for, by the category of its template.
pub fn category_of(template: &ProviderTemplateRow) -> Option<Category> {
    let category = template.category.as_deref()?;
    Category::parse(&category.to_ascii_lowercase())
}

/// What goes out instead of a text of ours: the approved template that is mapped to it, if the window of this person is
/// closed. `None`: the text itself, which is refused where it may not go.
pub async fn instead_of_text(
    connection: &mut PgConnection,
    org: OrgId,
    channel: &Channel,
    to: &Identity,
    template: Uuid,
    values: &Map<String, Value>,
    media_url: Option<&str>,
) -> Result<Option<(OutboundTemplate, Option<Category>)>, ApiError> {
    let Some(desk) = channel.open.templates() else {
        return Ok(None);
    };
    let last = conversations::find_last_inbound_at(connection, org, channel.id, to).await?;
    if window::is_open(last, Utc::now()) {
        return Ok(None);
    }
    let Some(mapping) = approved(connection, org, channel, template).await? else {
        return Ok(None);
    };
    let filled = fill(desk, &mapping, values, media_url)?;
    Ok(Some((filled, category_of(&mapping.provider))))
}

/// What is mapped to a template of ours on this channel and may be sent.
pub async fn approved(
    connection: &mut PgConnection,
    org: OrgId,
    channel: &Channel,
    template: Uuid,
) -> wasel_db::Result<Option<Mapping>> {
    let mapping = provider_templates::find_mapping(connection, org, template, channel.id).await?;
    Ok(mapping.filter(|mapping| mapping.provider.status == "APPROVED"))
}

/// The provider's template with the values of ours.
pub fn fill(
    desk: &dyn ProviderTemplates,
    mapping: &Mapping,
    values: &Map<String, Value>,
    media_url: Option<&str>,
) -> Result<OutboundTemplate, ApiError> {
    let template = mapping.provider.template();
    desk.fill(&template, &mapping.variable_map.0, values, media_url)
        .map_err(|error| ApiError::refused("template_variables", error.reason).at(error.field))
}

/// Refuses a template that the provider would refuse later (132000, 132001, 132012 …), as far as the channel's templates
/// were read. Says what the message is for.
pub async fn check(
    connection: &mut PgConnection,
    org: OrgId,
    channel: &Channel,
    content: &OutboundContent,
) -> Result<Option<Category>, ApiError> {
    let (Some(desk), OutboundContent::Template(sent)) = (channel.open.templates(), content) else {
        return Ok(None);
    };
    let name = sent.name.as_deref().unwrap_or_default();
    let language = sent.language.as_deref().unwrap_or_default();
    let known = provider_templates::list_named(connection, org, channel.id, name).await?;
    let found = known.iter().find(|row| row.language == language);
    let synced = provider_templates::find_synced_at(connection, org, channel.id).await?;
    if synced.is_none() {
        return Ok(found.and_then(category_of));
    }
    let Some(found) = found else {
        let languages: Vec<&str> = known.iter().map(|row| row.language.as_str()).collect();
        return Err(if languages.is_empty() {
            ApiError::refused(
                "template_unknown",
                format!("the channel has no template `{name}`"),
            )
            .at("content.name")
        } else {
            let message = format!(
                "the template is there in {}, not in `{language}`",
                languages.join(", ")
            );
            ApiError::refused("template_unknown", message).at("content.language")
        });
    };
    if found.status != "APPROVED" {
        let message = match &found.rejected_reason {
            Some(reason) => format!("the template is {}: {reason}", found.status),
            None => format!("the template is {}, not APPROVED", found.status),
        };
        return Err(ApiError::refused("template_not_approved", message).at("content.name"));
    }
    desk.check(&found.template(), sent)
        .map_err(|error| ApiError::invalid(error.field, error.reason))?;
    Ok(category_of(found))
}

/// A template that may be sent now, whatever the 24-hour window says.
#[derive(Debug, Serialize)]
pub struct SuggestedTemplate {
    /// A template of ours (`/v1/templates`); `null` for one of the provider's that is sent by its own name.
    pub id: Option<Uuid>,
    pub name: String,
    /// The provider's name of it, or Twilio's Content SID.
    pub provider_name: String,
    pub language: Option<String>,
}

impl From<Usable> for SuggestedTemplate {
    fn from(usable: Usable) -> Self {
        Self {
            id: usable.id,
            name: usable.name,
            provider_name: usable.provider_name,
            language: usable.language,
        }
    }
}

/// What to send instead where a window is closed: `{suggested_templates: […]}`.
pub async fn suggestions(
    connection: &mut PgConnection,
    org: OrgId,
    channel: &Channel,
) -> Result<Value, ApiError> {
    let usable = if channel.open.templates().is_some() {
        provider_templates::list_usable(connection, org, channel.id, SUGGESTIONS).await?
    } else if channel.kind == ChannelKind::TwilioWhatsapp {
        provider_templates::list_usable_contents(connection, org, SUGGESTIONS).await?
    } else {
        Vec::new()
    };
    let suggested: Vec<SuggestedTemplate> = usable.into_iter().map(Into::into).collect();
    Ok(json!({ "suggested_templates": suggested }))
}

/// A provider's refusal, on the way to whoever asked for something other than a message.
pub fn provider_error(error: &SendError) -> ApiError {
    let code = error.code.as_deref().unwrap_or("no code");
    match error.class {
        ErrorClass::ChannelBlocked => ApiError::refused(
            "channel_blocked",
            format!(
                "the provider does not let this channel in: {} ({code})",
                error.detail
            ),
        ),
        ErrorClass::Transient
        | ErrorClass::Ambiguous
        | ErrorClass::ThrottledChannel
        | ErrorClass::ThrottledPair
        | ErrorClass::ThrottledAccount => ApiError {
            retry_after: error.retry_after,
            ..ApiError::new(
                StatusCode::BAD_GATEWAY,
                "provider_unavailable",
                format!("the provider cannot do it now: {} ({code})", error.detail),
            )
        },
        _ => ApiError::refused(
            "provider_refused",
            format!("the provider refused it: {} ({code})", error.detail),
        ),
    }
}
