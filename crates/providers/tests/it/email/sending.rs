//! Sending, against a mail server that follows a script.

use std::sync::Arc;
use std::time::Duration;
use wasel_domain::ChannelId;

use mail_parser::MessageParser;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use wasel_domain::content::{MediaSource, OutboundMedia, OutboundTemplate};
use wasel_domain::event::{Identity, IdentityKind};
use wasel_domain::{AttemptId, MessageId, MessageStatus, OutboundContent};
use wasel_providers::{
    Accepted, ChannelKind, ErrorClass, OpenChannel, Outbound, Provider, SendError, Thread,
};

use super::server::{GREETING, HANG_UP, MESSAGE, Server};
use super::{PASSWORD, provider, subject};
use crate::stand_in;

fn channel(url: &str) -> Arc<dyn OpenChannel> {
    let url = url.replace("://", &format!("://shop:{PASSWORD}@"));
    provider()
        .open(
            ChannelId::generate(),
            ChannelKind::Email,
            &json!({"from": "متجر <Shop@example.com>"}),
            &json!({"smtp_url": url}),
        )
        .unwrap()
}

struct Sending {
    message_id: MessageId,
    to: Identity,
    content: OutboundContent,
    quoted: Option<&'static str>,
    thread: Option<Thread>,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            message_id: MessageId::generate(),
            to: Identity::new(IdentityKind::Email, "sara@customer.example"),
            content: text("The secret body of it"),
            quoted: None,
            thread: None,
        }
    }
}

impl Sending {
    async fn through(&self, channel: &Arc<dyn OpenChannel>) -> Result<Accepted, SendError> {
        self.attempt(channel, AttemptId::generate()).await
    }

    async fn attempt(
        &self,
        channel: &Arc<dyn OpenChannel>,
        attempt_id: AttemptId,
    ) -> Result<Accepted, SendError> {
        let message = Outbound {
            message_id: self.message_id,
            attempt_id,
            to: &self.to,
            content: &self.content,
            quoted_message_id: self.quoted,
            group_id: None,
            thread: self.thread.as_ref(),
            status_callback: None,
        };
        channel.send(&stand_in::client(), &message).await
    }
}

fn text(body: &str) -> OutboundContent {
    OutboundContent::Text {
        body: body.to_owned(),
        preview_url: false,
    }
}

/// What the server got of one sending.
async fn received(sending: Sending) -> String {
    let server = Server::start().await;
    sending.through(&channel(&server.url)).await.unwrap();
    server.messages().remove(0)
}

fn header<'a>(mail: &'a str, name: &str) -> Option<&'a str> {
    let head = mail.split("\r\n\r\n").next().unwrap();
    let start = head.find(&format!("{name}: "))? + name.len() + 2;
    // A folded header goes on with a space.
    let mut end = start;
    for line in head[start..].split_inclusive("\r\n") {
        if end > start && !line.starts_with(' ') {
            break;
        }
        end += line.len();
    }
    Some(head[start..end].trim_end())
}

#[tokio::test]
async fn a_message_the_server_takes_is_sent_under_an_id_that_every_attempt_shares() {
    let server = Server::start().await;
    let channel = channel(&server.url);
    let sending = Sending::default();
    let attempts = [AttemptId::generate(), AttemptId::generate()];
    for attempt in attempts {
        let accepted = sending.attempt(&channel, attempt).await.unwrap();
        assert_eq!(
            accepted,
            Accepted {
                provider_message_id: format!("{}@example.com", sending.message_id),
                status: Some(MessageStatus::Sent),
                recipient: vec![sending.to.clone()],
            }
        );
    }
    let mails = server.messages();
    for (mail, attempt) in mails.iter().zip(attempts) {
        let id = format!("<{}@example.com>", sending.message_id);
        assert_eq!(header(mail, "Message-ID"), Some(id.as_str()));
        let attempt = attempt.to_string();
        assert_eq!(header(mail, "X-Wasel-Attempt-Id"), Some(attempt.as_str()));
        assert_eq!(header(mail, "To"), Some("sara@customer.example"));
        assert!(header(mail, "Date").is_some());
        assert_eq!(header(mail, "References"), None);
    }
    assert_eq!(mails.len(), 2);
    assert_eq!(server.connections(), 1, "the connection is kept");
    let commands = server.commands();
    assert!(
        commands.contains(&"MAIL FROM:<Shop@example.com>".to_owned()),
        "{commands:?}"
    );
    assert!(
        commands.contains(&"RCPT TO:<sara@customer.example>".to_owned()),
        "{commands:?}"
    );
}

#[tokio::test]
async fn arabic_arrives_as_it_was_written() {
    let mail = received(Sending {
        content: OutboundContent::Email {
            subject: "طلبك رقم ١٢ في الطريق إليك اليوم، ونرجو أن تكون في انتظاره".to_owned(),
            text: Some("مرحبا سارة\nطلبك في الطريق.\n.".to_owned()),
            html: Some("<p dir=rtl>مرحبا <b>سارة</b></p>".to_owned()),
        },
        ..Sending::default()
    })
    .await;
    assert!(mail.is_ascii(), "for servers without 8BITMIME: {mail}");
    let parsed = MessageParser::default().parse(mail.as_bytes()).unwrap();
    assert_eq!(
        parsed.subject(),
        Some("طلبك رقم ١٢ في الطريق إليك اليوم، ونرجو أن تكون في انتظاره")
    );
    assert_eq!(parsed.from().unwrap().first().unwrap().name(), Some("متجر"));
    let text = parsed.body_text(0).unwrap().replace("\r\n", "\n");
    assert_eq!(text.trim_end(), "مرحبا سارة\nطلبك في الطريق.\n.");
    assert_eq!(
        parsed.body_html(0).unwrap().trim_end(),
        "<p dir=rtl>مرحبا <b>سارة</b></p>"
    );
    assert!(
        header(&mail, "Content-Type")
            .unwrap()
            .starts_with("multipart/alternative")
    );
}

#[tokio::test]
async fn html_alone_gets_a_text_beside_it() {
    let mail = received(Sending {
        content: OutboundContent::Email {
            subject: "Hello".to_owned(),
            text: None,
            html: Some("<div>One &amp; two</div><div>three</div>".to_owned()),
        },
        ..Sending::default()
    })
    .await;
    let parsed = MessageParser::default().parse(mail.as_bytes()).unwrap();
    assert_eq!(
        parsed.body_text(0).unwrap().trim_end(),
        "One & two\r\nthree"
    );
}

#[tokio::test]
async fn an_answer_names_what_it_answers_and_keeps_the_subject() {
    let thread = Thread {
        subject: Some("الطلب".to_owned()),
        message_ids: vec![
            "first@example.com".to_owned(),
            "not an id\r\nBcc: all@example.com".to_owned(),
            "CAF1=abc@mail.gmail.com".to_owned(),
        ],
    };
    let mail = received(Sending {
        thread: Some(thread.clone()),
        ..Sending::default()
    })
    .await;
    assert_eq!(
        header(&mail, "In-Reply-To"),
        Some("<CAF1=abc@mail.gmail.com>")
    );
    assert_eq!(
        header(&mail, "References"),
        Some("<first@example.com>\r\n <CAF1=abc@mail.gmail.com>")
    );
    assert_eq!(header(&mail, "Bcc"), None);
    let parsed = MessageParser::default().parse(mail.as_bytes()).unwrap();
    assert_eq!(parsed.subject(), Some("Re: الطلب"));

    let mail = received(Sending {
        thread: Some(thread),
        quoted: Some("first@example.com"),
        content: OutboundContent::Email {
            subject: "Its own".to_owned(),
            text: Some("hi".to_owned()),
            html: None,
        },
        ..Sending::default()
    })
    .await;
    assert_eq!(header(&mail, "In-Reply-To"), Some("<first@example.com>"));
    assert_eq!(header(&mail, "Subject"), Some("Its own"));

    let long = Thread {
        subject: None,
        message_ids: (0..100)
            .map(|number| format!("{number}@example.com"))
            .collect(),
    };
    let mail = received(Sending {
        thread: Some(long),
        ..Sending::default()
    })
    .await;
    let references = header(&mail, "References").unwrap();
    assert_eq!(references.split_whitespace().count(), 20);
    assert!(references.starts_with("<0@example.com>"), "{references}");
    assert!(references.ends_with("<99@example.com>"), "{references}");
    assert_eq!(header(&mail, "Subject"), Some("The secret body of it"));
}

#[tokio::test]
async fn files_and_places_go_as_links() {
    let file = OutboundContent::Document(OutboundMedia {
        source: MediaSource::Link("https://files.example/invoice.pdf?a=1".to_owned()),
        caption: Some("Your invoice".to_owned()),
        filename: Some("invoice.pdf".to_owned()),
        voice: false,
    });
    let place = OutboundContent::Location {
        latitude: 30.0444,
        longitude: 31.2357,
        name: Some("Shop".to_owned()),
        address: None,
    };
    let template = OutboundContent::Template(OutboundTemplate {
        text: Some("Your order is ready".to_owned()),
        ..OutboundTemplate::default()
    });
    for (content, words) in [
        (
            file,
            "Your invoice\r\n\r\ninvoice.pdf\r\n\r\nhttps://files.example/invoice.pdf?a=1",
        ),
        (
            place,
            "Shop\r\nhttps://www.google.com/maps/search/?api=1&query=30.0444%2C31.2357",
        ),
        (template, "Your order is ready"),
    ] {
        let mail = received(Sending {
            content,
            ..Sending::default()
        })
        .await;
        let parsed = MessageParser::default().parse(mail.as_bytes()).unwrap();
        assert_eq!(parsed.body_text(0).unwrap().trim_end(), words);
    }
}

#[test]
fn what_mail_cannot_carry_is_refused_by_field() {
    let channel = subject().open("");
    let email = |subject: &str, text: Option<&str>, html: Option<&str>| OutboundContent::Email {
        subject: subject.to_owned(),
        text: text.map(str::to_owned),
        html: html.map(str::to_owned),
    };
    let media = |source| OutboundMedia {
        source,
        caption: None,
        filename: None,
        voice: false,
    };
    let link = |link: &str| media(MediaSource::Link(link.to_owned()));
    for (content, field) in [
        (text(" "), "content.body"),
        (text(&"x".repeat(100_001)), "content.body"),
        (
            email("a\r\nBcc: b@c.example", Some("hi"), None),
            "content.subject",
        ),
        (email("a\nb", Some("hi"), None), "content.subject"),
        (email(" ", Some("hi"), None), "content.subject"),
        (email("a", None, None), "content.text"),
        (email("a", Some(" "), Some(" ")), "content.text"),
        (
            OutboundContent::Image(link("file:///etc/passwd")),
            "content.link",
        ),
        (
            OutboundContent::Image(link("https://x.example/a b")),
            "content.link",
        ),
        (
            OutboundContent::Video(media(MediaSource::ProviderId("1".to_owned()))),
            "content.provider_id",
        ),
        (
            OutboundContent::Sticker(link("https://x.example/a")),
            "content.type",
        ),
        (
            OutboundContent::Contacts {
                contacts: Vec::new(),
            },
            "content.type",
        ),
        (
            OutboundContent::Interactive {
                interactive: json!({}),
            },
            "content.type",
        ),
        (
            OutboundContent::Reaction {
                message_id: "a".to_owned(),
                emoji: "b".to_owned(),
            },
            "content.type",
        ),
        (
            OutboundContent::Template(OutboundTemplate::default()),
            "content.text",
        ),
    ] {
        let error = channel.check(&content).unwrap_err();
        assert_eq!(error.field, field, "{content:?}");
    }
    channel.check(&email("a", None, Some("<p>hi</p>"))).unwrap();
}

#[tokio::test]
async fn every_refusal_has_its_class_and_code_and_repeats_nothing_private() {
    use ErrorClass::*;
    let unknown = "550 5.1.1 <sara@customer.example>: sara unknown here";
    let spam = "554-5.7.1 The secret body of it\r\n554 5.7.1 looks like spam";
    for (to, answer, class, code) in [
        (GREETING, "421 too busy", Transient, Some("smtp_421")),
        (
            GREETING,
            "554 5.7.1 you are listed",
            ChannelBlocked,
            Some("smtp_554 5.7.1"),
        ),
        (
            "AUTH",
            "535 5.7.8 no",
            ChannelBlocked,
            Some("smtp_535 5.7.8"),
        ),
        ("AUTH", "454 4.7.0 later", Transient, Some("smtp_454 4.7.0")),
        (
            "MAIL",
            "550 5.7.1 not your address",
            ChannelBlocked,
            Some("smtp_550 5.7.1"),
        ),
        ("RCPT", unknown, Recipient, Some("smtp_550 5.1.1")),
        (
            "RCPT",
            "450 4.2.0 greylisted",
            Transient,
            Some("smtp_450 4.2.0"),
        ),
        ("DATA", "451 no", Transient, Some("smtp_451")),
        (MESSAGE, spam, Content, Some("smtp_554 5.7.1")),
        (MESSAGE, "552 too large", Content, Some("smtp_552")),
        (
            MESSAGE,
            "452 4.3.1 disk full",
            Transient,
            Some("smtp_452 4.3.1"),
        ),
        (MESSAGE, HANG_UP, Ambiguous, None),
        ("DATA", HANG_UP, Transient, None),
        ("RCPT", HANG_UP, Transient, None),
        ("EHLO", HANG_UP, Transient, None),
        (GREETING, HANG_UP, Transient, None),
    ] {
        let server = Server::start().await;
        server.say(to, answer);
        let error = Sending::default()
            .through(&channel(&server.url))
            .await
            .unwrap_err();
        assert_eq!(
            (error.class, error.code.as_deref()),
            (class, code),
            "{to}: {answer}"
        );
        for private in [PASSWORD, "sara", "hop@example.com", "secret body"] {
            let words = format!("{error} {error:?}");
            assert!(!words.contains(private), "{to}: {words}");
        }
        let pause = answer.starts_with("450") || answer.starts_with("451");
        let expected = pause.then_some(Duration::from_secs(60));
        assert_eq!(error.retry_after, expected, "{answer}");
        assert!(server.messages().is_empty());
    }
}

#[tokio::test]
async fn a_failure_leaves_the_channel_usable() {
    let server = Server::start().await;
    let channel = channel(&server.url);
    // The login first: a kept connection has no second one.
    for (to, answer) in [
        ("AUTH", "535 no"),
        ("RCPT", "550 5.1.1 no"),
        (MESSAGE, HANG_UP),
    ] {
        server.say(to, answer);
        Sending::default().through(&channel).await.unwrap_err();
        server.consent_again();
        Sending::default().through(&channel).await.unwrap();
    }
    // A kept connection that the server no longer answers is replaced.
    server.say("NOOP", HANG_UP);
    Sending::default().through(&channel).await.unwrap();
    assert_eq!(server.messages().len(), 4);
}

#[tokio::test]
async fn answers_put_behind_the_one_to_starttls_end_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}?tls=required", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = BufReader::new(socket);
        for answer in [
            "220 mx.example\r\n",
            "250-mx.example\r\n250 STARTTLS\r\n",
            "220 go on\r\n250-mx.example\r\n250 AUTH PLAIN\r\n",
        ] {
            socket.write_all(answer.as_bytes()).await.unwrap();
            if !answer.starts_with("220 go") {
                socket.read_line(&mut String::new()).await.unwrap();
            }
        }
        // Says nothing more: whoever does not look at the answers waits for its part of the handshake.
        socket.read_to_end(&mut Vec::new()).await
    });
    let channel = channel(&url);
    let sending = Sending::default();
    let sent = tokio::time::timeout(Duration::from_secs(20), sending.through(&channel));
    let error = sent.await.unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
}

#[tokio::test]
async fn nobody_there_is_no_lost_answer() {
    let (base, _held) = stand_in::nobody();
    let url = base.replace("http", "smtp");
    let error = Sending::default()
        .through(&channel(&url))
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
}

#[tokio::test]
async fn a_channel_without_a_mail_server_says_so() {
    let channel = provider()
        .open(
            ChannelId::generate(),
            ChannelKind::Email,
            &subject().settings,
            &json!({}),
        )
        .unwrap();
    let error = Sending::default().through(&channel).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::ChannelBlocked);
    assert!(error.detail.contains("smtp_url"), "{error}");
}

#[tokio::test]
async fn a_recipient_that_is_no_address_is_the_recipients_fault() {
    let server = Server::start().await;
    for to in [
        "sara",
        "sara@b@c",
        "sara@customer.example\r\nRCPT TO:<x@y.example>",
    ] {
        let sending = Sending {
            to: Identity::new(IdentityKind::Email, to),
            ..Sending::default()
        };
        let error = sending.through(&channel(&server.url)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Recipient, "{to}");
    }
    assert_eq!(server.connections(), 0);
}
