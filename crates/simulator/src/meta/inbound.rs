//! Webhooks about what customers do, and echoes of the business's own phone app.

use serde_json::{Value, json};

use super::{
    MetaExtra,
    error::webhook_error,
    new_object_id, new_wamid,
    outbound::{contact, fresh_user_id, number_value, post_change},
    upload,
};
use crate::world::{
    BusinessEcho, Content, Customer, CustomerSend, Event, MetaNumber, NewMessage, Origin, Provider,
    Tick, World, WorldError,
    media::StoredMedia,
    phone::{self, is_e164},
};

/// Media of a webhook can be fetched this long.
const WEBHOOK_MEDIA_DAYS: i64 = 7;

/// A customer's message arrives at a Cloud API number.
pub(crate) fn receive(world: &World, send: CustomerSend) -> Result<String, WorldError> {
    let (number, customer) = {
        let mut state = world.lock();
        let number = state.meta_number(&send.line)?.clone();
        (number, state.customer(&send.from).clone())
    };
    let id = new_wamid(&customer.number);
    let (kind, object) = object(world, &number.phone_number_id, &send.content)?;
    apply(world, &number, &customer, &id, &send, kind, &object)?;

    let (now, message) = {
        let mut state = world.lock();
        if opens_window(&send.content) {
            state.open_window(&number.phone_number_id, &customer.number);
        }
        // Inbound counts towards the number's throughput; it is never refused.
        state.take_throughput(&number.phone_number_id);
        let stored = is_message(&send.content).then(|| {
            state.insert_message(NewMessage {
                id: id.clone(),
                provider: Provider::Meta,
                line: number.phone_number_id.clone(),
                customer: customer.number.clone(),
                origin: Origin::Customer,
                kind: kind.to_owned(),
                text: send.content.text(),
                content: object.clone(),
                tick: Tick::Delivered,
                context_id: send.context_id.clone(),
                reference: None,
                meta: None,
                twilio: None,
            })
        });
        (state.now(), stored)
    };
    if let Some(message) = message {
        world.emit(Event::Message { message });
    }

    let mut entry = json!({
        "from_user_id": customer.user_id,
        "id": id,
        "timestamp": now.timestamp().to_string(),
        "type": kind,
    });
    if customer.username.is_none() {
        entry["from"] = json!(phone::digits(&customer.number));
    }
    if kind == "unsupported" {
        entry["errors"] = json!([webhook_error(131_051)]);
    }
    entry[kind] = object;
    if let Some(context) = context(world, &number, &customer, &send) {
        entry["context"] = context;
    }
    if let Some(referral) = &send.referral {
        entry["referral"] = referral.clone();
    }
    let mut value = number_value(&number);
    if kind != "system" {
        value["contacts"] = json!([contact(&customer)]);
    }
    value["messages"] = json!([entry]);
    post_change(
        world,
        &number,
        &customer.number,
        "messages",
        "message",
        Some(id.clone()),
        value,
    );
    Ok(id)
}

/// Reactions, edits, revokes and number changes are about messages; they are none themselves.
fn is_message(content: &Content) -> bool {
    !matches!(
        content,
        Content::Reaction { .. }
            | Content::Edit { .. }
            | Content::Revoke { .. }
            | Content::NumberChange { .. }
    )
}

fn opens_window(content: &Content) -> bool {
    is_message(content) || matches!(content, Content::Reaction { .. })
}

/// What the message does to the world besides arriving.
fn apply(
    world: &World,
    number: &MetaNumber,
    customer: &Customer,
    id: &str,
    send: &CustomerSend,
    kind: &str,
    object: &Value,
) -> Result<(), WorldError> {
    match &send.content {
        Content::Reaction { message_id, emoji } => {
            let shown = emoji.clone().filter(|emoji| !emoji.is_empty());
            world.change_message(message_id, |message| message.customer_reaction = shown)
        }
        Content::Edit { message_id, body } => {
            own_message(world, number, customer, message_id)?;
            world.change_message(message_id, |message| {
                message.text = Some(body.clone());
                message.edited = true;
            })
        }
        Content::Revoke { message_id } => {
            own_message(world, number, customer, message_id)?;
            world.change_message(message_id, |message| {
                message.text = None;
                message.content = Value::Null;
                message.revoked = true;
            })
        }
        Content::NumberChange { new_number } => {
            tracing::debug!(message.id = id, message.kind = kind, "number changed");
            let mut state = world.lock();
            let renewed = Customer {
                number: new_number.clone(),
                user_id: object["user_id"].as_str().unwrap_or_default().to_owned(),
                ..customer.clone()
            };
            state.customers.insert(new_number.clone(), renewed);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn own_message(
    world: &World,
    number: &MetaNumber,
    customer: &Customer,
    id: &str,
) -> Result<(), WorldError> {
    let state = world.lock();
    let own = state.message(id).is_some_and(|message| {
        message.is_from_customer()
            && message.line == number.phone_number_id
            && message.customer == customer.number
    });
    if own {
        Ok(())
    } else {
        Err(WorldError::UnknownMessage)
    }
}

fn context(
    world: &World,
    number: &MetaNumber,
    customer: &Customer,
    send: &CustomerSend,
) -> Option<Value> {
    let mut context = json!({});
    if let Some(id) = &send.context_id {
        let by_customer = world
            .lock()
            .message(id)
            .is_some_and(|message| message.is_from_customer());
        let author = if by_customer {
            phone::digits(&customer.number)
        } else {
            phone::digits(&number.display_phone_number)
        };
        context["from"] = json!(author);
        context["id"] = json!(id);
    }
    if send.forwarded {
        context["forwarded"] = json!(true);
    }
    (context != json!({})).then_some(context)
}

/// Meta's type and object for a content, its media stored.
fn object(
    world: &World,
    phone_number_id: &str,
    content: &Content,
) -> Result<(&'static str, Value), WorldError> {
    if let Some((kind, media)) = content.media() {
        let (bytes, mime_type) = media.resolve(kind)?;
        let id = new_object_id();
        let base = world.base();
        let mut state = world.lock();
        let now = state.now();
        let stored = StoredMedia {
            id: id.clone(),
            provider: Provider::Meta,
            owner: phone_number_id.to_owned(),
            parent: None,
            mime_type: mime_type.clone(),
            filename: media.filename.clone(),
            bytes,
            external_url: None,
            created_at: now,
            expires_at: Some(now + chrono::Duration::days(WEBHOOK_MEDIA_DAYS)),
        };
        let mut object = json!({
            "id": id,
            "mime_type": mime_type,
            "sha256": stored.sha256_base64(),
            "url": upload::address(&base, &id, now),
        });
        state.insert_media(stored);
        if let Some(caption) = &media.caption {
            object["caption"] = json!(caption);
        }
        match kind {
            "document" => {
                let filename = media.filename.as_deref().unwrap_or("document.pdf");
                object["filename"] = json!(filename);
            }
            "audio" => object["voice"] = json!(media.voice),
            "sticker" => object["animated"] = json!(media.animated),
            _ => {}
        }
        return Ok((kind, object));
    }
    Ok(match content {
        Content::Text { body } => ("text", json!({"body": body})),
        Content::Location {
            latitude,
            longitude,
            name,
            address,
        } => {
            let mut place = json!({"latitude": latitude, "longitude": longitude});
            if let Some(name) = name {
                place["name"] = json!(name);
            }
            if let Some(address) = address {
                place["address"] = json!(address);
            }
            ("location", place)
        }
        Content::Contacts { contacts } => ("contacts", json!(contacts)),
        Content::ButtonReply { id, title } => (
            "interactive",
            json!({"type": "button_reply", "button_reply": {"id": id, "title": title}}),
        ),
        Content::ListReply {
            id,
            title,
            description,
        } => {
            let mut reply = json!({"id": id, "title": title});
            if let Some(description) = description {
                reply["description"] = json!(description);
            }
            (
                "interactive",
                json!({"type": "list_reply", "list_reply": reply}),
            )
        }
        Content::FlowReply {
            name,
            response_json,
        } => (
            "interactive",
            json!({"type": "nfm_reply", "nfm_reply":
                {"name": name, "body": "Sent", "response_json": response_json}}),
        ),
        Content::Button { payload, text } => ("button", json!({"payload": payload, "text": text})),
        Content::Reaction { message_id, emoji } => {
            let mut reaction = json!({"message_id": message_id});
            if let Some(emoji) = emoji {
                reaction["emoji"] = json!(emoji);
            }
            ("reaction", reaction)
        }
        Content::Order {
            catalog_id,
            text,
            product_items,
        } => (
            "order",
            json!({"catalog_id": catalog_id, "text": text, "product_items": product_items}),
        ),
        Content::NumberChange { new_number } => {
            if !is_e164(new_number) {
                return Err(WorldError::Invalid(
                    "a customer's number is written in E.164".to_owned(),
                ));
            }
            (
                "system",
                json!({
                    "type": "user_changed_number",
                    "wa_id": phone::digits(new_number),
                    "user_id": fresh_user_id(new_number),
                    "body": "The customer changed their phone number.",
                }),
            )
        }
        Content::Unsupported => ("unsupported", json!({"type": "unknown"})),
        Content::Edit { message_id, body } => (
            "edit",
            json!({"original_message_id": message_id,
                "message": {"type": "text", "text": {"body": body}}}),
        ),
        Content::Revoke { message_id } => ("revoke", json!({"original_message_id": message_id})),
        // Handled above: they have a file.
        Content::Image(_)
        | Content::Audio(_)
        | Content::Video(_)
        | Content::Document(_)
        | Content::Sticker(_) => return Err(WorldError::NotPossible("no file")),
    })
}

/// The business writes in its own WhatsApp app; the server hears of it by `smb_message_echoes`.
pub(crate) fn echo(world: &World, echo: BusinessEcho) -> Result<String, WorldError> {
    let (number, customer) = {
        let mut state = world.lock();
        let number = state.meta_number(&echo.phone_number_id)?.clone();
        (number, state.customer(&echo.to).clone())
    };
    let id = new_wamid(&customer.number);
    let (kind, object) = object(world, &number.phone_number_id, &echo.content)?;
    match &echo.content {
        Content::Edit { message_id, body } => world.change_message(message_id, |message| {
            message.text = Some(body.clone());
            message.edited = true;
        })?,
        Content::Revoke { message_id } => world.change_message(message_id, |message| {
            message.text = None;
            message.revoked = true;
        })?,
        Content::Reaction { message_id, emoji } => {
            let shown = emoji.clone();
            world.change_message(message_id, |message| message.business_reaction = shown)?;
        }
        _ => {}
    }
    let now = world.now();
    if is_message(&echo.content) {
        let message = world.lock().insert_message(NewMessage {
            id: id.clone(),
            provider: Provider::Meta,
            line: number.phone_number_id.clone(),
            customer: customer.number.clone(),
            origin: Origin::BusinessApp,
            kind: kind.to_owned(),
            text: echo.content.text(),
            content: object.clone(),
            tick: Tick::Delivered,
            context_id: None,
            reference: None,
            meta: Some(MetaExtra {
                category: "service".to_owned(),
            }),
            twilio: None,
        });
        world.emit(Event::Message { message });
    }
    let mut entry = json!({
        "from": phone::digits(&number.display_phone_number),
        "to": phone::digits(&customer.number),
        "to_user_id": customer.user_id,
        "id": id,
        "timestamp": now.timestamp().to_string(),
        "type": kind,
    });
    entry[kind] = object;
    let mut value = number_value(&number);
    value["message_echoes"] = json!([entry]);
    post_change(
        world,
        &number,
        &customer.number,
        "smb_message_echoes",
        "echo",
        Some(id.clone()),
        value,
    );
    Ok(id)
}
