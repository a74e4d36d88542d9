//! Nobody sees another tenant's rows: by any route, by SQL, by the change feed, by realtime.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;
use wasel_simulator::{Content, CustomerMedia, CustomerSend};
use wasel_testkit::{Answer, Org, TestApp, meta, wait_until};

/// What organisation A has, in every family of tables.
struct Rows {
    conversation: String,
    contact: String,
    message: String,
    media: String,
    event: String,
    template: String,
    provider_template: String,
    notification: String,
    queued: String,
    bulk_job: String,
    scheduled: String,
    automation: String,
    session: String,
    invitation: String,
}

const NUMBER: &str = "+201001234567";
const TEMPLATE_NAME: &str = "a name that A took";
/// A's file, in a folder of its own.
const FILE: &str = "secret/plan.txt";
const SECRET_TEXT: &str = "a text that only A may see";

/// Fills A with one of everything.
async fn fill(app: &TestApp, org: &Org) -> Rows {
    app.meta_webhook(
        org,
        &meta::change(
            &org.phone_number_id,
            meta::text("201001234567", "wamid.a", SECRET_TEXT),
        ),
    )
    .await
    .expect(200);
    let media = CustomerMedia {
        caption: Some(SECRET_TEXT.to_owned()),
        ..CustomerMedia::default()
    };
    app.world()
        .send_as_customer(CustomerSend::new(
            &org.phone_number_id,
            NUMBER,
            Content::Image(media),
        ))
        .unwrap();
    app.wait_count("SELECT count(*) FROM media WHERE status = 'stored'", 1)
        .await;
    app.meta_webhook_signed(&org.app_secret, b"{".to_vec())
        .await
        .expect(200);
    let conversation = org.conversation(app).await;
    let sent = org
        .send(app, org.whatsapp, NUMBER, SECRET_TEXT)
        .await
        .expect(202);
    app.wait_status(org.owner(), sent["id"].as_str().unwrap(), "delivered")
        .await;
    let reaction = json!({ "messages": [{ "from": "201001234567", "id": "wamid.r", "timestamp": "1749416383",
        "type": "reaction", "reaction": { "message_id": "wamid.a", "emoji": "👍" } }] });
    app.meta_webhook(org, &meta::change(&org.phone_number_id, reaction))
        .await
        .expect(200);
    let stop = meta::change(
        &org.phone_number_id,
        meta::text("201001234568", "wamid.s", "STOP"),
    );
    app.meta_webhook(org, &stop).await.expect(200);
    let early = meta::change(
        &org.phone_number_id,
        meta::status("201001234567", "wamid.unknown", "sent", 1_749_416_383),
    );
    app.meta_webhook(org, &early).await.expect(200);
    let media: Uuid = sqlx::query_scalar("SELECT id FROM media")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    let event: Uuid =
        sqlx::query_scalar("SELECT id FROM webhook_events WHERE outcome = 'dead_letter'")
            .fetch_one(&app.owner)
            .await
            .unwrap();
    let upload = app
        .request(
            Method::POST,
            &format!("/storage/v1/object/whatsapp-media/{FILE}"),
        )
        .bearer_auth(org.owner())
        .header("content-type", "text/plain");
    Answer::of(upload.body(SECRET_TEXT)).await.expect(200);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let template = json!({ "name": TEMPLATE_NAME, "message_template": SECRET_TEXT });
    let template = app
        .post(org.owner(), "/v1/templates", &template)
        .await
        .expect(201);
    let approved = json!({ "template_id": template["id"], "name": "only_as", "language": "en", "category": "UTILITY" });
    let path = format!("/v1/channels/{}/provider-templates", org.whatsapp);
    let approved = app.post(org.owner(), &path, &approved).await.expect(201);
    app.wait_count(
        "SELECT count(*) FROM provider_templates WHERE status = 'APPROVED'",
        1,
    )
    .await;
    let notification = json!({ "title": SECRET_TEXT, "user_id": org.people.owner });
    let notification = app
        .post(org.owner(), "/v1/notifications", &notification)
        .await
        .expect(201);
    let queued = json!({ "notification_type": "sms", "recipient_phone": NUMBER, "message_data": { "message": SECRET_TEXT },
        "scheduled_for": "2099-01-01T00:00:00Z" });
    let queued = app
        .post(org.owner(), "/v1/notification-queue", &queued)
        .await
        .expect(201);
    let later = chrono::Utc::now() + chrono::TimeDelta::days(300);
    let bulk_job = json!({ "channel_id": org.sms, "message": SECRET_TEXT, "scheduled_for": later,
        "recipients": [{ "to": NUMBER, "name": SECRET_TEXT }] });
    let bulk_job = app
        .post(org.owner(), "/v1/bulk-jobs", &bulk_job)
        .await
        .expect(201);
    let scheduled = json!({ "conversation_id": conversation["id"], "message": SECRET_TEXT, "scheduled_for": later });
    let scheduled = app
        .post(org.owner(), "/v1/scheduled-messages", &scheduled)
        .await
        .expect(201);
    let automation = json!({ "name": SECRET_TEXT, "kind": "cron", "cron_expression": "0 9 * * *",
        "template_id": template["id"], "source": { "table": "subscriptions" },
        "mapping": { "recipient_phone": "customer_phone" } });
    let automation = app
        .post(org.owner(), "/v1/automations", &automation)
        .await
        .expect(201);
    sqlx::query(
        "INSERT INTO subscriptions (org_id, customer_name, customer_phone) VALUES ($1, $2, $3)",
    )
    .bind(org.id)
    .bind(SECRET_TEXT)
    .bind(NUMBER)
    .execute(&app.owner)
    .await
    .unwrap();
    app.post(
        org.owner(),
        &format!("/v1/automations/{}/run", text(&automation["id"])),
        &Value::Null,
    )
    .await
    .expect(200);
    app.apply(&format!(
        "[[organizations]]
         slug = '{slug}'
         name = 'Organisation {slug}'
         timezone = 'Africa/Cairo'
         locale = 'ar-EG'
         [[organizations.channels]]
         kind = 'whatsapp_web'
         name = 'Phone'",
        slug = org.slug
    ))
    .await;
    let session: Uuid = sqlx::query_scalar(
        "UPDATE whatsapp_sessions SET status = 'qr_pending', qr_code = $2, qr_expires_at = now() + interval '1 day',
             display_name = $3 WHERE org_id = $1 RETURNING id",
    )
    .bind(org.id)
    .bind(wasel_server::linked_phones::qr::data_url(SECRET_TEXT).unwrap())
    .bind(SECRET_TEXT)
    .fetch_one(&app.owner)
    .await
    .unwrap();
    let invitation = json!({ "email": "new@a.test", "role": "agent", "full_name": SECRET_TEXT });
    let invitation = app
        .post(org.owner(), "/v1/invitations", &invitation)
        .await
        .expect(201);
    // What that queued comes to its end; nothing of this tenant moves by itself any more.
    let open = format!(
        "SELECT count(*) FROM notification_queue WHERE org_id = '{}' AND status IN ('pending', 'processing')
           AND scheduled_for <= now()",
        org.id
    );
    app.wait_count(&open, 0).await;
    let unsent = format!(
        "SELECT count(*) FROM messages WHERE org_id = '{}' AND status IN ('queued', 'sending', 'sent')",
        org.id
    );
    app.wait_count(&unsent, 0).await;
    Rows {
        queued: text(&queued["id"]),
        bulk_job: text(&bulk_job["id"]),
        scheduled: text(&scheduled["id"]),
        automation: text(&automation["id"]),
        template: text(&template["id"]),
        provider_template: text(&approved["id"]),
        notification: text(&notification["id"]),
        conversation: text(&conversation["id"]),
        contact: text(&conversation["contact_id"]),
        message: text(&sent["id"]),
        media: media.to_string(),
        event: event.to_string(),
        session: session.to_string(),
        invitation: text(&invitation["id"]),
    }
}

/// How a route keeps tenants apart.
enum Case {
    /// Asked by B with A's ids: one of these statuses, and nothing of A in the answer. A itself gets 2xx.
    Closed(&'static str, Value, &'static [u16]),
    /// The same, but even A is not answered 2xx.
    Never(&'static str, Value, &'static [u16]),
    /// Holds nobody's rows, or is tested elsewhere, as the reason says.
    #[expect(dead_code, reason = "for whoever reads the table")]
    Open(&'static str),
}

/// Every route of the document. A route may have several cases.
fn cases(
    a: &Org,
    b_conversation: &str,
    rows: &Rows,
) -> Vec<(&'static str, &'static str, String, Case)> {
    use Case::{Closed, Never, Open};
    let none = || Value::Null;
    let text = || json!({ "type": "text", "body": "x" });
    let same = |path: &str| path.to_owned();
    let (conversation, message) = (&rows.conversation, &rows.message);
    const LIST: &[u16] = &[200];
    const GONE: &[u16] = &[404];
    // Storage answers 400 and says 404 in the body.
    const NO_KEY: &[u16] = &[400];
    vec![
        (
            "get",
            "/v1/changes",
            same("/v1/changes?after=0"),
            Closed("a list", none(), LIST),
        ),
        (
            "get",
            "/v1/conversations",
            same("/v1/conversations"),
            Closed("a list", none(), LIST),
        ),
        (
            "get",
            "/v1/conversations",
            format!(
                "/v1/conversations?channel_id={}&contact_id={}",
                a.whatsapp, rows.contact
            ),
            Closed("a list", none(), LIST),
        ),
        (
            "get",
            "/v1/conversations",
            format!("/v1/conversations?assigned_to={}", a.people.owner),
            Closed("a list", none(), LIST),
        ),
        (
            "get",
            "/v1/conversations/{id}",
            format!("/v1/conversations/{conversation}"),
            Closed("by id", none(), GONE),
        ),
        (
            "patch",
            "/v1/channels/{id}",
            format!("/v1/channels/{}", a.whatsapp),
            Closed("by id", json!({ "status": "active" }), GONE),
        ),
        (
            "patch",
            "/v1/channels/{id}",
            format!("/v1/channels/{}", a.whatsapp),
            Closed(
                "its limits",
                json!({ "limits": { "daily_reach": 100_000 } }),
                GONE,
            ),
        ),
        (
            "get",
            "/v1/channels/{id}/pace",
            format!("/v1/channels/{}/pace", a.whatsapp),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/settings/sending",
            same("/v1/settings/sending"),
            Closed("one's own", none(), LIST),
        ),
        (
            "put",
            "/v1/settings/sending",
            same("/v1/settings/sending"),
            Closed("one's own", json!({}), LIST),
        ),
        (
            "patch",
            "/v1/contacts/{id}",
            format!("/v1/contacts/{}", rows.contact),
            Closed("by id", json!({ "timezone": "Asia/Riyadh" }), GONE),
        ),
        (
            "post",
            "/v1/contacts/{id}/consents",
            format!("/v1/contacts/{}/consents", rows.contact),
            Closed(
                "by id",
                json!({ "state": "opted_in", "category": "marketing" }),
                GONE,
            ),
        ),
        (
            "post",
            "/functions/v1/send-whatsapp",
            same("/functions/v1/send-whatsapp"),
            Never(
                "A's template",
                json!({ "to": NUMBER, "template_id": rows.template }),
                GONE,
            ),
        ),
        (
            "post",
            "/functions/v1/send-twilio-message",
            String::new(),
            Open("the service-role key may name any tenant; sends from that tenant's own channel"),
        ),
        (
            "post",
            "/functions/v1/send-unified-notification",
            same("/functions/v1/send-unified-notification"),
            Closed(
                "A's contact",
                json!({ "channels": ["sms"], "recipient_id": rows.contact, "message": "x" }),
                GONE,
            ),
        ),
        (
            "post",
            "/functions/v1/send-unified-notification",
            same("/functions/v1/send-unified-notification"),
            Closed(
                "A's template",
                json!({ "channels": ["sms"], "recipient_phone": NUMBER, "template_id": rows.template }),
                &[422],
            ),
        ),
        (
            "post",
            "/api/webhooks/email",
            String::new(),
            Open("email: a_tenant_cannot_post_into_anothers_mailbox…"),
        ),
        (
            "post",
            "/api/webhooks/email/{channel_id}",
            String::new(),
            Open("email: a_tenant_cannot_post_into_anothers_mailbox…"),
        ),
        (
            "patch",
            "/v1/conversations/{id}",
            format!("/v1/conversations/{conversation}"),
            Closed("by id", json!({ "notes": "x" }), GONE),
        ),
        (
            "patch",
            "/v1/conversations/{id}",
            format!("/v1/conversations/{b_conversation}"),
            Never(
                "A's person",
                json!({ "assigned_to": a.people.owner }),
                &[400],
            ),
        ),
        (
            "get",
            "/v1/conversations/{id}/messages",
            format!("/v1/conversations/{conversation}/messages"),
            Closed("by id", none(), GONE),
        ),
        (
            "post",
            "/v1/conversations/{id}/read",
            format!("/v1/conversations/{conversation}/read"),
            Closed("by id", json!({}), GONE),
        ),
        (
            "post",
            "/v1/messages",
            same("/v1/messages"),
            Closed(
                "A's conversation",
                json!({ "conversation_id": conversation, "content": text() }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/messages",
            same("/v1/messages"),
            Closed(
                "A's channel",
                json!({ "channel_id": a.sms, "to": NUMBER, "content": text() }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/messages",
            same("/v1/messages"),
            Never(
                "quoting A",
                json!({ "conversation_id": b_conversation, "content": text(), "reply_to": message }),
                GONE,
            ),
        ),
        (
            "get",
            "/v1/messages/{id}",
            format!("/v1/messages/{message}"),
            Closed("by id", none(), GONE),
        ),
        (
            "post",
            "/v1/messages/{id}/cancel",
            format!("/v1/messages/{message}/cancel"),
            Never("by id", json!({}), GONE),
        ),
        (
            "get",
            "/v1/notification-queue",
            same("/v1/notification-queue"),
            Closed("a list", none(), LIST),
        ),
        (
            "post",
            "/v1/notification-queue",
            same("/v1/notification-queue"),
            Never(
                "A's template",
                json!({ "notification_type": "sms", "recipient_phone": NUMBER, "template_id": rows.template }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/notification-queue",
            same("/v1/notification-queue"),
            Closed(
                "A's contact",
                json!({ "notification_type": "sms", "recipient_id": rows.contact, "message_data": { "message": "x" } }),
                GONE,
            ),
        ),
        (
            "get",
            "/v1/notification-queue/{id}",
            format!("/v1/notification-queue/{}", rows.queued),
            Closed("by id", none(), GONE),
        ),
        (
            "post",
            "/v1/notification-queue/{id}/cancel",
            format!("/v1/notification-queue/{}/cancel", rows.queued),
            Closed("by id", json!({}), GONE),
        ),
        (
            "post",
            "/functions/v1/send-notification",
            same("/functions/v1/send-notification"),
            Closed(
                "A's contact",
                json!({ "type": "sms", "recipient_id": rows.contact, "message": "x" }),
                GONE,
            ),
        ),
        (
            "post",
            "/functions/v1/process-queue",
            String::new(),
            Open("the service-role key works every tenant's queue off and is told numbers only"),
        ),
        (
            "get",
            "/v1/webhook-events",
            same("/v1/webhook-events"),
            Closed("a list", none(), LIST),
        ),
        (
            "post",
            "/v1/webhook-events/{id}/replay",
            format!("/v1/webhook-events/{}/replay", rows.event),
            Closed("by id", json!({}), GONE),
        ),
        (
            "get",
            "/v1/channels",
            same("/v1/channels"),
            Closed("a list", none(), LIST),
        ),
        (
            "get",
            "/v1/channels/{id}",
            format!("/v1/channels/{}", a.whatsapp),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/contacts",
            format!("/v1/contacts?search={}", &NUMBER[1..]),
            Closed("a search", none(), LIST),
        ),
        (
            "get",
            "/v1/contacts/{id}",
            format!("/v1/contacts/{}", rows.contact),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/media/{id}",
            format!("/v1/media/{}", rows.media),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/reports/messages",
            same("/v1/reports/messages?group_by=day,channel,sender,error_code"),
            Closed("figures", none(), LIST),
        ),
        (
            "get",
            "/v1/reports/messages",
            format!(
                "/v1/reports/messages?format=csv&group_by=channel&channel_id={}",
                a.whatsapp
            ),
            Closed("A's channel, as CSV", none(), LIST),
        ),
        (
            "get",
            "/v1/reports/messages/export",
            same("/v1/reports/messages/export"),
            Closed("the log", none(), LIST),
        ),
        (
            "get",
            "/v1/reports/messages/export",
            format!("/v1/reports/messages/export?channel_id={}", a.whatsapp),
            Closed("A's channel", none(), LIST),
        ),
        (
            "get",
            "/v1/channels/{id}/provider-templates",
            format!("/v1/channels/{}/provider-templates", a.whatsapp),
            Closed("by id", none(), GONE),
        ),
        (
            "post",
            "/v1/channels/{id}/provider-templates",
            format!("/v1/channels/{}/provider-templates", a.whatsapp),
            Closed(
                "by id",
                json!({ "template_id": rows.template, "name": "another", "language": "en", "category": "UTILITY" }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/channels/{id}/provider-templates/sync",
            format!("/v1/channels/{}/provider-templates/sync", a.whatsapp),
            Closed("by id", json!({}), GONE),
        ),
        (
            "get",
            "/v1/channels/{id}/provider-templates/{template_id}",
            format!(
                "/v1/channels/{}/provider-templates/{}",
                a.whatsapp, rows.provider_template
            ),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/templates/{id}/mappings",
            format!("/v1/templates/{}/mappings", rows.template),
            Closed("by id", none(), GONE),
        ),
        (
            "put",
            "/v1/templates/{id}/mappings/{channel_id}",
            format!("/v1/templates/{}/mappings/{}", rows.template, a.whatsapp),
            Closed(
                "by id",
                json!({ "name": "only_as", "language": "en" }),
                GONE,
            ),
        ),
        (
            "delete",
            "/v1/templates/{id}/mappings/{channel_id}",
            format!("/v1/templates/{}/mappings/{}", rows.template, a.whatsapp),
            Closed("by id", none(), GONE),
        ),
        (
            "delete",
            "/v1/channels/{id}/provider-templates/{template_id}",
            format!(
                "/v1/channels/{}/provider-templates/{}",
                a.whatsapp, rows.provider_template
            ),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/automations",
            same("/v1/automations"),
            Closed("a list", none(), LIST),
        ),
        (
            "post",
            "/v1/automations",
            same("/v1/automations"),
            Closed(
                "A's template",
                json!({ "name": "x", "kind": "cron", "cron_expression": "0 9 * * *", "template_id": rows.template,
                    "source": { "table": "subscriptions" }, "mapping": { "recipient_phone": "customer_phone" } }),
                &[400],
            ),
        ),
        (
            "post",
            "/v1/automations/defaults",
            same("/v1/automations/defaults"),
            Closed("one's own", json!({}), LIST),
        ),
        (
            "get",
            "/v1/automations/{id}",
            format!("/v1/automations/{}", rows.automation),
            Closed("by id", none(), GONE),
        ),
        (
            "patch",
            "/v1/automations/{id}",
            format!("/v1/automations/{}", rows.automation),
            Closed("by id", json!({ "description": "x" }), GONE),
        ),
        (
            "get",
            "/v1/automations/{id}/runs",
            format!("/v1/automations/{}/runs", rows.automation),
            Closed("by id", none(), GONE),
        ),
        (
            "post",
            "/v1/automations/{id}/preview",
            format!("/v1/automations/{}/preview", rows.automation),
            Closed("by id", json!({}), GONE),
        ),
        (
            "post",
            "/v1/automations/{id}/run",
            format!("/v1/automations/{}/run", rows.automation),
            Closed("by id", json!({}), GONE),
        ),
        (
            "delete",
            "/v1/automations/{id}",
            format!("/v1/automations/{}", rows.automation),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/templates",
            same("/v1/templates?limit=200"),
            Closed("a list", none(), LIST),
        ),
        (
            "get",
            "/v1/templates",
            same("/v1/templates?q=only+A+may"),
            Closed("a search", none(), LIST),
        ),
        (
            "post",
            "/v1/templates",
            same("/v1/templates"),
            Never(
                "A's name, free in B",
                json!({ "name": TEMPLATE_NAME, "message_template": "x" }),
                &[201],
            ),
        ),
        (
            "get",
            "/v1/templates/{id}",
            format!("/v1/templates/{}", rows.template),
            Closed("by id", none(), GONE),
        ),
        (
            "patch",
            "/v1/templates/{id}",
            format!("/v1/templates/{}", rows.template),
            Closed("by id", json!({ "description": "x" }), GONE),
        ),
        (
            "post",
            "/v1/templates/{id}/preview",
            format!("/v1/templates/{}/preview", rows.template),
            Closed("by id", json!({}), GONE),
        ),
        (
            "delete",
            "/v1/templates/{id}",
            format!("/v1/templates/{}", rows.template),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/notifications",
            same("/v1/notifications"),
            Closed("a list", none(), LIST),
        ),
        (
            "get",
            "/v1/notifications",
            same("/v1/notifications?all=true"),
            Closed("everybody's", none(), LIST),
        ),
        (
            "post",
            "/v1/notifications",
            same("/v1/notifications"),
            Closed(
                "A's person",
                json!({ "title": "x", "user_id": a.people.owner }),
                &[400],
            ),
        ),
        (
            "post",
            "/v1/notifications/read",
            same("/v1/notifications/read"),
            Closed("by id", json!({ "ids": [rows.notification] }), LIST),
        ),
        (
            "post",
            "/v1/notifications/read",
            same("/v1/notifications/read"),
            Closed("all of them", json!({ "all": true }), LIST),
        ),
        (
            "delete",
            "/v1/notifications/{id}",
            format!("/v1/notifications/{}", rows.notification),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/api/live-chat/conversations",
            format!(
                "/api/live-chat/conversations?phone_number_id={}",
                a.phone_number_id
            ),
            Closed("A's number", none(), LIST),
        ),
        (
            "get",
            "/api/live-chat/conversations",
            format!("/api/live-chat/conversations?user_id={}", a.people.owner),
            Closed("A's person", none(), LIST),
        ),
        (
            "get",
            "/api/live-chat/messages",
            format!("/api/live-chat/messages?conversation_id={conversation}"),
            Closed("by id", none(), GONE),
        ),
        (
            "post",
            "/api/live-chat/send-message",
            same("/api/live-chat/send-message"),
            Closed(
                "A's conversation",
                json!({ "conversation_id": conversation, "message": "x" }),
                GONE,
            ),
        ),
        (
            "post",
            "/api/live-chat/send-message",
            same("/api/live-chat/send-message"),
            Closed(
                "A's number",
                json!({ "phone_number_id": a.phone_number_id, "to": NUMBER, "message": "x" }),
                GONE,
            ),
        ),
        (
            "post",
            "/api/messages/send",
            same("/api/messages/send"),
            Closed(
                "A's name",
                json!({ "org_id": a.id, "recipient": NUMBER, "message": "x" }),
                &[403],
            ),
        ),
        (
            "post",
            "/api/messages/send",
            same("/api/messages/send"),
            Closed(
                "A's channel",
                json!({ "channel_id": a.whatsapp, "recipient": NUMBER, "message": "x" }),
                GONE,
            ),
        ),
        (
            "get",
            "/v1/bulk-jobs",
            same("/v1/bulk-jobs"),
            Closed("a list", none(), LIST),
        ),
        (
            "get",
            "/v1/bulk-jobs",
            format!("/v1/bulk-jobs?channel_id={}", a.sms),
            Closed("A's channel", none(), LIST),
        ),
        (
            "post",
            "/v1/bulk-jobs",
            same("/v1/bulk-jobs"),
            Closed(
                "A's channel",
                json!({ "channel_id": a.sms, "message": "x", "recipients": [{ "to": "+201001234569" }] }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/bulk-jobs",
            same("/v1/bulk-jobs"),
            Never(
                "A's template",
                json!({ "medium": "sms", "template_id": rows.template, "recipients": [{ "to": "+201001234569" }] }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/bulk-jobs/preview",
            same("/v1/bulk-jobs/preview"),
            Closed(
                "A's channel",
                json!({ "channel_id": a.sms, "message": "x", "recipients": [{ "to": "+201001234569" }] }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/bulk-jobs/preview",
            same("/v1/bulk-jobs/preview"),
            Never(
                "A's template",
                json!({ "medium": "sms", "template_id": rows.template, "recipients": [{ "to": "+201001234569" }] }),
                GONE,
            ),
        ),
        (
            "get",
            "/v1/bulk-jobs/{id}",
            format!("/v1/bulk-jobs/{}", rows.bulk_job),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/bulk-jobs/{id}/recipients",
            format!("/v1/bulk-jobs/{}/recipients", rows.bulk_job),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/bulk-jobs/{id}/preview",
            format!("/v1/bulk-jobs/{}/preview", rows.bulk_job),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/bulk-jobs/{id}/export",
            format!("/v1/bulk-jobs/{}/export", rows.bulk_job),
            Closed("by id", none(), GONE),
        ),
        (
            "post",
            "/v1/bulk-jobs/{id}/start",
            format!("/v1/bulk-jobs/{}/start", rows.bulk_job),
            Closed("by id", json!({}), GONE),
        ),
        (
            "post",
            "/v1/bulk-jobs/{id}/pause",
            format!("/v1/bulk-jobs/{}/pause", rows.bulk_job),
            Closed("by id", json!({}), GONE),
        ),
        (
            "post",
            "/v1/bulk-jobs/{id}/resume",
            format!("/v1/bulk-jobs/{}/resume", rows.bulk_job),
            Closed("by id", json!({}), GONE),
        ),
        (
            "post",
            "/v1/bulk-jobs/{id}/cancel",
            format!("/v1/bulk-jobs/{}/cancel", rows.bulk_job),
            Closed("by id", json!({}), GONE),
        ),
        (
            "post",
            "/api/messages/send-bulk",
            same("/api/messages/send-bulk"),
            Closed(
                "A's name",
                json!({ "org_id": a.id, "messages": [{ "recipient": NUMBER, "message": "x" }] }),
                &[403],
            ),
        ),
        (
            "post",
            "/api/messages/send-bulk",
            same("/api/messages/send-bulk"),
            Closed(
                "A's channel",
                json!({ "channel_id": a.sms, "messages": [{ "recipient": NUMBER, "message": "x" }] }),
                GONE,
            ),
        ),
        (
            "get",
            "/v1/scheduled-messages",
            same("/v1/scheduled-messages"),
            Closed("a list", none(), LIST),
        ),
        (
            "get",
            "/v1/scheduled-messages",
            format!("/v1/scheduled-messages?conversation_id={conversation}"),
            Closed("A's conversation", none(), LIST),
        ),
        (
            "post",
            "/v1/scheduled-messages",
            same("/v1/scheduled-messages"),
            Closed(
                "A's conversation",
                json!({ "conversation_id": conversation, "message": "x", "scheduled_for": "2099-01-01T00:00:00Z" }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/scheduled-messages",
            same("/v1/scheduled-messages"),
            Closed(
                "A's channel",
                json!({ "channel_id": a.sms, "to": NUMBER, "message": "x", "scheduled_for": "2099-01-01T00:00:00Z" }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/scheduled-messages",
            same("/v1/scheduled-messages"),
            Never(
                "A's template",
                json!({ "conversation_id": b_conversation, "template_id": rows.template, "scheduled_for": "2099-01-01T00:00:00Z" }),
                GONE,
            ),
        ),
        (
            "get",
            "/v1/scheduled-messages/{id}",
            format!("/v1/scheduled-messages/{}", rows.scheduled),
            Closed("by id", none(), GONE),
        ),
        (
            "patch",
            "/v1/scheduled-messages/{id}",
            format!("/v1/scheduled-messages/{}", rows.scheduled),
            Closed("by id", json!({ "priority": 4 }), GONE),
        ),
        (
            "post",
            "/v1/scheduled-messages/{id}/cancel",
            format!("/v1/scheduled-messages/{}/cancel", rows.scheduled),
            Closed("by id", json!({}), GONE),
        ),
        (
            "delete",
            "/v1/scheduled-messages/{id}",
            format!("/v1/scheduled-messages/{}", rows.scheduled),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/v1/sessions",
            same("/v1/sessions"),
            Closed("a list", none(), LIST),
        ),
        (
            "post",
            "/v1/sessions",
            same("/v1/sessions"),
            Open("makes a row of the caller's own and takes no ids"),
        ),
        (
            "get",
            "/v1/sessions/{id}",
            format!("/v1/sessions/{}", rows.session),
            Closed("by id", none(), GONE),
        ),
        (
            "patch",
            "/v1/sessions/{id}",
            format!("/v1/sessions/{}", rows.session),
            Closed("by id", json!({ "history_days": 1 }), GONE),
        ),
        (
            "get",
            "/v1/sessions/{id}/qr",
            format!("/v1/sessions/{}/qr", rows.session),
            Closed("by id", none(), GONE),
        ),
        (
            "post",
            "/v1/sessions/{id}/link",
            format!("/v1/sessions/{}/link", rows.session),
            Never("by id; waits for a node", json!({}), GONE),
        ),
        (
            "post",
            "/v1/sessions/{id}/passkey",
            format!("/v1/sessions/{}/passkey", rows.session),
            Never("by id; nothing is asked", json!({ "assertion": {} }), GONE),
        ),
        (
            "post",
            "/v1/sessions/{id}/passkey/confirm",
            format!("/v1/sessions/{}/passkey/confirm", rows.session),
            Never("by id; nothing is asked", none(), GONE),
        ),
        (
            "get",
            "/v1/sessions/{id}/groups",
            format!("/v1/sessions/{}/groups", rows.session),
            Never("by id; no node runs it", none(), GONE),
        ),
        (
            "post",
            "/v1/sessions/{id}/groups",
            format!("/v1/sessions/{}/groups", rows.session),
            Never(
                "by id; no node runs it",
                json!({ "subject": "x", "participants": ["77@lid"] }),
                GONE,
            ),
        ),
        (
            "post",
            "/v1/conversations/{id}/typing",
            format!("/v1/conversations/{conversation}/typing"),
            Never("by id; not on a linked phone", json!({}), GONE),
        ),
        (
            "post",
            "/api/sessions/init",
            same("/api/sessions/init"),
            Never(
                "A's name; waits for a node",
                json!({ "org_id": a.id }),
                GONE,
            ),
        ),
        (
            "get",
            "/api/sessions/{org_id}/qr",
            format!("/api/sessions/{}/qr", a.id),
            Closed("A's name", none(), GONE),
        ),
        (
            "get",
            "/api/sessions/{org_id}/status",
            format!("/api/sessions/{}/status", a.id),
            Closed("A's name", none(), GONE),
        ),
        (
            "post",
            "/api/sessions/{org_id}/logout",
            format!("/api/sessions/{}/logout", a.id),
            Closed("A's name", json!({}), GONE),
        ),
        (
            "post",
            "/v1/sessions/{id}/logout",
            format!("/v1/sessions/{}/logout", rows.session),
            Closed("by id", json!({}), GONE),
        ),
        (
            "delete",
            "/v1/sessions/{id}",
            format!("/v1/sessions/{}", rows.session),
            Closed("by id", none(), GONE),
        ),
        (
            "get",
            "/auth/v1/user",
            same("/auth/v1/user"),
            Closed("oneself", none(), LIST),
        ),
        (
            "put",
            "/auth/v1/user",
            same("/auth/v1/user"),
            Closed("oneself", json!({ "data": { "theme": "dark" } }), LIST),
        ),
        (
            "get",
            "/auth/v1/verify",
            String::new(),
            Open("a page with a button"),
        ),
        (
            "post",
            "/auth/v1/verify",
            String::new(),
            Open("by a secret: auth::a_handed_out_link_opens_no_account…"),
        ),
        (
            "post",
            "/auth/v1/recover",
            String::new(),
            Open("auth::recovery_answers_alike…"),
        ),
        (
            "post",
            "/auth/v1/resend",
            String::new(),
            Open("says nothing of anybody"),
        ),
        ("post", "/auth/v1/otp", String::new(), Open("always closed")),
        (
            "post",
            "/auth/v1/magiclink",
            String::new(),
            Open("always closed"),
        ),
        (
            "get",
            "/auth/v1/authorize",
            String::new(),
            Open("always closed"),
        ),
        (
            "post",
            "/auth/v1/invite",
            String::new(),
            Open("auth::the_operators_server_invites…"),
        ),
        (
            "get",
            "/v1/invitations",
            same("/v1/invitations"),
            Closed("a list", none(), LIST),
        ),
        (
            "post",
            "/v1/invitations",
            same("/v1/invitations"),
            Closed(
                "A's channel",
                json!({ "email": "x@elsewhere.test", "role": "agent", "channel_ids": [a.whatsapp] }),
                &[400],
            ),
        ),
        (
            "post",
            "/v1/invitations/{id}/resend",
            format!("/v1/invitations/{}/resend", rows.invitation),
            Closed("by id", none(), GONE),
        ),
        (
            "delete",
            "/v1/invitations/{id}",
            format!("/v1/invitations/{}", rows.invitation),
            Closed("by id", none(), GONE),
        ),
        (
            "post",
            "/auth/v1/logout",
            same("/auth/v1/logout"),
            Closed("oneself", none(), &[204]),
        ),
        (
            "post",
            "/auth/v1/token",
            String::new(),
            Open("signing in; tested with the identity"),
        ),
        (
            "post",
            "/auth/v1/signup",
            String::new(),
            Open("by a secret: auth::an_invitation_makes_an_account…"),
        ),
        (
            "get",
            "/auth/v1/.well-known/jwks.json",
            String::new(),
            Open("public keys"),
        ),
        ("get", "/auth/v1/settings", String::new(), Open("nobody's")),
        ("get", "/auth/v1/health", String::new(), Open("nobody's")),
        (
            "get",
            "/realtime/v1/websocket",
            String::new(),
            Open("realtime_shows_each_tenant_its_own_rows_only"),
        ),
        (
            "post",
            "/realtime/v1/api/broadcast",
            String::new(),
            Open("broadcasts_and_presence_stay_in_their_tenant"),
        ),
        (
            "post",
            "/realtime/v1/api/broadcast/{topic}/events/{event}",
            String::new(),
            Open("broadcasts_and_presence_stay_in_their_tenant"),
        ),
        ("get", "/healthz", String::new(), Open("nobody's")),
        ("get", "/readyz", String::new(), Open("nobody's")),
        ("get", "/api/health", String::new(), Open("nobody's")),
        ("get", "/", String::new(), Open("a page without rows")),
        (
            "get",
            "/page/{file}",
            String::new(),
            Open("a page without rows"),
        ),
        (
            "get",
            "/page/settings.json",
            String::new(),
            Open("a page without rows"),
        ),
        (
            "get",
            "/api/webhooks/whatsapp",
            String::new(),
            Open("inbound: the handshake"),
        ),
        (
            "get",
            "/api/webhooks/whatsapp/{channel_id}",
            String::new(),
            Open("inbound: the handshake"),
        ),
        (
            "post",
            "/api/webhooks/whatsapp",
            String::new(),
            Open("inbound: a_tenant_cannot_write_into_another…"),
        ),
        (
            "post",
            "/api/webhooks/whatsapp/{channel_id}",
            String::new(),
            Open("inbound: one_channels_own_address_refuses…"),
        ),
        (
            "post",
            "/functions/v1/whatsapp-webhook",
            String::new(),
            Open("inbound: the same handler"),
        ),
        (
            "get",
            "/api/webhooks/twilio",
            String::new(),
            Open("inbound: signed"),
        ),
        (
            "post",
            "/api/webhooks/twilio",
            String::new(),
            Open("inbound: a_tenant_cannot_write_into_another…"),
        ),
        (
            "post",
            "/api/webhooks/twilio/{channel_id}",
            String::new(),
            Open("inbound: signed"),
        ),
        (
            "post",
            "/functions/v1/twilio-delivery-status",
            String::new(),
            Open("inbound: signed"),
        ),
        (
            "get",
            "/rest/v1/",
            same("/rest/v1/"),
            Never("for the service-role key", none(), &[403]),
        ),
        (
            "get",
            "/rest/v1/{table}",
            same("/rest/v1/conversations?select=*,messages(*),contacts(*)&order=id"),
            Closed("a list with what belongs to it", none(), LIST),
        ),
        (
            "get",
            "/rest/v1/{table}",
            format!(
                "/rest/v1/whatsapp_messages?id=eq.{message}&select=*,whatsapp_conversations(*)"
            ),
            Closed("by id", none(), LIST),
        ),
        (
            "post",
            "/rest/v1/{table}",
            same("/rest/v1/contacts"),
            Closed("A's tenant", json!({ "org_id": a.id, "name": "x" }), &[403]),
        ),
        (
            "patch",
            "/rest/v1/{table}",
            format!("/rest/v1/conversations?id=eq.{conversation}"),
            Closed("by id", json!({ "notes": "x" }), &[204]),
        ),
        (
            "delete",
            "/rest/v1/{table}",
            format!("/rest/v1/notifications?id=eq.{}", rows.notification),
            Closed("by id", none(), &[204]),
        ),
        (
            "get",
            "/rest/v1/rpc/{function}",
            String::new(),
            Open("rest: a_function_made_later_is_found_and_runs_as_the_caller"),
        ),
        (
            "post",
            "/rest/v1/rpc/{function}",
            String::new(),
            Open("rest: a_function_made_later_is_found_and_runs_as_the_caller"),
        ),
        (
            "get",
            "/functions/v1/whatsapp-webhook",
            String::new(),
            Open("inbound: the handshake"),
        ),
        (
            "post",
            "/functions/v1/whatsapp-init",
            same("/functions/v1/whatsapp-init"),
            Never(
                "A's name; waits for a node",
                json!({ "org_id": a.id }),
                GONE,
            ),
        ),
        (
            "post",
            "/api/media/upload",
            String::new(),
            Open("storage: a_file_for_a_message_gets_an_address…"),
        ),
        (
            "post",
            "/storage/v1/object/{bucket}/{*path}",
            String::new(),
            Open("storage: the_same_path_in_two_tenants_is_two_files"),
        ),
        (
            "put",
            "/storage/v1/object/{bucket}/{*path}",
            String::new(),
            Open("storage: the_same_path_in_two_tenants_is_two_files"),
        ),
        (
            "get",
            "/storage/v1/object/{bucket}/{*path}",
            format!("/storage/v1/object/whatsapp-media/{FILE}"),
            Closed("by name", none(), NO_KEY),
        ),
        (
            "delete",
            "/storage/v1/object/{bucket}/{*path}",
            format!("/storage/v1/object/whatsapp-media/{FILE}"),
            Never("by name", none(), NO_KEY),
        ),
        (
            "get",
            "/storage/v1/object/authenticated/{bucket}/{*path}",
            format!("/storage/v1/object/authenticated/whatsapp-media/{FILE}"),
            Closed("by name", none(), NO_KEY),
        ),
        (
            "get",
            "/storage/v1/object/info/{bucket}/{*path}",
            format!("/storage/v1/object/info/whatsapp-media/{FILE}"),
            Closed("by name", none(), NO_KEY),
        ),
        (
            "post",
            "/storage/v1/object/list/{bucket}",
            same("/storage/v1/object/list/whatsapp-media"),
            Closed("a list", json!({ "prefix": "secret" }), LIST),
        ),
        (
            "delete",
            "/storage/v1/object/{bucket}",
            same("/storage/v1/object/whatsapp-media"),
            Never("by name", json!({ "prefixes": [FILE] }), LIST),
        ),
        (
            "post",
            "/storage/v1/object/move",
            same("/storage/v1/object/move"),
            Never(
                "by name",
                json!({ "bucketId": "whatsapp-media", "sourceKey": FILE, "destinationKey": "x.txt" }),
                NO_KEY,
            ),
        ),
        (
            "post",
            "/storage/v1/object/copy",
            same("/storage/v1/object/copy"),
            Closed(
                "by name",
                json!({ "bucketId": "whatsapp-media", "sourceKey": FILE, "destinationKey": "x.txt" }),
                NO_KEY,
            ),
        ),
        (
            "post",
            "/storage/v1/object/sign/{bucket}",
            same("/storage/v1/object/sign/whatsapp-media"),
            Closed("by name", json!({ "expiresIn": 60, "paths": [FILE] }), LIST),
        ),
        (
            "post",
            "/storage/v1/object/sign/{bucket}/{*path}",
            format!("/storage/v1/object/sign/whatsapp-media/{FILE}"),
            Closed("by name", json!({ "expiresIn": 60 }), NO_KEY),
        ),
        (
            "get",
            "/storage/v1/object/sign/{bucket}/{*path}",
            String::new(),
            Open("storage: a_signed_address_opens_one_file_of_one_tenant"),
        ),
        (
            "post",
            "/storage/v1/object/upload/sign/{bucket}/{*path}",
            String::new(),
            Open("storage: public_is_what_a_tenant_put_into_its_own…; a path of one's own else"),
        ),
        (
            "put",
            "/storage/v1/object/upload/sign/{bucket}/{*path}",
            String::new(),
            Open("storage: a_signed_address_opens_one_file_of_one_tenant"),
        ),
        (
            "get",
            "/storage/v1/object/public/{bucket}/{*path}",
            String::new(),
            Open("storage: public_is_what_a_tenant_put_into_its_own_public_folder"),
        ),
        (
            "get",
            "/storage/v1/render/image/{*path}",
            String::new(),
            Open("refuses everybody"),
        ),
        (
            "get",
            "/storage/v1/bucket",
            same("/storage/v1/bucket"),
            Closed("the same for all", none(), LIST),
        ),
        (
            "post",
            "/storage/v1/bucket",
            same("/storage/v1/bucket"),
            Never("refuses everybody", json!({ "id": "x" }), NO_KEY),
        ),
        (
            "get",
            "/storage/v1/bucket/{bucket}",
            same("/storage/v1/bucket/whatsapp-media"),
            Closed("the same for all", none(), LIST),
        ),
        (
            "put",
            "/storage/v1/bucket/{bucket}",
            same("/storage/v1/bucket/whatsapp-media"),
            Never("refuses everybody", none(), NO_KEY),
        ),
        (
            "delete",
            "/storage/v1/bucket/{bucket}",
            same("/storage/v1/bucket/whatsapp-media"),
            Never("refuses everybody", none(), NO_KEY),
        ),
        (
            "post",
            "/storage/v1/bucket/{bucket}/empty",
            same("/storage/v1/bucket/whatsapp-media/empty"),
            Never("refuses everybody", none(), NO_KEY),
        ),
    ]
}

async fn routes(app: &TestApp) -> BTreeSet<(String, String)> {
    let document = Answer::of(app.request(Method::GET, "/v1/openapi.json"))
        .await
        .expect(200);
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if ["get", "post", "put", "patch", "delete"].contains(&method.as_str()) {
                routes.insert((method.clone(), path.clone()));
            }
        }
    }
    routes
}

/// Everything A has, as one number: it must not move.
async fn fingerprint(app: &TestApp, org: Uuid) -> String {
    let mut all = String::new();
    for table in [
        "conversations",
        "messages",
        "contacts",
        "channels",
        "webhook_events",
        "media",
        "message_events",
        "consents",
        "templates",
        "provider_templates",
        "template_mappings",
        "notifications",
        "notification_queue",
        "bulk_jobs",
        "bulk_recipients",
        "scheduled_messages",
        "automations",
        "automation_runs",
        "automation_deliveries",
        "subscriptions",
        "whatsapp_sessions",
        "whatsapp_session_commands",
        "invitations",
        "storage_objects",
    ] {
        let sql = format!(
            "SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} t WHERE org_id = '{org}'"
        );
        let hash: String = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&app.owner)
            .await
            .unwrap();
        all.push_str(&hash);
    }
    all
}

#[tokio::test]
async fn no_route_shows_or_changes_another_tenants_rows() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let rows = fill(&app, &a).await;
    app.meta_webhook(
        &b,
        &meta::change(
            &b.phone_number_id,
            meta::text("4477001234567", "wamid.b", "hello b"),
        ),
    )
    .await
    .expect(200);
    let b_conversation = b.conversation(&app).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let cases = cases(&a, &b_conversation, &rows);

    let covered: BTreeSet<(String, String)> = cases
        .iter()
        .map(|(m, p, ..)| ((*m).to_owned(), (*p).to_owned()))
        .collect();
    assert_eq!(
        routes(&app).await,
        covered,
        "left: routes of the document; right: routes with a case here"
    );

    let ids = [a.id, a.whatsapp, a.sms, a.twilio_whatsapp, a.people.owner].map(|id| id.to_string());
    let traces: Vec<&str> = [
        SECRET_TEXT,
        NUMBER,
        a.phone_number_id.as_str(),
        &rows.conversation,
        &rows.contact,
        &rows.message,
        &rows.media,
        &rows.event,
        &rows.template,
        &rows.provider_template,
        &rows.notification,
        &rows.queued,
        &rows.bulk_job,
        &rows.scheduled,
        &rows.automation,
        &rows.invitation,
    ]
    .into_iter()
    .chain(ids.iter().map(String::as_str))
    .collect();
    let before = fingerprint(&app, a.id).await;
    let ask =
        async |token: Option<&str>, org: Option<Uuid>, method: &str, path: &str, body: &Value| {
            let method: Method = method.to_uppercase().parse().unwrap();
            let mut request = app.request(method, path);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            if let Some(org) = org {
                request = request.header("x-org-id", org.to_string());
            }
            Answer::of(if body.is_null() {
                request
            } else {
                request.json(body)
            })
            .await
        };
    for (method, route, path, case) in &cases {
        let (Case::Closed(what, body, statuses) | Case::Never(what, body, statuses)) = case else {
            continue;
        };
        let name = format!("{method} {route} ({what})");
        // Storage says it in the body.
        let unauthorized = if route.starts_with("/storage/") {
            400
        } else {
            401
        };
        assert_eq!(
            ask(None, None, method, path, body).await.status,
            unauthorized,
            "{name} without a token"
        );
        let answer = ask(Some(b.owner()), None, method, path, body).await;
        assert!(
            statuses.contains(&answer.status),
            "{name}: {} {}",
            answer.status,
            answer.text
        );
        for trace in &traces {
            assert!(
                !answer.text.contains(trace),
                "{name} tells B of A: {}",
                answer.text
            );
        }
        if !route.starts_with("/auth") {
            let forced = ask(Some(b.owner()), Some(a.id), method, path, body).await;
            assert!(
                [401, 403].contains(&forced.status) || forced.body["statusCode"] == "403",
                "{name} with A's name in X-Org-Id: {} {}",
                forced.status,
                forced.text
            );
        }
    }
    assert_eq!(
        fingerprint(&app, a.id).await,
        before,
        "B changed something of A"
    );
    // The other half of the proof: with A's own token the same requests are answered.
    for (method, route, path, case) in &cases {
        let Case::Closed(what, body, _) = case else {
            continue;
        };
        let answer = ask(Some(a.owner()), None, method, path, body).await;
        assert!(
            (200..300).contains(&answer.status),
            "A itself: {method} {route} ({what}): {} {}",
            answer.status,
            answer.text
        );
    }
}

/// Begins a transaction as PostgREST does for a signed-in user.
async fn become_user(connection: &mut PgConnection, role: &str, claims: &Value) {
    let sql = format!(
        "ROLLBACK; BEGIN; SET LOCAL ROLE {role}; SET LOCAL request.jwt.claims = '{claims}'"
    );
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

/// The tables and views of the schema clients see: (name, kind).
async fn relations(app: &TestApp) -> Vec<(String, String)> {
    sqlx::query(
        "SELECT c.relname::text AS name, c.relkind::text AS kind FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1",
    )
    .fetch_all(&app.owner)
    .await
    .unwrap()
    .iter()
    .map(|row| (row.get("name"), row.get("kind")))
    .collect()
}

#[tokio::test]
async fn sql_as_another_tenants_user_sees_and_changes_nothing_in_any_table_or_view() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    fill(&app, &a).await;
    let before = fingerprint(&app, a.id).await;
    let mut connection = app.db.connect().await;
    let user = |person: Uuid, org: Uuid| json!({ "sub": person, "role": "authenticated", "app_metadata": { "org_id": org } });
    let strangers = [
        ("authenticated", user(b.people.owner, b.id)),
        // What a user may write into their own token counts for nothing.
        (
            "authenticated",
            json!({ "sub": b.people.owner, "role": "authenticated", "user_metadata": { "org_id": a.id } }),
        ),
        (
            "authenticated",
            json!({ "sub": Uuid::now_v7(), "role": "authenticated" }),
        ),
        ("authenticated", json!({})),
        ("anon", json!({ "role": "anon" })),
        ("anon", user(a.people.owner, a.id)),
    ];
    let mut seen_by_owner = 0;
    for (name, kind) in relations(&app).await {
        let of_a = format!(
            "SELECT count(*) FROM public.{name} WHERE org_id = '{}'",
            a.id
        );
        let exist: i64 = app.count(&of_a).await;
        become_user(
            &mut connection,
            "authenticated",
            &user(a.people.owner, a.id),
        )
        .await;
        if let Ok(seen) = sqlx::query_scalar::<_, i64>(AssertSqlSafe(of_a.clone()))
            .fetch_one(&mut connection)
            .await
        {
            assert_eq!(seen, exist, "A's own owner sees all of {name}");
            seen_by_owner += usize::from(seen > 0);
        }
        for (role, claims) in &strangers {
            let who = format!("{role} {claims} on {name}");
            become_user(&mut connection, role, claims).await;
            match sqlx::query_scalar::<_, i64>(AssertSqlSafe(of_a.clone()))
                .fetch_one(&mut connection)
                .await
            {
                Ok(seen) => assert_eq!(seen, 0, "{who}"),
                Err(error) => assert_eq!(
                    error.as_database_error().and_then(|e| e.code()).as_deref(),
                    Some("42501"),
                    "{who}: {error}"
                ),
            }
            if kind == "v" {
                continue;
            }
            for write in [
                format!("DELETE FROM public.{name} WHERE org_id = '{}'", a.id),
                format!(
                    "UPDATE public.{name} SET org_id = '{}' WHERE org_id = '{}'",
                    b.id, a.id
                ),
                format!("TRUNCATE public.{name} CASCADE"),
            ] {
                become_user(&mut connection, role, claims).await;
                match sqlx::query(AssertSqlSafe(write.clone()))
                    .execute(&mut connection)
                    .await
                {
                    Ok(done) => assert_eq!(done.rows_affected(), 0, "{who}: {write}"),
                    // Not allowed; or a generated column.
                    Err(error) => {
                        let code = error
                            .as_database_error()
                            .and_then(|e| e.code())
                            .unwrap_or_default()
                            .into_owned();
                        assert!(
                            ["42501", "428C9"].contains(&code.as_str()),
                            "{who}: {write}: {error}"
                        );
                    }
                }
            }
        }
    }
    assert!(
        seen_by_owner >= 14,
        "the test has something to hide: {seen_by_owner}"
    );
    // Writing a row into A.
    for (role, claims) in &strangers {
        become_user(&mut connection, role, claims).await;
        let insert =
            sqlx::query("INSERT INTO contacts (org_id, id, name) VALUES ($1, $2, 'forged')")
                .bind(a.id)
                .bind(Uuid::now_v7());
        let error = insert
            .execute(&mut connection)
            .await
            .expect_err("must be refused");
        assert_eq!(
            error.as_database_error().and_then(|e| e.code()).as_deref(),
            Some("42501"),
            "{role} {claims}"
        );
    }
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(fingerprint(&app, a.id).await, before);
}

#[tokio::test]
async fn roles_in_sql_may_do_what_they_may_in_the_api() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    fill(&app, &org).await;
    let mut connection = app.db.connect().await;
    for (person, allowed) in [
        (org.people.owner, true),
        (org.people.agent, true),
        (org.people.viewer, false),
    ] {
        let claims = json!({ "sub": person, "role": "authenticated" });
        become_user(&mut connection, "authenticated", &claims).await;
        let updated = sqlx::query("UPDATE conversations SET notes = 'x'")
            .execute(&mut connection)
            .await
            .unwrap()
            .rows_affected();
        assert_eq!(updated > 0, allowed, "{person}");
        become_user(&mut connection, "authenticated", &claims).await;
        sqlx::query("SELECT sealed FROM channel_secrets")
            .fetch_all(&mut connection)
            .await
            .expect_err("nobody reads secrets");
        become_user(&mut connection, "authenticated", &claims).await;
        sqlx::query("SELECT body FROM webhook_events")
            .fetch_all(&mut connection)
            .await
            .expect_err("raw bodies are not for tenants");
        become_user(&mut connection, "authenticated", &claims).await;
        sqlx::query("SELECT password_hash FROM wasel.users")
            .fetch_all(&mut connection)
            .await
            .expect_err("nobody reads password hashes");
        become_user(&mut connection, "authenticated", &claims).await;
        sqlx::query("SELECT token_hash FROM wasel.refresh_tokens")
            .fetch_all(&mut connection)
            .await
            .expect_err("nor refresh tokens");
        become_user(&mut connection, "authenticated", &claims).await;
        let promoted =
            sqlx::query("UPDATE profiles SET role = 'super_admin' WHERE id = auth.uid()")
                .execute(&mut connection)
                .await;
        assert!(
            promoted.is_err() || promoted.unwrap().rows_affected() == 0,
            "nobody promotes themselves"
        );
    }
}

#[tokio::test]
async fn every_tenant_table_forces_row_level_security_and_is_keyed_by_tenant() {
    let app = TestApp::start().await;
    let rows = sqlx::query(
        "SELECT c.relname::text AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
             (SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i
              CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
              WHERE i.indrelid = c.oid AND i.indisprimary) AS key,
             EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'org_id' AND a.attnotnull) AS has_org
         FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1",
    )
    .fetch_all(&app.owner)
    .await
    .unwrap();
    assert!(rows.len() > 20);
    for row in rows {
        let name: String = row.get("name");
        assert!(
            row.get::<bool, _>("enabled") && row.get::<bool, _>("forced"),
            "{name}: row-level security enabled and forced"
        );
        assert!(row.get::<bool, _>("has_org"), "{name}: org_id NOT NULL");
        let key: Vec<String> = row.get("key");
        let first = if name == "organizations" {
            "id"
        } else {
            "org_id"
        };
        assert_eq!(
            key[0], first,
            "{name}: the primary key begins with the tenant"
        );
    }
    // A reference into another tenant cannot be written.
    let crossing: Vec<String> = sqlx::query_scalar(
        "SELECT format('%s.%s', c.conrelid::regclass, c.conname) FROM pg_constraint c
         WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace AND c.conrelid <> 'organizations'::regclass
           AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = c.conkey[1] AND a.attname = 'org_id')",
    )
    .fetch_all(&app.owner)
    .await
    .unwrap();
    assert!(
        crossing.is_empty(),
        "foreign keys that do not carry the tenant: {crossing:?}"
    );
    let owner_views: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
           AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)",
    )
    .fetch_all(&app.owner)
    .await
    .unwrap();
    assert!(
        owner_views.is_empty(),
        "views that would pass row-level security: {owner_views:?}"
    );
}

pub(crate) type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// Opens a socket and joins a channel with these bindings, as supabase-js does; waits until it is subscribed.
pub(crate) async fn subscribe(app: &TestApp, token: &str, bindings: Value) -> Socket {
    let key = app
        .state()
        .config
        .auth
        .supabase_anon_key
        .as_ref()
        .unwrap()
        .expose();
    subscribe_with(app, key, Some(token), bindings).await
}

/// The same with this key of the connection, and perhaps without a token in the join.
pub(crate) async fn subscribe_with(
    app: &TestApp,
    key: &str,
    token: Option<&str>,
    bindings: Value,
) -> Socket {
    let url = format!(
        "{}/realtime/v1/websocket?apikey={key}&vsn=1.0.0",
        app.base.replace("http", "ws")
    );
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let join = json!({ "topic": "realtime:any", "event": "phx_join", "ref": "1", "join_ref": "1", "payload": {
        "config": { "broadcast": { "ack": false, "self": false }, "presence": { "key": "" }, "postgres_changes": bindings, "private": false },
        "access_token": token } });
    socket.send(Message::text(join.to_string())).await.unwrap();
    loop {
        let frame = next(&mut socket).await.expect("an answer to the join");
        if frame["event"] == "system" {
            assert_eq!(frame["payload"]["status"], "ok", "{frame}");
            return socket;
        }
        assert_ne!(frame["payload"]["status"], "error", "{frame}");
    }
}

pub(crate) async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        let message = tokio::time::timeout(wasel_testkit::PATIENCE, socket.next())
            .await
            .ok()??
            .ok()?;
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).ok();
        }
    }
}

/// The changed rows until one has this body.
async fn rows_until(socket: &mut Socket, body: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    loop {
        let frame = next(socket).await.expect("the wanted row");
        if frame["event"] == "postgres_changes" {
            let record = frame["payload"]["data"]["record"].clone();
            let found = record["body"] == body;
            rows.push(record);
            if found {
                return rows;
            }
        }
    }
}

#[tokio::test]
async fn realtime_shows_each_tenant_its_own_rows_only() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let all = json!([{ "event": "*", "schema": "public", "table": "messages" }]);
    let mut of_a = subscribe(&app, a.owner(), all.clone()).await;
    let mut of_b = subscribe(&app, b.owner(), all).await;
    // B even asks for A by name.
    let spying = json!([{ "event": "*", "schema": "public", "table": "messages", "filter": format!("org_id=eq.{}", a.id) }]);
    let mut spy = subscribe(&app, b.owner(), spying).await;
    for n in 0..5 {
        for (org, text) in [(&a, "for a"), (&b, "for b")] {
            let payload = meta::change(
                &org.phone_number_id,
                meta::text("201001234567", &format!("wamid.{n}"), text),
            );
            app.meta_webhook(org, &payload).await.expect(200);
        }
    }
    for (org, socket) in [(&a, &mut of_a), (&b, &mut of_b)] {
        let payload = meta::change(
            &org.phone_number_id,
            meta::text("201001234567", "wamid.last", "the end"),
        );
        app.meta_webhook(org, &payload).await.expect(200);
        let rows = rows_until(socket, "the end").await;
        assert_eq!(rows.len(), 6, "{rows:?}");
        assert!(
            rows.iter().all(|row| row["org_id"] == json!(org.id)),
            "{rows:?}"
        );
    }
    let silent = tokio::time::timeout(Duration::from_millis(500), async {
        loop {
            let frame = next(&mut spy).await.unwrap();
            assert_ne!(frame["event"], "postgres_changes", "{frame}");
        }
    })
    .await;
    assert!(silent.is_err());
}

/// Joins a topic with presence; answers the socket and the reply to the join.
async fn join_topic(app: &TestApp, token: &str, topic: &str, private: bool) -> (Socket, Value) {
    let key = app.state().config.auth.supabase_anon_key.as_ref();
    let url = format!(
        "{}/realtime/v1/websocket?apikey={}&vsn=1.0.0",
        app.base.replace("http", "ws"),
        key.unwrap().expose()
    );
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let join = json!({ "topic": format!("realtime:{topic}"), "event": "phx_join", "ref": "1", "join_ref": "1", "payload": {
        "config": { "broadcast": { "self": true }, "presence": { "key": "k" }, "private": private },
        "access_token": token } });
    socket.send(Message::text(join.to_string())).await.unwrap();
    let reply = next(&mut socket).await.expect("an answer to the join");
    if reply["payload"]["status"] == "ok" {
        let state = next(&mut socket).await.expect("who is present");
        assert_eq!(state["event"], "presence_state", "{state}");
        assert_eq!(state["payload"], json!({}), "nobody of another tenant");
    }
    (socket, reply)
}

#[tokio::test]
async fn broadcasts_and_presence_stay_in_their_tenant() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let text = meta::text("201001234567", "wamid.1", "hello");
    app.meta_webhook(&a, &meta::change(&a.phone_number_id, text))
        .await
        .expect(200);
    let conversation = a.conversation(&app).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for private in [false, true] {
        let (mut of_a, _) = join_topic(&app, a.owner(), "same", private).await;
        let track = json!({ "topic": "realtime:same", "event": "presence", "ref": "2", "join_ref": "1",
            "payload": { "type": "presence", "event": "track", "payload": { "who": "a" } } });
        of_a.send(Message::text(track.to_string())).await.unwrap();
        while next(&mut of_a).await.unwrap()["event"] != "presence_diff" {}
        let (mut of_b, _) = join_topic(&app, b.owner(), "same", private).await;
        for (org, word) in [(&a, "of a"), (&b, "of b")] {
            let message =
                json!({ "topic": "same", "event": "e", "private": private, "payload": word });
            let body = json!({ "messages": [message] });
            app.post(org.owner(), "/realtime/v1/api/broadcast", &body)
                .await
                .expect(202);
            let path = format!("/realtime/v1/api/broadcast/same/events/e?private={private}");
            app.post(org.owner(), &path, &json!(word)).await.expect(202);
        }
        for (socket, word) in [(&mut of_a, "of a"), (&mut of_b, "of b")] {
            for _ in 0..2 {
                let frame = next(socket).await.expect("a broadcast");
                assert_eq!(frame["event"], "broadcast", "{frame}");
                assert_eq!(frame["payload"]["payload"], word);
            }
        }
    }
    // A conversation's topic is not even there for the other tenant.
    let topic = format!("conversation:{conversation}");
    let (_, reply) = join_topic(&app, a.owner(), &topic, true).await;
    assert_eq!(reply["payload"]["status"], "ok", "{reply}");
    let (_, reply) = join_topic(&app, b.owner(), &topic, true).await;
    assert_eq!(reply["payload"]["status"], "error", "{reply}");
    let body =
        json!({ "messages": [{ "topic": topic, "event": "e", "private": true, "payload": {} }] });
    app.post(b.owner(), "/realtime/v1/api/broadcast", &body)
        .await
        .expect(403);
}

#[tokio::test]
async fn coming_back_with_a_number_shows_ones_own_rows_only() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let start: i64 = sqlx::query_scalar("SELECT max(seq) FROM change_log")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    for (org, text) in [
        (&a, "for a"),
        (&b, "for b"),
        (&b, "the end"),
        (&a, "the end"),
    ] {
        let id = format!("wamid.{text}");
        let text = meta::text("201001234567", &id, text);
        app.meta_webhook(org, &meta::change(&org.phone_number_id, text))
            .await
            .expect(200);
    }
    let all = json!([{ "event": "*", "schema": "public", "table": "messages", "after": start }]);
    for (org, text) in [(&a, "for a"), (&b, "for b")] {
        let mut socket = subscribe(&app, org.owner(), all.clone()).await;
        let rows = rows_until(&mut socket, "the end").await;
        let bodies: Vec<_> = rows.iter().map(|row| row["body"].clone()).collect();
        assert_eq!(bodies, [json!(text), json!("the end")]);
        assert!(
            rows.iter()
                .all(|row| row["change_seq"].as_i64() > Some(start))
        );
    }
}

#[tokio::test]
async fn an_agent_limited_to_a_channel_sees_only_that_one_everywhere() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    sqlx::query("INSERT INTO channel_members (org_id, channel_id, user_id) VALUES ($1, $2, $3)")
        .bind(org.id)
        .bind(org.whatsapp)
        .bind(org.people.agent)
        .execute(&app.owner)
        .await
        .unwrap();
    let mut socket = subscribe(
        &app,
        org.agent(),
        json!([{ "event": "*", "schema": "public", "table": "messages" }]),
    )
    .await;
    let start = app.get(org.owner(), "/v1/changes").await.expect(200)["next_cursor"]
        .as_i64()
        .unwrap();
    let line = format!("whatsapp:{}", org.whatsapp_number);
    app.world()
        .send_as_customer(CustomerSend::text(line, NUMBER, "hidden"))
        .unwrap();
    app.wait_count("SELECT count(*) FROM messages WHERE body = 'hidden'", 1)
        .await;
    app.world()
        .send_as_customer(CustomerSend::text(
            &org.phone_number_id,
            "+201007777777",
            "shown",
        ))
        .unwrap();
    app.wait_count("SELECT count(*) FROM messages WHERE body = 'shown'", 1)
        .await;

    // Realtime.
    let rows = rows_until(&mut socket, "shown").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    // REST.
    let list = app.get(org.agent(), "/v1/conversations").await.expect(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["data"][0]["last_message"], "shown");
    let channels = app.get(org.agent(), "/v1/channels").await.expect(200);
    assert_eq!(channels["data"].as_array().unwrap().len(), 1, "{channels}");
    let all = app
        .get(
            org.owner(),
            &format!("/v1/conversations?channel_id={}", org.twilio_whatsapp),
        )
        .await
        .expect(200);
    let hidden = all["data"][0]["id"].as_str().unwrap();
    app.get(org.agent(), &format!("/v1/conversations/{hidden}"))
        .await
        .expect(404);
    app.get(org.agent(), &format!("/v1/conversations/{hidden}/messages"))
        .await
        .expect(404);
    app.get(
        org.agent(),
        &format!("/api/live-chat/messages?conversation_id={hidden}"),
    )
    .await
    .expect(404);
    let answer = json!({ "conversation_id": hidden, "content": { "type": "text", "body": "x" } });
    app.post(org.agent(), "/v1/messages", &answer)
        .await
        .expect(404);
    let direct =
        json!({ "channel_id": org.sms, "to": NUMBER, "content": { "type": "text", "body": "x" } });
    app.post(org.agent(), "/v1/messages", &direct)
        .await
        .expect(404);
    app.patch(
        org.agent(),
        &format!("/v1/conversations/{hidden}"),
        &json!({ "notes": "x" }),
    )
    .await
    .expect(404);
    // The change feed.
    let changes = wait_until("the feed has the last row", async || {
        let page = app
            .get(
                org.agent(),
                &format!("/v1/changes?after={start}&limit=1000"),
            )
            .await
            .expect(200);
        page.to_string().contains("shown").then_some(page)
    })
    .await;
    assert!(!changes.to_string().contains("hidden"), "{changes:#}");
    assert!(
        !changes
            .to_string()
            .contains(&org.twilio_whatsapp.to_string()),
        "{changes:#}"
    );
    // SQL: every table and view that names a channel, a conversation or a message.
    let messages: Vec<String> =
        sqlx::query_scalar("SELECT id::text FROM messages WHERE conversation_id = $1::uuid")
            .bind(hidden)
            .fetch_all(&app.owner)
            .await
            .unwrap();
    let mut connection = app.db.connect().await;
    let mut looked = 0;
    for (name, _) in relations(&app).await {
        for (column, value) in [
            ("channel_id", org.twilio_whatsapp.to_string()),
            ("conversation_id", hidden.to_owned()),
            ("message_id", messages[0].clone()),
        ] {
            let count =
                format!("SELECT count(*) FROM public.{name} WHERE {column}::text = '{value}'");
            become_user(
                &mut connection,
                "authenticated",
                &json!({ "sub": org.people.agent, "role": "authenticated" }),
            )
            .await;
            // No such column, or not for tenants.
            if let Ok(seen) = sqlx::query_scalar::<_, i64>(AssertSqlSafe(count.clone()))
                .fetch_one(&mut connection)
                .await
            {
                assert_eq!(seen, 0, "{count}");
                looked += 1;
            }
        }
    }
    assert!(looked > 10, "{looked}");
}
