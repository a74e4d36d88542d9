//! Rows of conversations and messages.

use chrono::{DateTime, Utc};
use csv::StringRecord;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use wasel_db::import::{NewConversation, NewMessage, Thread};
use wasel_domain::MessageStatus;

use super::{Mapper, Reason, bounded, name_of, readable};
use crate::cli::import::shapes::Field;
use crate::cli::import::values;

/// No inbox has more unread messages; sums of such numbers stay in range.
const MOST_UNREAD: i64 = 10_000;

impl Mapper {
    pub(super) fn conversation(
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
        let found = self.channel(record)?;
        let texts = layout.all(record, Field::Address).chain(elsewhere);
        let (identity, column, raw) = self.identity(found.family, texts)?;
        let last_message_at = self.time(record, Field::LastMessageAt)?;
        let (created_at, updated_at) = self.created_and_updated(record, &[last_message_at])?;
        let mut kept = self.kept(record);
        if raw != identity.value {
            kept.insert(column.to_owned(), raw.into());
        }
        if let Some(id) = layout.get(record, Field::Customer) {
            kept.insert("customer_id".to_owned(), id.into());
        }
        let get = |field| layout.get(record, field).map(str::to_owned);
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
            channel_id: found.id,
            identity,
            customer_name: name.as_deref().map(name_of),
            avatar_url: get(Field::Avatar),
            status,
            assigned_to: assigned_to.and_then(|id| id.parse().ok()),
            notes: get(Field::Notes),
            tags: layout
                .get(record, Field::Tags)
                .map(values::list)
                .unwrap_or_default(),
            patient_id: get(Field::Patient),
            unread_count: get(Field::Unread)
                .and_then(|text| text.parse::<i64>().ok())
                .map_or(0, |unread| unread.clamp(0, MOST_UNREAD) as i32),
            last_message: get(Field::LastMessage).map(|text| text.chars().take(200).collect()),
            last_message_at,
            metadata: imported(kept),
            created_at,
            updated_at,
        })
    }

    /// Whether the customer wrote it. In a table with both directions a row that does not say is nobody's.
    fn is_inbound(
        &self,
        record: &StringRecord,
        kept: &mut Map<String, Value>,
    ) -> Result<bool, Reason> {
        let mut told = None;
        let mut is_silent = true;
        for (column, word) in self.layout.all(record, Field::Direction) {
            is_silent = false;
            match values::is_inbound(word) {
                Some(inbound) => told = told.or(Some(inbound)),
                None => drop(kept.insert(column.to_owned(), word.into())),
            }
        }
        match told {
            Some(inbound) => Ok(inbound),
            None if !is_silent => Err("direction: neither inbound nor outbound".into()),
            None if self.layout.shape.conversations.is_some() => Err("direction: missing".into()),
            None => Ok(false),
        }
    }

    pub(super) fn message(
        &mut self,
        record: &StringRecord,
        external_id: String,
    ) -> Result<NewMessage, Reason> {
        let layout = self.layout.clone();
        let get = |field| layout.get(record, field);
        let mut kept = self.kept(record);
        let inbound = self.is_inbound(record, &mut kept)?;
        let thread = match layout.shape.conversations {
            Some(kind) => Thread::Moved {
                kind,
                external_id: get(Field::Conversation)
                    .ok_or("conversation_id: missing")?
                    .to_owned(),
            },
            None => {
                let found = self.channel(record)?;
                let texts = layout.all(record, Field::Address);
                let (identity, column, raw) = self.identity(found.family, texts)?;
                if raw != identity.value {
                    kept.insert(column.to_owned(), raw.into());
                }
                Thread::Customer {
                    channel_id: found.id,
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
            json!({ "type": "template", "name": name, "variables": variables }).to_string()
        });
        let sender = get(Field::Sender);
        let sender_id: Option<Uuid> = sender.and_then(|id| id.parse().ok());
        if let (Some(sender), None) = (sender, sender_id) {
            kept.insert("sender_id".to_owned(), sender.into());
        }
        let provider_message_id = match layout.all(record, Field::ProviderId).next() {
            Some((column, id)) => Some(bounded(column, id.to_owned())?),
            None => None,
        };
        let (id, spare_id) = self.ids(&external_id, created_at);
        let owned = |field| get(field).map(str::to_owned);
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
            media: media_url.map(|url| json!([{ "url": url }]).to_string()),
            customer_name: get(Field::Name).map(name_of),
            provider_message_id,
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
