//! Linked phones by the API. The node that would run the sessions is played with SQL: [`Player`] holds their leases,
//! shows codes in their rows and answers what is asked of them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinHandle;
use uuid::Uuid;
use wasel_domain::OrgId;
use wasel_server::http::v1::sessions::commands::{self, Command};
use wasel_server::linked_phones::qr;
use wasel_testkit::{Answer, Org, TestApp, meta};

const QR_TEXT: &str = "2@reference,noise,identity,secret,1";
const JID: &str = "201001234567:4@s.whatsapp.net";

/// Runs every session of the database. What a session is asked stays readable in `whatsapp_session_commands`.
struct Player(JoinHandle<()>);

impl Drop for Player {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(owner: &PgPool, sql: &str) -> u64 {
    sqlx::query(AssertSqlSafe(sql.to_owned()))
        .execute(owner)
        .await
        .unwrap()
        .rows_affected()
}

impl Player {
    async fn start(app: &TestApp) -> Self {
        // In the same transaction as the row, so that no other node is first.
        run(
            &app.owner,
            "CREATE FUNCTION public.lease_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
             BEGIN
                 INSERT INTO whatsapp_session_leases VALUES (NEW.org_id, NEW.id, gen_random_uuid(), 1, now() + interval '1 hour');
                 RETURN NULL;
             END $$",
        )
        .await;
        run(
            &app.owner,
            "CREATE TRIGGER lease_it AFTER INSERT ON whatsapp_sessions FOR EACH ROW EXECUTE FUNCTION public.lease_it()",
        )
        .await;
        let owner = app.owner.clone();
        Self(tokio::spawn(async move {
            loop {
                play(&owner).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }))
    }
}

async fn play(owner: &PgPool) {
    sqlx::query(
        "UPDATE whatsapp_sessions SET status = 'qr_pending', qr_code = $1, qr_expires_at = now() + interval '1 minute',
             pairing_code = CASE WHEN pair_with_phone IS NOT NULL THEN 'ABCD1234' END
         WHERE should_run AND enabled AND linked_at IS NULL AND stop_reason IS NULL AND qr_code IS NULL",
    )
    .bind(qr::data_url(QR_TEXT).unwrap())
    .execute(owner)
    .await
    .unwrap();
    let waiting: Vec<(Uuid, Uuid, Value)> = sqlx::query_as(
        "UPDATE whatsapp_session_commands SET taken_at = now() WHERE taken_at IS NULL AND command ->> 'command' <> 'typing'
         RETURNING id, session_id, command",
    )
    .fetch_all(owner)
    .await
    .unwrap();
    for (id, session, command) in waiting {
        let (effect, answer) = match command["command"].as_str().unwrap() {
            "log_out" => (
                "status = 'disconnected', should_run = false, linked_at = NULL, phone_number = NULL",
                json!({ "ok": null }),
            ),
            "relink" => (
                "qr_code = NULL, pairing_code = CASE WHEN pair_with_phone IS NOT NULL THEN 'ABCD1234' END, status = 'qr_pending',
                 qr_expires_at = now() + interval '1 minute'",
                json!({ "ok": null }),
            ),
            "passkey_response" => ("passkey_code = 'AAAA-BBBB'", json!({ "ok": null })),
            "passkey_confirm" => (
                "passkey_code = NULL, passkey_request = NULL",
                json!({ "ok": null }),
            ),
            "groups" => (
                "id = id",
                json!({ "ok": { "groups": [{ "jid": "1203@g.us", "subject": "الفريق", "participants": [] }] } }),
            ),
            "create_group" if command["subject"] == "refused" => (
                "id = id",
                json!({ "error": { "code": "not_connected", "message": "the phone is not connected" } }),
            ),
            "create_group" => (
                "id = id",
                json!({ "ok": { "jid": "1204@g.us", "subject": command["subject"], "participants": [] } }),
            ),
            other => panic!("nobody asks for {other}"),
        };
        run(
            owner,
            &format!("UPDATE whatsapp_sessions SET {effect} WHERE id = '{session}'"),
        )
        .await;
        sqlx::query(
            "UPDATE whatsapp_session_commands SET answered_at = now(), answer = $2 WHERE id = $1",
        )
        .bind(id)
        .bind(answer)
        .execute(owner)
        .await
        .unwrap();
    }
}

/// As if the phone had scanned the code.
async fn connect(app: &TestApp, org: &Org) {
    let done = run(
        &app.owner,
        &format!(
            "UPDATE whatsapp_sessions SET status = 'connected', phone_number = '+201001234567', whatsapp_id = '{JID}',
                 display_name = 'Shop', linked_at = now(), last_connected_at = now(), qr_code = NULL, qr_expires_at = NULL,
                 pairing_code = NULL WHERE org_id = '{}'",
            org.id
        ),
    )
    .await;
    assert_eq!(done, 1);
}

async fn asked(app: &TestApp) -> Vec<Value> {
    sqlx::query_scalar("SELECT command FROM whatsapp_session_commands ORDER BY id")
        .fetch_all(&app.owner)
        .await
        .unwrap()
}

async fn init(app: &TestApp, org: &Org, body: Value) -> Answer {
    app.post(org.owner(), "/api/sessions/init", &body).await
}

/// A session made by `/v1`.
async fn create(app: &TestApp, org: &Org, name: &str) -> Value {
    app.post(org.owner(), "/v1/sessions", &json!({ "name": name }))
        .await
        .expect(201)
}

fn path(session: &Value, more: &str) -> String {
    format!("/v1/sessions/{}{more}", session["id"].as_str().unwrap())
}

#[tokio::test]
async fn init_makes_the_session_once_and_answers_with_a_code_to_scan() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _player = Player::start(&app).await;
    let status = format!("/api/sessions/{}/status", org.id);
    let never = app.get(org.owner(), &status).await.expect(200);
    assert_eq!(
        (&never["success"], &never["status"]),
        (&json!(true), &json!("disconnected"))
    );
    let qr = format!("/api/sessions/{}/qr", org.id);
    let none = app.get(org.owner(), &qr).await.expect(404);
    assert_eq!(none["success"], false);
    assert!(none["error"].is_string(), "{none}");

    let first = init(&app, &org, json!({ "org_id": org.id }))
        .await
        .expect(200);
    assert_eq!(
        (&first["success"], &first["status"]),
        (&json!(true), &json!("qr_pending"))
    );
    let code = first["qr_code"].as_str().unwrap();
    assert_eq!(qr::text_of(code).as_deref(), Some(QR_TEXT));
    assert!(first.get("pairing_code").is_none(), "{first}");
    let again = init(&app, &org, json!({ "org_id": org.id }))
        .await
        .expect(200);
    assert_eq!(again["session_id"], first["session_id"]);
    assert_eq!(
        app.count(
            "SELECT count(*) FROM channels WHERE kind = 'whatsapp_web' AND name = 'WhatsApp'"
        )
        .await,
        1
    );

    let shown = app.get(&org.people.viewer_token, &qr).await.expect(200);
    assert_eq!(
        (&shown["qr_code"], &shown["status"]),
        (&first["qr_code"], &json!("qr_pending"))
    );
    assert!(shown["expires_at"].is_string(), "{shown}");
    connect(&app, &org).await;
    app.get(org.owner(), &qr).await.expect(404);
    let connected = app.get(org.agent(), &status).await.expect(200);
    assert_eq!(
        (
            &connected["status"],
            &connected["phone_number"],
            &connected["display_name"]
        ),
        (&json!("connected"), &json!("+201001234567"), &json!("Shop"))
    );
    assert!(connected["last_connected_at"].is_string(), "{connected}");
    let third = init(&app, &org, json!({})).await.expect(200);
    assert_eq!(
        (&third["status"], &third["qr_code"]),
        (&json!("connected"), &Value::Null)
    );
    assert_eq!(asked(&app).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_phone_number_gives_a_pairing_code_also_while_a_qr_code_is_shown() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let _player = Player::start(&app).await;
    // As Egyptians write it.
    let body = json!({ "org_id": a.id, "phone_number": "0100 123 4567" });
    let answer = init(&app, &a, body).await.expect(200);
    assert_eq!(
        (&answer["status"], &answer["pairing_code"]),
        (&json!("qr_pending"), &json!("ABCD1234"))
    );
    let wanted: String =
        sqlx::query_scalar("SELECT pair_with_phone FROM whatsapp_sessions WHERE org_id = $1")
            .bind(a.id)
            .fetch_one(&app.owner)
            .await
            .unwrap();
    assert_eq!(wanted, "+201001234567");
    assert_eq!(asked(&app).await, Vec::<Value>::new());

    init(&app, &b, json!({ "org_id": b.id })).await.expect(200);
    let body = json!({ "org_id": b.id, "phone_number": "+201001234568" });
    let answer = init(&app, &b, body.clone()).await.expect(200);
    assert_eq!(answer["pairing_code"], "ABCD1234");
    let answer = init(&app, &b, body).await.expect(200);
    assert_eq!(answer["pairing_code"], "ABCD1234");
    assert_eq!(
        asked(&app).await,
        [json!({ "command": "relink" })],
        "asked once"
    );
    let body = json!({ "org_id": b.id, "phone_number": "12" });
    let refused = init(&app, &b, body).await.expect(400);
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .starts_with("phone_number: "),
        "{refused}"
    );
}

#[tokio::test]
async fn owners_and_admins_link_members_look_and_others_see_nothing() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let _player = Player::start(&app).await;
    for token in [a.agent(), &a.people.viewer_token] {
        app.post(token, "/api/sessions/init", &json!({ "org_id": a.id }))
            .await
            .expect(403);
    }
    assert_eq!(app.count("SELECT count(*) FROM whatsapp_sessions").await, 0);
    let service = app
        .state()
        .config
        .auth
        .supabase_service_role_key
        .as_ref()
        .unwrap()
        .expose()
        .to_owned();
    let request = app
        .request(Method::POST, "/api/sessions/init")
        .bearer_auth(&service)
        .header("X-Org-Id", a.id.to_string())
        .json(&json!({ "org_id": a.id }));
    Answer::of(request).await.expect(200);
    let logout = format!("/api/sessions/{}/logout", a.id);
    for token in [a.agent(), &a.people.viewer_token] {
        app.post(token, &logout, &Value::Null).await.expect(403);
    }
    for (method, path) in [
        (Method::GET, "qr"),
        (Method::GET, "status"),
        (Method::POST, "logout"),
    ] {
        let request = app.request(method, &format!("/api/sessions/{}/{path}", a.id));
        let answer = Answer::of(request.bearer_auth(b.owner())).await.expect(404);
        assert_eq!(answer["success"], false);
        let nonsense = app.request(Method::GET, "/api/sessions/nonsense/qr");
        let answer = Answer::of(nonsense.bearer_auth(b.owner()))
            .await
            .expect(404);
        assert_eq!(answer["success"], false);
    }
    init(&app, &b, json!({ "org_id": a.id })).await.expect(404);
    assert_eq!(app.count("SELECT count(*) FROM whatsapp_sessions").await, 1);
}

#[tokio::test]
async fn logging_out_asks_the_session_or_ends_linking() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let logout = format!("/api/sessions/{}/logout", org.id);
    app.post(org.owner(), &logout, &Value::Null)
        .await
        .expect(404);
    let _player = Player::start(&app).await;
    init(&app, &org, json!({})).await.expect(200);
    let done = app
        .post(org.owner(), &logout, &Value::Null)
        .await
        .expect(200);
    assert_eq!(done["success"], true);
    let row: (bool, String, Option<String>) =
        sqlx::query_as("SELECT should_run, status, qr_code FROM whatsapp_sessions")
            .fetch_one(&app.owner)
            .await
            .unwrap();
    assert_eq!(row, (false, "disconnected".to_owned(), None));
    assert_eq!(asked(&app).await, Vec::<Value>::new());

    init(&app, &org, json!({})).await.expect(200);
    connect(&app, &org).await;
    app.post(org.owner(), &logout, &Value::Null)
        .await
        .expect(200);
    assert_eq!(asked(&app).await, [json!({ "command": "log_out" })]);
    assert_eq!(
        app.count("SELECT count(*) FROM whatsapp_sessions WHERE linked_at IS NULL")
            .await,
        1
    );
}

#[tokio::test]
async fn what_nobody_can_carry_out_is_refused_at_once() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    app.apply(
        "[[organizations]]
         slug = 'a'
         name = 'A'
         timezone = 'Africa/Cairo'
         locale = 'ar-EG'
         [[organizations.channels]]
         kind = 'whatsapp_web'
         name = 'Phone'",
    )
    .await;
    // A phone is linked, and no node runs the session.
    run(
        &app.owner,
        "UPDATE whatsapp_sessions SET linked_at = now(), enabled = false",
    )
    .await;
    let list = app.get(org.owner(), "/v1/sessions").await.expect(200);
    let session = &list["data"][0];
    assert_eq!(session["name"], "Phone");
    for (method, more) in [
        (Method::GET, "/groups"),
        (Method::POST, "/logout"),
        (Method::POST, "/groups"),
    ] {
        let request = app
            .request(method, &path(session, more))
            .json(&json!({ "subject": "x", "participants": ["+201001234567"] }));
        let refused = Answer::of(request.bearer_auth(org.owner()))
            .await
            .expect(409);
        assert_eq!(refused["error"]["code"], "not_running", "{more}");
    }
    let deleted = Answer::of(
        app.request(Method::DELETE, &path(session, ""))
            .bearer_auth(org.owner()),
    )
    .await
    .expect(200);
    assert_eq!(deleted["unlinked"], false, "the phone still lists us");
}

#[tokio::test]
async fn a_command_that_nobody_takes_up_is_taken_back() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let player = Player::start(&app).await;
    let session = create(&app, &org, "Phone").await;
    drop(player);
    let id: Uuid = session["id"].as_str().unwrap().parse().unwrap();
    let wait = Duration::from_millis(200);
    let asking = commands::ask(app.state(), OrgId(org.id), id, &Command::Groups, wait);
    let error = asking.await.unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (504, "no_answer"));
    assert_eq!(asked(&app).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_session_is_made_with_its_channel_listed_and_changed() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _player = Player::start(&app).await;
    let body = json!({ "name": "Sales", "history_days": 30, "auto_reconnect": false, "phone_number": "+201001234567" });
    let sales = app
        .post(org.owner(), "/v1/sessions", &body)
        .await
        .expect(201);
    assert_eq!(
        (
            &sales["name"],
            &sales["history_days"],
            &sales["auto_reconnect"],
            &sales["pairing_code"]
        ),
        (
            &json!("Sales"),
            &json!(30),
            &json!(false),
            &json!("ABCD1234")
        )
    );
    let twice = app
        .post(org.owner(), "/v1/sessions", &json!({ "name": " Sales " }))
        .await
        .expect(409);
    assert_eq!(twice["error"]["details"]["id"], sales["id"]);
    let support = create(&app, &org, "Support").await;
    for (body, field) in [
        (json!({}), "name"),
        (json!({ "name": " " }), "name"),
        (json!({ "name": "x".repeat(101) }), "name"),
        (json!({ "name": "x", "history_days": 366 }), "history_days"),
        (json!({ "name": "x", "phone_number": "x" }), "phone_number"),
    ] {
        let refused = app
            .post(org.owner(), "/v1/sessions", &body)
            .await
            .expect(400);
        assert_eq!(refused["error"]["field"], field, "{body}");
    }
    app.post(org.agent(), "/v1/sessions", &json!({ "name": "x" }))
        .await
        .expect(403);

    let first = app
        .get(org.agent(), "/v1/sessions?limit=1")
        .await
        .expect(200);
    assert_eq!(first["data"][0]["id"], support["id"], "the newest first");
    let next = format!(
        "/v1/sessions?limit=1&cursor={}",
        first["next_cursor"].as_str().unwrap()
    );
    let second = app.get(org.agent(), &next).await.expect(200);
    assert_eq!(
        (&second["data"][0]["id"], &second["next_cursor"]),
        (&sales["id"], &Value::Null)
    );

    let changes = json!({ "enabled": false, "auto_reconnect": true, "history_days": 7 });
    let changed = app
        .patch(org.owner(), &path(&sales, ""), &changes)
        .await
        .expect(200);
    assert_eq!(
        (
            &changed["enabled"],
            &changed["auto_reconnect"],
            &changed["history_days"]
        ),
        (&json!(false), &json!(true), &json!(7))
    );
    app.patch(org.agent(), &path(&sales, ""), &changes)
        .await
        .expect(403);
    let linked = app
        .post(org.owner(), &path(&sales, "/link"), &json!({}))
        .await
        .expect(200);
    assert_eq!(
        (&linked["enabled"], &linked["history_days"]),
        (&json!(true), &json!(7)),
        "linking switches it on"
    );
}

#[tokio::test]
async fn what_ended_a_session_is_forgotten_when_it_is_linked_again() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _player = Player::start(&app).await;
    let session = create(&app, &org, "Phone").await;
    run(
        &app.owner,
        "UPDATE whatsapp_sessions SET status = 'error', should_run = false, stop_reason = 'not_linked',
             connection_error = 'no phone scanned a code', qr_code = NULL, qr_expires_at = NULL",
    )
    .await;
    let stopped = app.get(org.owner(), &path(&session, "")).await.expect(200);
    assert_eq!(stopped["stop_reason"], "not_linked");
    let linked = app
        .post(org.owner(), &path(&session, "/link"), &json!({}))
        .await
        .expect(200);
    assert_eq!(
        (
            &linked["status"],
            &linked["stop_reason"],
            &linked["connection_error"]
        ),
        (&json!("qr_pending"), &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn the_qr_code_comes_as_json_with_its_text_or_as_a_picture_until_it_runs_out() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _player = Player::start(&app).await;
    let session = create(&app, &org, "Phone").await;
    let shown = app.get(org.owner(), &path(&session, "/qr")).await;
    assert_eq!(shown.header("cache-control"), "no-store");
    let shown = shown.expect(200);
    assert_eq!(
        (&shown["code"], &shown["status"]),
        (&json!(QR_TEXT), &json!("qr_pending"))
    );
    let picture = app
        .request(Method::GET, &path(&session, "/qr"))
        .bearer_auth(org.owner())
        .header("accept", "image/png")
        .send()
        .await
        .unwrap();
    assert_eq!(picture.headers()["content-type"], "image/png");
    let picture = picture.bytes().await.unwrap();
    assert_eq!(
        Some(picture.as_ref()),
        qr::png_of(shown["qr_code"].as_str().unwrap()).as_deref()
    );
    run(
        &app.owner,
        "UPDATE whatsapp_sessions SET qr_expires_at = now() - interval '1 second'",
    )
    .await;
    let gone = app
        .get(org.owner(), &path(&session, "/qr"))
        .await
        .expect(404);
    assert_eq!(gone["error"]["code"], "no_qr_code");
}

#[tokio::test]
async fn a_passkey_goes_to_the_session_and_its_code_is_confirmed() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _player = Player::start(&app).await;
    let session = create(&app, &org, "Phone").await;
    let assertion = json!({ "id": "a", "rawId": "a", "type": "public-key",
        "response": { "clientDataJSON": "x", "authenticatorData": "y", "signature": "z" } });
    let passkey = path(&session, "/passkey");
    let confirm = path(&session, "/passkey/confirm");
    let body = json!({ "assertion": assertion });
    for (path, body) in [(&passkey, &body), (&confirm, &Value::Null)] {
        let early = app.post(org.owner(), path, body).await.expect(409);
        assert_eq!(early["error"]["code"], "no_passkey_asked", "{path}");
    }
    run(
        &app.owner,
        r#"UPDATE whatsapp_sessions SET passkey_request = '{"challenge": "c"}'"#,
    )
    .await;
    let seen = app.get(org.owner(), &path(&session, "")).await.expect(200);
    assert_eq!(seen["passkey_request"], json!({ "challenge": "c" }));
    let mut unsigned = body.clone();
    unsigned["assertion"]["response"]
        .as_object_mut()
        .unwrap()
        .remove("signature");
    let refused = app.post(org.owner(), &passkey, &unsigned).await.expect(400);
    assert_eq!(refused["error"]["field"], "assertion.response.signature");
    app.post(org.agent(), &passkey, &body).await.expect(403);
    app.post(org.owner(), &passkey, &body).await.expect(200);
    let seen = app.get(org.owner(), &path(&session, "")).await.expect(200);
    assert_eq!(seen["passkey_code"], "AAAA-BBBB");
    app.post(org.owner(), &confirm, &Value::Null)
        .await
        .expect(200);
    let asked = asked(&app).await;
    assert_eq!(
        asked[0],
        json!({ "command": "passkey_response", "assertion": assertion })
    );
    assert_eq!(asked[1], json!({ "command": "passkey_confirm" }));
}

#[tokio::test]
async fn groups_are_listed_and_made_by_the_session() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _player = Player::start(&app).await;
    let session = create(&app, &org, "Phone").await;
    let groups = path(&session, "/groups");
    let list = app.get(org.agent(), &groups).await.expect(200);
    assert_eq!(
        (&list["data"][0]["subject"], &list["next_cursor"]),
        (&json!("الفريق"), &Value::Null)
    );
    let body = json!({ "subject": " Team ", "participants": ["01001234568", "77@lid"] });
    let made = app.post(org.owner(), &groups, &body).await.expect(201);
    assert_eq!(made["jid"], "1204@g.us");
    assert_eq!(
        asked(&app).await[1],
        json!({ "command": "create_group", "subject": "Team", "participants": [{ "phone": "+201001234568" }, { "lid": "77@lid" }] })
    );
    for (body, field) in [
        (
            json!({ "subject": "", "participants": ["77@lid"] }),
            "subject",
        ),
        (
            json!({ "subject": "x", "participants": [] }),
            "participants",
        ),
        (
            json!({ "subject": "x", "participants": ["77@lid", "x@lid"] }),
            "participants[1]",
        ),
    ] {
        let refused = app.post(org.owner(), &groups, &body).await.expect(400);
        assert_eq!(refused["error"]["field"], field);
    }
    let body = json!({ "subject": "refused", "participants": ["77@lid"] });
    let refused = app.post(org.owner(), &groups, &body).await.expect(422);
    assert_eq!(
        refused["error"],
        json!({ "code": "session_refused", "message": "the phone is not connected", "details": { "code": "not_connected" } })
    );
    app.post(org.agent(), &groups, &body).await.expect(403);
}

#[tokio::test]
async fn deleting_a_session_wipes_its_state_and_blocks_its_channel_until_one_is_linked_again() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _player = Player::start(&app).await;
    let session = create(&app, &org, "Phone").await;
    connect(&app, &org).await;
    run(
        &app.owner,
        "INSERT INTO whatsapp_session_keys (org_id, session_id, kind, key, sealed)
         SELECT org_id, id, 1, '\\x00', '\\x00' FROM whatsapp_sessions",
    )
    .await;
    let delete = |token: &str| {
        app.request(Method::DELETE, &path(&session, ""))
            .bearer_auth(token)
    };
    Answer::of(delete(org.agent())).await.expect(403);
    let deleted = Answer::of(delete(org.owner())).await.expect(200);
    assert_eq!(deleted["unlinked"], true);
    Answer::of(delete(org.owner())).await.expect(404);
    for table in [
        "whatsapp_sessions",
        "whatsapp_session_keys",
        "whatsapp_session_leases",
        "whatsapp_session_commands",
    ] {
        let sql = format!("SELECT count(*) FROM {table}");
        assert_eq!(app.count(&sql).await, 0, "{table}");
    }
    let channel = format!("/v1/channels/{}", session["channel_id"].as_str().unwrap());
    let blocked = app.get(org.owner(), &channel).await.expect(200);
    assert_eq!(
        (&blocked["status"], &blocked["webhook_url"]),
        (&json!("blocked"), &Value::Null)
    );
    let again = create(&app, &org, "Phone").await;
    assert_eq!(again["channel_id"], session["channel_id"]);
    assert_ne!(again["id"], session["id"]);
    let open = app.get(org.owner(), &channel).await.expect(200);
    assert_eq!(
        (&open["status"], &open["status_reason"]),
        (&json!("active"), &Value::Null)
    );
}

#[tokio::test]
async fn an_imported_session_gets_its_channel_when_it_is_linked() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let _player = Player::start(&app).await;
    // As `wasel import` leaves them.
    for org in [&a, &b] {
        run(
            &app.owner,
            &format!(
                "INSERT INTO whatsapp_sessions (org_id, phone_number, connection_error, auto_reconnect, enabled)
                 VALUES ('{}', '+201012345678', 'imported: link this phone again', false, false)",
                org.id
            ),
        )
        .await;
    }
    let list = app.get(a.owner(), "/v1/sessions").await.expect(200);
    let old = &list["data"][0];
    assert_eq!(
        (&old["channel_id"], &old["status"]),
        (&Value::Null, &json!("disconnected"))
    );
    let started = init(&app, &a, json!({ "org_id": a.id })).await.expect(200);
    assert_eq!(
        (&started["session_id"], &started["status"]),
        (&old["id"], &json!("qr_pending"))
    );
    let now = app.get(a.owner(), &path(old, "")).await.expect(200);
    assert_eq!(
        (
            &now["name"],
            &now["enabled"],
            &now["auto_reconnect"],
            &now["connection_error"]
        ),
        (&json!("WhatsApp"), &json!(true), &json!(true), &Value::Null)
    );
    let list = app.get(b.owner(), "/v1/sessions").await.expect(200);
    let linked = app
        .post(b.owner(), &path(&list["data"][0], "/link"), &json!({}))
        .await
        .expect(200);
    assert_eq!(linked["name"], "WhatsApp");
    assert_eq!(app.count("SELECT count(*) FROM whatsapp_sessions").await, 2);
}

#[tokio::test]
async fn a_declared_linked_phone_has_a_session_and_nothing_else_to_declare() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let declaration = "[[organizations]]
         slug = 'a'
         name = 'A'
         timezone = 'Africa/Cairo'
         locale = 'ar-EG'
         [[organizations.channels]]
         kind = 'whatsapp_web'
         name = 'Phone'";
    let first = app.apply(declaration).await;
    let channel = &first.organizations[0].channels[0];
    assert_eq!(
        serde_json::to_value(channel).unwrap(),
        json!({ "id": channel.id, "kind": "whatsapp_web", "name": "Phone", "webhook_url": null })
    );
    let second = app.apply(declaration).await;
    assert_eq!(second.organizations[0].channels[0].id, channel.id);
    let row: (Uuid, bool, String) =
        sqlx::query_as("SELECT channel_id, should_run, status FROM whatsapp_sessions")
            .fetch_one(&app.owner)
            .await
            .unwrap();
    assert_eq!(row, (channel.id, false, "disconnected".to_owned()));
    let list = app.get(org.owner(), "/v1/channels").await.expect(200);
    let shown = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|shown| shown["name"] == "Phone")
        .unwrap();
    assert_eq!(shown["webhook_url"], Value::Null);
    let wrong = format!("{declaration}\naccess_token = 'x'");
    let wrong = toml::from_str(&wrong).unwrap();
    let foundation = app.foundation();
    let error = wasel_server::cli::apply::apply(&foundation, &wrong)
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("access_token: is no key of a whatsapp_web channel"),
        "{error:#}"
    );
}

#[tokio::test]
async fn typing_is_handed_to_the_session_of_the_conversations_channel() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _player = Player::start(&app).await;
    let session = create(&app, &org, "Phone").await;
    let text = meta::text("201001234567", "wamid.1", "hello");
    app.meta_webhook(&org, &meta::change(&org.phone_number_id, text))
        .await
        .expect(200);
    let conversation = org.conversation(&app).await;
    let typing = format!(
        "/v1/conversations/{}/typing",
        conversation["id"].as_str().unwrap()
    );
    let refused = app.post(org.agent(), &typing, &json!({})).await.expect(422);
    assert_eq!(refused["error"]["code"], "not_supported");
    run(
        &app.owner,
        &format!(
            "UPDATE conversations SET channel_id = '{}'",
            session["channel_id"].as_str().unwrap()
        ),
    )
    .await;
    app.post(org.agent(), &typing, &json!({})).await.expect(202);
    let body = json!({ "typing": false, "recording": true });
    app.post(org.agent(), &typing, &body).await.expect(202);
    app.post(&org.people.viewer_token, &typing, &json!({}))
        .await
        .expect(403);
    assert_eq!(
        asked(&app).await,
        [
            json!({ "command": "typing", "to": { "phone": "+201001234567" }, "typing": true, "recording": false }),
            json!({ "command": "typing", "to": { "phone": "+201001234567" }, "typing": false, "recording": true }),
        ]
    );
}

#[tokio::test]
async fn an_agent_limited_to_other_channels_does_not_see_the_session() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _player = Player::start(&app).await;
    let session = create(&app, &org, "Phone").await;
    sqlx::query("INSERT INTO channel_members (org_id, channel_id, user_id) VALUES ($1, $2, $3)")
        .bind(org.id)
        .bind(org.sms)
        .bind(org.people.agent)
        .execute(&app.owner)
        .await
        .unwrap();
    let list = app.get(org.agent(), "/v1/sessions").await.expect(200);
    assert_eq!(list["data"], json!([]));
    for more in ["", "/qr", "/groups"] {
        app.get(org.agent(), &path(&session, more))
            .await
            .expect(404);
    }
    let qr = format!("/api/sessions/{}/qr", org.id);
    app.get(org.agent(), &qr).await.expect(404);
}
