//! A tenant to test with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Answer, TestApp};

/// A declared tenant: what both sides know of it.
pub struct Org {
    pub id: Uuid,
    pub slug: String,
    /// Meta.
    pub phone_number_id: String,
    pub app_secret: String,
    pub verify_token: String,
    /// Twilio.
    pub account_sid: String,
    pub auth_token: String,
    /// E.164 of the SMS number.
    pub sms_number: String,
    /// E.164 of Twilio's WhatsApp number.
    pub whatsapp_number: String,
    /// Channel ids.
    pub whatsapp: Uuid,
    pub sms: Uuid,
    pub twilio_whatsapp: Uuid,
    pub people: People,
}

/// The members and their tokens.
pub struct People {
    pub owner: Uuid,
    pub agent: Uuid,
    pub viewer: Uuid,
    pub owner_token: String,
    pub agent_token: String,
    pub viewer_token: String,
}

/// A tenant's mailbox, known to the simulated mail server.
pub struct Mailbox {
    pub channel: Uuid,
    pub address: String,
    /// Signs inbound mail.
    pub secret: String,
}

/// Everybody's password.
pub(crate) const PASSWORD: &str = "a good password";

impl Org {
    pub const PASSWORD: &'static str = PASSWORD;

    pub(crate) async fn declare(app: &TestApp, slug: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let phone_number_id = format!("{}", 106_540_352_240_000_u64 + u64::from(n));
        let waba_id = format!("{}", 102_290_129_340_000_u64 + u64::from(n));
        let display = format!("+1415555{n:04}");
        let account_sid = format!("AC{n:032x}");
        let sms_number = format!("+1202555{n:04}");
        let whatsapp_number = format!("+1303555{n:04}");
        let (app_secret, verify_token) = (
            format!("app-secret-of-{slug}"),
            format!("verify-token-of-{slug}"),
        );
        let (auth_token, access_token) = (
            format!("auth-token-of-{slug}"),
            format!("access-token-of-{slug}"),
        );
        let report = app
            .apply(&format!(
                r#"
                [[organizations]]
                slug = "{slug}"
                name = "Organisation {slug}"
                timezone = "Africa/Cairo"
                locale = "ar-EG"
                [[organizations.users]]
                email = "owner@{slug}.test"
                password = "{PASSWORD}"
                role = "owner"
                [[organizations.users]]
                email = "agent@{slug}.test"
                password = "{PASSWORD}"
                role = "agent"
                [[organizations.users]]
                email = "viewer@{slug}.test"
                password = "{PASSWORD}"
                role = "viewer"
                [[organizations.channels]]
                kind = "whatsapp_cloud"
                name = "WhatsApp"
                waba_id = "{waba_id}"
                phone_number_id = "{phone_number_id}"
                display_phone_number = "{display}"
                access_token = "{access_token}"
                app_secret = "{app_secret}"
                verify_token = "{verify_token}"
                [[organizations.channels]]
                kind = "twilio_sms"
                name = "SMS"
                account_sid = "{account_sid}"
                auth_token = "{auth_token}"
                from = "{sms_number}"
                [[organizations.channels]]
                kind = "twilio_whatsapp"
                name = "WhatsApp by Twilio"
                account_sid = "{account_sid}"
                auth_token = "{auth_token}"
                from = "{whatsapp_number}"
                "#
            ))
            .await
            .organizations
            .remove(0);
        let users: HashMap<&str, Uuid> = report
            .users
            .iter()
            .map(|user| (user.email.as_str(), user.id))
            .collect();
        let user = |name: &str| users[format!("{name}@{slug}.test").as_str()];
        let channel = |kind: &str| {
            report
                .channels
                .iter()
                .find(|channel| channel.kind == kind)
                .unwrap()
                .id
        };
        let people = People {
            owner: user("owner"),
            agent: user("agent"),
            viewer: user("viewer"),
            owner_token: app.token(report.id, &format!("owner@{slug}.test")).await,
            agent_token: app.token(report.id, &format!("agent@{slug}.test")).await,
            viewer_token: app.token(report.id, &format!("viewer@{slug}.test")).await,
        };
        let world = app.world();
        let number = json!({
            "waba_id": waba_id, "phone_number_id": phone_number_id, "display_phone_number": display,
            "access_token": access_token, "app_secret": app_secret, "verify_token": verify_token,
            "webhook_url": format!("{}/api/webhooks/whatsapp", app.base),
            "templates": [{ "name": "order_ready", "language": "ar",
                "components": [{ "type": "BODY", "text": "طلبك {{1}} جاهز" }] }],
        });
        world
            .register_meta_number(serde_json::from_value(number).unwrap())
            .unwrap();
        let webhook = format!("{}/api/webhooks/twilio", app.base);
        let account = json!({
            "account_sid": account_sid, "auth_token": auth_token,
            "numbers": [
                { "number": sms_number, "channel": "sms", "webhook_url": webhook },
                { "number": whatsapp_number, "channel": "whatsapp", "webhook_url": webhook },
            ],
        });
        world
            .register_twilio_account(serde_json::from_value(account).unwrap())
            .unwrap();
        Self {
            id: report.id,
            slug: slug.to_owned(),
            phone_number_id,
            app_secret,
            verify_token,
            account_sid,
            auth_token,
            sms_number,
            whatsapp_number,
            whatsapp: channel("whatsapp_cloud"),
            sms: channel("twilio_sms"),
            twilio_whatsapp: channel("twilio_whatsapp"),
            people,
        }
    }

    /// Gives the tenant an e-mail channel.
    pub async fn mailbox(&self, app: &TestApp) -> Mailbox {
        let slug = &self.slug;
        let address = format!("shop@{slug}.example");
        let server = app.world().mail_server().smtp;
        let report = app
            .apply(&format!(
                r#"
                [[organizations]]
                slug = "{slug}"
                name = "Organisation {slug}"
                timezone = "Africa/Cairo"
                locale = "ar-EG"
                [[organizations.channels]]
                kind = "email"
                name = "Mail"
                from = "Shop of {slug} <{address}>"
                smtp_url = "smtp://shop:secret@{server}"
                "#
            ))
            .await;
        let channel = &report.organizations[0].channels[0];
        let secret = channel.webhook_secret.clone().expect("a secret was made");
        let mailbox = json!({
            "address": address, "user": "shop", "password": "secret",
            "webhook_url": format!("{}/api/webhooks/email", app.base), "webhook_secret": secret,
        });
        app.world()
            .register_mailbox(serde_json::from_value(mailbox).unwrap())
            .unwrap();
        Mailbox {
            channel: channel.id,
            address,
            secret,
        }
    }

    /// The owner's token.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.people.owner_token
    }

    /// The agent's token.
    #[must_use]
    pub fn agent(&self) -> &str {
        &self.people.agent_token
    }

    /// The only conversation, seen by the owner.
    pub async fn conversation(&self, app: &TestApp) -> Value {
        let list = app.get(self.owner(), "/v1/conversations").await.expect(200);
        let all = list["data"].as_array().unwrap();
        assert_eq!(all.len(), 1, "{list:#}");
        all[0].clone()
    }

    /// The thread of a conversation, newest first.
    pub async fn thread(&self, app: &TestApp, conversation: &Value) -> Vec<Value> {
        let path = format!(
            "/v1/conversations/{}/messages?limit=200",
            conversation["id"].as_str().unwrap()
        );
        app.get(self.owner(), &path).await.expect(200)["data"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// Asks for a text to be sent.
    pub async fn send(&self, app: &TestApp, channel: Uuid, to: &str, body: &str) -> Answer {
        let request =
            json!({ "channel_id": channel, "to": to, "content": { "type": "text", "body": body } });
        app.post(self.owner(), "/v1/messages", &request).await
    }
}
