//! Linked phones, whole: our sessions against the simulated WhatsApp, from the QR code to the ticks.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;
use wasel_simulator::{
    NewWhatsappPhone, WhatsappContent, WhatsappDelete, WhatsappEdit, WhatsappFaults, WhatsappFile,
    WhatsappLocation, WhatsappMessage, WhatsappReaction, WhatsappSend, WhatsappWeb,
};
use wasel_testkit::{Org, TestApp, wait_until};

const BUSINESS: &str = "+201001234567";
const CUSTOMER: &str = "+201119876543";

/// A linked phone and the side of the world it is in.
struct Linked {
    session: String,
    channel: String,
    whatsapp: WhatsappWeb,
}

async fn session(app: &TestApp, org: &Org, id: &str) -> Value {
    let path = format!("/v1/sessions/{id}");
    app.get(&org.people.owner_token, &path).await.expect(200)
}

async fn wait_session(app: &TestApp, org: &Org, id: &str, status: &str) -> Value {
    wait_until(&format!("the session to be {status}"), async || {
        let row = session(app, org, id).await;
        (row["status"] == status).then_some(row)
    })
    .await
}

/// Registers both phones and shows a QR code that the business scans.
async fn link(app: &TestApp, org: &Org) -> Linked {
    let whatsapp = app.simulator.whatsapp_web();
    whatsapp
        .register(&NewWhatsappPhone::new(BUSINESS, "Wasel Clinic"))
        .unwrap();
    whatsapp
        .register(&NewWhatsappPhone::new(CUSTOMER, "منى"))
        .unwrap();
    let made = app
        .post(
            &org.people.owner_token,
            "/v1/sessions",
            &json!({ "name": "Reception" }),
        )
        .await
        .expect(201);
    let id = made["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/sessions/{id}/qr");
    let code = wait_until("a QR code", async || {
        let answer = app.get(&org.people.owner_token, &path).await;
        answer.body["code"].as_str().map(str::to_owned)
    })
    .await;
    whatsapp.scan(BUSINESS, &code).await.unwrap();
    let row = wait_session(app, org, &id, "connected").await;
    assert_eq!(row["phone_number"], BUSINESS);
    Linked {
        session: id,
        channel: row["channel_id"].as_str().unwrap().to_owned(),
        whatsapp,
    }
}

/// Sends by the API; the message's id.
async fn send(app: &TestApp, org: &Org, linked: &Linked, content: Value) -> String {
    let request = json!({ "channel_id": linked.channel, "to": CUSTOMER, "content": content });
    let sent = app
        .post(&org.people.agent_token, "/v1/messages", &request)
        .await
        .expect(202);
    sent["id"].as_str().unwrap().to_owned()
}

/// What the customer's phone got from the business, decrypted.
fn received(linked: &Linked) -> Vec<WhatsappMessage> {
    let all = linked.whatsapp.messages(CUSTOMER).unwrap();
    all.into_iter().filter(|one| !one.from_me).collect()
}

async fn wait_received(linked: &Linked, text: &str) -> WhatsappMessage {
    wait_until("the customer's phone to show it", async || {
        let got = received(linked);
        got.into_iter()
            .find(|one| one.text.as_deref() == Some(text))
    })
    .await
}

async fn customer_writes(linked: &Linked, text: &str) -> String {
    let wish = WhatsappSend::text(CUSTOMER, BUSINESS, text);
    linked.whatsapp.send(&wish).unwrap()
}

/// Waits for the customer's message in the log.
async fn wait_inbound(app: &TestApp, org: &Org, text: &str) -> Value {
    let find = |messages: &Value| {
        let messages = messages["data"].as_array().cloned().unwrap_or_default();
        messages.into_iter().find(|one| one["body"] == text)
    };
    wait_until("the message in the log", async || {
        let token = &org.people.agent_token;
        let conversations = app.get(token, "/v1/conversations").await.expect(200);
        for conversation in conversations["data"].as_array().unwrap() {
            let id = conversation["id"].as_str().unwrap();
            let path = format!("/v1/conversations/{id}/messages");
            if let Some(message) = find(&app.get(token, &path).await.expect(200)) {
                return Some(message);
            }
        }
        None
    })
    .await
}

#[tokio::test]
async fn a_scanned_phone_sends_and_receives_and_shows_ticks() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;

    customer_writes(&linked, "هل لديكم موعد غداً؟").await;
    let inbound = wait_inbound(&app, &org, "هل لديكم موعد غداً؟").await;
    assert_eq!(inbound["direction"], "inbound");
    assert_eq!(inbound["channel_id"], json!(linked.channel));

    let id = send(
        &app,
        &org,
        &linked,
        json!({ "type": "text", "body": "نعم، الساعة التاسعة" }),
    )
    .await;
    let shown = wait_received(&linked, "نعم، الساعة التاسعة").await;
    assert_eq!(shown.copies, 1);
    app.wait_status(&org.people.agent_token, &id, "delivered")
        .await;
    linked.whatsapp.read(CUSTOMER, BUSINESS).unwrap();
    let read = app.wait_status(&org.people.agent_token, &id, "read").await;
    assert_eq!(read["provider_message_id"], json!(shown.id));
    // One conversation, whoever wrote first.
    let conversations = app.get(&org.people.agent_token, "/v1/conversations").await;
    assert_eq!(conversations.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(conversations.body["data"][0]["customer_name"], "منى");
    assert_eq!(conversations.body["data"][0]["phone_number"], CUSTOMER);
}

#[tokio::test]
async fn a_restarted_server_connects_without_a_new_code_and_hears_what_it_missed() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;
    let simulator = app.simulator.clone();
    let db = app.stop().await;
    customer_writes(&linked, "while you were away").await;

    let app = TestApp::builder()
        .on(db)
        .with_simulator(simulator)
        .start()
        .await;
    let row = wait_session(&app, &org, &linked.session, "connected").await;
    assert!(row["stop_reason"].is_null());
    wait_inbound(&app, &org, "while you were away").await;
    send(
        &app,
        &org,
        &linked,
        json!({ "type": "text", "body": "back again" }),
    )
    .await;
    wait_received(&linked, "back again").await;
}

#[tokio::test]
async fn an_unlinked_phone_leaves_no_key_behind_and_tells_the_owner() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;
    let keys = format!(
        "SELECT count(*) FROM whatsapp_session_keys WHERE session_id = '{}'",
        linked.session
    );
    assert!(app.count(&keys).await > 0);
    linked.whatsapp.unlink(BUSINESS).unwrap();
    let row = wait_session(&app, &org, &linked.session, "disconnected").await;
    assert_eq!(row["stop_reason"], "logged_out");
    app.wait_count(&keys, 0).await;
    let told = app
        .get(&org.people.owner_token, "/v1/notifications")
        .await
        .expect(200);
    let kinds: Vec<&Value> = told["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert!(kinds.contains(&&json!("session_logged_out")), "{told:#}");
    // Kept until somebody links a phone again.
    let id = send(
        &app,
        &org,
        &linked,
        json!({ "type": "text", "body": "later" }),
    )
    .await;
    let path = format!("/v1/messages/{id}");
    let waits = app.get(&org.people.agent_token, &path).await.expect(200);
    assert_eq!(waits["status"], "queued");
    assert_eq!(waits["hold"]["reason"], "phone_not_connected");
}

#[tokio::test]
async fn what_whatsapp_refuses_after_taking_it_fails_with_a_reason() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;
    linked.whatsapp.set_faults(WhatsappFaults {
        nack_next: 1,
        nack_code: 479,
        ..WhatsappFaults::default()
    });
    let id = send(
        &app,
        &org,
        &linked,
        json!({ "type": "text", "body": "refused" }),
    )
    .await;
    let failed = app
        .wait_status(&org.people.agent_token, &id, "failed")
        .await;
    assert_eq!(failed["error_code"], "479");
    assert!(received(&linked).is_empty());
}

#[tokio::test]
async fn a_file_goes_both_ways_unharmed() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;
    let picture: Vec<u8> = (0..50_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    // The customer's picture lands in our storage …
    let file = WhatsappFile {
        base64: BASE64_STANDARD.encode(&picture),
        mime: "image/jpeg".to_owned(),
        caption: Some("صورة".to_owned()),
        file_name: None,
    };
    let wish = WhatsappSend::new(CUSTOMER, BUSINESS, WhatsappContent::Image(file));
    linked.whatsapp.send(&wish).unwrap();
    let inbound = wait_inbound(&app, &org, "صورة").await;
    assert_eq!(inbound["message_type"], "image");
    let media = inbound["media"][0]["media_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/media/{media}");
    wait_until("the picture in our storage", async || {
        let request = app.request(reqwest::Method::GET, &path);
        let answer = request
            .bearer_auth(&org.people.agent_token)
            .send()
            .await
            .unwrap();
        if !answer.status().is_success() {
            return None;
        }
        assert_eq!(answer.bytes().await.unwrap(), picture);
        Some(())
    })
    .await;
    // … and goes back from there.
    let content = json!({ "type": "image", "link": path, "caption": "back" });
    send(&app, &org, &linked, content).await;
    let shown = wait_received(&linked, "back").await;
    assert_eq!(shown.file_bytes, Some(picture.len()));
    let file = linked.whatsapp.file(CUSTOMER, &shown.id).unwrap();
    assert_eq!(file.as_ref(), picture);
}

#[tokio::test]
async fn a_lost_connection_comes_back_and_nothing_is_lost_or_doubled() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;
    sqlx::query(AssertSqlSafe(format!(
        "UPDATE channels SET limits = '{{\"messages_per_second\": 50}}' WHERE id = '{}'",
        linked.channel
    )))
    .execute(&app.owner)
    .await
    .unwrap();
    app.state().registry.reload().await.unwrap();
    linked.whatsapp.set_faults(WhatsappFaults {
        drop_probability: 0.05,
        ..WhatsappFaults::default()
    });
    let mut ids = Vec::new();
    for n in 0..20 {
        let body = format!("out {n}");
        ids.push(send(&app, &org, &linked, json!({ "type": "text", "body": body })).await);
        customer_writes(&linked, &format!("in {n}")).await;
    }
    let settle = |id: &String| {
        let id: Uuid = id.parse().unwrap();
        format!(
            "SELECT count(*) FROM messages WHERE id = '{id}' AND status IN ('delivered', 'read')"
        )
    };
    for (n, id) in ids.iter().enumerate() {
        if n == ids.len() / 2 {
            linked.whatsapp.set_faults(WhatsappFaults::default());
        }
        app.wait_count(&settle(id), 1).await;
    }
    app.wait_count(
        "SELECT count(DISTINCT body) FROM messages WHERE direction = 'inbound'",
        20,
    )
    .await;
    assert_eq!(
        app.count("SELECT count(*) FROM messages WHERE direction = 'inbound'")
            .await,
        20
    );
    let got = received(&linked);
    assert_eq!(got.len(), 20, "{got:#?}");
    let doubled: Vec<_> = got.iter().filter(|one| one.copies > 1).collect();
    assert!(doubled.is_empty(), "{doubled:#?}");
}

/// Waits for a row of the log that is as wanted.
async fn wait_row(app: &TestApp, what: &str, sql: &str) {
    wait_until(what, async || (app.count(sql).await == 1).then_some(())).await;
}

#[tokio::test]
async fn reactions_edits_deletions_places_and_quotes_arrive_as_what_they_are() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;
    let first = customer_writes(&linked, "is it open?").await;
    wait_inbound(&app, &org, "is it open?").await;
    let says = |content| {
        let wish = WhatsappSend::new(CUSTOMER, BUSINESS, content);
        linked.whatsapp.send(&wish).unwrap()
    };
    says(WhatsappContent::Edit(WhatsappEdit {
        message_id: first.clone(),
        text: "is it open today?".to_owned(),
    }));
    wait_inbound(&app, &org, "is it open today?").await;
    says(WhatsappContent::Location(WhatsappLocation {
        latitude: 30.0444,
        longitude: 31.2357,
        name: Some("Cairo".to_owned()),
        address: None,
    }));
    wait_row(
        &app,
        "a place",
        "SELECT count(*) FROM messages WHERE message_type = 'location'",
    )
    .await;
    // Our answer quotes the question; the customer reacts to it.
    let question: Uuid = wait_inbound(&app, &org, "is it open today?").await["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let request = json!({ "channel_id": linked.channel, "to": CUSTOMER, "reply_to": question,
        "content": { "type": "text", "body": "yes" } });
    app.post(&org.people.agent_token, "/v1/messages", &request)
        .await
        .expect(202);
    let answer = wait_received(&linked, "yes").await;
    assert_eq!(answer.quoted.as_deref(), Some(first.as_str()));
    says(WhatsappContent::Reaction(WhatsappReaction {
        message_id: answer.id.clone(),
        emoji: "👍".to_owned(),
    }));
    wait_row(
        &app,
        "the reaction",
        "SELECT count(*) FROM message_reactions WHERE emoji = '👍'",
    )
    .await;
    says(WhatsappContent::Delete(WhatsappDelete {
        message_id: first,
    }));
    wait_row(
        &app,
        "the deletion",
        "SELECT count(*) FROM messages WHERE direction = 'inbound' AND message_type = 'text' AND revoked_at IS NOT NULL",
    )
    .await;
}

#[tokio::test]
async fn a_group_is_one_conversation_that_can_be_read_and_answered() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;
    let other = "+201225556667";
    linked
        .whatsapp
        .register(&NewWhatsappPhone::new(other, "خالد"))
        .unwrap();
    let path = format!("/v1/sessions/{}/groups", linked.session);
    let group = app
        .post(
            &org.people.owner_token,
            &path,
            &json!({ "subject": "Waiting room", "participants": [CUSTOMER, other] }),
        )
        .await
        .expect(201);
    let jid = group["jid"].as_str().unwrap().to_owned();
    for (from, text) in [(CUSTOMER, "hello all"), (other, "hello, too")] {
        let wish = WhatsappSend::text(from, &jid, text);
        linked.whatsapp.send(&wish).unwrap();
    }
    let one = wait_inbound(&app, &org, "hello all").await;
    let two = wait_inbound(&app, &org, "hello, too").await;
    assert_eq!(one["conversation_id"], two["conversation_id"]);
    assert_ne!(one["contact_id"], two["contact_id"]);
    let request = json!({ "conversation_id": one["conversation_id"], "content": { "type": "text", "body": "to everybody" } });
    app.post(&org.people.agent_token, "/v1/messages", &request)
        .await
        .expect(202);
    for number in [CUSTOMER, other] {
        wait_until("the group's answer", async || {
            let got = linked.whatsapp.messages(number).unwrap();
            let found = got
                .into_iter()
                .find(|one| one.text.as_deref() == Some("to everybody"))?;
            assert_eq!(found.chat, jid);
            Some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_changes_their_mind_gets_the_code_they_asked_for_last() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let whatsapp = app.simulator.whatsapp_web();
    whatsapp
        .register(&NewWhatsappPhone::new(BUSINESS, "Wasel Clinic"))
        .unwrap();
    let token = &org.people.owner_token;
    let made = app
        .post(token, "/v1/sessions", &json!({ "name": "Reception" }))
        .await
        .expect(201);
    let id = made["id"].as_str().unwrap().to_owned();
    let (link, qr) = (
        format!("/v1/sessions/{id}/link"),
        format!("/v1/sessions/{id}/qr"),
    );
    wait_until("a QR code", async || {
        app.get(token, &qr).await.body["code"].as_str().map(drop)
    })
    .await;
    // A mistyped number, the right one, and at last a QR code after all.
    for number in ["+201001234560", BUSINESS] {
        app.post(token, &link, &json!({ "phone_number": number }))
            .await
            .expect(200);
        let row = wait_until("a pairing code", async || {
            let row = session(&app, &org, &id).await;
            (row["pairing_code"].is_string() && row["pair_with_phone"] == number).then_some(row)
        })
        .await;
        assert_eq!(row["status"], "qr_pending");
        assert_eq!(app.get(token, &qr).await.status, 404, "one way at a time");
    }
    app.post(token, &link, &json!({})).await.expect(200);
    let code = wait_until("a QR code again", async || {
        app.get(token, &qr).await.body["code"]
            .as_str()
            .map(str::to_owned)
    })
    .await;
    assert!(session(&app, &org, &id).await["pairing_code"].is_null());
    whatsapp.scan(BUSINESS, &code).await.unwrap();
    wait_session(&app, &org, &id, "connected").await;
    // Switched off, it is shown so, and comes back without a code.
    let path = format!("/v1/sessions/{id}");
    app.patch(token, &path, &json!({ "enabled": false }))
        .await
        .expect(200);
    wait_session(&app, &org, &id, "disconnected").await;
    app.patch(token, &path, &json!({ "enabled": true }))
        .await
        .expect(200);
    wait_session(&app, &org, &id, "connected").await;
}

#[tokio::test]
async fn the_documents_send_by_a_linked_phone_where_it_is_all_there_is() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;
    sqlx::query("UPDATE channels SET status = 'paused' WHERE kind <> 'whatsapp_web'")
        .execute(&app.owner)
        .await
        .unwrap();
    app.state().registry.reload().await.unwrap();
    let request = json!({ "org_id": org.id, "recipient": CUSTOMER, "message": "by the phone", "type": "text" });
    let sent = app
        .post(&org.people.owner_token, "/api/messages/send", &request)
        .await
        .expect(200);
    assert_eq!(sent["success"], true);
    let shown = wait_received(&linked, "by the phone").await;
    assert_eq!(sent["whatsapp_message_id"], json!(shown.id));
    let health = app.get(&org.people.owner_token, "/api/health").await;
    assert_eq!(health.body["active_sessions"], 1);
}

#[tokio::test]
async fn nobody_edits_or_deletes_what_somebody_else_wrote() {
    let app = TestApp::start().await;
    let org = app.org("clinic").await;
    let linked = link(&app, &org).await;
    let theirs = customer_writes(&linked, "mine").await;
    wait_inbound(&app, &org, "mine").await;
    send(
        &app,
        &org,
        &linked,
        json!({ "type": "text", "body": "ours" }),
    )
    .await;
    let ours = wait_received(&linked, "ours").await.id;
    let stranger = "+201225556667";
    for (from, target) in [(CUSTOMER, &ours), (stranger, &theirs)] {
        for content in [
            WhatsappContent::Edit(WhatsappEdit {
                message_id: target.clone(),
                text: "forged".to_owned(),
            }),
            WhatsappContent::Delete(WhatsappDelete {
                message_id: target.clone(),
            }),
        ] {
            // The simulator's phones may refuse; a forged client does not.
            drop(
                linked
                    .whatsapp
                    .send(&WhatsappSend::new(from, BUSINESS, content)),
            );
        }
        let last = format!("after {from}");
        linked
            .whatsapp
            .send(&WhatsappSend::text(from, BUSINESS, &last))
            .unwrap();
        wait_inbound(&app, &org, &last).await;
    }
    assert_eq!(
        app.count(
            "SELECT count(*) FROM messages WHERE revoked_at IS NOT NULL OR edited_at IS NOT NULL"
        )
        .await,
        0
    );
}
