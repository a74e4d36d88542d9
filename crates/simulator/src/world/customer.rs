//! What people do: write, read, react, and on the business side use the phone app.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    CustomerMedia, Event, Message, Origin, Provider, Tick, World, WorldError, phone::is_e164,
};
use crate::{meta, twilio};

/// A customer's message to a business.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CustomerSend {
    /// Meta phone number id, or Twilio address (`+1…`, `whatsapp:+1…`).
    pub line: String,
    /// E.164 of the customer.
    pub from: String,
    /// Sets the WhatsApp profile name from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_name: Option<String>,
    #[serde(flatten)]
    pub content: Content,
    /// The message answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_id: Option<String>,
    #[serde(default)]
    pub forwarded: bool,
    /// Where the customer came from (click-to-WhatsApp ad), in Meta's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referral: Option<Value>,
}

impl CustomerSend {
    pub fn new(line: impl Into<String>, from: impl Into<String>, content: Content) -> Self {
        Self {
            line: line.into(),
            from: from.into(),
            profile_name: None,
            content,
            context_id: None,
            forwarded: false,
            referral: None,
        }
    }

    /// A plain text.
    pub fn text(line: impl Into<String>, from: impl Into<String>, body: impl Into<String>) -> Self {
        Self::new(line, from, Content::Text { body: body.into() })
    }
}

/// What a customer can send. SMS knows text and media; Twilio's WhatsApp all but contacts, flows,
/// reactions, orders, number changes, edits and revokes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    Text {
        body: String,
    },
    Image(CustomerMedia),
    Audio(CustomerMedia),
    Video(CustomerMedia),
    Document(CustomerMedia),
    Sticker(CustomerMedia),
    Location {
        latitude: f64,
        longitude: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
    },
    /// Cards in Meta's form.
    Contacts {
        contacts: Vec<Value>,
    },
    ButtonReply {
        id: String,
        title: String,
    },
    ListReply {
        id: String,
        title: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
    },
    /// A completed flow; `response_json` is a string of JSON.
    FlowReply {
        name: String,
        response_json: String,
    },
    /// Quick reply of a template.
    Button {
        payload: String,
        text: String,
    },
    /// No emoji takes the reaction back.
    Reaction {
        message_id: String,
        #[serde(default)]
        emoji: Option<String>,
    },
    /// Product items in Meta's form.
    Order {
        catalog_id: String,
        #[serde(default)]
        text: String,
        product_items: Vec<Value>,
    },
    /// The customer moves to another number (and gets another user id).
    NumberChange {
        new_number: String,
    },
    Unsupported,
    Edit {
        message_id: String,
        body: String,
    },
    Revoke {
        message_id: String,
    },
}

impl Content {
    /// The file, for the kinds that have one, with the kind's name.
    pub(crate) fn media(&self) -> Option<(&'static str, &CustomerMedia)> {
        match self {
            Self::Image(media) => Some(("image", media)),
            Self::Audio(media) => Some(("audio", media)),
            Self::Video(media) => Some(("video", media)),
            Self::Document(media) => Some(("document", media)),
            Self::Sticker(media) => Some(("sticker", media)),
            _ => None,
        }
    }

    /// What a person reads.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Text { body } | Self::Edit { body, .. } => Some(body.clone()),
            Self::ButtonReply { title, .. } | Self::ListReply { title, .. } => Some(title.clone()),
            Self::Button { text, .. } => Some(text.clone()),
            Self::Order { text, .. } => Some(text.clone()),
            Self::Location { name, .. } => name.clone(),
            _ => self.media().and_then(|(_, media)| media.caption.clone()),
        }
    }
}

/// A message the business writes in the WhatsApp app on its own phone (coexistence).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BusinessEcho {
    pub phone_number_id: String,
    /// E.164 of the customer.
    pub to: String,
    #[serde(flatten)]
    pub content: Content,
}

impl World {
    /// Sends as a customer and delivers the webhook. Returns the provider's message id.
    pub fn send_as_customer(&self, send: CustomerSend) -> Result<String, WorldError> {
        if !is_e164(&send.from) {
            return Err(WorldError::Invalid(
                "a customer's number is written in E.164".to_owned(),
            ));
        }
        {
            let mut state = self.lock();
            let customer = state.customer(&send.from);
            if let Some(name) = &send.profile_name {
                customer.name.clone_from(name);
            }
        }
        if self.lock().meta_numbers.contains_key(&send.line) {
            meta::receive(self, send)
        } else {
            twilio::receive(self, send)
        }
    }

    /// Sends from the business's own WhatsApp app: `smb_message_echoes`. Meta only.
    pub fn send_as_business_app(&self, echo: BusinessEcho) -> Result<String, WorldError> {
        if !is_e164(&echo.to) {
            return Err(WorldError::Invalid(
                "a customer's number is written in E.164".to_owned(),
            ));
        }
        meta::echo(self, echo)
    }

    /// Sends any other webhook field of Meta's (`account_update`, `user_preferences`, …) with `value` as it stands.
    pub fn send_meta_field(
        &self,
        phone_number_id: &str,
        field: &str,
        value: Value,
    ) -> Result<(), WorldError> {
        let number = self.lock().meta_number(phone_number_id)?.clone();
        meta::post_change(self, &number, "", field, field, None, value);
        Ok(())
    }

    /// The customer opens the thread: everything that arrived becomes read. A message that was only
    /// `sent` goes straight to `read`, as at Meta when the chat is open. SMS has no read.
    pub fn mark_read(&self, line: &str, customer: &str) -> usize {
        let ids: Vec<String> = {
            let state = self.lock();
            let key = (line.to_owned(), customer.to_owned());
            state
                .threads
                .get(&key)
                .into_iter()
                .flatten()
                .filter_map(|id| state.message(id))
                .filter(|m| matches!(m.tick, Tick::Sent | Tick::Delivered))
                .filter(|m| !m.is_from_customer())
                .map(|m| m.id.clone())
                .collect()
        };
        ids.iter().filter(|id| self.read_message(id)).count()
    }

    /// Marks one message of the business read. False where it cannot be.
    pub(crate) fn read_message(&self, id: &str) -> bool {
        let reads = self.lock().message(id).is_some_and(|message| {
            message.provider == Provider::Meta || message.line.starts_with("whatsapp:")
        });
        reads && self.step(id, Tick::Read, None)
    }

    /// Moves a message of the business on by hand, for worlds where nothing happens by itself. A
    /// message already further is left as it is. Returns whether it moved.
    pub fn set_tick(&self, id: &str, tick: Tick) -> Result<bool, WorldError> {
        let message = self.message(id).ok_or(WorldError::UnknownMessage)?;
        // What each provider says when it does not know why.
        let unknown = match message.provider {
            Provider::Meta => 131_000,
            Provider::Twilio => 30_008,
        };
        Ok(match tick {
            Tick::Read => self.read_message(id),
            Tick::Failed => self.step(id, tick, Some(unknown)),
            _ => self.step(id, tick, None),
        })
    }

    /// Fails a message of the business with the provider's error code.
    pub fn fail_message(&self, id: &str, code: u32) -> Result<bool, WorldError> {
        if self.message(id).is_none() {
            return Err(WorldError::UnknownMessage);
        }
        Ok(self.step(id, Tick::Failed, Some(code)))
    }

    /// Sends the webhook of a message's present status once more, as providers do.
    pub fn repeat_status(&self, id: &str) -> Result<(), WorldError> {
        let message = self.message(id).ok_or(WorldError::UnknownMessage)?;
        if message.is_from_customer() {
            return Err(WorldError::NotPossible("the message is the customer's"));
        }
        match message.provider {
            Provider::Meta => meta::tell_status(self, &message, message.tick),
            Provider::Twilio => twilio::tell_status(self, &message, message.tick),
        }
        Ok(())
    }

    /// Changes a stored message and tells listeners.
    pub(crate) fn change_message(
        &self,
        id: &str,
        change: impl FnOnce(&mut Message),
    ) -> Result<(), WorldError> {
        let message = {
            let mut state = self.lock();
            let now = state.now();
            let message = state.message_mut(id).ok_or(WorldError::UnknownMessage)?;
            change(message);
            message.updated_at = now;
            message.clone()
        };
        self.emit(Event::MessageChanged { message });
        Ok(())
    }

    /// The business read the thread up to this message of the customer.
    pub(crate) fn business_read(&self, message_id: &str) -> Option<(String, String)> {
        let (line, customer, changed) = {
            let mut state = self.lock();
            let message = state
                .message(message_id)
                .filter(|m| m.origin == Origin::Customer)?;
            let (line, customer, upto) =
                (message.line.clone(), message.customer.clone(), message.at);
            let now = state.now();
            let ids: Vec<String> = state
                .threads
                .get(&(line.clone(), customer.clone()))
                .into_iter()
                .flatten()
                .cloned()
                .collect();
            let mut changed = Vec::new();
            for id in ids {
                if let Some(message) = state.message_mut(&id)
                    && message.is_from_customer()
                    && message.at <= upto
                    && message.tick < Tick::Read
                {
                    message.tick = Tick::Read;
                    message.updated_at = now;
                    changed.push(message.clone());
                }
            }
            (line, customer, changed)
        };
        for message in changed {
            self.emit(Event::MessageChanged { message });
        }
        Some((line, customer))
    }
}
