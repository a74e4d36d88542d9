//! One old row becomes one of ours, or a reason why not.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use csv::StringRecord;
use ring::digest;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use wasel_db::import::{NewConversation, NewMessage, NewQueued, NewSession, NewTemplate, Thread};
use wasel_domain::event::{Identity, IdentityKind};
use wasel_domain::phone::Region;
use wasel_domain::{E164, MessageStatus};

use super::channels::{Channels, Hint};
use super::shapes::{Field, Kind, Shape, Wants};
use super::values;

/// Numbers and channels remembered; a few ten megabytes.
const CACHE: usize = 200_000;
/// A customer's address and name, as the old system kept them apart.
pub type Customers = HashMap<String, (Vec<String>, Option<String>)>;

/// Where each field of a table is.
#[derive(Clone, Debug)]
pub struct Layout {
    pub shape: &'static Shape,
    /// The columns to read, in order.
    pub columns: Vec<String>,
    /// Columns we do not know.
    pub unknown: Vec<String>,
    places: HashMap<Field, Vec<usize>>,
    own: HashMap<String, usize>,
    kept: Vec<(usize, String)>,
}

impl Layout {
    pub fn new(shape: &'static Shape, columns: &[String]) -> Self {
        let mut layout = Self {
            shape,
            columns: Vec::new(),
            unknown: Vec::new(),
            places: HashMap::new(),
            own: HashMap::new(),
            kept: Vec::new(),
        };
        for column in columns {
            let place = layout.columns.len();
            match shape.field(column) {
                Some(Field::Never) => continue,
                Some(Field::Own) => drop(layout.own.insert(column.clone(), place)),
                Some(Field::Keep) => layout.kept.push((place, column.clone())),
                Some(field) => layout.places.entry(field).or_default().push(place),
                None => {
                    layout.unknown.push(column.clone());
                    layout.kept.push((place, column.clone()));
                }
            }
            layout.columns.push(column.clone());
        }
        layout
    }

    /// The column with this field, if there is one.
    pub fn column(&self, field: Field) -> Option<&str> {
        let place = self.places.get(&field)?.first()?;
        Some(&self.columns[*place])
    }

    pub fn all<'a>(
        &'a self,
        record: &'a StringRecord,
        field: Field,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.places
            .get(&field)
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .filter_map(|place| {
                let value = record.get(*place).filter(|value| !value.is_empty())?;
                Some((self.columns[*place].as_str(), value))
            })
    }

    pub fn get<'a>(&'a self, record: &'a StringRecord, field: Field) -> Option<&'a str> {
        self.all(record, field).next().map(|(_, value)| value)
    }

    fn own<'a>(&self, record: &'a StringRecord, column: &str) -> Option<&'a str> {
        record
            .get(*self.own.get(column)?)
            .filter(|value| !value.is_empty())
    }
}

/// Why a row is not moved, and which it is.
#[derive(Debug)]
pub struct Skip {
    pub reason: Cow<'static, str>,
    pub id: String,
}

pub enum Mapped {
    Conversation(NewConversation),
    Message(NewMessage),
    Session(NewSession),
    Template(NewTemplate),
    Queued(NewQueued),
}

type Reason = Cow<'static, str>;

/// Everything that tells what a row of one table becomes.
pub struct Mapper {
    pub layout: Arc<Layout>,
    /// The name of the source, which goes into derived ids.
    pub source: String,
    /// Only rows of this old tenant.
    pub old_org: Option<String>,
    pub region: Option<Region>,
    pub channels: Channels,
    pub customers: Arc<Customers>,
    /// `phone_numbers.id` to Meta's id of the number.
    pub numbers: Arc<HashMap<String, String>>,
    pub keep_pending: bool,
    pub phones: HashMap<String, Result<E164, Reason>>,
    pub found: HashMap<Hint, Result<Uuid, String>>,
}

impl Mapper {
    pub fn map(&mut self, record: &StringRecord, number: u64) -> Result<Mapped, Skip> {
        let external_id = self.layout.get(record, Field::Id).map(str::to_owned);
        self.map_row(record, external_id.clone())
            .map_err(|reason| Skip {
                reason,
                id: external_id.unwrap_or_else(|| format!("row {number}")),
            })
    }

    fn map_row(
        &mut self,
        record: &StringRecord,
        external_id: Option<String>,
    ) -> Result<Mapped, Reason> {
        self.check_org(record)?;
        let external_id = external_id.unwrap_or_else(|| hex::encode(hash_of(record.iter())));
        Ok(match self.layout.shape.kind {
            Kind::Conversations => Mapped::Conversation(self.conversation(record, external_id)?),
            Kind::Messages => Mapped::Message(self.message(record, external_id)?),
            Kind::Sessions => Mapped::Session(self.session(record, external_id)?),
            Kind::Templates => Mapped::Template(self.template(record, external_id)?),
            Kind::Queue => Mapped::Queued(self.queued(record, external_id)?),
            Kind::Numbers | Kind::Customers => return Err("has nothing to move".into()),
        })
    }

    fn check_org(&self, record: &StringRecord) -> Result<(), Reason> {
        if self.layout.column(Field::Org).is_none() {
            return Ok(());
        }
        match (self.layout.get(record, Field::Org), &self.old_org) {
            (None, _) if self.layout.shape.kind == Kind::Templates => {
                Err("org_id: a system template; Wasel brings its own".into())
            }
            (None, Some(_)) => Err("org_id: the row belongs to nobody".into()),
            (Some(org), Some(wanted)) if org != wanted => {
                Err("org_id: another organisation's".into())
            }
            _ => Ok(()),
        }
    }

    /// The old id where it is a UUID, else one made of it.
    fn ids(&self, external_id: &str, at: DateTime<Utc>) -> (Uuid, Uuid) {
        let parts = [self.source.as_str(), self.layout.shape.table, external_id];
        let spare = values::derived_id(&hash_of(parts.into_iter()), at);
        (external_id.parse().unwrap_or(spare), spare)
    }

    fn time(&self, record: &StringRecord, field: Field) -> Result<Option<DateTime<Utc>>, Reason> {
        match self.layout.all(record, field).next() {
            None => Ok(None),
            Some((column, text)) => match values::time(text) {
                Some(at) => Ok(Some(at)),
                None => Err(format!("{column}: not a time").into()),
            },
        }
    }

    fn own_time(
        &self,
        record: &StringRecord,
        column: &str,
    ) -> Result<Option<DateTime<Utc>>, Reason> {
        match self.layout.own(record, column) {
            None => Ok(None),
            Some(text) => values::time(text)
                .map(Some)
                .ok_or_else(|| format!("{column}: not a time").into()),
        }
    }

    /// When the row was made and last changed. Without any time of its own a row would be new, which it is not.
    fn created_and_updated(
        &self,
        record: &StringRecord,
        others: &[Option<DateTime<Utc>>],
    ) -> Result<(DateTime<Utc>, DateTime<Utc>), Reason> {
        let updated = self.time(record, Field::UpdatedAt)?;
        let created = self
            .time(record, Field::CreatedAt)?
            .or_else(|| others.iter().flatten().next().copied())
            .or(updated)
            .ok_or("created_at: the row has no time at all")?;
        Ok((created, updated.unwrap_or(created)))
    }

    /// E.164, from any spelling these tables use: as typed, as `whatsapp:+20…`, as a JID, as Meta's `wa_id`.
    fn phone(&mut self, raw: &str) -> Result<E164, Reason> {
        if let Some(known) = self.phones.get(raw) {
            return known.clone();
        }
        if self.phones.len() >= CACHE {
            self.phones.clear();
        }
        let is_meta = self.layout.shape.wants == Wants::CloudNumber;
        let found = read_phone(raw, self.region, is_meta);
        self.phones.insert(raw.to_owned(), found.clone());
        found
    }

    /// The first of the texts that is an address.
    fn identity<'a>(
        &mut self,
        texts: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(Identity, &'a str, &'a str), Reason> {
        let mut reason = None;
        for (column, text) in texts {
            if text.contains('@') && !text.contains("@s.whatsapp.net") && !text.contains("@c.us") {
                if text.contains("@g.us") {
                    reason.get_or_insert_with(|| format!("{column}: a group"));
                    continue;
                }
                if !text.contains("@lid") && !text.contains(char::is_whitespace) {
                    let identity = Identity::new(IdentityKind::Email, text.to_lowercase());
                    return Ok((identity, column, text));
                }
            }
            match self.phone(text) {
                Ok(number) => {
                    let identity = Identity::new(IdentityKind::Phone, number.as_str());
                    return Ok((identity, column, text));
                }
                Err(why) => {
                    reason.get_or_insert_with(|| format!("{column}: {why}"));
                }
            }
        }
        Err(reason.map_or("the row names no number or address".into(), Into::into))
    }

    fn channel(&mut self, record: &StringRecord) -> Result<Uuid, Reason> {
        let hint = self.hint(|field| self.layout.get(record, field).map(str::to_owned));
        if let Some(known) = self.found.get(&hint) {
            return known.clone().map_err(Into::into);
        }
        if self.found.len() >= CACHE {
            self.found.clear();
        }
        let found = self.channels.find(self.layout.shape.wants, &hint);
        self.found.insert(hint, found.clone());
        found.map_err(Into::into)
    }

    /// What a row says about its channel.
    pub fn hint(&self, get: impl Fn(Field) -> Option<String>) -> Hint {
        let wants = self.layout.shape.wants;
        let by_name = matches!(wants, Wants::Log | Wants::Channel);
        let number = || {
            let id = get(Field::PhoneNumberId)?;
            Some(self.numbers.get(&id).cloned().unwrap_or(id))
        };
        Hint {
            channel: by_name.then(|| get(Field::Channel)).flatten(),
            provider: (wants == Wants::Log)
                .then(|| get(Field::Provider))
                .flatten(),
            phone_number_id: (wants == Wants::CloudNumber).then(number).flatten(),
        }
    }

    /// What has no column here, for `metadata.imported`.
    fn kept(&self, record: &StringRecord) -> Map<String, Value> {
        let mut kept = Map::new();
        for (place, column) in &self.layout.kept {
            if let Some(value) = record.get(*place).filter(|value| !value.is_empty()) {
                kept.insert(column.clone(), readable(value));
            }
        }
        kept
    }

    fn conversation(
        &mut self,
        record: &StringRecord,
        external_id: String,
    ) -> Result<NewConversation, Reason> {
        let layout = self.layout.clone();
        let customers = self.customers.clone();
        let customer = layout
            .get(record, Field::Customer)
            .and_then(|id| customers.get(id));
        let elsewhere = customer
            .iter()
            .flat_map(|(addresses, _)| addresses.iter().map(|text| ("customer_id", text.as_str())));
        let is_mail = layout
            .get(record, Field::Channel)
            .is_some_and(|word| word.eq_ignore_ascii_case("email"));
        // The kind of address the channel uses first.
        let mut texts: Vec<(&str, &str)> = layout
            .all(record, Field::Address)
            .chain(elsewhere)
            .collect();
        texts.sort_by_key(|(_, text)| text.contains('@') != is_mail);
        let (identity, column, raw) = self.identity(texts.into_iter())?;
        let channel_id = self.channel(record)?;
        let last_message_at = self.time(record, Field::LastMessageAt)?;
        let (created_at, updated_at) = self.created_and_updated(record, &[last_message_at])?;
        let mut kept = self.kept(record);
        if raw != identity.value {
            kept.insert(column.to_owned(), raw.into());
        }
        if let Some(id) = layout.get(record, Field::Customer) {
            kept.insert("customer_id".to_owned(), id.into());
        }
        let get = |field| layout.get(record, field).map(clean);
        let assigned_to = get(Field::AssignedTo);
        if let Some(word) = &assigned_to {
            // A member of the organisation keeps the conversation; of anybody else this is all that is left.
            kept.insert("assigned_to".to_owned(), word.as_str().into());
        }
        let status = match get(Field::Status).as_deref() {
            Some("archived" | "closed" | "resolved") => "archived",
            Some("blocked") => "blocked",
            _ => "active",
        };
        let name = get(Field::Name).or_else(|| customer.and_then(|(_, name)| name.clone()));
        Ok(NewConversation {
            id: self.ids(&external_id, created_at).0,
            external_id,
            channel_id,
            identity,
            customer_name: name,
            avatar_url: get(Field::Avatar),
            status,
            assigned_to: assigned_to.and_then(|id| id.parse().ok()),
            notes: get(Field::Notes),
            tags: layout
                .get(record, Field::Tags)
                .map(|text| values::list(&clean(text)))
                .unwrap_or_default(),
            patient_id: get(Field::Patient),
            unread_count: get(Field::Unread)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
                .max(0),
            last_message: get(Field::LastMessage).map(|text| text.chars().take(200).collect()),
            last_message_at,
            metadata: imported(kept),
            created_at,
            updated_at,
        })
    }

    fn message(
        &mut self,
        record: &StringRecord,
        external_id: String,
    ) -> Result<NewMessage, Reason> {
        let layout = self.layout.clone();
        let get = |field| layout.get(record, field);
        let mut kept = self.kept(record);
        let inbound = match get(Field::Direction) {
            None => false,
            Some(word) => {
                values::is_inbound(word).ok_or("direction: neither inbound nor outbound")?
            }
        };
        let thread = match layout.shape.conversations {
            Some(kind) => Thread::Moved {
                kind,
                external_id: get(Field::Conversation)
                    .ok_or("conversation_id: missing")?
                    .to_owned(),
            },
            None => {
                let (identity, column, raw) = self.identity(layout.all(record, Field::Address))?;
                if raw != identity.value {
                    kept.insert(column.to_owned(), raw.into());
                }
                Thread::Customer {
                    channel_id: self.channel(record)?,
                    identity,
                }
            }
        };
        let sent_at = self.time(record, Field::SentAt)?;
        let delivered_at = self.time(record, Field::DeliveredAt)?;
        let read_at = self.time(record, Field::ReadAt)?;
        let failed_at = self.time(record, Field::FailedAt)?;
        let scheduled_at = self.time(record, Field::ScheduledAt)?;
        let (created_at, updated_at) = self.created_and_updated(
            record,
            &[sent_at, delivered_at, read_at, failed_at, scheduled_at],
        )?;
        let status = match get(Field::Status) {
            _ if inbound => MessageStatus::Received,
            word => match word.map(values::status) {
                Some(Some(MessageStatus::Received)) | None => {
                    told_by(read_at, delivered_at, failed_at)
                }
                Some(Some(status)) => status,
                Some(None) => {
                    kept.insert("status".to_owned(), word.into());
                    told_by(read_at, delivered_at, failed_at)
                }
            },
        };
        let media_url = get(Field::MediaUrl);
        let template = get(Field::TemplateName);
        let word = get(Field::Type).unwrap_or(match (media_url, template) {
            (_, Some(_)) => "template",
            (Some(_), _) => "media",
            _ => "text",
        });
        let message_type = values::message_type(word, media_url).unwrap_or_else(|| {
            kept.insert("message_type".to_owned(), word.into());
            "unsupported"
        });
        let content = template.map(|name| {
            let variables = get(Field::TemplateParams).map(readable);
            json!({ "type": "template", "name": clean(name), "variables": variables }).to_string()
        });
        let sender = get(Field::Sender);
        let sender_id: Option<Uuid> = sender.and_then(|id| id.parse().ok());
        if let (Some(sender), None) = (sender, sender_id) {
            kept.insert("sender_id".to_owned(), sender.into());
        }
        let provider_id = get(Field::ProviderId);
        let (id, spare_id) = self.ids(&external_id, created_at);
        let owned = |field| get(field).map(clean);
        Ok(NewMessage {
            id,
            spare_id,
            external_id,
            thread,
            inbound,
            message_type,
            status,
            body: owned(Field::Body).or_else(|| owned(Field::Caption)),
            content,
            media: media_url.map(|url| json!([{ "url": clean(url) }]).to_string()),
            customer_name: owned(Field::Name),
            provider_message_id: provider_id.map(clean),
            sender_id,
            request_id: owned(Field::RequestId),
            trigger_type: owned(Field::Trigger),
            related_entity_id: owned(Field::RelatedEntity),
            error_code: owned(Field::ErrorCode),
            error_message: owned(Field::ErrorMessage),
            metadata: metadata(get(Field::Metadata), kept),
            retry_count: get(Field::RetryCount)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            created_at,
            updated_at,
            scheduled_at,
            sent_at,
            delivered_at,
            read_at,
            failed_at,
        })
    }

    fn session(
        &mut self,
        record: &StringRecord,
        external_id: String,
    ) -> Result<NewSession, Reason> {
        let connected = self.own_time(record, "last_connected_at")?;
        let disconnected = self.own_time(record, "last_disconnected_at")?;
        let (created_at, updated_at) =
            self.created_and_updated(record, &[connected, disconnected])?;
        let number = self.layout.get(record, Field::Address).map(str::to_owned);
        let number = number.map(|raw| match self.phone(&raw) {
            Ok(number) => number.as_str().to_owned(),
            Err(_) => clean(&raw),
        });
        let flag = |column| {
            let word = self.layout.own(record, column);
            word.and_then(values::boolean).unwrap_or(true)
        };
        Ok(NewSession {
            id: self.ids(&external_id, created_at).0,
            external_id,
            phone_number: number,
            whatsapp_id: self.layout.own(record, "whatsapp_id").map(clean),
            display_name: self.layout.get(record, Field::Name).map(clean),
            last_connected_at: connected,
            last_disconnected_at: disconnected,
            connection_error: "imported: link this phone again".to_owned(),
            auto_reconnect: flag("auto_reconnect"),
            enabled: flag("enabled"),
            created_at,
            updated_at,
        })
    }

    fn template(
        &mut self,
        record: &StringRecord,
        external_id: String,
    ) -> Result<NewTemplate, Reason> {
        let own = |column| self.layout.own(record, column);
        if own("is_system").and_then(values::boolean) == Some(true) {
            return Err("is_system: a system template; Wasel brings its own".into());
        }
        let last_used_at = self.own_time(record, "last_used_at")?;
        let (created_at, updated_at) = self.created_and_updated(record, &[last_used_at])?;
        let variables = own("variables").map(readable);
        Ok(NewTemplate {
            id: self.ids(&external_id, created_at).0,
            external_id,
            name: clean(
                self.layout
                    .get(record, Field::Name)
                    .ok_or("name: missing")?,
            ),
            message_template: clean(
                self.layout
                    .get(record, Field::Body)
                    .ok_or("message_template: missing")?,
            ),
            description: own("description").map(clean),
            category: match own("category") {
                Some("trial_welcome") => "trial_welcome",
                Some("subscription_expiring") => "subscription_expiring",
                Some("subscription_activated") => "subscription_activated",
                Some("payment_reminder") => "payment_reminder",
                _ => "custom",
            },
            variables: match variables {
                Some(Value::Array(items)) => Value::Array(items),
                // An object of examples: its keys are the names.
                Some(Value::Object(fields)) => fields.into_iter().map(|(key, _)| key).collect(),
                Some(Value::String(text)) => values::list(&text).into_iter().collect(),
                _ => json!([]),
            },
            media_type: match own("media_type") {
                Some("image") => Some("image"),
                Some("document") => Some("document"),
                _ => None,
            },
            media_url: self.layout.get(record, Field::MediaUrl).map(clean),
            is_active: own("is_active").and_then(values::boolean).unwrap_or(true),
            usage_count: own("usage_count")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            last_used_at,
            created_by: own("created_by").and_then(|id| id.parse().ok()),
            created_at,
            updated_at,
        })
    }

    fn queued(&mut self, record: &StringRecord, external_id: String) -> Result<NewQueued, Reason> {
        let scheduled_for = self.own_time(record, "scheduled_for")?;
        let last_attempt_at = self.own_time(record, "last_attempt_at")?;
        let completed_at = self.own_time(record, "completed_at")?;
        let (created_at, updated_at) =
            self.created_and_updated(record, &[scheduled_for, last_attempt_at, completed_at])?;
        let raw_phone = self
            .layout
            .own(record, "recipient_phone")
            .map(str::to_owned);
        let recipient_phone = raw_phone.map(|raw| match self.phone(&raw) {
            Ok(number) => number.as_str().to_owned(),
            Err(_) => clean(&raw),
        });
        let own = |column| self.layout.own(record, column);
        let number = |column, usual: i32| {
            let text = own(column);
            text.and_then(|text| text.parse().ok()).unwrap_or(usual)
        };
        let mut error_message = self.layout.get(record, Field::ErrorMessage).map(clean);
        let status = match self.layout.get(record, Field::Status) {
            Some("completed") => "completed",
            Some("failed") => "failed",
            Some("cancelled" | "canceled") => "cancelled",
            Some("pending" | "processing") | None if self.keep_pending => "pending",
            Some("pending" | "processing") | None => {
                error_message =
                    Some("imported unsent: it was still waiting in the old system".to_owned());
                "cancelled"
            }
            Some(_) => return Err("status: not a status of this table".into()),
        };
        let mut message_data = match own("message_data").map(readable) {
            Some(Value::Object(fields)) => fields,
            Some(other) => Map::from_iter([("message".to_owned(), other)]),
            None => Map::new(),
        };
        let message_id = own("whatsapp_message_id");
        let whatsapp_message_id: Option<Uuid> = message_id.and_then(|id| id.parse().ok());
        if let (Some(id), None) = (message_id, whatsapp_message_id) {
            message_data.insert("imported_message_id".to_owned(), clean(id).into());
        }
        Ok(NewQueued {
            id: self.ids(&external_id, created_at).0,
            external_id,
            notification_type: match self.layout.get(record, Field::Type) {
                Some("whatsapp") | None => "whatsapp",
                Some("email") => "email",
                Some("sms") => "sms",
                Some(_) => return Err("notification_type: none of whatsapp, email, sms".into()),
            },
            recipient_id: own("recipient_id").and_then(|id| id.parse().ok()),
            recipient_phone,
            recipient_email: own("recipient_email").map(clean),
            template_id: own("template_id").and_then(|id| id.parse().ok()),
            message_data: Value::Object(message_data),
            priority: number("priority", 5).clamp(1, 10) as i16,
            scheduled_for: scheduled_for.unwrap_or(created_at),
            status,
            attempts: number("attempts", 0),
            max_attempts: number("max_attempts", 3),
            last_attempt_at,
            error_message,
            whatsapp_message_id,
            created_at,
            updated_at,
            completed_at,
        })
    }
}

fn told_by(
    read_at: Option<DateTime<Utc>>,
    delivered_at: Option<DateTime<Utc>>,
    failed_at: Option<DateTime<Utc>>,
) -> MessageStatus {
    match (read_at, delivered_at, failed_at) {
        (Some(_), _, _) => MessageStatus::Read,
        (_, Some(_), _) => MessageStatus::Delivered,
        (_, _, Some(_)) => MessageStatus::Failed,
        _ => MessageStatus::Sent,
    }
}

fn read_phone(raw: &str, region: Option<Region>, is_meta: bool) -> Result<E164, Reason> {
    let mut text = raw.trim();
    for prefix in ["whatsapp:", "sms:", "tel:"] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    // A JID: number, perhaps the device, server.
    let jid = text.split_once('@').map(|(user, _)| user);
    if let Some(user) = jid {
        text = user.split([':', '.']).next().unwrap_or(user);
    }
    let international = || {
        let digits = text.len() >= 10 && text.bytes().all(|b| b.is_ascii_digit());
        (digits && !text.starts_with('0'))
            .then(|| E164::parse(&format!("+{text}"), None).ok())
            .flatten()
    };
    if (is_meta || jid.is_some())
        && let Some(number) = international()
    {
        return Ok(number);
    }
    E164::parse(text, region)
        .or_else(|error| international().ok_or(error))
        .map_err(|error| error.to_string().into())
}

/// JSON where it is an object or a list, else text.
fn readable(value: &str) -> Value {
    let value = clean(value);
    if value.starts_with(['{', '[']) {
        // jsonb keeps no U+0000.
        if let Ok(json) = serde_json::from_str(&value.replace("\\u0000", "\\ufffd")) {
            return json;
        }
    }
    value.into()
}

fn clean(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

fn imported(kept: Map<String, Value>) -> Value {
    if kept.is_empty() {
        json!({})
    } else {
        json!({ "imported": kept })
    }
}

/// The old metadata with what was kept beside it, as JSON text.
fn metadata(old: Option<&str>, mut kept: Map<String, Value>) -> String {
    let mut fields = match old.map(readable) {
        Some(Value::Object(fields)) => fields,
        Some(Value::Null) | None => Map::new(),
        Some(other) => {
            kept.insert("metadata".to_owned(), other);
            Map::new()
        }
    };
    if !kept.is_empty() {
        fields.insert("imported".to_owned(), Value::Object(kept));
    }
    Value::Object(fields).to_string()
}

fn hash_of<'a>(parts: impl Iterator<Item = &'a str>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        // No byte of UTF-8: "ab", "c" is not "a", "bc".
        context.update(&[0xFF]);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
