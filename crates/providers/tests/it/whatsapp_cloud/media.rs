//! Files from customers.

use reqwest::redirect::Policy;
use serde_json::json;
use wasel_domain::MediaRef;
use wasel_providers::conformance::Answer;
use wasel_providers::{ErrorClass, FetchFrom, FetchedMedia, SendError};

use super::{TOKEN, open};
use crate::stand_in::{StandIn, client, client_with};

fn by_id() -> MediaRef {
    MediaRef {
        provider_id: Some("2754859441498128".to_owned()),
        mime_type: Some("image/jpeg".to_owned()),
        ..MediaRef::default()
    }
}

fn by_url(url: String) -> MediaRef {
    MediaRef {
        url: Some(url),
        ..MediaRef::default()
    }
}

fn address(provider: &StandIn, path: &str) -> Answer {
    Answer::json(
        200,
        &json!({"url": format!("{}{path}", provider.base), "mime_type": "image/jpeg", "id": "1"}),
    )
}

fn file() -> Answer {
    Answer::new(200, "the picture").header("content-type", "image/png")
}

async fn fetch(provider: &StandIn, media: &MediaRef) -> Result<FetchedMedia, SendError> {
    let channel = open(&provider.base);
    channel
        .fetch_media(FetchFrom::server(&client()), media, 11)
        .await
}

#[tokio::test]
async fn an_id_gives_an_address_and_the_address_the_file_both_with_the_token() {
    let provider = StandIn::start([]).await;
    provider.answer_with([address(&provider, "/file"), file()]);
    let fetched = fetch(&provider, &by_id()).await.unwrap();
    assert_eq!(fetched.bytes, "the picture");
    assert_eq!(fetched.mime_type, "image/png");

    let seen = provider.seen();
    let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
    let first = "/v26.0/2754859441498128?phone_number_id=106540352242922";
    assert_eq!(paths, [first, "/file"]);
    let bearer = format!("Bearer {TOKEN}");
    for seen in &seen {
        assert_eq!(seen.method, "GET");
        assert_eq!(seen.header("authorization"), Some(bearer.as_str()));
    }
}

#[tokio::test]
async fn an_expired_address_is_asked_for_anew_once() {
    let provider = StandIn::start([]).await;
    let gone = Answer::new(404, "");
    provider.answer_with([
        address(&provider, "/old"),
        gone.clone(),
        address(&provider, "/new"),
        file(),
    ]);
    let fetched = fetch(&provider, &by_id()).await.unwrap();
    assert_eq!(fetched.bytes, "the picture");
    assert_eq!(provider.seen().len(), 4);

    provider.answer_with([
        address(&provider, "/old"),
        gone.clone(),
        address(&provider, "/new"),
        gone,
    ]);
    let error = fetch(&provider, &by_id()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Content);
    assert_eq!(error.code.as_deref(), Some("http_404"));
    assert_eq!(provider.seen().len(), 8);
}

#[tokio::test]
async fn an_id_meta_has_forgotten_is_the_files_end_not_the_channels() {
    let forgotten = json!({"error": {"code": 100, "error_subcode": 33, "message": "no object"}});
    let provider = StandIn::start([Answer::json(400, &forgotten)]).await;
    let error = fetch(&provider, &by_id()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Content);
}

#[tokio::test]
async fn trouble_on_the_way_is_tried_again_and_a_dead_token_blocks_the_channel() {
    let provider = StandIn::start([]).await;
    let address = || address(&provider, "/file");
    let expired = json!({"error": {"code": 190, "message": "expired"}});
    for (answers, class) in [
        (vec![Answer::new(503, "")], ErrorClass::Transient),
        (vec![Answer::new(200, "<html>")], ErrorClass::Transient),
        (vec![address().cut()], ErrorClass::Transient),
        (vec![address(), Answer::new(502, "")], ErrorClass::Transient),
        (vec![address(), file().cut()], ErrorClass::Transient),
        (
            vec![Answer::json(401, &expired)],
            ErrorClass::ChannelBlocked,
        ),
        (
            vec![address(), Answer::new(401, "")],
            ErrorClass::ChannelBlocked,
        ),
    ] {
        provider.answer_with(answers.clone());
        let error = fetch(&provider, &by_id()).await.unwrap_err();
        assert_eq!(error.class, class, "{answers:?}");
    }
}

#[tokio::test]
async fn a_file_larger_than_allowed_is_not_read_to_its_end() {
    let provider = StandIn::start([Answer::new(200, "eleven byte")]).await;
    let media = by_url(format!("{}/file", provider.base));
    assert_eq!(fetch(&provider, &media).await.unwrap().bytes.len(), 11);

    // The second comes without a declared length, and would break off if it were read on.
    for answer in [
        Answer::new(200, "twelve bytes"),
        Answer::new(200, "twelve bytes").cut(),
    ] {
        provider.answer_with([answer]);
        let error = fetch(&provider, &media).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Content);
        assert_eq!(error.detail, "the file is larger than allowed");
    }
}

#[tokio::test]
async fn nobody_but_the_provider_is_asked_for_a_file() {
    let provider = StandIn::start([file()]).await;
    let stranger = StandIn::start([file()]).await;
    let url = format!("{}/file", stranger.base);
    let error = fetch(&provider, &by_url(url)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Content);

    // Nor when the answer about an id says so.
    provider.answer_with([address(&stranger, "/file")]);
    fetch(&provider, &by_id()).await.unwrap_err();
    assert!(stranger.seen().is_empty());
    assert_eq!(provider.seen().len(), 1);

    fetch(&provider, &MediaRef::default()).await.unwrap_err();
    fetch(&provider, &by_url("no address".to_owned()))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_redirect_to_somebody_else_gets_neither_the_token_nor_believed() {
    let provider = StandIn::start([]).await;
    let stranger = StandIn::start([file()]).await;
    let away = Answer::new(302, "").header("location", format!("{}/file", stranger.base));
    provider.answer_with([away]);
    let media = by_url(format!("{}/file", provider.base));

    let error = fetch(&provider, &media).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Content);
    assert!(stranger.seen().is_empty());

    // A client that follows redirects by itself goes there, but without the token.
    let follows = client_with(Policy::limited(5));
    let channel = open(&provider.base);
    let error = channel
        .fetch_media(FetchFrom::server(&follows), &media, 100)
        .await;
    assert_eq!(error.unwrap_err().class, ErrorClass::Content);
    assert_eq!(stranger.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_redirect_within_the_provider_is_followed_but_not_in_circles() {
    let provider = StandIn::start([]).await;
    let elsewhere = Answer::new(302, "").header("location", "/elsewhere");
    provider.answer_with([elsewhere.clone(), file()]);
    let media = by_url(format!("{}/file", provider.base));
    assert_eq!(fetch(&provider, &media).await.unwrap().bytes, "the picture");
    assert_eq!(provider.seen()[1].path, "/elsewhere");

    provider.answer_with([elsewhere]);
    let error = fetch(&provider, &media).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Content);
    assert_eq!(provider.seen().len(), 2 + 4);
}
