//! Webhooks about what the business did: statuses, templates, and any other field.

use serde_json::{Value, json};

use super::{error::webhook_error, json::escape, new_object_id};
use crate::{
    webhook::{Payload, Webhook},
    world::{Customer, Message, MetaNumber, Origin, Provider, Template, Tick, World, phone},
};

/// Sends one change of one field to a number's webhook. `customer` only keeps the order.
pub(crate) fn post_change(
    world: &World,
    number: &MetaNumber,
    customer: &str,
    field: &str,
    about: &str,
    message_id: Option<String>,
    value: Value,
) {
    let body = escape(&json!({
        "object": "whatsapp_business_account",
        "entry": [{"id": number.waba_id, "changes": [{"value": value, "field": field}]}],
    }));
    world.post(Webhook {
        provider: Provider::Meta,
        line: number.phone_number_id.clone(),
        customer: customer.to_owned(),
        url: number.webhook_url.clone(),
        about: about.to_owned(),
        message_id,
        payload: Payload::Meta {
            body,
            app_secret: number.app_secret.clone(),
        },
    });
}

/// `value` of the fields that belong to one number.
pub(super) fn number_value(number: &MetaNumber) -> Value {
    json!({
        "messaging_product": "whatsapp",
        "metadata": {
            "display_phone_number": phone::digits(&number.display_phone_number),
            "phone_number_id": number.phone_number_id,
        },
    })
}

/// Tells the status a message has now. `before` is the tick it had.
pub(crate) fn tell_status(world: &World, message: &Message, before: Tick) {
    let status = match message.tick {
        Tick::Sent => "sent",
        Tick::Delivered => "delivered",
        Tick::Read => "read",
        Tick::Failed => "failed",
        Tick::Scheduled | Tick::Accepted | Tick::Canceled => return,
    };
    // What the business wrote in its phone app has no statuses here.
    if message.origin != Origin::Api {
        return;
    }
    let (number, customer) = {
        let mut state = world.lock();
        let customer = state.customer(&message.customer).clone();
        let Ok(number) = state.meta_number(&message.line) else {
            return;
        };
        (number.clone(), customer)
    };
    let mut entry = json!({
        "id": message.id,
        "status": status,
        "timestamp": message.updated_at.timestamp().to_string(),
        "recipient_user_id": customer.user_id,
    });
    if customer.username.is_none() {
        entry["recipient_id"] = json!(phone::digits(&customer.number));
    }
    if let Some(reference) = &message.reference {
        entry["biz_opaque_callback_data"] = json!(reference);
    }
    if let Some(code) = message.error_code {
        entry["errors"] = json!([webhook_error(code)]);
    }
    // The price is on `sent` and on one of delivered and read.
    let priced = match message.tick {
        Tick::Sent | Tick::Delivered => true,
        Tick::Read => before < Tick::Delivered,
        _ => false,
    };
    if let Some(extra) = message.meta.as_ref().filter(|_| priced) {
        let free = extra.category == "service";
        entry["pricing"] = json!({
            "billable": !free,
            "pricing_model": "PMP",
            "type": if free { "free_customer_service" } else { "regular" },
            "category": extra.category,
        });
    }
    let mut value = number_value(&number);
    value["contacts"] = json!([contact(&customer)]);
    value["statuses"] = json!([entry]);
    post_change(
        world,
        &number,
        &message.customer,
        "messages",
        &format!("status:{status}"),
        Some(message.id.clone()),
        value,
    );
}

/// An element of `contacts[]`. A user with a username may come without a number.
pub(super) fn contact(customer: &Customer) -> Value {
    let mut profile = json!({"name": customer.name});
    let mut contact = json!({"user_id": customer.user_id});
    match &customer.username {
        Some(username) => profile["username"] = json!(username),
        None => contact["wa_id"] = json!(phone::digits(&customer.number)),
    }
    contact["profile"] = profile;
    contact
}

/// `message_template_status_update`. Account-level: no `metadata`, and the id is a number.
pub(crate) fn tell_template_status(
    world: &World,
    waba_id: &str,
    template: &Template,
    status: &str,
    reason: Option<&str>,
) {
    let mut value = about_template(template);
    value["event"] = json!(status);
    value["message_template_category"] = json!(template.category);
    value["reason"] = json!(reason);
    post_account_change(world, waba_id, "message_template_status_update", value);
}

/// `message_template_quality_update`, likewise.
pub(crate) fn tell_template_quality(
    world: &World,
    waba_id: &str,
    template: &Template,
    before: &str,
) {
    let or_unknown = |quality: &str| match quality {
        "" => json!("UNKNOWN"),
        quality => json!(quality),
    };
    let mut value = about_template(template);
    value["previous_quality_score"] = or_unknown(before);
    value["new_quality_score"] = or_unknown(&template.quality);
    post_account_change(world, waba_id, "message_template_quality_update", value);
}

fn about_template(template: &Template) -> Value {
    let id: u64 = template.id.parse().unwrap_or_default();
    json!({
        "message_template_id": id,
        "message_template_name": template.name,
        // Meta writes en-US here and en_US in the API.
        "message_template_language": template.language.replace('_', "-"),
    })
}

/// News of an account go out once, whichever its numbers are.
fn post_account_change(world: &World, waba_id: &str, field: &str, value: Value) {
    let number = {
        let state = world.lock();
        let number = state.meta_numbers.values().find(|n| n.waba_id == waba_id);
        number.cloned()
    };
    if let Some(number) = number {
        post_change(world, &number, "", field, "template", None, value);
    }
}

/// A user id for somebody who moved to another number.
pub(super) fn fresh_user_id(number: &str) -> String {
    format!("{}.{}", phone::country(number), new_object_id())
}
