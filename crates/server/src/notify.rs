//! Reaching a person by SMS, WhatsApp or e-mail: by each of them, or by the first that works.
//!
//! With several steps the next one is taken when a step is refused at once, and also when its message fails later
//! ([`follow`]): WhatsApp tells of a closed window or an unknown number only after it took the message.

use std::sync::Arc;

use axum::http::StatusCode;
use chrono::{TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;
use wasel_db::messages::Message;
use wasel_db::{organizations, templates};
use wasel_domain::content::{MediaSource, OutboundMedia, OutboundTemplate};
use wasel_domain::template::{RenderedTemplate, TemplateTexts};
use wasel_domain::{Category, OrgId, OutboundContent, UserId};
use wasel_providers::ChannelKind;

use crate::auth::Caller;
use crate::http::error::ApiError;
use crate::outbound::{self, ChannelHandle, Fallback, Recipient, SendRequest};
use crate::provider_templates;
use crate::registry::Channel;
use crate::state::AppState;

/// A failure later than this no longer brings the next channel on.
const FALLBACK_HOURS: i64 = 24;

/// How a person is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    Sms,
    Whatsapp,
    Email,
}

impl Medium {
    pub const ALL: [Self; 3] = [Self::Sms, Self::Whatsapp, Self::Email];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Whatsapp => "whatsapp",
            Self::Email => "email",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|medium| medium.as_str() == text)
    }

    /// The kinds of channel that reach people so, the preferred one first.
    pub const fn kinds(self) -> &'static [ChannelKind] {
        match self {
            Self::Sms => &[ChannelKind::TwilioSms],
            Self::Whatsapp => &[
                ChannelKind::TwilioWhatsapp,
                ChannelKind::WhatsappCloud,
                ChannelKind::WhatsappWeb,
            ],
            Self::Email => &[ChannelKind::Email],
        }
    }
}

/// What somebody wants said, whichever way it goes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Note {
    pub phone: Option<String>,
    pub email: Option<String>,
    pub text: Option<String>,
    /// A template of ours (its id), or Twilio's Content SID (`HX…`).
    pub template: Option<String>,
    pub variables: Option<Map<String, Value>>,
    pub media_url: Option<String>,
    pub request_id: Option<String>,
    pub metadata: Map<String, Value>,
}

/// One way to go: a channel of that medium which the caller may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Step {
    pub medium: Medium,
    pub channel_id: Uuid,
}

/// What a failed message needs to go on another way.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    note: Note,
    steps: Vec<Step>,
    sender_id: Option<Uuid>,
}

/// How one step went.
#[derive(Debug)]
pub struct Outcome {
    pub medium: Medium,
    pub result: Result<Message, ApiError>,
}

/// The caller's first active channel of a medium, by the order of its kinds and then by name.
pub fn step(state: &AppState, caller: &Caller, medium: Medium) -> Result<Step, ApiError> {
    let channels = state.registry.list_active(caller.org_id);
    medium
        .kinds()
        .iter()
        .find_map(|kind| {
            channels
                .iter()
                .find(|channel| channel.kind == *kind && caller.may_use(channel.id))
        })
        .map(|channel| Step {
            medium,
            channel_id: channel.id.0,
        })
        .ok_or_else(|| {
            ApiError::refused(
                "no_channel",
                format!(
                    "this organisation has no active {} channel",
                    medium.as_str()
                ),
            )
        })
}

/// What to ask the sender for, should a note go by this step; everything that a template leaves open is filled in now
/// and stays so. The second part is the template used, for [`templates::record_use`].
pub async fn request_of(
    state: &AppState,
    caller: &Caller,
    step: Step,
    note: &Note,
) -> Result<(SendRequest, Option<Uuid>), ApiError> {
    let channel = state
        .registry
        .find(caller.org_id, step.channel_id.into())
        .await?
        .ok_or_else(|| ApiError::not_found("channel"))?;
    let (to, field) = match step.medium {
        Medium::Sms | Medium::Whatsapp => (&note.phone, "recipient_phone"),
        Medium::Email => (&note.email, "recipient_email"),
    };
    let to = to
        .clone()
        .filter(|to| !to.trim().is_empty())
        .ok_or_else(|| ApiError::invalid(field, "is missing"))?;
    let template = find_template(state, caller, note).await?;
    let (content, category) =
        content_of(state, caller, &channel, Some(&to), note, template.as_ref()).await?;
    // A template goes out as a text or as the provider's own, by the window at that moment.
    let fingerprint = (template.is_some() && channel.open.templates().is_some())
        .then(|| json!([note.template, note.variables, note.media_url]));
    let recipient = Recipient::Address {
        channel: Arc::new(ChannelHandle(channel)),
        to,
    };
    let request = SendRequest {
        category: category.unwrap_or_default(),
        fingerprint,
        request_id: note.request_id.clone(),
        metadata: Value::Object(note.metadata.clone()),
        ..SendRequest::new(recipient, content)
    };
    Ok((request, template.map(|template| template.id)))
}

/// Sends by one step, and by `rest` in turn should it fail later.
pub async fn send(
    state: &AppState,
    caller: &Caller,
    step: Step,
    note: &Note,
    rest: &[Step],
    idempotency_key: Option<String>,
) -> Result<Message, ApiError> {
    let (mut request, template) = request_of(state, caller, step, note).await?;
    request.idempotency_key = idempotency_key;
    if !rest.is_empty() {
        request.fallback = Some(fallback(caller, note, rest)?);
    }
    let enqueued = outbound::enqueue(state, caller, request).await?;
    if let (Some(template), false) = (template, enqueued.repeated)
        && let Err(error) = count_use(state, caller.org_id, template).await
    {
        // The message is on its way: that is what the caller must hear.
        tracing::warn!(template.id = %template, %error, "a use of a template was not counted");
    }
    Ok(enqueued.message)
}

async fn count_use(state: &AppState, org: OrgId, template: Uuid) -> wasel_db::Result<()> {
    let mut tx = state.db.system().await?;
    templates::record_use(&mut tx, org, template).await?;
    tx.commit().await
}

/// Takes the steps in turn until one is accepted; the others wait in case it fails. `key` makes a repetition harmless.
/// Trouble of our own ends the turn: the next channel would have it too.
pub async fn send_by_first(
    state: &AppState,
    caller: &Caller,
    steps: &[Step],
    note: &Note,
    key: Option<&str>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let key = key.map(|key| format!("{key}:{}", step.medium.as_str()));
        let result = send(state, caller, *step, note, &steps[index + 1..], key).await;
        let ends = match &result {
            Ok(_) => true,
            Err(error) => error.status.is_server_error(),
        };
        outcomes.push(Outcome {
            medium: step.medium,
            result,
        });
        if ends {
            break;
        }
    }
    outcomes
}

/// Goes on with the next step after a message failed. `false` when no step was accepted: nothing more will come.
pub async fn follow(
    state: &AppState,
    org: OrgId,
    failed: Uuid,
    sealed: &[u8],
) -> Result<bool, ApiError> {
    let plan = state.sealer.open(org.0, failed, sealed).ok();
    let plan: Option<Plan> = plan.and_then(|plan| serde_json::from_slice(&plan).ok());
    let Some(plan) = plan else {
        // Not by us, or by a key that is gone.
        tracing::error!(message.id = %failed, "a fallback cannot be opened and is dropped");
        return Ok(false);
    };
    // Whoever asked was allowed to, and their channels were chosen then.
    let caller = Caller::service(org, plan.sender_id.map(UserId));
    let mut note = plan.note;
    note.metadata
        .insert("fallback_of".to_owned(), json!(failed));
    let key = format!("fallback:{failed}");
    let outcomes = send_by_first(state, &caller, &plan.steps, &note, Some(&key)).await;
    for outcome in outcomes {
        let channel = outcome.medium.as_str();
        match outcome.result {
            Ok(_) => return Ok(true),
            // A repeat after a crash, with a template that was changed in between: the first one went out.
            Err(error) if error.code == "idempotency_key_reused" => return Ok(true),
            Err(error) if error.status.is_server_error() => return Err(error),
            Err(error) => {
                tracing::info!(message.id = %failed, channel, code = error.code, "a fallback was refused");
            }
        }
    }
    Ok(false)
}

fn fallback(caller: &Caller, note: &Note, rest: &[Step]) -> Result<Fallback, ApiError> {
    let plan = Plan {
        note: note.clone(),
        steps: rest.to_vec(),
        sender_id: caller.user_id.map(|user| user.0),
    };
    Ok(Fallback {
        plan: serde_json::to_value(plan)
            .map_err(|_| ApiError::invalid("variables", "is not JSON"))?,
        expires_at: Utc::now() + TimeDelta::hours(FALLBACK_HOURS),
    })
}

pub(crate) async fn find_template(
    state: &AppState,
    caller: &Caller,
    note: &Note,
) -> Result<Option<templates::Template>, ApiError> {
    let Some(name) = note
        .template
        .as_deref()
        .filter(|name| !is_content_sid(name))
    else {
        return Ok(None);
    };
    let id: Uuid = name.parse().map_err(|_| {
        ApiError::invalid(
            "template_id",
            "must be a template's id, or a Content SID (HX and 32 hex digits)",
        )
    })?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let template = templates::find(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    let template = template.ok_or_else(|| ApiError::not_found("template").at("template_id"))?;
    if !template.fields.is_active {
        return Err(ApiError::refused("template_inactive", "is switched off").at("template_id"));
    }
    Ok(Some(template))
}

/// `HX` and 32 hex digits (Twilio, Content API).
pub(crate) fn is_content_sid(text: &str) -> bool {
    text.strip_prefix("HX")
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What goes out on this channel, and what for if the provider's template says so. Where `to` is given, that person's
/// window decides between our text and the provider's template; without it the text is meant.
pub(crate) async fn content_of(
    state: &AppState,
    caller: &Caller,
    channel: &Channel,
    to: Option<&str>,
    note: &Note,
    template: Option<&templates::Template>,
) -> Result<(OutboundContent, Option<Category>), ApiError> {
    let text = note.text.clone().filter(|text| !text.trim().is_empty());
    if let Some(template) = template {
        let fields = &template.fields;
        let texts = TemplateTexts {
            text: &fields.message_template,
            subject: fields.email_subject.as_deref(),
            html: fields.email_html.as_deref(),
        };
        let values = note.variables.clone().unwrap_or_default();
        let rendered = texts
            .render(&values)
            .map_err(|error| ApiError::refused("template_variables", error.to_string()))?;
        if let (Some(to), Some(_)) = (to, channel.open.templates()) {
            let to = outbound::address(channel, to)?;
            let media_url = note.media_url.as_ref().or(fields.media_url.as_ref());
            let mut tx = state.db.tenant(&caller.claims()).await?;
            let instead = provider_templates::instead_of_text(
                &mut tx,
                caller.org_id,
                channel,
                &to,
                template.id,
                &values,
                media_url.map(String::as_str),
            )
            .await?;
            tx.commit().await?;
            if let Some((mut filled, category)) = instead {
                filled.text.get_or_insert(rendered.text);
                return Ok((OutboundContent::Template(filled), category));
            }
        }
        let content = content_of_template(state, caller, channel, note, fields, rendered).await?;
        return Ok((content, None));
    }
    if let Some(sid) = note.template.as_deref() {
        if note.media_url.is_some() {
            return Err(ApiError::invalid(
                "media_url",
                "goes without a Content SID: the content holds its own media",
            ));
        }
        let content = OutboundContent::Template(OutboundTemplate {
            content_sid: Some(sid.to_owned()),
            variables: note.variables.clone(),
            text,
            ..OutboundTemplate::default()
        });
        return Ok((content, None));
    }
    if note
        .variables
        .as_ref()
        .is_some_and(|values| !values.is_empty())
    {
        return Err(ApiError::invalid("variables", "go with a template_id"));
    }
    let content = match (&note.media_url, text) {
        (Some(url), caption) => media(url, caption),
        (None, Some(text)) => plain(state, caller, channel, text).await?,
        (None, None) => {
            return Err(ApiError::invalid(
                "message",
                "is missing (or give template_id or media_url)",
            ));
        }
    };
    Ok((content, None))
}

async fn content_of_template(
    state: &AppState,
    caller: &Caller,
    channel: &Channel,
    note: &Note,
    fields: &templates::TemplateFields,
    rendered: RenderedTemplate,
) -> Result<OutboundContent, ApiError> {
    if channel.kind == ChannelKind::Email && (rendered.subject.is_some() || rendered.html.is_some())
    {
        let subject = match rendered.subject {
            Some(subject) => subject,
            None => organization_name(state, caller).await?,
        };
        return Ok(OutboundContent::Email {
            subject,
            text: Some(rendered.text),
            html: rendered.html,
        });
    }
    if let (ChannelKind::TwilioWhatsapp, Some(sid)) = (channel.kind, &fields.twilio_content_sid) {
        return Ok(OutboundContent::Template(OutboundTemplate {
            content_sid: Some(sid.clone()),
            variables: content_variables(note, fields),
            text: Some(rendered.text),
            ..OutboundTemplate::default()
        }));
    }
    match note.media_url.as_ref().or(fields.media_url.as_ref()) {
        Some(url) => Ok(media(url, Some(rendered.text))),
        None => plain(state, caller, channel, rendered.text).await,
    }
}

/// Under the names that Twilio's content has for them.
fn content_variables(
    note: &Note,
    fields: &templates::TemplateFields,
) -> Option<Map<String, Value>> {
    let Some(names) = &fields.twilio_variables else {
        return note.variables.clone();
    };
    let values = note.variables.as_ref()?;
    let named = names
        .iter()
        .filter_map(|(name, variable)| Some((name.clone(), values.get(variable)?.clone())));
    Some(named.collect())
}

/// A text; a first e-mail gets the organisation's name as its subject.
async fn plain(
    state: &AppState,
    caller: &Caller,
    channel: &Channel,
    text: String,
) -> Result<OutboundContent, ApiError> {
    if channel.kind == ChannelKind::Email {
        return Ok(OutboundContent::Email {
            subject: organization_name(state, caller).await?,
            text: Some(text),
            html: None,
        });
    }
    Ok(OutboundContent::Text {
        body: text,
        preview_url: true,
    })
}

async fn organization_name(state: &AppState, caller: &Caller) -> Result<String, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let organization = organizations::find(&mut tx, caller.org_id).await?;
    tx.commit().await?;
    organization
        .map(|organization| organization.name)
        .ok_or_else(|| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such organisation",
            )
        })
}

/// By the address's ending; Twilio itself goes by the file's Content-Type.
fn media(url: &str, caption: Option<String>) -> OutboundContent {
    let media = OutboundMedia {
        source: MediaSource::Link(url.to_owned()),
        caption,
        filename: None,
        voice: false,
    };
    let path = url
        .split(['?', '#'])
        .next()
        .unwrap_or(url)
        .to_ascii_lowercase();
    match path.rsplit('.').next() {
        Some("jpg" | "jpeg" | "png" | "webp") => OutboundContent::Image(media),
        Some("mp4" | "3gp") => OutboundContent::Video(media),
        Some("mp3" | "ogg" | "aac" | "amr" | "m4a") => OutboundContent::Audio(OutboundMedia {
            caption: None,
            ..media
        }),
        _ => OutboundContent::Document(media),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_sid_is_told_from_a_template_id() {
        assert!(is_content_sid("HX0123456789abcdef0123456789ABCDEF"));
        assert!(!is_content_sid("HX0123"));
        assert!(!is_content_sid("0198c0de-0000-7000-8000-000000000001"));
    }

    #[test]
    fn a_file_goes_out_as_what_its_name_says() {
        let kind = |url| media(url, Some("x".to_owned())).kind().as_str();
        assert_eq!(kind("https://x.example/a.JPG?size=2"), "image");
        assert_eq!(kind("https://x.example/a.mp4"), "video");
        assert_eq!(kind("https://x.example/a.ogg#t"), "audio");
        assert_eq!(kind("https://x.example/a.pdf"), "document");
        assert_eq!(kind("https://x.example/a"), "document");
    }
}
