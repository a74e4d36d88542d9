//! Every provider passes the same checks. A new one is one more entry in [`subjects`].

use std::time::Duration;

use bytes::Bytes;
use wasel_domain::{AttemptId, MessageId, OutboundContent};
use wasel_providers::conformance::{self, Answer, HttpApi, Subject};
use wasel_providers::{Accepted, ErrorClass, Outbound, SendError};

use crate::stand_in::{self, StandIn};
use crate::{email, twilio, whatsapp_cloud};

fn subjects() -> Vec<Subject> {
    vec![
        whatsapp_cloud::subject(),
        twilio::subject_sms(),
        twilio::subject_whatsapp(),
        email::subject(),
    ]
}

/// Those that send over HTTP, with their APIs. E-mail has the same tests in its own file, against a mail server.
fn over_http() -> Vec<(Subject, HttpApi)> {
    let take = |mut subject: Subject| subject.http.take().map(|api| (subject, api));
    subjects().into_iter().filter_map(take).collect()
}

#[test]
fn settings_are_refused_by_name_and_never_printed() {
    subjects().iter().for_each(conformance::check_settings);
}

#[test]
fn every_payload_gives_its_events_and_names_its_channel() {
    subjects().iter().for_each(conformance::check_events);
}

#[test]
fn only_the_right_secret_over_the_same_bytes_is_believed() {
    subjects().iter().for_each(conformance::check_signatures);
}

#[test]
fn any_bytes_give_events_or_an_error_that_repeats_nothing_private() {
    subjects().iter().for_each(conformance::check_totality);
}

async fn send(subject: &Subject, base: &str) -> Result<Accepted, SendError> {
    let content = OutboundContent::Text {
        body: "a text".to_owned(),
        preview_url: false,
    };
    let message = Outbound {
        message_id: MessageId::generate(),
        thread: None,
        attempt_id: AttemptId::generate(),
        to: &subject.recipient,
        content: &content,
        quoted_message_id: None,
        group_id: None,
        status_callback: Some("https://wasel.example/callback?attempt=1"),
    };
    let channel = subject.open(base);
    let result = channel.send(&stand_in::client(), &message).await;
    if let Err(error) = &result {
        subject.assert_discreet("sending", error);
    }
    result
}

#[tokio::test]
async fn a_message_the_provider_takes_is_accepted_under_its_id_after_one_request() {
    for (subject, api) in over_http() {
        let provider = StandIn::start([api.accepted.clone()]).await;
        let accepted = send(&subject, &provider.base).await.unwrap();
        assert_eq!(accepted.provider_message_id, api.accepted_id);
        assert_eq!(provider.seen().len(), 1, "{}", subject.name);
    }
}

#[tokio::test]
async fn every_error_of_the_table_has_its_class_and_code() {
    for (subject, api) in over_http() {
        let provider = StandIn::start([api.accepted.clone()]).await;
        for case in &api.send_errors {
            provider.answer_with([case.answer.clone()]);
            let error = send(&subject, &provider.base).await.unwrap_err();
            let found = (error.class, error.code.as_deref());
            assert_eq!(
                found,
                (case.class, case.code),
                "{}: {:?}",
                subject.name,
                case.answer
            );
        }
        assert_eq!(
            provider.seen().len(),
            api.send_errors.len(),
            "{}: a provider tried again by itself",
            subject.name
        );
    }
}

#[tokio::test]
async fn trouble_without_a_code_is_tried_again_when_the_provider_says() {
    for (subject, _) in over_http() {
        let unavailable = Answer::new(503, "<html>down</html>").header("retry-after", "7");
        let too_many = Answer::new(429, "").header("retry-after", "90");
        let provider = StandIn::start([unavailable, too_many, Answer::new(500, "{}")]).await;

        let error = send(&subject, &provider.base).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{}", subject.name);
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));

        let error = send(&subject, &provider.base).await.unwrap_err();
        assert!(error.class.is_retryable(), "{}: {error}", subject.name);
        assert_eq!(error.retry_after, Some(Duration::from_secs(90)));

        let error = send(&subject, &provider.base).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{}", subject.name);
        assert_eq!(error.retry_after, None);
    }
}

#[tokio::test]
async fn a_lost_answer_is_ambiguous_and_a_connection_never_made_is_not() {
    for (subject, api) in over_http() {
        let half = Bytes::copy_from_slice(&api.accepted.body[..10]);
        let status = api.accepted.status;
        let answers = [
            Answer::new(status, half.clone()).cut(),
            Answer::new(status, half),
            Answer::new(status, "{}"),
            Answer::new(status, ""),
            Answer::new(status, "<html>welcome</html>"),
        ];
        let provider = StandIn::start(answers.clone()).await;
        for answer in answers {
            let error = send(&subject, &provider.base).await.unwrap_err();
            assert_eq!(
                error.class,
                ErrorClass::Ambiguous,
                "{}: {answer:?}",
                subject.name
            );
        }

        let error = send(&subject, &stand_in::start_hanging_up().await)
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Ambiguous, "{}", subject.name);

        let (base, _held) = stand_in::nobody();
        let error = send(&subject, &base).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{}", subject.name);
    }
}
