use wasel_simulator::{
    WhatsappDisruption, WhatsappFaults, WhatsappPhoneSettings, WhatsappSend, WhatsappTick,
};
use whatsapp_rust::prelude::*;

use super::device::{Device, MONA, SHOP, eventually, stage};
use crate::support::answer;

#[tokio::test]
async fn an_unlinked_device_learns_it_and_is_refused_afterwards() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    assert_eq!(web.unlink(SHOP).expect("known"), 1);
    device
        .wait(|event| matches!(event, Event::LoggedOut(_)).then_some(()))
        .await;
    let store = device.stop().await;
    let mut again = Device::start(&web, store).await;
    again
        .wait(|event| match event {
            Event::LoggedOut(out) => out.on_connect.then_some(()),
            _ => None,
        })
        .await;
    assert_eq!(web.phone(SHOP).expect("known").companions.len(), 0);
    again.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_device_that_logs_out_is_off_the_list() {
    let (simulator, web) = stage().await;
    let (device, _) = Device::linked(&web, SHOP).await;
    device.client.logout().await;
    eventually(|| web.phone(SHOP).ok()?.companions.is_empty().then_some(())).await;
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_ban_is_told_with_its_end() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    web.ban(SHOP, 3_600).expect("known");
    let seconds = device
        .wait(|event| match event {
            Event::TemporaryBan(ban) => Some(ban.expire.num_seconds()),
            _ => None,
        })
        .await;
    assert!((3_500..=3_600).contains(&seconds));
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_second_copy_takes_the_connection_over() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    let mut copy = Device::start(&web, device.store.clone()).await;
    copy.connected().await;
    device
        .wait(|event| matches!(event, Event::StreamReplaced(_)).then_some(()))
        .await;
    device.stop().await;
    copy.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_lost_socket_and_a_503_are_recovered_from_by_themselves() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    for what in [WhatsappDisruption::Drop, WhatsappDisruption::Unavailable] {
        assert_eq!(web.disrupt(Some(SHOP), what).expect("known"), 1);
        device
            .wait(|event| matches!(event, Event::Disconnected(_)).then_some(()))
            .await;
        let text = format!("{what:?}");
        web.send(&WhatsappSend::text(MONA, SHOP, &text))
            .expect("is sent");
        device.wait_text(&text).await;
    }
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_nack_is_told_and_the_message_goes_nowhere() {
    let (simulator, web) = stage().await;
    let (mut device, _) = Device::linked(&web, SHOP).await;
    web.set_faults(WhatsappFaults {
        nack_next: 1,
        nack_code: 463,
        ..Default::default()
    });
    let refused = device.text(MONA, "refused").await;
    let code = device
        .wait(|event| match event {
            Event::ServerAck(ack) if ack.id == refused => ack.error.clone(),
            _ => None,
        })
        .await;
    assert_eq!(code, "463");
    let taken = device.text(MONA, "taken").await;
    eventually(|| web.message(MONA, &taken)).await;
    assert!(web.message(MONA, &refused).is_none());
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_phone_switched_off_gets_its_messages_later() {
    let (simulator, web) = stage().await;
    let (device, _) = Device::linked(&web, SHOP).await;
    let off = WhatsappPhoneSettings {
        online: false,
        ..Default::default()
    };
    web.set_settings(MONA, off).expect("known");
    let id = device.text(MONA, "later").await;
    let sent = eventually(|| web.message(SHOP, &id)).await;
    assert_eq!(sent.tick, WhatsappTick::Sent);
    assert!(web.message(MONA, &id).is_none());
    web.set_settings(MONA, WhatsappPhoneSettings::default())
        .expect("known");
    eventually(|| web.message(MONA, &id)).await;
    let sent = eventually(|| web.message(SHOP, &id)).await;
    assert_eq!(sent.tick, WhatsappTick::Delivered);
    device.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_socket_that_speaks_nonsense_is_cut_and_dials_can_be_refused() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::{connect_async, tungstenite::Message};
    let (simulator, web) = stage().await;
    let nonsense: [&[u8]; 4] = [
        b"GET / HTTP/1.1",
        b"WA\x06\x03\x00\x00\x00",
        b"WA\x06\x03\xff\xff\xff",
        b"WA\x06\x03\x00\x00\x05\x12\xff\xff\xff\xff",
    ];
    for bytes in nonsense {
        let (mut socket, _) = connect_async(web.url()).await.expect("connects");
        let frame = Message::Binary(bytes.to_vec().into());
        socket.send(frame).await.expect("is sent");
        while let Some(Ok(message)) = socket.next().await {
            assert!(message.is_close(), "an answer to nonsense");
        }
    }
    web.set_faults(WhatsappFaults {
        refuse_dials: true,
        ..Default::default()
    });
    assert!(connect_async(web.url()).await.is_err());
    simulator.stop().await;
}

#[tokio::test]
async fn everything_can_be_driven_by_http() {
    use serde_json::json;
    let (simulator, web) = stage().await;
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("client");
    let url = |path: &str| format!("{}/sim/whatsapp-web{path}", simulator.base_url());
    let post =
        async |path: &str, body: serde_json::Value| answer(http.post(url(path)).json(&body)).await;
    let get = async |path: &str| answer(http.get(url(path))).await.1;
    let phone = json!({"number": "+1 555-0300", "name": "Zed", "read_after_ms": 5});
    assert_eq!(post("/phones", phone).await.1["number"], "15550300");

    let mut device = Device::start(&web, Default::default()).await;
    let qr = device
        .wait(|event| match event {
            Event::PairingQrCode(qr) => Some(qr.code.clone()),
            _ => None,
        })
        .await;
    let (status, linked) = post("/scan", json!({"number": SHOP, "qr": qr})).await;
    assert_eq!((status, &linked["device"]), (200, &json!(1)));
    device.connected().await;
    let (status, sent) = post("/send", json!({"from": MONA, "to": SHOP, "text": "hi"})).await;
    assert_eq!(status, 200, "{sent}");
    device.wait_text("hi").await;
    let picture =
        json!({"from": "15550300", "to": SHOP, "image": {"base64": "AQID", "mime": "image/png"}});
    let (_, sent) = post("/send", picture).await;
    device.wait_message(|m| m.image_message.is_set()).await;
    let id = sent["id"].as_str().expect("an id");
    let file = http
        .get(url(&format!("/media?phone=15550300&id={id}")))
        .send()
        .await;
    assert_eq!(
        file.expect("answers")
            .bytes()
            .await
            .expect("a body")
            .as_ref(),
        [1, 2, 3]
    );

    device.text(MONA, "answer").await;
    let thread =
        eventually_json(async || get(&format!("/messages?phone={MONA}&chat={SHOP}")).await).await;
    assert_eq!(thread[1]["text"], "answer");
    assert_eq!(
        post("/read", json!({"number": MONA, "chat": SHOP})).await.1["read"],
        1
    );
    let phones = get("/phones").await;
    assert_eq!(phones.as_array().map(Vec::len), Some(3));
    assert_eq!(get(&format!("/failures?phone={MONA}")).await, json!([]));

    let faults = answer(http.put(url("/faults")).json(&json!({"ack_delay_ms": 5}))).await;
    assert_eq!(faults.0, 204);
    assert_eq!(get("/faults").await["ack_delay_ms"], 5);
    assert_eq!(answer(http.delete(url("/faults"))).await.0, 204);
    assert_eq!(post("/disrupt", json!({"what": "drop"})).await.1["hit"], 1);
    let group = json!({"creator": MONA, "subject": "G", "members": [SHOP]});
    let (_, group) = post("/groups", group).await;
    let member = json!({"group": group["jid"], "number": "15550300", "member": true});
    assert_eq!(
        post("/groups/member", member).await.1["members"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
    assert_eq!(get("/groups").await.as_array().map(Vec::len), Some(1));
    for (path, body) in [
        (
            "/typing",
            json!({"from": MONA, "to": SHOP, "state": "paused"}),
        ),
        ("/presence", json!({"number": MONA, "available": true})),
        ("/ban", json!({"number": SHOP, "seconds": 0})),
    ] {
        assert_eq!(post(path, body).await.0, 204, "{path}");
    }
    let unknown = post("/scan", json!({"number": SHOP, "qr": "2@x,AAAA,BBBB,CC"})).await;
    assert_eq!(unknown.0, 400);
    assert_eq!(
        post("/enter-code", json!({"number": SHOP, "code": "ABCD1234"}))
            .await
            .0,
        404
    );
    assert_eq!(post("/unlink", json!({"number": "15559999"})).await.0, 404);
    assert_eq!(
        post("/unlink", json!({"number": SHOP})).await.1["unlinked"],
        1
    );
    assert_eq!(get("/url").await["url"], web.url());
    device.stop().await;
    simulator.stop().await;
}

/// Asks until there are two entries.
async fn eventually_json(ask: impl AsyncFn() -> serde_json::Value) -> serde_json::Value {
    for _ in 0..2_000 {
        let answer = ask().await;
        if answer.as_array().is_some_and(|list| list.len() == 2) {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("waited in vain");
}
