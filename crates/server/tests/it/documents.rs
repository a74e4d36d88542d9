//! The documents' own tables and columns, as views over ours, and the same shapes in realtime.

use serde_json::{Value, json};
use sqlx::Row;
use wasel_db::changes::{DOCUMENT_NAMES, list_shaped};
use wasel_simulator::{Content, CustomerMedia, CustomerSend};
use wasel_testkit::{TestApp, meta};

/// What the requirements name: S0.3, S1.1, S2.5, S2.6, S4.3.
const COLUMNS: [(&str, &[&str]); 7] = [
    (
        "whatsapp_conversations",
        &[
            "id",
            "phone_number",
            "status",
            "last_message_at",
            "unread_count",
            "assigned_to",
            "notes",
            "tags",
            "patient_id",
        ],
    ),
    (
        "whatsapp_messages",
        &[
            // S0.3
            "content",
            "message_type",
            "direction",
            "status",
            "created_at",
            "delivered_at",
            "read_at",
            "conversation_id",
            // S2.6
            "id",
            "sender_id",
            "recipient_phone",
            "message_content",
            "message_sid",
            "error_code",
            "error_message",
            "media_url",
            "request_id",
            "sent_at",
            "failed_at",
            // S4.3
            "org_id",
            "session_id",
            "recipient_name",
            "message_body",
            "template_name",
            "template_params",
            "whatsapp_message_id",
            "retry_count",
            "sent_by",
            "trigger_type",
            "related_entity_id",
            "scheduled_at",
            "updated_at",
        ],
    ),
    (
        "chat_conversations",
        &[
            "id",
            "user_id",
            "waba_id",
            "phone_number_id",
            "customer_phone",
            "customer_name",
            "customer_profile_pic",
            "last_message",
            "last_message_time",
            "unread_count",
            "status",
            "created_at",
            "updated_at",
        ],
    ),
    (
        "chat_messages",
        &[
            "id",
            "conversation_id",
            "message_id",
            "wa_message_id",
            "content",
            "message_type",
            "media_url",
            "media_caption",
            "sender",
            "status",
            "timestamp",
            "metadata",
            "created_at",
        ],
    ),
    (
        "message_logs",
        &[
            "id",
            "request_id",
            "recipient",
            "message_type",
            "message_content",
            "provider",
            "status",
            "external_id",
            "metadata",
            "sender_id",
            "media_url",
            "sent_at",
            "delivered_at",
            "read_at",
            "failed_at",
            "error_code",
            "error_message",
        ],
    ),
    (
        "waba_accounts",
        &[
            "waba_id",
            "user_id",
            "owner_business_id",
            "access_token",
            "created_at",
        ],
    ),
    (
        "phone_numbers",
        &[
            "id",
            "waba_id",
            "phone_number_id",
            "display_phone_number",
            "verified_name",
            "is_registered",
        ],
    ),
];

#[tokio::test]
async fn every_column_the_documents_name_is_there() {
    let app = TestApp::start().await;
    for (view, columns) in COLUMNS {
        let there: Vec<String> = sqlx::query_scalar(
            "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1",
        )
        .bind(view)
        .fetch_all(&app.owner)
        .await
        .unwrap();
        for column in columns {
            assert!(
                there.iter().any(|name| name == column),
                "{view}.{column} is missing in {there:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_views_show_the_documents_words_and_the_feed_has_the_same_shapes() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    app.meta_webhook(
        &org,
        &meta::change(
            &org.phone_number_id,
            meta::text("201001234567", "wamid.1", "hello"),
        ),
    )
    .await
    .expect(200);
    let media = CustomerMedia {
        caption: Some("the bill".to_owned()),
        ..CustomerMedia::default()
    };
    app.world()
        .send_as_customer(CustomerSend::new(
            &org.phone_number_id,
            "+201001234567",
            Content::Image(media),
        ))
        .unwrap();
    app.wait_count("SELECT count(*) FROM media WHERE status = 'stored'", 1)
        .await;
    for (channel, body) in [(org.whatsapp, "by Meta"), (org.sms, "by SMS")] {
        let sent = org
            .send(&app, channel, "+201001234567", body)
            .await
            .expect(202);
        app.wait_status(org.owner(), sent["id"].as_str().unwrap(), "delivered")
            .await;
    }
    app.wait_count("SELECT count(*) FROM outbox", 0).await;

    let log = sqlx::query("SELECT message_type, provider, status, recipient, external_id FROM message_logs ORDER BY created_at")
        .fetch_all(&app.owner)
        .await
        .unwrap();
    let words: Vec<[String; 4]> = log
        .iter()
        .map(|row| {
            ["message_type", "provider", "status", "recipient"].map(|column| row.get(column))
        })
        .collect();
    assert_eq!(
        words,
        [
            ["whatsapp", "meta", "delivered", "+201001234567"].map(str::to_owned),
            ["sms", "twilio", "delivered", "+201001234567"].map(str::to_owned),
        ]
    );
    assert!(log[1].get::<String, _>("external_id").starts_with("SM"));
    let chat = sqlx::query("SELECT sender, status, wa_message_id, media_caption FROM chat_messages WHERE content = 'the bill'")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    assert_eq!(chat.get::<String, _>("sender"), "customer");
    assert_eq!(chat.get::<String, _>("status"), "delivered");
    assert_eq!(chat.get::<String, _>("media_caption"), "the bill");
    let number: String = sqlx::query_scalar("SELECT phone_number_id FROM chat_conversations WHERE customer_phone = '+201001234567' AND waba_id IS NOT NULL")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    assert_eq!(number, org.phone_number_id);
    let token: Option<String> = sqlx::query_scalar("SELECT access_token FROM waba_accounts")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    assert_eq!(token, None, "sealed, never shown");

    let scheduled = json!({ "channel_id": org.whatsapp, "to": "+201001234567", "message": "later", "scheduled_for": "2099-01-01T00:00:00Z" });
    app.post(org.owner(), "/v1/scheduled-messages", &scheduled)
        .await
        .expect(201);
    sqlx::query(
        "INSERT INTO whatsapp_settings (org_id, key, value) VALUES ($1, 'greeting', '\"أهلًا\"')",
    )
    .bind(org.id)
    .execute(&app.owner)
    .await
    .unwrap();
    app.wait_count(
        "SELECT count(*) FROM whatsapp_analytics WHERE messages_received = 2 AND messages_delivered = 1",
        1,
    )
    .await;

    // The newest logged row of each record, in the feed's shape, equals the row of the view.
    let mut tx = app.state().db.system().await.unwrap();
    for name in DOCUMENT_NAMES {
        let newest: Vec<i64> = sqlx::query_scalar(
            "SELECT max(seq) FROM change_log WHERE table_name = $1 AND op <> 'DELETE' GROUP BY record ->> 'id'",
        )
        .bind(name.table)
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        let mut fed: Vec<Value> = list_shaped(&mut tx, name, &newest)
            .await
            .unwrap()
            .into_iter()
            .map(|(_, shape)| shape)
            .collect();
        let mut seen: Vec<Value> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT to_jsonb(v) FROM {} v",
            name.name
        )))
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        assert!(!seen.is_empty(), "{}", name.name);
        fed.sort_by_key(|shape| shape["id"].to_string());
        seen.sort_by_key(|shape| shape["id"].to_string());
        assert_eq!(fed, seen, "{}", name.name);
    }
}

/// S0.4 and S3.4: the questions with which the documents' readers check their set-up.
#[tokio::test]
async fn the_documents_own_checks_answer_as_they_show() {
    let app = TestApp::start().await;
    let streamed: Vec<String> = sqlx::query_scalar(
        "SELECT tablename::text FROM pg_publication_tables WHERE pubname='supabase_realtime' AND tablename LIKE 'whatsapp%'",
    )
    .fetch_all(&app.owner)
    .await
    .unwrap();
    for table in [
        "whatsapp_conversations",
        "whatsapp_messages",
        "whatsapp_settings",
        "whatsapp_templates",
        "whatsapp_scheduled_messages",
        "whatsapp_analytics",
    ] {
        assert!(
            streamed.iter().any(|name| name == table),
            "{table} is missing in {streamed:?}"
        );
        // What is said to stream can be listened to.
        let known = DOCUMENT_NAMES.iter().any(|name| name.name == table);
        assert!(known, "{table} has no shape in the feed");
    }
    let secured: Vec<(String, bool)> = sqlx::query_as(
        "SELECT tablename::text, rowsecurity FROM pg_tables
         WHERE schemaname = 'public' AND tablename IN ('conversations', 'messages') ORDER BY 1",
    )
    .fetch_all(&app.owner)
    .await
    .unwrap();
    assert_eq!(
        secured,
        [
            ("conversations".to_owned(), true),
            ("messages".to_owned(), true)
        ]
    );
    let indexes: Vec<String> = sqlx::query_scalar(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename IN ('conversations', 'messages')",
    )
    .fetch_all(&app.owner)
    .await
    .unwrap();
    for columns in [
        "(org_id, contact_id",
        "channel_id",
        "created_at DESC",
        "provider_message_id",
    ] {
        assert!(
            indexes.iter().any(|index| index.contains(columns)),
            "no index on {columns} in {indexes:#?}"
        );
    }
}
