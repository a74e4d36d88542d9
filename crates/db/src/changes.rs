//! Reading the change log without missing a row that commits late (`docs/decisions/0001-gap-free-change-feed.md`).

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::OrgId;

use crate::{Result, SystemTx};

/// One committed change.
#[derive(Clone, Debug, FromRow)]
pub struct Change {
    pub org_id: Uuid,
    pub seq: i64,
    pub committed_at: DateTime<Utc>,
    pub table_name: String,
    pub op: String,
    pub record: Option<Value>,
    pub old_record: Option<Value>,
}

/// A sequence number and the transactions that may still hold back rows up to it.
#[derive(Clone, Debug)]
struct Mark {
    upto: i64,
    writers: Vec<String>,
}

/// How far the log is settled: every row up to [`Horizon::settled`] is visible or will never be.
///
/// The rule: a writer locks `change_log` before it takes a sequence number and holds the lock until its commit is
/// visible. So when nobody who held the lock at some moment holds it any more, all numbers taken before that moment
/// are settled.
#[derive(Clone, Debug, Default)]
pub struct Horizon {
    settled: i64,
    marks: std::collections::VecDeque<Mark>,
}

impl Horizon {
    #[must_use]
    pub fn settled(&self) -> i64 {
        self.settled
    }

    /// Whether some numbers were taken by transactions still under way: look again soon.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Looks at the sequence and the lock holders.
    pub async fn observe(&mut self, connection: &mut PgConnection) -> Result<()> {
        let (upto, writers): (i64, Vec<String>) =
            sqlx::query_as("SELECT upto, writers FROM wasel.change_horizon()")
                .fetch_one(connection)
                .await?;
        self.advance(upto, writers);
        Ok(())
    }

    fn advance(&mut self, upto: i64, writers: Vec<String>) {
        if upto > self.settled && self.marks.back().is_none_or(|mark| mark.upto < upto) {
            self.marks.push_back(Mark {
                upto,
                writers: writers.clone(),
            });
        }
        while let Some(mark) = self.marks.front_mut() {
            mark.writers.retain(|writer| writers.contains(writer));
            if !mark.writers.is_empty() {
                break;
            }
            self.settled = mark.upto;
            self.marks.pop_front();
        }
    }
}

/// Rows of these tables after `after`, up to `upto`, of every tenant, in order.
pub async fn list_all(
    tx: &mut SystemTx,
    tables: &[&str],
    after: i64,
    upto: i64,
    limit: i64,
) -> Result<Vec<Change>> {
    Ok(sqlx::query_as(
        "SELECT * FROM change_log WHERE seq > $1 AND seq <= $2 AND table_name = ANY ($4) ORDER BY seq LIMIT $3",
    )
    .bind(after)
    .bind(upto)
    .bind(limit)
    .bind(tables)
    .fetch_all(&mut **tx)
    .await?)
}

/// Rows of one tenant after `after`, up to `upto`, in order.
pub async fn list(
    tx: &mut SystemTx,
    org: OrgId,
    after: i64,
    upto: i64,
    limit: i64,
) -> Result<Vec<Change>> {
    Ok(sqlx::query_as("SELECT * FROM change_log WHERE org_id = $4 AND seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3")
        .bind(after)
        .bind(upto)
        .bind(limit)
        .bind(org.0)
        .fetch_all(&mut **tx)
        .await?)
}

/// Rows of these tables of one tenant after `after`, up to `upto`, in order.
pub async fn list_of_tables(
    tx: &mut SystemTx,
    org: OrgId,
    tables: &[&str],
    after: i64,
    upto: i64,
    limit: i64,
) -> Result<Vec<Change>> {
    Ok(sqlx::query_as(
        "SELECT * FROM change_log WHERE org_id = $5 AND seq > $1 AND seq <= $2 AND table_name = ANY ($4)
         ORDER BY seq LIMIT $3",
    )
    .bind(after)
    .bind(upto)
    .bind(limit)
    .bind(tables)
    .bind(org.0)
    .fetch_all(&mut **tx)
    .await?)
}

/// Whether everything after that number is still kept. A reader that is further behind, or that has its number from
/// another log, must start over. To be asked after reading: rows may be dropped meanwhile.
pub async fn reaches_back_to(tx: &mut SystemTx, after: i64) -> Result<bool> {
    let (oldest, newest): (Option<i64>, i64) = sqlx::query_as(
        "SELECT (SELECT min(seq) FROM change_log),
             (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM wasel.change_seq)",
    )
    .fetch_one(&mut **tx)
    .await?;
    // With no row left, everything up to the newest number is gone.
    Ok(after <= newest && after + 1 >= oldest.unwrap_or(newest + 1))
}

/// A published name over a table: the table itself, or one of the documents' names for it.
#[derive(Clone, Debug)]
pub struct PublishedName {
    pub name: &'static str,
    pub table: &'static str,
}

/// Every name a client may subscribe to besides the streamed tables' own.
pub const DOCUMENT_NAMES: &[PublishedName] = &[
    PublishedName {
        name: "whatsapp_conversations",
        table: "conversations",
    },
    PublishedName {
        name: "chat_conversations",
        table: "conversations",
    },
    PublishedName {
        name: "whatsapp_messages",
        table: "messages",
    },
    PublishedName {
        name: "chat_messages",
        table: "messages",
    },
    PublishedName {
        name: "message_logs",
        table: "messages",
    },
    PublishedName {
        name: "whatsapp_templates",
        table: "templates",
    },
    PublishedName {
        name: "whatsapp_scheduled_messages",
        table: "scheduled_messages",
    },
    PublishedName {
        name: "whatsapp_settings",
        table: "settings",
    },
    PublishedName {
        name: "whatsapp_analytics",
        table: "analytics_daily",
    },
];

/// Logged rows of `name.table` in the shape of `name`, by the same function as the view. A row the shape leaves out
/// is not in the result.
pub async fn list_shaped(
    tx: &mut SystemTx,
    name: &PublishedName,
    seqs: &[i64],
) -> Result<Vec<(i64, Value)>> {
    let sql = format!(
        "SELECT l.seq, to_jsonb(s) FROM change_log l
         CROSS JOIN LATERAL jsonb_populate_record(NULL::{table}, coalesce(l.record, l.old_record)) r
         CROSS JOIN LATERAL wasel.{name}(r) s
         WHERE l.seq = ANY ($1)",
        table = name.table,
        name = name.name,
    );
    // Both names come from the constant above.
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(seqs)
        .fetch_all(&mut **tx)
        .await?)
}

/// A column as clients know it.
#[derive(Clone, Debug, FromRow)]
pub struct Column {
    pub table_name: String,
    pub column_name: String,
    pub udt_name: String,
    pub is_key: bool,
}

/// The columns of every streamed table and every document name.
pub async fn list_columns(tx: &mut SystemTx) -> Result<Vec<Column>> {
    let names: Vec<&str> = DOCUMENT_NAMES.iter().map(|name| name.name).collect();
    Ok(sqlx::query_as(
        "SELECT c.table_name::text, c.column_name::text, c.udt_name::text,
             EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                     WHERE i.indrelid = format('%I.%I', c.table_schema, c.table_name)::regclass AND i.indisprimary
                       AND a.attname = c.column_name)
             OR (c.table_name = ANY ($1) AND c.column_name = 'id') AS is_key
         FROM information_schema.columns c
         WHERE c.table_schema = 'public' AND (c.table_name = ANY ($1) OR EXISTS (
             SELECT FROM pg_trigger t WHERE t.tgname = 'log_insert'
               AND t.tgrelid = format('%I.%I', c.table_schema, c.table_name)::regclass))
         ORDER BY c.table_name, c.ordinal_position",
    )
    .bind(names)
    .fetch_all(&mut **tx)
    .await?)
}

/// Makes the coming days' partitions and drops those past retention.
pub async fn maintain(tx: &mut SystemTx, retention_hours: i32) -> Result<i32> {
    sqlx::query(
        "DELETE FROM change_log_default WHERE committed_at < now() - make_interval(hours => $1)",
    )
    .bind(retention_hours)
    .execute(&mut **tx)
    .await?;
    Ok(
        sqlx::query_scalar("SELECT wasel.maintain_change_log(2, make_interval(hours => $1))")
            .bind(retention_hours)
            .fetch_one(&mut **tx)
            .await?,
    )
}

#[cfg(test)]
mod tests {
    use super::Horizon;

    fn holders(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_number_is_settled_when_everybody_who_wrote_at_that_moment_has_ended() {
        let mut horizon = Horizon::default();
        horizon.advance(10, holders(&["3/7"]));
        assert_eq!(horizon.settled(), 0, "3/7 may hold back a row up to 10");
        horizon.advance(20, holders(&["3/7", "4/1"]));
        assert_eq!(horizon.settled(), 0);
        horizon.advance(20, holders(&["4/1"]));
        assert_eq!(
            horizon.settled(),
            10,
            "3/7 has ended; 4/1 came after 10 was taken"
        );
        horizon.advance(30, holders(&["5/1"]));
        assert_eq!(horizon.settled(), 20);
        horizon.advance(30, holders(&[]));
        assert_eq!(horizon.settled(), 30);
        assert!(!horizon.is_waiting());
    }

    #[test]
    fn with_no_writer_everything_taken_is_settled_at_once() {
        let mut horizon = Horizon::default();
        horizon.advance(5, holders(&[]));
        assert_eq!(horizon.settled(), 5);
    }
}
