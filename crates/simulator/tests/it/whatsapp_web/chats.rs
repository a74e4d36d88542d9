use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use chrono::DateTime;
use serde_json::json;
use wasel_simulator::{
    NewWhatsappPhone, OldWhatsappMessage, WhatsappContact, WhatsappContent, WhatsappDelete,
    WhatsappDisruption, WhatsappEdit, WhatsappFaults, WhatsappFile, WhatsappLocation,
    WhatsappPhoneSettings, WhatsappReaction, WhatsappSend, WhatsappTick,
};
use whatsapp_rust::{
    media::{DocumentOptions, ImageOptions, document_message, image_message},
    passkey::Assertion,
    prelude::*,
    upload::UploadOptions,
    wacore::download::MediaType,
};

use super::device::{Device, MONA, SHOP, eventually, stage};

#[tokio::test]
async fn a_device_is_linked_by_qr_and_texts_go_both_ways_with_receipts() {
    let (simulator, web) = stage().await;
    let (mut device, companion) = Device::linked(&web, SHOP).await;
    assert_eq!(companion.jid, format!("{SHOP}:1@s.whatsapp.net"));

    let id = device.text(MONA, "hello Mona").await;
    let received = eventually(|| web.message(MONA, &id)).await;
    assert_eq!(received.text.as_deref(), Some("hello Mona"));
    assert_eq!((received.copies, received.device), (1, 1));
    let own = eventually(|| web.message(SHOP, &id)).await;
    assert!(own.from_me && own.chat == MONA);
    device
        .wait(|event| match event {
            Event::Receipt(receipt) if receipt.message_ids.contains(&id) => Some(()),
            _ => None,
        })
        .await;

    let answer = web
        .send(&WhatsappSend::text(MONA, SHOP, "hello shop"))
        .expect("is sent");
    let heard = device.wait_text("hello shop").await;
    assert_eq!(heard.info.id, answer);
    assert_eq!(heard.info.push_name, "Mona");
    eventually(|| {
        let message = web.message(MONA, &answer)?;
        (message.tick >= WhatsappTick::Delivered).then_some(())
    })
    .await;

    device
        .client
        .mark_as_read(&heard.info.source.chat, None, &[answer.as_str()])
        .await
        .expect("is read");
    eventually(|| {
        let message = web.message(MONA, &answer)?;
        (message.tick == WhatsappTick::Read).then_some(())
    })
    .await;
    assert_eq!(web.failures(MONA).expect("known").len(), 0);

    let settings = WhatsappPhoneSettings {
        read_after_ms: Some(0),
        ..Default::default()
    };
    web.set_settings(MONA, settings).expect("known");
    let id = device.text(MONA, "read this").await;
    device
        .wait(|event| match event {
            Event::Receipt(receipt) if receipt.message_ids.contains(&id) => {
                (format!("{:?}", receipt.r#type) == "Read").then_some(())
            }
            _ => None,
        })
        .await;
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_restarted_device_logs_in_without_a_qr_and_gets_what_waited() {
    let (simulator, web) = stage().await;
    let (device, _) = Device::linked(&web, SHOP).await;
    device.text(MONA, "one").await;
    let store = device.stop().await;
    eventually(|| (!web.phone(SHOP).ok()?.companions[0].connected).then_some(())).await;
    for text in ["a", "b", "c"] {
        web.send(&WhatsappSend::text(MONA, SHOP, text))
            .expect("is sent");
    }
    let mut device = Device::start(&web, store).await;
    for text in ["a", "b", "c"] {
        device.wait_text(text).await;
    }
    device.connected().await;
    let id = device.text(MONA, "two").await;
    eventually(|| web.message(MONA, &id)).await;
    // Acknowledged, so nothing is kept any longer.
    eventually(|| {
        let phone = web.phone(SHOP).ok()?;
        (phone.companions[0].waiting == 0).then_some(())
    })
    .await;
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_device_is_linked_by_the_code_it_shows() {
    let (simulator, web) = stage().await;
    let mut device = Device::with_code(&web, Default::default(), Some(SHOP)).await;
    let code = device
        .wait(|event| match event {
            Event::PairingCode(pairing) => Some(pairing.code.clone()),
            _ => None,
        })
        .await;
    let linked = web.enter_code(SHOP, &code).await.expect("is linked");
    assert_eq!(linked.device, 1);
    device.connected().await;
    let id = device.text(MONA, "by code").await;
    eventually(|| web.message(MONA, &id)).await;
    device.stop().await;
    simulator.stop().await;
}

fn file(bytes: &[u8], mime: &str) -> WhatsappFile {
    WhatsappFile {
        base64: BASE64_STANDARD.encode(bytes),
        mime: mime.to_owned(),
        caption: Some("look".to_owned()),
        file_name: Some("a.pdf".to_owned()),
    }
}

#[tokio::test]
async fn files_go_both_ways_through_the_media_store() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();

    let image = WhatsappContent::Image(file(&bytes, "image/jpeg"));
    web.send(&WhatsappSend::new(MONA, SHOP, image))
        .expect("is sent");
    let heard = device.wait_message(|m| m.image_message.is_set()).await;
    let image = heard.message.image_message.as_option().expect("an image");
    assert_eq!(image.caption.as_deref(), Some("look"));
    let fetched = device.client.download(image).await.expect("is fetched");
    assert_eq!(fetched, bytes);
    let document = WhatsappContent::Document(file(b"%PDF", "application/pdf"));
    web.send(&WhatsappSend::new(MONA, SHOP, document))
        .expect("is sent");
    let heard = device.wait_message(|m| m.document_message.is_set()).await;
    let document = heard.message.document_message.as_option().expect("it");
    assert_eq!(document.file_name.as_deref(), Some("a.pdf"));
    let fetched = device.client.download(document).await.expect("is fetched");
    assert_eq!(fetched, b"%PDF");

    let uploaded = device
        .client
        .upload(bytes.clone(), MediaType::Image, UploadOptions::default())
        .await
        .expect("is uploaded");
    let message = image_message(
        uploaded,
        ImageOptions {
            caption: Some("from the shop".to_owned()),
            mimetype: Some("image/jpeg".to_owned()),
            ..Default::default()
        },
    );
    let sent = device.client.send_message(Jid::pn(MONA), message).await;
    let id = sent.expect("is sent").message_id.clone();
    let received = eventually(|| web.message(MONA, &id)).await;
    assert_eq!(received.kind, "image");
    assert_eq!(received.text.as_deref(), Some("from the shop"));
    assert_eq!(web.file(MONA, &id).expect("a file"), bytes);
    let uploaded = device
        .client
        .upload(
            b"%PDF".to_vec(),
            MediaType::Document,
            UploadOptions::default(),
        )
        .await
        .expect("is uploaded");
    let message = document_message(uploaded, DocumentOptions::default());
    let sent = device.client.send_message(Jid::pn(MONA), message).await;
    let id = sent.expect("is sent").message_id.clone();
    let received = eventually(|| web.message(MONA, &id)).await;
    assert_eq!(received.file_bytes, Some(4));
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn reactions_quotes_edits_deletions_places_and_contacts_arrive() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    let send = |content| {
        web.send(&WhatsappSend::new(MONA, SHOP, content))
            .expect("sent")
    };
    let first = send(WhatsappContent::Text("first".to_owned()));
    device.wait_text("first").await;

    let mut quoting = WhatsappSend::text(MONA, SHOP, "about that");
    quoting.quoted = Some(first.clone());
    web.send(&quoting).expect("is sent");
    let heard = device.wait_text("about that").await;
    let context = &heard.message.extended_text_message.context_info;
    assert_eq!(context.stanza_id.as_ref(), Some(&first));

    send(WhatsappContent::Reaction(WhatsappReaction {
        message_id: first.clone(),
        emoji: "👍".to_owned(),
    }));
    let heard = device.wait_message(|m| m.reaction_message.is_set()).await;
    assert_eq!(heard.message.reaction_message.key.id.as_ref(), Some(&first));
    send(WhatsappContent::Edit(WhatsappEdit {
        message_id: first.clone(),
        text: "first, corrected".to_owned(),
    }));
    send(WhatsappContent::Delete(WhatsappDelete {
        message_id: first.clone(),
    }));
    for _ in 0..2 {
        let heard = device
            .wait_message(|m| m.protocol_message.key.is_set())
            .await;
        assert_eq!(heard.message.protocol_message.key.id.as_ref(), Some(&first));
    }
    send(WhatsappContent::Location(WhatsappLocation {
        latitude: 30.0,
        longitude: 31.2,
        name: Some("Cairo".to_owned()),
        address: None,
    }));
    let heard = device.wait_message(|m| m.location_message.is_set()).await;
    assert_eq!(heard.message.location_message.degrees_longitude, Some(31.2));
    send(WhatsappContent::Contact(WhatsappContact {
        name: "Ali".to_owned(),
        number: "+20100".to_owned(),
    }));
    let heard = device.wait_message(|m| m.contact_message.is_set()).await;
    assert_eq!(
        heard.message.contact_message.display_name.as_deref(),
        Some("Ali")
    );
    let own = web.message(MONA, &first).expect("kept");
    assert!(own.edited && own.deleted && own.reactions.len() == 1);

    let id = device.text(MONA, "to be changed").await;
    eventually(|| web.message(MONA, &id)).await;
    let edited = wa::Message {
        conversation: Some("changed".to_owned()),
        ..Default::default()
    };
    device
        .client
        .edit_message(Jid::pn(MONA), id.clone(), edited)
        .await
        .expect("is edited");
    eventually(|| {
        let message = web.message(MONA, &id)?;
        (message.edited && message.text.as_deref() == Some("changed")).then_some(())
    })
    .await;
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn typing_is_seen_on_both_sides() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    web.typing(MONA, SHOP, "composing").expect("known");
    device
        .wait(|event| matches!(event, Event::ChatPresence(_)).then_some(()))
        .await;
    device.text(MONA, "hello").await;
    device
        .client
        .chatstate()
        .send_composing(&Jid::pn(MONA))
        .await
        .expect("is sent");
    eventually(|| {
        let phone = web.phone(MONA).ok()?;
        (phone.chats.first()?.typing.as_deref() == Some("composing")).then_some(())
    })
    .await;
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn groups_are_made_written_to_and_read() {
    let (simulator, web) = stage().await;
    web.register(&NewWhatsappPhone::new("15550200", "Ben"))
        .expect("registers");
    let (mut device, _) = Device::linked(&web, SHOP).await;
    let group = web
        .create_group(MONA, "Friends", &[SHOP, "15550200"])
        .expect("is made");
    let sent = web
        .send(&WhatsappSend::text(MONA, &group.jid, "hello all"))
        .expect("is sent");
    let heard = device.wait_text("hello all").await;
    assert!(heard.info.source.is_group);
    assert_eq!(
        web.message("15550200", &sent).expect("there").chat,
        group.jid
    );

    let jid: Jid = group.jid.parse().expect("a JID");
    for text in ["one", "two"] {
        let result = device.client.send_text(jid.clone(), text).await;
        let id = result.expect("is sent").message_id.clone();
        for member in [MONA, "15550200", SHOP] {
            let message = eventually(|| web.message(member, &id)).await;
            assert_eq!(message.text.as_deref(), Some(text));
            assert_eq!(message.chat, group.jid);
        }
    }
    let made = device.client.groups().get_participating().await;
    assert_eq!(made.expect("answers").len(), 1);
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_damaged_message_is_asked_for_again_and_arrives() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    web.set_faults(WhatsappFaults {
        damage_next: 1,
        ..Default::default()
    });
    web.send(&WhatsappSend::text(MONA, SHOP, "in pieces"))
        .expect("is sent");
    device.wait_text("in pieces").await;
    assert_eq!(web.faults().damage_next, 0);
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn two_devices_of_one_phone_both_get_everything() {
    let (simulator, web) = stage().await;
    let (mut one, _) = Device::linked(&web, SHOP).await;
    let (mut two, companion) = Device::linked(&web, SHOP).await;
    assert_eq!(companion.device, 2);
    web.send(&WhatsappSend::text(MONA, SHOP, "to both"))
        .expect("is sent");
    one.wait_text("to both").await;
    two.wait_text("to both").await;
    one.text(MONA, "from one").await;
    let copy = two.wait_text("from one").await;
    assert!(copy.info.source.is_from_me);
    // The phone's own message reaches its devices.
    web.send(&WhatsappSend::text(SHOP, MONA, "from the phone"))
        .expect("is sent");
    let copy = one.wait_text("from the phone").await;
    assert!(copy.info.source.is_from_me);
    one.stop().await;
    two.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn the_phones_history_is_handed_to_a_new_device() {
    let (simulator, web) = stage().await;
    let old = OldWhatsappMessage {
        chat: MONA.to_owned(),
        from_me: false,
        text: "long ago".to_owned(),
        id: "OLD1".to_owned(),
        at: DateTime::from_timestamp(1_700_000_000, 0).expect("a time"),
    };
    let settings = WhatsappPhoneSettings {
        history: vec![old],
        ..Default::default()
    };
    web.set_settings(SHOP, settings).expect("known");
    let (mut device, _) = Device::linked(&web, SHOP).await;
    let texts = device
        .wait(|event| match event {
            Event::HistorySync(history) => {
                let conversations = &history.get()?.conversations;
                let messages = conversations.iter().flat_map(|c| &c.messages);
                let texts = messages.filter_map(|m| m.message.message.conversation.clone());
                Some(texts.collect::<Vec<_>>())
            }
            _ => None,
        })
        .await;
    assert_eq!(texts, ["long ago"]);
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn messages_both_ways_over_losing_sockets_arrive_once_each() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    device.text(MONA, "first").await;
    web.set_faults(WhatsappFaults {
        duplicate: true,
        ack_delay_ms: 20,
        ..Default::default()
    });
    for n in 0..20 {
        let text = format!("number {n}");
        web.send(&WhatsappSend::text(MONA, SHOP, &text))
            .expect("is sent");
        if n % 7 == 3 {
            web.disrupt(Some(SHOP), WhatsappDisruption::Drop)
                .expect("known");
        }
    }
    for n in 0..20 {
        device.wait_text(&format!("number {n}")).await;
    }
    web.set_faults(WhatsappFaults::default());
    let id = device.wait_sent(MONA, "last").await;
    eventually(|| web.message(MONA, &id)).await;
    eventually(|| {
        let phone = web.phone(SHOP).ok()?;
        (phone.companions[0].waiting == 0).then_some(())
    })
    .await;
    let doubles: Vec<InboundMessage> = device.left_over();
    let doubles: Vec<&str> = doubles
        .iter()
        .filter_map(|message| message.message.text_content())
        .collect();
    assert!(doubles.is_empty(), "came twice: {doubles:?}");
    let doubles = web.messages(MONA).expect("known");
    assert!(doubles.iter().all(|message| message.copies == 1));
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_phone_that_wants_a_passkey_links_only_who_answers_its_challenge() {
    let (simulator, web) = stage().await;
    let settings = WhatsappPhoneSettings {
        passkey: true,
        ..Default::default()
    };
    web.set_settings(SHOP, settings).expect("known");
    let mut device = Device::start(&web, Default::default()).await;
    let qr = device
        .wait(|event| match event {
            Event::PairingQrCode(qr) => Some(qr.code.clone()),
            _ => None,
        })
        .await;
    let assertion = |challenge: &str| {
        let client = json!({"type": "webauthn.get", "challenge": challenge});
        let client = BASE64_URL_SAFE_NO_PAD.encode(client.to_string());
        let assertion =
            json!({"id": "a", "type": "public-key", "response": {"clientDataJSON": client}});
        Assertion {
            assertion_json: assertion.to_string().into_bytes(),
            credential_id: vec![1],
        }
    };
    let asked = |event: &Event| match event {
        Event::PairPasskeyRequest(asked) => Some(asked.request_options_json.clone()),
        _ => None,
    };

    let scanning = tokio::spawn({
        let (web, qr) = (web.clone(), qr.clone());
        async move { web.scan(SHOP, &qr).await }
    });
    device.wait(asked).await;
    let wrong = device
        .client
        .send_passkey_response(assertion("other"))
        .await;
    assert!(wrong.is_err());
    assert!(scanning.await.expect("runs").is_err());

    let scanning = tokio::spawn({
        let web = web.clone();
        async move { web.scan(SHOP, &qr).await }
    });
    let options = device.wait(asked).await;
    let options: serde_json::Value = serde_json::from_str(&options).expect("JSON");
    let challenge = options["challenge"].as_str().expect("a challenge");
    device
        .client
        .send_passkey_response(assertion(challenge))
        .await
        .expect("is taken");
    let code = device
        .wait(|event| match event {
            Event::PairPasskeyConfirmation(shown) => Some(shown.code.clone()),
            _ => None,
        })
        .await;
    assert_eq!(code.len(), "ABCD-1234".len());
    device
        .client
        .send_passkey_confirmation()
        .await
        .expect("is taken");
    scanning.await.expect("runs").expect("is linked");
    device.connected().await;
    device.stop().await;
    simulator.stop().await;
}
