//! What one can ask of a linked phone besides sending a message.

use serde::{Deserialize, Serialize};

use crate::outbound::Recipient;

/// One request; its JSON is what a queue of commands stores. The answer is `null` where nothing else is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Unlinks this device at WhatsApp; [`crate::SessionNews::LoggedOut`] follows.
    LogOut,
    /// Begins linking anew, with the options the session has by now: by QR code or by a code for a phone. Not for a
    /// phone that is linked.
    Relink,
    /// What `navigator.credentials.get` answered on web.whatsapp.com, as JSON.
    PasskeyResponse {
        assertion: serde_json::Value,
    },
    /// The person saw the same code on the phone.
    PasskeyConfirm,
    /// Blue ticks. `sender` is the participant's JID in a group.
    MarkRead {
        chat: Recipient,
        #[serde(default)]
        sender: Option<String>,
        ids: Vec<String>,
    },
    /// Shows or hides "typing…" (or "recording audio…") to the customer.
    Typing {
        to: Recipient,
        typing: bool,
        #[serde(default)]
        recording: bool,
    },
    Presence {
        online: bool,
    },
    /// Asks for news of somebody's presence; they come as live signals.
    SubscribePresence {
        of: Recipient,
    },
    /// Replaces the text of a message we sent.
    Edit {
        chat: Recipient,
        provider_message_id: String,
        text: String,
    },
    /// Deletes a message we sent for everyone.
    Revoke {
        chat: Recipient,
        provider_message_id: String,
    },
    /// Answer: `{groups: [{jid, subject, participants, …}]}`.
    Groups,
    /// Answer: the group, as [`Command::GroupInfo`] gives it.
    CreateGroup {
        subject: String,
        participants: Vec<Recipient>,
    },
    GroupInfo {
        jid: String,
    },
    LeaveGroup {
        jid: String,
    },
    /// Which of these numbers (E.164) have WhatsApp. Answer: `{numbers: [{phone, on_whatsapp, jid?, lid?}]}`.
    OnWhatsapp {
        phones: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Another node has the session, or none.
    #[error("the session does not run on this node")]
    NotHere,
    #[error("the session is not connected")]
    NotConnected,
    /// Asked in the wrong state: a pairing code for a linked phone, for example.
    #[error("{0}")]
    NotNow(String),
    #[error("{field}: {reason}")]
    Invalid { field: &'static str, reason: String },
    /// WhatsApp answered with an error.
    #[error("WhatsApp refused: {0}")]
    Refused(String),
    /// Whether it took effect is not known.
    #[error("no answer from WhatsApp: {0}")]
    NoAnswer(String),
}

impl CommandError {
    /// For programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotHere => "not_here",
            Self::NotConnected => "not_connected",
            Self::NotNow(_) => "not_now",
            Self::Invalid { .. } => "invalid",
            Self::Refused(_) => "refused",
            Self::NoAnswer(_) => "no_answer",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_its_journey_through_json() {
        let commands = [
            Command::LogOut,
            Command::Relink,
            Command::PasskeyConfirm,
            Command::Typing {
                to: Recipient::Lid("123@lid".to_owned()),
                typing: true,
                recording: false,
            },
            Command::MarkRead {
                chat: Recipient::Group("1203@g.us".to_owned()),
                sender: Some("123@lid".to_owned()),
                ids: vec!["A".to_owned()],
            },
        ];
        for command in commands {
            let json = serde_json::to_value(&command).unwrap();
            assert_eq!(serde_json::from_value::<Command>(json).unwrap(), command);
        }
        assert_eq!(
            serde_json::to_value(Command::LogOut).unwrap(),
            serde_json::json!({"command": "log_out"})
        );
    }
}
