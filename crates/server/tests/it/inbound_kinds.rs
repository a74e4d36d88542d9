//! What customers can send, from the simulated phone to our rows: files, reactions, edits, revokes, echoes, people
//! whose number changes or is not told.

use reqwest::Method;
use serde_json::{Value, json};
use wasel_simulator::{BusinessEcho, Content, Customer, CustomerMedia, CustomerSend};
use wasel_testkit::{Answer, Org, TestApp, meta, wait_until};

const CUSTOMER: &str = "+201001234567";

fn from_customer(org: &Org, content: Content) -> CustomerSend {
    CustomerSend::new(&org.phone_number_id, CUSTOMER, content)
}

/// The newest message of the only conversation, once there are this many.
async fn newest(app: &TestApp, org: &Org, count: usize) -> Value {
    wait_until(&format!("{count} messages"), async || {
        let list = app.get(org.owner(), "/v1/conversations").await.expect(200);
        let conversation = list["data"].get(0)?.clone();
        let thread = org.thread(app, &conversation).await;
        (thread.len() == count).then(|| thread[0].clone())
    })
    .await
}

async fn fixture(app: &TestApp, org: &Org, name: &str) {
    let payload = match name {
        "bsuid_only" => {
            include_str!("../../../providers/tests/payloads/whatsapp_cloud/bsuid_only.json")
        }
        "batch" => include_str!("../../../providers/tests/payloads/whatsapp_cloud/batch.json"),
        _ => panic!("no payload {name}"),
    };
    let payload = payload.replace("106540352242922", &org.phone_number_id);
    app.meta_webhook_signed(&org.app_secret, payload.into_bytes())
        .await
        .expect(200);
}

#[tokio::test]
async fn a_picture_is_fetched_from_meta_and_served_to_the_tenant() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let media = CustomerMedia {
        caption: Some("the bill".to_owned()),
        ..CustomerMedia::default()
    };
    app.world()
        .send_as_customer(from_customer(&org, Content::Image(media)))
        .unwrap();
    let message = newest(&app, &org, 1).await;
    assert_eq!(
        (message["message_type"].as_str(), message["body"].as_str()),
        (Some("image"), Some("the bill"))
    );
    let id = message["media"][0]["media_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/media/{id}");
    let file = wait_until("the file is fetched", async || {
        let response = app
            .request(Method::GET, &path)
            .bearer_auth(org.owner())
            .send()
            .await
            .unwrap();
        (response.status() == 200).then_some(response)
    })
    .await;
    assert_eq!(
        file.headers()["content-type"],
        message["media"][0]["mime_type"].as_str().unwrap()
    );
    let bytes = file.bytes().await.unwrap();
    assert!(!bytes.is_empty());
    let row: (i64, String) = sqlx::query_as("SELECT size_bytes, sha256 FROM media")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    assert_eq!(row.0, bytes.len() as i64);
    let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
    assert_eq!(row.1, hex::encode(hash));
    Answer::of(app.request(Method::GET, &path))
        .await
        .expect(401);
    let other = app.org("b").await;
    app.get(other.owner(), &path).await.expect(404);
}

#[tokio::test]
async fn a_file_sent_through_twilio_is_fetched_too() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let line = format!("whatsapp:{}", org.whatsapp_number);
    let send = CustomerSend::new(line, CUSTOMER, Content::Image(CustomerMedia::default()));
    app.world().send_as_customer(send).unwrap();
    let message = newest(&app, &org, 1).await;
    assert_eq!(message["message_type"], "image");
    let path = format!(
        "/v1/media/{}",
        message["media"][0]["media_id"].as_str().unwrap()
    );
    wait_until("the file is fetched", async || {
        (app.get(org.owner(), &path).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reaction_shows_at_its_message_and_can_be_taken_back() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let world = app.world();
    world
        .send_as_customer(CustomerSend::text(&org.phone_number_id, CUSTOMER, "hi"))
        .unwrap();
    let first = newest(&app, &org, 1).await;
    let sent = org
        .send(&app, org.whatsapp, CUSTOMER, "hello")
        .await
        .expect(202);
    let sent = app
        .wait_status(org.owner(), sent["id"].as_str().unwrap(), "delivered")
        .await;
    let ours = sent["provider_message_id"].as_str().unwrap().to_owned();
    let react = |emoji: Option<&str>| {
        let reaction = Content::Reaction {
            message_id: ours.clone(),
            emoji: emoji.map(str::to_owned),
        };
        world
            .send_as_customer(from_customer(&org, reaction))
            .unwrap();
    };
    let reactions = async || {
        let thread = org.thread(&app, &org.conversation(&app).await).await;
        assert_eq!(thread.len(), 2, "a reaction is no message of its own");
        thread.iter().find(|m| m["id"] == sent["id"]).unwrap()["reactions"].clone()
    };
    react(Some("👍🏽"));
    wait_until("the reaction", async || {
        (reactions().await[0]["emoji"] == "👍🏽").then_some(())
    })
    .await;
    react(Some("❤️"));
    wait_until("the other one instead", async || {
        let now = reactions().await;
        (now.as_array().unwrap().len() == 1 && now[0]["emoji"] == "❤️").then_some(())
    })
    .await;
    react(None);
    wait_until("none", async || {
        reactions()
            .await
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
    assert_eq!(first["status"], "received");
}

#[tokio::test]
async fn an_edited_message_shows_its_new_text_and_a_revoked_one_says_so() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let world = app.world();
    let id = world
        .send_as_customer(CustomerSend::text(
            &org.phone_number_id,
            CUSTOMER,
            "at noon",
        ))
        .unwrap();
    newest(&app, &org, 1).await;
    world
        .send_as_customer(from_customer(
            &org,
            Content::Edit {
                message_id: id.clone(),
                body: "at one".to_owned(),
            },
        ))
        .unwrap();
    wait_until("the new text", async || {
        (newest(&app, &org, 1).await["body"] == "at one").then_some(())
    })
    .await;
    assert!(newest(&app, &org, 1).await["edited_at"].is_string());
    world
        .send_as_customer(from_customer(&org, Content::Revoke { message_id: id }))
        .unwrap();
    wait_until("revoked", async || {
        newest(&app, &org, 1).await["revoked_at"]
            .is_string()
            .then_some(())
    })
    .await;
    assert_eq!(org.conversation(&app).await["unread_count"], 1);
}

#[tokio::test]
async fn what_the_business_writes_in_the_phone_app_is_in_the_thread_as_ours() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    app.world()
        .send_as_business_app(BusinessEcho {
            phone_number_id: org.phone_number_id.clone(),
            to: CUSTOMER.to_owned(),
            content: Content::Text {
                body: "from my phone".to_owned(),
            },
        })
        .unwrap();
    let message = newest(&app, &org, 1).await;
    assert_eq!(
        (message["direction"].as_str(), message["body"].as_str()),
        (Some("outbound"), Some("from my phone"))
    );
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["unread_count"], 0);
    assert_eq!(conversation["last_direction"], "outbound");
    assert_eq!(
        app.count("SELECT count(*) FROM outbox").await,
        0,
        "it has been sent already"
    );
}

#[tokio::test]
async fn a_customer_who_changes_the_number_stays_one_person_with_one_conversation() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let world = app.world();
    world
        .send_as_customer(CustomerSend::text(
            &org.phone_number_id,
            CUSTOMER,
            "old number",
        ))
        .unwrap();
    newest(&app, &org, 1).await;
    let new = "+201009999999";
    world
        .send_as_customer(from_customer(
            &org,
            Content::NumberChange {
                new_number: new.to_owned(),
            },
        ))
        .unwrap();
    app.wait_count(
        &format!("SELECT count(*) FROM contact_identities WHERE value = '{new}'"),
        1,
    )
    .await;
    world
        .send_as_customer(CustomerSend::text(&org.phone_number_id, new, "new number"))
        .unwrap();
    app.wait_count("SELECT count(*) FROM messages WHERE body = 'new number'", 1)
        .await;
    assert_eq!(app.count("SELECT count(*) FROM contacts").await, 1);
    assert_eq!(org.conversation(&app).await["last_message"], "new number");
}

#[tokio::test]
async fn two_contacts_that_turn_out_to_be_one_person_become_one_with_one_thread() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let write = async |from: &str, id: &str, body: &str| {
        app.meta_webhook(
            &org,
            &meta::change(&org.phone_number_id, meta::text(from, id, body)),
        )
        .await
        .expect(200);
    };
    write("201001234567", "wamid.1", "from the old number").await;
    write("201009999999", "wamid.2", "from the new number").await;
    assert_eq!(app.count("SELECT count(*) FROM conversations").await, 2);
    let change = json!({ "messages": [{ "from": "201001234567", "id": "wamid.s", "timestamp": "1750269342", "type": "system",
        "system": { "body": "changed", "wa_id": "201009999999", "type": "user_changed_number" } }] });
    app.meta_webhook(&org, &meta::change(&org.phone_number_id, change))
        .await
        .expect(200);
    assert_eq!(app.count("SELECT count(*) FROM contacts").await, 1);
    let conversation = org.conversation(&app).await;
    let thread = org.thread(&app, &conversation).await;
    let texts: Vec<&str> = thread.iter().filter_map(|m| m["body"].as_str()).collect();
    assert!(
        texts.contains(&"from the old number") && texts.contains(&"from the new number"),
        "{texts:?}"
    );
    write("201009999999", "wamid.3", "and on").await;
    assert_eq!(org.conversation(&app).await["id"], conversation["id"]);
}

#[tokio::test]
async fn a_customer_without_a_number_can_write_and_be_answered() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let world = app.world();
    world
        .put_customer(Customer {
            number: CUSTOMER.to_owned(),
            name: "Mona".to_owned(),
            user_id: String::new(),
            username: Some("mona".to_owned()),
            reachable: true,
            marketing_stopped: false,
        })
        .unwrap();
    world
        .send_as_customer(CustomerSend::text(
            &org.phone_number_id,
            CUSTOMER,
            "no number",
        ))
        .unwrap();
    newest(&app, &org, 1).await;
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["phone_number"], Value::Null, "{conversation}");
    let answer = json!({ "conversation_id": conversation["id"], "content": { "type": "text", "body": "hello" } });
    let sent = app
        .post(org.agent(), "/v1/messages", &answer)
        .await
        .expect(202);
    app.wait_status(org.owner(), sent["id"].as_str().unwrap(), "delivered")
        .await;
}

#[tokio::test]
async fn three_ways_to_leave_the_number_out_are_one_customer() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    fixture(&app, &org, "bsuid_only").await;
    assert_eq!(app.count("SELECT count(*) FROM contacts").await, 1);
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["unread_count"], 3);
}

#[tokio::test]
async fn every_kind_of_message_arrives_with_its_type() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let world = app.world();
    let file = CustomerMedia::default;
    let kinds: Vec<(&str, Content)> = vec![
        (
            "text",
            Content::Text {
                body: "مرحبا".to_owned(),
            },
        ),
        ("image", Content::Image(file())),
        ("audio", Content::Audio(file())),
        ("video", Content::Video(file())),
        ("document", Content::Document(file())),
        ("sticker", Content::Sticker(file())),
        (
            "location",
            Content::Location {
                latitude: 30.0,
                longitude: 31.0,
                name: Some("Cairo".to_owned()),
                address: None,
            },
        ),
        (
            "contacts",
            Content::Contacts {
                contacts: vec![json!({ "name": { "formatted_name": "A B" }, "phones": [] })],
            },
        ),
        (
            "interactive",
            Content::ButtonReply {
                id: "yes".to_owned(),
                title: "Yes".to_owned(),
            },
        ),
        (
            "interactive",
            Content::ListReply {
                id: "1".to_owned(),
                title: "One".to_owned(),
                description: None,
            },
        ),
        (
            "button",
            Content::Button {
                payload: "p".to_owned(),
                text: "Confirm".to_owned(),
            },
        ),
        (
            "order",
            Content::Order {
                catalog_id: "c".to_owned(),
                text: "please".to_owned(),
                product_items: vec![
                    json!({ "product_retailer_id": "sku", "quantity": 2, "item_price": 10, "currency": "EGP" }),
                ],
            },
        ),
        ("unsupported", Content::Unsupported),
    ];
    let mut count = 0;
    for (kind, content) in kinds {
        world
            .send_as_customer(from_customer(&org, content))
            .unwrap();
        count += 1;
        let message = newest(&app, &org, count).await;
        assert_eq!(message["message_type"], kind, "{message}");
        assert_eq!(message["status"], "received");
    }
    assert_eq!(
        app.count("SELECT count(*) FROM webhook_events WHERE outcome = 'dead_letter'")
            .await,
        0
    );
}
