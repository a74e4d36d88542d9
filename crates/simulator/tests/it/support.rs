//! A world to test in: one Meta number, one Twilio account, one receiver for both.

use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use wasel_simulator::{Message, Simulator, World};

use crate::receiver::{Hook, Receiver};

pub const PHONE: &str = "106540352242922";
pub const WABA: &str = "102290129340398";
pub const TOKEN: &str = "token-of-the-test";
pub const SECRET: &str = "app-secret-of-the-test";
pub const CUSTOMER: &str = "+201001234567";
pub const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub const AUTH: &str = "auth-token-of-the-test";
pub const SMS: &str = "+14155550111";
pub const WHATSAPP: &str = "whatsapp:+14155550122";
pub const SERVICE: &str = "MG00000000000000000000000000000001";
pub const CONTENT: &str = "HX00000000000000000000000000000001";

pub struct Stage {
    pub simulator: Simulator,
    pub world: World,
    pub receiver: Receiver,
    pub http: reqwest::Client,
}

impl Stage {
    pub async fn new() -> Self {
        let simulator = Simulator::start("127.0.0.1:0".parse().expect("address"))
            .await
            .expect("simulator starts");
        let world = simulator.world();
        let receiver = Receiver::start().await;
        receiver.expect_token("verify-me");
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("client");
        let mut settings = world.settings();
        settings.delivered_after_ms = Some(0);
        settings.webhook_retry_ms = 10;
        world.set_settings(settings);
        world
            .register_meta_number(serde_json::from_value(number(&receiver.url)).expect("number"))
            .expect("number registers");
        world
            .register_twilio_account(
                serde_json::from_value(account(&receiver.url)).expect("account"),
            )
            .expect("account registers");
        Self {
            simulator,
            world,
            receiver,
            http,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.simulator.base_url())
    }

    /// Sends to the Cloud API; status and body.
    pub async fn meta(&self, body: Value) -> (u16, Value) {
        let request = self
            .http
            .post(self.url(&format!("/v26.0/{PHONE}/messages")))
            .bearer_auth(TOKEN)
            .json(&body);
        answer(request).await
    }

    pub async fn meta_get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(self.url(path)).bearer_auth(TOKEN)).await
    }

    /// A text to the customer; its id.
    pub async fn meta_text(&self, body: &str, reference: &str) -> String {
        let (status, answer) = self.meta(text(body, reference)).await;
        assert_eq!(status, 200, "{answer}");
        id_of(&answer)
    }

    pub async fn twilio(&self, form: &[(&str, &str)]) -> (u16, Value) {
        let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
        let request = self
            .http
            .post(self.url(&path))
            .basic_auth(ACCOUNT, Some(AUTH))
            .form(form);
        answer(request).await
    }

    pub async fn twilio_get(&self, path: &str) -> (u16, Value) {
        let request = self
            .http
            .get(self.url(path))
            .basic_auth(ACCOUNT, Some(AUTH));
        answer(request).await
    }

    /// Waits until a message is as wanted.
    pub async fn wait_message(&self, id: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        self.wait_until(|| self.world.message(id).filter(|message| wanted(message)))
            .await
    }

    pub async fn wait_until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        for _ in 0..2_000 {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited 20 s in vain");
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

pub fn number(webhook_url: &str) -> Value {
    json!({
        "waba_id": WABA, "phone_number_id": PHONE, "display_phone_number": "+1 415-555-0100",
        "access_token": TOKEN, "app_secret": SECRET, "verify_token": "verify-me",
        "webhook_url": webhook_url,
        "templates": [
            {"name": "order_ready", "language": "ar", "components": [{"type": "BODY", "text": "مرحبا {{1}}"}]},
            {"name": "offer", "language": "en", "category": "MARKETING", "status": "PAUSED",
                "components": [{"type": "BODY", "text": "Buy"}]},
        ],
    })
}

pub fn account(webhook_url: &str) -> Value {
    json!({
        "account_sid": ACCOUNT, "auth_token": AUTH,
        "numbers": [
            {"number": SMS, "channel": "sms", "webhook_url": webhook_url},
            {"number": "+14155550122", "channel": "whatsapp", "webhook_url": format!("{webhook_url}?a=1#rc=2&rp=all")},
        ],
        "messaging_services": [{"sid": SERVICE, "senders": [WHATSAPP, SMS]}],
        "contents": [{"sid": CONTENT, "friendly_name": "order", "language": "en", "body": "Hi {{1}}"}],
    })
}

pub fn text(body: &str, reference: &str) -> Value {
    json!({"messaging_product": "whatsapp", "to": CUSTOMER, "type": "text",
        "text": {"body": body}, "biz_opaque_callback_data": reference})
}

pub fn id_of(answer: &Value) -> String {
    let id = answer["messages"][0]["id"].as_str();
    id.expect("an id").to_owned()
}

/// Checks `X-Hub-Signature-256` over the raw body.
pub fn assert_signed_by_meta(hook: &Hook) {
    let sent = hook.header("x-hub-signature-256");
    let hex_part = sent.strip_prefix("sha256=").expect("sha256=");
    let tag = hex::decode(hex_part).expect("hex");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, &hook.body, &tag).expect("the signature fits the raw body");
}

/// The status of a Meta status webhook.
pub fn status_of(hook: &Hook) -> Option<String> {
    let change = hook.change();
    change["statuses"][0]["status"].as_str().map(str::to_owned)
}
