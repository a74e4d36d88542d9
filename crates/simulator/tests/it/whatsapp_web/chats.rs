use wasel_simulator::{WhatsappPhoneSettings, WhatsappSend, WhatsappTick};
use whatsapp_rust::prelude::*;

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
