//! STOP, START and HELP as Twilio handles them: by itself, for SMS; for WhatsApp only where a service
//! has Advanced Opt-Out.

use crate::world::{MessagingService, State};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Stop,
    Start,
    Help,
}

impl Keyword {
    /// The keyword a message consists of. The whole message must be the word.
    pub(super) fn of(body: &str) -> Option<Self> {
        match body.trim().to_uppercase().as_str() {
            "STOP" | "STOPALL" | "UNSUBSCRIBE" | "CANCEL" | "END" | "QUIT" | "REVOKE"
            | "OPTOUT" => Some(Self::Stop),
            "START" | "YES" | "UNSTOP" => Some(Self::Start),
            "HELP" | "INFO" => Some(Self::Help),
            _ => None,
        }
    }

    /// Value of `OptOutType`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stop => "STOP",
            Self::Start => "START",
            Self::Help => "HELP",
        }
    }

    /// What Twilio answers by itself.
    pub(super) fn reply(self) -> &'static str {
        match self {
            Self::Stop => {
                "You have successfully been unsubscribed. You will not receive any more messages from this number. Reply START to resubscribe."
            }
            Self::Start => {
                "You have successfully been re-subscribed to messages from this number. Reply HELP for help. Reply STOP to unsubscribe. Msg&Data Rates May Apply."
            }
            Self::Help => "Reply STOP to unsubscribe. Msg&Data Rates May Apply.",
        }
    }
}

/// Who is blocked: the service where there is one, else the number.
fn blocked_sender<'a>(sender: &'a str, service: Option<&'a MessagingService>) -> &'a str {
    service.map_or(sender, |service| &service.sid)
}

pub(super) fn is_blocked(
    state: &State,
    sender: &str,
    service: Option<&MessagingService>,
    customer: &str,
) -> bool {
    // A number that sits in a service shares the service's list, even when named as `From`.
    let service = service.or_else(|| service_of(state, sender));
    let key = (
        blocked_sender(sender, service).to_owned(),
        customer.to_owned(),
    );
    state.opted_out.contains(&key)
}

pub(super) fn note(state: &mut State, keyword: Keyword, sender: &str, customer: &str) {
    let key = {
        let service = service_of(state, sender);
        (
            blocked_sender(sender, service).to_owned(),
            customer.to_owned(),
        )
    };
    match keyword {
        Keyword::Stop => drop(state.opted_out.insert(key)),
        Keyword::Start => drop(state.opted_out.remove(&key)),
        Keyword::Help => {}
    }
}

/// The messaging service a sender sits in.
pub(super) fn service_of<'a>(state: &'a State, sender: &str) -> Option<&'a MessagingService> {
    state
        .twilio_accounts
        .values()
        .flat_map(|account| &account.messaging_services)
        .find(|service| service.senders.iter().any(|address| address == sender))
}
