use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::hmac;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use wasel_simulator::MailFaults;

use crate::support::{Stage, answer};

const SHOP: &str = "shop@example.com";
const MAIL: &str = "From: Shop <shop@example.com>\r\nTo: sara@customer.example\r\n\
    Subject: Hello\r\nMessage-ID: <1@example.com>\r\nX-Wasel-Attempt-Id: a1\r\n\r\n..dot\r\nhi\r\n.\r\n";

/// A mailbox whose mail goes to the stage's receiver.
async fn stage() -> Stage {
    let stage = Stage::new().await;
    let mailbox = json!({
        "address": SHOP, "user": "shop", "password": "secret",
        "webhook_url": stage.receiver.url, "webhook_secret": "key",
    });
    let put = stage
        .http
        .put(stage.url("/sim/email/mailboxes"))
        .json(&mailbox);
    assert_eq!(answer(put).await.0, 204);
    stage
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(stage: &Stage) -> Self {
        let (_, server) = answer(stage.http.get(stage.url("/sim/email/server"))).await;
        let address = server["smtp"].as_str().expect("address");
        assert!(
            server["ca_pem"]
                .as_str()
                .is_some_and(|pem| pem.contains("BEGIN CERTIFICATE"))
        );
        let socket = TcpStream::connect(address).await.expect("connects");
        let mut client = Self(BufReader::new(socket));
        assert_eq!(client.reply().await, "220");
        client
    }

    /// The code of the next reply; empty when the connection ended.
    async fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.expect("a line");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.chars().take(3).collect();
            }
        }
    }

    async fn say(&mut self, lines: &str) -> String {
        self.0
            .get_mut()
            .write_all(lines.as_bytes())
            .await
            .expect("written");
        self.reply().await
    }

    async fn log_in(&mut self) -> String {
        assert_eq!(self.say("EHLO test\r\n").await, "250");
        let plain = BASE64.encode("\0shop\0secret");
        self.say(&format!("AUTH PLAIN {plain}\r\n")).await
    }

    async fn send(&mut self) -> String {
        assert_eq!(self.say("MAIL FROM:<shop@example.com>\r\n").await, "250");
        let taken = self.say("RCPT TO:<sara@customer.example>\r\n").await;
        if taken != "250" {
            return taken;
        }
        assert_eq!(self.say("DATA\r\n").await, "354");
        self.say(MAIL).await
    }
}

#[tokio::test]
async fn several_messages_go_over_one_connection_and_commands_may_come_together() {
    let stage = stage().await;
    let mut client = Client::connect(&stage).await;
    assert_eq!(client.log_in().await, "235");
    assert_eq!(client.send().await, "250");
    let together = "MAIL FROM:<shop@example.com>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n";
    assert_eq!(client.say(together).await, "250");
    assert_eq!(client.reply().await, "250");
    assert_eq!(client.reply().await, "250");
    assert_eq!(client.reply().await, "354");
    assert_eq!(client.say(MAIL).await, "250");
    assert_eq!(client.say("QUIT\r\n").await, "221");

    let (_, received) = answer(stage.http.get(stage.url("/sim/email/received"))).await;
    assert_eq!(received.as_array().map(Vec::len), Some(2));
    assert_eq!(received[0]["message_id"], "1@example.com");
    assert_eq!(received[0]["attempt_id"], "a1");
    assert_eq!(received[0]["subject"], "Hello");
    assert_eq!(
        received[0]["text"].as_str().map(str::trim_end),
        Some(".dot\r\nhi")
    );
    assert_eq!(received[0]["html"], Value::Null);
    assert_eq!(
        received[1]["recipients"],
        json!(["a@b.example", "c@d.example"])
    );
}

#[tokio::test]
async fn only_the_owner_of_a_mailbox_may_send_from_it_and_nothing_too_large() {
    let stage = stage().await;
    let mut client = Client::connect(&stage).await;
    assert_eq!(client.say("MAIL FROM:<shop@example.com>\r\n").await, "530");
    assert_eq!(client.say("AUTH LOGIN\r\n").await, "334");
    assert_eq!(
        client.say(&format!("{}\r\n", BASE64.encode("shop"))).await,
        "334"
    );
    assert_eq!(
        client.say(&format!("{}\r\n", BASE64.encode("wrong"))).await,
        "535"
    );
    assert_eq!(client.log_in().await, "235");
    assert_eq!(client.say("MAIL FROM:<other@example.com>\r\n").await, "553");
    assert_eq!(
        client
            .say("MAIL FROM:<shop@example.com> SIZE=99999999\r\n")
            .await,
        "552"
    );
    assert_eq!(client.say("DATA\r\n").await, "503");
    assert_eq!(client.say("VRFY a\r\n").await, "502");
}

#[tokio::test]
async fn each_fault_strikes_as_often_as_it_was_told() {
    let stage = stage().await;
    let faults =
        json!({"refuse_login": 1, "greylist": 1, "reject_recipient": 1, "drop_before_reply": 1});
    let put = stage.http.put(stage.url("/sim/email/faults")).json(&faults);
    assert_eq!(answer(put).await.0, 204);
    let mut client = Client::connect(&stage).await;
    assert_eq!(client.log_in().await, "535");
    assert_eq!(client.log_in().await, "235");
    assert_eq!(client.send().await, "450");
    assert_eq!(client.send().await, "550");
    assert_eq!(client.send().await, "", "taken, and the connection cut");
    assert_eq!(stage.world.emails().len(), 1);
    assert_eq!(stage.world.mail_faults(), MailFaults::default());

    let mut client = Client::connect(&stage).await;
    assert_eq!(client.log_in().await, "235");
    assert_eq!(client.send().await, "250");
}

#[tokio::test]
async fn customers_and_reports_are_posted_signed_and_again_until_they_are_taken() {
    let stage = stage().await;
    stage.receiver.will_answer([(503, "text/plain", "later")]);
    let send = json!({"mailbox": SHOP, "from": "sara@customer.example", "subject": "سؤال", "text": "متى؟"});
    let post = stage.http.post(stage.url("/sim/email/send")).json(&send);
    let (status, sent) = answer(post).await;
    assert_eq!(status, 200, "{sent}");
    let hooks = stage.receiver.wait(2).await;
    assert_eq!(hooks[0].body, hooks[1].body);
    for hook in &hooks {
        assert_eq!(hook.header("content-type"), "message/rfc822");
        let signature = hook.header("x-wasel-signature");
        let (time, tag) = signature.split_once(",v1=").expect("two parts");
        let seconds = time.strip_prefix("t=").expect("time");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let message = [seconds.as_bytes(), b".", &hook.body[..]].concat();
        let tag = hex::decode(tag).expect("hex");
        hmac::verify(&key, &message, &tag).expect("the signature fits the raw body");
    }
    let text = String::from_utf8_lossy(&hooks[0].body).into_owned();
    assert!(
        text.starts_with("Delivered-To: shop@example.com\r\n"),
        "{text}"
    );
    assert!(text.contains(&format!(
        "Message-ID: <{}>",
        sent["id"].as_str().expect("id")
    )));

    let mut client = Client::connect(&stage).await;
    assert_eq!(client.log_in().await, "235");
    assert_eq!(client.send().await, "250");
    let bounce = json!({"message_id": "1@example.com", "status": "5.2.2"});
    let post = stage
        .http
        .post(stage.url("/sim/email/bounce"))
        .json(&bounce);
    assert_eq!(answer(post).await.0, 204);
    let hooks = stage.receiver.wait(3).await;
    let report = String::from_utf8_lossy(&hooks[2].body).into_owned();
    assert!(report.contains("Status: 5.2.2"), "{report}");
    assert!(report.contains("X-Wasel-Attempt-Id: a1"), "{report}");

    let unknown = json!({"message_id": "none"});
    let post = stage
        .http
        .post(stage.url("/sim/email/bounce"))
        .json(&unknown);
    assert_eq!(answer(post).await.0, 404);
    let nobody = json!({"mailbox": "a@b.example", "from": "c@d.example"});
    let post = stage.http.post(stage.url("/sim/email/send")).json(&nobody);
    assert_eq!(answer(post).await.0, 404);
}
