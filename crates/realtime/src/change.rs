//! One committed change of a row and the JSON in which clients are told of it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::catalog::TableInfo;
use crate::codec::{put_json, put_string};

/// Above this many bytes of rows only short fields are kept, as Supabase does.
const MAX_ROW_BYTES: usize = 1024 * 1024;
/// A field that short is kept in a row that is too large.
const SHORT_FIELD_BYTES: usize = 64;

/// Where rows tell their number, to bindings that say `after`.
const SEQ_COLUMN: &str = "change_seq";

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeOp {
    Insert,
    Update,
    Delete,
}

impl ChangeOp {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// A committed change of one row, under one published name.
#[derive(Clone, Debug)]
pub struct Change {
    /// Position in the change log.
    pub seq: i64,
    /// Tenant of the row.
    pub org_id: Uuid,
    /// Messaging channel the row belongs to, for rows that people limited to some channels may not see.
    pub channel_id: Option<Uuid>,
    /// Published table or view name.
    pub name: Arc<str>,
    pub op: ChangeOp,
    /// New row of an insert or update.
    pub record: Option<Value>,
    /// Old row of an update or delete, whole or in part. For an update without it the key of the new row is sent.
    pub old_record: Option<Value>,
    pub committed_at: DateTime<Utc>,
}

impl Change {
    /// The row that filters are tried on.
    pub(crate) fn filter_row(&self) -> Option<&Map<String, Value>> {
        match self.op {
            ChangeOp::Insert | ChangeOp::Update => self.record.as_ref(),
            ChangeOp::Delete => self.old_record.as_ref(),
        }
        .and_then(Value::as_object)
    }

    /// The `data` object of a `postgres_changes` message. `select` keeps the named columns and the key; with `tells_seq`
    /// the row has the change's number as a further column.
    pub(crate) fn encode_data(
        &self,
        table: &TableInfo,
        select: Option<&[String]>,
        tells_seq: bool,
    ) -> Bytes {
        let keep = |name: &str| {
            select.is_none_or(|select| select.iter().any(|selected| selected == name))
                || table.primary_key.iter().any(|key| key == name)
        };
        let record = match self.op {
            ChangeOp::Insert | ChangeOp::Update => Some(project(self.record.as_ref(), keep)),
            ChangeOp::Delete => None,
        };
        let old_record = match self.op {
            ChangeOp::Insert => None,
            ChangeOp::Delete => Some(project(self.old_record.as_ref(), keep)),
            ChangeOp::Update if self.old_record.is_some() => {
                Some(project(self.old_record.as_ref(), keep))
            }
            ChangeOp::Update => Some(project(self.record.as_ref(), |name| {
                table.primary_key.iter().any(|key| key == name)
            })),
        };
        let (column, seq) = (SEQ_COLUMN.to_owned(), Value::from(self.seq));
        let (mut record, mut old_record) = (record, old_record);
        if tells_seq && let Some(row) = record.as_mut().or(old_record.as_mut()) {
            row.push((&column, &seq));
        }
        let mut rows = encode_rows(record.as_deref(), old_record.as_deref(), |_| true);
        let too_large = rows.len() > MAX_ROW_BYTES;
        if too_large {
            rows = encode_rows(record.as_deref(), old_record.as_deref(), |value| {
                value.to_string().len() <= SHORT_FIELD_BYTES
            });
        }

        let mut out = BytesMut::with_capacity(rows.len() + 256 + 40 * table.columns.len());
        out.put_slice(b"{\"schema\":\"public\",\"table\":");
        put_string(&mut out, &self.name);
        out.put_slice(b",\"type\":");
        put_string(&mut out, self.op.as_str());
        out.put_slice(b",\"commit_timestamp\":");
        let committed_at = self
            .committed_at
            .to_rfc3339_opts(SecondsFormat::Millis, true);
        put_string(&mut out, &committed_at);
        out.put_slice(b",\"columns\":[");
        let columns = table.columns.iter().filter(|column| keep(&column.name));
        let columns = columns.map(|column| (column.name.as_str(), column.type_.as_str()));
        let columns = columns.chain(tells_seq.then_some((SEQ_COLUMN, "int8")));
        for (index, (name, type_)) in columns.enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            out.put_slice(b"{\"name\":");
            put_string(&mut out, name);
            out.put_slice(b",\"type\":");
            put_string(&mut out, type_);
            out.put_u8(b'}');
        }
        out.put_slice(b"]");
        out.put_slice(&rows);
        out.put_slice(if too_large {
            b",\"errors\":[\"Error 413: Payload Too Large\"]}"
        } else {
            b",\"errors\":null}"
        });
        out.freeze()
    }
}

type Row<'a> = Vec<(&'a String, &'a Value)>;

fn project(row: Option<&Value>, keep: impl Fn(&str) -> bool) -> Row<'_> {
    row.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(name, _)| keep(name))
        .collect()
}

fn encode_rows(
    record: Option<&[(&String, &Value)]>,
    old_record: Option<&[(&String, &Value)]>,
    keep: impl Fn(&Value) -> bool,
) -> BytesMut {
    let mut out = BytesMut::new();
    for (name, row) in [("record", record), ("old_record", old_record)] {
        let Some(row) = row else { continue };
        out.put_u8(b',');
        put_string(&mut out, name);
        out.put_slice(b":{");
        let fields = row.iter().filter(|(_, value)| keep(value));
        for (index, (name, value)) in fields.enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            put_string(&mut out, name);
            out.put_u8(b':');
            put_json(&mut out, value);
        }
        out.put_u8(b'}');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Column;
    use serde_json::json;

    fn table() -> TableInfo {
        let column = |name: &str, type_: &str| Column {
            name: name.to_owned(),
            type_: type_.to_owned(),
        };
        TableInfo {
            columns: vec![
                column("id", "int8"),
                column("a", "text"),
                column("b", "text"),
            ],
            primary_key: vec!["id".to_owned()],
            ..TableInfo::default()
        }
    }

    fn change(op: ChangeOp, record: Option<Value>, old_record: Option<Value>) -> Change {
        Change {
            seq: 1,
            org_id: Uuid::nil(),
            channel_id: None,
            name: Arc::from("t"),
            op,
            record,
            old_record,
            committed_at: "2026-01-02T03:04:05.678Z".parse().expect("a time"),
        }
    }

    fn data(change: &Change, select: Option<&[String]>) -> Value {
        serde_json::from_slice(&change.encode_data(&table(), select, false)).expect("valid JSON")
    }

    #[test]
    fn an_insert_is_told_as_the_contract_writes_it() {
        let change = change(
            ChangeOp::Insert,
            Some(json!({"id": 1, "a": "x", "b": null})),
            None,
        );
        assert_eq!(
            data(&change, None),
            json!({
                "schema": "public", "table": "t", "type": "INSERT",
                "commit_timestamp": "2026-01-02T03:04:05.678Z",
                "columns": [
                    {"name": "id", "type": "int8"},
                    {"name": "a", "type": "text"},
                    {"name": "b", "type": "text"},
                ],
                "record": {"id": 1, "a": "x", "b": null},
                "errors": null,
            })
        );
    }

    #[test]
    fn an_update_without_its_old_row_tells_the_key() {
        let update = change(ChangeOp::Update, Some(json!({"id": 1, "a": "x"})), None);
        assert_eq!(data(&update, None)["old_record"], json!({"id": 1}));
        let whole = change(
            ChangeOp::Update,
            Some(json!({"id": 1})),
            Some(json!({"id": 1, "a": "o"})),
        );
        assert_eq!(data(&whole, None)["old_record"], json!({"id": 1, "a": "o"}));
    }

    #[test]
    fn a_delete_tells_what_it_was_given_and_no_record() {
        let delete = change(ChangeOp::Delete, None, Some(json!({"id": 1})));
        let data = data(&delete, None);
        assert_eq!(data["old_record"], json!({"id": 1}));
        assert_eq!(data.get("record"), None);
    }

    #[test]
    fn a_selection_keeps_the_key_and_narrows_the_columns() {
        let change = change(
            ChangeOp::Insert,
            Some(json!({"id": 1, "a": "x", "b": "y"})),
            None,
        );
        let data = data(&change, Some(&["b".to_owned()]));
        assert_eq!(data["record"], json!({"id": 1, "b": "y"}));
        assert_eq!(
            data["columns"],
            json!([{"name": "id", "type": "int8"}, {"name": "b", "type": "text"}])
        );
    }

    #[test]
    fn the_number_is_a_column_of_the_row_that_counts() {
        let told = |op, record, old_record| -> Value {
            let change = change(op, record, old_record);
            serde_json::from_slice(&change.encode_data(&table(), None, true)).expect("valid JSON")
        };
        let row = || Some(json!({"id": 1}));
        let insert = told(ChangeOp::Insert, row(), None);
        assert_eq!(insert["record"], json!({"id": 1, "change_seq": 1}));
        let last = insert["columns"].as_array().and_then(|all| all.last());
        assert_eq!(last, Some(&json!({"name": "change_seq", "type": "int8"})));
        let update = told(ChangeOp::Update, row(), row());
        assert_eq!(update["record"]["change_seq"], 1);
        assert_eq!(update["old_record"], json!({"id": 1}));
        let delete = told(ChangeOp::Delete, None, row());
        assert_eq!(delete["old_record"]["change_seq"], 1);
    }

    #[test]
    fn a_row_above_the_limit_keeps_its_short_fields() {
        let large = "x".repeat(MAX_ROW_BYTES);
        let change = change(
            ChangeOp::Insert,
            Some(json!({"id": 1, "a": large, "b": "y"})),
            None,
        );
        let data = data(&change, None);
        assert_eq!(data["record"], json!({"id": 1, "b": "y"}));
        assert_eq!(data["errors"], json!(["Error 413: Payload Too Large"]));
    }
}
