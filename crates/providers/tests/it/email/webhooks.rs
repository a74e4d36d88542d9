//! Mail as mail programs and servers really write it, and what is read out of it. The requests come in on 2024-10-04 at
//! midnight (1728000000), the mails were written the evening before.

use std::time::Duration;
use wasel_domain::ChannelId;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use proptest::prelude::*;
use wasel_domain::MediaRef;
use wasel_domain::event::{InboundMessage, ProviderEvent};
use wasel_providers::conformance::{Request, WebhookCase};
use wasel_providers::{ErrorClass, FetchFrom, Provider, VerifyError};

use super::{OLD_SECRET, SECRET, provider, sign_at, subject};
use crate::stand_in;

const URL: &str = "https://wasel.example/api/webhooks/email";
const TOO_MANY: &str = "the mail has too many parts";
const RECEIVED_AT: i64 = 1_728_000_000;

macro_rules! case {
    ($name:literal, [$($line:literal),* $(,)?]) => {
        WebhookCase {
            name: $name,
            request: Request::post(
                URL,
                include_bytes!(concat!("../../payloads/email/", $name, ".eml")),
            )
            .header("content-type", "message/rfc822"),
            expected: vec![$($line),*],
            neighbours: Vec::new(),
        }
    };
}

pub fn cases() -> Vec<WebhookCase> {
    vec![
        case!(
            "arabic_iso_8859_6",
            [
                r##"message iso6@customer.example from email:sara@customer.example at 1727989200 text "مرحبا" {cc:[],to:["shop@example.com"]}"##,
            ]
        ),
        case!(
            "arabic_utf8_base64",
            [
                "message ar-b64@customer.example from email:sara@customer.example (سارة) at 1727989200 text \"مرحبا، أريد إلغاء الطلب.\" {cc:[],full_text:\"مرحبا، أريد إلغاء الطلب.\\n\\n\u{202b}في الخميس، 3 أكتوبر 2024 تمت كتابة ما يلي بواسطة \u{202a}Shop <shop@example.com>\u{202c}:\u{202c}\\n\\n> هل وصل؟\",subject:\"رد: الطلب\",to:[\"shop@example.com\"]} quotes 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com",
            ]
        ),
        case!(
            "arabic_windows_1256",
            [
                r##"message w1256@customer.example from email:sara@customer.example (سارة علي) at 1727989200 text "متى يصل طلبي؟" {cc:[],subject:"سؤال",to:["shop@example.com"]}"##,
            ]
        ),
        case!(
            "auto_reply",
            [
                r##"message ooo@customer.example from email:sara@customer.example (Sara) at 1727989200 text "I am away until Monday." {auto_submitted:"auto-replied",cc:[],subject:"Automatic reply: Your order",to:["shop@example.com"]} quotes 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com"##,
            ]
        ),
        case!(
            "bounce_exim_without_mime",
            [
                r##"status 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com failed at 1727989200 attempt 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03 error 5.1.1 "host mx.customer.example [192.0.2.1]: 550 5.1.1 [address] unknown""##,
            ]
        ),
        case!(
            "bounce_with_returned_mail",
            [
                r##"status 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com failed at 1727989200 attempt 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03 error 5.0.0 "failure notice""##,
            ]
        ),
        case!(
            "complaint",
            [r##"consent opted_out all by email:sara@customer.example at 1727989200"##,]
        ),
        case!(
            "dsn_delivered",
            [
                r##"status 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com delivered at 1727989200 attempt 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03"##,
            ]
        ),
        case!(
            "dsn_exchange",
            [
                r##"status 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com failed at 1727989200 attempt 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03 error 5.7.1 "550 5.7.1 RESOLVER.RST.NotAuthorized; not authorized""##,
            ]
        ),
        case!(
            "dsn_exim",
            [
                r##"status 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com failed at 1727989200 attempt 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03 error 5.2.2 "552-5.2.2 The email account that you tried to reach is over quota 552 5.2.2 [address]""##,
            ]
        ),
        case!(
            "dsn_gmail",
            [
                r##"status 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com failed at 1727989200 error 5.1.1 "550-5.1.1 The email account that you tried to reach does not exist. Please try 550 5.1.1 double-checking the recipient's email address for typos.""##,
            ]
        ),
        case!(
            "dsn_postfix",
            [
                r##"status 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com failed at 1727989200 attempt 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03 error 5.1.1 "550 5.1.1 [address] Recipient address rejected: User unknown in virtual mailbox table""##,
            ]
        ),
        case!(
            "dsn_postfix_delayed",
            [
                r##"notice email_delayed {code:"4.4.1",message:"connect to mx.customer.example[192.0.2.1]:25: Connection timed out",provider_message_id:"0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com"}"##,
            ]
        ),
        case!(
            "dsn_ses_rewritten",
            [
                r##"status 0102019253@eu-west-1.amazonses.com failed at 1727989200 attempt 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03 error 4.4.7 "550 4.4.7 Message expired: unable to deliver in 840 minutes.<421 4.4.0 Unable to lookup DNS for customer.example>""##,
            ]
        ),
        case!(
            "forward_as_attachment",
            [
                r##"message fwd@customer.example from email:sara@customer.example at 1727989200 text "What is this?\n\n> Which colour?" media(part:2 message/rfc822) {cc:[],subject:"Fwd: Your order",to:["shop@example.com"]} quotes 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com"##,
            ]
        ),
        case!(
            "gmail_reply",
            [
                r##"message CAF1=abc@mail.gmail.com from email:sara@customer.example (Sara Ali) at 1727987400 text "The blue one, please." {cc:["omar@customer.example"],full_text:"The blue one, please.\n\nOn Thu, Oct 3, 2024 at 11:00 PM Shop <shop@example.com> wrote:\n\n> Which colour?\n>\n> Shop",html:"<div dir=\"ltr\">The blue one, please.</div><br><div class=\"gmail_quote\">Which colour?</div>\n",subject:"Re: Your order",to:["shop+orders@example.com"]} quotes 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com"##,
            ]
        ),
        case!(
            "html_only",
            [
                r##"message html@customer.example from email:sara@customer.example at 1727989200 text "Hello & welcome\nSecond line" {cc:[],html:"<html><head><style>p {color: red}</style></head><body><div>Hello &amp; welcome</div><div>Second line</div></body></html>\n",subject:"Hello",to:["shop@example.com"]}"##,
            ]
        ),
        case!(
            "missing_message_id_and_odd_date",
            [
                r##"message sha256:d9147f101da91a406e0f0a5999deeb5de4f68bf5c379eeec800007343febb2f8 from email:sara@customer.example at 1728000000 text "Hello" {cc:[],subject:"Hello",to:[]}"##,
            ]
        ),
        case!(
            "only_a_photo",
            [
                r##"message photo@customer.example from email:sara@customer.example at 1727989200 image media(part:2 image/png photo.png) {cc:[],to:["shop@example.com"]}"##,
            ]
        ),
        case!("our_own_mail_again", []),
        case!(
            "outlook_reply_with_attachments",
            [
                r##"message AM0PR01@eurprd01.prod.exchangelabs.com from email:omar@firm.example (Omar Hassan) at 1727989200 text "Please see the invoice." media(part:5 image/png logo.png) media(part:6 application/pdf فاتورة.pdf) {cc:[],full_text:"Please see the invoice.\n\n________________________________\nFrom: Shop <shop@example.com>\nSent: Thursday, October 3, 2024 11:00 PM\nTo: Omar Hassan\nSubject: Your order\n\nWhich colour?",html:"<p>Please see the invoice. <img src=\"cid:logo\"></p>\n",reply_to:["purchasing@firm.example"],subject:"RE: Your order",to:["shop@example.com"]} quotes 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com"##,
            ]
        ),
        case!("read_receipt", []),
        case!(
            "truncated",
            [
                r##"message cut@customer.example from email:sara@customer.example at 1727989200 text "The beginning" media(part:2 application/pdf a.pdf) {cc:[],subject:"Cut",to:["shop@example.com"]}"##,
            ]
        ),
    ]
}

fn case(name: &str) -> WebhookCase {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

fn message(request: &Request) -> (Vec<String>, InboundMessage) {
    let mut events = provider().parse(&request.as_webhook()).unwrap();
    let event = events.remove(0);
    match event.event {
        ProviderEvent::Message(message) => (event.routes, message),
        other => panic!("{other:?}"),
    }
}

fn mail(text: &str) -> Request {
    Request {
        body: Bytes::copy_from_slice(text.as_bytes()),
        ..Request::post(URL, b"")
    }
}

fn parse(request: &Request) -> Result<Vec<ProviderEvent>, String> {
    provider()
        .parse(&request.as_webhook())
        .map(|events| events.into_iter().map(|event| event.event).collect())
        .map_err(|error| error.to_string())
}

#[test]
fn the_most_specific_address_names_the_channel_first_and_a_tag_is_optional() {
    let (routes, message) = message(&case("gmail_reply").request);
    assert_eq!(
        routes,
        [
            "email:shop+orders@example.com",
            "email:shop@example.com",
            "email:omar@customer.example"
        ]
    );
    assert_eq!(
        message.thread_ids,
        [
            "0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b00@example.com",
            "first@example.com"
        ],
        "the newest first"
    );
    let envelope = "X-Envelope-To: b@example.com\nX-Original-To: A@Example.com\nFrom: c@d.example\nTo: \"d, e\" <e@example.com>, f@example.com\n\nhi";
    assert_eq!(
        super::webhooks::message(&mail(envelope)).0,
        [
            "email:a@example.com",
            "email:b@example.com",
            "email:e@example.com",
            "email:f@example.com"
        ]
    );
}

#[test]
fn line_ends_of_either_kind_give_the_same_events() {
    for case in cases() {
        let mut crlf = case.request.clone();
        let text = case.request.body.to_vec();
        let mut body = Vec::new();
        for byte in text {
            if byte == b'\n' {
                body.push(b'\r');
            }
            body.push(byte);
        }
        crlf.body = body.into();
        let strip = |events: Result<Vec<ProviderEvent>, String>| {
            // A hash of the bytes, and HTML as it stands, differ by right.
            let text = format!("{events:?}").replace("\\r", "");
            text.split("sha256:").next().unwrap().to_owned()
        };
        assert_eq!(
            strip(parse(&crlf)),
            strip(parse(&case.request)),
            "{}",
            case.name
        );
    }
}

#[test]
fn a_mail_for_nobody_or_from_nobody_is_refused() {
    for text in [
        "",
        "no mail at all",
        "From: a@b.example\n\nhi",
        "To: shop@example.com\n\nhi",
        "From: nobody\nTo: shop@example.com\n\nhi",
    ] {
        assert!(parse(&mail(text)).is_err(), "{text:?}");
    }
    let many = format!(
        "From: a@b.example\nTo: shop@example.com\nContent-Type: multipart/mixed; boundary=x\n\n{}",
        "--x\n\n".repeat(60_000)
    );
    assert!(parse(&mail(&many)).is_err());
    let searches = format!(
        "From: a@b.example\nTo: shop@example.com\n{}\n",
        "Content-Type: multipart/mixed; boundary=x\n\n".repeat(2_000)
    );
    assert!(parse(&mail(&searches)).is_err());
}

const HEAD: &str = "From: a@b.example\nTo: shop@example.com\n";

#[test]
fn a_boundary_in_the_middle_of_a_line_counts() {
    let bomb = |parts: usize| {
        let lines = "x--b\n\n".repeat(parts);
        mail(&format!(
            "{HEAD}Content-Type: multipart/mixed; boundary=b\n\n{lines}"
        ))
    };
    assert!(parse(&bomb(1_000)).is_ok());
    assert_eq!(parse(&bomb(60_000)), Err(TOO_MANY.to_owned()));
}

#[test]
fn dashes_without_a_boundary_part_nothing() {
    let table = format!("{HEAD}\n{}", "-".repeat(200_000));
    assert!(parse(&mail(&table)).is_ok());
}

#[test]
fn an_encoded_mail_within_the_mail_is_refused_before_it_is_decoded() {
    use base64::Engine as _;
    let inner =
        "Content-Type: multipart/mixed; boundary=b\n\n".to_owned() + &"--b\n\n".repeat(60_000);
    let encoded = base64::engine::general_purpose::STANDARD.encode(&inner);
    for (encoding, body) in [
        ("base64", &encoded),
        ("BASE64", &encoded),
        (
            "\n quoted-printable",
            &inner.replace('=', "=3D").replace('-', "=2D"),
        ),
    ] {
        let alone = format!(
            "{HEAD}Content-Type: message/rfc822\nContent-Transfer-Encoding: {encoding}\n\n{body}"
        );
        let as_a_part = format!(
            "{HEAD}Content-Type: multipart/digest; boundary=x\n\n--x\nContent-Transfer-Encoding: {encoding}\n\n{body}\n--x--\n"
        );
        for text in [alone, as_a_part] {
            assert_eq!(
                parse(&mail(&text)),
                Err("a mail within the mail is encoded".to_owned()),
                "{encoding}"
            );
        }
    }
}

#[test]
fn what_takes_the_parser_more_than_one_look_at_each_byte_is_refused() {
    let searches = format!(
        "{HEAD}{}\n{}",
        "Content-Type: multipart/mixed; boundary=x\n\n".repeat(300),
        "a\n".repeat(3_000_000)
    );
    let continuations = (1..30_000).fold(format!("{HEAD}Content-Type: text/plain"), |text, n| {
        text + &format!(";\n x*{n}=a")
    });
    let fields = HEAD.to_owned() + &"a:\n".repeat(600_000);
    let mails = HEAD.to_owned() + &"Content-Type: message/rfc822\n\n".repeat(60_000);
    for text in [searches, continuations, fields, mails] {
        assert_eq!(parse(&mail(&text)), Err(TOO_MANY.to_owned()));
    }
}

#[test]
fn mails_nested_thousands_deep_need_no_stack() {
    let mut text = "From: a@b.example\nTo: shop@example.com\n".to_owned();
    text += &"Content-Type: message/rfc822\n\n".repeat(50_000);
    parse(&mail(&text)).unwrap();
}

#[test]
fn a_mail_that_is_all_subject_or_all_nothing_is_still_a_message() {
    let head = "From: a@b.example\nTo: shop@example.com\n";
    let (_, only_subject) = message(&mail(&format!("{head}Subject: Call me\n\n")));
    assert_eq!(only_subject.content.text.as_deref(), Some("Call me"));
    let (_, nothing) = message(&mail(&format!("{head}\n")));
    assert_eq!(nothing.content.text, None);
}

#[test]
fn our_own_mail_to_another_mailbox_of_ours_is_a_message_and_to_the_same_one_is_none() {
    let text = "From: shop@example.com\nTo: help@example.com\nMessage-ID: <1@example.com>\nX-Wasel-Attempt-Id: 0197d5a2-7c3e-7bb1-9d5e-2f6a4c8e1b03\n\nhi";
    assert_eq!(parse(&mail(text)).unwrap().len(), 1);
    let back = format!("Delivered-To: shop@example.com\n{text}");
    assert_eq!(parse(&mail(&back)), Ok(Vec::new()));
    // A customer who copies themselves is a customer.
    let copied = "From: a@b.example\nTo: shop@example.com\nCc: a@b.example\n\nhi";
    assert_eq!(parse(&mail(copied)).unwrap().len(), 1);
}

#[test]
fn a_postmaster_who_attaches_a_mail_is_a_person_unless_it_is_ours_or_nobody_is_to_answer() {
    let report = String::from_utf8(case("bounce_with_returned_mail").request.body.to_vec());
    let report = report.unwrap().replace("MAILER-DAEMON@", "postmaster@");
    let is_report = |text: &str| match &parse(&mail(text)).unwrap()[..] {
        [ProviderEvent::Status(_)] => true,
        [ProviderEvent::Message(_)] => false,
        other => panic!("{other:?}"),
    };
    assert!(is_report(&report));
    let other = report.replace("X-Wasel-Attempt-Id", "X-Other");
    assert!(!is_report(&other));
    assert!(!is_report(&format!(
        "Return-Path: <postmaster@odd.example>\n{other}"
    )));
    assert!(is_report(&format!("Return-Path: <>\n{other}")));
    assert!(is_report(&format!(
        "X-Failed-Recipients: sara@customer.example\n{other}"
    )));
}

#[test]
fn a_complaint_about_mail_that_is_not_ours_opts_nobody_out() {
    let ours = String::from_utf8(case("complaint").request.body.to_vec()).unwrap();
    let forged = ours.replace("X-Wasel-Attempt-Id", "X-Other");
    let events = parse(&mail(&forged)).unwrap();
    assert!(
        matches!(&events[..], [ProviderEvent::Notice(notice)] if notice.topic == "email_feedback"),
        "{events:?}"
    );
}

#[test]
fn a_signature_holds_for_five_minutes_around_the_arrival_and_with_either_secret() {
    let channel = subject().open("");
    let verify = |request: &Request| channel.verify(&request.as_webhook());
    let mut request = case("gmail_reply").request;
    for (secret, seconds, expected) in [
        (SECRET, RECEIVED_AT, Ok(())),
        (OLD_SECRET, RECEIVED_AT - 300, Ok(())),
        (SECRET, RECEIVED_AT + 300, Ok(())),
        (SECRET, RECEIVED_AT - 301, Err(VerifyError::Mismatch)),
        (SECRET, RECEIVED_AT + 301, Err(VerifyError::Mismatch)),
        ("another", RECEIVED_AT, Err(VerifyError::Mismatch)),
    ] {
        sign_at(&mut request, secret, seconds);
        assert_eq!(verify(&request), expected, "{seconds}");
    }
}

#[test]
fn a_service_that_cannot_sign_gives_the_secret_as_password() {
    let channel = subject().open("");
    let with = |header: &str| {
        let mut request = case("gmail_reply").request;
        request
            .headers
            .insert(AUTHORIZATION, header.parse().unwrap());
        channel.verify(&request.as_webhook())
    };
    let basic = |pair: String| {
        use base64::Engine as _;
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        )
    };
    assert_eq!(with(&basic(format!("anybody:{SECRET}"))), Ok(()));
    assert_eq!(with(&basic(format!(":{OLD_SECRET}"))), Ok(()));
    assert_eq!(
        with(&basic(format!("{SECRET}:"))),
        Err(VerifyError::Mismatch)
    );
    assert_eq!(
        with(&basic("a:wrong".to_owned())),
        Err(VerifyError::Mismatch)
    );
    for malformed in ["Basic !", "Bearer token", "Basic"] {
        let error = Err(VerifyError::MalformedSignature("Authorization"));
        assert_eq!(with(malformed), error, "{malformed}");
    }
    // A wrong signature is not made good by a password.
    let mut both = case("gmail_reply").request;
    sign_at(&mut both, "another", RECEIVED_AT);
    let right = basic(format!("a:{SECRET}")).parse().unwrap();
    both.headers.insert(AUTHORIZATION, right);
    assert_eq!(
        channel.verify(&both.as_webhook()),
        Err(VerifyError::Mismatch)
    );
}

#[test]
fn a_channel_without_a_secret_believes_nobody() {
    let channel = provider()
        .open(
            ChannelId::generate(),
            subject().kind,
            &subject().settings,
            &serde_json::json!({}),
        )
        .unwrap();
    let mut request = case("gmail_reply").request;
    sign_at(&mut request, "", RECEIVED_AT);
    assert_eq!(
        channel.verify(&request.as_webhook()),
        Err(VerifyError::NoSecret)
    );
}

async fn fetch(
    request: &Request,
    media: &MediaRef,
    max: u64,
) -> Result<(Bytes, String), ErrorClass> {
    let http = stand_in::client();
    let from = FetchFrom {
        http: &http,
        webhook_body: Some(&request.body),
    };
    let channel = subject().open("");
    let fetched = tokio::time::timeout(
        Duration::from_secs(30),
        channel.fetch_media(from, media, max),
    );
    match fetched.await.unwrap() {
        Ok(file) => Ok((file.bytes, file.mime_type)),
        Err(error) => Err(error.class),
    }
}

#[tokio::test]
async fn files_come_out_of_the_mail_that_brought_them_decoded_and_bounded() {
    let request = case("outlook_reply_with_attachments").request;
    let files = message(&request).1.content.media;
    let (png, kind) = fetch(&request, &files[0], 1_000).await.unwrap();
    assert_eq!(
        (&png[..], kind.as_str()),
        (&b"\x89PNG\r\n\x1a\n tiny"[..], "image/png")
    );
    let (pdf, kind) = fetch(&request, &files[1], 16).await.unwrap();
    assert_eq!(
        (&pdf[..], kind.as_str()),
        (&b"%PDF-1.4 invoice"[..], "application/pdf")
    );
    assert_eq!(
        fetch(&request, &files[1], 15).await,
        Err(ErrorClass::Content)
    );

    let forward = case("forward_as_attachment").request;
    let files = message(&forward).1.content.media;
    let (inner, kind) = fetch(&forward, &files[0], 10_000).await.unwrap();
    let inner = String::from_utf8(inner.to_vec()).unwrap();
    assert_eq!(kind, "message/rfc822");
    assert!(inner.starts_with("From: Shop"), "{inner}");
    assert!(inner.trim_end().ends_with("Which colour?"), "{inner}");
}

#[tokio::test]
async fn a_file_that_is_not_in_the_mail_is_gone() {
    let request = case("outlook_reply_with_attachments").request;
    for id in ["part:3", "part:99", "part:-1", "5", ""] {
        let media = MediaRef {
            provider_id: Some(id.to_owned()),
            ..MediaRef::default()
        };
        assert_eq!(
            fetch(&request, &media, 1_000).await,
            Err(ErrorClass::Content),
            "{id}"
        );
    }
    let http = stand_in::client();
    let media = message(&request).1.content.media.remove(0);
    let error = subject()
        .open("")
        .fetch_media(FetchFrom::server(&http), &media, 1_000)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Content);
}

/// Pieces that mails are made of, in any order.
const PIECES: [&str; 40] = [
    "From: ",
    "To: ",
    "Delivered-To: ",
    "Date: ",
    "Message-ID: ",
    "In-Reply-To: ",
    "References: ",
    "Subject: ",
    "Content-Type: ",
    "Content-Transfer-Encoding: ",
    "Content-Disposition: ",
    "a@b.example",
    "<c@d>",
    "shop@example.com",
    "\n",
    "\r\n",
    "\n\n",
    " ",
    ";",
    ":",
    ",",
    "<",
    ">",
    "--b",
    "--b--",
    "boundary=b",
    "multipart/mixed",
    "multipart/report",
    "multipart/digest",
    "report-type=delivery-status",
    "message/delivery-status",
    "message/rfc822",
    "text/plain",
    "text/html; charset=windows-1256",
    "base64",
    "quoted-printable",
    "=?utf-8?Q?=D9?=",
    "Action: failed",
    "Status: 5.1.1",
    "مرحبا",
];

proptest! {
    #[test]
    fn any_bytes_are_taken_apart_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let request = Request { body: bytes.into(), ..Request::post(URL, b"") };
        drop(parse(&request));
    }

    #[test]
    fn any_order_of_a_mails_pieces_is_taken_apart_without_a_panic(
        picks in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..60),
        is_headed in any::<bool>(),
    ) {
        let head = if is_headed { "From: a@b.example\nTo: shop@example.com\n" } else { "" };
        let request = mail(&(head.to_owned() + &picks.concat()));
        for event in provider().parse(&request.as_webhook()).into_iter().flatten() {
            prop_assert!(!event.routes.is_empty());
        }
    }
}
