//! CSV as spreadsheets take it: RFC 4180, UTF-8 with a byte order mark, by which Excel knows Arabic from rubbish.

use std::fmt::Display;

use axum::body::Bytes;

/// Rows being written.
#[derive(Default)]
pub(in crate::http::v1) struct Csv(String);

impl Csv {
    /// The beginning of a file.
    pub(in crate::http::v1) fn with_mark() -> Self {
        Self("\u{feff}".to_owned())
    }

    /// Adds a row of cells made by [`text`] and [`number`].
    pub(in crate::http::v1) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        for (n, cell) in cells.into_iter().enumerate() {
            if n > 0 {
                self.0.push(',');
            }
            self.0.push_str(&cell);
        }
        self.0.push_str("\r\n");
    }

    pub(in crate::http::v1) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::http::v1) fn into_bytes(self) -> Bytes {
        self.0.into()
    }
}

/// A cell of somebody's words. What a spreadsheet would take for a formula gets an apostrophe before it, or a customer
/// could write programs for whoever opens the file (<https://owasp.org/www-community/attacks/CSV_Injection>).
pub(in crate::http::v1) fn text(value: Option<&str>) -> String {
    let value = value.unwrap_or_default();
    if value.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        quoted(&format!("'{value}"))
    } else {
        quoted(value)
    }
}

/// A cell of our own making: a number, a date, an id. Never anybody's words.
pub(in crate::http::v1) fn number(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| quoted(&value.to_string()))
}

fn quoted(value: &str) -> String {
    let plain = !value.contains([',', '"', '\r', '\n', ';']) && value.trim() == value;
    if plain {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be_and_formulas_are_disarmed() {
        let cases = [
            ("", ""),
            ("مرحباً", "مرحباً"),
            ("a, b", "\"a, b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            (" edge", "\" edge\""),
            ("=1+1", "'=1+1"),
            ("+20100", "'+20100"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("=\"a\",b", "\"'=\"\"a\"\",b\""),
            ("1+1=2", "1+1=2"),
        ];
        for (value, cell) in cases {
            assert_eq!(text(Some(value)), cell, "{value:?}");
        }
        assert_eq!(number(Some(-1)), "-1");
        assert_eq!(number(None::<i64>), "");
    }

    #[test]
    fn a_file_begins_with_the_mark_and_its_rows_end_as_the_rfc_says() {
        let mut csv = Csv::with_mark();
        csv.row([text(Some("a")), text(None), number(Some(1))]);
        csv.row([text(Some("b"))]);
        assert_eq!(csv.into_bytes(), "\u{feff}a,,1\r\nb\r\n".as_bytes());
    }
}
