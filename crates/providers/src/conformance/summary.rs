//! Events as lines of text, so that what a payload gives can be read in a table.

use serde_json::Value;
use wasel_domain::content::{MediaRef, MessageContent};
use wasel_domain::event::{
    Identity, InboundMessage, Party, ProviderEvent, RoutedEvent, TemplateChange,
};

/// One event in one line, for tables of expectations.
#[must_use]
pub fn summary(routed: &RoutedEvent) -> String {
    match &routed.event {
        ProviderEvent::Message(message) => format!("message {}", of_message(message)),
        ProviderEvent::Echo(message) => format!("echo {}", of_message(message)),
        ProviderEvent::Status(status) => {
            let mut line = format!(
                "status {} {} at {}",
                status.provider_message_id,
                status.status,
                status.at.timestamp()
            );
            if let Some(attempt) = status.attempt_id {
                line += &format!(" attempt {attempt}");
            }
            if let Some(error) = &status.error {
                line += &format!(" error {} {:?}", error.code, error.message);
            }
            line + &of_detail(&status.detail)
        }
        ProviderEvent::Reaction(reaction) => format!(
            "reaction {} to {} {} {} by {} at {}",
            reaction.provider_message_id,
            reaction.target_message_id,
            reaction.emoji.as_deref().unwrap_or("removed"),
            if reaction.from_us {
                "from us"
            } else {
                "received"
            },
            of_party(&reaction.customer),
            reaction.at.timestamp()
        ),
        ProviderEvent::Edit(edit) => format!(
            "edit of {} {} at {}",
            edit.target_message_id,
            of_content(&edit.content),
            edit.at.timestamp()
        ),
        ProviderEvent::Revoke(revoke) => format!(
            "revoke of {} at {}",
            revoke.target_message_id,
            revoke.at.timestamp()
        ),
        ProviderEvent::SamePerson(same) => format!(
            "same person {} = {} {:?} at {}",
            of_identities(&same.known),
            of_identities(&same.now),
            same.text.as_deref().unwrap_or_default(),
            same.at.timestamp()
        ),
        ProviderEvent::Consent(consent) => format!(
            "consent {} {} by {} at {}",
            consent.consent.as_str(),
            consent.category,
            of_party(&consent.customer),
            consent.at.timestamp()
        ),
        ProviderEvent::Template(template) => format!(
            "template {} {} {} at {} {}",
            template.provider_id.as_deref().unwrap_or("-"),
            template.name,
            template.language,
            template.at.timestamp(),
            of_template_change(&template.change)
        ),
        ProviderEvent::Notice(notice) => format!(
            "notice {}{}{}",
            notice.topic,
            if notice.pauses_channel { " pauses" } else { "" },
            of_detail(&notice.detail)
        ),
    }
}

fn of_template_change(change: &TemplateChange) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    match change {
        TemplateChange::Status {
            status,
            category,
            reason,
            alarming,
        } => format!(
            "status {} category {} reason {}{}",
            or_dash(status),
            or_dash(category),
            or_dash(reason),
            if *alarming { " alarming" } else { "" }
        ),
        TemplateChange::Quality(quality) => format!("quality {quality}"),
        TemplateChange::Category { now, announced } => {
            format!("category {} announced {}", or_dash(now), or_dash(announced))
        }
        TemplateChange::Texts(components) => {
            format!("texts{}", of_detail(&Value::Array(components.clone())))
        }
    }
}

fn of_message(message: &InboundMessage) -> String {
    let mut line = format!(
        "{} from {} at {} {}",
        message.provider_message_id,
        of_party(&message.customer),
        message.sent_at.timestamp(),
        of_content(&message.content)
    );
    if let Some(id) = &message.quoted_message_id {
        line += &format!(" quotes {id}");
    }
    if message.forwarded {
        line += " forwarded";
    }
    if let Some(referral) = &message.referral {
        line += &format!(" referral {}", sorted(referral));
    }
    if let Some(group) = &message.group_id {
        line += &format!(" in group {group}");
    }
    line
}

fn of_content(content: &MessageContent) -> String {
    let mut line = content.kind.as_str().to_owned();
    if let Some(text) = &content.text {
        line += &format!(" {text:?}");
    }
    for media in &content.media {
        line += &format!(" media({})", of_media(media));
    }
    line + &of_detail(&content.detail)
}

fn of_media(media: &MediaRef) -> String {
    let parts = [
        media.provider_id.as_deref(),
        media.url.as_deref(),
        media.mime_type.as_deref(),
        media.filename.as_deref(),
        media.sha256.as_deref(),
        media.voice.then_some("voice"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn of_party(party: &Party) -> String {
    let identities = of_identities(&party.identities);
    match &party.name {
        Some(name) => format!("{identities} ({name})"),
        None => identities,
    }
}

fn of_identities(identities: &[Identity]) -> String {
    let each = identities
        .iter()
        .map(|identity| format!("{}:{}", identity.kind.as_str(), identity.value));
    each.collect::<Vec<_>>().join(",")
}

fn of_detail(detail: &Value) -> String {
    if detail.is_null() {
        String::new()
    } else {
        format!(" {}", sorted(detail))
    }
}

/// JSON with its keys in order, whichever map the build uses.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            let members = members
                .into_iter()
                .map(|(key, value)| format!("{key}:{}", sorted(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let items = items.iter().map(sorted);
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}
