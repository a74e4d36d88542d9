//! Requests as Meta wants them, and its answers.

use serde_json::{Value, json};
use wasel_domain::event::{Identity, IdentityKind};
use wasel_domain::{AttemptId, MessageId, OutboundContent};
use wasel_providers::conformance::Answer;
use wasel_providers::{Accepted, ErrorClass, Outbound, ReadReceipt, SendError};

use super::{TOKEN, open, subject};
use crate::stand_in::{StandIn, client, start_hanging_up};

const ATTEMPT: &str = "0197b2a4-5b6c-7d8e-9f00-112233445566";

async fn send(
    base: &str,
    to: &Identity,
    content: Value,
    quoted_message_id: Option<&str>,
) -> Result<Accepted, SendError> {
    let content: OutboundContent = serde_json::from_value(content).unwrap();
    let message = Outbound {
        message_id: MessageId::generate(),
        thread: None,
        attempt_id: ATTEMPT.parse::<AttemptId>().unwrap(),
        to,
        content: &content,
        quoted_message_id,
        group_id: None,
        status_callback: None,
    };
    open(base).send(&client(), &message).await
}

fn phone() -> Identity {
    Identity::new(IdentityKind::Phone, "+201012345678")
}

#[tokio::test]
async fn each_kind_of_content_goes_out_in_metas_envelope() {
    let provider = StandIn::start([subject().http.unwrap().accepted]).await;
    let components = json!([{"type": "body", "parameters": [{"type": "text", "text": "أحمد"}]}]);
    let interactive = json!({
        "type": "button",
        "body": {"text": "Which?"},
        "action": {"buttons": [{"type": "reply", "reply": {"id": "a", "title": "A"}}]},
    });
    let cards = json!([{"name": {"formatted_name": "Ahmed", "first_name": "Ahmed"}}]);
    for (content, kind, expected) in [
        (
            json!({"type": "text", "body": "مرحبا 😀", "preview_url": true}),
            "text",
            json!({"body": "مرحبا 😀", "preview_url": true}),
        ),
        (
            json!({"type": "image", "link": "https://example.com/a.jpg", "caption": "A"}),
            "image",
            json!({"link": "https://example.com/a.jpg", "caption": "A"}),
        ),
        (
            json!({"type": "video", "provider_id": "17"}),
            "video",
            json!({"id": "17"}),
        ),
        (
            json!({"type": "audio", "provider_id": "17", "voice": true}),
            "audio",
            json!({"id": "17", "voice": true}),
        ),
        (
            json!({"type": "document", "provider_id": "17", "filename": "bill.pdf"}),
            "document",
            json!({"id": "17", "filename": "bill.pdf"}),
        ),
        (
            json!({"type": "sticker", "provider_id": "17"}),
            "sticker",
            json!({"id": "17"}),
        ),
        (
            json!({"type": "location", "latitude": 30.5, "longitude": 31.25, "name": "Here"}),
            "location",
            json!({"latitude": 30.5, "longitude": 31.25, "name": "Here"}),
        ),
        (
            json!({"type": "contacts", "contacts": cards}),
            "contacts",
            cards.clone(),
        ),
        (
            json!({"type": "interactive", "interactive": interactive}),
            "interactive",
            interactive.clone(),
        ),
        (
            json!({"type": "template", "name": "hello", "language": "ar", "components": components}),
            "template",
            json!({"name": "hello", "language": {"code": "ar"}, "components": components}),
        ),
        (
            json!({"type": "template", "name": "bye", "language": "en_US", "text": "Bye"}),
            "template",
            json!({"name": "bye", "language": {"code": "en_US"}}),
        ),
        (
            json!({"type": "reaction", "message_id": "wamid.1", "emoji": ""}),
            "reaction",
            json!({"message_id": "wamid.1", "emoji": ""}),
        ),
    ] {
        send(&provider.base, &phone(), content, None).await.unwrap();
        let seen = provider.seen().pop().unwrap();
        let expected = json!({
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": "+201012345678",
            "type": kind,
            kind: expected,
            "biz_opaque_callback_data": ATTEMPT,
        });
        assert_eq!(seen.json(), expected);
        assert_eq!(seen.method, "POST");
        assert_eq!(seen.path, "/v26.0/106540352242922/messages");
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(seen.header("authorization"), Some(bearer.as_str()));
        assert_eq!(seen.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn a_bsuid_is_the_recipient_and_a_quote_is_the_context() {
    let provider = StandIn::start([subject().http.unwrap().accepted]).await;
    let bsuid = Identity::new(IdentityKind::Bsuid, "EG.1349");
    let text = json!({"type": "text", "body": "hi"});
    send(&provider.base, &bsuid, text, Some("wamid.theirs"))
        .await
        .unwrap();
    let sent = provider.seen()[0].json();
    assert_eq!(sent["recipient"], "EG.1349");
    assert_eq!(sent.get("to"), None);
    assert_eq!(sent["context"], json!({"message_id": "wamid.theirs"}));
}

#[tokio::test]
async fn an_identity_of_another_network_is_refused_without_a_request() {
    let provider = StandIn::start([subject().http.unwrap().accepted]).await;
    let email = Identity::new(IdentityKind::Email, "a@example.com");
    let text = json!({"type": "text", "body": "hi"});
    let error = send(&provider.base, &email, text, None).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Recipient);
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn accepted_says_who_the_recipient_really_is_whatever_the_message_waits_for() {
    for status in ["accepted", "held_for_quality_assessment", "paused", "later"] {
        let answer = Answer::json(
            200,
            &json!({
                "messaging_product": "whatsapp",
                // Brazil: the ninth digit was dialled and is not in the id; it is one person all the same.
                "contacts": [{
                    "input": "+5511987654321", "wa_id": "551187654321", "user_id": "BR.77",
                }],
                "messages": [{"id": "wamid.1", "message_status": status}],
            }),
        );
        let provider = StandIn::start([answer]).await;
        let text = json!({"type": "text", "body": "hi"});
        let accepted = send(&provider.base, &phone(), text, None).await.unwrap();
        assert_eq!(
            accepted,
            Accepted {
                status: None,
                provider_message_id: "wamid.1".to_owned(),
                recipient: vec![
                    Identity::new(IdentityKind::Phone, "+5511987654321"),
                    Identity::new(IdentityKind::Bsuid, "BR.77"),
                ],
            }
        );
    }
}

#[tokio::test]
async fn an_answer_without_a_message_id_is_ambiguous() {
    for answer in [
        json!({"messages": []}),
        json!({"messages": [{"id": ""}]}),
        json!({"messages": [{}]}),
        json!({"success": true}),
        json!([]),
    ] {
        let provider = StandIn::start([Answer::json(200, &answer)]).await;
        let text = json!({"type": "text", "body": "hi"});
        let error = send(&provider.base, &phone(), text, None)
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Ambiguous, "{answer}");
    }
}

#[tokio::test]
async fn metas_own_waits_are_passed_on() {
    for (code, seconds) in [
        (131_057, Some(60)),
        (131_049, Some(86_400)),
        (131_056, None),
    ] {
        let answer = Answer::json(400, &json!({"error": {"code": code, "message": "no"}}));
        let provider = StandIn::start([answer]).await;
        let text = json!({"type": "text", "body": "hi"});
        let error = send(&provider.base, &phone(), text, None)
            .await
            .unwrap_err();
        let waits = error.retry_after.map(|wait| wait.as_secs());
        assert_eq!(waits, seconds, "{code}");
    }
}

#[tokio::test]
async fn a_read_receipt_may_show_typing_and_a_lost_one_is_only_tried_again() {
    let provider = StandIn::start([Answer::json(200, &json!({"success": true}))]).await;
    for typing in [false, true] {
        let receipt = ReadReceipt {
            provider_message_id: "wamid.theirs",
            typing,
        };
        let channel = open(&provider.base);
        channel.mark_read(&client(), &receipt).await.unwrap();
    }
    let read = json!({
        "messaging_product": "whatsapp", "status": "read", "message_id": "wamid.theirs",
    });
    let mut read_and_typing = read.clone();
    read_and_typing["typing_indicator"] = json!({"type": "text"});
    let seen = provider.seen();
    assert_eq!(seen[0].json(), read);
    assert_eq!(seen[1].json(), read_and_typing);
    assert_eq!(seen[1].path, "/v26.0/106540352242922/messages");

    let receipt = ReadReceipt {
        provider_message_id: "wamid.theirs",
        typing: false,
    };
    let base = start_hanging_up().await;
    let error = open(&base).mark_read(&client(), &receipt).await;
    assert_eq!(error.unwrap_err().class, ErrorClass::Transient);
}
