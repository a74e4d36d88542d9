//! What can be said about a rule before the database looks at the tables it names.

use serde_json::Value;
use wasel_db::automations::AutomationFields;
use wasel_db::{TenantTx, templates};
use wasel_domain::OrgId;
use wasel_domain::template::{TemplateTexts, is_line_break};

use super::rule::{RuleFilter, RuleMapping, RuleVariable};
use crate::http::error::ApiError;

pub const KINDS: [&str; 2] = ["event", "cron"];
const MEDIA: [&str; 3] = ["whatsapp", "email", "sms"];
const OPERATIONS: [&str; 2] = ["insert", "update"];
const REPEATS: [&str; 3] = ["once", "day", "tick"];
const RECIPIENTS: [&str; 3] = ["row", "owner", "row_or_owner"];
const OPERATORS: [&str; 9] = [
    "eq",
    "neq",
    "lt",
    "lte",
    "gt",
    "gte",
    "in",
    "is_null",
    "is_not_null",
];
const MAX_NAME: usize = 100;
const MAX_DESCRIPTION: usize = 1000;
const MAX_FILTERS: usize = 20;
const MAX_VARIABLES: usize = 40;
const MAX_WINDOW_DAYS: i32 = 366;
/// Postgres, NAMEDATALEN.
const MAX_IDENTIFIER: usize = 63;

pub fn one_of(field: &str, value: &str, allowed: &[&str]) -> Result<(), ApiError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let message = format!("must be one of {}", allowed.join(", "));
    Err(ApiError::invalid(field, message))
}

/// The fields as they are stored.
pub fn checked(mut fields: AutomationFields) -> Result<AutomationFields, ApiError> {
    fields.name = fields.name.trim().to_owned();
    let length = fields.name.chars().count();
    if length == 0 || length > MAX_NAME || fields.name.contains(is_line_break) {
        let message = format!("must be one line of 1 to {MAX_NAME} characters");
        return Err(ApiError::invalid("name", message));
    }
    if let Some(description) = &fields.description
        && (description.chars().count() > MAX_DESCRIPTION || description.contains('\0'))
    {
        let message = format!("must be of up to {MAX_DESCRIPTION} characters, none of them NUL");
        return Err(ApiError::invalid("description", message));
    }
    one_of("kind", &fields.kind, &KINDS)?;
    one_of("notification_type", &fields.notification_type, &MEDIA)?;
    one_of("repeat", &fields.repeat, &REPEATS)?;
    if !(1..=10).contains(&fields.priority) {
        return Err(ApiError::invalid("priority", "must be from 1 to 10"));
    }
    identifier("source.schema", &fields.source_schema)?;
    identifier("source.table", &fields.source_table)?;
    if fields.kind == "cron" {
        check_cron(&fields)?;
    } else {
        check_event(&fields)?;
    }
    check_filters(&fields.filters)?;
    check_mapping(&fields)?;
    Ok(fields)
}

fn check_cron(fields: &AutomationFields) -> Result<(), ApiError> {
    if fields.operation.is_some() {
        return Err(ApiError::invalid("source.operation", "is for an event"));
    }
    if fields.cron_expression.is_none() {
        return Err(ApiError::invalid("cron_expression", "is missing"));
    }
    if let Some(column) = &fields.window_column {
        identifier("window.column", column)?;
    }
    if let Some(days) = fields.window_days
        && !(-MAX_WINDOW_DAYS..=MAX_WINDOW_DAYS).contains(&days)
    {
        let message = format!("must be from -{MAX_WINDOW_DAYS} to {MAX_WINDOW_DAYS}");
        return Err(ApiError::invalid("window.within_days", message));
    }
    Ok(())
}

fn check_event(fields: &AutomationFields) -> Result<(), ApiError> {
    match &fields.operation {
        Some(operation) => one_of("source.operation", operation, &OPERATIONS)?,
        None => return Err(ApiError::invalid("source.operation", "is missing")),
    }
    let not_its_own = [
        ("cron_expression", fields.cron_expression.is_some()),
        ("timezone", fields.timezone.is_some()),
        ("window", fields.window_column.is_some()),
    ];
    for (field, given) in not_its_own {
        if given {
            return Err(ApiError::invalid(field, "is for a cron automation"));
        }
    }
    one_of("repeat", &fields.repeat, &["once", "day"])
}

fn check_filters(filters: &Value) -> Result<(), ApiError> {
    let filters: Vec<RuleFilter> = serde_json::from_value(filters.clone())
        .map_err(|_| ApiError::invalid("filters", "is no list of {column, op, value}"))?;
    if filters.len() > MAX_FILTERS {
        let message = format!("must be at most {MAX_FILTERS}");
        return Err(ApiError::invalid("filters", message));
    }
    for (n, filter) in filters.iter().enumerate() {
        identifier(&format!("filters[{n}].column"), &filter.column)?;
        one_of(&format!("filters[{n}].op"), &filter.op, &OPERATORS)?;
        let wrong = match (filter.op.as_str(), &filter.value) {
            ("is_null" | "is_not_null", Value::Null) => None,
            ("is_null" | "is_not_null", _) => Some("goes without a value"),
            ("in", Value::Array(values)) if values.iter().all(is_simple) => None,
            ("in", _) => Some("must be a list of texts, numbers or booleans"),
            (_, value) if is_simple(value) => None,
            _ => Some("must be text, a number, true or false"),
        };
        if let Some(wrong) = wrong {
            return Err(ApiError::invalid(format!("filters[{n}].value"), wrong));
        }
    }
    Ok(())
}

fn check_mapping(fields: &AutomationFields) -> Result<(), ApiError> {
    let mapping: RuleMapping = serde_json::from_value(fields.mapping.clone())
        .map_err(|_| ApiError::invalid("mapping", "cannot be read"))?;
    let recipient = mapping.recipient.as_deref().unwrap_or("row");
    one_of("mapping.recipient", recipient, &RECIPIENTS)?;
    let columns = [
        ("recipient_phone", mapping.recipient_phone.as_ref()),
        ("recipient_email", mapping.recipient_email.as_ref()),
        ("recipient_id", mapping.recipient_id.as_ref()),
        ("related_entity_id", Some(&mapping.related_entity_id)),
    ];
    for (name, column) in columns {
        if let Some(column) = column {
            identifier(&format!("mapping.{name}"), column)?;
        }
    }
    let (field, address) = match fields.notification_type.as_str() {
        "email" => ("mapping.recipient_email", &mapping.recipient_email),
        _ => ("mapping.recipient_phone", &mapping.recipient_phone),
    };
    if recipient == "row" && address.is_none() {
        return Err(ApiError::invalid(field, "is missing"));
    }
    if mapping.variables.len() > MAX_VARIABLES {
        let message = format!("must be at most {MAX_VARIABLES}");
        return Err(ApiError::invalid("mapping.variables", message));
    }
    for (name, variable) in &mapping.variables {
        check_variable(&format!("mapping.variables.{name}"), variable)?;
    }
    Ok(())
}

fn check_variable(field: &str, variable: &RuleVariable) -> Result<(), ApiError> {
    let spec = match variable {
        RuleVariable::Column(column) => return identifier(field, column),
        RuleVariable::Spec(spec) => spec,
    };
    let given = [
        spec.column.is_some(),
        spec.value.is_some(),
        spec.days_until.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        let message = "must be a column's name, or have one of column, value and days_until";
        return Err(ApiError::invalid(field, message));
    }
    for column in [&spec.column, &spec.days_until].into_iter().flatten() {
        identifier(field, column)?;
    }
    if let Some(format) = &spec.format {
        one_of(&format!("{field}.format"), format, &["date"])?;
        if spec.column.is_none() {
            return Err(ApiError::invalid(
                format!("{field}.format"),
                "goes with column",
            ));
        }
    }
    for (name, value) in [("value", &spec.value), ("default", &spec.default)] {
        if value.as_ref().is_some_and(|value| !is_simple(value)) {
            let message = "must be text, a number, true or false";
            return Err(ApiError::invalid(format!("{field}.{name}"), message));
        }
    }
    Ok(())
}

fn is_simple(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains('\0'),
        Value::Number(_) | Value::Bool(_) => true,
        _ => false,
    }
}

fn identifier(field: &str, name: &str) -> Result<(), ApiError> {
    if (1..=MAX_IDENTIFIER).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    Err(ApiError::invalid(field, "is no name of a column or table"))
}

/// Whether the template is there, and gets just the variables it needs.
pub async fn check_template(
    tx: &mut TenantTx,
    org: OrgId,
    fields: &AutomationFields,
) -> Result<(), ApiError> {
    let template = templates::find(tx, org, fields.template_id)
        .await?
        .ok_or_else(|| ApiError::invalid("template_id", "there is no such template"))?;
    let texts = &template.fields;
    if !texts.is_active {
        return Err(ApiError::invalid("template_id", "is switched off"));
    }
    let needed = TemplateTexts {
        text: &texts.message_template,
        subject: texts.email_subject.as_deref(),
        html: texts.email_html.as_deref(),
    }
    .variables();
    let none = serde_json::Map::new();
    let mapped = fields
        .mapping
        .get("variables")
        .and_then(Value::as_object)
        .unwrap_or(&none);
    if let Some(open) = needed.iter().find(|name| !mapped.contains_key(*name)) {
        let message = "is missing: the template needs it";
        return Err(ApiError::invalid(
            format!("mapping.variables.{open}"),
            message,
        ));
    }
    if let Some(unknown) = mapped.keys().find(|name| !needed.contains(name)) {
        let message = "is not a variable of this template";
        return Err(ApiError::invalid(
            format!("mapping.variables.{unknown}"),
            message,
        ));
    }
    Ok(())
}
