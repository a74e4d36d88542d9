//! Lists as spreadsheets save them: UTF-8 with or without its mark, separated by commas, semicolons or tabs, a header.

use serde_json::{Map, Value};

use super::{MAX_RECIPIENTS, Row};
use crate::http::error::ApiError;

/// Columns that hold the address, where the caller names none; the first in the file counts.
const ADDRESS_COLUMNS: &[&str] = &[
    "to",
    "phone",
    "phone number",
    "recipient",
    "recipient phone",
    "mobile",
    "mobile number",
    "number",
    "whatsapp",
    "whatsapp number",
    "tel",
    "telephone",
    "email",
    "e mail",
    "رقم الهاتف",
    "الهاتف",
    "هاتف",
    "رقم الجوال",
    "الجوال",
    "جوال",
    "رقم الموبايل",
    "الموبايل",
    "موبايل",
    "رقم الواتساب",
    "واتساب",
    "الرقم",
    "المستلم",
    "البريد الإلكتروني",
];
const NAME_COLUMNS: &[&str] = &["name", "full name", "الاسم", "اسم", "الاسم الكامل"];

/// A column's name is that of a variable; each row carries it.
const MAX_HEADER: usize = 200;

/// The rows of a file, and one more than may be. Every column but the address is a variable by its header; an empty cell is no value.
///
/// # Errors
/// Only what makes the whole unreadable: not UTF-8, no column for the address.
pub fn read_csv(bytes: &[u8], address_column: Option<&str>) -> Result<Vec<Row>, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ApiError::invalid("file", "must be UTF-8 (in Excel: “CSV UTF-8”)"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(delimiter(text))
        .from_reader(text.as_bytes());
    let mut records = reader.records();
    let header = records
        .next()
        .transpose()
        .map_err(|error| ApiError::invalid("file", error.to_string()))?
        .ok_or_else(|| ApiError::invalid("file", "is empty"))?;
    if let Some(long) = header.iter().find(|name| name.len() > MAX_HEADER) {
        let message = format!(
            "the column `{}…` has a name of more than {MAX_HEADER} bytes",
            long.chars().take(20).collect::<String>()
        );
        return Err(ApiError::invalid("file", message));
    }
    let names: Vec<String> = header.iter().map(normal).collect();
    let find = |wanted: &[&str]| {
        names
            .iter()
            .position(|name| wanted.contains(&name.as_str()))
    };
    let address = match address_column {
        Some(column) => {
            let column = normal(column);
            let missing =
                || ApiError::invalid("to_column", "is not in the first line of the file");
            find(&[column.as_str()]).ok_or_else(missing)?
        }
        None => find(ADDRESS_COLUMNS).ok_or_else(|| {
            ApiError::invalid(
                "file",
                "its first line names no column `to` or `phone`; say which one it is with to_column",
            )
        })?,
    };
    let name = find(NAME_COLUMNS);
    let mut rows = Vec::new();
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                rows.push(Row {
                    problem: Some(error.to_string()),
                    ..Row::default()
                });
                if rows.len() > MAX_RECIPIENTS {
                    break;
                }
                continue;
            }
        };
        if record.iter().all(str::is_empty) {
            continue;
        }
        let mut row = Row {
            to: record.get(address).unwrap_or_default().to_owned(),
            name: name
                .and_then(|name| record.get(name))
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            variables: Map::new(),
            from_file: true,
            ..Row::default()
        };
        for (column, cell) in record.iter().enumerate() {
            if let Some(header) = header.get(column)
                && column != address
                && !header.is_empty()
                && !cell.is_empty()
            {
                row.variables
                    .insert(header.to_owned(), Value::String(cell.to_owned()));
            }
        }
        rows.push(row);
        if rows.len() > MAX_RECIPIENTS {
            break;
        }
    }
    Ok(rows)
}

/// The one that the first line has most of, outside quotes.
fn delimiter(text: &str) -> u8 {
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    let mut quoted = false;
    for byte in text.bytes() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            _ if quoted => {}
            _ => {
                if let Some((_, count)) = counts.iter_mut().find(|(sign, _)| *sign == byte) {
                    *count += 1;
                }
            }
        }
    }
    let mut best = counts[0];
    for other in &counts[1..] {
        if other.1 > best.1 {
            best = *other;
        }
    }
    best.0
}

/// `Phone_Number` and `phone number` are one.
fn normal(header: &str) -> String {
    let spaced: String = header
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| !matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}' | '\u{0640}'))
        .map(|c| if matches!(c, '_' | '-') { ' ' } else { c })
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(text: &str) -> Vec<Row> {
        read_csv(text.as_bytes(), None).unwrap()
    }

    #[test]
    fn every_way_a_spreadsheet_saves_a_list_is_read() {
        for text in [
            "phone,name,total\n+201001234567,منى,\"9,50\"\n",
            "\u{feff}Phone;Name;total\r\n+201001234567;منى;9,50\r\n",
            "total\tname\tPHONE\n9,50\t منى \t +201001234567",
            "total;الاسم;رقم_الهاتف\n9,50;منى;+201001234567\n;;\n",
        ] {
            let rows = rows(text);
            assert_eq!(rows.len(), 1, "{text}");
            assert_eq!(rows[0].to, "+201001234567", "{text}");
            assert_eq!(rows[0].name.as_deref(), Some("منى"), "{text}");
            assert_eq!(rows[0].variables["total"], json!("9,50"), "{text}");
        }
    }

    #[test]
    fn short_and_long_rows_are_rows_and_an_empty_cell_is_no_value() {
        let rows = rows("to,a,b\n1\n2,x\n3,,y,z\n");
        let variables: Vec<Value> = rows
            .iter()
            .map(|row| Value::Object(row.variables.clone()))
            .collect();
        assert_eq!(
            variables,
            [json!({}), json!({ "a": "x" }), json!({ "b": "y" })]
        );
    }

    #[test]
    fn the_address_column_can_be_named_and_its_absence_is_told() {
        let named = read_csv(b"who,to\n1,2\n", Some("WHO")).unwrap();
        assert_eq!(named[0].to, "1");
        assert_eq!(named[0].variables["to"], json!("2"));
        let field = |bytes: &[u8], column| read_csv(bytes, column).unwrap_err().field.unwrap();
        assert_eq!(field(b"a,b\n1,2\n", None), "file");
        assert_eq!(field(b"to\n1\n", Some("x")), "to_column");
        assert_eq!(field(b"", None), "file");
        assert_eq!(field(b"to\n\xff\n", None), "file");
    }
}
