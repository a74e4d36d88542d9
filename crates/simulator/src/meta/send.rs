//! `POST /{version}/{phone_number_id}/messages`: messages, read receipts, typing.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, Uri},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{MetaError, MetaExtra, new_wamid, number_for, template, token, upload, validate};
use crate::world::{
    Customer, Event, MetaNumber, NewMessage, Origin, Provider, State as WorldState, Tick, World,
    phone,
};

pub(super) async fn post_message(
    State(world): State<World>,
    Path((_, phone_number_id)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Result<Json<Value>, MetaError> {
    let token = token(&world, &headers, &uri)?;
    let number = number_for(&world, &token, "post", &phone_number_id)?;
    let body: Value = serde_json::from_slice(&body)
        .map_err(|_| MetaError::parameter("The request body is not valid JSON."))?;
    if body.get("status").is_some() {
        return receipt(&world, &number, &body);
    }
    send(&world, &number, body)
}

/// `{status: "read", message_id, typing_indicator?}`.
fn receipt(world: &World, number: &MetaNumber, body: &Value) -> Result<Json<Value>, MetaError> {
    validate::product(body)?;
    if body["status"] != "read" {
        return Err(MetaError::parameter("Param status must be one of {READ}"));
    }
    let id = validate::text(body, "message_id", "message_id")?;
    let typing = match body.get("typing_indicator") {
        None => false,
        Some(typing) if typing["type"] == "text" => true,
        Some(_) => {
            return Err(MetaError::parameter(
                "Param typing_indicator['type'] must be one of {TEXT}",
            ));
        }
    };
    let ours = world
        .lock()
        .message(id)
        .is_some_and(|message| message.line == number.phone_number_id);
    let thread = ours.then(|| world.business_read(id)).flatten();
    let Some((line, customer)) = thread else {
        return Err(MetaError::invalid("message_id is not a received message."));
    };
    if typing {
        world.emit(Event::Typing { line, customer });
    }
    Ok(Json(json!({"success": true})))
}

fn send(world: &World, number: &MetaNumber, body: Value) -> Result<Json<Value>, MetaError> {
    let kind = validate::message(&body)?.to_owned();
    let mut state = world.lock();
    let recipient = recipient(&mut state, number, &body)?;
    let mut category = "service".to_owned();
    let mut text = spoken(&kind, &body[&kind]);
    if kind == "template" {
        let empty = Vec::new();
        let known = state.templates.get(&number.waba_id).unwrap_or(&empty);
        let filled = template::fill(known, &body["template"])?;
        if recipient.by_user_id && filled.category == "authentication" {
            return Err(MetaError::coded(
                131_062,
                "Authentication templates need a phone number.",
            ));
        }
        category = filled.category;
        text = Some(filled.text);
    }
    let media_fits = media_fits(&state, number, &kind, &body[&kind])?;
    let reacted_to = body["reaction"]["message_id"].as_str();
    if let Some(id) = reacted_to
        && state.message(id).is_none()
    {
        return Err(MetaError::invalid("message_id to react to was not found."));
    }
    if !state.take_throughput(&number.phone_number_id) {
        return Err(MetaError::throughput());
    }
    let customer = recipient.customer;
    if !state.take_pair(&number.phone_number_id, &customer.number) {
        return Err(MetaError::coded(
            131_056,
            "Message failed to send because there were too many messages sent from this phone number to the same phone number in a short period of time.",
        ));
    }

    let line = &number.phone_number_id;
    let failure = if !customer.reachable {
        Some(131_026)
    } else if customer.marketing_stopped && category == "marketing" {
        Some(131_050)
    } else if kind != "template" && !state.window_is_open(line, &customer.number) {
        Some(131_047)
    } else if !media_fits {
        Some(131_053)
    } else {
        None
    };
    let id = new_wamid(&customer.number);
    let message = state.insert_message(NewMessage {
        id: id.clone(),
        provider: Provider::Meta,
        line: line.clone(),
        customer: customer.number.clone(),
        origin: Origin::Api,
        kind,
        text,
        content: body[body["type"].as_str().unwrap_or("text")].clone(),
        tick: Tick::Accepted,
        context_id: body["context"]["message_id"].as_str().map(str::to_owned),
        reference: body["biz_opaque_callback_data"].as_str().map(str::to_owned),
        meta: Some(MetaExtra { category }),
        twilio: None,
    });
    drop(state);

    world.emit(Event::Message { message });
    if failure.is_none()
        && let Some(target) = reacted_to
    {
        let emoji = body["reaction"]["emoji"].as_str().unwrap_or_default();
        let shown = (!emoji.is_empty()).then(|| emoji.to_owned());
        // Checked above; it may have been forgotten since, which harms nobody.
        drop(world.change_message(target, |message| message.business_reaction = shown));
    }
    world.start_course(id.clone(), failure);

    let mut contact = json!({"input": recipient.input, "user_id": customer.user_id});
    if !recipient.by_user_id {
        contact["wa_id"] = json!(phone::digits(&customer.number));
    }
    Ok(Json(json!({
        "messaging_product": "whatsapp",
        "contacts": [contact],
        "messages": [{"id": id, "message_status": "accepted"}],
    })))
}

struct Recipient {
    customer: Customer,
    input: String,
    by_user_id: bool,
}

fn recipient(
    state: &mut WorldState,
    number: &MetaNumber,
    body: &Value,
) -> Result<Recipient, MetaError> {
    let given = |key: &str| {
        body.get(key)
            .and_then(Value::as_str)
            .filter(|v| !v.is_empty())
    };
    let own = phone::digits(&number.display_phone_number);
    if let Some(input) = given("to") {
        let to = resolve_to(input, &own)
            .ok_or_else(|| MetaError::invalid("Param to is not a valid phone number."))?;
        if phone::digits(&to) == own {
            return Err(MetaError::coded(
                131_021,
                "Recipient phone number cannot be the sender's.",
            ));
        }
        return Ok(Recipient {
            customer: state.customer(&to).clone(),
            input: input.to_owned(),
            by_user_id: false,
        });
    }
    let Some(input) = given("recipient") else {
        return Err(MetaError::parameter("The parameter to is required."));
    };
    if !phone::is_user_id(input) {
        return Err(MetaError::invalid(
            "Param recipient is not a business-scoped user id.",
        ));
    }
    let customer = state
        .customer_by_user_id(input)
        .cloned()
        .ok_or_else(|| MetaError::coded(131_026, "No user has this business-scoped user id."))?;
    Ok(Recipient {
        customer,
        input: input.to_owned(),
        by_user_id: true,
    })
}

/// The number Meta would write to. With `+` it is taken at its word; without, a number that is too
/// short or starts with 0 gets the *business's* country code, which is the trap senders fall into.
fn resolve_to(input: &str, own: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_digit() || " -().+".contains(c);
    if !input.chars().all(plain) || input.rfind('+').is_some_and(|at| at != 0) {
        return None;
    }
    let digits = phone::digits(input);
    let doubtful = digits.starts_with('0') || digits.len() <= 10;
    let full = if !input.starts_with('+') && doubtful {
        let code = phone::calling_code(own).unwrap_or_default();
        format!("+{code}{}", digits.trim_start_matches('0'))
    } else {
        format!("+{digits}")
    };
    phone::is_e164(&full).then_some(full)
}

/// Refuses an id that is none; says whether the type of the file fits the message.
fn media_fits(
    state: &WorldState,
    number: &MetaNumber,
    kind: &str,
    content: &Value,
) -> Result<bool, MetaError> {
    if !validate::MEDIA_KINDS.contains(&kind) {
        return Ok(true);
    }
    let Some(id) = content["id"].as_str() else {
        return Ok(true);
    };
    let media = state.media(id).filter(|media| {
        state
            .meta_numbers
            .get(&media.owner)
            .is_some_and(|owner| owner.waba_id == number.waba_id)
    });
    let media = media.ok_or_else(|| {
        MetaError::parameter(format!(
            "Param {kind}['id'] is not a valid whatsapp business account media attachment ID"
        ))
    })?;
    Ok(upload::fits(kind, &media.mime_type))
}

/// The words of a message as a person sees them.
fn spoken(kind: &str, content: &Value) -> Option<String> {
    let words = match kind {
        "text" => &content["body"],
        "interactive" => &content["body"]["text"],
        "location" => &content["name"],
        "reaction" => &content["emoji"],
        _ => &content["caption"],
    };
    words.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_plus_may_get_the_country_of_the_business() {
        let own = "14155550100";
        let full = |input| resolve_to(input, own);
        assert_eq!(full("+20 100 123-4567").as_deref(), Some("+201001234567"));
        assert_eq!(full("201001234567").as_deref(), Some("+201001234567"));
        assert_eq!(full("01001234567").as_deref(), Some("+11001234567"));
        for wrong in ["", "+", "abc", "20+1001234567", "EG.134912345"] {
            assert_eq!(full(wrong), None, "{wrong}");
        }
    }
}
