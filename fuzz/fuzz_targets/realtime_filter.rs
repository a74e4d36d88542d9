//! Filters and the rows they are tried on: the first line is the filter, the rest the row as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasel_realtime::filter::Filter;
use wasel_realtime::{Column, TableInfo};

const TYPES: [&str; 14] = [
    "int4",
    "int8",
    "numeric",
    "float8",
    "bool",
    "text",
    "bpchar",
    "citext",
    "uuid",
    "timestamptz",
    "timestamp",
    "date",
    "time",
    "jsonb",
];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (filter, row) = text.split_once('\n').unwrap_or((text, "{}"));
    // Each column bears the name of its type.
    let table = TableInfo {
        columns: TYPES
            .into_iter()
            .map(|name| Column {
                name: name.to_owned(),
                type_: name.to_owned(),
            })
            .collect(),
        ..TableInfo::default()
    };
    if let (Ok(filter), Ok(row)) = (Filter::parse(filter, &table), serde_json::from_str(row)) {
        filter.matches(&row);
    }
});
