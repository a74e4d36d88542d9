//! Reports: what counts, on which day, for whom, and as which file.

use serde_json::{Value, json};
use uuid::Uuid;
use wasel_testkit::{Answer, Org, TestApp, meta};

/// Writes a message on a channel as the log would have it; `fields` over the usual ones.
async fn insert(app: &TestApp, org: &Org, channel: Uuid, at: &str, fields: Value) -> Uuid {
    for sql in [
        "INSERT INTO contacts (org_id, id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        "INSERT INTO conversations (org_id, id, channel_id, contact_id) VALUES ($1, $2, $2, $2) ON CONFLICT DO NOTHING",
    ] {
        sqlx::query(sql)
            .bind(org.id)
            .bind(channel)
            .execute(&app.owner)
            .await
            .unwrap();
    }
    let id = Uuid::now_v7();
    let mut row = json!({ "org_id": org.id, "id": id, "conversation_id": channel, "channel_id": channel,
        "contact_id": channel, "direction": "outbound", "message_type": "text", "status": "delivered",
        "trigger_type": "manual", "delivery_policy": "at_least_once", "category": "service", "metadata": {}, "retry_count": 0,
        "created_at": at, "updated_at": at });
    for (name, value) in fields.as_object().unwrap() {
        row[name] = value.clone();
    }
    sqlx::query("INSERT INTO messages SELECT * FROM jsonb_populate_record(NULL::messages, $1)")
        .bind(row)
        .execute(&app.owner)
        .await
        .unwrap();
    id
}

async fn report(app: &TestApp, token: &str, query: &str) -> Value {
    app.get(token, &format!("/v1/reports/messages?{query}"))
        .await
        .expect(200)
}

/// The rows' fields of these names with their number of messages.
fn counts(report: &Value, fields: &[&str]) -> Vec<(Vec<String>, i64)> {
    report["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let key = |field: &&str| row[*field].as_str().unwrap_or("-").to_owned();
            (
                fields.iter().map(key).collect(),
                row["messages"].as_i64().unwrap(),
            )
        })
        .collect()
}

fn counted(rows: &[(&[&str], i64)]) -> Vec<(Vec<String>, i64)> {
    rows.iter()
        .map(|(key, n)| (key.iter().map(|text| (*text).to_owned()).collect(), *n))
        .collect()
}

#[tokio::test]
async fn messages_are_counted_by_day_channel_and_status_with_totals() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    for (channel, at, status) in [
        (org.whatsapp, "2026-11-02T10:00:00Z", "delivered"),
        (org.whatsapp, "2026-11-02T11:00:00Z", "delivered"),
        (org.whatsapp, "2026-11-02T12:00:00Z", "failed"),
        (org.sms, "2026-11-02T12:00:00Z", "sent"),
        (org.sms, "2026-11-05T12:00:00Z", "sent"),
        (org.sms, "2026-12-05T12:00:00Z", "sent"),
    ] {
        insert(&app, &org, channel, at, json!({ "status": status })).await;
    }
    let answer = report(
        &app,
        &org.people.viewer_token,
        "from=2026-11-01&to=2026-11-30",
    )
    .await;
    // A day without messages is not there.
    assert_eq!(
        counts(&answer, &["day", "channel_name", "channel_kind", "status"]),
        counted(&[
            (&["2026-11-02", "SMS", "twilio_sms", "sent"], 1),
            (
                &["2026-11-02", "WhatsApp", "whatsapp_cloud", "delivered"],
                2
            ),
            (&["2026-11-02", "WhatsApp", "whatsapp_cloud", "failed"], 1),
            (&["2026-11-05", "SMS", "twilio_sms", "sent"], 1),
        ])
    );
    assert_eq!(answer["data"][0]["channel_id"], json!(org.sms));
    assert_eq!(answer["data"][0]["direction"], Value::Null);
    assert_eq!(
        answer["totals"],
        json!({ "messages": 5, "by_status": { "delivered": 2, "failed": 1, "sent": 2 } })
    );
    assert_eq!(answer["group_by"], json!(["day", "channel", "status"]));
    assert_eq!(
        (&answer["from"], &answer["to"], &answer["timezone"]),
        (
            &json!("2026-11-01"),
            &json!("2026-11-30"),
            &json!("Africa/Cairo")
        )
    );
    let range = "from=2026-11-01&to=2026-12-31";
    let filtered = report(
        &app,
        org.owner(),
        &format!("{range}&group_by=status&channel_id={}", org.sms),
    )
    .await;
    assert_eq!(counts(&filtered, &["status"]), counted(&[(&["sent"], 3)]));
    assert_eq!(filtered["totals"]["messages"], 3);
    let filtered = report(
        &app,
        org.owner(),
        &format!("{range}&group_by=channel&status=failed"),
    )
    .await;
    assert_eq!(
        counts(&filtered, &["channel_name"]),
        counted(&[(&["WhatsApp"], 1)])
    );
    let filtered = report(&app, org.owner(), &format!("{range}&direction=inbound")).await;
    assert_eq!(filtered["data"], json!([]));
    assert_eq!(
        filtered["totals"],
        json!({ "messages": 0, "by_status": {} })
    );
}

#[tokio::test]
async fn everything_else_can_be_counted_by_too() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let at = "2026-11-02T10:00:00Z";
    let owner = json!(org.people.owner);
    for fields in [
        json!({ "status": "failed", "error_code": "131026", "sender_id": owner }),
        json!({ "status": "failed", "error_code": "131026" }),
        json!({ "status": "received", "direction": "inbound", "message_type": "image" }),
    ] {
        insert(&app, &org, org.whatsapp, at, fields).await;
    }
    let by = async |dimension: &str, fields: &[&str]| {
        let query = format!("from=2026-11-02&to=2026-11-02&group_by={dimension}");
        counts(&report(&app, org.owner(), &query).await, fields)
    };
    assert_eq!(
        by("error_code", &["error_code"]).await,
        counted(&[(&["131026"], 2), (&["-"], 1)])
    );
    assert_eq!(
        by("direction,message_type", &["direction", "message_type"]).await,
        counted(&[(&["inbound", "image"], 1), (&["outbound", "text"], 2)])
    );
    assert_eq!(
        by("sender", &["sender_id", "sender_name"]).await,
        counted(&[
            (&[&org.people.owner.to_string(), "owner@a.test"], 1),
            (&["-", "-"], 2)
        ])
    );
}

#[tokio::test]
async fn a_day_is_the_organisations_and_not_greenwichs() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    // 01:30 of the third in Cairo (UTC+2 in winter).
    insert(&app, &org, org.sms, "2026-11-02T23:30:00Z", json!({})).await;
    let cairo = report(
        &app,
        org.owner(),
        "from=2026-11-01&to=2026-11-30&group_by=day",
    )
    .await;
    assert_eq!(counts(&cairo, &["day"]), counted(&[(&["2026-11-03"], 1)]));
    let utc = report(
        &app,
        org.owner(),
        "from=2026-11-01&to=2026-11-30&group_by=day&timezone=UTC",
    )
    .await;
    assert_eq!(counts(&utc, &["day"]), counted(&[(&["2026-11-02"], 1)]));
    assert_eq!(utc["timezone"], "UTC");
    // The edges of the range are those of the zone as well.
    for (query, messages) in [
        ("from=2026-11-03&to=2026-11-03", 1),
        ("from=2026-11-02&to=2026-11-02", 0),
        ("from=2026-11-03&to=2026-11-03&timezone=UTC", 0),
        ("from=2026-11-02&to=2026-11-02&timezone=America/New_York", 1),
    ] {
        let answer = report(&app, org.owner(), query).await;
        assert_eq!(answer["totals"]["messages"], messages, "{query}");
    }
}

#[tokio::test]
async fn the_days_on_which_clocks_change_are_whole() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    // In Cairo the 24th of April 2026 has no hour from 0 to 1, the 29th of October has the hour from 23 to 24 twice.
    for at in [
        "2026-04-23T21:59:59Z", // 23:59:59 of the 23rd
        "2026-04-23T22:00:00Z", // 01:00 of the 24th, its first moment
        "2026-04-24T20:59:59Z", // 23:59:59
        "2026-04-24T21:00:00Z", // 00:00 of the 25th
        "2026-10-28T20:59:59Z", // 23:59:59 of the 28th
        "2026-10-28T21:00:00Z", // 00:00 of the 29th
        "2026-10-29T20:30:00Z", // 23:30 for the first time
        "2026-10-29T21:30:00Z", // 23:30 again
        "2026-10-29T22:00:00Z", // 00:00 of the 30th
    ] {
        insert(&app, &org, org.sms, at, json!({})).await;
    }
    for (day, messages) in [
        ("2026-04-23", 1),
        ("2026-04-24", 2),
        ("2026-04-25", 1),
        ("2026-10-28", 1),
        ("2026-10-29", 3),
        ("2026-10-30", 1),
    ] {
        let answer = report(
            &app,
            org.owner(),
            &format!("from={day}&to={day}&group_by=day"),
        )
        .await;
        assert_eq!(
            counts(&answer, &["day"]),
            counted(&[(&[day], messages)]),
            "{day}"
        );
    }
}

#[tokio::test]
async fn without_days_the_last_thirty_are_meant() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let ago = |days| (chrono::Utc::now() - chrono::TimeDelta::days(days)).to_rfc3339();
    for days in [0, 28, 31] {
        insert(&app, &org, org.sms, &ago(days), json!({})).await;
    }
    let answer = report(&app, org.owner(), "").await;
    assert_eq!(answer["totals"]["messages"], 2);
    let day = |field: &str| {
        answer[field]
            .as_str()
            .unwrap()
            .parse::<chrono::NaiveDate>()
            .unwrap()
    };
    assert_eq!((day("to") - day("from")).num_days(), 29);
    let answer = report(&app, org.owner(), "to=2026-03-01").await;
    assert_eq!(answer["from"], "2026-01-31");
}

#[tokio::test]
async fn what_will_not_do_is_refused_by_name() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    for (query, field) in [
        ("from=yesterday", "from"),
        ("to=2026-02-30", "to"),
        ("to=99999-01-01", "to"),
        ("from=2026-11-02&to=2026-11-01", "from"),
        ("from=2025-01-01&to=2026-01-02", "from"),
        ("timezone=Mars/Olympus", "timezone"),
        ("timezone=%00", "timezone"),
        ("direction=up", "direction"),
        ("status=lost", "status"),
        ("channel_id=x", "channel_id"),
    ] {
        for path in ["/v1/reports/messages", "/v1/reports/messages/export"] {
            let answer = app
                .get(org.owner(), &format!("{path}?{query}"))
                .await
                .expect(400);
            assert_eq!(answer["error"]["field"], field, "{query}: {answer}");
        }
    }
    for (query, field) in [
        ("group_by=moon", "group_by"),
        ("group_by=", "group_by"),
        ("format=xml", "format"),
    ] {
        let answer = app
            .get(org.owner(), &format!("/v1/reports/messages?{query}"))
            .await
            .expect(400);
        assert_eq!(answer["error"]["field"], field, "{query}: {answer}");
    }
    report(&app, org.owner(), "from=2025-01-01&to=2026-01-01").await;
}

#[tokio::test]
async fn more_groups_than_anybody_reads_are_refused_with_advice() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    insert(&app, &org, org.sms, "2026-11-02T10:00:00Z", json!({})).await;
    let many = |n: i32| {
        sqlx::query(
            "INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, error_code, created_at)
             SELECT $1, gen_random_uuid(), $2, $2, $2, 'outbound', 'text', 'failed', n::text, '2026-11-02T11:00:00Z'
             FROM generate_series(1, $3) n",
        )
        .bind(org.id)
        .bind(org.sms)
        .bind(n)
    };
    many(49_999).execute(&app.owner).await.unwrap();
    let query = "from=2026-11-02&to=2026-11-02&group_by=error_code";
    let full = report(&app, org.owner(), query).await;
    assert_eq!(full["data"].as_array().unwrap().len(), 50_000);
    insert(
        &app,
        &org,
        org.sms,
        "2026-11-02T10:00:00Z",
        json!({ "error_code": "one more" }),
    )
    .await;
    let path = format!("/v1/reports/messages?{query}");
    let refused = app.get(org.owner(), &path).await.expect(422);
    assert_eq!(refused["error"]["code"], "too_many_groups");
    assert_eq!(refused["error"]["field"], "group_by");
    app.get(org.owner(), &format!("{path}&format=csv"))
        .await
        .expect(422);
}

#[tokio::test]
async fn what_meta_says_of_the_price_is_counted() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let at = "2026-11-02T10:00:00Z";
    for (n, pricing) in [
        Some(json!({ "billable": true, "pricing_model": "PMP", "category": "marketing", "type": "regular" })),
        Some(json!({ "billable": false, "pricing_model": "PMP", "category": "marketing", "type": "free_entry_point" })),
        // Without the old flag.
        Some(json!({ "pricing_model": "PMP", "category": "utility", "type": "regular" })),
        None,
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("wamid.{n}");
        let fields = json!({ "status": "sent", "provider_message_id": id });
        insert(&app, &org, org.whatsapp, at, fields).await;
        for status in ["sent", "delivered"] {
            let mut status = meta::status("201001234567", &id, status, 1_793_613_600);
            if let Some(pricing) = &pricing {
                status["statuses"][0]["pricing"] = pricing.clone();
            }
            app.meta_webhook(&org, &meta::change(&org.phone_number_id, status)).await.expect(200);
        }
    }
    insert(&app, &org, org.sms, at, json!({})).await;
    let day = "from=2026-11-02&to=2026-11-02";
    let answer = report(
        &app,
        org.owner(),
        &format!("{day}&group_by=pricing_category"),
    )
    .await;
    let rows: Vec<(&Value, &Value, &Value)> = answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["pricing_category"], &row["messages"], &row["billable"]))
        .collect();
    assert_eq!(
        rows,
        [
            (&json!("marketing"), &json!(2), &json!(1)),
            (&json!("utility"), &json!(1), &json!(1)),
            (&Value::Null, &json!(2), &Value::Null),
        ]
    );
    let answer = report(&app, org.owner(), &format!("{day}&group_by=channel")).await;
    assert_eq!(answer["data"][0]["billable"], Value::Null);
    assert_eq!(
        (
            &answer["data"][1]["messages"],
            &answer["data"][1]["billable"]
        ),
        (&json!(4), &json!(2))
    );
}

#[tokio::test]
async fn prices_and_segments_told_by_the_provider_are_summed_by_currency() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let priced = [
        (
            org.sms,
            json!({ "price": "-0.00750", "currency": "usd", "segments": "2" }),
        ),
        (
            org.sms,
            json!({ "price": "-0.0125", "currency": "USD", "segments": 1 }),
        ),
        // No numbers, no currency: somebody else's words.
        (
            org.sms,
            json!({ "price": "a lot", "currency": "USD", "segments": "many" }),
        ),
        (org.sms, json!({ "price": "1", "currency": "=cmd" })),
        (
            org.sms,
            json!({ "price": { "amount": 1 }, "currency": "EUR" }),
        ),
        (org.whatsapp, json!({ "price": "1.5", "currency": "EUR" })),
        (org.whatsapp, json!({ "price": "2", "currency": "EGP" })),
        (org.whatsapp, json!({})),
    ];
    for (channel, pricing) in priced {
        insert(
            &app,
            &org,
            channel,
            "2026-11-02T10:00:00Z",
            json!({ "pricing": pricing }),
        )
        .await;
    }
    let query = "from=2026-11-02&to=2026-11-02&group_by=channel";
    let answer = report(&app, org.owner(), query).await;
    let (sms, whatsapp) = (&answer["data"][0], &answer["data"][1]);
    assert_eq!(
        (
            &sms["messages"],
            &sms["segments"],
            &sms["cost"],
            &sms["currency"],
            &sms["costs"]
        ),
        (
            &json!(5),
            &json!(3),
            &json!("0.02000"),
            &json!("USD"),
            &Value::Null
        )
    );
    assert_eq!(
        (
            &whatsapp["messages"],
            &whatsapp["cost"],
            &whatsapp["segments"]
        ),
        (&json!(3), &Value::Null, &Value::Null)
    );
    assert_eq!(
        whatsapp["costs"],
        json!([{ "currency": "EGP", "amount": "2" }, { "currency": "EUR", "amount": "1.5" }])
    );
    let csv = app
        .get(
            org.owner(),
            &format!("/v1/reports/messages?{query}&format=csv"),
        )
        .await
        .text;
    assert!(csv.contains("twilio_sms,5,3,,0.02000,USD\r\n"), "{csv}");
    assert!(
        csv.contains("whatsapp_cloud,3,,,\"2; 1.5\",\"EGP; EUR\"\r\n"),
        "{csv}"
    );
}

#[tokio::test]
async fn as_csv_the_report_is_a_file_that_runs_nothing() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    sqlx::query(
        "UPDATE channels SET name = '=HYPERLINK(\"http://evil.test\", \"قناة\")' WHERE id = $1",
    )
    .bind(org.sms)
    .execute(&app.owner)
    .await
    .unwrap();
    insert(
        &app,
        &org,
        org.sms,
        "2026-11-02T10:00:00Z",
        json!({ "error_code": "-1" }),
    )
    .await;
    let path = "/v1/reports/messages?from=2026-11-01&to=2026-11-30&group_by=error_code,channel,day&format=csv";
    let answer = app.get(org.owner(), path).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(
        answer.header("content-disposition"),
        "attachment; filename=\"messages_2026-11-01_2026-11-30.csv\""
    );
    let wanted = format!(
        "\u{feff}error_code,channel_id,channel_name,channel_kind,day,messages,segments,billable,cost,currency\r\n\
         '-1,{},\"'=HYPERLINK(\"\"http://evil.test\"\", \"\"قناة\"\")\",twilio_sms,2026-11-02,1,,,,\r\n",
        org.sms
    );
    // reqwest leaves a byte order mark out of the text.
    assert_eq!(raw(&app, org.owner(), path).await, wanted.as_bytes());
}

async fn raw(app: &TestApp, token: &str, path: &str) -> Vec<u8> {
    let request = app.request(reqwest::Method::GET, path).bearer_auth(token);
    request
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
        .to_vec()
}

async fn export(app: &TestApp, token: &str, query: &str) -> Answer {
    app.get(token, &format!("/v1/reports/messages/export?{query}"))
        .await
}

#[tokio::test]
async fn the_log_is_exported_row_by_row_in_the_organisations_time() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let fields = json!({ "address": "+201001234567", "sender_id": org.people.agent, "request_id": "=1", "status": "failed",
        "error_code": "30007", "error_message": "blocked, by the \"carrier\"", "sent_at": "2026-11-02T23:31:00Z",
        "failed_at": "2026-11-02T23:32:00Z", "pricing": { "price": "-0.01", "currency": "USD", "segments": 2 } });
    let late = insert(&app, &org, org.sms, "2026-11-02T23:30:00Z", fields).await;
    let inbound = json!({ "direction": "inbound", "status": "received" });
    let early = insert(&app, &org, org.sms, "2026-11-02T22:00:00Z", inbound).await;
    insert(&app, &org, org.sms, "2026-11-02T21:59:59Z", json!({})).await;
    let path = "/v1/reports/messages/export?from=2026-11-03&to=2026-11-03";
    let wanted = format!(
        "\u{feff}id,created_at,channel,channel_kind,direction,message_type,address,status,error_code,error_message,\
         sent_at,delivered_at,read_at,failed_at,sender,request_id,billable,pricing_category,segments,price,currency\r\n\
         {early},2026-11-03 00:00:00,SMS,twilio_sms,inbound,text,,received,,,,,,,,,,,,,\r\n\
         {late},2026-11-03 01:30:00,SMS,twilio_sms,outbound,text,'+201001234567,failed,30007,\
         \"blocked, by the \"\"carrier\"\"\",2026-11-03 01:31:00,,,2026-11-03 01:32:00,agent@a.test,'=1,,,2,0.01,USD\r\n"
    );
    assert_eq!(
        String::from_utf8(raw(&app, org.owner(), path).await).unwrap(),
        wanted
    );
    let answer = export(
        &app,
        org.owner(),
        "from=2026-11-03&to=2026-11-03&status=failed",
    )
    .await;
    assert_eq!(
        answer.header("content-disposition"),
        "attachment; filename=\"message_log_2026-11-03_2026-11-03.csv\""
    );
    assert_eq!(answer.text.lines().count(), 2, "{}", answer.text);
}

#[tokio::test]
async fn a_long_log_is_exported_whole_whatever_the_spread_of_its_messages() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    insert(&app, &org, org.sms, "2026-01-01T10:00:00Z", json!({})).await;
    // Many at one moment, many in a row, and one at the very end.
    for spread in ["0 s", "1 s"] {
        sqlx::query(
            "INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, created_at)
             SELECT $1, gen_random_uuid(), $2, $2, $2, 'outbound', 'text', 'sent', '2026-06-15T11:00:00Z'::timestamptz + n * $3::text::interval
             FROM generate_series(1, 2500) n",
        )
        .bind(org.id)
        .bind(org.sms)
        .bind(spread)
        .execute(&app.owner)
        .await
        .unwrap();
    }
    insert(
        &app,
        &org,
        org.sms,
        "2026-12-31T21:59:59.999999Z",
        json!({}),
    )
    .await;
    let text = export(&app, org.owner(), "from=2026-01-01&to=2026-12-31")
        .await
        .text;
    let ids: Vec<&str> = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().unwrap())
        .collect();
    let in_order: Vec<String> =
        sqlx::query_scalar("SELECT id::text FROM messages ORDER BY created_at, id")
            .fetch_all(&app.owner)
            .await
            .unwrap();
    assert_eq!(in_order.len(), 5002);
    assert!(ids == in_order, "{} rows", ids.len());
    // Exactly a page, and nothing at all.
    sqlx::query("DELETE FROM messages WHERE id IN (SELECT id FROM messages ORDER BY created_at, id OFFSET 1000)")
        .execute(&app.owner)
        .await
        .unwrap();
    let lines = async |query: &str| export(&app, org.owner(), query).await.text.lines().count();
    assert_eq!(lines("from=2026-01-01&to=2026-12-31").await, 1001);
    assert_eq!(lines("from=2025-01-01&to=2025-12-31").await, 1);
}

#[tokio::test]
async fn an_agent_limited_to_a_channel_gets_figures_of_that_one_only() {
    let app = TestApp::start().await;
    let (org, other) = (app.org("a").await, app.org("b").await);
    for channel in [org.sms, org.whatsapp] {
        insert(&app, &org, channel, "2026-11-02T10:00:00Z", json!({})).await;
    }
    insert(&app, &other, other.sms, "2026-11-02T10:00:00Z", json!({})).await;
    sqlx::query("INSERT INTO channel_members (org_id, channel_id, user_id) VALUES ($1, $2, $3)")
        .bind(org.id)
        .bind(org.sms)
        .bind(org.people.agent)
        .execute(&app.owner)
        .await
        .unwrap();
    let day = "from=2026-11-02&to=2026-11-02";
    let answer = report(&app, org.agent(), &format!("{day}&group_by=channel")).await;
    assert_eq!(
        counts(&answer, &["channel_name"]),
        counted(&[(&["SMS"], 1)])
    );
    assert_eq!(answer["totals"]["messages"], 1);
    let hidden = report(
        &app,
        org.agent(),
        &format!("{day}&channel_id={}", org.whatsapp),
    )
    .await;
    assert_eq!(hidden["totals"]["messages"], 0);
    assert_eq!(export(&app, org.agent(), day).await.text.lines().count(), 2);
    assert_eq!(
        report(&app, org.owner(), day).await["totals"]["messages"],
        2
    );
    assert_eq!(export(&app, org.owner(), day).await.text.lines().count(), 3);
}
