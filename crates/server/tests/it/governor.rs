//! When and how often people may be written to: what holds a message, until when, and what is refused.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;
use wasel_db::outbox::Claimed;
use wasel_domain::ChannelId;
use wasel_providers::ErrorClass;
use wasel_server::governor::{Governor, Verdict};
use wasel_server::registry::Channel;
use wasel_simulator::CustomerSend;
use wasel_testkit::{Answer, Org, TestApp, meta};

const EGYPTIAN: &str = "+201001234567";
const SAUDI: &str = "+966512345678";

/// A hold may last this much longer than its rule asks.
const SCATTER: TimeDelta = TimeDelta::seconds(30);

async fn put(app: &TestApp, token: &str, path: &str, body: &Value) -> Answer {
    let request = app.request(Method::PUT, path).bearer_auth(token);
    Answer::of(request.json(body)).await
}

async fn set_policy(app: &TestApp, org: &Org, policy: Value) {
    put(app, org.owner(), "/v1/settings/sending", &policy)
        .await
        .expect(200);
}

async fn set_limits(app: &TestApp, org: &Org, channel: Uuid, limits: Value) {
    let path = format!("/v1/channels/{channel}");
    app.patch(org.owner(), &path, &json!({ "limits": limits }))
        .await
        .expect(200);
}

async fn set_status(app: &TestApp, org: &Org, channel: Uuid, status: &str) {
    let path = format!("/v1/channels/{channel}");
    app.patch(org.owner(), &path, &json!({ "status": status }))
        .await
        .expect(200);
}

/// Asks for a text by SMS, which knows no 24-hour window.
async fn ask(app: &TestApp, org: &Org, to: &str, category: &str) -> Answer {
    ask_on(app, org, org.sms, to, category).await
}

async fn ask_on(app: &TestApp, org: &Org, channel: Uuid, to: &str, category: &str) -> Answer {
    let body = json!({ "channel_id": channel, "to": to, "category": category,
        "content": { "type": "text", "body": "مرحباً" } });
    app.post(org.owner(), "/v1/messages", &body).await
}

/// Asks for a template by WhatsApp.
async fn ask_template(app: &TestApp, org: &Org, to: &str) -> Answer {
    let body = json!({ "channel_id": org.whatsapp, "to": to, "category": "marketing",
        "content": { "type": "template", "name": "order_ready", "language": "ar",
            "components": [{ "type": "body", "parameters": [{ "type": "text", "text": "7" }] }] } });
    app.post(org.owner(), "/v1/messages", &body).await
}

fn id_of(message: &Value) -> Uuid {
    message["id"].as_str().unwrap().parse().unwrap()
}

/// A tenant whose messages stay in the outbox, so that a test can ask about them at any time of its choice.
struct Desk {
    app: TestApp,
    org: Org,
    governor: Governor,
}

impl Desk {
    async fn new() -> Self {
        let app = TestApp::start().await;
        let org = app.org("a").await;
        for channel in [org.sms, org.whatsapp, org.twilio_whatsapp] {
            set_status(&app, &org, channel, "paused").await;
        }
        Self {
            app,
            org,
            governor: Governor::default(),
        }
    }

    async fn ask(&self, to: &str, category: &str) -> Uuid {
        id_of(&ask(&self.app, &self.org, to, category).await.expect(202))
    }

    async fn claimed(&self, messages: &[Uuid]) -> Vec<Claimed> {
        sqlx::query_as(
            "SELECT o.org_id, o.message_id, o.channel_id, o.conversation_id, m.contact_id, gen_random_uuid() AS attempt_id,
                 1 AS attempts, m.category, o.at_most_once, m.content, m.quoted_message_id, NULL::text AS group_id,
                 now() AS claimed_at, o.hold_reason AS held_for
             FROM unnest($1::uuid[]) WITH ORDINALITY AS asked(id, place)
             JOIN outbox o ON o.message_id = asked.id JOIN messages m ON m.org_id = o.org_id AND m.id = o.message_id
             ORDER BY asked.place",
        )
        .bind(messages)
        .fetch_all(&self.app.owner)
        .await
        .unwrap()
    }

    fn channels(&self) -> HashMap<Uuid, Arc<Channel>> {
        [self.org.sms, self.org.whatsapp, self.org.twilio_whatsapp]
            .into_iter()
            .map(|id| {
                let channel = self.app.state().registry.by_id(ChannelId(id)).unwrap();
                (id, channel)
            })
            .collect()
    }

    /// What the governor says of one batch at a time, in short.
    async fn review(&self, messages: &[Uuid], now: DateTime<Utc>) -> Vec<String> {
        let claimed = self.claimed(messages).await;
        assert_eq!(claimed.len(), messages.len());
        let mut tx = self.app.state().db.system().await.unwrap();
        let channels = self.channels();
        let verdicts = self.governor.review_at(&mut tx, &claimed, &channels, now);
        let verdicts = verdicts.await.unwrap();
        tx.commit().await.unwrap();
        verdicts.iter().map(|verdict| short(verdict, now)).collect()
    }

    /// As the sender would leave a message after the provider took it.
    async fn mark_sent(&self, message: Uuid, at: DateTime<Utc>) {
        sqlx::query("UPDATE messages SET status = 'sent', sent_at = $2 WHERE id = $1")
            .bind(message)
            .bind(at)
            .execute(&self.app.owner)
            .await
            .unwrap();
    }
}

/// `go`, `quiet_hours +600` with the minutes it waits, or `opted_out` with the class.
fn short(verdict: &Verdict, now: DateTime<Utc>) -> String {
    match verdict {
        Verdict::Go => "go".to_owned(),
        Verdict::Hold { reason, until } => {
            let wait = *until - now;
            let minutes = wait.num_minutes();
            let over = wait - TimeDelta::minutes(minutes);
            assert!(over <= SCATTER, "{} waits {wait}", reason.as_str());
            format!("{} +{minutes}", reason.as_str())
        }
        Verdict::Refuse(error) => format!("{} {:?}", error.code.as_deref().unwrap(), error.class),
    }
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn nights() -> Value {
    json!({ "quiet_hours": { "from": "21:00", "to": "09:00" } })
}

#[tokio::test]
async fn people_are_left_alone_in_the_night_of_their_own_country() {
    let desk = Desk::new().await;
    set_policy(&desk.app, &desk.org, nights()).await;
    let batch = [
        desk.ask(EGYPTIAN, "marketing").await,
        desk.ask(SAUDI, "marketing").await,
        // Many zones: the organisation's, Cairo.
        desk.ask("+12025550199", "marketing").await,
        desk.ask(SAUDI, "service").await,
        desk.ask(SAUDI, "utility").await,
        desk.ask(SAUDI, "authentication").await,
    ];
    // 20:30 in Cairo, 21:30 in Riyadh, where it is nine again at 06:00 UTC.
    let verdicts = desk.review(&batch, utc("2026-11-21T18:30:00Z")).await;
    assert_eq!(verdicts, ["go", "quiet_hours +690", "go", "go", "go", "go"]);
    // 08:30 and 09:30.
    let verdicts = desk.review(&batch[..3], utc("2026-11-22T06:30:00Z")).await;
    assert_eq!(verdicts, ["quiet_hours +30", "go", "quiet_hours +30"]);

    let contact = contact_of(&desk.app, batch[1]).await;
    let path = format!("/v1/contacts/{contact}");
    let zone = json!({ "timezone": "Europe/London" });
    let shown = desk.app.patch(desk.org.agent(), &path, &zone).await;
    assert_eq!(shown.expect(200)["timezone"], "Europe/London");
    // 18:30 in London.
    let verdicts = desk.review(&batch[1..2], utc("2026-11-21T18:30:00Z")).await;
    assert_eq!(verdicts, ["go"]);

    // By the organisation's clock, and utility too.
    let policy = json!({ "quiet_hours": { "from": "20:00", "to": "21:00", "timezone_source": "organization",
        "categories": ["utility", "marketing"] } });
    set_policy(&desk.app, &desk.org, policy).await;
    let verdicts = desk.review(&batch, utc("2026-11-21T18:30:00Z")).await;
    let held = "quiet_hours +30";
    assert_eq!(verdicts, [held, held, held, "go", held, "go"]);
}

async fn contact_of(app: &TestApp, message: Uuid) -> Uuid {
    sqlx::query_scalar("SELECT contact_id FROM messages WHERE id = $1")
        .bind(message)
        .fetch_one(&app.owner)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_cap_counts_all_conversations_of_a_person_and_the_messages_of_the_same_batch() {
    let desk = Desk::new().await;
    let cap = json!({ "frequency_cap": { "messages": 2, "per_hours": 24 } });
    set_policy(&desk.app, &desk.org, cap).await;
    let (app, org) = (&desk.app, &desk.org);
    // The same person on another channel.
    app.world()
        .send_as_customer(CustomerSend::text(
            format!("whatsapp:{}", org.whatsapp_number),
            EGYPTIAN,
            "hi",
        ))
        .unwrap();
    app.wait_count("SELECT count(*) FROM messages", 1).await;
    let by_whatsapp = ask_on(app, org, org.twilio_whatsapp, EGYPTIAN, "marketing").await;
    let batch = [
        desk.ask(EGYPTIAN, "marketing").await,
        id_of(&by_whatsapp.expect(202)),
        desk.ask(EGYPTIAN, "marketing").await,
        desk.ask(EGYPTIAN, "service").await,
        desk.ask(SAUDI, "marketing").await,
    ];
    let now = Utc::now();
    let verdicts = desk.review(&batch, now).await;
    assert_eq!(verdicts, ["go", "go", "frequency_cap +1440", "go", "go"]);
    let hour = TimeDelta::hours(1);
    desk.mark_sent(batch[0], now).await;
    desk.mark_sent(batch[1], now + hour).await;
    // Until the oldest is past; and a message that failed does not count.
    let verdicts = desk.review(&batch[2..3], now + hour * 2).await;
    assert_eq!(verdicts, [format!("frequency_cap +{}", 22 * 60)]);
    sqlx::query("UPDATE messages SET status = 'failed' WHERE id = $1")
        .bind(batch[1])
        .execute(&app.owner)
        .await
        .unwrap();
    assert_eq!(desk.review(&batch[2..3], now + hour * 2).await, ["go"]);
    // What another sender has in hand counts, though it is still queued by its status.
    let status = "UPDATE messages SET status = 'queued' WHERE id = $1";
    let leased = "UPDATE outbox SET leased_until = now() + interval '1 minute', claimed_at = now() WHERE message_id = $1";
    for change in [status, leased] {
        sqlx::query(change)
            .bind(batch[1])
            .execute(&app.owner)
            .await
            .unwrap();
    }
    let verdicts = desk.review(&batch[2..3], now + hour * 2).await;
    assert_eq!(verdicts, [format!("frequency_cap +{}", 22 * 60)]);
}

#[tokio::test]
async fn no_more_people_are_reached_in_a_day_than_the_provider_allows() {
    let desk = Desk::new().await;
    set_limits(
        &desk.app,
        &desk.org,
        desk.org.sms,
        json!({ "daily_reach": 2 }),
    )
    .await;
    let mut people = Vec::new();
    for n in 0..6 {
        people.push(desk.ask(&format!("+20100123450{n}"), "service").await);
    }
    let again = desk.ask("+201001234500", "service").await;
    let (start, hour) = (Utc::now(), TimeDelta::hours(1));
    assert_eq!(desk.review(&people[..1], start).await, ["go"]);
    // The same person is no other person.
    let batch = [people[1], again, people[2], people[3], people[4]];
    let verdicts = desk.review(&batch, start + hour).await;
    // Each waits for a place of its own: the second is reached, as the first was again, at one o'clock.
    let full = "daily_reach +1440";
    assert_eq!(verdicts, ["go", "go", full, full, full]);
    let verdicts = desk.review(&people[5..], start + hour * 5).await;
    assert_eq!(verdicts, ["daily_reach +1200"], "behind those");
    let day_later = start + hour + TimeDelta::hours(24);
    let verdicts = desk.review(&people[2..5], day_later).await;
    assert_eq!(verdicts, ["go", "go", full]);
}

#[tokio::test]
async fn those_who_wait_for_reach_wake_one_by_one_as_room_comes_free() {
    let desk = Desk::new().await;
    let limits = json!({ "daily_reach": 3 });
    set_limits(&desk.app, &desk.org, desk.org.sms, limits).await;
    let mut people = Vec::new();
    for n in 0..7 {
        people.push(desk.ask(&format!("+20100123450{n}"), "service").await);
    }
    let (start, hour) = (Utc::now(), TimeDelta::hours(1));
    for n in 0..3 {
        let at = start + hour * n;
        let one = &people[n as usize..=n as usize];
        assert_eq!(desk.review(one, at).await, ["go"]);
    }
    let at = start + hour * 3;
    let minutes = |hours: i32| format!("daily_reach +{}", hours * 60);
    let verdicts = desk.review(&people[3..5], at).await;
    assert_eq!(verdicts, [minutes(21), minutes(22)]);
    let verdicts = desk.review(&people[5..], at).await;
    assert_eq!(verdicts, [minutes(23), minutes(23)]);
}

#[tokio::test]
async fn the_numbers_of_one_account_share_its_reach_and_open_windows_are_free() {
    let desk = Desk::new().await;
    let (app, org) = (&desk.app, &desk.org);
    let share = "UPDATE channels SET settings = settings || '{\"waba_id\": \"77\"}'";
    sqlx::query(share).execute(&app.owner).await.unwrap();
    set_limits(app, org, org.whatsapp, json!({ "daily_reach": 1 })).await;
    let first = desk.ask(EGYPTIAN, "service").await;
    let second = id_of(&ask_template(app, org, SAUDI).await.expect(202));
    let now = Utc::now();
    let verdicts = desk.review(&[first, second], now).await;
    assert_eq!(verdicts, ["go", "daily_reach +1440"]);
    app.meta_webhook(
        org,
        &meta::change(
            &org.phone_number_id,
            meta::text("966512345678", "wamid.1", "hi"),
        ),
    )
    .await
    .expect(200);
    sqlx::query("UPDATE conversations SET last_inbound_at = now() WHERE channel_id = $1")
        .bind(org.whatsapp)
        .execute(&app.owner)
        .await
        .unwrap();
    assert_eq!(desk.review(&[second], now).await, ["go"]);
}

#[tokio::test]
async fn a_new_number_reaches_more_people_from_day_to_day() {
    let desk = Desk::new().await;
    let warm_up = json!({ "daily_reach": 4, "warm_up": { "started_on": "2026-11-21", "first_day": 1, "growth": 2 } });
    set_limits(&desk.app, &desk.org, desk.org.sms, warm_up).await;
    let mut people = Vec::new();
    for n in 0..6 {
        people.push(desk.ask(&format!("+20100123450{n}"), "service").await);
    }
    // Noon in Cairo; its midnight is at 22:00 UTC.
    let (noon, day) = (utc("2026-11-21T10:00:00Z"), TimeDelta::days(1));
    let verdicts = desk.review(&people[..2], noon).await;
    assert_eq!(verdicts, ["go", "warm_up +720"]);
    let verdicts = desk.review(&people[1..4], noon + day).await;
    assert_eq!(verdicts, ["go", "go", "warm_up +720"]);
    // Grown into the channel's own limit, the day after next.
    let verdicts = desk
        .review(&people[2..6], noon + day * 2 + TimeDelta::hours(1))
        .await;
    assert_eq!(verdicts, ["go"; 4]);
    let view = desk
        .app
        .get(
            desk.org.owner(),
            &format!("/v1/channels/{}/pace", desk.org.sms),
        )
        .await
        .expect(200);
    assert_eq!(view["reach"][0]["limit"], "daily_reach", "{view}");
    assert_eq!(view["reach"][0]["people"], 4, "{view}");
    assert_eq!(view["backlog"], 6, "{view}");
    assert_eq!(view["backlog_is_more"], false);
    assert_eq!(view["messages_per_second"], 10.0);
    assert_eq!(view["rate_factor"], 1.0);
    assert_eq!(view["circuit_breaker"], Value::Null);
}

#[tokio::test]
async fn two_senders_at_once_do_not_give_the_last_place_twice() {
    let desk = Desk::new().await;
    set_limits(
        &desk.app,
        &desk.org,
        desk.org.sms,
        json!({ "daily_reach": 1 }),
    )
    .await;
    let mut batches = Vec::new();
    for to in [EGYPTIAN, SAUDI] {
        let message = desk.ask(to, "service").await;
        batches.push(desk.claimed(&[message]).await);
    }
    let (channels, now) = (desk.channels(), Utc::now());
    let db = &desk.app.state().db;
    let mut first = db.system().await.unwrap();
    let mut second = db.system().await.unwrap();
    let other_node = Governor::default();
    let verdicts = desk
        .governor
        .review_at(&mut first, &batches[0], &channels, now)
        .await
        .unwrap();
    assert!(matches!(verdicts[0], Verdict::Go));
    let waiting = other_node.review_at(&mut second, &batches[1], &channels, now);
    let (verdicts, ()) = tokio::join!(waiting, async { first.commit().await.unwrap() });
    let verdicts = verdicts.unwrap();
    assert!(matches!(verdicts[0], Verdict::Hold { .. }), "{verdicts:?}");
}

#[tokio::test]
async fn a_burst_to_one_person_is_held_at_the_pace_that_meta_allows() {
    let desk = Desk::new().await;
    let mut burst = Vec::new();
    for _ in 0..47 {
        let sent = ask_template(&desk.app, &desk.org, EGYPTIAN).await;
        burst.push(id_of(&sent.expect(202)));
    }
    let other = id_of(&ask_template(&desk.app, &desk.org, SAUDI).await.expect(202));
    burst.push(other);
    let now = Utc::now();
    let claimed = desk.claimed(&burst).await;
    let channels = desk.channels();
    let mut tx = desk.app.state().db.system().await.unwrap();
    let verdicts = desk
        .governor
        .review_at(&mut tx, &claimed, &channels, now)
        .await
        .unwrap();
    assert!(verdicts[..45].iter().all(|v| matches!(v, Verdict::Go)));
    for verdict in &verdicts[45..47] {
        let Verdict::Hold { reason, until } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(reason.as_str(), "pair_pace");
        assert_eq!(*until, now + TimeDelta::seconds(6));
    }
    assert!(matches!(verdicts[47], Verdict::Go), "another person");
    let later = now + TimeDelta::seconds(6);
    let verdicts = desk
        .governor
        .review_at(&mut tx, &claimed[45..47], &channels, later)
        .await
        .unwrap();
    assert!(matches!(verdicts[0], Verdict::Go));
    assert!(matches!(verdicts[1], Verdict::Hold { .. }));
}

#[tokio::test]
async fn a_window_that_closed_while_the_message_waited_is_told_before_anything_leaves() {
    let desk = Desk::new().await;
    let (app, org) = (&desk.app, &desk.org);
    let line = format!("whatsapp:{}", org.whatsapp_number);
    app.world()
        .send_as_customer(CustomerSend::text(line, EGYPTIAN, "hi"))
        .unwrap();
    app.wait_count("SELECT count(*) FROM messages", 1).await;
    let asked = ask_on(app, org, org.twilio_whatsapp, EGYPTIAN, "service").await;
    let free = id_of(&asked.expect(202));
    let template = id_of(&ask_template(app, org, EGYPTIAN).await.expect(202));
    let now = Utc::now();
    assert_eq!(desk.review(&[free, template], now).await, ["go", "go"]);
    let late = now + TimeDelta::hours(24);
    let verdicts = desk.review(&[free, template], late).await;
    let refused = format!("window_closed {:?}", ErrorClass::NeedsTemplate);
    assert_eq!(verdicts, [refused.as_str(), "go"]);
}

#[tokio::test]
async fn an_opt_out_is_of_a_category_or_of_everything_and_the_newest_word_counts() {
    let desk = Desk::new().await;
    let (app, org) = (&desk.app, &desk.org);
    let (selling, serving) = (
        desk.ask(EGYPTIAN, "marketing").await,
        desk.ask(EGYPTIAN, "service").await,
    );
    let contact = contact_of(app, selling).await;
    let path = format!("/v1/contacts/{contact}/consents");
    let say = async |state: &str, category: &str| {
        let body = json!({ "state": state, "category": category });
        app.post(org.owner(), &path, &body).await.expect(201)
    };
    let now = Utc::now;
    let entry = say("opted_out", "marketing").await;
    assert_eq!(entry["source"], "agent");
    let verdicts = desk.review(&[selling, serving], now()).await;
    assert_eq!(verdicts, ["opted_out OptedOutOfMarketing", "go"]);
    let refused = ask(app, org, EGYPTIAN, "marketing").await.expect(422);
    assert_eq!(refused["error"]["code"], "opted_out");
    assert_eq!(refused["error"]["field"], "category");
    ask(app, org, EGYPTIAN, "service").await.expect(202);

    say("opted_out", "all").await;
    let out = "opted_out OptedOut";
    let verdicts = desk.review(&[selling, serving], now()).await;
    assert_eq!(verdicts, [out, out]);
    let refused = ask(app, org, EGYPTIAN, "service").await.expect(422);
    assert_eq!(refused["error"]["field"], "to");
    // A yes to marketing is none to everything; a yes to everything is one to marketing.
    say("opted_in", "marketing").await;
    let verdicts = desk.review(&[selling, serving], now()).await;
    assert_eq!(verdicts, [out, out]);
    say("opted_in", "all").await;
    let verdicts = desk.review(&[selling, serving], now()).await;
    assert_eq!(verdicts, ["go", "go"]);

    // On one channel only.
    let body = json!({ "state": "opted_out", "category": "marketing", "channel_id": org.whatsapp });
    app.post(org.owner(), &path, &body).await.expect(201);
    assert_eq!(desk.review(&[selling], now()).await, ["go"]);
    let template = ask_template(app, org, EGYPTIAN).await;
    assert_eq!(template.expect(422)["error"]["code"], "opted_out");

    for (body, field) in [
        (
            json!({ "state": "opted_out", "category": "news" }),
            "category",
        ),
        (json!({ "state": "maybe", "category": "all" }), "state"),
    ] {
        let answer = app.post(org.owner(), &path, &body).await.expect(400);
        assert_eq!(answer["error"]["field"], field, "{answer}");
    }
    let viewer = &org.people.viewer_token;
    let body = json!({ "state": "opted_in", "category": "all" });
    app.post(viewer, &path, &body).await.expect(403);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_by_name() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let path = "/v1/settings/sending";
    let none = json!({ "quiet_hours": null, "frequency_cap": null });
    assert_eq!(app.get(org.agent(), path).await.expect(200), none);
    let policy = json!({
        "quiet_hours": { "from": "21:30", "to": "09:00", "categories": ["marketing"], "timezone_source": "recipient" },
        "frequency_cap": { "messages": 3, "per_hours": 168, "categories": ["utility", "marketing"] },
    });
    let stored = put(&app, org.owner(), path, &policy).await.expect(200);
    assert_eq!(stored, policy);
    assert_eq!(app.get(org.agent(), path).await.expect(200), policy);
    put(&app, org.agent(), path, &policy).await.expect(403);
    for (field, value) in [
        (
            "quiet_hours.from",
            json!({ "quiet_hours": { "from": "9 pm", "to": "09:00" } }),
        ),
        (
            "quiet_hours.to",
            json!({ "quiet_hours": { "from": "21:00", "to": "24:00" } }),
        ),
        (
            "quiet_hours.to",
            json!({ "quiet_hours": { "from": "21:00", "to": "21:00" } }),
        ),
        (
            "quiet_hours.to",
            json!({ "quiet_hours": { "from": "21:00" } }),
        ),
        (
            "quiet_hours.categories",
            json!({ "quiet_hours": { "from": "21:00", "to": "09:00", "categories": ["service"] } }),
        ),
        (
            "quiet_hours.categories",
            json!({ "quiet_hours": { "from": "21:00", "to": "09:00", "categories": [] } }),
        ),
        (
            "quiet_hours.timezone_source",
            json!({ "quiet_hours": { "from": "21:00", "to": "09:00", "timezone_source": "moon" } }),
        ),
        (
            "frequency_cap.messages",
            json!({ "frequency_cap": { "messages": 0, "per_hours": 24 } }),
        ),
        (
            "frequency_cap.per_hours",
            json!({ "frequency_cap": { "messages": 1, "per_hours": 721 } }),
        ),
    ] {
        let answer = put(&app, org.owner(), path, &value).await.expect(400);
        assert_eq!(answer["error"]["field"], field, "{answer}");
    }
    assert_eq!(app.get(org.owner(), path).await.expect(200), policy);
    put(&app, org.owner(), path, &json!({})).await.expect(200);
    assert_eq!(app.get(org.owner(), path).await.expect(200), none);

    let channel = format!("/v1/channels/{}", org.sms);
    let limits = json!({ "messages_per_second": 2.5, "daily_reach": 250,
        "warm_up": { "started_on": "2026-11-21", "first_day": 50, "growth": 1.5 } });
    let body = json!({ "limits": limits });
    let shown = app.patch(org.owner(), &channel, &body).await.expect(200);
    assert_eq!(shown["limits"], limits);
    app.patch(org.agent(), &channel, &body).await.expect(403);
    for (field, limits) in [
        (
            "limits.messages_per_second",
            json!({ "messages_per_second": 0 }),
        ),
        (
            "limits.messages_per_second",
            json!({ "messages_per_second": 1001 }),
        ),
        ("limits.daily_reach", json!({ "daily_reach": 0 })),
        ("limits.daily_reach", json!({ "daily_reach": -1 })),
        (
            "limits.warm_up.started_on",
            json!({ "warm_up": { "started_on": "yesterday", "first_day": 1, "growth": 2 } }),
        ),
        (
            "limits.warm_up.first_day",
            json!({ "warm_up": { "started_on": "2026-11-21", "first_day": 0, "growth": 2 } }),
        ),
        (
            "limits.warm_up.growth",
            json!({ "warm_up": { "started_on": "2026-11-21", "first_day": 1, "growth": 0.5 } }),
        ),
    ] {
        let body = json!({ "limits": limits });
        let answer = app.patch(org.owner(), &channel, &body).await.expect(400);
        assert_eq!(answer["error"]["field"], field, "{answer}");
    }
    app.patch(org.owner(), &channel, &json!({}))
        .await
        .expect(400);

    let sent = ask(&app, &org, EGYPTIAN, "service").await.expect(202);
    let contact = format!("/v1/contacts/{}", sent["contact_id"].as_str().unwrap());
    for zone in ["Cairo", "+02:00", ""] {
        let body = json!({ "timezone": zone });
        let answer = app.patch(org.owner(), &contact, &body).await.expect(400);
        assert_eq!(answer["error"]["field"], "timezone", "{zone}");
    }
    let body = json!({ "timezone": null });
    let shown = app.patch(org.owner(), &contact, &body).await.expect(200);
    assert_eq!(shown["timezone"], Value::Null);
    let viewer = &org.people.viewer_token;
    app.patch(viewer, &contact, &body).await.expect(403);

    let answer = ask(&app, &org, EGYPTIAN, "news").await.expect(400);
    assert_eq!(answer["error"]["field"], "category");
}

/// A message by the API, and the same in its thread.
async fn shown(app: &TestApp, org: &Org, message: &Value) -> (Value, Value) {
    let id = message["id"].as_str().unwrap();
    let alone = app
        .get(org.owner(), &format!("/v1/messages/{id}"))
        .await
        .expect(200);
    let thread = format!(
        "/v1/conversations/{}/messages",
        message["conversation_id"].as_str().unwrap()
    );
    let thread = app.get(org.owner(), &thread).await.expect(200);
    let in_thread = thread["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|other| other["id"] == id)
        .unwrap();
    (alone, in_thread.clone())
}

#[tokio::test]
async fn a_message_that_waits_says_why_in_the_organisations_language() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    set_status(&app, &org, org.sms, "paused").await;
    let sent = ask(&app, &org, EGYPTIAN, "utility").await.expect(202);
    assert_eq!(sent["category"], "utility");
    assert_eq!(sent["hold"], Value::Null);
    let (alone, in_thread) = shown(&app, &org, &sent).await;
    assert_eq!(alone["category"], "utility");
    assert_eq!(alone["hold"]["reason"], "channel_paused", "{alone}");
    assert_eq!(alone["hold"]["until"], Value::Null);
    let words = alone["hold"]["message"].as_str().unwrap();
    assert!(words.contains("القناة متوقفة"), "{words}");
    assert_eq!(in_thread["hold"], alone["hold"]);

    let breaker = format!(
        "INSERT INTO channel_pace (org_id, channel_id, hold_until, hold_reason, strikes)
         VALUES ('{}', '{}', now() + interval '1 hour', '130429', 2)
         ON CONFLICT (org_id, channel_id) DO UPDATE SET hold_until = excluded.hold_until,
             hold_reason = excluded.hold_reason, strikes = excluded.strikes",
        org.id, org.sms
    );
    sqlx::query(AssertSqlSafe(breaker))
        .execute(&app.owner)
        .await
        .unwrap();
    let pace = format!("/v1/channels/{}/pace", org.sms);
    let pace = app.get(org.agent(), &pace).await.expect(200);
    assert_eq!(pace["circuit_breaker"]["reason"], "130429", "{pace}");
    assert_eq!(pace["circuit_breaker"]["strikes"], 2);
    assert_eq!(pace["backlog"], 1);
    set_status(&app, &org, org.sms, "active").await;
}

/// Quiet hours around this moment, in Cairo.
fn quiet_now() -> Value {
    let local = Utc::now().with_timezone(&chrono_tz::Africa::Cairo);
    let clock = |at: DateTime<chrono_tz::Tz>| at.format("%H:%M").to_string();
    let (from, to) = (local - TimeDelta::hours(2), local + TimeDelta::hours(3));
    json!({ "quiet_hours": { "from": clock(from), "to": clock(to) } })
}

#[tokio::test]
async fn a_campaign_in_the_night_waits_says_until_when_and_leaves_when_the_rule_is_lifted() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    set_policy(&app, &org, quiet_now()).await;
    let asked_at = Utc::now();
    let held = ask(&app, &org, EGYPTIAN, "marketing").await.expect(202);
    let waiting = app
        .wait_message(org.owner(), held["id"].as_str().unwrap(), |m| {
            m["hold"]["reason"] == "quiet_hours"
        })
        .await;
    let until: DateTime<Utc> = waiting["hold"]["until"].as_str().unwrap().parse().unwrap();
    let wait = until - asked_at;
    assert!(
        wait > TimeDelta::hours(2) && wait < TimeDelta::hours(3) + SCATTER,
        "{wait}"
    );
    assert_eq!(waiting["status"], "queued", "{waiting}");
    let event = waiting["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["event"] == "held")
        .expect("the timeline tells");
    assert_eq!(event["hold"]["reason"], "quiet_hours", "{event}");
    assert!(event["hold"]["until"].is_string(), "{event}");
    assert!(event["hold"]["message"].as_str().unwrap().contains("هدوء"));
    // An answer to the same person does not wait behind it.
    let answer = ask(&app, &org, EGYPTIAN, "service").await.expect(202);
    app.wait_status(org.owner(), answer["id"].as_str().unwrap(), "delivered")
        .await;
    set_policy(&app, &org, json!({})).await;
    let sent = app
        .wait_status(org.owner(), held["id"].as_str().unwrap(), "delivered")
        .await;
    assert_eq!(sent["hold"], Value::Null);
    assert!(app.world().double_sends().is_empty());
}

#[tokio::test]
async fn the_third_campaign_of_a_day_waits_until_the_cap_allows_it() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let cap = |messages: u32| json!({ "frequency_cap": { "messages": messages, "per_hours": 24 } });
    set_policy(&app, &org, cap(2)).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let sent = ask(&app, &org, EGYPTIAN, "marketing").await.expect(202);
        ids.push(sent["id"].as_str().unwrap().to_owned());
    }
    for id in &ids[..2] {
        app.wait_status(org.owner(), id, "delivered").await;
    }
    let waiting = app
        .wait_message(org.owner(), &ids[2], |m| {
            m["hold"]["reason"] == "frequency_cap"
        })
        .await;
    let until: DateTime<Utc> = waiting["hold"]["until"].as_str().unwrap().parse().unwrap();
    assert!(until > Utc::now() + TimeDelta::hours(23), "{until}");
    set_policy(&app, &org, cap(3)).await;
    app.wait_status(org.owner(), &ids[2], "delivered").await;
}

#[tokio::test]
async fn a_number_reaches_its_people_of_the_day_and_the_rest_when_its_limit_rises() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    set_limits(&app, &org, org.whatsapp, json!({ "daily_reach": 2 })).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let sent = ask_template(&app, &org, &format!("+20100123450{n}")).await;
        ids.push(sent.expect(202)["id"].as_str().unwrap().to_owned());
    }
    app.wait_count(
        "SELECT count(*) FROM messages WHERE status = 'delivered'",
        2,
    )
    .await;
    app.wait_count(
        "SELECT count(*) FROM outbox WHERE hold_reason = 'daily_reach' AND due_at > now() + interval '23 hours'",
        3,
    )
    .await;
    let pace = format!("/v1/channels/{}/pace", org.whatsapp);
    let pace = app.get(org.owner(), &pace).await.expect(200);
    assert_eq!(pace["reach"][0]["people"], 2, "{pace}");
    assert_eq!(pace["reach"][0]["used"], 2, "{pace}");
    set_limits(&app, &org, org.whatsapp, json!({ "daily_reach": 250 })).await;
    for id in &ids {
        app.wait_status(org.owner(), id, "delivered").await;
    }
}

#[tokio::test]
async fn who_opts_out_while_a_message_waits_does_not_get_it() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    set_status(&app, &org, org.sms, "paused").await;
    let selling = ask(&app, &org, EGYPTIAN, "marketing").await.expect(202);
    let serving = ask(&app, &org, EGYPTIAN, "service").await.expect(202);
    let contact = selling["contact_id"].as_str().unwrap();
    let no = json!({ "state": "opted_out", "category": "marketing" });
    app.post(
        org.owner(),
        &format!("/v1/contacts/{contact}/consents"),
        &no,
    )
    .await
    .expect(201);
    set_status(&app, &org, org.sms, "active").await;
    let failed = app
        .wait_status(org.owner(), selling["id"].as_str().unwrap(), "failed")
        .await;
    assert_eq!(failed["error_code"], "opted_out", "{failed}");
    app.wait_status(org.owner(), serving["id"].as_str().unwrap(), "delivered")
        .await;
    // Our own refusal is no word of theirs.
    assert_eq!(app.count("SELECT count(*) FROM consents").await, 1);
}
