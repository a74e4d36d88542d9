use wasel_sessions::{Manager, SessionNews, StopReason};
use wasel_simulator::{NewWhatsappPhone, WhatsappDisruption};

use crate::host::{BUSINESS, World, options, until};

fn stopped(news: &SessionNews) -> Option<(StopReason, String)> {
    match news {
        SessionNews::Stopped { reason, detail } => Some((*reason, detail.clone())),
        _ => None,
    }
}

#[tokio::test]
async fn a_dropped_connection_comes_back_by_itself_however_it_was_dropped() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    for how in [WhatsappDisruption::Drop, WhatsappDisruption::Unavailable] {
        let connections = |news: &[SessionNews]| {
            news.iter()
                .filter(|news| matches!(news, SessionNews::Connected { .. }))
                .count()
        };
        let before = connections(&world.database.news_of(&session));
        world.web.disrupt(Some(BUSINESS), how).unwrap();
        until("it is connected again", || {
            (connections(&world.database.news_of(&session)) > before
                && manager.is_connected(session.channel_id))
            .then_some(())
        })
        .await;
    }
    world.stop([manager]).await;
}

#[tokio::test]
async fn a_replaced_session_does_not_fight_for_its_place() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    world
        .web
        .disrupt(Some(BUSINESS), WhatsappDisruption::Replaced)
        .unwrap();
    let (reason, _) = world.news(&session, "it stopped", stopped).await;
    assert_eq!(reason, StopReason::Replaced);
    assert!(world.database.key_count() > 0, "the state is kept");
    until("nothing runs", || {
        manager.running().is_empty().then_some(())
    })
    .await;
    world.stop([manager]).await;
}

#[tokio::test]
async fn a_ban_stops_the_session_and_says_for_how_long() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    world.web.ban(BUSINESS, 6 * 3600).unwrap();
    let (reason, detail) = world.news(&session, "it stopped", stopped).await;
    assert_eq!(reason, StopReason::Banned);
    assert!(detail.contains("hours"), "{detail}");
    world.stop([manager]).await;
}

#[tokio::test]
async fn many_sessions_all_come_back_after_a_storm_and_after_a_restart() {
    const SESSIONS: usize = 25;
    let world = World::new().await;
    let manager = world.manager();
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let phone = format!("+2010000001{number:02}");
        world
            .web
            .register(&NewWhatsappPhone::new(&phone, "Shop"))
            .unwrap();
        let session = world.database.add(options());
        manager.wake();
        let qr = world.qr(&session).await;
        world.web.scan(&phone, &qr).await.unwrap();
        sessions.push(session);
    }
    let all = async |manager: &Manager| {
        until("all are connected", || {
            (manager.counts().connected == SESSIONS).then_some(())
        })
        .await;
    };
    all(&manager).await;
    world.web.disrupt(None, WhatsappDisruption::Drop).unwrap();
    until("the storm is noticed", || {
        (manager.counts().connected < SESSIONS).then_some(())
    })
    .await;
    all(&manager).await;
    manager.stop().await;
    let manager = world.manager();
    all(&manager).await;
    assert_eq!(manager.counts().running, SESSIONS);
    for session in &sessions {
        assert_eq!(world.database.token(session), 2, "each was claimed once");
    }
    world.stop([manager]).await;
}
