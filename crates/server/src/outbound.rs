//! Asking for a message to be sent: every route that sends comes through here, so that the rules hold everywhere
//! and the caller hears the reason at once.

use std::sync::Arc;

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use ring::digest;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_db::consents::{self, OptOut};
use wasel_db::conversations::{self, Conversation};
use wasel_db::failures::{self, NewFallback};
use wasel_db::messages::{self, Message, NewOutbound};
use wasel_db::{contacts, idempotency};
use wasel_domain::event::{Identity, IdentityKind};
use wasel_domain::{
    Category, ContactId, ConversationId, E164, MessageId, OrgId, OutboundContent, email, window,
};

use crate::auth::Caller;
use crate::http::error::ApiError;
use crate::provider_templates;
use crate::registry::Channel;
use crate::state::AppState;

/// Whom to write to.
#[derive(Clone, Debug)]
pub enum Recipient {
    /// A number as a person types it, a provider's user id, or an e-mail address, on this channel.
    Address {
        channel: Arc<ChannelHandle>,
        to: String,
    },
    /// The customer of this conversation.
    Conversation(ConversationId),
}

/// A channel with a `Debug` that shows no credentials.
pub struct ChannelHandle(pub Arc<Channel>);

impl std::fmt::Debug for ChannelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel({})", self.0.id)
    }
}

/// A message somebody wants sent.
#[derive(Clone, Debug)]
pub struct SendRequest {
    pub recipient: Recipient,
    pub content: OutboundContent,
    /// Our id of the message to quote.
    pub reply_to: Option<MessageId>,
    pub idempotency_key: Option<String>,
    pub request_id: Option<String>,
    pub metadata: Value,
    /// 1 (first) to 10.
    pub priority: i16,
    pub at_most_once: bool,
    pub category: Category,
    /// What two requests with one key are compared by instead of the content, where that depends on when it was made.
    pub fingerprint: Option<Value>,
    /// What follows if it fails.
    pub fallback: Option<Fallback>,
    /// What asked for it.
    pub origin: Origin,
}

/// What brought a message about.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `manual` for whatever a person or a program asked for; else the automation's or the template's word (S4.3).
    pub trigger_type: String,
    pub related_entity_id: Option<String>,
    pub bulk_job_id: Option<Uuid>,
    pub notification_id: Option<Uuid>,
}

impl Default for Origin {
    fn default() -> Self {
        Self {
            trigger_type: "manual".to_owned(),
            related_entity_id: None,
            bulk_job_id: None,
            notification_id: None,
        }
    }
}

/// What is to be done should the message fail; the follow-up's own shape.
#[derive(Clone, Debug)]
pub struct Fallback {
    pub plan: Value,
    /// A failure after this is too late to follow up.
    pub expires_at: DateTime<Utc>,
}

impl SendRequest {
    /// A request with nothing special about it.
    #[must_use]
    pub fn new(recipient: Recipient, content: OutboundContent) -> Self {
        Self {
            recipient,
            content,
            reply_to: None,
            idempotency_key: None,
            request_id: None,
            metadata: json!({}),
            priority: 5,
            at_most_once: false,
            category: Category::Service,
            fingerprint: None,
            fallback: None,
            origin: Origin::default(),
        }
    }
}

/// The message as it stands, and whether this very request had been made before.
#[derive(Debug)]
pub struct Enqueued {
    pub message: Message,
    pub repeated: bool,
}

/// Checks everything that can be checked now, then writes message and outbox row in one transaction.
pub async fn enqueue(
    state: &AppState,
    caller: &Caller,
    request: SendRequest,
) -> Result<Enqueued, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let enqueued = enqueue_in(&mut tx, state, caller, &request).await?;
    if !enqueued.repeated {
        tx.commit().await?;
        wake_sender(state);
    }
    Ok(enqueued)
}

/// Tells the sender, after a commit, that there is something to send.
pub fn wake_sender(state: &AppState) {
    state.signals.outbox.notify_one();
    state.signals.commits.changes.notify_one();
}

/// As [`enqueue`], inside the caller's transaction: what else it writes is committed with the message, or neither is.
/// After the commit call [`wake_sender`].
///
/// # Errors
/// Leaves rows behind (a new contact): a caller who goes on after an error must roll back to a savepoint.
pub async fn enqueue_in(
    tx: &mut PgConnection,
    state: &AppState,
    caller: &Caller,
    request: &SendRequest,
) -> Result<Enqueued, ApiError> {
    let hash = request.idempotency_key.as_ref().map(|_| hash_of(request));
    let org = caller.org_id;
    let id = MessageId::generate();
    // Before the rules: a repeat gets the first answer even if the window has closed meanwhile.
    if let (Some(key), Some(hash)) = (&request.idempotency_key, &hash) {
        match idempotency::insert(tx, org, &scope_of(caller), key, hash, id).await? {
            idempotency::Claim::New => {}
            idempotency::Claim::Repeat(first) => {
                let message = messages::find(tx, org, first)
                    .await?
                    .ok_or_else(|| ApiError::not_found("message"))?;
                return Ok(Enqueued {
                    message,
                    repeated: true,
                });
            }
            idempotency::Claim::Conflict => {
                return Err(ApiError::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency_key_reused",
                    "this key was used for a different request",
                )
                .at("Idempotency-Key"));
            }
        }
    }
    let (channel, conversation) = match &request.recipient {
        Recipient::Conversation(id) => {
            let conversation = conversations::find(tx, org, *id)
                .await?
                .ok_or_else(|| ApiError::not_found("conversation").at("conversation_id"))?;
            let channel = state
                .registry
                .find(org, conversation.channel_id.into())
                .await?;
            (
                channel.ok_or_else(|| ApiError::not_found("channel"))?,
                conversation,
            )
        }
        Recipient::Address { channel, to } => {
            let identity = address(&channel.0, to)?;
            let contact = contacts::find_or_insert(tx, org, &identity, None).await?;
            let conversation = match group_of(&identity) {
                Some(group) => {
                    conversations::find_or_insert_group(tx, org, channel.0.id, contact, group)
                        .await?
                }
                None => conversations::find_or_insert(tx, org, channel.0.id, contact).await?,
            };
            (channel.0.clone(), conversation)
        }
    };
    check(&channel, &request.content)?;
    let category = provider_templates::check(tx, org, &channel, &request.content)
        .await?
        .unwrap_or(request.category);
    let to = match &conversation.group_id {
        Some(group)
            if channel
                .open
                .capabilities()
                .addressable
                .contains(&IdentityKind::Jid) =>
        {
            Identity::new(IdentityKind::Jid, group)
        }
        _ => recipient_of(tx, org, &channel, ContactId(conversation.contact_id)).await?,
    };
    check_rules(tx, org, &channel, &conversation, &request.content, category).await?;
    let quoted = match request.reply_to {
        Some(id) => Some(
            messages::find(tx, org, id)
                .await?
                .filter(|message| message.conversation_id == conversation.id)
                .ok_or_else(|| ApiError::not_found("message in this conversation").at("reply_to"))?
                .provider_message_id
                .ok_or_else(|| {
                    ApiError::invalid("reply_to", "that message has not reached the provider")
                })?,
        ),
        None => None,
    };
    let content = serde_json::to_value(&request.content)
        .map_err(|_| ApiError::invalid("content", "is not JSON"))?;
    let mut metadata = request.metadata.clone();
    if let (Some(group), Some(fields)) = (&conversation.group_id, metadata.as_object_mut()) {
        fields.insert("group_id".to_owned(), json!(group));
    }
    messages::insert_outbound(
        tx,
        &NewOutbound {
            org_id: org,
            id,
            conversation_id: ConversationId(conversation.id),
            channel_id: channel.id,
            contact_id: ContactId(conversation.contact_id),
            message_type: request.content.kind().as_str(),
            body: request.content.text(),
            content: &content,
            media: media_of(&request.content).as_ref(),
            address: &to.value,
            customer_name: conversation.customer_name.as_deref(),
            quoted_message_id: quoted.as_deref(),
            sender_id: caller.user_id,
            request_id: request.request_id.as_deref(),
            metadata: &metadata,
            priority: request.priority,
            at_most_once: request.at_most_once,
            category,
            bulk_job_id: request.origin.bulk_job_id,
            notification_id: request.origin.notification_id,
            trigger_type: &request.origin.trigger_type,
            related_entity_id: request.origin.related_entity_id.as_deref(),
        },
    )
    .await?;
    if let Some(fallback) = &request.fallback {
        let plan = fallback.plan.to_string();
        let sealed = NewFallback {
            sealed: state
                .sealer
                .seal(org.0, id.0, plan.as_bytes())
                .map_err(|error| {
                    tracing::error!(%error, "a fallback could not be sealed");
                    ApiError::unavailable()
                })?,
            expires_at: fallback.expires_at,
        };
        failures::insert_fallback(tx, org, id, &sealed).await?;
    }
    let message = messages::find(tx, org, id)
        .await?
        .ok_or_else(|| ApiError::not_found("message"))?;
    Ok(Enqueued {
        message,
        repeated: false,
    })
}

/// What a person typed as recipient, as this channel can address it.
pub(crate) fn address(channel: &Channel, to: &str) -> Result<Identity, ApiError> {
    let to = to.trim();
    let addressable = channel.open.capabilities().addressable;
    if to.is_empty() {
        return Err(ApiError::invalid("to", "is missing"));
    }
    if to.contains('@') {
        if addressable.contains(&IdentityKind::Jid)
            && let Some(identity) = whatsapp_address(to)
        {
            return Ok(identity);
        }
        if addressable.contains(&IdentityKind::Email) {
            let address = email::parse(to).map_err(|error| ApiError::invalid("to", error))?;
            return Ok(Identity::new(IdentityKind::Email, address));
        }
        return Err(ApiError::invalid(
            "to",
            "this channel needs a phone number, not an e-mail address",
        ));
    }
    if addressable.contains(&IdentityKind::Bsuid) && looks_like_bsuid(to) {
        return Ok(Identity::new(IdentityKind::Bsuid, to));
    }
    if !addressable.contains(&IdentityKind::Phone) {
        return Err(ApiError::invalid(
            "to",
            "this channel needs an e-mail address",
        ));
    }
    let number = to.strip_prefix("whatsapp:").unwrap_or(to);
    let number = E164::parse(number, channel.region)
        .map_err(|error| ApiError::invalid("to", error.to_string()))?;
    Ok(Identity::new(IdentityKind::Phone, number.as_str()))
}

/// A person's or a group's WhatsApp address: `201…@s.whatsapp.net`, `1349…@lid`, `1203…@g.us`.
fn whatsapp_address(to: &str) -> Option<Identity> {
    let (user, server) = to.split_once('@')?;
    let is_number = |text: &str| {
        !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    match server {
        "s.whatsapp.net" if is_number(user) => {
            Some(Identity::new(IdentityKind::Phone, format!("+{user}")))
        }
        "lid" if is_number(user) => Some(Identity::new(IdentityKind::Lid, to)),
        // Old groups carry their founder's number and a time.
        "g.us" if user.split('-').all(is_number) => Some(Identity::new(IdentityKind::Jid, to)),
        _ => None,
    }
}

/// The group an address names.
fn group_of(identity: &Identity) -> Option<&str> {
    (identity.kind == IdentityKind::Jid && identity.value.ends_with("@g.us"))
        .then_some(identity.value.as_str())
}

/// `EG.1349…`: a country, a dot, up to 128 letters and digits (Meta, business-scoped user ids).
fn looks_like_bsuid(text: &str) -> bool {
    text.split_once('.').is_some_and(|(country, rest)| {
        country.len() == 2
            && country.bytes().all(|b| b.is_ascii_uppercase())
            && !rest.is_empty()
            && rest.len() <= 132
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
    })
}

/// The contact's identity that this channel can write to.
async fn recipient_of(
    connection: &mut PgConnection,
    org: OrgId,
    channel: &Channel,
    contact: ContactId,
) -> Result<Identity, ApiError> {
    let identities = contacts::list_identities(connection, org, &[contact.0]).await?;
    addressable_of(channel, &identities)
        .ok_or_else(|| ApiError::refused("not_addressable", NOT_ADDRESSABLE).at("to"))
}

pub const NOT_ADDRESSABLE: &str = "this contact has no address that the channel can write to";

/// The first of a contact's identities that this channel can write to, by the channel's preference.
#[must_use]
pub fn addressable_of(
    channel: &Channel,
    identities: &[contacts::ContactIdentity],
) -> Option<Identity> {
    let kinds = channel.open.capabilities().addressable;
    kinds.iter().find_map(|kind| {
        identities
            .iter()
            .find(|identity| identity.kind == kind.as_str())
            .map(|identity| Identity::new(*kind, &identity.value))
    })
}

pub(crate) fn check(channel: &Channel, content: &OutboundContent) -> Result<(), ApiError> {
    channel
        .open
        .check(content)
        .map_err(|error| ApiError::invalid(error.field, error.reason))
}

/// Opt-out and the 24-hour window, so that the caller gets the reason at once instead of a provider's refusal later.
async fn check_rules(
    connection: &mut PgConnection,
    org: OrgId,
    channel: &Channel,
    conversation: &Conversation,
    content: &OutboundContent,
    category: Category,
) -> Result<(), ApiError> {
    if conversation.status == "blocked" {
        return Err(ApiError::refused(
            "conversation_blocked",
            "this conversation is blocked",
        ));
    }
    let contact = conversation.contact_id;
    let out = consents::find_opt_out(connection, org.0, contact, channel.id.0, category.as_str());
    match out.await? {
        None => {}
        Some(OptOut::All) => {
            return Err(ApiError::refused(
                "opted_out",
                "this person asked not to be written to on this channel; they can undo it by writing START, or an owner or admin who has their word",
            )
            .at("to"));
        }
        Some(OptOut::Category) => {
            let message = format!(
                "this person asked not to get {} messages on this channel",
                category.as_str()
            );
            return Err(ApiError::refused("opted_out", message).at("category"));
        }
    }
    let free_form = !content.is_template();
    if channel.open.capabilities().has_service_window
        && free_form
        && !window::is_open(conversation.last_inbound_at, Utc::now())
    {
        let message = match window::closes_at(conversation.last_inbound_at) {
            Some(closed) => format!(
                "the 24-hour window closed at {}; send an approved template",
                closed.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            ),
            None => "this person has not written yet; start with an approved template".to_owned(),
        };
        let suggestions = provider_templates::suggestions(connection, org, channel).await?;
        return Err(ApiError::refused("window_closed", message)
            .at("content.type")
            .with_details(suggestions));
    }
    Ok(())
}

fn media_of(content: &OutboundContent) -> Option<Value> {
    let media = content.media()?;
    let mut file = json!({ "filename": media.filename, "voice": media.voice });
    match &media.source {
        wasel_domain::content::MediaSource::Link(url) => file["url"] = json!(url),
        wasel_domain::content::MediaSource::ProviderId(id) => file["provider_id"] = json!(id),
    }
    Some(json!([file]))
}

/// Whose an Idempotency-Key is: two people may use the same one.
fn scope_of(caller: &Caller) -> String {
    caller
        .user_id
        .map_or_else(|| "service".to_owned(), |user| user.to_string())
}

/// What must be equal for two requests with one key to be the same request.
fn hash_of(request: &SendRequest) -> Vec<u8> {
    let recipient = match &request.recipient {
        Recipient::Address { channel, to } => json!([channel.0.id, to]),
        Recipient::Conversation(id) => json!(id),
    };
    // Where the window decides what goes out, it decides what that is for, too.
    let content = match &request.fingerprint {
        Some(fingerprint) => fingerprint.clone(),
        None => json!([request.content, request.category]),
    };
    let canonical = json!([
        recipient,
        content,
        request.reply_to,
        request.request_id,
        request.metadata
    ]);
    digest::digest(&digest::SHA256, canonical.to_string().as_bytes())
        .as_ref()
        .to_vec()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_business_scoped_user_id_is_told_from_a_number() {
        assert!(super::looks_like_bsuid("EG.1349AbC"));
        assert!(super::looks_like_bsuid("US.ENT.12ab"));
        assert!(!super::looks_like_bsuid("+201012345678"));
        assert!(!super::looks_like_bsuid("eg.1349"));
        assert!(!super::looks_like_bsuid("EG."));
    }
}
