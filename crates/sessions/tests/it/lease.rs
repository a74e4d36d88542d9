use std::time::Duration;

use wasel_sessions::{Recipient, SendFailure};
use wasel_simulator::WhatsappSend;

use crate::host::{BUSINESS, CUSTOMER, Node, World, until};
use crate::talk::{outgoing, text};

#[tokio::test]
async fn a_stopped_node_hands_its_sessions_over_at_once() {
    let world = World::new().await;
    let first = world.manager();
    let session = world.linked(&first).await;
    let second = world.manager();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(second.running().is_empty(), "one node at a time");
    first.stop().await;
    world.connected(&second, &session).await;
    assert_eq!(world.database.token(&session), 2);
    world.stop([second]).await;
}

#[tokio::test]
async fn a_node_without_its_database_stops_sending_before_another_takes_over() {
    let world = World::new().await;
    let node = Node::new(&world.database);
    let first = world.manager_on(&node);
    let session = world.linked(&first).await;
    let second = world.manager();

    node.cut_off(true);
    world.connected(&second, &session).await;
    assert!(
        !first.is_connected(session.channel_id),
        "two nodes must never run one session"
    );
    let to = Recipient::Jid("201000000002@s.whatsapp.net".to_owned());
    let failure = first
        .send(session.channel_id, outgoing(to, text("from the past")))
        .await
        .unwrap_err();
    assert!(
        matches!(failure, SendFailure::LeaseLost | SendFailure::NotConnected),
        "{failure:?}"
    );
    // WhatsApp sees one device, which is not replaced by the first node's attempts to come back.
    let companions = world.web.phone(BUSINESS).unwrap().companions;
    assert_eq!(companions.len(), 1);
    assert!(companions[0].connected);

    let id = world
        .web
        .send(&WhatsappSend::text(CUSTOMER, BUSINESS, "to the new node"))
        .unwrap();
    world
        .event("the new node hears", |event| {
            matches!(event, wasel_domain::ProviderEvent::Message(message) if message.provider_message_id == id)
                .then_some(())
        })
        .await;
    world.stop([first, second]).await;
}

#[tokio::test]
async fn a_disabled_session_is_ended_and_an_enabled_one_comes_back() {
    let world = World::new().await;
    let manager = world.manager();
    let session = world.linked(&manager).await;
    world.database.enable(&session, false);
    until("it is ended", || manager.running().is_empty().then_some(())).await;
    until("WhatsApp saw it go", || {
        (!world.web.phone(BUSINESS).unwrap().companions[0].connected).then_some(())
    })
    .await;
    world.database.enable(&session, true);
    world.connected(&manager, &session).await;
    world.stop([manager]).await;
}
