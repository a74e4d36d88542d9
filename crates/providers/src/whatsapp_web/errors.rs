//! What WhatsApp's refusals of a phone's message mean. The codes are those of the server's ack stanza; nobody
//! documents them, so they are named as the open clients found them out.

use crate::ErrorClass;

/// What kind of failure a code is: `not_connected` and such are ours; numbers are WhatsApp's.
#[must_use]
pub fn classify(code: &str) -> ErrorClass {
    match code {
        // The session moved to another node or is reconnecting: nothing left.
        "not_connected" | "lease_lost" => ErrorClass::Transient,
        "lost" => ErrorClass::Ambiguous,
        "429" | "throttled" => ErrorClass::ThrottledChannel,
        // "Reach-out time lock": too many first messages to strangers.
        "463" => ErrorClass::NotNow,
        "not_on_whatsapp" | "404" => ErrorClass::Recipient,
        // Malformed, not acceptable.
        "479" | "406" | "400" => ErrorClass::Content,
        "401" | "403" => ErrorClass::ChannelBlocked,
        _ => ErrorClass::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_out_lock_waits_and_a_malformed_message_does_not() {
        assert_eq!(classify("463"), ErrorClass::NotNow);
        assert_eq!(classify("479"), ErrorClass::Content);
        assert_eq!(classify("500"), ErrorClass::Transient);
    }
}
