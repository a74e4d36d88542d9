use wasel_domain::ProviderEvent;
use wasel_sessions::{Command, CommandError, SessionNews, SessionOptions, StopReason};
use wasel_simulator::{OldWhatsappMessage, WhatsappPhoneSettings};

use crate::host::{BUSINESS, CUSTOMER, World, options};

#[tokio::test]
async fn a_scanned_qr_code_links_the_phone_and_a_restart_needs_no_other() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;

    let (jid, phone) = world
        .news(&session, "it is linked", |news| match news {
            SessionNews::Linked { jid, phone, .. } => Some((jid.clone(), phone.clone())),
            _ => None,
        })
        .await;
    assert_eq!(jid, "201000000001@s.whatsapp.net");
    assert_eq!(phone.as_deref(), Some(BUSINESS));
    assert_eq!(manager.connected_channels(), [session.channel_id]);
    assert_eq!(manager.running(), [session.id]);
    manager.stop().await;
    assert!(world.database.key_count() > 0, "the state is kept");

    let codes = |news: &SessionNews| matches!(news, SessionNews::QrCode { .. }).then_some(());
    let before = world
        .database
        .news_of(&session)
        .iter()
        .filter_map(codes)
        .count();
    let manager = world.manager();
    world.connected(&manager, &session).await;
    let after = world
        .database
        .news_of(&session)
        .iter()
        .filter_map(codes)
        .count();
    assert_eq!(before, after);
    world.stop([manager]).await;
}

// A key is derived from the code, which takes seconds in a build that is not optimised.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_code_typed_on_the_phone_links_it() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.database.add(SessionOptions {
        pair_with_phone: Some(BUSINESS.to_owned()),
        ..options()
    });
    manager.wake();
    let code = world
        .news(&session, "a code is shown", |news| match news {
            SessionNews::PairingCode { code, .. } => Some(code.clone()),
            _ => None,
        })
        .await;
    world.web.enter_code(BUSINESS, &code).await.unwrap();
    world.connected(&manager, &session).await;
    assert!(
        !world
            .database
            .news_of(&session)
            .iter()
            .any(|news| matches!(news, SessionNews::QrCode { .. })),
        "one way of linking at a time"
    );
    world.stop([manager]).await;
}

#[tokio::test]
async fn linking_begins_anew_on_request_and_not_once_a_phone_is_linked() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.database.add(options());
    manager.wake();
    let first = world.qr(&session).await;
    let answer = manager.command(session.id, Command::Relink).await;
    assert_eq!(answer, Ok(serde_json::Value::Null));
    let second = world
        .news(&session, "another code", |news| match news {
            SessionNews::QrCode { code, .. } if *code != first => Some(code.clone()),
            _ => None,
        })
        .await;
    world.web.scan(BUSINESS, &second).await.unwrap();
    world.connected(&manager, &session).await;
    assert!(matches!(
        manager.command(session.id, Command::Relink).await,
        Err(CommandError::NotNow(_))
    ));
    world.stop([manager]).await;
}

#[tokio::test]
async fn logging_out_unlinks_the_device_and_wipes_its_state() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    manager.command(session.id, Command::LogOut).await.unwrap();
    world
        .news(&session, "it is logged out", |news| {
            matches!(news, SessionNews::LoggedOut { .. }).then_some(())
        })
        .await;
    assert_eq!(world.web.phone(BUSINESS).unwrap().companions.len(), 0);
    crate::host::until("the session has ended", || {
        manager.running().is_empty().then_some(())
    })
    .await;
    assert_eq!(
        manager.command(session.id, Command::LogOut).await,
        Err(CommandError::NotHere)
    );
    world.stop([manager]).await;
}

#[tokio::test]
async fn unlinking_on_the_phone_ends_the_session_for_good() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    world.web.unlink(BUSINESS).unwrap();
    world
        .news(&session, "it is logged out", |news| {
            matches!(news, SessionNews::LoggedOut { .. }).then_some(())
        })
        .await;
    assert_eq!(world.database.key_count(), 0);
    world.stop([manager]).await;
}

#[tokio::test]
async fn the_phones_history_is_taken_over_where_it_is_wanted_and_no_older_than_wanted() {
    let world = World::new().await;
    let now = chrono::Utc::now();
    let old = |id: &str, days: i64, from_me: bool| OldWhatsappMessage {
        chat: CUSTOMER.to_owned(),
        from_me,
        text: id.to_owned(),
        id: id.to_owned(),
        at: now - chrono::Duration::days(days),
    };
    let settings = WhatsappPhoneSettings {
        history: vec![
            old("ancient", 40, false),
            old("asked", 2, false),
            old("answered", 1, true),
        ],
        ..WhatsappPhoneSettings::default()
    };
    world.web.set_settings(BUSINESS, settings).unwrap();
    let manager = world.manager();
    let wanted = SessionOptions {
        history_days: 7,
        ..options()
    };
    world.linked_with(&manager, wanted).await;
    let found = |event: &ProviderEvent| match event {
        ProviderEvent::Echo(echo) => Some(echo.provider_message_id.clone()),
        _ => None,
    };
    assert_eq!(
        world.event("our old answer is there", found).await,
        "answered"
    );
    let asked: Vec<String> = world
        .database
        .events()
        .iter()
        .filter_map(|event| match event {
            ProviderEvent::Message(message) => Some(message.provider_message_id.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(asked, ["asked"]);
    world.stop([manager]).await;
}

#[tokio::test]
async fn a_refused_dial_is_news_and_is_tried_again() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    let mut faults = world.web.faults();
    faults.refuse_dials = true;
    world.web.set_faults(faults);
    world
        .web
        .disrupt(None, wasel_simulator::WhatsappDisruption::Drop)
        .unwrap();
    let failures = world
        .news(&session, "dials fail", |news| match news {
            SessionNews::Disconnected { reason, failures } if reason.contains("refused") => {
                Some(*failures)
            }
            _ => None,
        })
        .await;
    assert!(failures >= 2);
    assert!(!manager.is_connected(session.channel_id));
    world.web.set_faults(Default::default());
    world.connected(&manager, &session).await;
    world.stop([manager]).await;
}

#[tokio::test]
async fn without_automatic_reconnects_a_lost_connection_waits_for_a_person() {
    let world = World::new().await;
    let manager = world.manager();
    let by_hand = SessionOptions {
        auto_reconnect: false,
        ..options()
    };
    let session = world.linked_with(&manager, by_hand).await;
    world
        .web
        .disrupt(None, wasel_simulator::WhatsappDisruption::Drop)
        .unwrap();
    world
        .news(&session, "it stopped", |news| match news {
            SessionNews::Stopped {
                reason: StopReason::Lost,
                ..
            } => Some(()),
            _ => None,
        })
        .await;
    assert!(world.database.key_count() > 0, "the state is kept");
    world.stop([manager]).await;
}
