//! Asking how a message fared: Twilio does not repeat a callback that found nobody, and tells the price nowhere else.
//!
//! Source: Twilio, "Messages resource" (Fetch a Message).

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use wasel_domain::MessageStatus;
use wasel_domain::event::{ProviderError, StatusEvent};

use super::TwilioChannel;
use super::parse::status_of;
use crate::{ErrorClass, LookedUp, SendError};

impl TwilioChannel {
    pub(super) async fn read_message(
        &self,
        http: &reqwest::Client,
        sid: &str,
    ) -> Result<LookedUp, SendError> {
        let file = format!("{sid}.json");
        let url = self.endpoint(
            &self.api_base,
            &[
                "2010-04-01",
                "Accounts",
                &self.settings.account_sid,
                "Messages",
                &file,
            ],
        );
        let answer = self.ask(http.get(url)).await?;
        if !answer.status.is_success() {
            return Err(answer.refusal(&self.tokens()));
        }
        let body: Option<Value> = answer
            .body
            .and_then(|body| serde_json::from_slice(&body).ok());
        body.as_ref()
            .and_then(|body| looked_up(body, sid))
            .ok_or_else(|| SendError {
                class: ErrorClass::Transient,
                code: None,
                detail: "Twilio's answer is no message resource".to_owned(),
                retry_after: None,
            })
    }
}

fn looked_up(body: &Value, sid: &str) -> Option<LookedUp> {
    let text = |name: &str| body.get(name)?.as_str();
    let status = status_of(text("status")?)?;
    // Only its going out has a time of its own; for anything later the last change must do.
    let time = match status {
        MessageStatus::Sent => "date_sent",
        _ => "date_updated",
    };
    let at = text(time)
        .and_then(|at| DateTime::parse_from_rfc2822(at).ok())
        .map_or_else(Utc::now, |at| at.with_timezone(&Utc));
    let error = body
        .get("error_code")
        .and_then(Value::as_u64)
        .filter(|_| status == MessageStatus::Failed)
        .map(|code| ProviderError {
            code: code.to_string(),
            message: text("error_message").unwrap_or_default().to_owned(),
        });
    let price = text("price");
    let segments: Option<u32> = text("num_segments")
        .and_then(|count| count.parse().ok())
        .filter(|count| *count > 0);
    let pricing = (price.is_some() || segments.is_some()).then(|| {
        let mut pricing = json!({});
        if let Some(price) = price {
            pricing["price"] = json!(price);
            pricing["currency"] = json!(text("price_unit"));
        }
        if let Some(segments) = segments {
            pricing["segments"] = json!(segments);
        }
        pricing
    });
    Some(LookedUp {
        status: StatusEvent {
            provider_message_id: sid.to_owned(),
            attempt_id: None,
            status,
            at,
            error,
            detail: json!({ "looked_up": true }),
        },
        pricing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_resource_tells_status_price_and_segments() {
        let body = json!({ "status": "undelivered", "error_code": 30003, "error_message": "Unreachable",
            "price": "-0.00750", "price_unit": "USD", "num_segments": "2",
            "date_updated": "Wed, 11 Nov 2026 20:30:00 +0000" });
        let found = looked_up(&body, "SM1").unwrap();
        assert_eq!(found.status.status, MessageStatus::Failed);
        assert_eq!(found.status.error.unwrap().code, "30003");
        assert_eq!(found.status.at.to_rfc3339(), "2026-11-11T20:30:00+00:00");
        let pricing = found.pricing.unwrap();
        assert_eq!(
            pricing,
            json!({ "price": "-0.00750", "currency": "USD", "segments": 2 })
        );
    }

    #[test]
    fn what_is_not_known_yet_is_left_out() {
        let body =
            json!({ "status": "queued", "price": null, "num_segments": "0", "error_code": null });
        let found = looked_up(&body, "SM1").unwrap();
        assert_eq!(found.status.status, MessageStatus::Sending);
        assert_eq!((found.status.error, found.pricing), (None, None));
        assert_eq!(looked_up(&json!({ "status": "teleported" }), "SM1"), None);
        assert_eq!(looked_up(&json!([]), "SM1"), None);
    }
}
