//! Status callbacks.

use super::{API_VERSION, error::message_for};
use crate::{
    webhook::{Payload, Webhook},
    world::{Message, Provider, Tick, TwilioChannel, World},
};

/// Tells the status a message has now. `before` is the tick it had.
pub(crate) fn tell_status(world: &World, message: &Message, _before: Tick) {
    let Some(extra) = &message.twilio else {
        return;
    };
    tell(world, message, &extra.status);
}

/// Notes a status between two ticks (`queued`, `sending`) and tells it.
pub(super) fn tell_word(world: &World, id: &str, word: &str) {
    let message = {
        let mut state = world.lock();
        let Some(message) = state.message_mut(id) else {
            return;
        };
        if message.tick != Tick::Accepted {
            return;
        }
        if let Some(extra) = &mut message.twilio {
            word.clone_into(&mut extra.status);
        }
        message.clone()
    };
    tell(world, &message, word);
}

/// `sending`, then whatever comes of it.
pub(super) fn start_course(world: &World, id: String, failure: Option<u32>) {
    if world.settings().sent_after_ms.is_some() {
        tell_word(world, &id, "sending");
    }
    world.start_course(id, failure);
}

fn tell(world: &World, message: &Message, status: &str) {
    let Some(extra) = &message.twilio else {
        return;
    };
    let Some(url) = extra.status_callback.clone() else {
        return;
    };
    let auth_token = {
        let state = world.lock();
        let Some(account) = state.twilio_accounts.get(&extra.account_sid) else {
            return;
        };
        account.auth_token.clone()
    };
    let mut params: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: &str| params.push((key.to_owned(), value.to_owned()));
    put("AccountSid", &extra.account_sid);
    put("ApiVersion", API_VERSION);
    put("From", extra.from.as_deref().unwrap_or_default());
    put("To", &extra.to);
    put("MessageSid", &message.id);
    put("SmsSid", &message.id);
    put("MessageStatus", status);
    put("SmsStatus", status);
    if let Some(service) = &extra.service_sid {
        put("MessagingServiceSid", service);
    }
    if let Some(code) = message.error_code {
        put("ErrorCode", &code.to_string());
        put("ErrorMessage", message_for(code));
    }
    if extra.to.starts_with("whatsapp:") {
        put("ChannelPrefix", "whatsapp");
        put("ChannelInstallSid", "XEcc20d939f803ee381f2442185d0d5dc5");
        put("ChannelToAddress", &extra.to["whatsapp:".len()..]);
        put("EventType", &status.to_uppercase());
        if let Some(code) = message.error_code {
            put("ChannelStatusMessage", message_for(code));
        }
    } else if matches!(status, "delivered" | "undelivered") {
        let done = message.updated_at.format("%y%m%d%H%M").to_string();
        put("RawDlrDoneDate", &done);
    }
    world.post(Webhook {
        provider: Provider::Twilio,
        line: message.line.clone(),
        customer: message.customer.clone(),
        url,
        about: format!("status:{status}"),
        message_id: Some(message.id.clone()),
        payload: Payload::Twilio {
            params,
            auth_token,
            fallback_url: String::new(),
            is_message: false,
        },
    });
}

/// SMS segments: 160 septets or 70 UTF-16 units in one, 153 or 67 in several. WhatsApp has one.
pub(super) fn segments(body: &str, channel: TwilioChannel) -> usize {
    if channel == TwilioChannel::Whatsapp {
        return 1;
    }
    const EXTENDED: &str = "^{}\\[~]|€";
    const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./:;<=>?¡ÄÖÑÜ§¿äöñüà";
    let is_basic = |c: char| c.is_ascii_alphanumeric() || BASIC.contains(c);
    let gsm = body.chars().all(|c| is_basic(c) || EXTENDED.contains(c));
    let (units, single, several) = if gsm {
        let extended = body.chars().filter(|c| EXTENDED.contains(*c)).count();
        (body.chars().count() + extended, 160, 153)
    } else {
        (body.encode_utf16().count(), 70, 67)
    };
    if units <= single {
        1
    } else {
        units.div_ceil(several)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_depend_on_the_alphabet() {
        let count = |body: &str| segments(body, TwilioChannel::Sms);
        assert_eq!((count(&"a".repeat(160)), count(&"a".repeat(161))), (1, 2));
        assert_eq!((count(&"ع".repeat(70)), count(&"ع".repeat(71))), (1, 2));
        assert_eq!((count(&"€".repeat(80)), count(&"€".repeat(81))), (1, 2));
        assert_eq!(segments(&"ع".repeat(700), TwilioChannel::Whatsapp), 1);
    }
}
