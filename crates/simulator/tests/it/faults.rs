use std::time::Duration;

use serde_json::json;
use wasel_simulator::{CustomerSend, Fault, FaultKind, FaultPlan, Provider};

use crate::support::{CUSTOMER, PHONE, SMS, Stage, TOKEN, status_of, text};

fn switch(stage: &Stage, fault: Fault) {
    stage.world.set_faults(FaultPlan {
        seed: 1,
        faults: vec![fault],
    });
}

fn write(stage: &Stage, body: &str) {
    stage
        .world
        .send_as_customer(CustomerSend::text(PHONE, CUSTOMER, body))
        .expect("customer writes");
}

#[tokio::test]
async fn a_reset_after_acceptance_leaves_the_caller_without_answer_and_the_callback_comes() {
    let stage = Stage::new().await;
    write(&stage, "hello");
    let post = || {
        let url = stage.url(&format!("/v26.0/{PHONE}/messages"));
        let request = stage.http.post(url).bearer_auth(TOKEN);
        request.json(&text("x", "attempt-9")).send()
    };
    switch(&stage, Fault::next(FaultKind::ResetBeforeAccept, 1));
    assert!(post().await.is_err());
    assert!(stage.world.accepted().is_empty());

    switch(&stage, Fault::next(FaultKind::ResetAfterAccept, 1));
    assert!(post().await.is_err());
    assert_eq!(stage.world.accepted_with("attempt-9").len(), 1);
    let hook = stage.receiver.wait_for(1, |h| status_of(h).is_some()).await;
    let entry = hook[0].change()["statuses"][0].clone();
    assert_eq!(entry["biz_opaque_callback_data"], "attempt-9");

    let slow = Fault::next(FaultKind::DelayAnswer, 1).with_delay(Duration::from_secs(60));
    switch(&stage, slow);
    let url = stage.url(&format!("/v26.0/{PHONE}/messages"));
    let request = stage.http.post(url).bearer_auth(TOKEN);
    let request = request.json(&text("x", "attempt-10"));
    let hasty = request.timeout(Duration::from_secs(2)).send();
    assert!(hasty.await.is_err());
    assert_eq!(stage.world.accepted_with("attempt-10").len(), 1);

    // A blind retry is the double send this exists to show.
    assert!(post().await.is_ok());
    assert_eq!(stage.world.double_sends(), [("attempt-9".to_owned(), 2)]);
    assert_eq!(stage.world.requests().len(), 4);
}

#[tokio::test]
async fn refusals_speak_each_providers_language_and_strike_only_where_told() {
    let stage = Stage::new().await;
    let sms = [("To", CUSTOMER), ("From", SMS), ("Body", "x")];
    for (kind, status, meta, twilio) in [
        (FaultKind::RateLimited, 429, 130_429, 20_429),
        (FaultKind::ServerError, 500, 131_000, 20_500),
        (FaultKind::ExpiredToken, 401, 190, 20_003),
    ] {
        switch(&stage, Fault::always(kind));
        let (got, body) = stage.meta(text("x", "r")).await;
        assert_eq!((got, &body["error"]["code"]), (status, &json!(meta)));
        let (got, body) = stage.twilio(&sms).await;
        assert_eq!((got, &body["code"]), (status, &json!(twilio)));
        // Only sends, unless told otherwise.
        assert_eq!(stage.meta_get(&format!("/v26.0/{PHONE}")).await.0, 200);
    }
    switch(
        &stage,
        Fault::always(FaultKind::ExpiredToken).on_any_request(),
    );
    assert_eq!(stage.meta_get(&format!("/v26.0/{PHONE}")).await.0, 401);
    switch(&stage, Fault::always(FaultKind::ServerError).on_line(SMS));
    assert_eq!(stage.twilio(&sms).await.0, 500);
    assert_eq!(stage.meta(text("x", "r")).await.0, 200);
    switch(
        &stage,
        Fault::always(FaultKind::ServerError).on_provider(Provider::Meta),
    );
    assert_eq!(stage.twilio(&sms).await.0, 201);
}

#[tokio::test]
async fn webhooks_are_dropped_doubled_and_swapped() {
    let stage = Stage::new().await;
    let bodies = |hooks: &[crate::receiver::Hook]| -> Vec<String> {
        hooks
            .iter()
            .filter_map(|h| {
                h.change()["messages"][0]["text"]["body"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect()
    };
    switch(&stage, Fault::next(FaultKind::DropWebhook, 1));
    write(&stage, "lost");
    write(&stage, "first");
    assert_eq!(bodies(&stage.receiver.wait(1).await), ["first"]);
    assert!(stage.world.webhooks().iter().any(|attempt| attempt.dropped));

    switch(&stage, Fault::next(FaultKind::DuplicateWebhook, 1));
    write(&stage, "twice");
    let hooks = stage.receiver.wait(3).await;
    assert_eq!(bodies(&hooks), ["first", "twice", "twice"]);
    assert_eq!(hooks[1].body, hooks[2].body);

    let swap = Fault::next(FaultKind::ReorderWebhook, 1).with_delay(Duration::from_secs(15));
    switch(&stage, swap);
    write(&stage, "early");
    write(&stage, "late");
    let hooks = stage.receiver.wait(5).await;
    assert_eq!(bodies(&hooks[3..]), ["late", "early"]);
}
