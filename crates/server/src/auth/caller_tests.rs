use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use http::{HeaderValue, Request};
use serde_json::Value;
use tower::ServiceExt;

use super::super::TokenSubject;
use super::super::test_support::{tokens, without_database};
use super::*;
use wasel_db::identity::{PasswordHash, SignInMethod, User};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn users_token() -> String {
    let user = User {
        id: Uuid::now_v7(),
        email: "a@example.test".to_owned(),
        password_hash: PasswordHash(String::new()),
        full_name: None,
        phone: None,
        user_metadata: Default::default(),
        locale: None,
        email_confirmed_at: Some(Utc::now()),
        new_email: None,
        email_change_sent_at: None,
        created_at: Utc::now(),
        updated_at: Utc::now(),
        last_sign_in_at: None,
    };
    let subject = TokenSubject {
        user: &user,
        org_id: None,
        session_id: None,
        method: SignInMethod::Password,
        authenticated_at: Utc::now(),
    };
    tokens(None)
        .issue(&subject, std::time::Duration::from_secs(60))
        .unwrap()
        .token
}

async fn refusal(pairs: &[(&'static str, &str)]) -> (u16, &'static str) {
    let error = resolve(&without_database(), &headers(pairs))
        .await
        .unwrap_err();
    (error.status.as_u16(), error.code)
}

#[tokio::test]
async fn whoever_does_not_say_who_they_are_is_refused_before_the_database_is_asked() {
    let user = format!("Bearer {}", users_token());
    assert_eq!(refusal(&[]).await, (401, "unauthenticated"));
    assert_eq!(
        refusal(&[("authorization", "Basic YTpi")]).await,
        (401, "unauthenticated")
    );
    assert_eq!(
        refusal(&[("authorization", "Bearer ")]).await,
        (401, "unauthenticated")
    );
    assert_eq!(
        refusal(&[("authorization", "Bearer nonsense")]).await,
        (401, "token_invalid")
    );
    assert_eq!(
        refusal(&[("authorization", "Bearer configured-anon-key")]).await,
        (401, "unauthenticated")
    );
    assert_eq!(
        refusal(&[("apikey", "sb_publishable_x")]).await,
        (401, "unauthenticated")
    );
    assert_eq!(
        refusal(&[("authorization", &user), ("x-org-id", "acme")]).await,
        (400, "invalid_header")
    );
    let org = Uuid::now_v7().to_string();
    let twice = [
        ("authorization", user.as_str()),
        ("x-org-id", &org),
        ("x-org-id", &org),
    ];
    assert_eq!(refusal(&twice).await, (400, "invalid_header"));
}

#[tokio::test]
async fn a_good_token_with_the_database_away_is_503_and_not_401() {
    let user = format!("bearer {}", users_token());
    assert_eq!(
        refusal(&[("authorization", &user)]).await,
        (503, "unavailable")
    );
}

#[tokio::test]
async fn authorization_goes_before_apikey() {
    let context = without_database();
    let both = headers(&[
        ("authorization", "Bearer sb_secret_configured"),
        ("apikey", "sb_publishable_x"),
    ]);
    assert!(matches!(
        identify(&context, &both).await,
        Ok(Verified::Service)
    ));
    let both = headers(&[
        ("authorization", "Bearer sb_publishable_x"),
        ("apikey", "sb_secret_configured"),
    ]);
    assert!(matches!(
        identify(&context, &both).await,
        Ok(Verified::Anonymous)
    ));
}

#[tokio::test]
async fn as_an_extractor_it_answers_in_the_shape_of_v1() {
    async fn handler(_: Caller) {}
    let app = Router::new()
        .route("/", get(handler))
        .with_state(without_database());
    let request = Request::get("/")
        .header("authorization", "Bearer sb_secret_configured")
        .header("x-org-id", "acme")
        .body(Body::empty())
        .unwrap();
    let answer = app.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 400);
    let body: Value =
        serde_json::from_slice(&to_bytes(answer.into_body(), 10_000).await.unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "invalid_header");
    assert_eq!(body["error"]["field"], "X-Org-Id");
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("X-Org-Id")
    );

    let answer = app
        .oneshot(Request::get("/").body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");
}

fn caller(role: Role) -> Caller {
    Caller {
        org_id: OrgId::generate(),
        user_id: None,
        role,
        email: None,
        kind: CallerKind::User,
        channel_limits: None,
        token_expires_at: None,
    }
}

#[test]
fn a_role_opens_what_asks_for_it_and_the_operator_is_an_owner_everywhere() {
    let managers = [Role::Owner, Role::Admin];
    for (role, allowed) in [
        (Role::Owner, true),
        (Role::Admin, true),
        (Role::Agent, false),
        (Role::Viewer, false),
        (Role::SuperAdmin, true),
        (Role::Service, true),
    ] {
        let answer = caller(role).require(&managers);
        assert_eq!(answer.is_ok(), allowed, "{role}");
        if let Err(error) = answer {
            assert_eq!(error.status, 403);
            assert!(error.message.contains("owner, admin"), "{}", error.message);
        }
    }
    assert!(caller(Role::Owner).require(&[Role::SuperAdmin]).is_err());
    assert!(caller(Role::Service).require(&[Role::Service]).is_ok());
    assert!(caller(Role::SuperAdmin).require(&[Role::Viewer]).is_err());
}

#[test]
fn the_policies_of_the_database_see_one_of_the_four_roles_they_know() {
    for (role, word) in [
        (Role::Owner, "owner"),
        (Role::Admin, "admin"),
        (Role::Agent, "agent"),
        (Role::Viewer, "viewer"),
        (Role::SuperAdmin, "owner"),
        (Role::Service, "owner"),
    ] {
        let caller = caller(role);
        let claims = caller.claims();
        assert_eq!(claims.role, word);
        assert_eq!(claims.org_id, caller.org_id);
    }
    assert_eq!(Role::of_profile("super_admin"), Some(Role::SuperAdmin));
    assert_eq!(
        Role::of_profile("service"),
        None,
        "no profile makes a service"
    );
    assert_eq!(Role::of_profile("Owner"), None);
}
