//! Automations: rows that come and times that come fill the queue, once, for the right tenant, whatever happens.

use std::process::Command;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;
use wasel_db::TenantClaims;
use wasel_db::automations::{self, Due, RunAt};
use wasel_domain::OrgId;
use wasel_server::jobs::run_automations::run_due;
use wasel_testkit::{Answer, Org, TestApp, TestDb};

const PHONE: &str = "+201001234567";

async fn sql(app: &TestApp, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&app.owner)
        .await
        .unwrap();
}

/// What is in the queue, oldest first: phone, variables, priority.
async fn queued(app: &TestApp) -> Vec<(Option<String>, Value, i16)> {
    sqlx::query(
        "SELECT recipient_phone, message_data, priority FROM notification_queue ORDER BY id",
    )
    .fetch_all(&app.owner)
    .await
    .unwrap()
    .iter()
    .map(|row| (row.get(0), row.get(1), row.get(2)))
    .collect()
}

async fn template(app: &TestApp, org: &Org) -> Value {
    let body = json!({ "name": "notice", "message_template": "مرحباً {{customer_name}}، باقي {{days}} أيام" });
    app.post(org.owner(), "/v1/templates", &body)
        .await
        .expect(201)["id"]
        .clone()
}

/// A daily rule in Berlin about subscriptions that end within three days.
fn daily(template: &Value) -> Value {
    json!({
        "name": "daily", "kind": "cron", "template_id": template, "cron_expression": "0 9 * * *",
        "timezone": "Europe/Berlin", "priority": 3, "source": { "table": "subscriptions" },
        "filters": [{ "column": "status", "op": "in", "value": ["trial", "active"] }],
        "window": { "column": "end_date", "within_days": 3 },
        "mapping": { "recipient_phone": "customer_phone",
            "variables": { "customer_name": "customer_name", "days": { "days_until": "end_date" } } },
    })
}

/// A rule about new subscriptions.
fn welcome(template: &Value) -> Value {
    json!({
        "name": "welcome", "kind": "event", "template_id": template,
        "source": { "table": "subscriptions", "operation": "insert" },
        "filters": [{ "column": "status", "op": "eq", "value": "trial" }],
        "mapping": { "recipient_phone": "customer_phone",
            "variables": { "customer_name": "customer_name", "days": { "days_until": "end_date" } } },
    })
}

fn with(mut body: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn create(app: &TestApp, org: &Org, body: Value) -> Value {
    app.post(org.owner(), "/v1/automations", &body)
        .await
        .expect(201)
}

fn path(rule: &Value) -> String {
    format!("/v1/automations/{}", rule["id"].as_str().unwrap())
}

async fn subscribe(
    app: &TestApp,
    org: Uuid,
    name: &str,
    phone: Option<&str>,
    status: &str,
    end: &str,
) {
    sqlx::query(
        "INSERT INTO subscriptions (org_id, customer_name, customer_phone, status, end_date) VALUES ($1, $2, $3, $4, $5::date)",
    )
    .bind(org)
    .bind(name)
    .bind(phone)
    .bind(status)
    .bind(end)
    .execute(&app.owner)
    .await
    .unwrap();
}

async fn plan(app: &TestApp, rule: &Value, at: &str) {
    let id = rule["id"].as_str().unwrap();
    sql(
        app,
        &format!("UPDATE automations SET next_run_at = '{at}' WHERE id = '{id}'"),
    )
    .await;
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

async fn next_run(app: &TestApp, org: &Org, rule: &Value) -> DateTime<Utc> {
    let shown = app.get(org.owner(), &path(rule)).await.expect(200);
    time(shown["next_run_at"].as_str().unwrap())
}

async fn runs(app: &TestApp, org: &Org, rule: &Value) -> Vec<Value> {
    let list = app
        .get(org.owner(), &format!("{}/runs", path(rule)))
        .await
        .expect(200);
    list["data"].as_array().unwrap().clone()
}

fn psql(db: &TestDb, statement: &str) {
    let output = Command::new("psql")
        .args([
            "--no-psqlrc",
            "--quiet",
            "--set",
            "ON_ERROR_STOP=1",
            "--command",
            statement,
        ])
        .arg(db.url())
        .output()
        .expect("psql, of the same package as Postgres");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_trial_that_an_outside_program_inserts_is_welcomed_once_with_the_arabic_template() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let shipped = json!({ "enabled": true, "app_url": "https://myfleet.app" });
    let made = app
        .post(org.owner(), "/v1/automations/defaults", &shipped)
        .await
        .expect(200);
    assert_eq!(made["data"].as_array().unwrap().len(), 2);
    let welcome = made["data"][0].clone();
    assert_eq!(welcome["name"], "trial_welcome");

    let insert = |status: &str| {
        format!(
            "INSERT INTO subscriptions (org_id, customer_name, customer_phone, status, end_date)
             VALUES ('{}', 'منى السيد', '01001234567', '{status}', (now() AT TIME ZONE 'Africa/Cairo')::date + 14)",
            org.id
        )
    };
    psql(&app.db, &insert("trial"));
    psql(&app.db, &insert("active"));
    let row = sqlx::query("SELECT * FROM notification_queue")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    assert_eq!(row.get::<Uuid, _>("org_id"), org.id);
    assert_eq!(row.get::<String, _>("notification_type"), "whatsapp");
    assert_eq!(row.get::<String, _>("recipient_phone"), "01001234567");
    assert_eq!(
        json!(row.get::<Uuid, _>("template_id")),
        welcome["template_id"]
    );
    let variables = row.get::<Value, _>("message_data");
    assert_eq!(
        variables,
        json!({ "customer_name": "منى السيد", "trial_days": 14, "app_url": "https://myfleet.app" })
    );
    let preview = format!(
        "/v1/templates/{}/preview",
        welcome["template_id"].as_str().unwrap()
    );
    let text = app
        .post(org.owner(), &preview, &json!({ "variables": variables }))
        .await
        .expect(200)["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        text.starts_with("مرحباً منى السيد! 👋") && text.contains("لمدة 14 يوم"),
        "{text}"
    );
    // Asked again, the shipped rules stay as they are.
    let again = app
        .post(org.owner(), "/v1/automations/defaults", &json!({}))
        .await
        .expect(200);
    assert_eq!(again["data"][0]["id"], welcome["id"]);
    assert_eq!(again["data"][0]["enabled"], true);
    assert_eq!(runs(&app, &org, &welcome).await.len(), 1);
}

#[tokio::test]
async fn the_expiry_notice_goes_to_the_customer_else_to_the_organisations_owner() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    sql(
        &app,
        "UPDATE profiles SET phone = '+201112223334' WHERE role = 'owner'",
    )
    .await;
    let made = app
        .post(
            org.owner(),
            "/v1/automations/defaults",
            &json!({ "enabled": true }),
        )
        .await
        .expect(200);
    let expiring = &made["data"][1];
    assert_eq!(expiring["priority"], 3);
    // 09:00 in Cairo, the organisation's zone.
    plan(&app, expiring, "2050-01-10T07:00:00Z").await;
    subscribe(&app, org.id, "منى", Some(PHONE), "active", "2050-01-13").await;
    subscribe(&app, org.id, "خالد", None, "active", "2050-01-10").await;
    for (status, end) in [
        ("active", "2050-01-14"),
        ("active", "2050-01-09"),
        ("expired", "2050-01-11"),
    ] {
        subscribe(&app, org.id, "not they", Some(PHONE), status, end).await;
    }
    run_due(app.state(), time("2050-01-10T07:00:03Z"))
        .await
        .unwrap();
    let mut rows = queued(&app).await;
    rows.sort_by_key(|row| row.0.clone());
    let phones: Vec<_> = rows.iter().map(|row| row.0.as_deref().unwrap()).collect();
    assert_eq!(phones, [PHONE, "+201112223334"]);
    assert_eq!(rows[0].2, 3);
    assert_eq!(rows[0].1["expiry_date"], "2050-01-13");
    assert_eq!(rows[0].1["days_remaining"], 3);
    assert_eq!(rows[1].1["days_remaining"], 0);
    assert_eq!(
        next_run(&app, &org, expiring).await,
        time("2050-01-11T07:00:00Z")
    );
}

#[tokio::test]
async fn a_daily_rule_fires_once_a_day_on_two_nodes_across_both_clock_changes() {
    let db = Arc::new(TestDb::new().await);
    let one = TestApp::builder().on(db.clone()).start().await;
    let other = TestApp::builder()
        .on(db.clone())
        .with_simulator(one.simulator.clone())
        .start()
        .await;
    let org = one.org("a").await;
    let template = template(&one, &org).await;
    subscribe(&one, org.id, "منى", Some(PHONE), "active", "2050-12-31").await;
    let body = |changes| {
        with(
            with(
                daily(&template),
                json!({ "window": null, "name": Uuid::now_v7() }),
            ),
            changes,
        )
    };
    let cases = [
        // Berlin: 27 March and 30 October 2050. Cairo: 29 April at 00:00 and 27 October at 24:00.
        (
            "0 9 * * *",
            "Europe/Berlin",
            "2050-03-26T08:00:00Z",
            ["03-26 08:00", "03-27 07:00", "03-28 07:00"],
        ),
        (
            "0 9 * * *",
            "Europe/Berlin",
            "2050-10-29T07:00:00Z",
            ["10-29 07:00", "10-30 08:00", "10-31 08:00"],
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2050-03-26T01:30:00Z",
            ["03-26 01:30", "03-27 01:00", "03-28 00:30"],
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2050-10-29T00:30:00Z",
            ["10-29 00:30", "10-30 00:30", "10-31 01:30"],
        ),
        (
            "0 0 * * *",
            "Africa/Cairo",
            "2050-04-27T22:00:00Z",
            ["04-27 22:00", "04-28 22:00", "04-29 21:00"],
        ),
        (
            "30 23 * * *",
            "Africa/Cairo",
            "2050-10-26T20:30:00Z",
            ["10-26 20:30", "10-27 20:30", "10-28 21:30"],
        ),
    ];
    for (cron, zone, first, ticks) in cases {
        let rule = create(
            &one,
            &org,
            body(json!({ "cron_expression": cron, "timezone": zone, "repeat": "tick" })),
        )
        .await;
        plan(&one, &rule, first).await;
        let mut now = time(first);
        for _ in 0..3 {
            // Both at once, twice, a moment after the tick and again half an hour later.
            for late in [2, 1800] {
                let at = now + TimeDelta::seconds(late);
                let (a, b) = tokio::join!(run_due(one.state(), at), run_due(other.state(), at));
                a.unwrap();
                b.unwrap();
            }
            now = next_run(&one, &org, &rule).await;
        }
        let mut fired: Vec<String> = runs(&one, &org, &rule)
            .await
            .iter()
            .map(|run| {
                assert_eq!(run["count"], 1, "{run}");
                time(run["tick"].as_str().unwrap())
                    .format("%m-%d %H:%M")
                    .to_string()
            })
            .collect();
        fired.sort();
        assert_eq!(fired, ticks, "{cron} {zone}");
        app_off(&one, &org, &rule).await;
    }
    assert_eq!(queued(&one).await.len(), 18);
    // And by the nodes' own clocks.
    let rule = create(&one, &org, body(json!({}))).await;
    sql(
        &one,
        &format!(
            "UPDATE automations SET next_run_at = now() - interval '1 second' WHERE id = '{}'",
            rule["id"].as_str().unwrap()
        ),
    )
    .await;
    one.wait_count("SELECT count(*) FROM notification_queue", 19)
        .await;
    assert!(next_run(&one, &org, &rule).await > Utc::now());
    assert_eq!(runs(&one, &org, &rule).await.len(), 1);
    assert_eq!(queued(&one).await.len(), 19);
    other.stop().await;
}

async fn app_off(app: &TestApp, org: &Org, rule: &Value) {
    let off = app
        .patch(org.owner(), &path(rule), &json!({ "enabled": false }))
        .await
        .expect(200);
    assert_eq!(off["next_run_at"], Value::Null);
}

#[tokio::test]
async fn ticks_missed_while_no_server_ran_are_made_up_for_once() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let template = template(&app, &org).await;
    let rule = create(
        &app,
        &org,
        with(daily(&template), json!({ "repeat": "tick" })),
    )
    .await;
    plan(&app, &rule, "2050-01-01T08:00:00Z").await;
    subscribe(&app, org.id, "منى", Some(PHONE), "active", "2050-01-06").await;
    let now = time("2050-01-05T17:00:00Z");
    for _ in 0..3 {
        run_due(app.state(), now).await.unwrap();
    }
    assert_eq!(queued(&app).await.len(), 1);
    let history = runs(&app, &org, &rule).await;
    assert_eq!(history.len(), 1);
    assert_eq!(history[0]["tick"], "2050-01-01T08:00:00Z");
    assert_eq!(
        next_run(&app, &org, &rule).await,
        time("2050-01-06T08:00:00Z")
    );
}

#[tokio::test]
async fn a_run_that_was_cut_off_happens_again_whole_and_nobody_is_written_to_twice_a_day() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let template = template(&app, &org).await;
    let rule = create(&app, &org, daily(&template)).await;
    let once = with(
        daily(&template),
        json!({ "name": "once", "repeat": "once" }),
    );
    let once = create(&app, &org, once).await;
    for day in ["2050-01-11", "2050-01-12"] {
        subscribe(&app, org.id, "منى", Some(PHONE), "active", day).await;
    }
    let now = time("2050-01-10T08:00:01Z");
    for rule in [&rule, &once] {
        plan(&app, rule, "2050-01-10T08:00:00Z").await;
    }
    // The server dies between its work and the commit.
    let due = Due {
        org_id: org.id,
        id: rule["id"].as_str().unwrap().parse().unwrap(),
    };
    let claims = TenantClaims {
        org_id: OrgId(org.id),
        user_id: None,
        role: "owner".to_owned(),
    };
    let mut tx = app.state().db.tenant(&claims).await.unwrap();
    automations::lock_due(&mut tx, due, now)
        .await
        .unwrap()
        .unwrap();
    let at = RunAt {
        cause: "tick",
        tick: now,
        now,
    };
    let done = automations::run(&mut tx, OrgId(org.id), due.id, at)
        .await
        .unwrap();
    assert_eq!(done.unwrap().queued, 2);
    drop(tx);
    assert!(queued(&app).await.is_empty());
    run_due(app.state(), now).await.unwrap();
    assert_eq!(queued(&app).await.len(), 4);
    // Again the same day, by whatever way, and the next day.
    plan(&app, &rule, "2050-01-10T12:00:00Z").await;
    run_due(app.state(), time("2050-01-10T12:00:01Z"))
        .await
        .unwrap();
    assert_eq!(queued(&app).await.len(), 4);
    run_due(app.state(), time("2050-01-11T08:00:01Z"))
        .await
        .unwrap();
    assert_eq!(queued(&app).await.len(), 6);
    let counts: Vec<i64> = runs(&app, &org, &once)
        .await
        .iter()
        .map(|run| run["count"].as_i64().unwrap())
        .collect();
    assert_eq!(counts, [0, 2], "newest first");
}

#[tokio::test]
async fn a_broken_rule_breaks_neither_the_insert_nor_the_other_rules_and_says_why() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let template = template(&app, &org).await;
    sql(
        &app,
        "ALTER TABLE subscriptions ADD COLUMN gone text;
         CREATE TABLE public.signups (org_id uuid NOT NULL, id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text);
         GRANT SELECT ON public.signups TO authenticated;
         SELECT wasel.watch('public.signups')",
    )
    .await;
    let mapping = |name: &str| json!({ "recipient_phone": "customer_phone", "variables": { "customer_name": name, "days": { "value": 1 } } });
    let broken = create(
        &app,
        &org,
        with(
            welcome(&template),
            json!({ "name": "broken", "mapping": mapping("gone") }),
        ),
    )
    .await;
    let sound = create(&app, &org, welcome(&template)).await;
    let cron = create(
        &app,
        &org,
        with(daily(&template), json!({ "mapping": mapping("gone") })),
    )
    .await;
    sql(&app, "ALTER TABLE subscriptions DROP COLUMN gone").await;
    subscribe(&app, org.id, "منى", Some(PHONE), "trial", "2050-01-10").await;
    assert_eq!(app.count("SELECT count(*) FROM subscriptions").await, 1);
    assert_eq!(queued(&app).await.len(), 1);
    let shown = app.get(org.owner(), &path(&broken)).await.expect(200);
    assert_eq!(shown["last_run_status"], "error");
    assert_eq!(
        shown["last_error"],
        "mapping.variables.customer_name: there is no column gone to read"
    );
    assert_eq!(
        runs(&app, &org, &broken).await[0]["error"],
        shown["last_error"]
    );
    assert_eq!(runs(&app, &org, &sound).await[0]["count"], 1);

    // A cron rule goes on to its next time, and the failure can be seen.
    plan(&app, &cron, "2050-01-10T08:00:00Z").await;
    run_due(app.state(), time("2050-01-10T08:00:01Z"))
        .await
        .unwrap();
    assert_eq!(
        next_run(&app, &org, &cron).await,
        time("2050-01-11T08:00:00Z")
    );
    assert_eq!(
        runs(&app, &org, &cron).await[0]["error"],
        shown["last_error"]
    );
    let by_hand = app
        .post(org.owner(), &format!("{}/run", path(&cron)), &json!({}))
        .await
        .expect(422);
    assert_eq!(by_hand["error"]["message"], shown["last_error"]);
    app.post(org.owner(), &format!("{}/preview", path(&cron)), &json!({}))
        .await
        .expect(422);
    // It can still be switched off, but not on.
    app_off(&app, &org, &cron).await;
    let on = app
        .patch(org.owner(), &path(&cron), &json!({ "enabled": true }))
        .await
        .expect(400);
    assert_eq!(on["error"]["field"], "mapping.variables.customer_name");

    // A rule whose JSON somebody's SQL spoilt, a template that went: the rows come in all the same.
    sql(&app, "UPDATE automations SET filters = '[7]' WHERE name = 'welcome'; DELETE FROM templates WHERE NOT is_system").await;
    subscribe(&app, org.id, "خالد", Some(PHONE), "trial", "2050-01-10").await;
    assert_eq!(app.count("SELECT count(*) FROM subscriptions").await, 2);
    assert_eq!(queued(&app).await.len(), 1);
    assert_eq!(
        app.count(
            "SELECT count(*) FROM automations WHERE last_run_status = 'error' AND kind = 'event'"
        )
        .await,
        2
    );
    // Even with no bookkeeping at all.
    sql(&app, "ALTER TABLE automation_runs RENAME TO hidden").await;
    subscribe(&app, org.id, "ليلى", Some(PHONE), "trial", "2050-01-10").await;
    assert_eq!(app.count("SELECT count(*) FROM subscriptions").await, 3);
}

#[tokio::test]
async fn an_update_counts_when_the_row_comes_to_match() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let template = template(&app, &org).await;
    let rule = with(
        welcome(&template),
        json!({ "source": { "table": "subscriptions", "operation": "update" }, "repeat": "day",
            "filters": [{ "column": "status", "op": "eq", "value": "active" }, { "column": "end_date", "op": "gt", "value": "2049-12-31" }] }),
    );
    create(&app, &org, rule).await;
    subscribe(&app, org.id, "منى", Some(PHONE), "active", "2050-01-10").await;
    sql(&app, "UPDATE subscriptions SET plan = 'big'").await;
    assert!(queued(&app).await.is_empty(), "it matched before");
    sql(&app, "UPDATE subscriptions SET status = 'expired'").await;
    assert!(queued(&app).await.is_empty(), "it no longer matches");
    sql(&app, "UPDATE subscriptions SET status = 'active'").await;
    assert_eq!(queued(&app).await.len(), 1);
    sql(
        &app,
        "UPDATE subscriptions SET status = 'expired'; UPDATE subscriptions SET status = 'active'",
    )
    .await;
    assert_eq!(queued(&app).await.len(), 1, "once a day");
    // What is rolled back was never said.
    sql(
        &app,
        "DELETE FROM automation_deliveries; UPDATE subscriptions SET status = 'expired'",
    )
    .await;
    sql(
        &app,
        "BEGIN; UPDATE subscriptions SET status = 'active'; ROLLBACK",
    )
    .await;
    assert_eq!(queued(&app).await.len(), 1);
}

#[tokio::test]
async fn a_rule_reaches_only_its_own_tenants_rows_and_only_what_the_operator_allows() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let (of_a, of_b) = (template(&app, &a).await, template(&app, &b).await);
    // Views that pass row-level security, a table without any, one that belongs to B alone, columns that are not granted.
    sql(
        &app,
        &format!(
            "CREATE VIEW public.everything AS SELECT * FROM subscriptions;
             GRANT SELECT ON public.everything TO authenticated;
             SELECT wasel.allow_source('public.everything');
             CREATE TABLE public.open (org_id uuid NOT NULL, id int PRIMARY KEY, customer_name text, customer_phone text, secret text);
             GRANT SELECT (org_id, id, customer_name, customer_phone) ON public.open TO authenticated;
             SELECT wasel.watch('public.open');
             SELECT wasel.watch('public.open');
             CREATE TABLE public.of_b (id int PRIMARY KEY, customer_name text, customer_phone text);
             GRANT SELECT ON public.of_b TO authenticated;
             SELECT wasel.watch('public.of_b', NULL, '{}');
             CREATE TABLE public.not_allowed (org_id uuid, id int PRIMARY KEY, customer_name text, customer_phone text);
             GRANT SELECT ON public.not_allowed TO authenticated",
            b.id
        ),
    )
    .await;
    for (n, org) in [&a, &b].into_iter().enumerate() {
        let (id, slug) = (org.id, &org.slug);
        subscribe(
            &app,
            id,
            &format!("x of {slug}"),
            Some(PHONE),
            "active",
            "2050-01-10",
        )
        .await;
        sql(
            &app,
            &format!(
                "INSERT INTO open VALUES ('{id}', {n}, 'y of {slug}', '{PHONE}', 'the secret')"
            ),
        )
        .await;
    }
    sql(
        &app,
        &format!("INSERT INTO of_b VALUES (1, 'row of b', '{PHONE}')"),
    )
    .await;
    let about = |template: &Value, table: &str| {
        let mapping = json!({ "recipient_phone": "customer_phone", "variables": { "customer_name": "customer_name", "days": { "value": 1 } } });
        with(
            daily(template),
            json!({ "name": table, "source": { "table": table }, "window": null, "filters": [], "mapping": mapping }),
        )
    };
    for table in ["subscriptions", "everything", "open"] {
        let rule = create(&app, &a, about(&of_a, table)).await;
        let run = app
            .post(a.owner(), &format!("{}/run", path(&rule)), &json!({}))
            .await
            .expect(200);
        assert_eq!(run["queued"], 1, "{table}: {run}");
        let preview = app
            .post(a.owner(), &format!("{}/preview", path(&rule)), &json!({}))
            .await
            .expect(200);
        assert_eq!(preview["total"], 1, "{table}");
        assert!(!preview.to_string().contains("of b"), "{table}: {preview}");
    }
    assert_eq!(
        app.count(&format!(
            "SELECT count(*) FROM notification_queue WHERE org_id <> '{}'",
            a.id
        ))
        .await,
        0
    );
    let data: Vec<Value> = queued(&app)
        .await
        .into_iter()
        .map(|row| row.1["customer_name"].clone())
        .collect();
    assert_eq!(data, ["x of a", "x of a", "y of a"]);

    // A table of B's, one that nobody allowed, the system's own, what is not there.
    for table in [
        "of_b",
        "not_allowed",
        "profiles",
        "channel_secrets",
        "nothing",
    ] {
        let answer = app
            .post(a.owner(), "/v1/automations", &about(&of_a, table))
            .await
            .expect(400);
        assert_eq!(answer["error"]["field"], "source.table", "{answer}");
    }
    let rule = create(&app, &b, about(&of_b, "of_b")).await;
    let run = app
        .post(b.owner(), &format!("{}/run", path(&rule)), &json!({}))
        .await
        .expect(200);
    assert_eq!(run["queued"], 1);
    let secret = json!({ "recipient_phone": "customer_phone", "variables": { "customer_name": "secret", "days": { "value": 1 } } });
    let answer = app
        .post(
            a.owner(),
            "/v1/automations",
            &with(
                about(&of_a, "open"),
                json!({ "name": "s", "mapping": secret }),
            ),
        )
        .await
        .expect(400);
    assert_eq!(answer["error"]["field"], "mapping.variables.customer_name");
    let by_secret = json!([{ "column": "secret", "op": "eq", "value": "x" }]);
    let answer = app
        .post(
            a.owner(),
            "/v1/automations",
            &with(
                about(&of_a, "open"),
                json!({ "name": "s", "filters": by_secret }),
            ),
        )
        .await
        .expect(400);
    assert_eq!(answer["error"]["field"], "filters[0].column");

    // The same written past the API, by a tenant's own SQL: it is checked again when it runs.
    let before = queued(&app).await.len();
    for (kind, operation, cron, repeat, table, mapping) in [
        ("event", "'insert'", "NULL", "once", "open", secret.clone()),
        (
            "cron",
            "NULL",
            "'* * * * *'",
            "day",
            "of_b",
            about(&of_a, "of_b")["mapping"].clone(),
        ),
        (
            "cron",
            "NULL",
            "'* * * * *'",
            "day",
            "profiles",
            json!({ "recipient_phone": "phone", "related_entity_id": "id", "variables": {} }),
        ),
        (
            "cron",
            "NULL",
            "'* * * * *'",
            "day",
            "open\"; DROP TABLE open; --",
            json!({ "related_entity_id": "id" }),
        ),
    ] {
        let mapping = with(json!({ "related_entity_id": "id" }), mapping);
        sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO automations (org_id, name, kind, operation, cron_expression, repeat, template_id, source_table, mapping, next_run_at)
             VALUES ($1, $2, '{kind}', {operation}, {cron}, '{repeat}', $3::uuid, $4, $5, '2050-01-01')"
        )))
        .bind(a.id)
        .bind(format!("{kind} {table}"))
        .bind(of_a.as_str().unwrap())
        .bind(table)
        .bind(mapping)
        .execute(&app.owner)
        .await
        .unwrap();
    }
    sql(&app, "UPDATE automations SET enabled = false WHERE name IN ('subscriptions', 'everything', 'open', 'of_b')").await;
    sql(
        &app,
        &format!(
            "INSERT INTO open VALUES ('{}', 3, 'n', '{PHONE}', 'the secret')",
            a.id
        ),
    )
    .await;
    run_due(app.state(), time("2050-01-01T00:00:01Z"))
        .await
        .unwrap();
    assert_eq!(queued(&app).await.len(), before);
    assert_eq!(
        app.count("SELECT count(*) FROM automations WHERE enabled AND last_run_status = 'error'")
            .await,
        4
    );
    assert_eq!(app.count("SELECT count(*) FROM open").await, 3);
    // B's rows run B's rules, never A's.
    create(&app, &a, welcome(&of_a)).await;
    subscribe(&app, b.id, "of b", Some(PHONE), "trial", "2050-01-10").await;
    assert_eq!(queued(&app).await.len(), before);
}

#[tokio::test]
async fn what_will_not_do_is_refused_by_the_name_of_the_field() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let template = template(&app, &org).await;
    sql(&app, "CREATE TABLE public.unwatched (org_id uuid, id uuid, status text, customer_phone text, customer_name text, end_date date);
        GRANT SELECT ON public.unwatched TO authenticated; SELECT wasel.allow_source('public.unwatched')").await;
    let variables = |value: Value| json!({ "mapping": { "recipient_phone": "customer_phone", "variables": value } });
    let cases = [
        (false, json!({ "name": " " }), "name"),
        (false, json!({ "kind": "hourly" }), "kind"),
        (
            false,
            json!({ "cron_expression": "0 25 * * *" }),
            "cron_expression",
        ),
        (
            false,
            json!({ "cron_expression": "0 9 31 2 *" }),
            "cron_expression",
        ),
        (false, json!({ "cron_expression": null }), "cron_expression"),
        (false, json!({ "timezone": "Mars/Olympus" }), "timezone"),
        (false, json!({ "priority": 11 }), "priority"),
        (
            false,
            json!({ "notification_type": "fax" }),
            "notification_type",
        ),
        (
            false,
            json!({ "notification_type": "email" }),
            "mapping.recipient_email",
        ),
        (
            false,
            json!({ "template_id": Uuid::now_v7() }),
            "template_id",
        ),
        (false, json!({ "repeat": "always" }), "repeat"),
        (
            false,
            json!({ "source": { "table": "nothing" } }),
            "source.table",
        ),
        (
            false,
            json!({ "source": { "schema": "wasel", "table": "users" } }),
            "source.table",
        ),
        (
            false,
            json!({ "source": { "table": "subscriptions", "operation": "insert" } }),
            "source.operation",
        ),
        (
            false,
            json!({ "window": { "column": "customer_name", "within_days": 3 } }),
            "window.column",
        ),
        (
            false,
            json!({ "window": { "column": "end_date", "within_days": 9999 } }),
            "window.within_days",
        ),
        (
            false,
            json!({ "filters": [{ "column": "nothing", "op": "eq", "value": 1 }] }),
            "filters[0].column",
        ),
        (
            false,
            json!({ "filters": [{ "column": "status", "op": "~", "value": "x" }] }),
            "filters[0].op",
        ),
        (
            false,
            json!({ "filters": [{ "column": "end_date", "op": "lt", "value": "soon" }] }),
            "filters[0].value",
        ),
        (
            false,
            json!({ "filters": [{ "column": "status", "op": "in", "value": "x" }] }),
            "filters[0].value",
        ),
        (
            false,
            json!({ "filters": [{ "column": "status", "op": "is_null", "value": "x" }] }),
            "filters[0].value",
        ),
        (
            false,
            json!({ "mapping": { "variables": {} } }),
            "mapping.recipient_phone",
        ),
        (
            false,
            json!({ "mapping": { "recipient": "everybody", "variables": {} } }),
            "mapping.recipient",
        ),
        (
            false,
            json!({ "mapping": { "recipient_phone": "phone", "variables": { "customer_name": "customer_name", "days": { "value": 1 } } } }),
            "mapping.recipient_phone",
        ),
        (
            false,
            variables(json!({ "customer_name": "customer_name" })),
            "mapping.variables.days",
        ),
        (
            false,
            variables(json!({ "customer_name": "nothing", "days": { "value": 1 } })),
            "mapping.variables.customer_name",
        ),
        (
            false,
            variables(
                json!({ "customer_name": "customer_name", "days": { "days_until": "plan" } }),
            ),
            "mapping.variables.days",
        ),
        (
            false,
            variables(
                json!({ "customer_name": "customer_name", "days": { "value": 1, "column": "plan" } }),
            ),
            "mapping.variables.days",
        ),
        (
            false,
            variables(
                json!({ "customer_name": "customer_name", "days": { "value": 1 }, "x": "plan" }),
            ),
            "mapping.variables.x",
        ),
        (
            true,
            json!({ "source": { "table": "subscriptions" } }),
            "source.operation",
        ),
        (
            true,
            json!({ "source": { "table": "subscriptions", "operation": "delete" } }),
            "source.operation",
        ),
        (
            true,
            json!({ "source": { "table": "unwatched", "operation": "insert" } }),
            "source.table",
        ),
        (
            true,
            json!({ "cron_expression": "0 9 * * *" }),
            "cron_expression",
        ),
        (
            true,
            json!({ "window": { "column": "end_date", "within_days": 1 } }),
            "window",
        ),
        (true, json!({ "repeat": "tick" }), "repeat"),
    ];
    let good = [
        create(&app, &org, daily(&template)).await,
        create(&app, &org, welcome(&template)).await,
    ];
    for (event, wrong, field) in cases {
        let body = if event {
            welcome(&template)
        } else {
            daily(&template)
        };
        let body = with(with(body, json!({ "name": "new" })), wrong.clone());
        let answer = app
            .post(org.owner(), "/v1/automations", &body)
            .await
            .expect(400);
        assert_eq!(answer["error"]["field"], field, "{wrong}: {answer}");
        // The same as a change; a kind cannot be, nor can what is missing.
        if wrong.get("kind").is_none()
            && wrong
                .as_object()
                .unwrap()
                .values()
                .all(|value| !value.is_null())
        {
            let answer = app
                .patch(org.owner(), &path(&good[usize::from(event)]), &wrong)
                .await
                .expect(400);
            assert_eq!(answer["error"]["field"], field, "{wrong}: {answer}");
        }
    }
    assert_eq!(
        app.count("SELECT count(*) FROM automations").await,
        2,
        "nothing wrong was saved"
    );
    let taken = app
        .post(org.owner(), "/v1/automations", &daily(&template))
        .await
        .expect(409);
    assert_eq!(taken["error"]["field"], "name");
    // Who may.
    for (method, path, body) in [
        (Method::POST, "/v1/automations".to_owned(), daily(&template)),
        (Method::PATCH, path(&good[0]), json!({ "enabled": false })),
        (Method::DELETE, path(&good[0]), json!({})),
        (Method::POST, format!("{}/run", path(&good[0])), json!({})),
        (
            Method::POST,
            format!("{}/preview", path(&good[0])),
            json!({}),
        ),
        (
            Method::POST,
            "/v1/automations/defaults".to_owned(),
            json!({}),
        ),
    ] {
        let answer = Answer::of(
            app.request(method, &path)
                .bearer_auth(org.agent())
                .json(&body),
        )
        .await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text);
    }
    let seen = app
        .get(org.agent(), "/v1/automations?kind=cron")
        .await
        .expect(200);
    assert_eq!(seen["data"].as_array().unwrap().len(), 1);
    let refused = app
        .post(org.owner(), &format!("{}/run", path(&good[1])), &json!({}))
        .await
        .expect(422);
    assert_eq!(refused["error"]["code"], "event_automation");
    let gone = Answer::of(
        app.request(Method::DELETE, &path(&good[0]))
            .bearer_auth(org.owner()),
    )
    .await;
    assert_eq!(gone.status, 204);
    app.get(org.owner(), &path(&good[0])).await.expect(404);
    app.get(org.owner(), &format!("{}/runs", path(&good[0])))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_preview_shows_what_each_would_read_or_why_they_cannot() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let template = template(&app, &org).await;
    sql(
        &app,
        "ALTER TABLE subscriptions ALTER customer_name DROP NOT NULL",
    )
    .await;
    let body = with(
        daily(&template),
        json!({ "window": null, "enabled": false }),
    );
    let rule = create(&app, &org, body).await;
    assert_eq!(rule["next_run_at"], Value::Null);
    let in_two_days = (Utc::now()
        .with_timezone(&chrono_tz::Europe::Berlin)
        .date_naive()
        + TimeDelta::days(2))
    .to_string();
    for (name, phone) in [
        ("منى", Some(PHONE)),
        ("no phone", None),
        ("odd", Some("12")),
    ] {
        subscribe(&app, org.id, name, phone, "active", &in_two_days).await;
    }
    sql(&app, &format!("INSERT INTO subscriptions (org_id, customer_phone, status) VALUES ('{}', '{PHONE}', 'active')", org.id)).await;
    let preview = async || {
        let shown = app
            .post(org.owner(), &format!("{}/preview", path(&rule)), &json!({}))
            .await
            .expect(200);
        assert_eq!(shown["total"], 4);
        shown["data"].as_array().unwrap().clone()
    };
    let rows = preview().await;
    assert_eq!(rows[0]["text"], "مرحباً منى، باقي 2 أيام");
    assert_eq!(rows[0]["already_sent"], false);
    assert_eq!(rows[1]["error"], "recipient_phone: is missing");
    assert!(
        rows[2]["error"]
            .as_str()
            .unwrap()
            .starts_with("recipient_phone: "),
        "{}",
        rows[2]
    );
    assert_eq!(rows[3]["error"], "variables.customer_name: is missing");
    assert!(queued(&app).await.is_empty());
    // By hand it runs though it is switched off, and the schedule stays.
    let run = app
        .post(org.owner(), &format!("{}/run", path(&rule)), &json!({}))
        .await
        .expect(200);
    assert_eq!(
        run,
        json!({ "queued": 2, "skipped": 2, "skipped_reason": "recipient_phone: is missing" })
    );
    let rows = preview().await;
    assert_eq!(rows[0]["already_sent"], true);
    let run = app
        .post(org.owner(), &format!("{}/run", path(&rule)), &json!({}))
        .await
        .expect(200);
    assert_eq!(run["queued"], 0);
    let history = runs(&app, &org, &rule).await;
    assert_eq!(history.len(), 2);
    assert_eq!(history[1]["cause"], "manual");
    assert_eq!(history[1]["count"], 2);
    assert_eq!(history[1]["skipped"], 2);
    let page = app
        .get(org.owner(), &format!("{}/runs?limit=1", path(&rule)))
        .await
        .expect(200);
    let rest = format!(
        "{}/runs?cursor={}",
        path(&rule),
        page["next_cursor"].as_str().unwrap()
    );
    let rest = app.get(org.owner(), &rest).await.expect(200);
    assert_eq!(rest["data"], json!([history[1]]));
    assert_eq!(rest["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_schedule_changed_by_anybody_is_computed_anew() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let template = template(&app, &org).await;
    let rule = create(
        &app,
        &org,
        with(daily(&template), json!({ "timezone": null })),
    )
    .await;
    let cairo = next_run(&app, &org, &rule).await;
    let changed = app
        .patch(
            org.owner(),
            &path(&rule),
            &json!({ "timezone": "Asia/Tokyo" }),
        )
        .await
        .expect(200);
    let tokyo = time(changed["next_run_at"].as_str().unwrap());
    assert_eq!(tokyo.format("%H:%M").to_string(), "00:00");
    let changed = app
        .patch(
            org.owner(),
            &path(&rule),
            &json!({ "timezone": null, "description": "x" }),
        )
        .await
        .expect(200);
    assert_eq!(time(changed["next_run_at"].as_str().unwrap()), cairo);
    let off_and_on = json!({ "enabled": false });
    assert_eq!(
        app.patch(org.owner(), &path(&rule), &off_and_on)
            .await
            .expect(200)["next_run_at"],
        Value::Null
    );
    app.patch(org.owner(), &path(&rule), &json!({ "enabled": true }))
        .await
        .expect(200);
    assert_eq!(next_run(&app, &org, &rule).await, cairo);
    // By SQL, and by the organisation moving: the job computes it and nothing runs.
    sql(
        &app,
        &format!(
            "UPDATE organizations SET timezone = 'Asia/Tokyo' WHERE id = '{}'",
            org.id
        ),
    )
    .await;
    app.wait_count(
        &format!("SELECT count(*) FROM automations WHERE next_run_at = '{tokyo}'"),
        1,
    )
    .await;
    sql(
        &app,
        "UPDATE automations SET cron_expression = '30 9 * * *'",
    )
    .await;
    app.wait_count("SELECT count(*) FROM automations WHERE to_char(next_run_at AT TIME ZONE 'UTC', 'HH24:MI') = '00:30'", 1).await;
    sql(&app, "UPDATE automations SET cron_expression = 'rubbish'").await;
    app.wait_count("SELECT count(*) FROM automations WHERE NOT enabled AND last_error LIKE 'switched off: its schedule is no cron%'", 1).await;
    assert!(queued(&app).await.is_empty());
    assert!(runs(&app, &org, &rule).await.is_empty());
}
