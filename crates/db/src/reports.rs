//! Figures about messages: counted by day and whatever else, and the log itself row by row.
//!
//! Everything runs under the caller's policies, so an agent limited to some channels counts only those. Days are those
//! of a time zone; the time is [`Period`]'s, found once, so that the index on `created_at` sees plain times.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;
use wasel_domain::OrgId;

use crate::Result;

/// Days that are looked at if nobody says from when.
const DEFAULT_DAYS: i32 = 30;

/// The days a report is about.
#[derive(Clone, Debug, FromRow)]
pub struct Period {
    /// The first day.
    pub from_day: NaiveDate,
    /// The last day, which counts.
    pub to_day: NaiveDate,
    /// IANA name.
    pub timezone: String,
    /// When the first day begins.
    pub starts_at: DateTime<Utc>,
    /// When the last day is over.
    pub ends_at: DateTime<Utc>,
}

/// The days asked for, in the organisation's time zone unless another is named (the caller knows that it exists):
/// without an end until today, without a beginning the 30 days up to the end.
pub async fn find_period(
    connection: &mut PgConnection,
    org: OrgId,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
    timezone: Option<&str>,
) -> Result<Option<Period>> {
    Ok(sqlx::query_as(
        "SELECT from_day, to_day, timezone, from_day::timestamp AT TIME ZONE timezone AS starts_at,
             (to_day + 1)::timestamp AT TIME ZONE timezone AS ends_at
         FROM (
             SELECT coalesce($2::date, to_day - ($5 - 1)) AS from_day, to_day, timezone
             FROM (
                 SELECT coalesce($4, o.timezone) AS timezone,
                     coalesce($3::date, (now() AT TIME ZONE coalesce($4, o.timezone))::date) AS to_day
                 FROM organizations o WHERE o.org_id = $1) last) days",
    )
    .bind(org.0)
    .bind(from)
    .bind(to)
    .bind(timezone)
    .bind(DEFAULT_DAYS)
    .fetch_optional(connection)
    .await?)
}

/// Which messages count. All conditions hold at once.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub channel_id: Option<Uuid>,
    pub direction: Option<String>,
    pub status: Option<String>,
}

/// What messages are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    Day,
    Channel,
    Status,
    ErrorCode,
    Direction,
    MessageType,
    Sender,
    PricingCategory,
}

impl Dimension {
    pub const ALL: [Self; 8] = [
        Self::Day,
        Self::Channel,
        Self::Status,
        Self::ErrorCode,
        Self::Direction,
        Self::MessageType,
        Self::Sender,
        Self::PricingCategory,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Channel => "channel",
            Self::Status => "status",
            Self::ErrorCode => "error_code",
            Self::Direction => "direction",
            Self::MessageType => "message_type",
            Self::Sender => "sender",
            Self::PricingCategory => "pricing_category",
        }
    }
}

/// The messages of one group; `None` in what they are not counted by.
#[derive(Clone, Debug, FromRow)]
pub struct Group {
    pub day: Option<NaiveDate>,
    pub channel_id: Option<Uuid>,
    pub channel_name: Option<String>,
    pub channel_kind: Option<String>,
    pub status: Option<String>,
    pub error_code: Option<String>,
    pub direction: Option<String>,
    pub message_type: Option<String>,
    pub sender_id: Option<Uuid>,
    pub sender_name: Option<String>,
    pub pricing_category: Option<String>,
    pub messages: i64,
    /// Where the provider told them.
    pub segments: Option<i64>,
    /// Messages the provider charges for; `None` if it said nothing about any.
    pub billable: Option<i64>,
    /// By currency; empty if no price is known.
    pub costs: Json<Vec<Cost>>,
}

/// A sum of money.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Cost {
    /// ISO 4217.
    pub currency: String,
    /// Decimal.
    pub amount: String,
}

/// What Meta says of a message's price (`p`).
/// <https://developers.facebook.com/documentation/business-messaging/whatsapp/pricing>: `billable` is on its way out,
/// of `type` only `regular` is charged.
const PRICING: &str = "
    CROSS JOIN LATERAL (
        SELECT m.pricing ->> 'category' AS category,
            CASE coalesce(m.pricing ->> 'billable', CASE WHEN m.pricing ? 'type' THEN (m.pricing ->> 'type' = 'regular')::text END)
                WHEN 'true' THEN 1 WHEN 'false' THEN 0 END AS billable) p";

/// Price and length where the provider tells them (`x`). What is no number does not count. Twilio writes what it
/// charges as a negative number.
const PRICE: &str = r"
    CROSS JOIN LATERAL (
        SELECT price.amount, CASE WHEN price.amount IS NOT NULL THEN price.currency END AS currency,
            CASE WHEN m.pricing ->> 'segments' ~ '^\d{1,4}$' THEN (m.pricing ->> 'segments')::int END AS segments
        FROM (SELECT upper(m.pricing ->> 'currency') AS currency,
                  CASE WHEN m.pricing ->> 'price' ~ '^-?\d{1,9}(\.\d{1,9})?$' AND m.pricing ->> 'currency' ~ '^[A-Za-z]{3}$'
                      THEN abs((m.pricing ->> 'price')::numeric) END AS amount) price) x";

fn push_where(
    query: &mut QueryBuilder<Postgres>,
    org: OrgId,
    filter: &Filter,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
) {
    query.push(" WHERE m.org_id = ").push_bind(org.0);
    query.push(" AND m.created_at >= ").push_bind(starts_at);
    query.push(" AND m.created_at < ").push_bind(ends_at);
    if let Some(channel) = filter.channel_id {
        query.push(" AND m.channel_id = ").push_bind(channel);
    }
    if let Some(direction) = &filter.direction {
        query
            .push(" AND m.direction = ")
            .push_bind(direction.clone());
    }
    if let Some(status) = &filter.status {
        query.push(" AND m.status = ").push_bind(status.clone());
    }
}

fn push_groups(
    query: &mut QueryBuilder<Postgres>,
    org: OrgId,
    period: &Period,
    filter: &Filter,
    by: &[Dimension],
    limit: i64,
) {
    let has = |dimension| by.contains(&dimension);
    query.push("SELECT g.day, g.channel_id, g.channel_name, g.channel_kind, g.status, g.error_code, g.direction,
        g.message_type, g.sender_id, coalesce(s.full_name, s.email) AS sender_name, g.pricing_category,
        sum(g.messages)::bigint AS messages, sum(g.segments)::bigint AS segments, sum(g.billable)::bigint AS billable,
        coalesce(jsonb_agg(jsonb_build_object('currency', g.currency, 'amount', g.cost::text) ORDER BY g.currency)
            FILTER (WHERE g.currency IS NOT NULL), '[]') AS costs
        FROM (SELECT ");
    if has(Dimension::Day) {
        query
            .push("(m.created_at AT TIME ZONE ")
            .push_bind(period.timezone.clone());
        query.push(")::date AS day");
    } else {
        query.push("NULL::date AS day");
    }
    let columns = [
        (Dimension::Channel, "m.channel_id", "uuid", "channel_id"),
        (Dimension::Channel, "c.name", "text", "channel_name"),
        (Dimension::Channel, "c.kind", "text", "channel_kind"),
        (Dimension::Status, "m.status", "text", "status"),
        (Dimension::ErrorCode, "m.error_code", "text", "error_code"),
        (Dimension::Direction, "m.direction", "text", "direction"),
        (
            Dimension::MessageType,
            "m.message_type",
            "text",
            "message_type",
        ),
        (Dimension::Sender, "m.sender_id", "uuid", "sender_id"),
        (
            Dimension::PricingCategory,
            "p.category",
            "text",
            "pricing_category",
        ),
    ];
    for (dimension, column, kind, name) in columns {
        if has(dimension) {
            query.push(format!(", {column} AS {name}"));
        } else {
            query.push(format!(", NULL::{kind} AS {name}"));
        }
    }
    query.push(
        ", x.currency, count(*) AS messages, sum(x.segments) AS segments, sum(p.billable) AS billable, sum(x.amount) AS cost
        FROM messages m LEFT JOIN channels c ON c.org_id = m.org_id AND c.id = m.channel_id",
    );
    query.push(PRICING).push(PRICE);
    push_where(query, org, filter, period.starts_at, period.ends_at);
    query
        .push(" GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) g LEFT JOIN profiles s ON s.org_id = ");
    query.push_bind(org.0).push(
        " AND s.id = g.sender_id GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
        ORDER BY 1, 3, 2, 5, 6, 7, 8, 10, 9, 11 LIMIT ",
    );
    query.push_bind(limit);
}

/// The messages of the period, counted; in the order of the groups. A group without messages is not there.
pub async fn list_groups(
    connection: &mut PgConnection,
    org: OrgId,
    period: &Period,
    filter: &Filter,
    by: &[Dimension],
    limit: i64,
) -> Result<Vec<Group>> {
    let mut query = QueryBuilder::new("");
    push_groups(&mut query, org, period, filter, by, limit);
    // Planned for these very days: a plan for any would not know how few of the table they are.
    let query = query.build_query_as().persistent(false);
    Ok(query.fetch_all(connection).await?)
}

/// The messages of the period by status.
pub async fn list_totals(
    connection: &mut PgConnection,
    org: OrgId,
    period: &Period,
    filter: &Filter,
) -> Result<Vec<(String, i64)>> {
    let mut query = QueryBuilder::new("SELECT m.status, count(*) FROM messages m");
    push_where(&mut query, org, filter, period.starts_at, period.ends_at);
    query.push(" GROUP BY 1 ORDER BY 1");
    let query = query.build_query_as().persistent(false);
    Ok(query.fetch_all(connection).await?)
}

/// From now on this transaction sees the database as it was at its first statement.
pub async fn freeze(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(connection)
        .await?;
    Ok(())
}

/// One message of the log. Times but `at` are written out in the report's time zone: `2026-11-01 13:05:00`.
#[derive(Clone, Debug, FromRow)]
pub struct LogRow {
    pub id: Uuid,
    /// With the id, the row's place.
    pub at: DateTime<Utc>,
    pub created_at: String,
    pub channel: Option<String>,
    pub channel_kind: Option<String>,
    pub direction: String,
    pub message_type: String,
    pub address: Option<String>,
    pub status: String,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub sent_at: Option<String>,
    pub delivered_at: Option<String>,
    pub read_at: Option<String>,
    pub failed_at: Option<String>,
    /// E-mail address, else the user's id.
    pub sender: Option<String>,
    pub request_id: Option<String>,
    pub billable: Option<bool>,
    pub pricing_category: Option<String>,
    pub segments: Option<i32>,
    /// Decimal.
    pub price: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
}

/// A stretch of the log: after a row (its time and id), before a time.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// A time with the nil id stands before all rows of that time.
    pub after: (DateTime<Utc>, Uuid),
    pub until: DateTime<Utc>,
    pub limit: i64,
}

/// The messages of a stretch, oldest first.
pub async fn list_log(
    connection: &mut PgConnection,
    org: OrgId,
    timezone: &str,
    filter: &Filter,
    stretch: Stretch,
) -> Result<Vec<LogRow>> {
    let mut query = QueryBuilder::new("SELECT m.id, m.created_at AS at");
    for column in [
        "created_at",
        "sent_at",
        "delivered_at",
        "read_at",
        "failed_at",
    ] {
        query.push(format!(", to_char(m.{column} AT TIME ZONE "));
        query.push_bind(timezone.to_owned());
        query.push(format!(", 'YYYY-MM-DD HH24:MI:SS') AS {column}"));
    }
    query.push(
        ", c.name AS channel, c.kind AS channel_kind, m.direction, m.message_type, m.address, m.status, m.error_code,
         m.error_message, coalesce(s.email, m.sender_id::text) AS sender, m.request_id, p.billable = 1 AS billable,
         p.category AS pricing_category, x.segments, x.amount::text AS price, x.currency
         FROM (SELECT * FROM messages m",
    );
    let (at, id) = stretch.after;
    push_where(&mut query, org, filter, at, stretch.until);
    query.push(" AND (m.created_at, m.id) > (").push_bind(at);
    query.push(", ").push_bind(id);
    query
        .push(") ORDER BY m.created_at, m.id LIMIT ")
        .push_bind(stretch.limit);
    query.push(
        ") m LEFT JOIN channels c ON c.org_id = m.org_id AND c.id = m.channel_id
         LEFT JOIN profiles s ON s.org_id = m.org_id AND s.id = m.sender_id",
    );
    query.push(PRICING).push(PRICE);
    query.push(" ORDER BY m.created_at, m.id");
    let query = query.build_query_as().persistent(false);
    Ok(query.fetch_all(connection).await?)
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection};
    use wasel_testkit::TestDb;

    use super::*;

    /// A year of messages of two tenants, side by side as they came.
    const YEAR: &str = "
        INSERT INTO organizations (id, slug, name)
            SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'o' || n, 'O' FROM generate_series(1, 2) n;
        INSERT INTO channels (org_id, id, kind, name) SELECT id, id, 'whatsapp_cloud', 'c' FROM organizations WHERE slug LIKE 'o_';
        INSERT INTO contacts (org_id, id) SELECT id, id FROM organizations WHERE slug LIKE 'o_';
        INSERT INTO conversations (org_id, id, channel_id, contact_id) SELECT id, id, id, id FROM organizations WHERE slug LIKE 'o_';
        INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, body, created_at)
            SELECT o.id, gen_random_uuid(), o.id, o.id, o.id, 'outbound', 'text', 'delivered', repeat('x', 100),
                '2026-01-01Z'::timestamptz + n * interval '15 minutes'
            FROM generate_series(1, 35000) n CROSS JOIN organizations o WHERE o.slug LIKE 'o_' ORDER BY n;
        VACUUM ANALYZE messages";

    #[tokio::test]
    async fn a_month_is_found_by_the_index_on_time_and_not_by_reading_the_year() {
        let db = TestDb::new().await;
        let mut connection = db.connect().await;
        for statement in YEAR.split(';') {
            sqlx::query(statement)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let org = OrgId(Uuid::from_u128(1));
        let mut tx = connection.begin().await.unwrap();
        let claims = format!(
            "SET LOCAL ROLE authenticated; SET LOCAL request.jwt.claims = '{{\"wasel_org_id\": \"{org}\", \"wasel_role\": \"viewer\"}}'"
        );
        sqlx::raw_sql(AssertSqlSafe(claims))
            .execute(&mut *tx)
            .await
            .unwrap();
        let day = |text: &str| Some(text.parse().unwrap());
        let period = find_period(
            &mut tx,
            org,
            day("2026-06-01"),
            day("2026-06-30"),
            Some("Africa/Cairo"),
        )
        .await
        .unwrap()
        .unwrap();
        let filter = Filter::default();
        let by = [Dimension::Day, Dimension::Channel, Dimension::Status];
        let groups = list_groups(&mut tx, org, &period, &filter, &by, 100)
            .await
            .unwrap();
        assert_eq!(groups.len(), 30);
        assert!(groups.iter().all(|group| group.messages == 96));

        let mut explain = QueryBuilder::new("EXPLAIN (COSTS OFF) ");
        push_groups(&mut explain, org, &period, &filter, &by, 100);
        let mut plans = vec![explain];
        let mut explain =
            QueryBuilder::new("EXPLAIN (COSTS OFF) SELECT m.status, count(*) FROM messages m");
        push_where(&mut explain, org, &filter, period.starts_at, period.ends_at);
        explain.push(" GROUP BY 1");
        plans.push(explain);
        for mut plan in plans {
            let lines: Vec<String> = plan.build_query_scalar().fetch_all(&mut *tx).await.unwrap();
            let plan = lines.join("\n");
            assert!(plan.contains("messages_by_time"), "{plan}");
            assert!(!plan.contains("Seq Scan on messages m"), "{plan}");
        }
    }
}
