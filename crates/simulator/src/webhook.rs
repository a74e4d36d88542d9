//! Delivering webhooks: order, signatures, retries, and the faults that strike on the way.

use std::{collections::HashMap, time::Duration};

use reqwest::header::CONTENT_TYPE;
use ring::hmac;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::{
    faults::WebhookVerdict,
    twilio::{self, signature},
    world::{Event, MetaNumber, Provider, WebhookAttempt, World, WorldError},
};

/// A provider waits this long for an answer (Twilio: 15 s in all).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// A webhook to be sent.
#[derive(Clone)]
pub(crate) struct Webhook {
    pub(crate) provider: Provider,
    pub(crate) line: String,
    /// Webhooks about one customer of one line keep their order, unless a fault or a retry breaks it.
    pub(crate) customer: String,
    pub(crate) url: String,
    /// What it tells, for the record.
    pub(crate) about: String,
    pub(crate) message_id: Option<String>,
    pub(crate) payload: Payload,
}

#[derive(Clone)]
pub(crate) enum Payload {
    Meta {
        body: String,
        app_secret: String,
    },
    Twilio {
        params: Vec<(String, String)>,
        auth_token: String,
        /// Tried when the first address fails; empty for none.
        fallback_url: String,
        /// An incoming message: the answer's body may be a reply.
        is_message: bool,
    },
}

impl Webhook {
    /// What a fault may call this webhook's line.
    fn names(&self) -> Vec<String> {
        let mut names = vec![self.line.clone()];
        if let Payload::Twilio { params, .. } = &self.payload {
            let account = params.iter().find(|(key, _)| key == "AccountSid");
            names.extend(account.map(|(_, sid)| sid.clone()));
        }
        names
    }
}

struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

/// Keeps webhooks of one lane in order: each waits for the first attempt of the one before it.
#[derive(Default)]
pub(crate) struct Lanes {
    tails: HashMap<String, oneshot::Receiver<()>>,
    /// Per line: changes with every attempt, for webhooks that wait to be overtaken.
    passed: HashMap<String, watch::Sender<()>>,
}

struct Turn {
    before: Option<oneshot::Receiver<()>>,
    /// Dropping it lets the next one go.
    _done: oneshot::Sender<()>,
}

impl Lanes {
    fn take_turn(&mut self, lane: String) -> Turn {
        if self.tails.len() > 10_000 {
            // A finished lane's sender is gone.
            self.tails.retain(|_, tail| {
                matches!(tail.try_recv(), Err(oneshot::error::TryRecvError::Empty))
            });
        }
        let (done, tail) = oneshot::channel();
        Turn {
            before: self.tails.insert(lane, tail),
            _done: done,
        }
    }

    fn passed(&mut self, line: &str) -> &watch::Sender<()> {
        self.passed
            .entry(line.to_owned())
            .or_insert_with(|| watch::channel(()).0)
    }
}

impl World {
    /// Sends a webhook in the background; nothing where no address is configured.
    pub(crate) fn post(&self, webhook: Webhook) {
        if webhook.url.is_empty() {
            return;
        }
        let (verdict, turn, overtaken) = {
            let mut state = self.lock();
            let verdict = state
                .faults
                .judge_webhook(webhook.provider, &webhook.names());
            let leaves_lane = verdict.delay.is_some() || verdict.reorder.is_some();
            let turn = (!leaves_lane).then(|| {
                let lane = format!("{} {}", webhook.line, webhook.customer);
                state.lanes.take_turn(lane)
            });
            let overtaken = state.lanes.passed(&webhook.line).subscribe();
            (verdict, turn, overtaken)
        };
        let world = self.clone();
        self.spawn(async move { deliver(&world, webhook, verdict, turn, overtaken).await });
    }
}

async fn deliver(
    world: &World,
    webhook: Webhook,
    verdict: WebhookVerdict,
    mut turn: Option<Turn>,
    mut overtaken: watch::Receiver<()>,
) {
    if let Some(before) = turn.as_mut().and_then(|turn| turn.before.take()) {
        // Either way the one before is through: it finished or was given up.
        drop(before.await);
    }
    if let Some(longest) = verdict.reorder {
        // Waiting in vain is fine: then nothing came that could overtake.
        drop(tokio::time::timeout(longest, overtaken.changed()).await);
    }
    if let Some(delay) = verdict.delay {
        tokio::time::sleep(delay).await;
    }
    if verdict.drop {
        record(world, &webhook, &webhook.url, 1, None, true);
        return;
    }
    let mut answer = attempt(world, &webhook, &webhook.url, 1).await;
    if verdict.duplicate {
        answer = attempt(world, &webhook, &webhook.url, 1).await;
    }
    drop(turn);
    world.lock().lanes.passed(&webhook.line).send_replace(());

    match &webhook.payload {
        Payload::Meta { .. } => retry_meta(world, &webhook, answer).await,
        Payload::Twilio { .. } => finish_twilio(world, webhook, answer).await,
    }
}

/// Meta repeats whatever is not answered 200, with growing pauses.
async fn retry_meta(world: &World, webhook: &Webhook, mut answer: Option<Answer>) {
    let settings = world.settings();
    let mut pause = Duration::from_millis(settings.webhook_retry_ms);
    for number in 2..=settings.webhook_attempts {
        if answer.is_some_and(|answer| answer.status == 200) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_RETRY);
        answer = attempt(world, webhook, &webhook.url, number).await;
    }
}

/// Twilio repeats only what the address asks for (`#rc=…&rp=…`), then tries the fallback address.
async fn finish_twilio(world: &World, webhook: Webhook, mut answer: Option<Answer>) {
    let retries = TwilioRetries::of(&webhook.url);
    for number in 2..=retries.count.saturating_add(1) {
        if !retries.wants(answer.as_ref()) {
            break;
        }
        answer = attempt(world, &webhook, &webhook.url, number).await;
    }
    let Payload::Twilio {
        params,
        fallback_url,
        is_message,
        ..
    } = &webhook.payload
    else {
        return;
    };
    if failed(answer.as_ref()) {
        world.lock().record_alert(11_200, &webhook.url);
        if !fallback_url.is_empty() {
            let url = fallback_url.clone();
            let mut second = webhook.clone();
            let mut params = params.clone();
            params.push(("ErrorCode".to_owned(), "11200".to_owned()));
            params.push(("ErrorUrl".to_owned(), webhook.url.clone()));
            if let Payload::Twilio { params: slot, .. } = &mut second.payload {
                *slot = params;
            }
            answer = attempt(world, &second, &url, 1).await;
        }
    }
    if *is_message && let Some(answer) = answer.filter(|answer| answer.status < 300) {
        twilio::take_answer(world, &webhook, &answer.content_type, &answer.body);
    }
}

fn failed(answer: Option<&Answer>) -> bool {
    answer.is_none_or(|answer| answer.status >= 400)
}

/// Connection overrides in the fragment of a webhook address.
struct TwilioRetries {
    count: u32,
    policy: String,
}

impl TwilioRetries {
    fn of(url: &str) -> Self {
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        let mut retries = Self {
            count: 0,
            policy: "ct".to_owned(),
        };
        for (key, value) in url::form_urlencoded::parse(fragment.as_bytes()) {
            match &*key {
                "rc" => retries.count = value.parse().unwrap_or(0).min(5),
                "rp" => retries.policy = value.into_owned(),
                _ => {}
            }
        }
        retries
    }

    fn wants(&self, answer: Option<&Answer>) -> bool {
        let reason = match answer {
            None => "ct",
            Some(answer) if answer.status >= 500 => "5xx",
            Some(answer) if answer.status >= 400 => "4xx",
            Some(_) => return false,
        };
        self.policy.split(',').any(|p| p == "all" || p == reason)
    }
}

/// One attempt, recorded. Nothing where no answer came.
async fn attempt(world: &World, webhook: &Webhook, url: &str, number: u32) -> Option<Answer> {
    let permit = world.webhook_slots().acquire().await;
    let answer = match request(world, webhook, url).send().await {
        Ok(response) => read(response).await,
        Err(error) => {
            tracing::debug!(error = %error.without_url(), "webhook not answered");
            None
        }
    };
    drop(permit);
    let status = answer.as_ref().map(|answer| answer.status);
    record(world, webhook, url, number, status, false);
    answer
}

async fn read(response: reqwest::Response) -> Option<Answer> {
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body = response.text().await.ok()?;
    Some(Answer {
        status,
        content_type,
        body,
    })
}

fn request(world: &World, webhook: &Webhook, url: &str) -> reqwest::RequestBuilder {
    let target = url.split_once('#').map_or(url, |(before, _)| before);
    let request = world.http().post(target).timeout(ANSWER_TIMEOUT);
    match &webhook.payload {
        Payload::Meta { body, app_secret } => request
            .header(CONTENT_TYPE, "application/json")
            .header("X-Hub-Signature-256", sign_meta(app_secret, body))
            .header("User-Agent", "facebookexternalua")
            .body(body.clone()),
        Payload::Twilio {
            params, auth_token, ..
        } => {
            let body = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(params)
                .finish();
            request
                .header(
                    CONTENT_TYPE,
                    "application/x-www-form-urlencoded; charset=UTF-8",
                )
                .header(
                    "X-Twilio-Signature",
                    signature::sign(auth_token, target, params),
                )
                .header("I-Twilio-Idempotency-Token", Uuid::new_v4().to_string())
                .header("User-Agent", "TwilioProxy/1.1")
                .body(body)
        }
    }
}

/// `X-Hub-Signature-256` over the bytes as they go out.
fn sign_meta(app_secret: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, app_secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body.as_bytes())))
}

fn record(
    world: &World,
    webhook: &Webhook,
    url: &str,
    attempt: u32,
    status: Option<u16>,
    dropped: bool,
) {
    let attempt = WebhookAttempt {
        provider: webhook.provider,
        line: webhook.line.clone(),
        url: url.to_owned(),
        about: webhook.about.clone(),
        message_id: webhook.message_id.clone(),
        attempt,
        status,
        dropped,
        at: world.now(),
    };
    world.lock().record_webhook(attempt.clone());
    world.emit(Event::Webhook { attempt });
}

/// Meta's GET handshake: 200 with the challenge and nothing else.
pub(crate) async fn verify(http: &reqwest::Client, number: &MetaNumber) -> Result<(), WorldError> {
    let failed = |reason: String| WorldError::WebhookFailed(reason);
    let challenge = Uuid::new_v4().as_u128().to_string();
    let mut url = url::Url::parse(&number.webhook_url)
        .map_err(|_| failed("no webhook address is set".to_owned()))?;
    url.query_pairs_mut()
        .append_pair("hub.mode", "subscribe")
        .append_pair("hub.challenge", &challenge)
        .append_pair("hub.verify_token", &number.verify_token);
    let response = http
        .get(url)
        .timeout(ANSWER_TIMEOUT)
        .send()
        .await
        .map_err(|error| failed(error.without_url().to_string()))?;
    let status = response.status().as_u16();
    let body = response
        .text()
        .await
        .map_err(|error| failed(error.without_url().to_string()))?;
    if status != 200 {
        return Err(failed(format!("status {status}")));
    }
    if body != challenge {
        return Err(failed("the body is not the challenge".to_owned()));
    }
    Ok(())
}
