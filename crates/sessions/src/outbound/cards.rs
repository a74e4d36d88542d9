//! Contact cards: the Cloud API's JSON as vCard 3.0 (RFC 2426).

use serde_json::Value;
use whatsapp_rust::prelude::{MessageField, wa};

pub(super) fn message(contacts: &[Value], context: MessageField<wa::ContextInfo>) -> wa::Message {
    let mut cards: Vec<wa::message::ContactMessage> = contacts
        .iter()
        .map(|contact| wa::message::ContactMessage {
            display_name: Some(name(contact)),
            vcard: Some(vcard(contact)),
            ..Default::default()
        })
        .collect();
    if cards.len() == 1 {
        let mut card = cards.remove(0);
        card.context_info = context;
        return wa::Message {
            contact_message: MessageField::some(card),
            ..Default::default()
        };
    }
    wa::Message {
        contacts_array_message: MessageField::some(wa::message::ContactsArrayMessage {
            display_name: Some(format!("{} contacts", cards.len())),
            contacts: cards,
            context_info: context,
        }),
        ..Default::default()
    }
}

fn word<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value
        .pointer(path)
        .and_then(Value::as_str)
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

fn name(contact: &Value) -> String {
    word(contact, "/name/formatted_name")
        .map(str::to_owned)
        .or_else(|| {
            let parts = [
                word(contact, "/name/first_name"),
                word(contact, "/name/last_name"),
            ];
            let parts: Vec<&str> = parts.into_iter().flatten().collect();
            (!parts.is_empty()).then(|| parts.join(" "))
        })
        .or_else(|| word(contact, "/phones/0/phone").map(str::to_owned))
        .unwrap_or_default()
}

fn vcard(contact: &Value) -> String {
    // A card that came in goes out as it is.
    if let Some(vcard) = word(contact, "/vcard") {
        return vcard.to_owned();
    }
    let mut lines = vec!["BEGIN:VCARD".to_owned(), "VERSION:3.0".to_owned()];
    let part = |path| escape(word(contact, path).unwrap_or_default());
    lines.push(format!(
        "N:{};{};{};{};{}",
        part("/name/last_name"),
        part("/name/first_name"),
        part("/name/middle_name"),
        part("/name/prefix"),
        part("/name/suffix"),
    ));
    lines.push(format!("FN:{}", escape(&name(contact))));
    if let Some(company) = word(contact, "/org/company") {
        lines.push(format!("ORG:{}", escape(company)));
    }
    if let Some(title) = word(contact, "/org/title") {
        lines.push(format!("TITLE:{}", escape(title)));
    }
    for phone in list(contact, "/phones") {
        let Some(number) = word(phone, "/phone").or_else(|| word(phone, "/wa_id")) else {
            continue;
        };
        let digits: String = number.chars().filter(char::is_ascii_digit).collect();
        let wa_id = word(phone, "/wa_id").map_or(digits, str::to_owned);
        let kind = label(phone, "CELL");
        lines.push(format!(
            "TEL;type={kind};waid={}:{}",
            parameter(&wa_id),
            escape(number)
        ));
    }
    for email in list(contact, "/emails") {
        if let Some(address) = word(email, "/email") {
            lines.push(format!(
                "EMAIL;type={}:{}",
                label(email, "INTERNET"),
                escape(address)
            ));
        }
    }
    for url in list(contact, "/urls") {
        if let Some(address) = word(url, "/url") {
            lines.push(format!("URL:{}", escape(address)));
        }
    }
    for address in list(contact, "/addresses") {
        let part = |path| escape(word(address, path).unwrap_or_default());
        lines.push(format!(
            "ADR;type={}:;;{};{};{};{};{}",
            label(address, "HOME"),
            part("/street"),
            part("/city"),
            part("/state"),
            part("/zip"),
            part("/country"),
        ));
    }
    if let Some(birthday) = word(contact, "/birthday") {
        lines.push(format!("BDAY:{}", escape(birthday)));
    }
    lines.push("END:VCARD".to_owned());
    lines.join("\r\n")
}

fn list<'a>(contact: &'a Value, path: &str) -> &'a [Value] {
    contact
        .pointer(path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn label(value: &Value, usual: &str) -> String {
    word(value, "/type").map_or_else(|| usual.to_owned(), |kind| parameter(kind).to_uppercase())
}

/// What may stand in a parameter without quotes.
fn parameter(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric() || *c == '-')
        .collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | ',' | ';' => escaped.extend(['\\', c]),
            '\n' => escaped.push_str("\\n"),
            '\r' => {}
            _ => escaped.push(c),
        }
    }
    escaped
}
