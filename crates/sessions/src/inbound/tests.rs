use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use wasel_domain::event::{Identity, IdentityKind};
use wasel_domain::{MessageKind, MessageStatus, ProviderEvent};
use whatsapp_rust::prelude::{MessageField, wa};
use whatsapp_rust::waproto::codec;

use super::*;

const AT: i64 = 1_795_000_000;

fn heard(message: &wa::Message) -> Heard {
    Heard {
        id: "3EB0AA".to_owned(),
        who: Who {
            number: Some("201012345678".to_owned()),
            lid: Some("111222".to_owned()),
            group: None,
        },
        name: Some("Mona".to_owned()),
        group: None,
        from_us: false,
        at: AT,
        message: BASE64_STANDARD.encode(codec::message_to_vec(message)),
        from_history: false,
        past: None,
    }
}

fn events(message: &wa::Message) -> Vec<ProviderEvent> {
    translate(&heard(message), message)
}

fn content(message: &wa::Message) -> wasel_domain::MessageContent {
    match events(message).as_slice() {
        [ProviderEvent::Message(inbound)] => inbound.content.clone(),
        other => panic!("one message was expected: {other:?}"),
    }
}

fn text(body: &str) -> wa::Message {
    wa::Message {
        conversation: Some(body.to_owned()),
        ..Default::default()
    }
}

fn wrapped(inner: wa::Message) -> MessageField<wa::message::FutureProofMessage> {
    MessageField::some(wa::message::FutureProofMessage {
        message: MessageField::some(inner),
    })
}

#[test]
fn a_text_names_its_writer_by_number_first() {
    let events = events(&text("مرحبا"));
    let [ProviderEvent::Message(inbound)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(inbound.content.text.as_deref(), Some("مرحبا"));
    assert_eq!(inbound.customer.name.as_deref(), Some("Mona"));
    assert_eq!(
        inbound.customer.identities,
        [
            Identity::new(IdentityKind::Phone, "+201012345678"),
            Identity::new(IdentityKind::Jid, "201012345678@s.whatsapp.net"),
            Identity::new(IdentityKind::Lid, "111222@lid"),
        ]
    );
    assert_eq!(inbound.sent_at.timestamp(), AT);
}

#[test]
fn an_answer_names_what_it_answers_and_a_forwarded_ad_click_says_so() {
    let context = wa::ContextInfo {
        stanza_id: Some("OURS".to_owned()),
        is_forwarded: Some(true),
        external_ad_reply: MessageField::some(wa::context_info::ExternalAdReplyInfo {
            title: Some("Sale".to_owned()),
            source_url: Some("https://fb.me/x".to_owned()),
            ctwa_clid: Some("clid".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let message = wa::Message {
        extended_text_message: MessageField::some(wa::message::ExtendedTextMessage {
            text: Some("yes".to_owned()),
            context_info: MessageField::some(context),
            ..Default::default()
        }),
        ..Default::default()
    };
    let events = events(&message);
    let [ProviderEvent::Message(inbound)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(inbound.quoted_message_id.as_deref(), Some("OURS"));
    assert!(inbound.forwarded);
    let referral = inbound.referral.as_ref().unwrap();
    assert_eq!(referral["headline"], "Sale");
    assert_eq!(referral["ctwa_clid"], "clid");
}

macro_rules! with_file {
    ($kind:ident { $($field:ident: $value:expr),* $(,)? }) => {
        MessageField::some(wa::message::$kind {
            direct_path: Some("/v/x".to_owned()),
            media_key: Some(vec![1; 32]),
            file_sha256: Some(vec![2; 32]),
            file_enc_sha256: Some(vec![3; 32]),
            file_length: Some(5),
            $($field: $value,)*
            ..Default::default()
        })
    };
}

#[test]
fn every_kind_of_file_is_read() {
    let some = |text: &str| Some(text.to_owned());
    let image = wa::Message {
        image_message: with_file!(ImageMessage {
            caption: some("look"),
            mimetype: some("image/png")
        }),
        ..Default::default()
    };
    let video = wa::Message {
        video_message: with_file!(VideoMessage {
            gif_playback: Some(true)
        }),
        ..Default::default()
    };
    let voice = wa::Message {
        audio_message: with_file!(AudioMessage { ptt: Some(true) }),
        ..Default::default()
    };
    let document = wa::Message {
        document_message: with_file!(DocumentMessage {
            file_name: some("a.pdf"),
            caption: some("bill")
        }),
        ..Default::default()
    };
    let sticker = wa::Message {
        sticker_message: with_file!(StickerMessage {
            is_animated: Some(true)
        }),
        ..Default::default()
    };
    for (message, kind, caption, detail) in [
        (&image, MessageKind::Image, Some("look"), Value::Null),
        (&video, MessageKind::Video, None, json!({"animated": true})),
        (&voice, MessageKind::Audio, None, Value::Null),
        (&document, MessageKind::Document, Some("bill"), Value::Null),
        (
            &sticker,
            MessageKind::Sticker,
            None,
            json!({"animated": true}),
        ),
    ] {
        let content = content(message);
        assert_eq!(content.kind, kind);
        assert_eq!(content.text.as_deref(), caption, "{kind:?}");
        assert_eq!(content.detail, detail, "{kind:?}");
        let [media] = content.media.as_slice() else {
            panic!("{kind:?} has one file");
        };
        assert!(media.provider_id.is_some());
        assert_eq!(media.voice, kind == MessageKind::Audio);
    }
    assert_eq!(
        content(&document).media[0].filename.as_deref(),
        Some("a.pdf")
    );
    assert_eq!(
        content(&image).media[0].mime_type.as_deref(),
        Some("image/png")
    );
}

#[test]
fn wrappers_are_taken_off_however_they_are_nested() {
    let once = wa::Message {
        view_once_message_v2: wrapped(text("secret")),
        ..Default::default()
    };
    let disappearing = wa::Message {
        ephemeral_message: wrapped(once),
        ..Default::default()
    };
    assert_eq!(content(&disappearing).text.as_deref(), Some("secret"));

    let mut deep = text("too deep");
    for _ in 0..50 {
        deep = wa::Message {
            ephemeral_message: wrapped(deep),
            ..Default::default()
        };
    }
    assert_eq!(events(&deep), []);
}

#[test]
fn places_cards_and_choices_have_the_shapes_all_providers_share() {
    let place = wa::Message {
        location_message: MessageField::some(wa::message::LocationMessage {
            degrees_latitude: Some(30.05),
            degrees_longitude: Some(31.25),
            name: Some("Office".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let place = content(&place);
    assert_eq!(place.kind, MessageKind::Location);
    assert_eq!(place.text.as_deref(), Some("Office"));
    assert_eq!(
        place.detail,
        json!({"latitude": 30.05, "longitude": 31.25, "name": "Office"})
    );

    let card = wa::Message {
        contact_message: MessageField::some(wa::message::ContactMessage {
            display_name: Some("Ali".to_owned()),
            vcard: Some(
                "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ali\r\nitem1.TEL;type=CELL;waid=20100:+20 100\r\nEND:VCARD"
                    .to_owned(),
            ),
            ..Default::default()
        }),
        ..Default::default()
    };
    let card = content(&card);
    assert_eq!(card.text.as_deref(), Some("Ali"));
    assert_eq!(
        card.detail["contacts"][0]["phones"],
        json!([{"phone": "+20 100", "wa_id": "20100"}])
    );

    let row = wa::Message {
        list_response_message: MessageField::some(wa::message::ListResponseMessage {
            title: Some("Tuesday".to_owned()),
            single_select_reply: MessageField::some(
                wa::message::list_response_message::SingleSelectReply {
                    selected_row_id: Some("day-2".to_owned()),
                },
            ),
            ..Default::default()
        }),
        ..Default::default()
    };
    let row = content(&row);
    assert_eq!(row.kind, MessageKind::Interactive);
    assert_eq!(row.detail["type"], "list_reply");
    assert_eq!(row.detail["id"], "day-2");

    let tap = wa::Message {
        template_button_reply_message: MessageField::some(
            wa::message::TemplateButtonReplyMessage {
                selected_id: Some("p".to_owned()),
                selected_display_text: Some("Yes".to_owned()),
                ..Default::default()
            },
        ),
        ..Default::default()
    };
    let tap = content(&tap);
    assert_eq!(tap.kind, MessageKind::Button);
    assert_eq!(tap.detail, json!({"payload": "p", "text": "Yes"}));
}

#[test]
fn a_poll_is_shown_in_words_and_what_has_no_file_says_that_a_file_came() {
    let option = |name: &str| wa::message::poll_creation_message::Option {
        option_name: Some(name.to_owned()),
        ..Default::default()
    };
    let poll = wa::Message {
        poll_creation_message_v3: MessageField::some(wa::message::PollCreationMessage {
            name: Some("Lunch?".to_owned()),
            options: vec![option("Koshari"), option("Fuul")],
            ..Default::default()
        }),
        ..Default::default()
    };
    let poll = content(&poll);
    assert_eq!(poll.kind, MessageKind::Unsupported);
    assert_eq!(poll.text.as_deref(), Some("Lunch?\n- Koshari\n- Fuul"));

    let without_key = wa::Message {
        image_message: MessageField::some(wa::message::ImageMessage::default()),
        ..Default::default()
    };
    let without_key = content(&without_key);
    assert_eq!(without_key.kind, MessageKind::Unsupported);
    assert_eq!(without_key.detail, json!({"type": "file"}));
}

fn about(kind: wa::message::protocol_message::Type, edited: Option<wa::Message>) -> wa::Message {
    wa::Message {
        protocol_message: MessageField::some(wa::message::ProtocolMessage {
            key: MessageField::some(wa::MessageKey {
                id: Some("OLD".to_owned()),
                ..Default::default()
            }),
            r#type: Some(kind),
            edited_message: edited.map(MessageField::some).unwrap_or_default(),
            timestamp_ms: Some(AT * 1000 + 250),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn edits_deletions_and_reactions_are_about_another_message() {
    use wa::message::protocol_message::Type;
    let edit = about(Type::MESSAGE_EDIT, Some(text("better")));
    for edit in [
        edit.clone(),
        wa::Message {
            edited_message: wrapped(edit),
            ..Default::default()
        },
    ] {
        let events = events(&edit);
        let [ProviderEvent::Edit(edit)] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(edit.target_message_id, "OLD");
        assert_eq!(edit.content.text.as_deref(), Some("better"));
        assert_eq!(edit.at.timestamp_millis(), AT * 1000 + 250);
    }
    let revoked = events(&about(Type::REVOKE, None));
    let [ProviderEvent::Revoke(revoke)] = revoked.as_slice() else {
        panic!("{revoked:?}");
    };
    assert_eq!(revoke.target_message_id, "OLD");

    let reaction = |emoji: &str| wa::Message {
        reaction_message: MessageField::some(wa::message::ReactionMessage {
            key: MessageField::some(wa::MessageKey {
                id: Some("OLD".to_owned()),
                ..Default::default()
            }),
            text: Some(emoji.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    for (emoji, expected) in [("👍", Some("👍")), ("", None)] {
        let events = events(&reaction(emoji));
        let [ProviderEvent::Reaction(reaction)] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(reaction.emoji.as_deref(), expected);
        assert_eq!(reaction.target_message_id, "OLD");
    }
}

#[test]
fn what_phones_tell_their_devices_is_no_message() {
    use wa::message::protocol_message::Type;
    let keys = wa::Message {
        sender_key_distribution_message: MessageField::some(Default::default()),
        ..Default::default()
    };
    for silent in [
        wa::Message::default(),
        keys,
        about(Type::APP_STATE_SYNC_KEY_SHARE, None),
        about(Type::HISTORY_SYNC_NOTIFICATION, None),
    ] {
        assert_eq!(events(&silent), []);
    }
}

#[test]
fn what_the_owner_writes_on_the_phone_is_an_echo_and_its_past_comes_along() {
    let message = text("from the phone");
    let heard = Heard {
        from_us: true,
        past: Some(Receipt::Read),
        ..heard(&message)
    };
    let events = translate(&heard, &message);
    let [ProviderEvent::Echo(echo), ProviderEvent::Status(status)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(echo.content.text.as_deref(), Some("from the phone"));
    assert_eq!(status.status, MessageStatus::Read);
    assert_eq!(status.provider_message_id, "3EB0AA");
}

#[test]
fn a_group_message_names_the_group_and_its_writer() {
    let message = text("hi all");
    let heard = Heard {
        group: Some("120363@g.us".to_owned()),
        ..heard(&message)
    };
    let events = translate(&heard, &message);
    let [ProviderEvent::Message(inbound)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(inbound.group_id.as_deref(), Some("120363@g.us"));
    assert_eq!(inbound.customer.identities[0].value, "+201012345678");
}

#[test]
fn receipts_and_refusals_move_each_message_they_name() {
    let record = Record::new(vec![
        Item::Receipt {
            ids: vec!["A".to_owned(), "B".to_owned()],
            receipt: Receipt::Played,
            at: AT,
        },
        Item::Nack {
            id: "C".to_owned(),
            code: "463".to_owned(),
            at: AT,
        },
    ]);
    let events = record.events();
    let [
        ProviderEvent::Status(first),
        ProviderEvent::Status(second),
        ProviderEvent::Status(refused),
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!(first.provider_message_id, "A");
    assert_eq!(second.status, MessageStatus::Read);
    assert_eq!(second.detail, json!({"played": true}));
    assert_eq!(refused.status, MessageStatus::Failed);
    let error = refused.error.as_ref().unwrap();
    assert_eq!(error.code, "463");
    assert!(error.message.contains("new chats"), "{}", error.message);
}

#[test]
fn what_is_no_record_is_refused_with_a_reason() {
    assert!(replay(b"").is_err());
    assert!(replay(b"{}").is_err());
    assert!(replay(br#"{"linked_phone":99,"items":[]}"#).is_err());
    assert_eq!(replay(br#"{"linked_phone":1,"items":[]}"#).unwrap(), []);
}

fn any_item() -> impl Strategy<Value = Item> {
    let who = (
        prop::option::of("[1-9][0-9]{7,13}"),
        prop::option::of("[0-9]{10,15}"),
    )
        .prop_map(|(number, lid)| Who {
            number,
            lid,
            group: None,
        });
    let receipt = prop::sample::select(vec![Receipt::Delivered, Receipt::Read, Receipt::Played]);
    let message = (
        any::<String>(),
        who.clone(),
        any::<bool>(),
        0..i64::from(u32::MAX),
        prop::option::of(any::<String>()),
    )
        .prop_map(|(body, who, from_us, at, name)| {
            Item::Message(Heard {
                who,
                from_us,
                at,
                name,
                ..heard(&text(&body))
            })
        });
    prop_oneof![
        message,
        (
            prop::collection::vec(any::<String>(), 0..4),
            receipt,
            any::<i64>()
        )
            .prop_map(|(ids, receipt, at)| Item::Receipt { ids, receipt, at }),
        (any::<String>(), any::<String>(), any::<i64>()).prop_map(|(id, code, at)| Item::Nack {
            id,
            code,
            at
        }),
        (who.clone(), who, any::<i64>()).prop_map(|(before, now, at)| Item::NumberChanged {
            before,
            now,
            at
        }),
    ]
}

proptest! {
    #[test]
    fn a_replay_of_the_ledger_gives_the_same_events(
        items in prop::collection::vec(any_item(), 0..6),
    ) {
        let record = Record::new(items);
        prop_assert_eq!(replay(&record.to_bytes()).unwrap(), record.events());
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let message = BASE64_STANDARD.encode(&bytes);
        let item = Item::Message(Heard { message, ..heard(&wa::Message::default()) });
        let _ = Record::new(vec![item]).events();
        let _ = replay(&bytes);
    }
}
