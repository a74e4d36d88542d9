//! What a session is asked to do besides sending.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use wasel_domain::E164;
use whatsapp_rust::client::ClientError;
use whatsapp_rust::features::{
    GroupCreateOptions, GroupError, GroupMetadata, GroupParticipant, GroupParticipantOptions,
};
use whatsapp_rust::passkey::Assertion;
use whatsapp_rust::request::IqError;
use whatsapp_rust::wacore::iq::devices::RemoveCompanionDeviceSpec;
use whatsapp_rust::{Client, ErrorChainExt, Jid, RevokeType, SendError};

use super::live::{Live, Note};
use crate::command::{Command, CommandError};
use crate::inbound::Who;
use crate::outbound::{Recipient, SendFailure};

const FAREWELL_WITHIN: Duration = Duration::from_secs(5);

impl Live {
    pub(crate) async fn command(&self, command: Command) -> Result<Value, CommandError> {
        if !self.deadline.holds() {
            return Err(CommandError::NotHere);
        }
        match command {
            Command::LogOut => self.log_out().await,
            Command::Relink => self.may_relink(),
            Command::PasskeyResponse { assertion } => self.answer_passkey(&assertion).await,
            Command::PasskeyConfirm => {
                let client = self.client().ok_or(CommandError::NotConnected)?;
                client.send_passkey_confirmation().await.map_err(|_| {
                    CommandError::NotNow("no passkey waits for a confirmation".to_owned())
                })?;
                Ok(Value::Null)
            }
            command => {
                let client = self.connected().ok_or(CommandError::NotConnected)?;
                self.ask(&client, command).await
            }
        }
    }

    /// The state is wiped only once WhatsApp says that the device is unlinked.
    async fn log_out(&self) -> Result<Value, CommandError> {
        let client = self.client().ok_or(CommandError::NotConnected)?;
        if let Some(own) = client.pn() {
            if !self.is_connected() {
                return Err(CommandError::NotConnected);
            }
            let answer = client.execute(RemoveCompanionDeviceSpec::new(&own)).await;
            if let Err(error) = answer {
                // The farewell may overtake the answer, and says the same.
                let farewell = self.logged_out.cancelled();
                return match tokio::time::timeout(FAREWELL_WITHIN, farewell).await {
                    Ok(()) => Ok(Value::Null),
                    Err(_) => Err(query_error(&error)),
                };
            }
        }
        self.tell(Note::LoggedOut);
        Ok(Value::Null)
    }

    /// The manager ends the session's task, and whoever takes it next reads its options.
    fn may_relink(&self) -> Result<Value, CommandError> {
        match self.client().is_some_and(|client| client.pn().is_some()) {
            true => Err(CommandError::NotNow("a phone is already linked".to_owned())),
            false => Ok(Value::Null),
        }
    }

    async fn answer_passkey(&self, assertion: &Value) -> Result<Value, CommandError> {
        let invalid = |reason: &str| CommandError::Invalid {
            field: "assertion",
            reason: reason.to_owned(),
        };
        let id = assertion
            .get("rawId")
            .or(assertion.get("id"))
            .and_then(Value::as_str)
            .ok_or_else(|| invalid("it has no rawId"))?;
        let credential_id = BASE64_URL_SAFE_NO_PAD
            .decode(id.trim_end_matches('='))
            .map_err(|_| invalid("its rawId is not base64url"))?;
        let client = self.client().ok_or(CommandError::NotConnected)?;
        client
            .send_passkey_response(Assertion {
                assertion_json: assertion.to_string().into_bytes(),
                credential_id,
            })
            .await
            .map_err(|error| refused(&error))?;
        Ok(Value::Null)
    }

    async fn ask(&self, client: &Arc<Client>, command: Command) -> Result<Value, CommandError> {
        match command {
            Command::MarkRead { chat, sender, ids } => {
                let chat = self.address(client, &chat).await?;
                let sender = sender.as_deref().map(jid).transpose()?;
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                client
                    .mark_as_read(&chat, sender.as_ref(), &ids)
                    .await
                    .map_err(|_| no_answer())?;
            }
            Command::Typing {
                to,
                typing,
                recording,
            } => {
                let to = self.address(client, &to).await?;
                let chat_state = client.chatstate();
                match (typing, recording) {
                    (true, true) => chat_state.send_recording(&to).await,
                    (true, false) => chat_state.send_composing(&to).await,
                    (false, _) => chat_state.send_paused(&to).await,
                }
                .map_err(|_| no_answer())?;
            }
            Command::Presence { online } => {
                let presence = client.presence();
                let result = if online {
                    presence.set_available().await
                } else {
                    presence.set_unavailable().await
                };
                result.map_err(|_| no_answer())?;
            }
            Command::SubscribePresence { of } => {
                let of = self.address(client, &of).await?;
                client
                    .presence()
                    .subscribe(of)
                    .await
                    .map_err(|_| no_answer())?;
            }
            Command::Edit {
                chat,
                provider_message_id,
                text,
            } => {
                let chat = self.address(client, &chat).await?;
                let content = whatsapp_rust::prelude::wa::Message {
                    conversation: Some(text),
                    ..Default::default()
                };
                client
                    .edit_message(chat, provider_message_id, content)
                    .await
                    .map_err(|error| send_error(&error))?;
            }
            Command::Revoke {
                chat,
                provider_message_id,
            } => {
                let chat = self.address(client, &chat).await?;
                client
                    .revoke_message(chat, provider_message_id, RevokeType::Sender)
                    .await
                    .map_err(|error| send_error(&error))?;
            }
            Command::Groups => {
                let groups = client
                    .groups()
                    .get_participating()
                    .await
                    .map_err(|error| group_error(&error))?;
                let mut groups: Vec<&GroupMetadata> = groups.values().collect();
                groups.sort_by(|a, b| a.subject.cmp(&b.subject));
                let groups: Vec<Value> = groups.into_iter().map(group).collect();
                return Ok(json!({"groups": groups}));
            }
            Command::CreateGroup {
                subject,
                participants,
            } => {
                let mut options = GroupCreateOptions::new(subject);
                for participant in &participants {
                    let jid = self.address(client, participant).await?;
                    options.participants.push(GroupParticipantOptions {
                        jid,
                        phone_number: None,
                        privacy: None,
                    });
                }
                let created = client
                    .groups()
                    .create_group(options)
                    .await
                    .map_err(|error| group_error(&error))?;
                return Ok(group(&created.metadata));
            }
            Command::GroupInfo { jid: id } => {
                let metadata = client
                    .groups()
                    .get_metadata(&group_jid(id)?)
                    .await
                    .map_err(|error| group_error(&error))?;
                return Ok(group(&metadata));
            }
            Command::LeaveGroup { jid: id } => {
                client
                    .groups()
                    .leave(group_jid(id)?)
                    .await
                    .map_err(|error| group_error(&error))?;
            }
            Command::OnWhatsapp { phones } => return self.on_whatsapp(client, phones).await,
            // Carried out above, without a proven connection.
            Command::LogOut
            | Command::Relink
            | Command::PasskeyResponse { .. }
            | Command::PasskeyConfirm => {}
        }
        Ok(Value::Null)
    }

    async fn on_whatsapp(
        &self,
        client: &Client,
        phones: Vec<String>,
    ) -> Result<Value, CommandError> {
        let mut numbers = Vec::new();
        for text in phones {
            let phone = E164::parse(&text, None).map_err(|error| CommandError::Invalid {
                field: "phones",
                reason: error.to_string(),
            })?;
            numbers.push(
                match self.find(client, &Recipient::Phone(phone.clone())).await {
                    Ok(jid) => {
                        let who = Who::named([&jid]).completed(client).await;
                        json!({
                            "phone": phone,
                            "on_whatsapp": true,
                            "jid": jid.to_non_ad_string(),
                            "lid": who.lid.map(|lid| format!("{lid}@lid")),
                        })
                    }
                    Err(SendFailure::NotOnWhatsapp) => {
                        json!({"phone": phone, "on_whatsapp": false})
                    }
                    Err(failure) => return Err(failure.into()),
                },
            );
        }
        Ok(json!({"numbers": numbers}))
    }

    async fn address(&self, client: &Client, to: &Recipient) -> Result<Jid, CommandError> {
        Ok(self.find(client, to).await?)
    }
}

fn jid(text: &str) -> Result<Jid, CommandError> {
    text.parse().map_err(|_| CommandError::Invalid {
        field: "jid",
        reason: "not an address at WhatsApp".to_owned(),
    })
}

fn group_jid(text: String) -> Result<Jid, CommandError> {
    Ok(Recipient::Group(text).jid()?)
}

fn group(metadata: &GroupMetadata) -> Value {
    json!({
        "jid": metadata.id.to_non_ad_string(),
        "subject": metadata.subject,
        "description": metadata.description,
        "announcement": metadata.is_announcement,
        "participants": metadata.participants.iter().map(participant).collect::<Vec<_>>(),
    })
}

fn participant(participant: &GroupParticipant) -> Value {
    let names = [
        Some(&participant.jid),
        participant.phone_number.as_ref(),
        participant.lid.as_ref(),
    ];
    let who = Who::named(names.into_iter().flatten());
    json!({
        "jid": participant.jid.to_non_ad_string(),
        "phone": who.number.as_deref().and_then(|number| E164::from_wa_id(number).ok()),
        "lid": who.lid.map(|lid| format!("{lid}@lid")),
        "admin": participant.is_admin(),
    })
}

fn no_answer() -> CommandError {
    CommandError::NoAnswer("the connection was lost".to_owned())
}

/// In our own words and the server's code: the crate's errors may name people.
fn refused(error: &(dyn std::error::Error + 'static)) -> CommandError {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<IqError>() {
            return query_error(error);
        }
        cause = current.source();
    }
    CommandError::Refused("it cannot be done now".to_owned())
}

fn query_error(error: &IqError) -> CommandError {
    match error.server_rejection() {
        Some(rejection) => CommandError::Refused(format!("code {}", rejection.code)),
        None => no_answer(),
    }
}

fn group_error(error: &GroupError) -> CommandError {
    match error {
        GroupError::InvalidRequest(_) => CommandError::Invalid {
            field: "jid",
            reason: "the group cannot be asked like this".to_owned(),
        },
        error => match error.server_rejection() {
            Some(rejection) => CommandError::Refused(format!("code {}", rejection.code)),
            None => no_answer(),
        },
    }
}

fn send_error(error: &SendError) -> CommandError {
    match error {
        SendError::NotLoggedIn | SendError::Client(ClientError::NotConnected) => {
            CommandError::NotConnected
        }
        error => match error.server_rejection() {
            Some(rejection) => CommandError::Refused(format!("code {}", rejection.code)),
            None => no_answer(),
        },
    }
}

impl From<SendFailure> for CommandError {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::NotConnected => Self::NotConnected,
            SendFailure::LeaseLost => Self::NotHere,
            SendFailure::Content { field, reason } => Self::Invalid { field, reason },
            SendFailure::NotOnWhatsapp => Self::Invalid {
                field: "to",
                reason: "the number is not on WhatsApp".to_owned(),
            },
            SendFailure::Throttled => Self::Refused("WhatsApp asks for a slower pace".to_owned()),
            SendFailure::Nack { code } => Self::Refused(format!("code {code}")),
            SendFailure::Ambiguous => no_answer(),
            SendFailure::Transient(reason) => Self::NoAnswer(reason),
        }
    }
}
