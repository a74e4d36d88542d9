//! The notification queue (S4.5): a row of any SQL writer becomes a message.
//!
//! What `message_data` may hold: `variables` (an object; a name that is not in there is looked up in `message_data`
//! itself, because SQL writers put whole rows there, and what the template does not use is no error), and without a
//! template `message` or `text`; further `media_url`, `subject` (e-mail), `request_id`, `related_entity_id`.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_db::failures::Failure;
use wasel_db::notification_queue::{self, NewNotification, Notification};
use wasel_db::{SystemTx, automations, contacts, profiles, templates};
use wasel_domain::template::TemplateTexts;
use wasel_domain::{Category, ContactId, MessageId, OrgId, OutboundContent, UserId};

use crate::auth::Caller;
use crate::http::error::ApiError;
use crate::notify::{self, Medium, Note};
use crate::outbound::{self, Origin, SendRequest};
use crate::state::AppState;

/// Rows of one tenant in a round: with these its turn is over.
const PER_TENANT: i64 = 8;
/// Rows in a round.
const PER_ROUND: i64 = 64;
/// Tenants worked on at the same time.
const TENANTS_AT_ONCE: usize = 4;
/// The wait after the first attempt; four times as long after each further one.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How a round, or several, went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows whose message is queued.
    pub processed: u64,
    /// Rows that failed for good.
    pub failed: u64,
    /// Rows that wait for another attempt.
    pub put_off: u64,
}

impl Tally {
    #[must_use]
    pub const fn total(self) -> u64 {
        self.processed + self.failed + self.put_off
    }

    pub fn add(&mut self, other: Self) {
        self.processed += other.processed;
        self.failed += other.failed;
        self.put_off += other.put_off;
    }
}

/// One round: its tally, and where the next one begins so that every tenant gets its turn. `None`: the look came to the
/// last tenant.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub tally: Tally,
    pub next: Option<Uuid>,
}

/// How long to wait after this attempt (the first is 1): 30 s, 2 min, 8 min …
#[must_use]
pub fn wait_after(attempt: i32) -> Duration {
    let times = 4_u32.saturating_pow(attempt.saturating_sub(1).clamp(0, 15).unsigned_abs());
    FIRST_WAIT.saturating_mul(times).min(LONGEST_WAIT)
}

/// Works off rows that are due, of every tenant after `after` (or of one alone) its share.
pub async fn process_round(
    state: &AppState,
    only: Option<OrgId>,
    after: Uuid,
    limit: i64,
) -> wasel_db::Result<Round> {
    let limit = limit.clamp(1, PER_ROUND);
    let mut tx = state.db.system().await?;
    let due = notification_queue::list_due(&mut tx, only, after, PER_TENANT, limit).await?;
    tx.commit().await?;
    let next = (due.len() as i64 == limit).then(|| due.last().map(|(org, _)| *org));
    let mut shares: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
    for (org, id) in due {
        shares.entry(org).or_default().push(id);
    }
    let outcomes: Vec<_> = futures_util::stream::iter(shares)
        .map(|(org, ids)| process_share(state, OrgId(org), ids))
        .buffer_unordered(TENANTS_AT_ONCE)
        .collect()
        .await;
    let mut tally = Tally::default();
    let mut trouble = None;
    for outcome in outcomes {
        match outcome {
            Ok(share) => tally.add(share),
            // One tenant's trouble is not the others'; the round is repeated all the same.
            Err(error) => trouble = Some(error),
        }
    }
    match trouble {
        Some(error) if tally.total() == 0 => Err(error),
        Some(error) => {
            tracing::warn!(%error, "a part of the notification queue could not be worked off now");
            Ok(Round { tally, next: None })
        }
        None => Ok(Round {
            tally,
            next: next.flatten(),
        }),
    }
}

/// A tenant's rows, one after the other so that they keep their order.
async fn process_share(state: &AppState, org: OrgId, ids: Vec<Uuid>) -> wasel_db::Result<Tally> {
    let mut tally = Tally::default();
    for id in ids {
        tally.add(process(state, org, id).await?);
    }
    Ok(tally)
}

/// One row, in one transaction: it has its message and says so, or neither.
async fn process(state: &AppState, org: OrgId, id: Uuid) -> wasel_db::Result<Tally> {
    let mut tx = state.db.system().await?;
    let Some(row) = notification_queue::lock_due(&mut tx, org, id).await? else {
        return Ok(Tally::default());
    };
    if let Some((message, status)) = notification_queue::find_live_message(&mut tx, &row).await? {
        notification_queue::record_live_message(&mut tx, &row, (message, &status)).await?;
        tx.commit().await?;
        return Ok(Tally::default());
    }
    let mut tally = Tally::default();
    if row.attempts >= row.max_attempts {
        let words = format!(
            "all {} attempts are used up; raise max_attempts, or set attempts to 0",
            row.max_attempts
        );
        notification_queue::record_exhausted(&mut tx, &row, &words).await?;
        tx.commit().await?;
        tally.failed = 1;
        return Ok(tally);
    }
    let mut template = None;
    match attempt(&mut tx, state, &row).await? {
        Ok(queued) => {
            notification_queue::record_message(&mut tx, &row, queued.message).await?;
            template = queued.template;
            tally.processed = 1;
        }
        Err(error) => {
            let can_pass = can_pass(state, &row, &error) && row.attempts + 1 < row.max_attempts;
            let wait = can_pass.then(|| wait_after(row.attempts + 1));
            tracing::info!(notification.id = %row.id, org.id = %row.org_id, code = error.code, again = can_pass,
                "a queued notification was refused");
            let words = about_columns(&row, error).in_words();
            notification_queue::record_refusal(&mut tx, &row, &words, wait).await?;
            if can_pass {
                tally.put_off = 1;
            } else {
                tally.failed = 1;
            }
        }
    }
    tx.commit().await?;
    outbound::wake_sender(state);
    if let Some(template) = template {
        count_use(state, org, template).await;
    }
    Ok(tally)
}

struct Queued {
    message: MessageId,
    template: Option<Uuid>,
}

/// Tries to queue the row's message; whatever a refusal had written is undone.
async fn attempt(
    tx: &mut SystemTx,
    state: &AppState,
    row: &Notification,
) -> wasel_db::Result<Result<Queued, ApiError>> {
    // Whoever may write the queue may use the tenant's channels.
    let caller = Caller::service(OrgId(row.org_id), None);
    let (mut request, template) = match request_of(state, &caller, row).await {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    request.origin.notification_id = Some(row.id);
    let mut part = wasel_db::savepoint(tx).await?;
    match outbound::enqueue_in(&mut part, state, &caller, &request).await {
        Ok(enqueued) => {
            part.commit().await?;
            Ok(Ok(Queued {
                message: MessageId(enqueued.message.id),
                template,
            }))
        }
        Err(error) => {
            part.rollback().await?;
            Ok(Err(error))
        }
    }
}

/// What a row asks the sender for, and the template it uses. Reads by short transactions of its own.
async fn request_of(
    state: &AppState,
    caller: &Caller,
    row: &Notification,
) -> Result<(SendRequest, Option<Uuid>), ApiError> {
    let medium = Medium::parse(&row.notification_type)
        .ok_or_else(|| ApiError::invalid("notification_type", "must be whatsapp, sms or email"))?;
    let data = Data::of(&row.message_data)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let (phone, email) = recipient_of(&mut tx, medium, row).await?;
    let template = match row.template_id {
        Some(id) => Some(
            templates::find(&mut tx, caller.org_id, id)
                .await?
                .ok_or_else(|| ApiError::not_found("template").at("template_id"))?,
        ),
        None => None,
    };
    let related_entity_id = match data.first(&["related_entity_id"]) {
        Some(given) => Some(given),
        None => automations::find_entity(&mut tx, caller.org_id, row.id).await?,
    };
    tx.commit().await?;
    let note = Note {
        phone,
        email,
        text: data.first(&["message", "text"]),
        template: row.template_id.map(|id| id.to_string()),
        variables: template.as_ref().map(|template| data.values_for(template)),
        media_url: data.first(&["media_url"]),
        request_id: data.first(&["request_id"]),
        ..Note::default()
    };
    let step = notify::step(state, caller, medium)?;
    let (mut request, used) = notify::request_of(state, caller, step, &note).await?;
    let has_own_subject = template
        .as_ref()
        .is_some_and(|template| template.fields.email_subject.is_some());
    if let (OutboundContent::Email { subject, .. }, Some(given), false) = (
        &mut request.content,
        data.first(&["subject"]),
        has_own_subject,
    ) {
        *subject = given;
    }
    request.priority = row.priority;
    request.category = Category::Utility;
    // Nobody watches these as they go: better one that may be missing, and says so, than one twice.
    request.at_most_once = true;
    request.origin = Origin {
        trigger_type: template
            .map(|template| template.fields.category)
            .filter(|category| category != "custom")
            .unwrap_or_else(|| "manual".to_owned()),
        related_entity_id,
        ..Origin::default()
    };
    Ok((request, used))
}

/// The number and the address of a row: its own, else those of the contact or the member it names.
async fn recipient_of(
    connection: &mut PgConnection,
    medium: Medium,
    row: &Notification,
) -> Result<(Option<String>, Option<String>), ApiError> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let (phone, email) = (given(&row.recipient_phone), given(&row.recipient_email));
    let is_enough = match medium {
        Medium::Sms | Medium::Whatsapp => phone.is_some(),
        Medium::Email => email.is_some(),
    };
    let Some(id) = row.recipient_id.filter(|_| !is_enough) else {
        return Ok((phone, email));
    };
    let org = OrgId(row.org_id);
    let known = match contacts::find(connection, org, ContactId(id)).await? {
        Some(contact) => Some((contact.phone_number, contact.email)),
        None => profiles::find(connection, org, UserId(id))
            .await?
            .map(|profile| (profile.phone, profile.email)),
    };
    let (known_phone, known_email) =
        known.ok_or_else(|| ApiError::not_found("contact or member").at("recipient_id"))?;
    let (phone, email) = (phone.or(given(&known_phone)), email.or(given(&known_email)));
    let missing = match medium {
        Medium::Sms | Medium::Whatsapp => phone.is_none().then_some("has no phone number"),
        Medium::Email => email.is_none().then_some("has no e-mail address"),
    };
    match missing {
        Some(missing) => Err(ApiError::invalid("recipient_id", missing)),
        None => Ok((phone, email)),
    }
}

/// `message_data`, read by the rules at the top of this file.
struct Data<'a> {
    fields: &'a Map<String, Value>,
    variables: Option<&'a Map<String, Value>>,
}

impl<'a> Data<'a> {
    fn of(message_data: &'a Value) -> Result<Self, ApiError> {
        let fields = message_data
            .as_object()
            .ok_or_else(|| ApiError::invalid("message_data", "must be a JSON object"))?;
        let variables = match fields.get("variables") {
            None | Some(Value::Null) => None,
            Some(Value::Object(variables)) => Some(variables),
            Some(_) => {
                return Err(ApiError::invalid(
                    "message_data.variables",
                    "must be a JSON object",
                ));
            }
        };
        Ok(Self { fields, variables })
    }

    /// The first of these that holds something to say; a number is read as text.
    fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| match self.fields.get(*name) {
            Some(Value::String(text)) if !text.trim().is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        })
    }

    /// The values of a template's variables, and no others.
    fn values_for(&self, template: &templates::Template) -> Map<String, Value> {
        let fields = &template.fields;
        let texts = TemplateTexts {
            text: &fields.message_template,
            subject: fields.email_subject.as_deref(),
            html: fields.email_html.as_deref(),
        };
        let value = |name: &String| {
            let given = self.variables.and_then(|variables| variables.get(name));
            given.or_else(|| self.fields.get(name)).cloned()
        };
        texts
            .variables()
            .into_iter()
            .filter_map(|name| value(&name).map(|value| (name, value)))
            .collect()
    }
}

/// Whether the same row may go through later without anybody changing it.
fn can_pass(state: &AppState, row: &Notification, error: &ApiError) -> bool {
    if error.status.is_server_error() {
        return true;
    }
    // There is a channel, and it is paused or blocked at the moment.
    error.code == "no_channel"
        && Medium::parse(&row.notification_type).is_some_and(|medium| {
            let kinds = state.registry.of_kinds(medium.kinds());
            kinds.iter().any(|channel| channel.org_id.0 == row.org_id)
        })
}

/// An error in the names of the queue's columns.
fn about_columns(row: &Notification, error: ApiError) -> ApiError {
    let error = about_recipient(row, error);
    match error.field.as_deref() {
        Some(field @ ("message" | "media_url" | "subject")) => {
            let field = format!("message_data.{field}");
            error.at(field)
        }
        _ => error,
    }
}

/// The address at fault is called by the column it came from.
fn about_recipient(row: &Notification, error: ApiError) -> ApiError {
    let recipient = match row.notification_type.as_str() {
        "email" => ("recipient_email", row.recipient_email.is_some()),
        _ => ("recipient_phone", row.recipient_phone.is_some()),
    };
    match error.field.as_deref() {
        Some("to") if !recipient.1 => error.at("recipient_id"),
        Some("to") => error.at(recipient.0),
        _ => error,
    }
}

/// The message is on its way: a use that is not counted is no reason to say otherwise.
async fn count_use(state: &AppState, org: OrgId, template: Uuid) {
    let counted = async {
        let mut tx = state.db.system().await?;
        templates::record_use(&mut tx, org, template).await?;
        tx.commit().await
    };
    if let Err(error) = counted.await {
        tracing::warn!(template.id = %template, %error, "a use of a template was not counted");
    }
}

/// The message of a queue row has failed. Says whether the row will be tried again; `class_can_pass` is what the
/// provider's error says.
pub async fn follow_failure(
    tx: &mut SystemTx,
    failure: &Failure,
    class_can_pass: bool,
) -> wasel_db::Result<bool> {
    let Some(id) = failure.notification_id else {
        return Ok(false);
    };
    let words = match (&failure.error_message, &failure.error_code) {
        (Some(words), _) if !words.is_empty() => words,
        (_, Some(code)) => code,
        _ => "the provider refused it",
    };
    notification_queue::settle_failure(
        tx,
        failure.org_id,
        id,
        failure.message_id,
        words,
        class_can_pass,
        wait_after,
    )
    .await
}

/// Writes a row for somebody who is there to hear what is wrong with it: everything the processor would refuse is
/// refused now, unless it is scheduled for later and only the time may be at fault.
pub async fn insert(
    state: &AppState,
    caller: &Caller,
    new: &NewNotification,
) -> Result<Notification, ApiError> {
    let later = new.scheduled_for.is_some_and(|at| at > Utc::now());
    let asked = as_row(caller.org_id, new);
    let refusal = |error: ApiError| {
        if later && is_of_the_moment(&error) {
            Ok(())
        } else {
            Err(about_recipient(&asked, error))
        }
    };
    let service = Caller::service(caller.org_id, None);
    // Before the transaction, which would keep one connection while this waits for another.
    let request = match request_of(state, &service, &asked).await {
        Ok((request, _)) => Some(request),
        Err(error) => refusal(error).map(|()| None)?,
    };
    let mut tx = state.db.tenant(&caller.claims()).await?;
    if let Some(request) = request {
        let mut part = wasel_db::savepoint(&mut tx).await?;
        let trial = outbound::enqueue_in(&mut part, state, &service, &request).await;
        // Only to see whether it could be done.
        part.rollback().await.map_err(wasel_db::Error::from)?;
        if let Err(error) = trial {
            refusal(error)?;
        }
    }
    let row = notification_queue::insert(&mut tx, caller.org_id, new).await?;
    tx.commit().await?;
    state.signals.queue.notify_one();
    state.signals.commits.changes.notify_one();
    Ok(row)
}

/// The row as it will be.
fn as_row(org: OrgId, new: &NewNotification) -> Notification {
    let now = Utc::now();
    Notification {
        org_id: org.0,
        id: Uuid::nil(),
        notification_type: new.notification_type.to_owned(),
        recipient_id: new.recipient_id,
        recipient_phone: new.recipient_phone.clone(),
        recipient_email: new.recipient_email.clone(),
        template_id: new.template_id,
        message_data: new.message_data.clone(),
        priority: new.priority,
        scheduled_for: new.scheduled_for.unwrap_or(now),
        status: "pending".to_owned(),
        attempts: 0,
        max_attempts: 1,
        last_attempt_at: None,
        error_message: None,
        whatsapp_message_id: None,
        created_at: now,
        updated_at: now,
        completed_at: None,
    }
}

fn is_of_the_moment(error: &ApiError) -> bool {
    [
        "window_closed",
        "opted_out",
        "conversation_blocked",
        "no_channel",
    ]
    .contains(&error.code)
}

/// A row as somebody may ask for it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub notification_type: Option<String>,
    pub recipient_id: Option<Uuid>,
    pub recipient_phone: Option<String>,
    pub recipient_email: Option<String>,
    pub template_id: Option<Uuid>,
    /// Into `message_data.message`.
    pub message: Option<String>,
    pub message_data: Option<Map<String, Value>>,
    /// Into `message_data.variables`.
    pub variables: Option<Map<String, Value>>,
    pub priority: Option<i16>,
    pub scheduled_for: Option<DateTime<Utc>>,
}

impl Wanted {
    /// The row to write.
    ///
    /// # Errors
    /// Names the field that cannot be so.
    pub fn into_row(self) -> Result<NewNotification, ApiError> {
        let medium = match &self.notification_type {
            None => Medium::Whatsapp,
            Some(word) => Medium::parse(word).ok_or_else(|| {
                ApiError::invalid("notification_type", "must be whatsapp, sms or email")
            })?,
        };
        let priority = self.priority.unwrap_or(5);
        if !(1..=10).contains(&priority) {
            return Err(ApiError::invalid("priority", "must be from 1 to 10"));
        }
        let mut data = self.message_data.unwrap_or_default();
        if let Some(message) = self.message {
            data.insert("message".to_owned(), Value::String(message));
        }
        if let Some(variables) = self.variables {
            data.insert("variables".to_owned(), Value::Object(variables));
        }
        let message_data = Value::Object(data);
        let texts = [
            ("recipient_phone", &self.recipient_phone),
            ("recipient_email", &self.recipient_email),
        ];
        // Postgres' text and JSON have no NUL.
        if let Some((field, _)) = texts
            .iter()
            .find(|(_, text)| text.as_ref().is_some_and(|text| text.contains('\0')))
        {
            return Err(ApiError::invalid(*field, "holds a NUL character"));
        }
        if message_data.to_string().contains("\\u0000") {
            return Err(ApiError::invalid("message_data", "holds a NUL character"));
        }
        Ok(NewNotification {
            notification_type: medium.as_str(),
            recipient_id: self.recipient_id,
            recipient_phone: self.recipient_phone,
            recipient_email: self.recipient_email,
            template_id: self.template_id,
            message_data,
            priority,
            scheduled_for: self.scheduled_for,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_wait_is_four_times_the_one_before_and_there_is_a_longest() {
        let seconds: Vec<u64> = (1..=4).map(|n| wait_after(n).as_secs()).collect();
        assert_eq!(seconds, [30, 120, 480, 1920]);
        assert_eq!(wait_after(i32::MAX), LONGEST_WAIT);
        assert_eq!(wait_after(0), FIRST_WAIT);
    }

    #[test]
    fn message_data_is_read_by_its_rules() {
        let data = json!({ "text": "t", "message": " ", "request_id": 7, "media_url": null, "variables": {} });
        let data = Data::of(&data).unwrap();
        assert_eq!(data.first(&["message", "text"]).as_deref(), Some("t"));
        assert_eq!(data.first(&["request_id"]).as_deref(), Some("7"));
        assert_eq!(data.first(&["media_url"]), None);
        for (bad, field) in [
            (json!([]), "message_data"),
            (json!({ "variables": "x" }), "message_data.variables"),
        ] {
            let error = Data::of(&bad).err().unwrap();
            assert_eq!(error.field.as_deref(), Some(field));
        }
    }

    #[test]
    fn what_is_wanted_names_the_field_at_fault() {
        let field = |wanted: Wanted| wanted.into_row().unwrap_err().field.unwrap();
        let kind = Some("fax".to_owned());
        assert_eq!(
            field(Wanted {
                notification_type: kind,
                ..Wanted::default()
            }),
            "notification_type"
        );
        assert_eq!(
            field(Wanted {
                priority: Some(11),
                ..Wanted::default()
            }),
            "priority"
        );
        let phone = Some("\0".to_owned());
        assert_eq!(
            field(Wanted {
                recipient_phone: phone,
                ..Wanted::default()
            }),
            "recipient_phone"
        );
        let message = Some("a\0b".to_owned());
        assert_eq!(
            field(Wanted {
                message,
                ..Wanted::default()
            }),
            "message_data"
        );
    }
}
