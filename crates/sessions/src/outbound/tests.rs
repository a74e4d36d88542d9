use serde_json::json;
use wasel_domain::content::{MediaSource, OutboundMedia, OutboundTemplate};
use whatsapp_rust::prelude::wa;

use super::*;

fn outgoing(content: OutboundContent) -> Outgoing {
    Outgoing {
        message_id: Uuid::from_u128(0x0192_f1a0_0000_7000_8000_0000_0000_00ff),
        to: Recipient::Phone(E164::from_wa_id("201012345678").unwrap()),
        content,
        media: None,
        quoted: None,
    }
}

fn with_file(content: OutboundContent, mime_type: &str) -> Outgoing {
    Outgoing {
        media: Some(MediaFile {
            bytes: Bytes::from_static(b"file"),
            mime_type: mime_type.to_owned(),
        }),
        ..outgoing(content)
    }
}

fn text(body: &str) -> OutboundContent {
    OutboundContent::Text {
        body: body.to_owned(),
        preview_url: true,
    }
}

fn media(caption: Option<&str>, voice: bool) -> OutboundMedia {
    OutboundMedia {
        source: MediaSource::Link("https://example.com/x".to_owned()),
        caption: caption.map(str::to_owned),
        filename: Some("a.pdf".to_owned()),
        voice,
    }
}

fn upload() -> Stored {
    Stored {
        url: "https://mmg.whatsapp.net/x".to_owned(),
        direct_path: "/x".to_owned(),
        media_key: vec![1; 32],
        file_enc_sha256: vec![2; 32],
        file_sha256: vec![3; 32],
        file_length: 4,
        media_key_timestamp: 5,
        streaming_sidecar: None,
    }
}

fn composed(message: &Outgoing) -> Result<wa::Message, SendFailure> {
    let upload = message.media.is_some().then(upload);
    let chat = message.to.jid().unwrap();
    compose(message, upload, &chat, &Jid::pn("49151"), 1_795_000_000_000)
}

fn refused(message: &Outgoing) -> &'static str {
    match composed(message) {
        Err(SendFailure::Content { field, .. }) => field,
        other => panic!("should be refused: {other:?}"),
    }
}

#[test]
fn each_attempt_at_a_message_carries_the_same_id_which_is_recognised_as_ours() {
    let id = provider_message_id(Uuid::from_u128(0x0192_f1a0_0000_7000_8000_0000_0000_00ff));
    assert_eq!(id, "0192F1A00000700080000000000000FF");
    assert!(is_ours(&id));
    for other in [
        "3EB0C767D097B7C7C7C7",
        "0192f1a00000700080000000000000ff",
        "",
    ] {
        assert!(!is_ours(other), "{other}");
    }
}

#[test]
fn a_plain_text_stays_plain_and_an_answer_names_what_it_answers() {
    let plain = composed(&outgoing(text("hello"))).unwrap();
    assert_eq!(plain.conversation.as_deref(), Some("hello"));

    let quoted = |from_us| Outgoing {
        quoted: Some(Quoted {
            provider_message_id: "THEIRS".to_owned(),
            from_us,
            text: Some("when?".to_owned()),
            participant: None,
        }),
        ..outgoing(text("now"))
    };
    for (from_us, author) in [
        (false, "201012345678@s.whatsapp.net"),
        (true, "49151@s.whatsapp.net"),
    ] {
        let answer = composed(&quoted(from_us)).unwrap();
        assert_eq!(answer.extended_text_message.text.as_deref(), Some("now"));
        let context = &answer.extended_text_message.context_info;
        assert_eq!(context.stanza_id.as_deref(), Some("THEIRS"));
        assert_eq!(context.participant.as_deref(), Some(author));
        assert_eq!(
            context.quoted_message.conversation.as_deref(),
            Some("when?")
        );
    }
}

#[test]
fn files_go_with_their_keys_and_captions() {
    let image = with_file(
        OutboundContent::Image(media(Some("look"), false)),
        "image/png",
    );
    let image = composed(&image).unwrap().image_message.unwrap();
    assert_eq!(image.caption.as_deref(), Some("look"));
    assert_eq!(image.mimetype.as_deref(), Some("image/png"));
    assert_eq!(image.media_key, Some(vec![1; 32]));

    let voice = with_file(OutboundContent::Audio(media(None, true)), "audio/ogg");
    let voice = composed(&voice).unwrap().audio_message.unwrap();
    assert_eq!(voice.ptt, Some(true));
    assert_eq!(voice.mimetype.as_deref(), Some("audio/ogg; codecs=opus"));

    let document = with_file(
        OutboundContent::Document(media(None, false)),
        "application/pdf",
    );
    let document = composed(&document).unwrap().document_message.unwrap();
    assert_eq!(document.file_name.as_deref(), Some("a.pdf"));

    let sticker = with_file(OutboundContent::Sticker(media(None, false)), "image/webp");
    let sticker = composed(&sticker).unwrap().sticker_message.unwrap();
    assert_eq!(sticker.direct_path.as_deref(), Some("/x"));
}

#[test]
fn what_a_recipient_could_not_see_is_refused_and_the_field_named() {
    let voice = with_file(OutboundContent::Audio(media(None, true)), "audio/mpeg");
    assert_eq!(refused(&voice), "media");
    let sticker = with_file(OutboundContent::Sticker(media(None, false)), "image/png");
    assert_eq!(refused(&sticker), "media");
    let without_file = outgoing(OutboundContent::Image(media(None, false)));
    assert_eq!(refused(&without_file), "media");
    let template = outgoing(OutboundContent::Template(OutboundTemplate::default()));
    assert_eq!(refused(&template), "template");
    let email = outgoing(OutboundContent::Email {
        subject: "s".to_owned(),
        text: None,
        html: None,
    });
    assert_eq!(refused(&email), "type");
    let nothing = outgoing(OutboundContent::Interactive {
        interactive: json!({"type": "button"}),
    });
    assert_eq!(refused(&nothing), "interactive");
}

#[test]
fn buttons_and_lists_become_numbered_lines() {
    let buttons = outgoing(OutboundContent::Interactive {
        interactive: json!({
            "type": "button",
            "header": {"type": "text", "text": "Your order"},
            "body": {"text": "Is it right?"},
            "footer": {"text": "Answer any time"},
            "action": {"buttons": [
                {"type": "reply", "reply": {"id": "y", "title": "Yes"}},
                {"type": "reply", "reply": {"id": "n", "title": "No"}},
            ]},
        }),
    });
    assert_eq!(
        composed(&buttons).unwrap().conversation.as_deref(),
        Some("*Your order*\n\nIs it right?\n\n1. Yes\n2. No\n\n_Answer any time_")
    );
    let list = outgoing(OutboundContent::Interactive {
        interactive: json!({
            "body": {"text": "Which day?"},
            "action": {"sections": [{"rows": [
                {"id": "1", "title": "Monday", "description": "9 to 5"},
                {"id": "2", "title": "Tuesday"},
            ]}]},
        }),
    });
    assert_eq!(
        composed(&list).unwrap().conversation.as_deref(),
        Some("Which day?\n\n1. Monday – 9 to 5\n2. Tuesday")
    );
    let link = outgoing(OutboundContent::Interactive {
        interactive: json!({
            "body": {"text": "Track it"},
            "action": {"name": "cta_url", "parameters": {"display_text": "Here", "url": "https://x.y"}},
        }),
    });
    assert_eq!(
        composed(&link).unwrap().conversation.as_deref(),
        Some("Track it\n\nHere: https://x.y")
    );
}

#[test]
fn a_template_goes_as_its_text() {
    let template = outgoing(OutboundContent::Template(OutboundTemplate {
        text: Some("Dear Mona".to_owned()),
        ..OutboundTemplate::default()
    }));
    assert_eq!(
        composed(&template).unwrap().conversation.as_deref(),
        Some("Dear Mona")
    );
}

#[test]
fn a_card_is_a_vcard_that_its_fields_cannot_break_out_of() {
    let contacts = vec![json!({
        "name": {"formatted_name": "Ali; Hassan\nEND:VCARD", "first_name": "Ali"},
        "phones": [{"phone": "+20 100", "type": "work"}],
        "emails": [{"email": "a@b.c"}],
        "org": {"company": "A, B"},
    })];
    let message = composed(&outgoing(OutboundContent::Contacts { contacts })).unwrap();
    let card = message.contact_message.unwrap();
    let vcard = card.vcard.unwrap();
    let lines: Vec<&str> = vcard.split("\r\n").collect();
    assert_eq!(
        lines,
        [
            "BEGIN:VCARD",
            "VERSION:3.0",
            "N:;Ali;;;",
            "FN:Ali\\; Hassan\\nEND:VCARD",
            "ORG:A\\, B",
            "TEL;type=WORK;waid=20100:+20 100",
            "EMAIL;type=INTERNET:a@b.c",
            "END:VCARD",
        ]
    );

    let two = vec![
        json!({"name": {"formatted_name": "A"}}),
        json!({"vcard": "BEGIN:VCARD\nEND:VCARD"}),
    ];
    let message = composed(&outgoing(OutboundContent::Contacts { contacts: two })).unwrap();
    let cards = message.contacts_array_message.unwrap().contacts;
    assert_eq!(cards.len(), 2);
    assert_eq!(cards[1].vcard.as_deref(), Some("BEGIN:VCARD\nEND:VCARD"));
}

#[test]
fn a_reaction_names_its_message_and_who_wrote_it() {
    let reaction = OutboundContent::Reaction {
        message_id: "OURS".to_owned(),
        emoji: "👍".to_owned(),
    };
    let to_customer = composed(&outgoing(reaction.clone())).unwrap();
    assert_eq!(to_customer.reaction_message.key.from_me, Some(false));
    let to_ours = Outgoing {
        quoted: Some(Quoted {
            provider_message_id: "OURS".to_owned(),
            from_us: true,
            text: None,
            participant: None,
        }),
        ..outgoing(reaction)
    };
    let reaction = composed(&to_ours).unwrap().reaction_message.unwrap();
    assert_eq!(reaction.key.from_me, Some(true));
    assert_eq!(reaction.key.id.as_deref(), Some("OURS"));
    assert_eq!(reaction.text.as_deref(), Some("👍"));
}

#[test]
fn addresses_are_read_and_rubbish_is_refused() {
    let address = |to: Recipient| to.jid().map(|jid| jid.to_string());
    let lid = |text: &str| Recipient::Lid(text.to_owned());
    let group = |text: &str| Recipient::Group(text.to_owned());
    assert_eq!(address(lid("123")).unwrap(), "123@lid");
    assert_eq!(address(lid("123@lid")).unwrap(), "123@lid");
    assert_eq!(address(group("120363@g.us")).unwrap(), "120363@g.us");
    for rubbish in [
        lid(""),
        lid("abc"),
        lid("123@s.whatsapp.net"),
        group("123@lid"),
        group(""),
        Recipient::Jid("not an address @ all".to_owned()),
    ] {
        assert!(rubbish.jid().is_err(), "{rubbish:?}");
    }
}
