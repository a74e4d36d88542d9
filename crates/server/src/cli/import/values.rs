//! From the words of old tables to ours.

use chrono::{DateTime, Duration, NaiveDate, Utc};
use uuid::Uuid;
use wasel_domain::MessageStatus;

/// A time as Postgres, ISO 8601 or a clock of seconds or milliseconds since 1970 writes it; without a zone it is UTC.
pub fn time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if text.len() >= 10 && text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        return match text.len() {
            10 => DateTime::from_timestamp(number, 0),
            13 => DateTime::from_timestamp_millis(number),
            _ => None,
        };
    }
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-');
    let mut next = || parts.next()?.parse::<u32>().ok();
    let day = NaiveDate::from_ymd_opt(i32::try_from(next()?).ok()?, next()?, next()?)?;
    let Some(rest) = rest.strip_prefix(['T', 't', ' ']) else {
        return rest
            .is_empty()
            .then(|| day.and_hms_opt(0, 0, 0))?
            .map(|at| at.and_utc());
    };
    let zone_at = rest.find(['Z', 'z', '+', '-', ' ']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':');
    let mut next = || match parts.next() {
        Some(part) if part.len() == 2 => part.parse::<u32>().ok(),
        Some(_) => None,
        None => Some(0),
    };
    let (hour, minute, second) = (next()?, next()?, next()?);
    let micros = match fraction {
        "" => 0,
        digits if digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let number: u32 = digits.parse().ok()?;
            // Postgres keeps six digits.
            (u64::from(number) * 1_000_000 / 10_u64.pow(digits.len() as u32)) as u32
        }
        _ => return None,
    };
    let at = day
        .and_hms_micro_opt(hour, minute, second, micros)?
        .and_utc();
    at.checked_sub_signed(Duration::seconds(offset(zone.trim())?))
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z" | "UTC") {
        return Some(0);
    }
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let digits: String = digits.chars().filter(|c| *c != ':').collect();
    let part = |from: usize| -> Option<i64> {
        match digits.get(from..from + 2) {
            Some(two) => two.parse().ok(),
            None => (digits.len() <= from).then_some(0),
        }
    };
    Some(sign * (part(0)? * 3600 + part(2)? * 60 + part(4)?))
}

/// A status word of any of the old tables; `None` for one nobody knows.
pub fn status(word: &str) -> Option<MessageStatus> {
    Some(match word.to_ascii_lowercase().as_str() {
        "pending" | "scheduled" => MessageStatus::Pending,
        "queued" | "accepted" => MessageStatus::Queued,
        "sending" | "processing" => MessageStatus::Sending,
        "sent" => MessageStatus::Sent,
        "delivered" => MessageStatus::Delivered,
        "read" | "seen" | "played" => MessageStatus::Read,
        "failed" | "undelivered" | "error" => MessageStatus::Failed,
        "canceled" | "cancelled" => MessageStatus::Cancelled,
        "received" | "receiving" => MessageStatus::Received,
        _ => return None,
    })
}

/// Whether the customer wrote it.
pub fn is_inbound(word: &str) -> Option<bool> {
    Some(match word.to_ascii_lowercase().as_str() {
        "inbound" | "incoming" | "in" | "received" | "customer" | "contact" | "client" => true,
        // `user` is the business's user.
        "outgoing" | "out" | "sent" | "user" | "agent" | "distributor" | "staff" | "ai" | "bot"
        | "assistant" | "system" => false,
        // Twilio: outbound-api, outbound-reply …
        other if other.starts_with("outbound") => false,
        _ => return None,
    })
}

/// A `message_type` word; `None` for one that is no kind of ours.
pub fn message_type(word: &str, media_url: Option<&str>) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "text" | "chat" | "" => "text",
        "image" | "photo" => "image",
        "video" => "video",
        "audio" | "voice" | "ptt" => "audio",
        "document" | "file" => "document",
        "sticker" => "sticker",
        "location" => "location",
        "contacts" | "contact" | "vcard" => "contacts",
        "interactive" => "interactive",
        "button" => "button",
        "order" => "order",
        "template" => "template",
        "system" => "system",
        "media" => media_url.map_or("document", of_file),
        _ => return None,
    })
}

/// The kind of a file by the end of its address.
pub fn of_file(url: &str) -> &'static str {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let end = path.rsplit('.').next().unwrap_or("").to_ascii_lowercase();
    match end.as_str() {
        "jpg" | "jpeg" | "png" | "gif" | "webp" | "heic" => "image",
        "mp4" | "3gp" | "mov" | "webm" => "video",
        "mp3" | "ogg" | "oga" | "opus" | "m4a" | "aac" | "amr" | "wav" => "audio",
        _ => "document",
    }
}

pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "t" | "true" | "1" | "yes" => Some(true),
        "f" | "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// A list as JSON (`["a"]`), as a Postgres array (`{a,"b c"}`), or separated by commas.
pub fn list(text: &str) -> Vec<String> {
    if let Ok(items) = serde_json::from_str::<Vec<String>>(text) {
        // Postgres keeps no U+0000.
        return items
            .iter()
            .map(|item| item.replace('\0', "\u{FFFD}"))
            .collect();
    }
    let inner = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .unwrap_or(text);
    let (mut items, mut item) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for c in inner.chars() {
        match c {
            _ if escaped => {
                item.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => items.push(std::mem::take(&mut item)),
            _ => item.push(c),
        }
    }
    items.push(item);
    items.retain(|item| !item.trim().is_empty());
    items
}

/// An id for a row that had none of its own, the same in every run; it sorts by `at` like ours do.
pub fn derived_id(hash: &[u8], at: DateTime<Utc>) -> Uuid {
    let mut random = [0; 10];
    random.copy_from_slice(&hash[..10]);
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_time_is_read_and_a_naive_one_is_utc() {
        for text in [
            "2024-03-05 10:20:30.5+00",
            "2024-03-05T10:20:30.5Z",
            "2024-03-05 10:20:30.500000",
            "2024-03-05 12:20:30.5+02",
            "2024-03-05T13:50:30.5+03:30",
            "2024-03-05 05:20:30.5-0500",
            "1709634030500",
        ] {
            let at = time(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(at.to_rfc3339(), "2024-03-05T10:20:30.500+00:00", "{text}");
        }
        assert_eq!(
            time("2024-03-05").unwrap().to_rfc3339(),
            "2024-03-05T00:00:00+00:00"
        );
        assert_eq!(time("1709634030"), time("2024-03-05 10:20:30"));
        for text in [
            "",
            "infinity",
            "yesterday",
            "2024-13-01",
            "2024-03-05 25:00",
            "2024-03-05 1:2:3",
            "٢٠٢٤-٠٣-٠٥",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn lists_are_read_in_all_three_spellings() {
        for text in [
            r#"["vip","two words"]"#,
            r#"{vip,"two words"}"#,
            "vip,two words",
        ] {
            assert_eq!(list(text), ["vip", "two words"], "{text}");
        }
        assert_eq!(list("{}"), Vec::<String>::new());
        assert_eq!(list(r#"{"a\"b",مهم}"#), ["a\"b", "مهم"]);
    }

    #[test]
    fn twilios_words_become_ours() {
        assert_eq!(status("undelivered"), Some(MessageStatus::Failed));
        assert_eq!(status("accepted"), Some(MessageStatus::Queued));
        assert_eq!(status("on its way"), None);
        assert_eq!(is_inbound("outbound-api"), Some(false));
    }

    #[test]
    fn a_derived_id_is_the_same_each_time_and_sorts_by_time() {
        let early = derived_id(&[255; 32], time("2024-01-01").unwrap());
        let late = derived_id(&[0; 32], time("2024-01-02").unwrap());
        assert_eq!(early, derived_id(&[255; 32], time("2024-01-01").unwrap()));
        assert!(early < late);
    }
}
