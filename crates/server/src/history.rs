//! Logged rows as the realtime hub tells them: those that have just come, and those read again for clients that come back
//! or read slowly.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use wasel_db::Db;
use wasel_db::changes::{self, Change, DOCUMENT_NAMES};
use wasel_domain::OrgId;
use wasel_realtime::{Ask, ChangeOp, History, HistoryError, Page};

use crate::tail::channel_of;

/// The tables behind these published names.
pub(crate) fn tables_of(names: &[Arc<str>]) -> Vec<&str> {
    let table_of = |name| {
        DOCUMENT_NAMES
            .iter()
            .find(|document| document.name == name)
            .map_or(name, |document| document.table)
    };
    names.iter().map(|name| table_of(&**name)).collect()
}

/// Rows of the log under those of the names that are theirs, in log order for all names together.
pub(crate) async fn tell(
    db: &Db,
    rows: &[Change],
    names: &[Arc<str>],
) -> Result<Vec<wasel_realtime::Change>, wasel_db::Error> {
    let mut told: Vec<wasel_realtime::Change> = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(name) = names.iter().find(|name| ***name == *row.table_name) {
            told.extend(told_as(row, name.clone(), None));
        }
    }
    for document in DOCUMENT_NAMES {
        let Some(name) = names.iter().find(|name| ***name == *document.name) else {
            continue;
        };
        let of_table: HashMap<i64, &Change> = rows
            .iter()
            .filter(|row| row.table_name == document.table)
            .map(|row| (row.seq, row))
            .collect();
        if of_table.is_empty() {
            continue;
        }
        let seqs: Vec<i64> = of_table.keys().copied().collect();
        let mut tx = db.system().await?;
        let mut shaped = changes::list_shaped(&mut tx, document, &seqs).await?;
        tx.commit().await?;
        shaped.sort_unstable_by_key(|(seq, _)| *seq);
        for (seq, shape) in shaped {
            if let Some(row) = of_table.get(&seq) {
                told.extend(told_as(row, name.clone(), Some(shape)));
            }
        }
    }
    // One socket may listen to several names.
    told.sort_by_key(|change| change.seq);
    Ok(told)
}

/// A logged row as the hub tells it, under one of its names.
fn told_as(row: &Change, name: Arc<str>, shape: Option<Value>) -> Option<wasel_realtime::Change> {
    let op = match row.op.as_str() {
        "INSERT" => ChangeOp::Insert,
        "UPDATE" => ChangeOp::Update,
        "DELETE" => ChangeOp::Delete,
        _ => return None,
    };
    let (record, old_record) = match (op, shape) {
        (ChangeOp::Delete, Some(shape)) => (None, Some(shape)),
        (_, Some(shape)) => (Some(shape), None),
        (_, None) => (row.record.clone(), row.old_record.clone()),
    };
    Some(wasel_realtime::Change {
        seq: row.seq,
        org_id: row.org_id,
        channel_id: channel_of(row),
        name,
        op,
        record,
        old_record,
        committed_at: row.committed_at,
    })
}

/// The change log as the hub reads it again.
pub struct LoggedHistory(pub Db);

#[async_trait]
impl History for LoggedHistory {
    async fn page(&self, ask: Ask<'_>) -> Result<Page, HistoryError> {
        self.read(ask)
            .await
            .map_err(|error| HistoryError::Unavailable(error.to_string()))?
            .ok_or(HistoryError::Expired)
    }
}

impl LoggedHistory {
    /// `None` when the log does not reach back that far.
    async fn read(&self, ask: Ask<'_>) -> Result<Option<Page>, wasel_db::Error> {
        let limit = i64::try_from(ask.limit).unwrap_or(i64::MAX);
        let tables = tables_of(ask.names);
        let org = OrgId(ask.org_id);
        let mut tx = self.0.system().await?;
        let rows =
            changes::list_of_tables(&mut tx, org, &tables, ask.after, ask.upto, limit).await?;
        // After the rows: a partition may be dropped at any time.
        let is_whole = changes::reaches_back_to(&mut tx, ask.after).await?;
        tx.commit().await?;
        if !is_whole {
            return Ok(None);
        }
        let is_full = rows.len() == ask.limit;
        let upto = rows
            .last()
            .filter(|_| is_full)
            .map_or(ask.upto, |row| row.seq);
        let changes = tell(&self.0, &rows, ask.names).await?;
        Ok(Some(Page { changes, upto }))
    }
}
