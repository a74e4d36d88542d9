//! What a WhatsApp message holds, in the shapes all providers share ([`MessageContent::detail`]).

use serde_json::{Map, Value, json};
use wa::message::buttons_response_message::Response as ButtonResponse;
use wa::message::interactive_response_message::InteractiveResponseMessage as FlowResponse;
use wasel_domain::{MessageContent, MessageKind};
use whatsapp_rust::prelude::wa;

use crate::media::{self, FileKind};

/// The message inside its wrappers (disappearing, view once, with caption, …).
pub(super) fn unwrap(message: &wa::Message) -> &wa::Message {
    /// Nobody wraps deeper; a hostile sender might.
    const DEEPEST: usize = 8;
    let mut current = message;
    for _ in 0..DEEPEST {
        let wrappers = [
            &current.ephemeral_message,
            &current.view_once_message,
            &current.view_once_message_v2,
            &current.view_once_message_v2_extension,
            &current.document_with_caption_message,
            &current.edited_message,
            &current.group_mentioned_message,
            &current.lottie_sticker_message,
            &current.associated_child_message,
            &current.spoiler_message,
            &current.question_message,
            &current.question_reply_message,
        ];
        let inner = wrappers
            .into_iter()
            .find_map(|wrapper| wrapper.as_option()?.message.as_option())
            .or_else(|| current.device_sent_message.as_option()?.message.as_option());
        match inner {
            Some(inner) => current = inner,
            None => break,
        }
    }
    current
}

/// `None` for what is no message to anybody: keys, votes, pins, news between the phone and its linked devices.
pub(super) fn read(message: &wa::Message) -> Option<MessageContent> {
    if let Some(text) = &message.conversation {
        return Some(MessageContent::text(text));
    }
    if let Some(extended) = message.extended_text_message.as_option() {
        return Some(MessageContent::text(
            extended.text.as_deref().unwrap_or_default(),
        ));
    }
    file(message)
        .or_else(|| place(message))
        .or_else(|| cards(message))
        .or_else(|| choice(message))
        .or_else(|| order(message))
        .or_else(|| unsupported(message))
}

fn with_detail(kind: MessageKind, text: Option<String>, detail: Value) -> MessageContent {
    MessageContent {
        kind,
        text: text.filter(|text| !text.is_empty()),
        media: Vec::new(),
        detail,
    }
}

fn file(message: &wa::Message) -> Option<MessageContent> {
    let (kind, text, media, detail) = if let Some(image) = message.image_message.as_option() {
        let file = media::reference(
            image,
            FileKind::Image,
            image.mimetype.as_deref(),
            &image.url,
        )?;
        (MessageKind::Image, image.caption.clone(), file, Value::Null)
    } else if let Some(video) = message
        .video_message
        .as_option()
        .or(message.ptv_message.as_option())
    {
        let file = media::reference(
            video,
            FileKind::Video,
            video.mimetype.as_deref(),
            &video.url,
        )?;
        let detail = if video.gif_playback == Some(true) {
            json!({"animated": true})
        } else {
            Value::Null
        };
        (MessageKind::Video, video.caption.clone(), file, detail)
    } else if let Some(audio) = message.audio_message.as_option() {
        let mut file = media::reference(
            audio,
            FileKind::Audio,
            audio.mimetype.as_deref(),
            &audio.url,
        )?;
        file.voice = audio.ptt == Some(true);
        (MessageKind::Audio, None, file, Value::Null)
    } else if let Some(document) = message.document_message.as_option() {
        let mut file = media::reference(
            document,
            FileKind::Document,
            document.mimetype.as_deref(),
            &document.url,
        )?;
        file.filename = document
            .file_name
            .clone()
            .or_else(|| document.title.clone());
        (
            MessageKind::Document,
            document.caption.clone(),
            file,
            Value::Null,
        )
    } else if let Some(sticker) = message.sticker_message.as_option() {
        let file = media::reference(
            sticker,
            FileKind::Sticker,
            sticker.mimetype.as_deref(),
            &sticker.url,
        )?;
        let detail = if sticker.is_animated == Some(true) {
            json!({"animated": true})
        } else {
            Value::Null
        };
        (MessageKind::Sticker, None, file, detail)
    } else {
        return None;
    };
    Some(MessageContent {
        media: vec![media],
        ..with_detail(kind, text, detail)
    })
}

fn place(message: &wa::Message) -> Option<MessageContent> {
    let mut detail = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            detail.insert(name.to_owned(), value);
        }
    };
    let text;
    if let Some(place) = message.location_message.as_option() {
        put("latitude", Some(place.degrees_latitude?.into()));
        put("longitude", Some(place.degrees_longitude?.into()));
        put("name", place.name.clone().map(Value::from));
        put("address", place.address.clone().map(Value::from));
        put("url", place.url.clone().map(Value::from));
        put("live", place.is_live.filter(|live| *live).map(Value::from));
        text = place.name.clone().or_else(|| place.address.clone());
    } else {
        let place = message.live_location_message.as_option()?;
        put("latitude", Some(place.degrees_latitude?.into()));
        put("longitude", Some(place.degrees_longitude?.into()));
        put("live", Some(true.into()));
        text = place.caption.clone();
    }
    Some(with_detail(MessageKind::Location, text, detail.into()))
}

fn cards(message: &wa::Message) -> Option<MessageContent> {
    let cards: Vec<&wa::message::ContactMessage> =
        if let Some(card) = message.contact_message.as_option() {
            vec![card]
        } else {
            message
                .contacts_array_message
                .as_option()?
                .contacts
                .iter()
                .collect()
        };
    let names: Vec<&str> = cards
        .iter()
        .filter_map(|card| card.display_name.as_deref())
        .collect();
    let text = names.join(", ");
    let cards: Vec<Value> = cards.into_iter().map(card).collect();
    Some(with_detail(
        MessageKind::Contacts,
        Some(text),
        json!({"contacts": cards}),
    ))
}

/// In the Cloud API's form, with the vCard beside it.
fn card(card: &wa::message::ContactMessage) -> Value {
    let vcard = card.vcard.as_deref().unwrap_or_default();
    let phones: Vec<Value> = vcard
        .lines()
        .filter_map(|line| {
            let (name, number) = line.split_once(':')?;
            // `item1.TEL;type=CELL;waid=2010…:+20 10 …`
            let mut parts = name.split(';');
            let property = parts.next()?.rsplit('.').next()?;
            if !property.eq_ignore_ascii_case("TEL") {
                return None;
            }
            let wa_id = parts.find_map(|part| part.strip_prefix("waid="));
            let mut phone = json!({"phone": number.trim()});
            if let Some(wa_id) = wa_id {
                phone["wa_id"] = wa_id.into();
            }
            Some(phone)
        })
        .collect();
    json!({
        "name": {"formatted_name": card.display_name},
        "phones": phones,
        "vcard": vcard,
    })
}

/// The customer's choice among buttons or in a list.
fn choice(message: &wa::Message) -> Option<MessageContent> {
    if let Some(button) = message.buttons_response_message.as_option() {
        let title = button.response.as_ref().map(|response| match response {
            ButtonResponse::SelectedDisplayText(text) => text.clone(),
        });
        let detail =
            json!({"type": "button_reply", "id": button.selected_button_id, "title": title});
        return Some(with_detail(MessageKind::Interactive, title, detail));
    }
    if let Some(list) = message.list_response_message.as_option() {
        let row = list.single_select_reply.as_option();
        let detail = json!({
            "type": "list_reply",
            "id": row.and_then(|row| row.selected_row_id.clone()),
            "title": list.title,
            "description": list.description,
        });
        return Some(with_detail(
            MessageKind::Interactive,
            list.title.clone(),
            detail,
        ));
    }
    if let Some(button) = message.template_button_reply_message.as_option() {
        let text = button.selected_display_text.clone();
        let detail = json!({"payload": button.selected_id, "text": text});
        return Some(with_detail(MessageKind::Button, text, detail));
    }
    let flow = message.interactive_response_message.as_option()?;
    let mut detail = json!({"type": "nfm_reply"});
    if let Some(FlowResponse::NativeFlowResponseMessage(response)) =
        &flow.interactive_response_message
    {
        detail["name"] = json!(response.name);
        let answers = response.params_json.as_deref().unwrap_or_default();
        detail["response"] = serde_json::from_str(answers).unwrap_or_else(|_| answers.into());
    }
    let text = flow.body.as_option().and_then(|body| body.text.clone());
    Some(with_detail(MessageKind::Interactive, text, detail))
}

fn order(message: &wa::Message) -> Option<MessageContent> {
    let order = message.order_message.as_option()?;
    let text = order.message.clone().or_else(|| order.order_title.clone());
    let detail = json!({
        "order_id": order.order_id,
        "text": order.message,
        "title": order.order_title,
        "item_count": order.item_count,
        "product_items": [],
    });
    Some(with_detail(MessageKind::Order, text, detail))
}

/// What we cannot show: its words where it has some, and what it is.
fn unsupported(message: &wa::Message) -> Option<MessageContent> {
    let polls = [
        &message.poll_creation_message,
        &message.poll_creation_message_v2,
        &message.poll_creation_message_v3,
        &message.poll_creation_message_v5,
        &message.poll_creation_message_v6,
    ];
    let (kind, text) = if let Some(poll) = polls.into_iter().find_map(|poll| poll.as_option()) {
        let mut text = poll.name.clone().unwrap_or_default();
        for option in &poll.options {
            text.push_str("\n- ");
            text.push_str(option.option_name.as_deref().unwrap_or_default());
        }
        ("poll", Some(text))
    } else if let Some(event) = message.event_message.as_option() {
        ("event", event.name.clone())
    } else if let Some(invite) = message.group_invite_message.as_option() {
        (
            "group_invite",
            invite.caption.clone().or_else(|| invite.group_name.clone()),
        )
    } else if let Some(product) = message.product_message.as_option() {
        let title = product
            .product
            .as_option()
            .and_then(|product| product.title.clone());
        ("product", product.body.clone().or(title))
    } else if let Some(pack) = message.sticker_pack_message.as_option() {
        ("sticker_pack", pack.name.clone())
    } else if let Some(list) = message.list_message.as_option() {
        (
            "list",
            list.description.clone().or_else(|| list.title.clone()),
        )
    } else if let Some(buttons) = message.buttons_message.as_option() {
        ("buttons", buttons.content_text.clone())
    } else if let Some(interactive) = message.interactive_message.as_option() {
        let body = interactive.body.as_option();
        ("interactive", body.and_then(|body| body.text.clone()))
    } else if message.template_message.is_set() || message.highly_structured_message.is_set() {
        ("template", None)
    } else if message.call_log_messsage.is_set() || message.bcall_message.is_set() {
        ("call", None)
    } else if message.send_payment_message.is_set()
        || message.request_payment_message.is_set()
        || message.invoice_message.is_set()
    {
        ("payment", None)
    } else if message.placeholder_message.is_set() {
        ("placeholder", None)
    } else if message.image_message.is_set()
        || message.video_message.is_set()
        || message.audio_message.is_set()
        || message.document_message.is_set()
        || message.sticker_message.is_set()
    {
        // Without the key or the place of its file.
        ("file", None)
    } else {
        return None;
    };
    Some(with_detail(
        MessageKind::Unsupported,
        text,
        json!({"type": kind}),
    ))
}

/// What the message says about its surroundings: the one it answers, whether it was forwarded, the ad it came by.
pub(super) fn context(message: &wa::Message) -> Option<&wa::ContextInfo> {
    macro_rules! first_of {
        ($($field:ident),+ $(,)?) => {
            None$(.or_else(|| message.$field.as_option()?.context_info.as_option()))+
        };
    }
    first_of!(
        extended_text_message,
        image_message,
        video_message,
        ptv_message,
        audio_message,
        document_message,
        sticker_message,
        location_message,
        live_location_message,
        contact_message,
        contacts_array_message,
        buttons_response_message,
        list_response_message,
        template_button_reply_message,
        interactive_response_message,
        order_message,
        product_message,
        group_invite_message,
        event_message,
        poll_creation_message,
        poll_creation_message_v2,
        poll_creation_message_v3,
    )
}

/// The ad or post, as the Cloud API describes one.
pub(super) fn referral(context: &wa::ContextInfo) -> Option<Value> {
    let ad = context.external_ad_reply.as_option()?;
    if ad.source_url.is_none() && ad.ctwa_clid.is_none() && ad.source_id.is_none() {
        return None;
    }
    let mut referral = Map::new();
    for (name, value) in [
        ("source_type", &ad.source_type),
        ("source_id", &ad.source_id),
        ("source_url", &ad.source_url),
        ("headline", &ad.title),
        ("body", &ad.body),
        ("image_url", &ad.thumbnail_url),
        ("ctwa_clid", &ad.ctwa_clid),
    ] {
        if let Some(value) = value {
            referral.insert(name.to_owned(), value.as_str().into());
        }
    }
    Some(referral.into())
}
