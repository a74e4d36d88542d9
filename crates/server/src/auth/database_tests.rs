//! Sign-in and callers over a real database. Each test makes its own people and tenants.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, HeaderValue, Request};
use serde_json::{Value, json};
use sqlx::postgres::PgPool;
use tower::ServiceExt;
use uuid::Uuid;
use wasel_db::identity::{self, NewUser};
use wasel_db::organizations::{self, Organization};
use wasel_db::profiles::{self, Profile};
use wasel_db::{Db, PoolSizes};
use wasel_domain::{OrgId, UserId};
use wasel_testkit::TestDb;

use super::test_support::tokens;
use super::*;

struct World {
    auth: AuthContext,
    app: Router,
    /// As the schema's owner, to arrange what no verb does.
    owner: PgPool,
    /// Goes away last.
    _database: TestDb,
}

impl World {
    async fn new() -> Self {
        let database = TestDb::new().await;
        let options = database.options();
        let owner = PgPool::connect_with(options.clone()).await.unwrap();
        let auth = AuthContext::new(
            Db::new(options, PoolSizes::default()),
            Arc::new(tokens(None)),
        );
        let (router, _) = crate::http::auth_v1::router::<AuthContext>().split_for_parts();
        Self {
            app: router.with_state(auth.clone()),
            auth,
            owner,
            _database: database,
        }
    }

    async fn org(&self) -> OrgId {
        let id = Uuid::now_v7();
        let organization = Organization {
            id,
            slug: format!("org-{id}"),
            name: "Test".to_owned(),
            timezone: "UTC".to_owned(),
            locale: "en".to_owned(),
            region: None,
        };
        let mut tx = self.auth.db.system().await.unwrap();
        let id = organizations::upsert(&mut tx, &organization).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// A person with a password and these memberships.
    async fn person(&self, password: &str, memberships: &[(OrgId, &str)]) -> (UserId, String) {
        let id = UserId::generate();
        let email = format!("P-{id}@Example.Test");
        let password_hash = password::hash(password).await.unwrap();
        let mut tx = self.auth.db.system().await.unwrap();
        let new = NewUser {
            id,
            email: email.clone(),
            password_hash,
            full_name: Some("سارة".to_owned()),
            phone: None,
        };
        identity::insert_user(&mut tx, &new).await.unwrap();
        for (org, role) in memberships {
            let profile = Profile {
                org_id: org.0,
                id: id.0,
                email: Some(email.clone()),
                full_name: None,
                phone: None,
                role: (*role).to_owned(),
            };
            profiles::upsert(&mut tx, &profile).await.unwrap();
        }
        tx.commit().await.unwrap();
        (id, email)
    }

    async fn call(&self, request: Request<Body>) -> (u16, Value) {
        let answer = self.app.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 100_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn sign_in(&self, email: &str, password: &str) -> (u16, Value) {
        self.sign_in_to(email, password, None).await
    }

    async fn sign_in_to(&self, email: &str, password: &str, org: Option<OrgId>) -> (u16, Value) {
        let mut request = Request::post("/auth/v1/token?grant_type=password");
        if let Some(org) = org {
            request = request.header("x-org-id", org.to_string());
        }
        let body = json!({ "email": email, "password": password, "gotrue_meta_security": {} });
        self.call(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    async fn refresh(&self, token: &Value) -> (u16, Value) {
        let body = json!({ "refresh_token": token }).to_string();
        self.call(
            Request::post("/auth/v1/token?grant_type=refresh_token")
                .body(Body::from(body))
                .unwrap(),
        )
        .await
    }

    async fn user(&self, session: &Value) -> (u16, Value) {
        self.call(
            Request::get("/auth/v1/user")
                .header("authorization", bearer_of(session))
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    async fn log_out(&self, session: &Value, query: &str) -> u16 {
        let path = format!("/auth/v1/logout{query}");
        let request = Request::post(path)
            .header("authorization", bearer_of(session))
            .body(Body::empty())
            .unwrap();
        self.call(request).await.0
    }

    async fn caller(
        &self,
        authorization: &str,
        org: Option<OrgId>,
    ) -> Result<Caller, (u16, &'static str)> {
        let mut headers = HeaderMap::new();
        headers.insert(
            "authorization",
            HeaderValue::from_str(authorization).unwrap(),
        );
        if let Some(org) = org {
            headers.insert("x-org-id", HeaderValue::from_str(&org.to_string()).unwrap());
        }
        resolve(&self.auth, &headers)
            .await
            .map_err(|error| (error.status.as_u16(), error.code))
    }

    async fn age_used_tokens(&self, user: UserId, seconds: i32) {
        sqlx::query(
            "UPDATE wasel.refresh_tokens t SET used_at = used_at - make_interval(secs => $2)
             FROM wasel.auth_sessions s WHERE s.id = t.session_id AND s.user_id = $1",
        )
        .bind(user.0)
        .bind(f64::from(seconds))
        .execute(&self.owner)
        .await
        .unwrap();
    }
}

fn bearer_of(session: &Value) -> String {
    format!("Bearer {}", session["access_token"].as_str().unwrap())
}

/// Of [`crate::auth::Lifetimes::default`].
const REUSE_WINDOW_SECONDS: i32 = 10;

#[tokio::test]
async fn signing_in_answers_with_the_session_supabase_js_expects() {
    let world = World::new().await;
    let org = world.org().await;
    let (id, email) = world.person("كلمة السر 🔑", &[(org, "owner")]).await;

    let (status, session) = world
        .sign_in(&format!(" {} ", email.to_uppercase()), "كلمة السر 🔑")
        .await;
    assert_eq!(status, 200, "{session}");
    assert_eq!(session["token_type"], "bearer");
    assert_eq!(session["expires_in"], 3600);
    assert!(session["expires_at"].as_i64().unwrap() > chrono::Utc::now().timestamp() + 3500);
    assert!(session["refresh_token"].as_str().unwrap().len() >= 40);
    let user = &session["user"];
    assert_eq!(user["id"], json!(id));
    assert_eq!(user["email"], json!(email));
    assert_eq!(user["aud"], "authenticated");
    assert_eq!(user["role"], "authenticated");
    assert_eq!(user["app_metadata"]["org_id"], json!(org));
    assert_eq!(user["user_metadata"]["full_name"], "سارة");
    assert_eq!(user["identities"], json!([]));
    assert!(user["last_sign_in_at"].is_string());
    assert!(user["email_confirmed_at"].is_string());

    let (status, same) = world.user(&session).await;
    assert_eq!((status, &same), (200, user));
    let caller = world.caller(&bearer_of(&session), None).await.unwrap();
    assert_eq!(
        (caller.org_id, caller.user_id, caller.role),
        (org, Some(id), Role::Owner)
    );
    assert_eq!(
        (caller.kind, caller.email.as_deref()),
        (CallerKind::User, Some(email.as_str()))
    );
    assert!(caller.token_expires_at.is_some());
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_look_the_same() {
    let world = World::new().await;
    let (_, email) = world.person("right", &[]).await;
    let wrong = world.sign_in(&email, "wrong").await;
    assert_eq!(
        wrong,
        (
            400,
            json!({ "code": "invalid_credentials", "message": "Invalid login credentials" })
        )
    );
    let unknown = format!("{}@example.test", Uuid::now_v7());
    assert_eq!(world.sign_in(&unknown, "wrong").await, wrong);
    assert_eq!(world.sign_in(&unknown, "nobody's password").await, wrong);
    assert_eq!(world.sign_in(&format!("{email}\0"), "right").await, wrong);
    assert_eq!(world.sign_in(&email, "").await, wrong);
    assert_eq!(world.sign_in(&email, "right").await.0, 200);
}

#[tokio::test]
async fn ten_failures_close_the_door_even_to_the_right_password() {
    let world = World::new().await;
    let (_, email) = world.person("right", &[]).await;
    let guesses =
        futures_util::future::join_all((0..12).map(|_| world.sign_in(&email, "wrong"))).await;
    let refused = guesses.iter().filter(|(status, _)| *status == 429).count();
    assert_eq!(refused, 2, "{guesses:?}");
    let (status, body) = world.sign_in(&email, "right").await;
    assert_eq!(
        (status, &body["code"]),
        (429, &json!("over_request_rate_limit"))
    );
    // From elsewhere the person still gets in.
    let body = json!({ "email": email, "password": "right" }).to_string();
    let mut request = Request::post("/auth/v1/token?grant_type=password")
        .body(Body::from(body))
        .unwrap();
    request
        .extensions_mut()
        .insert(ClientIp(Ipv4Addr::new(192, 0, 2, 7).into()));
    assert_eq!(world.call(request).await.0, 200);
}

#[tokio::test]
async fn a_refresh_token_is_used_once_and_two_tabs_at_once_both_stay_signed_in() {
    let world = World::new().await;
    let org = world.org().await;
    let (_, email) = world.person("right", &[(org, "agent")]).await;
    let (_, session) = world.sign_in(&email, "right").await;
    let first = &session["refresh_token"];

    let ((a, one), (b, two)) = tokio::join!(world.refresh(first), world.refresh(first));
    assert_eq!((a, b), (200, 200), "{one} {two}");
    assert_ne!(one["refresh_token"], two["refresh_token"]);
    assert_ne!(&one["refresh_token"], first);
    assert_eq!(one["user"]["app_metadata"]["org_id"], json!(org));
    for tab in [&one, &two] {
        assert_eq!(world.user(tab).await.0, 200);
        assert_eq!(world.refresh(&tab["refresh_token"]).await.0, 200);
    }
    let (status, body) = world.refresh(&json!("made up")).await;
    assert_eq!(
        (status, &body["code"]),
        (400, &json!("refresh_token_not_found"))
    );
}

#[tokio::test]
async fn a_refresh_token_that_comes_back_later_ends_its_session_and_no_other() {
    let world = World::new().await;
    let (id, email) = world.person("right", &[]).await;
    let (_, stolen) = world.sign_in(&email, "right").await;
    let (_, other) = world.sign_in(&email, "right").await;
    let (_, next) = world.refresh(&stolen["refresh_token"]).await;

    world.age_used_tokens(id, REUSE_WINDOW_SECONDS - 3).await;
    assert_eq!(
        world.refresh(&stolen["refresh_token"]).await.0,
        200,
        "still in the window"
    );
    world.age_used_tokens(id, 4).await;
    for _ in 0..2 {
        let (status, body) = world.refresh(&stolen["refresh_token"]).await;
        assert_eq!(
            (status, &body["code"]),
            (400, &json!("refresh_token_already_used"))
        );
    }
    let (status, body) = world.refresh(&next["refresh_token"]).await;
    assert_eq!(
        (status, &body["code"]),
        (400, &json!("refresh_token_not_found")),
        "the thief's or the victim's"
    );
    let (status, body) = world.user(&next).await;
    assert_eq!((status, &body["code"]), (403, &json!("session_not_found")));
    assert_eq!(world.refresh(&other["refresh_token"]).await.0, 200);
}

#[tokio::test]
async fn logging_out_ends_what_its_scope_says() {
    let world = World::new().await;
    let (_, email) = world.person("right", &[]).await;
    let sign_in = async || world.sign_in(&email, "right").await.1;
    let alive = async |session: &Value| world.user(session).await.0 == 200;
    let (a, b, c) = (sign_in().await, sign_in().await, sign_in().await);

    assert_eq!(world.log_out(&a, "?scope=everything").await, 400);
    assert!(alive(&a).await);
    assert_eq!(world.log_out(&a, "?scope=local").await, 204);
    assert!(!alive(&a).await && alive(&b).await && alive(&c).await);
    assert_eq!(world.refresh(&a["refresh_token"]).await.0, 400);
    assert_eq!(world.log_out(&b, "?scope=others").await, 204);
    assert!(alive(&b).await && !alive(&c).await);
    let d = sign_in().await;
    assert_eq!(world.log_out(&d, "").await, 204);
    assert!(!alive(&b).await && !alive(&d).await);

    let (_, stranger) = world.person("right", &[]).await;
    let stranger = world.sign_in(&stranger, "right").await.1;
    assert!(alive(&stranger).await);
}

#[tokio::test]
async fn a_person_of_two_tenants_names_one_at_sign_in_or_with_each_request() {
    let world = World::new().await;
    let (a, b, foreign) = (world.org().await, world.org().await, world.org().await);
    let (_, email) = world.person("right", &[(a, "owner"), (b, "viewer")]).await;

    let (_, none) = world.sign_in(&email, "right").await;
    assert_eq!(none["user"]["app_metadata"]["org_id"], Value::Null);
    let none = bearer_of(&none);
    assert_eq!(
        world.caller(&none, None).await.unwrap_err(),
        (400, "org_required")
    );
    assert_eq!(
        world.caller(&none, Some(b)).await.unwrap().role,
        Role::Viewer
    );
    assert_eq!(
        world.caller(&none, Some(foreign)).await.unwrap_err(),
        (403, "not_a_member")
    );

    let (status, chosen) = world.sign_in_to(&email, "right", Some(b)).await;
    assert_eq!(
        (status, &chosen["user"]["app_metadata"]["org_id"]),
        (200, &json!(b))
    );
    assert_eq!(
        world
            .caller(&bearer_of(&chosen), None)
            .await
            .unwrap()
            .org_id,
        b
    );
    assert_eq!(
        world
            .caller(&bearer_of(&chosen), Some(a))
            .await
            .unwrap()
            .role,
        Role::Owner
    );
    let (_, refreshed) = world.refresh(&chosen["refresh_token"]).await;
    assert_eq!(refreshed["user"]["app_metadata"]["org_id"], json!(b));

    let (status, refused) = world.sign_in_to(&email, "right", Some(foreign)).await;
    assert_eq!((status, &refused["code"]), (403, &json!("not_a_member")));
}

#[tokio::test]
async fn whoever_is_removed_or_demoted_loses_their_rights_within_seconds() {
    let world = World::new().await;
    let org = world.org().await;
    let (id, email) = world.person("right", &[(org, "owner")]).await;
    let (_, session) = world.sign_in(&email, "right").await;
    let token = bearer_of(&session);
    assert_eq!(world.caller(&token, None).await.unwrap().role, Role::Owner);

    let until = async |wanted: Result<Role, (u16, &'static str)>| {
        let wait = async {
            while world.caller(&token, None).await.map(|caller| caller.role) != wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("the change counts");
    };
    sqlx::query("UPDATE profiles SET role = 'viewer' WHERE id = $1")
        .bind(id.0)
        .execute(&world.owner)
        .await
        .unwrap();
    until(Ok(Role::Viewer)).await;
    sqlx::query("DELETE FROM profiles WHERE id = $1")
        .bind(id.0)
        .execute(&world.owner)
        .await
        .unwrap();
    until(Err((403, "not_a_member"))).await;
    let (_, refreshed) = world.refresh(&session["refresh_token"]).await;
    assert_eq!(refreshed["user"]["app_metadata"]["org_id"], Value::Null);
}

#[tokio::test]
async fn the_service_key_and_super_admins_act_in_any_tenant_that_exists() {
    let world = World::new().await;
    let (home, other) = (world.org().await, world.org().await);
    let nowhere = OrgId::generate();
    let service = "Bearer sb_secret_configured";
    let caller = world.caller(service, Some(other)).await.unwrap();
    assert_eq!(
        (caller.org_id, caller.role, caller.kind),
        (other, Role::Service, CallerKind::Service)
    );
    assert_eq!((caller.user_id, caller.token_expires_at), (None, None));
    assert_eq!(
        world.caller(service, Some(nowhere)).await.unwrap_err(),
        (403, "not_a_member")
    );
    assert_eq!(
        world.caller(service, None).await.unwrap_err(),
        (400, "org_required")
    );

    let (_, email) = world.person("right", &[(home, "super_admin")]).await;
    let token = bearer_of(&world.sign_in(&email, "right").await.1);
    assert_eq!(world.caller(&token, None).await.unwrap().org_id, home);
    assert_eq!(
        world.caller(&token, Some(other)).await.unwrap().role,
        Role::SuperAdmin
    );
    assert_eq!(
        world.caller(&token, Some(nowhere)).await.unwrap_err(),
        (403, "not_a_member")
    );
}

#[tokio::test]
async fn an_agent_is_limited_to_the_channels_they_are_given_and_only_an_agent_is() {
    let world = World::new().await;
    let org = world.org().await;
    let channel = Uuid::now_v7();
    sqlx::query("INSERT INTO channels (org_id, id, kind, name) VALUES ($1, $2, 'email', 'Test')")
        .bind(org.0)
        .bind(channel)
        .execute(&world.owner)
        .await
        .unwrap();
    for (role, limited, expected) in [
        ("agent", true, Some(vec![channel])),
        ("agent", false, None),
        ("admin", true, None),
    ] {
        let (id, email) = world.person("right", &[(org, role)]).await;
        if limited {
            sqlx::query(
                "INSERT INTO channel_members (org_id, channel_id, user_id) VALUES ($1, $2, $3)",
            )
            .bind(org.0)
            .bind(channel)
            .bind(id.0)
            .execute(&world.owner)
            .await
            .unwrap();
        }
        let token = bearer_of(&world.sign_in(&email, "right").await.1);
        assert_eq!(
            world.caller(&token, None).await.unwrap().channel_limits,
            expected,
            "{role} {limited}"
        );
    }
}

#[tokio::test]
async fn an_address_belongs_to_one_user_in_whatever_case_and_passwords_can_change() {
    let world = World::new().await;
    let (id, email) = world.person("old", &[]).await;
    let hash = password::hash("new").await.unwrap();
    let mut tx = world.auth.db.system().await.unwrap();
    let twin = NewUser {
        id: UserId::generate(),
        email: email.to_uppercase(),
        password_hash: hash.clone(),
        full_name: None,
        phone: None,
    };
    let refused = identity::insert_user(&mut tx, &twin).await.unwrap_err();
    assert!(
        matches!(&refused, wasel_db::Error::Constraint { constraint, .. } if constraint == "users_email")
    );
    drop(tx);

    let mut tx = world.auth.db.system().await.unwrap();
    assert!(identity::update_password(&mut tx, id, &hash).await.unwrap());
    assert!(
        !identity::update_password(&mut tx, twin.id, &hash)
            .await
            .unwrap()
    );
    tx.commit().await.unwrap();
    assert_eq!(world.sign_in(&email, "old").await.0, 400);
    assert_eq!(world.sign_in(&email, "new").await.0, 200);
}

#[tokio::test]
async fn housekeeping_takes_old_used_tokens_and_ended_sessions_and_leaves_live_ones() {
    let world = World::new().await;
    let (id, email) = world.person("right", &[]).await;
    let (_, live) = world.sign_in(&email, "right").await;
    let (_, ended) = world.sign_in(&email, "right").await;
    let (_, renewed) = world.refresh(&live["refresh_token"]).await;
    assert_eq!(world.log_out(&ended, "?scope=local").await, 204);
    let count = async || -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM wasel.refresh_tokens t JOIN wasel.auth_sessions s ON s.id = t.session_id
             WHERE s.user_id = $1",
        )
        .bind(id.0)
        .fetch_one(&world.owner)
        .await
        .unwrap()
    };
    assert_eq!(count().await, 3);
    // Only this person's rows are old enough: other tests share the database.
    sqlx::query("UPDATE wasel.auth_sessions SET ended_at = ended_at - interval '40 days' WHERE user_id = $1")
        .bind(id.0)
        .execute(&world.owner)
        .await
        .unwrap();
    world.age_used_tokens(id, 40 * 24 * 3600).await;
    let mut tx = world.auth.db.system().await.unwrap();
    let before = chrono::Utc::now() - chrono::TimeDelta::days(30);
    assert_eq!(identity::delete_before(&mut tx, before).await.unwrap(), 2);
    tx.commit().await.unwrap();
    assert_eq!(count().await, 1);
    assert_eq!(world.refresh(&renewed["refresh_token"]).await.0, 200);
}
