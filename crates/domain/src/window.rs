//! WhatsApp's customer-service window: free-form messages only within 24 hours of the customer's last one.
//! Source: Meta, "Send messages" (business-messaging/whatsapp/messages/send-messages).

use chrono::{DateTime, TimeDelta, Utc};

/// How long a customer's message keeps the window open.
pub const CUSTOMER_SERVICE_WINDOW: TimeDelta = TimeDelta::hours(24);

/// When the window closes, given the customer's last message; `None` if they never wrote.
#[must_use]
pub fn closes_at(last_inbound_at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    last_inbound_at.map(|at| at + CUSTOMER_SERVICE_WINDOW)
}

/// Whether a free-form message may still be sent.
#[must_use]
pub fn is_open(last_inbound_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    closes_at(last_inbound_at).is_some_and(|closes| now < closes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_open_for_24_hours_after_the_customers_last_message() {
        let now = Utc::now();
        assert!(!is_open(None, now));
        assert!(is_open(Some(now - TimeDelta::hours(23)), now));
        assert!(!is_open(Some(now - TimeDelta::hours(24)), now));
    }
}
