//! `analytics_daily`: the figures follow the messages, whatever order their statuses come in.

use serde_json::Value;
use wasel_testkit::{Org, TestApp, meta};

const FIGURES: &str =
    "SELECT coalesce(jsonb_agg(jsonb_build_array(day, channel_id, template_name, received, sent, delivered, read, failed)
        ORDER BY day, channel_id, template_name), '[]') FROM analytics_daily";

async fn figures(app: &TestApp) -> Value {
    sqlx::query_scalar(FIGURES)
        .fetch_one(&app.owner)
        .await
        .unwrap()
}

async fn hears(app: &TestApp, org: &Org, status: &str, id: &str) {
    let news = meta::status("201001234567", id, status, 1_763_000_000);
    app.meta_webhook(org, &meta::change(&org.phone_number_id, news))
        .await
        .expect(200);
}

#[tokio::test]
async fn shuffled_and_repeated_statuses_end_in_the_figures_of_a_count_from_scratch() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    // Sent by somebody else's code and logged through the documents' name, weeks ago.
    for id in ["wamid.A", "wamid.B", "wamid.C"] {
        sqlx::query(
            "INSERT INTO whatsapp_messages (org_id, session_id, recipient_phone, message_body, direction, status,
                 whatsapp_message_id, created_at)
             VALUES ($1, $2, '+201001234567', 'hello', 'outbound', 'sent', $3, '2026-10-01T23:30:00Z')",
        )
        .bind(org.id)
        .bind(org.whatsapp)
        .bind(id)
        .execute(&app.owner)
        .await
        .unwrap();
    }
    for (status, id) in [
        ("read", "wamid.A"),
        ("delivered", "wamid.A"),
        ("read", "wamid.A"),
        ("failed", "wamid.B"),
        ("sent", "wamid.B"),
        ("delivered", "wamid.C"),
        ("delivered", "wamid.C"),
    ] {
        hears(&app, &org, status, id).await;
    }
    let text = meta::text("201001234567", "wamid.in", "thanks");
    app.meta_webhook(&org, &meta::change(&org.phone_number_id, text))
        .await
        .expect(200);
    app.wait_count(
        "SELECT count(*) FROM analytics_daily WHERE (sent, delivered, read, failed) = (2, 2, 1, 1)",
        1,
    )
    .await;
    app.wait_count("SELECT count(*) FROM analytics_daily WHERE received = 1", 1)
        .await;
    let day: String = sqlx::query_scalar("SELECT day::text FROM analytics_daily WHERE sent = 2")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    assert_eq!(
        day, "2026-10-02",
        "half past eleven in London is the next day in Cairo"
    );

    let kept = figures(&app).await;
    sqlx::query("UPDATE analytics_daily SET sent = 99, read = 7")
        .execute(&app.owner)
        .await
        .unwrap();
    sqlx::query("UPDATE wasel.analytics_position SET seq = -1")
        .execute(&app.owner)
        .await
        .unwrap();
    app.wait_count("SELECT count(*) FROM analytics_daily WHERE sent = 99", 0)
        .await;
    assert_eq!(figures(&app).await, kept);
}

#[tokio::test]
async fn a_day_without_messages_leaves_the_figures() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let text = meta::text("201001234567", "wamid.1", "hello");
    app.meta_webhook(&org, &meta::change(&org.phone_number_id, text))
        .await
        .expect(200);
    app.wait_count("SELECT count(*) FROM analytics_daily WHERE received = 1", 1)
        .await;
    sqlx::query("DELETE FROM conversations")
        .execute(&app.owner)
        .await
        .unwrap();
    app.wait_count("SELECT count(*) FROM analytics_daily", 0)
        .await;
}

#[tokio::test]
async fn an_organisation_that_moves_to_another_time_zone_has_its_days_counted_anew() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    sqlx::query(
        "INSERT INTO whatsapp_messages (org_id, session_id, recipient_phone, message_body, direction, status, created_at)
         VALUES ($1, $2, '+201001234567', 'hello', 'outbound', 'sent', '2026-10-01T23:30:00Z')",
    )
    .bind(org.id)
    .bind(org.whatsapp)
    .execute(&app.owner)
    .await
    .unwrap();
    let on = |day: &str| {
        format!("SELECT count(*) FROM analytics_daily WHERE day = '{day}' AND sent = 1")
    };
    app.wait_count(&on("2026-10-02"), 1).await;
    sqlx::query("UPDATE organizations SET timezone = 'America/New_York' WHERE id = $1")
        .bind(org.id)
        .execute(&app.owner)
        .await
        .unwrap();
    app.wait_count(&on("2026-10-01"), 1).await;
    app.wait_count("SELECT count(*) FROM analytics_daily", 1)
        .await;
}
