//! From an outbound message to the session that sends it, and the refusals in the sender's terms.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use wasel_db::contacts::{self, ContactIdentity};
use wasel_db::messages::{self, Message};
use wasel_db::session_requests;
use wasel_domain::content::MediaSource;
use wasel_domain::event::{Identity, IdentityKind, ProviderEvent};
use wasel_domain::{ChannelId, E164, MediaRef, OrgId, OutboundContent};
use wasel_providers::{
    Accepted, ErrorClass, FetchFrom, FetchedMedia, LinkedPhones, Outbound, ParseError, ReadReceipt,
    SendError,
};
use wasel_sessions::{
    Command, FetchError, MediaFile, MediaLimits, Outgoing, Quoted, Recipient, SendFailure,
};

use super::Phones;
use super::phones::Started;

/// A receipt or "typing…" is of no use later.
const TELL_WITHIN: Duration = Duration::from_secs(10);

#[async_trait]
impl LinkedPhones for Phones {
    fn parse(&self, stored: &[u8]) -> Result<Vec<ProviderEvent>, ParseError> {
        wasel_sessions::replay(stored).map_err(|error| ParseError(error.to_string()))
    }

    async fn send(
        &self,
        channel: ChannelId,
        message: &Outbound<'_>,
    ) -> Result<Accepted, SendError> {
        let started = self.started()?;
        let media = match message.content.media() {
            Some(media) => match &media.source {
                MediaSource::Link(link) => Some(file(started, channel, link).await?),
                MediaSource::ProviderId(_) => {
                    return Err(refusal(
                        ErrorClass::Content,
                        None,
                        "a linked phone keeps no uploads",
                    ));
                }
            },
            None => None,
        };
        // A reaction names the author of what it is about, as a quotation does.
        let about = match message.content {
            OutboundContent::Reaction { message_id, .. } => Some(message_id.as_str()),
            _ => message.quoted_message_id,
        };
        let quoted = match about {
            Some(id) => Some(started.find_quoted(channel, id).await?),
            None => None,
        };
        let outgoing = Outgoing {
            message_id: message.message_id.0,
            to: recipient(message)?,
            content: message.content.clone(),
            media,
            quoted,
        };
        let sent = started
            .manager
            .send(channel, outgoing)
            .await
            .map_err(send_error)?;
        Ok(Accepted {
            provider_message_id: sent.provider_message_id,
            // WhatsApp's server has it: that is its first tick.
            status: Some(wasel_domain::MessageStatus::Sent),
            recipient: sent.recipient,
        })
    }

    async fn mark_read(
        &self,
        channel: ChannelId,
        receipt: &ReadReceipt<'_>,
    ) -> Result<(), SendError> {
        let started = self.started()?;
        started.mark_read(channel, receipt).await
    }

    async fn fetch_media(
        &self,
        from: FetchFrom<'_>,
        media: &MediaRef,
        max_bytes: u64,
    ) -> Result<FetchedMedia, SendError> {
        let limits = MediaLimits {
            max_bytes,
            ..self.started()?.media
        };
        let (bytes, mime_type) = wasel_sessions::fetch_media(from.http, media, limits)
            .await
            .map_err(|error| {
                let class = match error {
                    FetchError::BadReference | FetchError::TooLarge(_) | FetchError::Gone => {
                        ErrorClass::Content
                    }
                    FetchError::Unavailable(_) => ErrorClass::Transient,
                };
                refusal(class, None, &error.to_string())
            })?;
        Ok(FetchedMedia { bytes, mime_type })
    }
}

impl Phones {
    fn started(&self) -> Result<&Started, SendError> {
        self.get().ok_or_else(|| {
            refusal(
                ErrorClass::Transient,
                Some("not_connected"),
                "no linked phones run in this process",
            )
        })
    }
}

impl Started {
    /// What is quoted: whose it was and what it said.
    async fn find_quoted(&self, channel: ChannelId, id: &str) -> Result<Quoted, SendError> {
        let (message, identities) = self.find_message(channel, id).await?;
        let from_us = message
            .as_ref()
            .is_some_and(|message| message.direction == "outbound");
        Ok(Quoted {
            provider_message_id: id.to_owned(),
            from_us,
            text: message.and_then(|message| message.body),
            participant: identities.iter().find_map(address_of).filter(|_| !from_us),
        })
    }

    async fn mark_read(
        &self,
        channel: ChannelId,
        receipt: &ReadReceipt<'_>,
    ) -> Result<(), SendError> {
        let (Some(message), identities) = self
            .find_message(channel, receipt.provider_message_id)
            .await?
        else {
            return Err(refusal(ErrorClass::Content, None, "no such message"));
        };
        let sender = identities.iter().find_map(address_of);
        let group = message.metadata["group_id"].as_str();
        let chat = match (group, identities.iter().find_map(person)) {
            (Some(group), _) => Recipient::Group(group.to_owned()),
            (None, Some(person)) => person,
            (None, None) => {
                return Err(refusal(
                    ErrorClass::Recipient,
                    None,
                    "its sender has no address",
                ));
            }
        };
        let read = Command::MarkRead {
            chat: chat.clone(),
            sender: sender.filter(|_| group.is_some()),
            ids: vec![receipt.provider_message_id.to_owned()],
        };
        self.tell(OrgId(message.org_id), channel, &read).await?;
        if receipt.typing {
            let typing = Command::Typing {
                to: chat,
                typing: true,
                recording: false,
            };
            self.tell(OrgId(message.org_id), channel, &typing).await?;
        }
        Ok(())
    }

    async fn find_message(
        &self,
        channel: ChannelId,
        provider_id: &str,
    ) -> Result<(Option<Message>, Vec<Identity>), SendError> {
        let org = self
            .state
            .registry
            .by_id(channel)
            .map(|channel| channel.org_id)
            .ok_or_else(|| refusal(ErrorClass::Transient, None, "the channel is gone"))?;
        let (message, identities) = self
            .read_message(org, channel, provider_id)
            .await
            .map_err(database)?;
        let identities = identities
            .into_iter()
            .filter_map(|identity| {
                let kind = IdentityKind::parse(&identity.kind)?;
                Some(Identity::new(kind, identity.value))
            })
            .collect();
        Ok((message, identities))
    }

    async fn read_message(
        &self,
        org: OrgId,
        channel: ChannelId,
        provider_id: &str,
    ) -> wasel_db::Result<(Option<Message>, Vec<ContactIdentity>)> {
        let mut tx = self.state.db.system().await?;
        let message = messages::find_by_provider_id(&mut tx, org, channel, provider_id).await?;
        let identities = match &message {
            Some(message) => contacts::list_identities(&mut tx, org, &[message.contact_id]).await?,
            None => Vec::new(),
        };
        tx.commit().await?;
        Ok((message, identities))
    }

    /// Hands a command to whichever node runs the channel's session.
    async fn tell(
        &self,
        org: OrgId,
        channel: ChannelId,
        command: &Command,
    ) -> Result<(), SendError> {
        let json = serde_json::to_value(command)
            .map_err(|_| refusal(ErrorClass::Content, None, "the command is not JSON"))?;
        let told = self
            .insert_command(org, channel, &json)
            .await
            .map_err(database)?;
        if !told {
            return Err(refusal(
                ErrorClass::Transient,
                Some("not_connected"),
                "the phone is not connected",
            ));
        }
        self.state.signals.sessions.notify_one();
        Ok(())
    }

    async fn insert_command(
        &self,
        org: OrgId,
        channel: ChannelId,
        command: &Value,
    ) -> wasel_db::Result<bool> {
        let mut tx = self.state.db.system().await?;
        let told = match session_requests::find_by_channel(&mut tx, org, channel).await? {
            Some(session) => {
                session_requests::insert_command(&mut tx, org, session.id, command, TELL_WITHIN)
                    .await?
            }
            None => None,
        };
        tx.commit().await?;
        Ok(told.is_some())
    }
}

fn database(_: wasel_db::Error) -> SendError {
    refusal(ErrorClass::Transient, None, "the database is not available")
}

async fn file(started: &Started, channel: ChannelId, link: &str) -> Result<MediaFile, SendError> {
    started
        .files
        .get(&started.state, channel, link)
        .await
        .map_err(|error| {
            let class = if error.again {
                ErrorClass::Transient
            } else {
                ErrorClass::Content
            };
            refusal(class, Some("media"), &error.reason)
        })
}

fn recipient(message: &Outbound<'_>) -> Result<Recipient, SendError> {
    match message.group_id {
        Some(group) => Ok(Recipient::Group(group.to_owned())),
        None => person(message.to).ok_or_else(|| {
            refusal(
                ErrorClass::Recipient,
                Some("not_addressable"),
                "not an address a phone can write to",
            )
        }),
    }
}

fn person(identity: &Identity) -> Option<Recipient> {
    match identity.kind {
        IdentityKind::Phone => E164::parse(&identity.value, None)
            .ok()
            .map(Recipient::Phone),
        IdentityKind::Jid if identity.value.ends_with("@g.us") => {
            Some(Recipient::Group(identity.value.clone()))
        }
        IdentityKind::Jid => Some(Recipient::Jid(identity.value.clone())),
        IdentityKind::Lid => Some(Recipient::Lid(identity.value.clone())),
        IdentityKind::Bsuid | IdentityKind::Email => None,
    }
}

/// A person as groups name them.
fn address_of(identity: &Identity) -> Option<String> {
    matches!(identity.kind, IdentityKind::Lid | IdentityKind::Jid).then(|| identity.value.clone())
}

fn refusal(class: ErrorClass, code: Option<&str>, detail: &str) -> SendError {
    SendError {
        class,
        code: code.map(str::to_owned),
        detail: detail.to_owned(),
        retry_after: None,
    }
}

fn send_error(failure: SendFailure) -> SendError {
    let (class, code) = match &failure {
        SendFailure::NotConnected => (ErrorClass::Transient, Some("not_connected".to_owned())),
        SendFailure::LeaseLost => (ErrorClass::Transient, Some("lease_lost".to_owned())),
        SendFailure::Throttled => (ErrorClass::ThrottledChannel, Some("throttled".to_owned())),
        SendFailure::NotOnWhatsapp => (ErrorClass::Recipient, Some("not_on_whatsapp".to_owned())),
        SendFailure::Content { .. } => (ErrorClass::Content, None),
        SendFailure::Nack { code } => {
            let code = code.to_string();
            (wasel_providers::whatsapp_web::classify(&code), Some(code))
        }
        SendFailure::Ambiguous => (ErrorClass::Ambiguous, Some("lost".to_owned())),
        SendFailure::Transient(_) => (ErrorClass::Transient, None),
    };
    SendError {
        class,
        code,
        detail: failure.to_string(),
        retry_after: None,
    }
}
