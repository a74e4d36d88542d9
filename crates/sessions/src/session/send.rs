//! Sending a message and waiting for WhatsApp's server to take it.

use chrono::Utc;
use wasel_domain::event::Identity;
use whatsapp_rust::client::ClientError;
use whatsapp_rust::request::IqError;
use whatsapp_rust::upload::UploadOptions;
use whatsapp_rust::{Client, ErrorChainExt, Jid, SendError, SendOptions, SendResult};

use super::live::Live;
use crate::inbound::Who;
use crate::outbound::{
    Outgoing, Recipient, SendFailure, Sent, check, compose, provider_message_id, upload_type,
};

impl Live {
    pub(crate) async fn send(&self, message: Outgoing) -> Result<Sent, SendFailure> {
        check(&message)?;
        if !self.deadline.holds() {
            return Err(SendFailure::LeaseLost);
        }
        let client = self.connected().ok_or(SendFailure::NotConnected)?;
        let chat = self.find(&client, &message.to).await?;
        let upload = match (upload_type(&message.content), &message.media) {
            (Some(kind), Some(file)) => Some(
                client
                    .upload(file.bytes.to_vec(), kind, UploadOptions::new())
                    .await
                    .map_err(|error| upload_failure(&error))?,
            ),
            _ => None,
        };
        let own = own_jid(&client, &chat).ok_or(SendFailure::NotConnected)?;
        let now = Utc::now().timestamp_millis();
        let composed = compose(&message, upload.map(Into::into), &chat, &own, now)?;

        let id = provider_message_id(message.message_id);
        let answer = self.acks.expect(&id);
        let options = SendOptions::default().with_message_id(id.as_str());
        let result: Result<SendResult, SendError> = client
            .send_message_with_options(chat.clone(), composed, options)
            .await;
        if let Err(error) = result {
            self.acks.remove(&id);
            return Err(failure(&error));
        }
        match tokio::time::timeout(self.shared.settings.ack_wait, answer).await {
            Ok(Ok(Ok(()))) => Ok(Sent {
                recipient: identities(&client, &message.to, &chat).await,
                provider_message_id: id,
            }),
            Ok(Ok(Err(code))) => Err(SendFailure::Nack { code }),
            // The connection was lost.
            Ok(Err(_)) => Err(SendFailure::Ambiguous),
            Err(_) => {
                self.acks.remove(&id);
                Err(SendFailure::Ambiguous)
            }
        }
    }

    /// The address behind a recipient. A number is looked up, for WhatsApp may know it under another one.
    pub(super) async fn find(&self, client: &Client, to: &Recipient) -> Result<Jid, SendFailure> {
        let jid = to.jid()?;
        let Recipient::Phone(phone) = to else {
            return Ok(jid);
        };
        let found = match self.numbers.get(phone.digits()) {
            Some(found) => found,
            None => {
                let found = look_up(client, &jid).await?;
                self.numbers.put(phone.digits(), found.clone());
                found
            }
        };
        found.ok_or(SendFailure::NotOnWhatsapp)
    }
}

/// `None` if the number has no WhatsApp.
async fn look_up(client: &Client, number: &Jid) -> Result<Option<Jid>, SendFailure> {
    let answers = client
        .contacts()
        .is_on_whatsapp(std::slice::from_ref(number))
        .await
        .map_err(|error| match error.server_rejection() {
            Some(rejection) => rejected(rejection.code),
            None => SendFailure::Transient(
                "WhatsApp did not say whether it knows the number".to_owned(),
            ),
        })?;
    let Some(answer) = answers.into_iter().find(|answer| answer.is_registered) else {
        return Ok(None);
    };
    // The answer may name the person by their hidden number.
    let pn = [answer.pn_jid, Some(answer.jid)]
        .into_iter()
        .flatten()
        .find(Jid::is_pn);
    Ok(Some(pn.unwrap_or_else(|| number.clone()).to_non_ad()))
}

/// How we are known in a chat.
fn own_jid(client: &Client, chat: &Jid) -> Option<Jid> {
    if chat.is_lid() {
        client.lid().or_else(|| client.pn())
    } else {
        client.pn()
    }
}

async fn identities(client: &Client, to: &Recipient, chat: &Jid) -> Vec<Identity> {
    let mut identities = Who::named([chat]).completed(client).await.identities();
    // The number as our own records have it stays first.
    if let Recipient::Phone(phone) = to {
        let asked = Identity::new(wasel_domain::event::IdentityKind::Phone, phone.as_str());
        identities.retain(|identity| *identity != asked);
        identities.insert(0, asked);
    }
    identities
}

/// Errors are told in our own words: theirs may name people.
fn failure(error: &SendError) -> SendFailure {
    match error {
        SendError::NotLoggedIn
        | SendError::Client(ClientError::NotConnected | ClientError::NotLoggedIn) => {
            SendFailure::NotConnected
        }
        // The frame may have left.
        SendError::Client(_) => SendFailure::Ambiguous,
        SendError::Iq(error) => query_failure(error),
        SendError::InvalidRequest(_) => SendFailure::Content {
            field: "to",
            reason: "WhatsApp cannot deliver to this address".to_owned(),
        },
        other => match other.server_rejection() {
            Some(rejection) => rejected(rejection.code),
            None => SendFailure::Transient("the message could not be encrypted".to_owned()),
        },
    }
}

/// A question before the message (which devices, which keys) failed; the message did not leave.
fn query_failure(error: &IqError) -> SendFailure {
    match error {
        IqError::ServerError { code, .. } => rejected(*code),
        IqError::NotConnected | IqError::Disconnected(_) | IqError::InternalChannelClosed => {
            SendFailure::NotConnected
        }
        IqError::Timeout => SendFailure::Transient("WhatsApp does not answer".to_owned()),
        _ => SendFailure::Transient("the recipient's devices could not be asked for".to_owned()),
    }
}

fn rejected(code: u16) -> SendFailure {
    match code {
        429 => SendFailure::Throttled,
        code => {
            SendFailure::Transient(format!("WhatsApp refused a query for the message ({code})"))
        }
    }
}

fn upload_failure(error: &whatsapp_rust::anyhow::Error) -> SendFailure {
    match error.http_status() {
        Some(413) => SendFailure::Content {
            field: "media",
            reason: "too large for WhatsApp".to_owned(),
        },
        Some(429) => SendFailure::Throttled,
        _ => SendFailure::Transient("the file could not be uploaded to WhatsApp".to_owned()),
    }
}
