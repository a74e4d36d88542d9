//! Accounts: invitations, recovery, changes, and how sessions end. The mails are those the simulated mail server took.

use std::net::Ipv4Addr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;
use wasel_simulator::{ReceivedEmail, Simulator};
use wasel_testkit::{Answer, Org, TestApp, wait_until};

use crate::tenancy::{next, subscribe, subscribe_with};

const FROM: &str = "no-reply@wasel.example";
const NEW: &str = "sara@people.example";
const PASSWORD: &str = "a password of her own";
/// Where somebody would take an account that is not theirs.
const THEIRS: &str = "squatter@elsewhere.example";

/// A server that sends mails, and two tenants.
async fn with_mail() -> (TestApp, Org, Org) {
    let simulator = Simulator::start((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .unwrap();
    let smtp = simulator.world().mail_server().smtp;
    let mailbox = json!({ "address": FROM, "user": "wasel", "password": "secret",
        "webhook_url": "http://127.0.0.1:9/", "webhook_secret": "unused" });
    simulator
        .world()
        .register_mailbox(serde_json::from_value(mailbox).unwrap())
        .unwrap();
    let app = TestApp::builder()
        .with_simulator(Arc::new(simulator))
        .configure(move |config| {
            let url = format!("smtp://wasel:secret@{smtp}");
            config.providers.smtp_url = Some(url.try_into().unwrap());
            config.providers.mail_from = Some(format!("Wasel <{FROM}>"));
        })
        .start()
        .await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    (app, a, b)
}

/// The last mail to an address, once there are so many.
async fn mail_to(app: &TestApp, address: &str, count: usize) -> ReceivedEmail {
    wait_until(&format!("mail {count} to {address}"), async || {
        let mails = app.world().emails();
        let mut of_address: Vec<_> = mails
            .into_iter()
            .filter(|mail| mail.recipients == [address])
            .collect();
        (of_address.len() == count).then(|| of_address.remove(count - 1))
    })
    .await
}

/// The token in a link.
fn token_in(text: &str) -> String {
    let rest = text.split("token=").nth(1).expect("a link");
    rest.split(['&', '\n', '\r']).next().unwrap().to_owned()
}

/// The six digits.
fn code_in(mail: &ReceivedEmail) -> String {
    let text = mail.text.clone().unwrap();
    let mut digits = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| part.len() == 6);
    digits.next_back().expect("a code").to_owned()
}

async fn auth(app: &TestApp, path: &str, body: &Value) -> Answer {
    Answer::of(
        app.request(Method::POST, &format!("/auth/v1/{path}"))
            .json(body),
    )
    .await
}

async fn update(app: &TestApp, token: &str, body: &Value) -> Answer {
    let request = app.request(Method::PUT, "/auth/v1/user");
    Answer::of(request.bearer_auth(token).json(body)).await
}

async fn sign_in(app: &TestApp, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password });
    auth(app, "token?grant_type=password", &body).await
}

async fn verify(app: &TestApp, kind: &str, token: &str) -> Answer {
    auth(app, "verify", &json!({ "type": kind, "token_hash": token })).await
}

async fn invite(app: &TestApp, token: &str, email: &str, role: &str) -> Answer {
    let body = json!({ "email": email, "role": role });
    app.post(token, "/v1/invitations", &body).await
}

async fn sign_up(app: &TestApp, email: &str, password: &str, invitation: &str) -> Answer {
    let data = json!({ "invitation": invitation, "full_name": "Sara" });
    let body = json!({ "email": email, "password": password, "data": data });
    auth(app, "signup", &body).await
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{pointer} in {value}"))
}

#[track_caller]
fn refused(answer: Answer, status: u16, code: &str) {
    let body = answer.expect(status);
    let got = body["code"].as_str().or(body["error"]["code"].as_str());
    assert_eq!(got, Some(code), "{body}");
}

/// How the person of an access token signed in, as it says.
fn method_in(access: &str) -> String {
    let claims = access.split('.').nth(1).expect("a JWT");
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    text(&claims, "/amr/0/method").to_owned()
}

/// The token of the link in a mail.
fn link_in(mail: &ReceivedEmail) -> String {
    token_in(mail.text.as_deref().unwrap())
}

async fn execute(app: &TestApp, sql: &'static str) {
    sqlx::query(sql).execute(&app.owner).await.unwrap();
}

/// What the agent of `a` asks for and has not confirmed.
async fn wanted(app: &TestApp, email: &str) -> Option<String> {
    sqlx::query_scalar("SELECT new_email FROM wasel.users WHERE email = $1")
        .bind(email)
        .fetch_one(&app.owner)
        .await
        .unwrap()
}

/// The role a token has in its tenant, as `/v1` sees it.
async fn may_list_invitations(app: &TestApp, token: &str) -> u16 {
    app.get(token, "/v1/invitations").await.status
}

#[tokio::test]
async fn an_invitation_makes_an_account_with_its_role_and_limits_and_works_once() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let body = json!({ "email": "Sara@People.example", "role": "agent", "full_name": "Sara Ali", "channel_ids": [org.sms] });
    let made = app
        .post(org.owner(), "/v1/invitations", &body)
        .await
        .expect(201);
    assert_eq!(made["status"], "pending");
    assert_eq!(made["mail"], "off", "this server has no mail");
    assert_eq!(made["email"], NEW);
    let token = token_in(text(&made, "/link"));
    refused(
        app.post(org.owner(), "/v1/invitations", &body).await,
        409,
        "already_invited",
    );

    // Not for another address, not with a short password, not without the token.
    refused(
        sign_up(&app, "other@people.example", PASSWORD, &token).await,
        403,
        "otp_expired",
    );
    let weak = sign_up(&app, NEW, "short", &token).await.expect(422);
    assert_eq!(weak["weak_password"]["reasons"], json!(["length"]));
    refused(
        sign_up(&app, NEW, PASSWORD, "made up").await,
        403,
        "otp_expired",
    );
    let without = json!({ "email": NEW, "password": PASSWORD, "data": { "full_name": "Sara" } });
    refused(auth(&app, "signup", &without).await, 422, "signup_disabled");

    let session = sign_up(&app, NEW, PASSWORD, &token).await.expect(200);
    assert_eq!(
        text(&session, "/user/app_metadata/org_id"),
        org.id.to_string()
    );
    assert_eq!(text(&session, "/user/user_metadata/full_name"), "Sara");
    assert!(session.pointer("/user/user_metadata/invitation").is_none());
    assert!(
        session["user"]["email_confirmed_at"].is_null(),
        "nobody has shown that she reads mail there"
    );
    let access = text(&session, "/access_token");
    let channels = app.get(access, "/v1/channels").await.expect(200);
    assert_eq!(channels["data"].as_array().unwrap().len(), 1, "{channels}");
    assert_eq!(channels["data"][0]["id"], json!(org.sms));
    assert_eq!(may_list_invitations(&app, access).await, 403);
    sign_in(&app, NEW, PASSWORD).await.expect(200);

    refused(
        sign_up(&app, NEW, PASSWORD, &token).await,
        403,
        "otp_expired",
    );
    refused(verify(&app, "invite", &token).await, 403, "otp_expired");
    refused(
        invite(&app, org.owner(), NEW, "viewer").await,
        409,
        "already_member",
    );
    let list = app.get(org.owner(), "/v1/invitations").await.expect(200);
    assert_eq!(list["data"][0]["status"], "accepted");
    assert_eq!(list["data"][0]["accepted_by"], session["user"]["id"]);
    let path = format!("/v1/invitations/{}", text(&made, "/id"));
    let request = app.request(Method::DELETE, &path).bearer_auth(org.owner());
    refused(Answer::of(request).await, 409, "already_accepted");
}

#[tokio::test]
async fn nobody_invites_above_themselves_or_for_somebody_who_left() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let made = invite(&app, org.owner(), "admin@people.example", "admin").await;
    let token = token_in(text(&made.expect(201), "/link"));
    let admin = sign_up(&app, "admin@people.example", PASSWORD, &token)
        .await
        .expect(200);
    let admin_token = text(&admin, "/access_token");

    refused(
        invite(&app, admin_token, NEW, "owner").await,
        403,
        "forbidden",
    );
    refused(
        invite(&app, org.owner(), NEW, "super_admin").await,
        400,
        "invalid_request",
    );
    refused(
        invite(&app, org.agent(), NEW, "viewer").await,
        403,
        "forbidden",
    );
    let of_owner = invite(&app, org.owner(), NEW, "owner").await.expect(201);
    let path = format!("/v1/invitations/{}/resend", text(&of_owner, "/id"));
    refused(
        app.post(admin_token, &path, &Value::Null).await,
        403,
        "forbidden",
    );
    let again = app.post(org.owner(), &path, &Value::Null).await.expect(200);
    refused(
        verify(&app, "invite", &token_in(text(&of_owner, "/link"))).await,
        403,
        "otp_expired",
    );
    verify(&app, "invite", &token_in(text(&again, "/link")))
        .await
        .expect(200);

    let late = invite(&app, admin_token, "late@people.example", "agent").await;
    let late = token_in(text(&late.expect(201), "/link"));
    sqlx::query("UPDATE profiles SET role = 'agent' WHERE id = $1")
        .bind(text(&admin, "/user/id").parse::<Uuid>().unwrap())
        .execute(&app.owner)
        .await
        .unwrap();
    refused(
        sign_up(&app, "late@people.example", PASSWORD, &late).await,
        403,
        "otp_expired",
    );

    // Its only channel is gone: without a limit the agent would see all the others.
    let limited =
        json!({ "email": "limited@people.example", "role": "agent", "channel_ids": [org.sms] });
    let limited = app.post(org.owner(), "/v1/invitations", &limited).await;
    let limited = token_in(text(&limited.expect(201), "/link"));
    sqlx::query("DELETE FROM channels WHERE id = $1")
        .bind(org.sms)
        .execute(&app.owner)
        .await
        .unwrap();
    refused(verify(&app, "invite", &limited).await, 403, "otp_expired");
}

#[tokio::test]
async fn a_handed_out_link_opens_no_account_there_is_and_a_mailed_one_takes_it_from_whoever_made_it()
 {
    let (app, a, b) = with_mail().await;
    // B invites A's owner. B has the link, and must not become A's owner by it.
    let made = invite(&app, b.owner(), "owner@a.test", "agent")
        .await
        .expect(201);
    assert_eq!(made["mail"], "queued");
    let by_hand = token_in(text(&made, "/link"));
    refused(
        verify(&app, "invite", &by_hand).await,
        422,
        "user_already_exists",
    );
    refused(
        sign_up(&app, "owner@a.test", "not her password", &by_hand).await,
        422,
        "user_already_exists",
    );
    let mail = mail_to(&app, "owner@a.test", 1).await;
    assert_eq!(mail.subject, "دعوة إلى Organisation b");
    assert!(mail.html.as_deref().unwrap().contains("dir=\"rtl\""));
    assert_ne!(token_in(mail.text.as_deref().unwrap()), by_hand);
    let joined = sign_up(&app, "owner@a.test", Org::PASSWORD, &by_hand)
        .await
        .expect(200);
    assert_eq!(text(&joined, "/user/id"), a.people.owner.to_string());
    assert_eq!(text(&joined, "/user/app_metadata/org_id"), b.id.to_string());
    refused(
        verify(&app, "invite", &token_in(mail.text.as_deref().unwrap())).await,
        403,
        "otp_expired",
    );

    // B makes an account for somebody A will invite.
    let made = invite(&app, b.owner(), NEW, "viewer").await.expect(201);
    let squatter = sign_up(&app, NEW, PASSWORD, &token_in(text(&made, "/link")))
        .await
        .expect(200);
    let squatters = text(&squatter, "/access_token").to_owned();
    assert_eq!(may_list_invitations(&app, &squatters).await, 403);
    invite(&app, a.owner(), NEW, "admin").await.expect(201);
    let mail = mail_to(&app, NEW, 2).await;
    let page = app.http.get(format!(
        "{}/auth/v1/verify?token={}&type=invite",
        app.base,
        token_in(mail.text.as_deref().unwrap())
    ));
    assert!(
        Answer::of(page).await.text.contains("<form"),
        "a scanner uses nothing"
    );
    let session = verify(&app, "invite", &token_in(mail.text.as_deref().unwrap()))
        .await
        .expect(200);
    assert_eq!(session["user"]["id"], squatter["user"]["id"]);
    assert!(session["user"]["email_confirmed_at"].is_string());
    assert_eq!(
        may_list_invitations(&app, text(&session, "/access_token")).await,
        200
    );
    assert_eq!(may_list_invitations(&app, &squatters).await, 401);
    refused(
        sign_in(&app, NEW, PASSWORD).await,
        400,
        "invalid_credentials",
    );
}

#[tokio::test]
async fn recovery_answers_alike_for_everybody_and_its_link_and_code_work_once() {
    let (app, _, _) = with_mail().await;
    let email = "agent@a.test";
    let before = sign_in(&app, email, Org::PASSWORD).await.expect(200);
    let before = text(&before, "/access_token").to_owned();
    let recover = async |email: &str| auth(&app, "recover", &json!({ "email": email })).await;
    assert_eq!(recover("nobody@a.test").await.expect(200), json!({}));
    assert_eq!(recover(email).await.expect(200), json!({}));
    let mail = mail_to(&app, email, 1).await;
    assert_eq!(mail.from_name.as_deref(), Some("Wasel"));
    assert_eq!(mail.subject, "إعادة تعيين كلمة المرور");
    let code = json!({ "type": "recovery", "email": email, "token": code_in(&mail) });
    let session = auth(&app, "verify", &code).await.expect(200);
    refused(auth(&app, "verify", &code).await, 403, "otp_expired");
    let link = token_in(mail.text.as_deref().unwrap());
    refused(verify(&app, "recovery", &link).await, 403, "otp_expired");

    // A new password ends what there was before.
    let token = text(&session, "/access_token");
    refused(
        update(&app, token, &json!({ "password": Org::PASSWORD })).await,
        422,
        "same_password",
    );
    update(&app, token, &json!({ "password": PASSWORD }))
        .await
        .expect(200);
    assert_eq!(app.get(&before, "/v1/conversations").await.status, 401);
    assert_eq!(app.get(token, "/v1/conversations").await.status, 200);
    refused(
        sign_in(&app, email, Org::PASSWORD).await,
        400,
        "invalid_credentials",
    );
    sign_in(&app, email, PASSWORD).await.expect(200);

    // Five wrong codes, and the right one is no good either; the link still is.
    recover(email).await.expect(200);
    let mail = mail_to(&app, email, 2).await;
    let right = code_in(&mail);
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    for code in [wrong, wrong, wrong, wrong, wrong, right.as_str()] {
        let guess = json!({ "type": "recovery", "email": email, "token": code });
        refused(auth(&app, "verify", &guess).await, 403, "otp_expired");
    }
    let link = token_in(mail.text.as_deref().unwrap());
    let (one, two) = tokio::join!(
        verify(&app, "recovery", &link),
        verify(&app, "recovery", &link)
    );
    let mut both = [one.status, two.status];
    both.sort_unstable();
    assert_eq!(both, [200, 403], "once");

    // An old one, and one too many.
    recover(email).await.expect(200);
    let mail = mail_to(&app, email, 3).await;
    sqlx::query("UPDATE wasel.one_time_tokens SET expires_at = now() - interval '1 second'")
        .execute(&app.owner)
        .await
        .unwrap();
    let link = token_in(mail.text.as_deref().unwrap());
    refused(verify(&app, "recovery", &link).await, 403, "otp_expired");
    recover(email).await.expect(200);
    refused(recover(email).await, 429, "over_email_send_rate_limit");
    for _ in 0..3 {
        recover("nobody@a.test").await.expect(200);
    }
    refused(
        recover("nobody@a.test").await,
        429,
        "over_email_send_rate_limit",
    );
    assert!(
        app.world()
            .emails()
            .iter()
            .all(|mail| mail.recipients != ["nobody@a.test"])
    );
    // Nothing in the database opens anything.
    let stored: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "SELECT token_hash, code_hash FROM wasel.one_time_tokens WHERE code_hash IS NOT NULL",
    )
    .fetch_all(&app.owner)
    .await
    .unwrap();
    assert!(
        stored
            .iter()
            .all(|(token, code)| token.len() == 32 && code.len() == 32)
    );
}

#[tokio::test]
async fn the_form_of_a_link_leads_to_an_allowed_page_with_the_session_behind_the_hash() {
    let (app, _, _) = with_mail().await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let location = async |query: String| {
        let answer = client
            .post(format!("{}/auth/v1/verify?{query}", app.base))
            .header("content-type", "application/x-www-form-urlencoded")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 303);
        answer.headers()["location"].to_str().unwrap().to_owned()
    };
    let allowed = app.state().config.server.allowed_origins[0].clone();
    let path = format!("recover?redirect_to={allowed}/reset");
    auth(&app, &path, &json!({ "email": "agent@a.test" }))
        .await
        .expect(200);
    let mail = mail_to(&app, "agent@a.test", 1).await;
    let text = mail.text.unwrap();
    let query = text
        .split("verify?")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    assert!(query.contains("redirect_to="), "{query}");
    let landed = location(query.to_owned()).await;
    assert!(
        landed.starts_with(&format!("{allowed}/reset#access_token=")),
        "the page asked for"
    );
    for part in [
        "&refresh_token=",
        "&expires_in=3600",
        "&token_type=bearer",
        "&type=recovery",
    ] {
        assert!(landed.contains(part), "{part}");
    }
    let landed = location(format!("{query}&x=1")).await;
    assert!(
        landed.contains("#error=access_denied&error_code=otp_expired&error_description="),
        "{landed}"
    );
    let evil = location("token=x&type=recovery&redirect_to=https://evil.example/".to_owned()).await;
    assert!(!evil.contains("evil"), "{evil}");
}

#[tokio::test]
async fn a_new_address_is_theirs_once_its_mail_was_answered() {
    let (app, org, _) = with_mail().await;
    let session = sign_in(&app, "agent@a.test", Org::PASSWORD)
        .await
        .expect(200);
    let token = text(&session, "/access_token");
    refused(
        update(&app, token, &json!({ "email": "owner@a.test" })).await,
        422,
        "email_exists",
    );
    let asked = update(&app, token, &json!({ "email": NEW }))
        .await
        .expect(200);
    assert_eq!(text(&asked, "/email"), "agent@a.test");
    assert_eq!(text(&asked, "/new_email"), NEW);
    let first = mail_to(&app, NEW, 1).await;
    let told = mail_to(&app, "agent@a.test", 1).await;
    assert_eq!(told.subject, "طلب تغيير عنوانك");
    let resend = json!({ "type": "email_change", "email": "agent@a.test" });
    auth(&app, "resend", &resend).await.expect(200);
    let mail = mail_to(&app, NEW, 2).await;
    refused(
        verify(
            &app,
            "email_change",
            &token_in(first.text.as_deref().unwrap()),
        )
        .await,
        403,
        "otp_expired",
    );
    let code = json!({ "type": "email_change", "email": NEW, "token": code_in(&mail) });
    let changed = auth(&app, "verify", &code).await.expect(200);
    assert_eq!(text(&changed, "/user/email"), NEW);
    let told = mail_to(&app, "agent@a.test", 2).await;
    assert_eq!(told.subject, "تم تغيير عنوانك");
    assert_eq!(
        app.get(token, "/v1/conversations").await.status,
        401,
        "whoever asked for it may be somebody else"
    );
    let access = text(&changed, "/access_token");
    assert_eq!(app.get(access, "/v1/conversations").await.status, 200);
    assert_eq!(method_in(access), "otp");
    sign_in(&app, NEW, Org::PASSWORD).await.expect(200);
    refused(
        sign_in(&app, "agent@a.test", Org::PASSWORD).await,
        400,
        "invalid_credentials",
    );
    let profile: String = sqlx::query_scalar("SELECT email FROM profiles WHERE id = $1")
        .bind(org.people.agent)
        .fetch_one(&app.owner)
        .await
        .unwrap();
    assert_eq!(profile, NEW);
}

#[tokio::test]
async fn whoever_made_an_account_does_not_keep_it_by_a_change_of_address() {
    let (app, a, b) = with_mail().await;
    let made = invite(&app, b.owner(), NEW, "viewer").await.expect(201);
    let squatter = sign_up(&app, NEW, PASSWORD, &token_in(text(&made, "/link")))
        .await
        .expect(200);
    let squatters = text(&squatter, "/access_token");
    assert_eq!(method_in(squatters), "password");
    let change = json!({ "email": THEIRS, "current_password": PASSWORD });
    refused(
        update(&app, squatters, &change).await,
        422,
        "email_not_confirmed",
    );

    // Even where one is under way, it ends when the address is shown to be somebody's.
    execute(&app, "UPDATE wasel.users SET email_confirmed_at = now()").await;
    update(&app, squatters, &change).await.expect(200);
    let theirs = mail_to(&app, THEIRS, 1).await;
    sqlx::query("UPDATE wasel.users SET email_confirmed_at = NULL WHERE email = $1")
        .bind(NEW)
        .execute(&app.owner)
        .await
        .unwrap();
    refused(
        verify(&app, "email_change", &link_in(&theirs)).await,
        403,
        "otp_expired",
    );
    invite(&app, a.owner(), NEW, "admin").await.expect(201);
    // Before it: B's invitation, and word of the change.
    let mail = mail_to(&app, NEW, 3).await;
    verify(&app, "invite", &link_in(&mail)).await.expect(200);
    assert_eq!(wanted(&app, NEW).await, None);
    refused(
        verify(&app, "email_change", &link_in(&theirs)).await,
        403,
        "otp_expired",
    );
}

#[tokio::test]
async fn a_change_of_address_ends_with_a_new_password_and_with_recovery_and_is_not_mailed_again_later()
 {
    let (app, _, _) = with_mail().await;
    let email = "agent@a.test";
    let session = sign_in(&app, email, Org::PASSWORD).await.expect(200);
    let token = text(&session, "/access_token");
    let change = json!({ "email": NEW });
    update(&app, token, &change).await.expect(200);
    let first = mail_to(&app, NEW, 1).await;
    update(&app, token, &json!({ "password": PASSWORD }))
        .await
        .expect(200);
    assert_eq!(wanted(&app, email).await, None);
    refused(
        verify(&app, "email_change", &link_in(&first)).await,
        403,
        "otp_expired",
    );

    update(&app, token, &change).await.expect(200);
    let second = mail_to(&app, NEW, 2).await;
    // Asked for long ago: not mailed again, and the link there is stays.
    execute(
        &app,
        "UPDATE wasel.users SET email_change_sent_at = now() - interval '25 hours' WHERE new_email IS NOT NULL",
    )
    .await;
    let resend = json!({ "type": "email_change", "email": email });
    auth(&app, "resend", &resend).await.expect(200);
    // Before it: word of both changes.
    let recover = json!({ "email": email });
    auth(&app, "recover", &recover).await.expect(200);
    let recovery = mail_to(&app, email, 3).await;
    mail_to(&app, NEW, 2).await;
    assert_eq!(wanted(&app, email).await.as_deref(), Some(NEW));
    verify(&app, "recovery", &link_in(&recovery))
        .await
        .expect(200);
    assert_eq!(wanted(&app, email).await, None);
    refused(
        verify(&app, "email_change", &link_in(&second)).await,
        403,
        "otp_expired",
    );
}

#[tokio::test]
async fn a_session_left_open_is_not_enough_to_take_the_account_to_another_address() {
    let (app, _, _) = with_mail().await;
    let email = "agent@a.test";
    let session = sign_in(&app, email, Org::PASSWORD).await.expect(200);
    let token = text(&session, "/access_token");
    execute(
        &app,
        "UPDATE wasel.auth_sessions SET created_at = now() - interval '11 minutes'",
    )
    .await;
    let with = |current: Option<&str>| json!({ "email": NEW, "current_password": current });
    refused(
        update(&app, token, &with(None)).await,
        400,
        "reauthentication_needed",
    );
    refused(
        update(&app, token, &with(Some("not it"))).await,
        400,
        "invalid_credentials",
    );
    // A mailed link is no password.
    auth(&app, "recover", &json!({ "email": email }))
        .await
        .expect(200);
    let mail = mail_to(&app, email, 1).await;
    let by_mail = verify(&app, "recovery", &link_in(&mail)).await.expect(200);
    let by_mail = text(&by_mail, "/access_token");
    assert_eq!(method_in(by_mail), "otp");
    refused(
        update(&app, by_mail, &with(None)).await,
        400,
        "reauthentication_needed",
    );
    assert_eq!(wanted(&app, email).await, None);
    update(&app, token, &with(Some(Org::PASSWORD)))
        .await
        .expect(200);
    assert_eq!(wanted(&app, email).await.as_deref(), Some(NEW));
}

#[tokio::test]
async fn after_twenty_wrong_codes_in_a_day_only_links_work() {
    let (app, _, _) = with_mail().await;
    let email = "agent@a.test";
    let recover = async || auth(&app, "recover", &json!({ "email": email })).await;
    let guess = async |code: &str| {
        let guess = json!({ "type": "recovery", "email": email, "token": code });
        auth(&app, "verify", &guess).await
    };
    // Of the mails before this one.
    execute(
        &app,
        "UPDATE wasel.users SET wrong_codes = 19, wrong_codes_since = now() - interval '23 hours'",
    )
    .await;
    recover().await.expect(200);
    let mail = mail_to(&app, email, 1).await;
    let right = code_in(&mail);
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    refused(guess(wrong).await, 403, "otp_expired");
    refused(guess(&right).await, 403, "otp_expired");
    recover().await.expect(200);
    let mail = mail_to(&app, email, 2).await;
    refused(guess(&code_in(&mail)).await, 403, "otp_expired");
    verify(&app, "recovery", &link_in(&mail)).await.expect(200);

    execute(
        &app,
        "UPDATE wasel.users SET wrong_codes_since = now() - interval '25 hours'",
    )
    .await;
    recover().await.expect(200);
    let mail = mail_to(&app, email, 3).await;
    guess(&code_in(&mail)).await.expect(200);
}

#[tokio::test]
async fn of_two_links_of_one_invitation_used_at_once_one_works() {
    let (app, a, _) = with_mail().await;
    let made = invite(&app, a.owner(), NEW, "agent").await.expect(201);
    let by_hand = token_in(text(&made, "/link"));
    let by_mail = link_in(&mail_to(&app, NEW, 1).await);
    // Both get as far as they can without the other.
    let mut held = app.owner.begin().await.unwrap();
    sqlx::query("SELECT FROM invitations WHERE email = $1 FOR UPDATE")
        .bind(NEW)
        .execute(&mut *held)
        .await
        .unwrap();
    let release = async {
        wait_until("both to wait", async || {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                 WHERE NOT l.granted AND a.datname = current_database()",
            )
            .fetch_one(&app.owner)
            .await
            .unwrap();
            (waiting >= 2).then_some(())
        })
        .await;
        held.commit().await.unwrap();
    };
    let (one, two, ()) = tokio::join!(
        verify(&app, "invite", &by_hand),
        verify(&app, "invite", &by_mail),
        release
    );
    let mut both = [one.status, two.status];
    both.sort_unstable();
    assert_eq!(both, [200, 403]);
}

#[tokio::test]
async fn people_change_what_is_theirs_and_nothing_else() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let session = sign_in(&app, "agent@a.test", Org::PASSWORD)
        .await
        .expect(200);
    let token = text(&session, "/access_token");
    let data =
        json!({ "full_name": "سارة", "theme": "dark", "org_id": Uuid::now_v7(), "role": "owner" });
    let user = update(&app, token, &json!({ "data": data, "nonce": "x" }))
        .await
        .expect(200);
    assert_eq!(user["user_metadata"], data);
    assert_eq!(text(&user, "/app_metadata/org_id"), org.id.to_string());
    let user = update(&app, token, &json!({ "data": { "theme": null } }))
        .await
        .expect(200);
    assert!(user["user_metadata"].get("theme").is_none());
    let refreshed = json!({ "refresh_token": session["refresh_token"] });
    let refreshed = auth(&app, "token?grant_type=refresh_token", &refreshed)
        .await
        .expect(200);
    assert_eq!(text(&refreshed, "/user/user_metadata/full_name"), "سارة");
    let access = text(&refreshed, "/access_token");
    assert_eq!(
        may_list_invitations(&app, access).await,
        403,
        "a role in user_metadata is no role"
    );

    for (body, status, code) in [
        (
            json!({ "app_metadata": { "org_id": Uuid::now_v7() } }),
            403,
            "not_admin",
        ),
        (json!({ "password": "short" }), 422, "weak_password"),
        (
            json!({ "password": PASSWORD, "current_password": "not it" }),
            400,
            "invalid_credentials",
        ),
        (json!({ "email": NEW }), 422, "email_provider_disabled"),
        (json!({ "email": "nonsense" }), 400, "validation_failed"),
        (
            json!({ "phone": "+966500000000" }),
            422,
            "phone_provider_disabled",
        ),
        (
            json!({ "data": { "x": "a".repeat(5000) } }),
            400,
            "validation_failed",
        ),
        (json!({ "data": { "x": "a\0" } }), 400, "validation_failed"),
        (json!({ "data": [] }), 400, "bad_json"),
    ] {
        refused(update(&app, token, &body).await, status, code);
    }
}

#[tokio::test]
async fn signing_out_ends_the_token_and_closes_the_socket() {
    let app = TestApp::start().await;
    app.org("a").await;
    let session = sign_in(&app, "owner@a.test", Org::PASSWORD)
        .await
        .expect(200);
    let other = sign_in(&app, "owner@a.test", Org::PASSWORD)
        .await
        .expect(200);
    let (token, other) = (
        text(&session, "/access_token"),
        text(&other, "/access_token"),
    );
    let bindings = json!([{ "event": "*", "schema": "public", "table": "messages" }]);
    let mut socket = subscribe(&app, token, bindings.clone()).await;
    // This one proved who it is with the key of its connection alone.
    let mut keyed = subscribe_with(&app, token, None, bindings).await;
    assert_eq!(app.get(token, "/v1/channels").await.status, 200);
    let request = app
        .request(Method::POST, "/auth/v1/logout?scope=local")
        .bearer_auth(token);
    Answer::of(request).await.expect(204);
    refused(app.get(token, "/v1/channels").await, 401, "token_invalid");
    assert_eq!(app.get(other, "/v1/channels").await.status, 200);
    for socket in [&mut socket, &mut keyed] {
        loop {
            // Nothing within the patience of the tests is no end.
            let frame = next(socket).await.expect("the end of the channel");
            if ["phx_error", "phx_close"].contains(&text(&frame, "/event")) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn the_operators_server_invites_with_its_key_and_nobody_else_with_theirs() {
    let app = TestApp::start().await;
    let (a, _) = (app.org("a").await, app.org("b").await);
    let config = &app.state().config.auth;
    let service = config
        .supabase_service_role_key
        .as_ref()
        .unwrap()
        .expose()
        .to_owned();
    let anon = config
        .supabase_anon_key
        .as_ref()
        .unwrap()
        .expose()
        .to_owned();
    let too_many: Vec<Uuid> = (0..101).map(|_| Uuid::now_v7()).collect();
    let invite = async |token: &str, body: Value| {
        let request = app
            .request(Method::POST, "/auth/v1/invite")
            .bearer_auth(token);
        Answer::of(request.json(&body)).await
    };
    let body =
        json!({ "email": NEW, "data": { "org_slug": "a", "role": "admin", "full_name": "Sara" } });
    refused(invite(&anon, body.clone()).await, 403, "not_admin");
    refused(invite(a.owner(), body.clone()).await, 403, "not_admin");
    refused(
        invite(&service, json!({ "email": NEW })).await,
        400,
        "validation_failed",
    );
    for data in [
        json!({ "org_slug": "a", "full_name": "Sara\nAli" }),
        json!({ "org_slug": "a", "channel_ids": too_many }),
        json!({ "org_slug": "a", "role": "super_admin" }),
    ] {
        let body = json!({ "email": NEW, "data": data });
        refused(invite(&service, body).await, 400, "validation_failed");
    }
    let invited = invite(&service, body.clone()).await.expect(200);
    refused(invite(&service, body).await, 422, "email_exists");
    let token = token_in(text(&invited, "/invitation_link"));
    let session = verify(&app, "invite", &token).await.expect(200);
    assert_eq!(
        session["user"]["id"], invited["id"],
        "the id that was foretold"
    );
    let access = text(&session, "/access_token");
    update(&app, access, &json!({ "password": PASSWORD }))
        .await
        .expect(200);
    sign_in(&app, NEW, PASSWORD).await.expect(200);
    assert_eq!(may_list_invitations(&app, access).await, 200);
}
