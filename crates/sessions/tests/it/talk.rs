use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use uuid::Uuid;
use wasel_domain::content::{MediaSource, OutboundMedia};
use wasel_domain::{E164, MessageKind, MessageStatus, OutboundContent, ProviderEvent};
use wasel_sessions::{
    Command, LiveSignal, MediaFile, MediaLimits, Outgoing, Quoted, Recipient, SendFailure,
    fetch_media, replay,
};
use wasel_simulator::{
    WhatsappContent, WhatsappEdit, WhatsappFile, WhatsappReaction, WhatsappSend, WhatsappTick,
};

use crate::host::{BUSINESS, CUSTOMER, World, until};

pub fn text(body: &str) -> OutboundContent {
    OutboundContent::Text {
        body: body.to_owned(),
        preview_url: false,
    }
}

pub fn outgoing(to: Recipient, content: OutboundContent) -> Outgoing {
    Outgoing {
        message_id: Uuid::now_v7(),
        to,
        content,
        media: None,
        quoted: None,
    }
}

fn customer() -> Recipient {
    Recipient::Phone(E164::parse(CUSTOMER, None).unwrap())
}

fn status_of(events: &[ProviderEvent], id: &str) -> Option<MessageStatus> {
    events
        .iter()
        .filter_map(|event| match event {
            ProviderEvent::Status(status) if status.provider_message_id == id => {
                Some(status.status)
            }
            _ => None,
        })
        .max_by_key(|status| status.rank())
}

#[tokio::test]
async fn a_text_each_way_with_its_ticks() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;

    let sent = manager
        .send(session.channel_id, outgoing(customer(), text("أهلا")))
        .await
        .unwrap();
    assert_eq!(sent.recipient[0].value, CUSTOMER);
    let id = &sent.provider_message_id;
    let arrived = until("the customer has it", || world.web.message(CUSTOMER, id)).await;
    assert_eq!(arrived.text.as_deref(), Some("أهلا"));
    until("it is delivered", || {
        (status_of(&world.database.events(), id)? == MessageStatus::Delivered).then_some(())
    })
    .await;
    world.web.read(CUSTOMER, BUSINESS).unwrap();
    until("it is read", || {
        (status_of(&world.database.events(), id)? == MessageStatus::Read).then_some(())
    })
    .await;

    let answer = WhatsappSend {
        quoted: Some(id.clone()),
        ..WhatsappSend::text(CUSTOMER, BUSINESS, "أهلا بيك")
    };
    let answer_id = world.web.send(&answer).unwrap();
    let heard = world
        .event("we hear the answer", |event| match event {
            ProviderEvent::Message(message) if message.provider_message_id == answer_id => {
                Some(message.clone())
            }
            _ => None,
        })
        .await;
    assert_eq!(heard.content.text.as_deref(), Some("أهلا بيك"));
    assert_eq!(heard.customer.identities[0].value, CUSTOMER);
    assert_eq!(heard.customer.name.as_deref(), Some("Mona"));
    assert_eq!(heard.quoted_message_id.as_ref(), Some(id));
    until("the customer sees two ticks", || {
        let theirs = world.web.message(CUSTOMER, &answer_id)?;
        (theirs.tick >= WhatsappTick::Delivered).then_some(())
    })
    .await;
    let read = Command::MarkRead {
        chat: customer(),
        sender: None,
        ids: vec![answer_id.clone()],
    };
    manager.command(session.id, read).await.unwrap();
    until("the customer sees blue ticks", || {
        let theirs = world.web.message(CUSTOMER, &answer_id)?;
        (theirs.tick >= WhatsappTick::Read).then_some(())
    })
    .await;

    let replayed: Vec<ProviderEvent> = world
        .database
        .raw()
        .iter()
        .flat_map(|raw| replay(raw).unwrap())
        .collect();
    assert_eq!(replayed, world.database.events());
    world.stop([manager]).await;
}

#[tokio::test]
async fn a_second_attempt_at_a_message_is_one_message_to_the_customer() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    let message = outgoing(customer(), text("once"));
    let first = manager
        .send(session.channel_id, message.clone())
        .await
        .unwrap();
    let second = manager.send(session.channel_id, message).await.unwrap();
    assert_eq!(first.provider_message_id, second.provider_message_id);
    let after = manager
        .send(session.channel_id, outgoing(customer(), text("after")))
        .await
        .unwrap();
    until("the one after arrived", || {
        world.web.message(CUSTOMER, &after.provider_message_id)
    })
    .await;
    let texts: Vec<_> = world
        .web
        .messages(CUSTOMER)
        .unwrap()
        .into_iter()
        .filter_map(|message| message.text)
        .collect();
    assert_eq!(texts, ["once", "after"]);
    world.stop([manager]).await;
}

#[tokio::test]
async fn files_go_both_ways_and_are_fetched_without_the_session() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;

    let picture = vec![7; 50_000];
    let image = Outgoing {
        media: Some(MediaFile {
            bytes: Bytes::from(picture.clone()),
            mime_type: "image/png".to_owned(),
        }),
        ..outgoing(
            customer(),
            OutboundContent::Image(OutboundMedia {
                source: MediaSource::ProviderId("unused".to_owned()),
                caption: Some("look".to_owned()),
                filename: None,
                voice: false,
            }),
        )
    };
    let sent = manager.send(session.channel_id, image).await.unwrap();
    let id = &sent.provider_message_id;
    let arrived = until("the customer has it", || world.web.message(CUSTOMER, id)).await;
    assert_eq!(arrived.kind, "image");
    assert_eq!(arrived.text.as_deref(), Some("look"));
    let file = until("the file is there", || world.web.file(CUSTOMER, id)).await;
    assert_eq!(file, picture);

    let document = WhatsappFile {
        base64: BASE64_STANDARD.encode(b"%PDF-1.7 bill"),
        mime: "application/pdf".to_owned(),
        caption: None,
        file_name: Some("bill.pdf".to_owned()),
    };
    let document = WhatsappContent::Document(document);
    world
        .web
        .send(&WhatsappSend::new(CUSTOMER, BUSINESS, document))
        .unwrap();
    let media = world
        .event("we hear of the document", |event| match event {
            ProviderEvent::Message(message) if message.content.kind == MessageKind::Document => {
                message.content.media.first().cloned()
            }
            _ => None,
        })
        .await;
    assert_eq!(media.filename.as_deref(), Some("bill.pdf"));
    manager.stop().await;
    let limits = MediaLimits {
        max_bytes: 1_000_000,
        loopback: true,
    };
    let (bytes, mime_type) = fetch_media(&crate::host::http(), &media, limits)
        .await
        .unwrap();
    assert_eq!(bytes, b"%PDF-1.7 bill".as_slice());
    assert_eq!(mime_type, "application/pdf");
    world.stop([]).await;
}

#[tokio::test]
async fn reactions_edits_deletions_quotes_and_typing_go_both_ways() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    let theirs = world
        .web
        .send(&WhatsappSend::text(CUSTOMER, BUSINESS, "price?"))
        .unwrap();
    world
        .event("we hear them", |event| {
            matches!(event, ProviderEvent::Message(_)).then_some(())
        })
        .await;

    let answer = Outgoing {
        quoted: Some(Quoted {
            provider_message_id: theirs.clone(),
            from_us: false,
            text: Some("price?".to_owned()),
            participant: None,
        }),
        ..outgoing(customer(), text("ten"))
    };
    let ours = manager
        .send(session.channel_id, answer)
        .await
        .unwrap()
        .provider_message_id;
    let arrived = until("they have it", || world.web.message(CUSTOMER, &ours)).await;
    assert_eq!(arrived.quoted.as_ref(), Some(&theirs));

    let react = OutboundContent::Reaction {
        message_id: theirs.clone(),
        emoji: "👍".to_owned(),
    };
    manager
        .send(session.channel_id, outgoing(customer(), react))
        .await
        .unwrap();
    until("they see our reaction", || {
        let message = world.web.message(CUSTOMER, &theirs)?;
        message
            .reactions
            .iter()
            .any(|(_, emoji)| emoji == "👍")
            .then_some(())
    })
    .await;

    let edit = Command::Edit {
        chat: customer(),
        provider_message_id: ours.clone(),
        text: "nine".to_owned(),
    };
    manager.command(session.id, edit).await.unwrap();
    until("they see the edit", || {
        let message = world.web.message(CUSTOMER, &ours)?;
        (message.text.as_deref() == Some("nine")).then_some(())
    })
    .await;
    let revoke = Command::Revoke {
        chat: customer(),
        provider_message_id: ours.clone(),
    };
    manager.command(session.id, revoke).await.unwrap();
    until("they see it deleted", || {
        world.web.message(CUSTOMER, &ours)?.deleted.then_some(())
    })
    .await;
    let typing = Command::Typing {
        to: customer(),
        typing: true,
        recording: false,
    };
    manager.command(session.id, typing).await.unwrap();
    until("they see us typing", || {
        let chats = world.web.phone(CUSTOMER).unwrap().chats;
        chats
            .iter()
            .any(|chat| chat.typing.as_deref() == Some("composing"))
            .then_some(())
    })
    .await;

    let reaction = WhatsappContent::Reaction(WhatsappReaction {
        message_id: theirs.clone(),
        emoji: "❤".to_owned(),
    });
    world
        .web
        .send(&WhatsappSend::new(CUSTOMER, BUSINESS, reaction))
        .unwrap();
    world
        .event("we hear their reaction", |event| match event {
            ProviderEvent::Reaction(reaction) if reaction.emoji.as_deref() == Some("❤") => {
                Some(())
            }
            _ => None,
        })
        .await;
    let edit = WhatsappContent::Edit(WhatsappEdit {
        message_id: theirs.clone(),
        text: "the price?".to_owned(),
    });
    world
        .web
        .send(&WhatsappSend::new(CUSTOMER, BUSINESS, edit))
        .unwrap();
    let edited = world
        .event("we hear their edit", |event| match event {
            ProviderEvent::Edit(edit) => Some(edit.clone()),
            _ => None,
        })
        .await;
    assert_eq!(edited.target_message_id, theirs);
    assert_eq!(edited.content.text.as_deref(), Some("the price?"));

    world.web.typing(CUSTOMER, BUSINESS, "recording").unwrap();
    let from = until("we see them recording", || {
        world
            .database
            .signals()
            .into_iter()
            .find_map(|signal| match signal {
                LiveSignal::Typing {
                    from,
                    typing: true,
                    recording: true,
                    ..
                } => Some(from),
                _ => None,
            })
    })
    .await;
    assert!(!from.identities.is_empty());
    world.stop([manager]).await;
}

#[tokio::test]
async fn what_the_owner_writes_on_the_phone_is_heard_as_ours() {
    let world = World::new().await;
    let manager = world.manager();
    world.linked(&manager).await;
    world
        .web
        .send(&WhatsappSend::text(BUSINESS, CUSTOMER, "from my phone"))
        .unwrap();
    let echo = world
        .event("we hear it", |event| match event {
            ProviderEvent::Echo(echo) => Some(echo.clone()),
            _ => None,
        })
        .await;
    assert_eq!(echo.content.text.as_deref(), Some("from my phone"));
    assert_eq!(echo.customer.identities[0].value, CUSTOMER);
    world.stop([manager]).await;
}

#[tokio::test]
async fn refusals_have_their_reason() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;

    let stranger = Recipient::Phone(E164::parse("+201999999999", None).unwrap());
    let failure = manager
        .send(session.channel_id, outgoing(stranger, text("hi")))
        .await
        .unwrap_err();
    assert_eq!(failure, SendFailure::NotOnWhatsapp);

    let mut faults = world.web.faults();
    faults.nack_next = 1;
    faults.nack_code = 463;
    world.web.set_faults(faults);
    let failure = manager
        .send(session.channel_id, outgoing(customer(), text("hi")))
        .await
        .unwrap_err();
    assert_eq!(failure, SendFailure::Nack { code: 463 });

    let nobody = wasel_domain::ChannelId::generate();
    let failure = manager
        .send(nobody, outgoing(customer(), text("hi")))
        .await
        .unwrap_err();
    assert_eq!(failure, SendFailure::NotConnected);
    world.stop([manager]).await;
}

#[tokio::test]
async fn a_message_without_an_answer_is_unknown_and_a_late_refusal_settles_it() {
    let world = World::new().await;
    let mut settings = world.settings();
    settings.ack_wait = std::time::Duration::from_millis(300);
    let node = crate::host::Node::new(&world.database);
    let manager = wasel_sessions::Manager::start(node, settings).unwrap();
    let session = world.linked(&manager).await;
    let mut faults = world.web.faults();
    faults.ack_delay_ms = 1_000;
    faults.nack_next = 1;
    faults.nack_code = 463;
    world.web.set_faults(faults);
    let message = outgoing(customer(), text("hi"));
    let id = message.message_id.simple().to_string().to_uppercase();
    let failure = manager.send(session.channel_id, message).await.unwrap_err();
    assert_eq!(failure, SendFailure::Ambiguous);
    let refused = world
        .event("the refusal arrives", |event| match event {
            ProviderEvent::Status(status) if status.provider_message_id == id => {
                Some(status.clone())
            }
            _ => None,
        })
        .await;
    assert_eq!(refused.status, MessageStatus::Failed);
    assert_eq!(refused.error.unwrap().code, "463");
    world.stop([manager]).await;
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_leaves_the_message_unknown() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    let mut faults = world.web.faults();
    faults.ack_delay_ms = 30_000;
    world.web.set_faults(faults);
    let send = manager.send(session.channel_id, outgoing(customer(), text("hi")));
    let drop_it = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        world
            .web
            .disrupt(None, wasel_simulator::WhatsappDisruption::Drop)
            .unwrap();
    };
    let (answer, ()) = tokio::join!(send, drop_it);
    assert_eq!(answer, Err(SendFailure::Ambiguous));
    world.stop([manager]).await;
}

#[tokio::test]
async fn groups_are_made_read_and_written_to() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    let create = Command::CreateGroup {
        subject: "Deliveries".to_owned(),
        participants: vec![customer()],
    };
    let group = manager.command(session.id, create).await.unwrap();
    let jid = group["jid"].as_str().unwrap().to_owned();
    assert_eq!(group["subject"], "Deliveries");

    let sent = manager
        .send(
            session.channel_id,
            outgoing(Recipient::Group(jid.clone()), text("to all")),
        )
        .await
        .unwrap();
    let arrived = until("a member has it", || {
        world.web.message(CUSTOMER, &sent.provider_message_id)
    })
    .await;
    assert_eq!(arrived.chat, jid);

    world
        .web
        .send(&WhatsappSend::text(CUSTOMER, &jid, "from a member"))
        .unwrap();
    let heard = world
        .event("we hear a member", |event| match event {
            ProviderEvent::Message(message) => Some(message.clone()),
            _ => None,
        })
        .await;
    assert_eq!(heard.group_id.as_ref(), Some(&jid));
    assert_eq!(heard.customer.identities[0].value, CUSTOMER);
    let groups = manager.command(session.id, Command::Groups).await.unwrap();
    assert_eq!(groups["groups"][0]["jid"], jid.as_str());
    world.stop([manager]).await;
}

#[tokio::test]
async fn messages_that_come_while_the_database_is_away_are_not_lost() {
    let world = World::new().await;
    let node = crate::host::Node::new(&world.database);
    let manager = world.manager_on(&node);
    world.linked(&manager).await;
    node.cut_off(true);
    let id = world
        .web
        .send(&WhatsappSend::text(CUSTOMER, BUSINESS, "hold on"))
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(world.database.events().is_empty());
    node.cut_off(false);
    world
        .event("it arrived after all", |event| match event {
            ProviderEvent::Message(message) if message.provider_message_id == id => Some(()),
            _ => None,
        })
        .await;
    world.stop([manager]).await;
}
