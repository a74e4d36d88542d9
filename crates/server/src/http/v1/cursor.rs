//! Cursors: opaque to clients, the place of the last row to us.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::http::error::ApiError;

fn bad() -> ApiError {
    ApiError::invalid("cursor", "is not one that a list returned")
}

/// A time and an id.
pub fn encode(at: Option<DateTime<Utc>>, id: Uuid) -> String {
    let at = at.map_or_else(|| "-".to_owned(), |at| at.timestamp_micros().to_string());
    BASE64_URL_SAFE_NO_PAD.encode(format!("{at}.{}", id.simple()))
}

pub fn decode(cursor: &str) -> Result<(Option<DateTime<Utc>>, Uuid), ApiError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad())?;
    let (at, id) = text.split_once('.').ok_or_else(bad)?;
    let id = Uuid::try_parse(id).map_err(|_| bad())?;
    if at == "-" {
        return Ok((None, id));
    }
    let micros = at.parse().map_err(|_| bad())?;
    Ok((
        Some(DateTime::from_timestamp_micros(micros).ok_or_else(bad)?),
        id,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_and_rubbish_is_refused() {
        let id = Uuid::now_v7();
        let at = DateTime::from_timestamp_micros(1_700_000_000_123_456);
        assert_eq!(decode(&encode(at, id)).unwrap(), (at, id));
        assert_eq!(decode(&encode(None, id)).unwrap(), (None, id));
        for rubbish in ["", "x", "Li4", "🙂", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OS54"] {
            assert_eq!(
                decode(rubbish).unwrap_err().field.as_deref(),
                Some("cursor"),
                "{rubbish}"
            );
        }
    }
}
