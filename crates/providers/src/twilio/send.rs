//! Sending, and the little that can be told to a customer's phone besides.
//!
//! Source: Twilio, "Messages resource" (Create a Message) and "Typing Indicators resource" (public beta).

use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT, RETRY_AFTER};
use serde_json::Value;
use url::Url;
use wasel_domain::OutboundContent;
use wasel_domain::event::{Identity, IdentityKind};

use super::address::{self, Network};
use super::content::{self, Fields};
use super::{TwilioChannel, errors};
use crate::{Accepted, ErrorClass, Outbound, SendError};

/// More than any answer of Twilio's; a longer one is not Twilio's.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

impl TwilioChannel {
    pub(super) async fn send_message(
        &self,
        http: &reqwest::Client,
        message: &Outbound<'_>,
    ) -> Result<Accepted, SendError> {
        let form = self.form(message)?;
        let url = self.endpoint(
            &self.api_base,
            &[
                "2010-04-01",
                "Accounts",
                &self.settings.account_sid,
                "Messages.json",
            ],
        );
        let answer = self.post(http, url, &form).await?;
        if !answer.status.is_success() {
            let private = self.private_texts(message);
            return Err(answer.refusal(&private));
        }
        // From here on Twilio has it. What cannot be read must not be sent again.
        let body: Option<Value> = answer
            .body
            .and_then(|body| serde_json::from_slice(&body).ok());
        let text = |name: &str| body.as_ref()?.get(name)?.as_str();
        let Some(sid) = text("sid").filter(|sid| !sid.is_empty()) else {
            return Err(SendError {
                class: ErrorClass::Ambiguous,
                code: Some(format!("http_{}", answer.status.as_u16())),
                detail: "Twilio took the message, but its answer names no message id".to_owned(),
                retry_after: None,
            });
        };
        Ok(Accepted {
            provider_message_id: sid.to_owned(),
            status: None,
            recipient: text("to").and_then(address::identity).into_iter().collect(),
        })
    }

    /// Marks the message read and shows "typing…" until we answer, for 25 seconds at most: Twilio does both or
    /// neither.
    pub(super) async fn show_typing(
        &self,
        http: &reqwest::Client,
        provider_message_id: &str,
    ) -> Result<(), SendError> {
        if self.network != Network::Whatsapp {
            return Err(SendError {
                class: ErrorClass::Content,
                code: None,
                detail: "SMS has no read receipts".to_owned(),
                retry_after: None,
            });
        }
        let url = self.endpoint(
            &messaging_base(&self.api_base),
            &["v2", "Indicators", "Typing.json"],
        );
        let form = vec![
            ("messageId", provider_message_id.to_owned()),
            ("channel", "whatsapp".to_owned()),
        ];
        let answer = self.post(http, url, &form).await?;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(answer.refusal(&self.tokens()))
        }
    }

    fn form(&self, message: &Outbound<'_>) -> Result<Fields, SendError> {
        let mut form = vec![("To", self.recipient(message.to)?)];
        form.push(match &self.settings.messaging_service_sid {
            Some(service) => ("MessagingServiceSid", service.clone()),
            None => ("From", self.network.spell(&self.settings.from)),
        });
        form.extend(
            content::fields(self.network, message.content).map_err(|error| SendError {
                class: ErrorClass::Content,
                code: None,
                detail: error.to_string(),
                retry_after: None,
            })?,
        );
        if let Some(callback) = message.status_callback {
            form.push(("StatusCallback", callback.to_owned()));
        }
        Ok(form)
    }

    fn recipient(&self, to: &Identity) -> Result<String, SendError> {
        match (self.network, to.kind) {
            (network, IdentityKind::Phone) => {
                Ok(network.spell(&address::normalise(address::without_prefix(&to.value))))
            }
            (Network::Whatsapp, IdentityKind::Bsuid) => Ok(self.network.spell(&to.value)),
            _ => Err(SendError {
                class: ErrorClass::Recipient,
                code: None,
                detail: format!(
                    "Twilio cannot write to an address of kind {}",
                    to.kind.as_str()
                ),
                retry_after: None,
            }),
        }
    }

    pub(super) fn tokens(&self) -> Vec<&str> {
        self.settings
            .auth_tokens
            .iter()
            .map(String::as_str)
            .collect()
    }

    /// What an error may not quote.
    fn private_texts<'a>(&'a self, message: &'a Outbound<'_>) -> Vec<&'a str> {
        let mut private = self.tokens();
        private.push(&message.to.value);
        private.extend(message.content.text());
        if let OutboundContent::Template(template) = message.content {
            let values = template
                .variables
                .iter()
                .flat_map(|variables| variables.values());
            private.extend(values.filter_map(Value::as_str));
        }
        private
    }

    pub(super) fn endpoint(&self, base: &Url, segments: &[&str]) -> String {
        format!(
            "{}/{}",
            base.as_str().trim_end_matches('/'),
            segments.join("/")
        )
    }

    async fn post(
        &self,
        http: &reqwest::Client,
        url: String,
        form: &Fields,
    ) -> Result<Answer, SendError> {
        self.ask(http.post(url).form(form)).await
    }

    pub(super) async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Answer, SendError> {
        let response = request
            .basic_auth(&self.settings.account_sid, self.settings.auth_token())
            .header(ACCEPT, "application/json")
            .send()
            .await
            .map_err(|error| SendError::from_http(&error))?;
        Ok(Answer {
            status: response.status(),
            retry_after: retry_after(&response),
            body: read_answer(response).await,
        })
    }
}

/// Twilio has a host for each product: `messaging.` beside `api.`, in every region. A stand-in serves both on
/// one host.
pub(super) fn messaging_base(api_base: &Url) -> Url {
    let region = api_base
        .host_str()
        .and_then(|host| host.strip_prefix("api."))
        .filter(|rest| *rest == "twilio.com" || rest.ends_with(".twilio.com"));
    let messaging = region.and_then(|rest| {
        let mut base = api_base.clone();
        base.set_host(Some(&format!("messaging.{rest}"))).ok()?;
        Some(base)
    });
    messaging.unwrap_or_else(|| api_base.clone())
}

pub(super) struct Answer {
    pub status: StatusCode,
    retry_after: Option<Duration>,
    /// `None` if it broke off or never ended.
    pub body: Option<Vec<u8>>,
}

impl Answer {
    pub fn refusal(&self, private: &[&str]) -> SendError {
        let body = self.body.as_deref().unwrap_or_default();
        errors::from_answer(self.status, self.retry_after, body, private)
    }
}

/// `Retry-After` in seconds. Twilio promises none; its dates are not worth a clock here.
pub(super) fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

async fn read_answer(mut response: reqwest::Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}
