//! A rule as the API writes it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use wasel_db::automations::{Automation, AutomationFields};

use super::checked::checked;
use crate::http::error::ApiError;
use crate::http::v1::conversations::present;

/// Whose rows a rule is about.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSource {
    /// `public` if left out.
    #[serde(default = "public")]
    pub schema: String,
    /// A table or view that the operator lets automations read; for an event one that is watched.
    #[schema(example = "subscriptions")]
    pub table: String,
    /// For an event: `insert`, or `update`, which is when a row comes to match the filters.
    pub operation: Option<String>,
}

fn public() -> String {
    "public".to_owned()
}

/// A condition on one column.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleFilter {
    pub column: String,
    /// `eq`, `neq`, `lt`, `lte`, `gt`, `gte`, `in`, `is_null`, `is_not_null`.
    pub op: String,
    /// Text, a number, `true` or `false`; a list of them for `in`; nothing for `is_null` and `is_not_null`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Object)]
    pub value: Value,
}

/// A date column that lies so many days ahead at most.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleWindow {
    #[schema(example = "end_date")]
    pub column: String,
    /// From today to so many days from today, by the rule's time zone; a negative number: from so many days ago to
    /// today. −366 to 366.
    pub within_days: i32,
}

/// Which column is what.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleMapping {
    /// `row`: the columns below say who (if left out). `owner`: the organisation's owner. `row_or_owner`: the owner
    /// where the row has no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_phone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_email: Option<String>,
    /// A uuid column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_id: Option<String>,
    /// What identifies the row, and keeps it from being written to twice; `id` if left out.
    #[serde(default = "id")]
    pub related_entity_id: String,
    /// One for each variable of the template.
    #[serde(default)]
    pub variables: BTreeMap<String, RuleVariable>,
}

fn id() -> String {
    "id".to_owned()
}

/// Where a variable's value comes from: a column, or something more.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RuleVariable {
    Column(String),
    Spec(VariableSpec),
}

/// Exactly one of `column`, `value` and `days_until`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VariableSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The same for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub value: Option<Value>,
    /// The days from today to this date column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days_until: Option<String>,
    /// With `column`: `date` writes a date or time as 2026-01-31.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Where the row has no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub default: Option<Value>,
}

/// An automation as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AutomationView {
    pub id: Uuid,
    pub name: String,
    pub description: Option<String>,
    /// `event` or `cron`.
    pub kind: String,
    pub enabled: bool,
    pub template_id: Uuid,
    /// `whatsapp`, `email`, `sms`.
    pub notification_type: String,
    /// 1 (first) to 10.
    pub priority: i16,
    pub source: RuleSource,
    #[schema(value_type = Vec<RuleFilter>)]
    pub filters: Value,
    pub window: Option<RuleWindow>,
    #[schema(value_type = RuleMapping)]
    pub mapping: Value,
    /// How often the same row is written to: `once`, once a `day`, once a `tick`.
    pub repeat: String,
    pub cron_expression: Option<String>,
    /// IANA; `null`: the organisation's.
    pub timezone: Option<String>,
    pub next_run_at: Option<DateTime<Utc>>,
    /// For an event: to within a minute; `/runs` has them all.
    pub last_run_at: Option<DateTime<Utc>>,
    /// `ok` or `error`.
    pub last_run_status: Option<String>,
    pub last_error: Option<String>,
    /// How many messages the last run queued.
    pub last_count: Option<i32>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl From<Automation> for AutomationView {
    fn from(rule: Automation) -> Self {
        let fields = rule.fields;
        Self {
            id: rule.id,
            name: fields.name,
            description: fields.description,
            kind: fields.kind,
            enabled: fields.enabled,
            template_id: fields.template_id,
            notification_type: fields.notification_type,
            priority: fields.priority,
            source: RuleSource {
                schema: fields.source_schema,
                table: fields.source_table,
                operation: fields.operation,
            },
            filters: fields.filters,
            window: window_of(fields.window_column, fields.window_days),
            mapping: fields.mapping,
            repeat: fields.repeat,
            cron_expression: fields.cron_expression,
            timezone: fields.timezone,
            next_run_at: rule.next_run_at,
            last_run_at: rule.last_run_at,
            last_run_status: rule.last_run_status,
            last_error: rule.last_error,
            last_count: rule.last_count,
            created_by: rule.created_by,
            created_at: rule.created_at,
            updated_at: rule.updated_at,
        }
    }
}

fn window_of(column: Option<String>, days: Option<i32>) -> Option<RuleWindow> {
    column.zip(days).map(|(column, within_days)| RuleWindow {
        column,
        within_days,
    })
}

/// A rule to keep.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAutomationRequest {
    /// 1 to 100 characters; no two automations of an organisation share one.
    pub name: String,
    pub description: Option<String>,
    /// `event` or `cron`.
    pub kind: String,
    /// `true` if left out.
    pub enabled: Option<bool>,
    pub template_id: Uuid,
    /// `whatsapp` if left out, `email`, `sms`.
    pub notification_type: Option<String>,
    /// 1 (first) to 10; 5 if left out.
    pub priority: Option<i16>,
    pub source: RuleSource,
    /// All of them hold.
    #[serde(default)]
    pub filters: Vec<RuleFilter>,
    /// For `cron`.
    pub window: Option<RuleWindow>,
    pub mapping: RuleMapping,
    /// How often the same row is written to: `once` (an event's if left out), once a `day` (a cron's), once a `tick`.
    pub repeat: Option<String>,
    /// For `cron`: minute, hour, day of month, month, day of week.
    #[schema(example = "0 9 * * *")]
    pub cron_expression: Option<String>,
    /// For `cron`: an IANA name; the organisation's time zone if left out.
    pub timezone: Option<String>,
}

impl CreateAutomationRequest {
    /// As stored, if everything about it that shows without a database is right.
    pub(super) fn into_fields(self) -> Result<AutomationFields, ApiError> {
        let repeat = if self.kind == "event" { "once" } else { "day" };
        let (window_column, window_days) = split(self.window);
        let fields = AutomationFields {
            name: self.name,
            description: self.description,
            kind: self.kind,
            enabled: self.enabled.unwrap_or(true),
            template_id: self.template_id,
            notification_type: self
                .notification_type
                .unwrap_or_else(|| "whatsapp".to_owned()),
            priority: self.priority.unwrap_or(5),
            source_schema: self.source.schema,
            source_table: self.source.table,
            operation: self.source.operation,
            filters: json_of(&self.filters)?,
            window_column,
            window_days,
            mapping: json_of(&self.mapping)?,
            repeat: self.repeat.unwrap_or_else(|| repeat.to_owned()),
            cron_expression: self.cron_expression,
            timezone: self.timezone,
        };
        checked(fields)
    }
}

/// Fields left out stay as they are; `null` empties one. `source`, `filters`, `window` and `mapping` are replaced as a
/// whole. The kind stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateAutomationRequest {
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    enabled: Option<bool>,
    template_id: Option<Uuid>,
    notification_type: Option<String>,
    priority: Option<i16>,
    source: Option<RuleSource>,
    filters: Option<Vec<RuleFilter>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<RuleWindow>)]
    window: Option<Option<RuleWindow>>,
    mapping: Option<RuleMapping>,
    repeat: Option<String>,
    cron_expression: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    timezone: Option<Option<String>>,
}

impl UpdateAutomationRequest {
    pub(super) fn over(self, old: AutomationFields) -> Result<AutomationFields, ApiError> {
        let mut fields = old;
        if let Some(source) = self.source {
            fields.source_schema = source.schema;
            fields.source_table = source.table;
            fields.operation = source.operation;
        }
        if let Some(window) = self.window {
            (fields.window_column, fields.window_days) = split(window);
        }
        if let Some(filters) = &self.filters {
            fields.filters = json_of(filters)?;
        }
        if let Some(mapping) = &self.mapping {
            fields.mapping = json_of(mapping)?;
        }
        checked(AutomationFields {
            name: self.name.unwrap_or(fields.name),
            description: self.description.unwrap_or(fields.description),
            enabled: self.enabled.unwrap_or(fields.enabled),
            template_id: self.template_id.unwrap_or(fields.template_id),
            notification_type: self.notification_type.unwrap_or(fields.notification_type),
            priority: self.priority.unwrap_or(fields.priority),
            repeat: self.repeat.unwrap_or(fields.repeat),
            cron_expression: self.cron_expression.or(fields.cron_expression),
            timezone: self.timezone.unwrap_or(fields.timezone),
            ..fields
        })
    }
}

fn split(window: Option<RuleWindow>) -> (Option<String>, Option<i32>) {
    window
        .map(|window| (window.column, window.within_days))
        .unzip()
}

fn json_of(value: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|_| ApiError::invalid("mapping", "is not JSON"))
}
