//! Fields that are about the account or about a person's ids and wishes, not about a message.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference>

use serde_json::json;
use serde_json::value::RawValue;
use wasel_domain::consent::Consent;
use wasel_domain::event::{ConsentEvent, ProviderEvent, SamePerson};

use super::Sink;
use super::json::{Object, value_of};
use super::people::{Contacts, identities};
use crate::ErrorClass;
use crate::whatsapp_cloud::classify;

/// Trouble that Meta reports with no message to hang it on.
pub(super) fn error(field: &str, raw: &RawValue, out: &mut Sink<'_>) {
    let code = Object::read(raw).and_then(|error| error.text("code"));
    let is_blocking = code.is_some_and(|code| classify(&code) == ErrorClass::ChannelBlocked);
    let detail = json!({"field": field, "error": value_of(raw)});
    out.notice("errors", is_blocking, detail);
}

/// Bans, restrictions and lost access pause the channel; good news does not.
pub(super) fn update(value: &Object<'_>, out: &mut Sink<'_>) {
    let event = value.text("event").unwrap_or_default();
    let ban = value.object("ban_info");
    let ban_state = ban.and_then(|ban| ban.text("waba_ban_state"));
    let pauses = match &*event {
        // Sent for the end of a ban, too.
        "DISABLED_UPDATE" => ban_state.as_deref() != Some("REINSTATE"),
        "ACCOUNT_RESTRICTION"
        | "ACCOUNT_VIOLATION"
        | "ACCOUNT_DELETED"
        | "ACCOUNT_OFFBOARDED"
        | "PARTNER_REMOVED" => true,
        _ => false,
    };
    out.notice("account_update", pauses, value.to_value());
}

/// A person stops or resumes marketing messages in their app.
pub(super) fn preferences(value: &Object<'_>, out: &mut Sink<'_>) {
    let contacts = Contacts::read(value);
    for raw in value.list("user_preferences") {
        let event = Object::read(raw).and_then(|preference| {
            let ids = ["wa_id", "user_id", "parent_user_id"].map(|name| preference.text(name));
            let customer = contacts.party(&ids);
            if customer.identities.is_empty() {
                return None;
            }
            Some(ConsentEvent {
                about_attempt: None,
                customer,
                consent: match &*preference.text("value")? {
                    "stop" => Consent::OptedOut,
                    "resume" => Consent::OptedIn,
                    _ => return None,
                },
                category: "marketing".to_owned(),
                at: preference.time("timestamp"),
            })
        });
        match event {
            Some(event) => out.push(ProviderEvent::Consent(event)),
            None => out.malformed("user_preferences", Some(raw)),
        }
    }
}

/// A business-scoped id was replaced: `{wa_id?, user_id: {previous, current}, parent_user_id?: {…}, timestamp}`.
pub(super) fn user_ids(value: &Object<'_>, out: &mut Sink<'_>) {
    for raw in value.list("user_id_update") {
        let event = Object::read(raw).and_then(|update| {
            let changes = ["user_id", "parent_user_id"].map(|name| update.object(name));
            let side = |name: &str| {
                let [user, parent] = changes
                    .each_ref()
                    .map(|change| change.as_ref().and_then(|change| change.text(name)));
                identities([user.as_deref(), parent.as_deref()])
            };
            let (mut known, mut now) = (side("previous"), side("current"));
            // The number, where it is given, is the same before and after: it joins whichever side lacks a name.
            let number = update.text("wa_id");
            let number = identities([number.as_deref()]);
            if known.is_empty() {
                known = number;
            } else {
                now.splice(0..0, number);
            }
            if known.is_empty() || now.is_empty() {
                return None;
            }
            Some(SamePerson {
                known,
                now,
                text: None,
                provider_message_id: None,
                at: update.time("timestamp"),
            })
        });
        match event {
            Some(event) => out.push(ProviderEvent::SamePerson(event)),
            None => out.malformed("user_id_update", Some(raw)),
        }
    }
}
