use std::time::Duration;
use wasel_domain::ChannelId;

use base64::Engine as _;
use serde_json::{Map, Value, json};
use wasel_domain::content::{MediaSource, OutboundMedia, OutboundTemplate};
use wasel_domain::event::{Identity, IdentityKind};
use wasel_domain::{AttemptId, MediaRef, MessageId, OutboundContent};

use super::server::{Asked, Server, answer, client};
use super::{ACCOUNT, TOKEN, channel_at, twilio};
use crate::twilio::classify_status_code;
use crate::{
    Accepted, ChannelKind, ErrorClass, FetchFrom, OpenChannel, Outbound, Provider, ReadReceipt,
    SendError, SettingsError,
};

const CUSTOMER: &str = "+201012345678";
const CALLBACK: &str = "https://wasel.example/functions/v1/twilio-delivery-status?attempt=7";
const SMS: ChannelKind = ChannelKind::TwilioSms;
const WHATSAPP: ChannelKind = ChannelKind::TwilioWhatsapp;

fn text(body: &str) -> OutboundContent {
    OutboundContent::Text {
        body: body.to_owned(),
        preview_url: false,
    }
}

fn file(source: MediaSource, caption: Option<&str>) -> OutboundMedia {
    OutboundMedia {
        source,
        caption: caption.map(str::to_owned),
        filename: None,
        voice: false,
    }
}

fn image(caption: Option<&str>) -> OutboundContent {
    let link = MediaSource::Link("https://files.example/a.jpg".to_owned());
    OutboundContent::Image(file(link, caption))
}

fn template(content_sid: Option<&str>, variables: Value) -> OutboundContent {
    OutboundContent::Template(OutboundTemplate {
        name: Some("order_ready".to_owned()),
        language: None,
        components: Vec::new(),
        content_sid: content_sid.map(str::to_owned),
        variables: serde_json::from_value::<Option<Map<String, Value>>>(variables).unwrap(),
        text: None,
    })
}

fn location() -> OutboundContent {
    OutboundContent::Location {
        latitude: 30.0444,
        longitude: 31.2357,
        name: Some("Tahrir".to_owned()),
        address: Some("Cairo | Egypt".to_owned()),
    }
}

fn phone() -> Identity {
    Identity::new(IdentityKind::Phone, CUSTOMER)
}

async fn send_to(
    channel: &dyn OpenChannel,
    to: &Identity,
    content: &OutboundContent,
) -> Result<Accepted, SendError> {
    let message = Outbound {
        message_id: MessageId::generate(),
        thread: None,
        attempt_id: AttemptId::generate(),
        to,
        content,
        quoted_message_id: Some("SM9"),
        group_id: None,
        status_callback: Some(CALLBACK),
    };
    channel.send(&client(), &message).await
}

fn created() -> String {
    answer(
        201,
        "content-type: application/json\r\n",
        r#"{"sid":"SM77","status":"queued","to":"whatsapp:+201012345678","from":null,"num_segments":"0"}"#,
    )
}

async fn sent(kind: ChannelKind, to: &Identity, content: &OutboundContent) -> Asked {
    let server = Server::answering(vec![created()]).await;
    let channel = channel_at(&server.base, kind);
    let accepted = send_to(&*channel, to, content).await.unwrap();
    assert_eq!(accepted.provider_message_id, "SM77");
    assert_eq!(accepted.recipient, [phone()]);
    server.asked().remove(0)
}

async fn refusal(raw_answer: String) -> SendError {
    let server = Server::answering(vec![raw_answer]).await;
    let channel = channel_at(&server.base, SMS);
    send_to(&*channel, &phone(), &text("my secret words"))
        .await
        .unwrap_err()
}

fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
    pairs.iter().map(own).collect()
}

// -- The request --------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_sms_is_a_form_with_basic_auth() {
    let asked = sent(SMS, &phone(), &text("hello & مرحبا")).await;
    assert_eq!(
        asked.line(),
        format!("POST /2010-04-01/Accounts/{ACCOUNT}/Messages.json HTTP/1.1")
    );
    let credentials =
        base64::engine::general_purpose::STANDARD.encode(format!("{ACCOUNT}:{TOKEN}"));
    assert_eq!(
        asked.header("authorization"),
        Some(format!("Basic {credentials}").as_str())
    );
    assert_eq!(
        asked.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(
        asked.form(),
        fields(&[
            ("To", CUSTOMER),
            ("From", "+12025550100"),
            ("Body", "hello & مرحبا"),
            ("StatusCallback", CALLBACK),
        ])
    );
}

#[tokio::test]
async fn whatsapp_addresses_carry_their_prefix_also_without_a_number() {
    let asked = sent(WHATSAPP, &phone(), &text("hi")).await;
    let addresses = fields(&[
        ("To", "whatsapp:+201012345678"),
        ("From", "whatsapp:+12025550100"),
    ]);
    assert_eq!(asked.form()[..2], addresses);

    let hidden = Identity::new(IdentityKind::Bsuid, "EG.134912");
    let asked = sent(WHATSAPP, &hidden, &text("hi")).await;
    assert_eq!(asked.form()[0].1, "whatsapp:EG.134912");
}

#[tokio::test]
async fn a_messaging_service_takes_the_place_of_the_sender() {
    let server = Server::answering(vec![created()]).await;
    let settings = json!({
        "account_sid": ACCOUNT,
        "from": "+12025550100",
        "messaging_service_sid": "MG1",
    });
    let channel = twilio(&server.base)
        .open(
            ChannelId::generate(),
            SMS,
            &settings,
            &json!({"auth_token": [TOKEN, "old"]}),
        )
        .unwrap();
    send_to(&*channel, &phone(), &text("hi")).await.unwrap();
    assert_eq!(
        server.asked()[0].form()[..2],
        fields(&[("To", CUSTOMER), ("MessagingServiceSid", "MG1")])
    );
}

#[tokio::test]
async fn a_file_goes_by_its_link_with_its_caption() {
    let asked = sent(WHATSAPP, &phone(), &image(Some("the menu"))).await;
    assert_eq!(
        asked.form()[2..4],
        fields(&[
            ("Body", "the menu"),
            ("MediaUrl", "https://files.example/a.jpg")
        ])
    );
}

#[tokio::test]
async fn a_template_goes_by_its_content_sid_with_texts_as_variables() {
    let variables = json!({"1": "Mona", "2": 17, "3": true});
    let asked = sent(WHATSAPP, &phone(), &template(Some("HX1"), variables)).await;
    assert_eq!(
        asked.form()[2..4],
        fields(&[
            ("ContentSid", "HX1"),
            ("ContentVariables", r#"{"1":"Mona","2":"17","3":"true"}"#),
        ])
    );
    let asked = sent(SMS, &phone(), &template(Some("HX1"), Value::Null)).await;
    assert!(!asked.body.contains("ContentVariables"));
}

#[tokio::test]
async fn a_place_is_a_persistent_action_with_a_body() {
    let asked = sent(WHATSAPP, &phone(), &location()).await;
    assert_eq!(
        asked.form()[2..4],
        fields(&[
            ("Body", "Tahrir"),
            ("PersistentAction", "geo:30.0444,31.2357|Cairo   Egypt"),
        ])
    );
}

// -- What cannot be sent ------------------------------------------------------------------------------------

#[test]
fn what_a_channel_cannot_carry_is_refused_with_the_fields_name() {
    let long = "ب".repeat(1601);
    let uploaded = MediaSource::ProviderId("123".to_owned());
    let local = MediaSource::Link("file:///etc/passwd".to_owned());
    let nowhere = OutboundContent::Location {
        latitude: 91.0,
        longitude: f64::NAN,
        name: None,
        address: None,
    };
    let interactive = OutboundContent::Interactive {
        interactive: json!({}),
    };
    let contacts = OutboundContent::Contacts {
        contacts: Vec::new(),
    };
    let reaction = OutboundContent::Reaction {
        message_id: "SM1".to_owned(),
        emoji: "👍".to_owned(),
    };
    let OutboundContent::Image(sticker) = image(None) else {
        unreachable!()
    };
    let sticker = OutboundContent::Sticker(sticker);
    for (kind, content, field) in [
        (SMS, text(""), "content.body"),
        (SMS, text(" \n"), "content.body"),
        (SMS, text(&long), "content.body"),
        (WHATSAPP, image(Some(&long)), "content.caption"),
        (
            WHATSAPP,
            OutboundContent::Video(file(uploaded, None)),
            "content.provider_id",
        ),
        (
            WHATSAPP,
            OutboundContent::Audio(file(local, None)),
            "content.link",
        ),
        (WHATSAPP, template(None, Value::Null), "content.content_sid"),
        (
            WHATSAPP,
            template(Some("order_ready"), Value::Null),
            "content.content_sid",
        ),
        (
            WHATSAPP,
            template(Some("HX1"), json!({"1": {}})),
            "content.variables.1",
        ),
        (WHATSAPP, nowhere, "content.latitude"),
        (WHATSAPP, interactive, "content.type"),
        (WHATSAPP, contacts, "content.type"),
        (WHATSAPP, reaction, "content.type"),
        (SMS, location(), "content.type"),
        (SMS, sticker.clone(), "content.type"),
    ] {
        let error = channel_at("", kind).check(&content).unwrap_err();
        assert_eq!(error.field, field, "{content:?}");
    }
    for (kind, content) in [
        (SMS, text(&"ب".repeat(1600))),
        (SMS, image(None)),
        (WHATSAPP, sticker),
        (WHATSAPP, location()),
    ] {
        assert_eq!(channel_at("", kind).check(&content), Ok(()), "{content:?}");
    }
}

#[tokio::test]
async fn an_address_of_another_kind_is_refused_before_anything_is_sent() {
    let server = Server::answering(Vec::new()).await;
    for (kind, identity) in [
        (SMS, IdentityKind::Bsuid),
        (SMS, IdentityKind::Email),
        (WHATSAPP, IdentityKind::Jid),
    ] {
        let channel = channel_at(&server.base, kind);
        assert!(!channel.capabilities().addressable.contains(&identity));
        let to = Identity::new(identity, "x");
        let error = send_to(&*channel, &to, &text("hi")).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Recipient);
    }
    assert!(server.asked().is_empty());
}

// -- The answer ---------------------------------------------------------------------------------------------

/// §"Error and warning dictionary", by what is to be done.
const CODES: &[(ErrorClass, &[u32])] = &[
    (
        ErrorClass::Transient,
        &[20500, 20503, 30008, 30017, 63010, 63012, 63019],
    ),
    (
        ErrorClass::ThrottledChannel,
        &[20429, 21611, 30001, 63017, 63018],
    ),
    (
        ErrorClass::ChannelBlocked,
        &[
            20003, 20005, 30002, 21606, 21607, 63001, 63002, 63007, 63008, 63020, 63022, 30032,
            30034, 63038,
        ],
    ),
    (
        ErrorClass::Recipient,
        &[
            21211, 21217, 21401, 21408, 21612, 21614, 30003, 30005, 30006, 63003, 63013, 63014,
            63015, 63024, 63032, 63033,
        ],
    ),
    (ErrorClass::OptedOut, &[21610]),
    (
        ErrorClass::Content,
        &[
            21602, 21603, 21604, 21609, 21617, 21620, 21623, 21655, 21656, 21910, 35111, 35114,
            35118, 30004, 30007, 63005, 63021, 63027, 63028, 63030, 63034, 63040, 63041,
        ],
    ),
    (ErrorClass::NeedsTemplate, &[63016]),
    (ErrorClass::NotNow, &[63049]),
];

#[test]
fn every_code_has_its_class_in_a_callback() {
    for (class, codes) in CODES {
        for code in *codes {
            assert_eq!(classify_status_code(&code.to_string()), *class, "{code}");
        }
    }
}

#[test]
fn an_unknown_code_in_a_callback_is_not_repeated() {
    for code in ["", "failed", "99999", "4294967296"] {
        assert!(!classify_status_code(code).is_retryable(), "{code}");
    }
}

#[tokio::test]
async fn a_retry_time_that_is_no_number_of_seconds_is_ignored() {
    let body = r#"{"code":20429,"message":"Too Many Requests","status":429}"#;
    let error = refusal(answer(429, "Retry-After: soon\r\n", body)).await;
    assert_eq!(error.class, ErrorClass::ThrottledChannel);
    assert_eq!(error.retry_after, None);
}

#[tokio::test]
async fn an_acceptance_without_an_id_is_ambiguous() {
    for body in [r#"{"status":"queued"}"#, r#"{"sid":""}"#] {
        let error = refusal(answer(201, "", body)).await;
        assert_eq!(error.class, ErrorClass::Ambiguous, "{body}");
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_ambiguous() {
    // Bound but never accepted: the kernel takes the request and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", silent.local_addr().unwrap());
    let channel = channel_at(&base, SMS);
    let _ = client();
    let impatient = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let (to, content) = (phone(), text("hi"));
    let message = Outbound {
        message_id: MessageId::generate(),
        thread: None,
        attempt_id: AttemptId::generate(),
        to: &to,
        content: &content,
        quoted_message_id: None,
        group_id: None,
        status_callback: None,
    };
    let error = channel.send(&impatient, &message).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Ambiguous);
    assert_eq!(error.detail, "the provider did not answer in time");
}

#[tokio::test]
async fn no_number_no_token_and_no_words_of_the_message_are_in_an_error() {
    let message = format!(
        "'To' number +201012345678 (20 10 1234 5678) of {ACCOUNT} refused 'my secret words' 12345"
    );
    let body = json!({"code": 21211, "message": message, "status": 400}).to_string();
    let error = refusal(answer(400, "", &body)).await;
    assert_eq!(
        error.detail,
        "'To' number [withheld] [number] of [number] refused '[withheld]' [withheld]"
    );
    let shown = format!("{error} {error:?}");
    for private in [CUSTOMER, ACCOUNT, TOKEN, "secret"] {
        assert!(!shown.contains(private), "{shown}");
    }
}

// -- Reading and typing -------------------------------------------------------------------------------------

#[tokio::test]
async fn reading_is_told_by_the_typing_indicator_and_on_whatsapp_only() {
    let server = Server::answering(vec![
        answer(200, "", r#"{"success":true}"#),
        answer(400, "", r#"{"code":63001,"message":"No."}"#),
    ])
    .await;
    let receipt = ReadReceipt {
        provider_message_id: "SM5",
        typing: true,
    };
    let whatsapp = channel_at(&server.base, WHATSAPP);
    assert!(whatsapp.capabilities().read_receipts);
    whatsapp.mark_read(&client(), &receipt).await.unwrap();
    let asked = server.asked().remove(0);
    assert_eq!(asked.line(), "POST /v2/Indicators/Typing.json HTTP/1.1");
    assert!(asked.header("authorization").is_some());
    assert_eq!(
        asked.form(),
        fields(&[("messageId", "SM5"), ("channel", "whatsapp")])
    );
    let error = whatsapp.mark_read(&client(), &receipt).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::ChannelBlocked);

    let sms = channel_at(&server.base, SMS);
    assert!(!sms.capabilities().read_receipts && !sms.capabilities().typing_indicator);
    assert!(sms.mark_read(&client(), &receipt).await.is_err());
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn the_messaging_api_is_on_its_own_host_at_twilio_and_on_the_same_at_a_stand_in() {
    for (api, messaging) in [
        ("https://api.twilio.com", "https://messaging.twilio.com/"),
        (
            "https://api.dublin.ie1.twilio.com",
            "https://messaging.dublin.ie1.twilio.com/",
        ),
        ("http://127.0.0.1:4010", "http://127.0.0.1:4010/"),
        ("https://api.nottwilio.com", "https://api.nottwilio.com/"),
    ] {
        let base = crate::twilio::send::messaging_base(&api.parse().unwrap());
        assert_eq!(base.as_str(), messaging);
    }
}

// -- Files --------------------------------------------------------------------------------------------------

fn media(base: &str) -> MediaRef {
    MediaRef {
        url: Some(format!(
            "{base}/2010-04-01/Accounts/{ACCOUNT}/Messages/MM1/Media/ME1"
        )),
        mime_type: Some("image/png".to_owned()),
        ..MediaRef::default()
    }
}

#[tokio::test]
async fn a_file_is_fetched_from_storage_without_our_credentials() {
    let storage =
        Server::answering(vec![answer(200, "content-type: image/jpeg\r\n", "JPEG")]).await;
    let to_storage = format!("location: {}/media/1?sig=x\r\n", storage.base);
    let api = Server::answering(vec![answer(307, &to_storage, "")]).await;
    let channel = channel_at(&api.base, WHATSAPP);
    let file = channel
        .fetch_media(FetchFrom::server(&client()), &media(&api.base), 4)
        .await
        .unwrap();
    assert_eq!(&file.bytes[..], b"JPEG");
    assert_eq!(file.mime_type, "image/jpeg");
    assert!(api.asked()[0].header("authorization").is_some());
    let asked = storage.asked().remove(0);
    assert_eq!(asked.line(), "GET /media/1?sig=x HTTP/1.1");
    assert_eq!(asked.header("authorization"), None);
}

#[tokio::test]
async fn credentials_do_not_come_back_with_a_redirect_to_the_api() {
    let api = Server::answering(vec![
        answer(302, "location: /again\r\n", ""),
        answer(200, "", "x"),
    ])
    .await;
    let channel = channel_at(&api.base, WHATSAPP);
    let file = channel
        .fetch_media(FetchFrom::server(&client()), &media(&api.base), 9)
        .await
        .unwrap();
    assert_eq!(file.mime_type, "image/png", "as the webhook declared it");
    assert_eq!(api.asked()[1].header("authorization"), None);
}

#[tokio::test]
async fn an_address_that_is_not_the_apis_is_never_asked() {
    let stranger = Server::answering(vec![answer(200, "", "x")]).await;
    let api = Server::answering(vec![answer(200, "", "x")]).await;
    let channel = channel_at(&api.base, WHATSAPP);
    let userinfo = stranger.base.replace("http://", &format!("{}@", api.base));
    for url in [
        stranger.base.as_str(),
        userinfo.as_str(),
        "http://127.0.0.1:1/x",
        "file:///etc/passwd",
        "rubbish",
        "",
    ] {
        let media = MediaRef {
            url: Some(url.to_owned()),
            ..MediaRef::default()
        };
        let error = channel
            .fetch_media(FetchFrom::server(&client()), &media, 9)
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Content, "{url}");
    }
    assert!(stranger.asked().is_empty() && api.asked().is_empty());
}

#[tokio::test]
async fn a_file_larger_than_allowed_is_refused_whether_it_says_so_or_not() {
    let honest = answer(200, "", "12345");
    let chunked =
        "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\n123\r\n2\r\n45\r\n0\r\n\r\n"
            .to_owned();
    for raw in [honest, chunked.clone()] {
        let api = Server::answering(vec![raw]).await;
        let channel = channel_at(&api.base, SMS);
        let error = channel
            .fetch_media(FetchFrom::server(&client()), &media(&api.base), 4)
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Content);
        assert_eq!(error.detail, "the file is larger than allowed");
    }
    let api = Server::answering(vec![chunked]).await;
    let channel = channel_at(&api.base, SMS);
    let file = channel
        .fetch_media(FetchFrom::server(&client()), &media(&api.base), 5)
        .await;
    assert_eq!(&file.unwrap().bytes[..], b"12345");
}

#[tokio::test]
async fn a_file_that_cannot_be_had_says_whether_to_ask_again() {
    for (raw, class) in [
        (answer(404, "", ""), ErrorClass::Content),
        (answer(401, "", ""), ErrorClass::ChannelBlocked),
        (answer(429, "", ""), ErrorClass::ThrottledChannel),
        (answer(503, "", ""), ErrorClass::Transient),
        (answer(302, "", ""), ErrorClass::Content),
        (
            answer(302, "location: ftp://x.example/\r\n", ""),
            ErrorClass::Content,
        ),
        (String::new(), ErrorClass::Transient),
        (
            "HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nbroken".to_owned(),
            ErrorClass::Transient,
        ),
    ] {
        let api = Server::answering(vec![raw.clone()]).await;
        let channel = channel_at(&api.base, SMS);
        let error = channel
            .fetch_media(FetchFrom::server(&client()), &media(&api.base), 99)
            .await
            .unwrap_err();
        assert_eq!(error.class, class, "{raw}");
    }
    let circle = vec![answer(302, "location: /again\r\n", ""); 6];
    let api = Server::answering(circle).await;
    let channel = channel_at(&api.base, SMS);
    let error = channel
        .fetch_media(FetchFrom::server(&client()), &media(&api.base), 99)
        .await;
    assert_eq!(error.unwrap_err().class, ErrorClass::Content);
}

// -- Settings -----------------------------------------------------------------------------------------------

#[test]
fn settings_that_make_no_channel_are_refused_by_name() {
    let good = json!({"account_sid": ACCOUNT, "from": "+12025550100"});
    let with = |field: &str, value: Value| {
        let mut settings = good.clone();
        settings[field] = value;
        settings
    };
    let secret = json!({"auth_token": TOKEN});
    for (kind, settings, secrets, field) in [
        (SMS, json!({}), secret.clone(), "account_sid"),
        (SMS, Value::Null, secret.clone(), "account_sid"),
        (
            SMS,
            with("account_sid", json!("US123")),
            secret.clone(),
            "account_sid",
        ),
        (
            SMS,
            with("account_sid", json!("AC1/../x")),
            secret.clone(),
            "account_sid",
        ),
        (SMS, with("from", Value::Null), secret.clone(), "from"),
        (
            SMS,
            with("from", json!(12025550100_u64)),
            secret.clone(),
            "from",
        ),
        (
            SMS,
            with("from", json!("a name that is too long")),
            secret.clone(),
            "from",
        ),
        (
            WHATSAPP,
            with("from", json!("MyShop")),
            secret.clone(),
            "from",
        ),
        (
            WHATSAPP,
            with("from", json!("73737")),
            secret.clone(),
            "from",
        ),
        (
            SMS,
            with("messaging_service_sid", json!("SM1")),
            secret,
            "messaging_service_sid",
        ),
        (SMS, good.clone(), json!({}), "auth_token"),
        (SMS, good.clone(), json!({"auth_token": ""}), "auth_token"),
        (SMS, good.clone(), json!({"auth_token": []}), "auth_token"),
        (SMS, good.clone(), json!({"auth_token": [1]}), "auth_token"),
        (
            ChannelKind::WhatsappCloud,
            good.clone(),
            json!({"auth_token": TOKEN}),
            "kind",
        ),
    ] {
        let error: SettingsError = twilio("")
            .open(ChannelId::generate(), kind, &settings, &secrets)
            .err()
            .unwrap_or_else(|| panic!("{settings} makes a channel"));
        assert_eq!(error.field, field, "{settings}");
        assert!(!error.to_string().contains(TOKEN));
    }
    for from in ["+12025550100", "12025550100", "73737", "MyShop", "Shop 24"] {
        let settings = with("from", json!(from));
        assert!(
            twilio("")
                .open(
                    ChannelId::generate(),
                    SMS,
                    &settings,
                    &json!({"auth_token": TOKEN})
                )
                .is_ok()
        );
    }
}

#[test]
fn the_servers_token_serves_where_a_channel_has_none() {
    let settings = json!({"account_sid": ACCOUNT, "from": "+12025550100"});
    let provider = crate::twilio::Twilio::new(crate::ProviderConfig {
        twilio_auth_token: Some(TOKEN.to_owned()),
        ..crate::ProviderConfig::default()
    });
    let channel = provider
        .open(ChannelId::generate(), SMS, &settings, &Value::Null)
        .unwrap();
    let signed = super::Webhook::post("CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212")
        .at("https://mycompany.com/myapp.php?foo=1&bar=2")
        .signed("RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    assert_eq!(channel.verify(&signed.request()), Ok(()));
}
