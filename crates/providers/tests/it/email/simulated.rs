//! Against the simulator: TLS, and whole conversations through its webhooks. It was written without a look at the
//! provider, so a misreading of the standards is not made twice.

use std::sync::Arc;
use std::time::Duration;
use wasel_domain::ChannelId;

use serde_json::json;
use wasel_domain::event::{Identity, IdentityKind, ProviderEvent};
use wasel_domain::{AttemptId, MessageId, MessageStatus, OutboundContent};
use wasel_providers::conformance::{Answer, Request};
use wasel_providers::{
    Accepted, ChannelKind, ErrorClass, OpenChannel, Outbound, Provider, SendError, WebhookRequest,
};
use wasel_simulator::{
    CustomerEmail, EmailAttachment, EmailBounce, MailFaults, Mailbox, Simulator, World,
};

use super::{SECRET, provider};
use crate::stand_in::{self, Seen, StandIn};

struct Stage {
    simulator: Simulator,
    world: World,
    webhooks: StandIn,
}

impl Stage {
    async fn new() -> Self {
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let world = simulator.world();
        let webhooks = StandIn::start([Answer::new(200, "")]).await;
        let mailbox = Mailbox {
            address: "shop@example.com".to_owned(),
            user: "shop".to_owned(),
            password: "pass word".to_owned(),
            webhook_url: webhooks.base.clone(),
            webhook_secret: SECRET.to_owned(),
        };
        world.register_mailbox(mailbox).unwrap();
        Self {
            simulator,
            world,
            webhooks,
        }
    }

    fn starttls(&self) -> String {
        format!(
            "smtp://shop:pass%20word@{}?tls=required",
            self.world.mail_server().smtp
        )
    }

    fn smtps(&self) -> String {
        format!(
            "smtps://shop:pass%20word@{}",
            self.world.mail_server().smtps
        )
    }

    /// A channel that trusts the simulator's root.
    fn channel(&self, url: &str) -> Arc<dyn OpenChannel> {
        open(url, Some(self.world.mail_server().ca_pem))
    }

    /// The webhook requests, once there are so many.
    async fn posted(&self, count: usize) -> Vec<Seen> {
        for _ in 0..2_000 {
            let seen = self.webhooks.seen();
            if seen.len() >= count {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited 20 s in vain");
    }
}

fn open(url: &str, ca: Option<String>) -> Arc<dyn OpenChannel> {
    let settings = json!({"from": "Shop <shop@example.com>", "smtp_ca": ca});
    let secrets = json!({"smtp_url": url, "webhook_secret": SECRET});
    provider()
        .open(
            ChannelId::generate(),
            ChannelKind::Email,
            &settings,
            &secrets,
        )
        .unwrap()
}

async fn send(
    channel: &Arc<dyn OpenChannel>,
    attempt_id: AttemptId,
) -> Result<Accepted, SendError> {
    let content = OutboundContent::Email {
        subject: "طلبك".to_owned(),
        text: Some("Which colour?".to_owned()),
        html: None,
    };
    let message = Outbound {
        message_id: MessageId::generate(),
        attempt_id,
        to: &Identity::new(IdentityKind::Email, "sara@customer.example"),
        content: &content,
        quoted_message_id: None,
        group_id: None,
        thread: None,
        status_callback: None,
    };
    channel.send(&stand_in::client(), &message).await
}

/// Verified and parsed as the server does.
fn read(channel: &Arc<dyn OpenChannel>, seen: &Seen) -> (Vec<ProviderEvent>, Request) {
    let request = Request {
        method: seen.method.clone(),
        url: seen.path.clone(),
        headers: seen.headers.clone(),
        body: seen.body.clone(),
    };
    let webhook = WebhookRequest {
        received_at: chrono::Utc::now(),
        ..request.as_webhook()
    };
    assert_eq!(channel.verify(&webhook), Ok(()));
    let events = provider().parse(&webhook).unwrap();
    let ours = channel.routing_keys();
    assert!(events.iter().all(|event| ours.contains(&event.routes[0])));
    (
        events.into_iter().map(|event| event.event).collect(),
        request,
    )
}

#[tokio::test]
async fn mail_goes_over_tls_from_the_start_and_by_starttls() {
    let stage = Stage::new().await;
    for url in [stage.starttls(), stage.smtps()] {
        send(&stage.channel(&url), AttemptId::generate())
            .await
            .unwrap();
    }
    let mails = stage.world.emails();
    assert_eq!(mails.len(), 2);
    assert!(mails.iter().all(|mail| mail.over_tls));
    assert_eq!(mails[0].subject, "طلبك");
    stage.simulator.stop().await;
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_stops_the_mail() {
    let stage = Stage::new().await;
    let other = Stage::new().await;
    let roots = [None, Some(other.world.mail_server().ca_pem)];
    for url in [stage.starttls(), stage.smtps()] {
        for root in roots.clone() {
            let error = send(&open(&url, root), AttemptId::generate())
                .await
                .unwrap_err();
            assert_eq!(error.class, ErrorClass::Transient, "{url}");
            assert!(error.detail.contains("certificate"), "{error}");
        }
    }
    assert!(stage.world.emails().is_empty());
}

#[tokio::test]
async fn the_wrong_password_or_sender_blocks_the_channel() {
    let stage = Stage::new().await;
    let wrong = stage.smtps().replace("pass%20word", "wrong");
    let error = send(&stage.channel(&wrong), AttemptId::generate())
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::ChannelBlocked);
    assert_eq!(error.code.as_deref(), Some("smtp_535 5.7.8"));
}

#[tokio::test]
async fn a_lost_reply_is_ambiguous_and_the_message_is_there() {
    let stage = Stage::new().await;
    let channel = stage.channel(&stage.smtps());
    stage.world.set_mail_faults(MailFaults {
        greylist: 1,
        drop_before_reply: 1,
        ..MailFaults::default()
    });
    let error = send(&channel, AttemptId::generate()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert_eq!(error.retry_after, Some(Duration::from_secs(60)));
    let error = send(&channel, AttemptId::generate()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Ambiguous);
    assert_eq!(stage.world.emails().len(), 1);
}

#[tokio::test]
async fn an_answer_comes_home_with_its_file() {
    let stage = Stage::new().await;
    let channel = stage.channel(&stage.smtps());
    let accepted = send(&channel, AttemptId::generate()).await.unwrap();
    let id = stage
        .world
        .send_email(CustomerEmail {
            in_reply_to: Some(accepted.provider_message_id.clone()),
            name: "سارة علي".to_owned(),
            text: "الأزرق، من فضلك".to_owned(),
            attachments: vec![EmailAttachment {
                filename: "صورة.png".to_owned(),
                mime_type: "image/png".to_owned(),
                base64: "iVBORw0KGgo=".to_owned(),
            }],
            ..CustomerEmail::default()
        })
        .unwrap();
    let (events, request) = read(&channel, &stage.posted(1).await[0]);
    let [ProviderEvent::Message(message)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(message.provider_message_id, id);
    assert_eq!(message.customer.name.as_deref(), Some("سارة علي"));
    assert_eq!(
        message.customer.identities[0].value,
        "sara@customer.example"
    );
    assert_eq!(message.content.text.as_deref(), Some("الأزرق، من فضلك"));
    assert_eq!(message.content.detail["subject"], "Re: طلبك");
    assert_eq!(
        message.quoted_message_id,
        Some(accepted.provider_message_id.clone())
    );
    assert_eq!(message.thread_ids, [accepted.provider_message_id]);
    let file = &message.content.media[0];
    assert_eq!(file.filename.as_deref(), Some("صورة.png"));
    let http = stand_in::client();
    let from = wasel_providers::FetchFrom {
        http: &http,
        webhook_body: Some(&request.body),
    };
    let fetched = channel.fetch_media(from, file, 100).await.unwrap();
    assert_eq!(&fetched.bytes[..], b"\x89PNG\r\n\x1a\n");
    assert_eq!(fetched.mime_type, "image/png");
}

#[tokio::test]
async fn a_bounce_comes_home_to_its_attempt() {
    let stage = Stage::new().await;
    let channel = stage.channel(&stage.starttls());
    stage.world.set_mail_faults(MailFaults {
        bounce: 1,
        ..MailFaults::default()
    });
    let attempt = AttemptId::generate();
    let accepted = send(&channel, attempt).await.unwrap();
    let (events, _) = read(&channel, &stage.posted(1).await[0]);
    let [ProviderEvent::Status(status)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(status.provider_message_id, accepted.provider_message_id);
    assert_eq!(status.attempt_id, Some(attempt));
    assert_eq!(status.status, MessageStatus::Failed);
    let error = status.error.as_ref().unwrap();
    assert_eq!(error.code, "5.1.1");
    assert!(!error.message.contains('@'), "{error:?}");

    let delivered = EmailBounce {
        action: "delivered".to_owned(),
        status: "2.0.0".to_owned(),
        ..EmailBounce::of(accepted.provider_message_id)
    };
    stage.world.bounce_email(&delivered).unwrap();
    let (events, _) = read(&channel, &stage.posted(2).await[1]);
    assert!(
        matches!(&events[..], [ProviderEvent::Status(status)] if status.status == MessageStatus::Delivered),
        "{events:?}"
    );
}
