//! Rows of the tables that were taken over with their columns: linked phones, templates, the notification queue.

use csv::StringRecord;
use serde_json::{Map, Value};
use uuid::Uuid;
use wasel_db::import::{NewQueued, NewSession, NewTemplate};
use wasel_domain::template;

use super::{Mapper, Reason, bounded, readable};
use crate::cli::import::shapes::Field;
use crate::cli::import::values;

impl Mapper {
    pub(super) fn session(
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
            Err(_) => raw,
        });
        let flag = |column| {
            let word = self.layout.own(record, column);
            word.and_then(values::boolean).unwrap_or(true)
        };
        Ok(NewSession {
            id: self.ids(&external_id, created_at).0,
            external_id,
            phone_number: number,
            whatsapp_id: self.layout.own(record, "whatsapp_id").map(str::to_owned),
            display_name: self.layout.get(record, Field::Name).map(str::to_owned),
            last_connected_at: connected,
            last_disconnected_at: disconnected,
            connection_error: "imported: link this phone again".to_owned(),
            auto_reconnect: flag("auto_reconnect"),
            enabled: flag("enabled"),
            created_at,
            updated_at,
        })
    }

    pub(super) fn template(
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
        let message_template = self
            .layout
            .get(record, Field::Body)
            .ok_or("message_template: missing")?;
        Ok(NewTemplate {
            id: self.ids(&external_id, created_at).0,
            external_id,
            name: bounded(
                "name",
                self.layout
                    .get(record, Field::Name)
                    .ok_or("name: missing")?
                    .to_owned(),
            )?,
            description: own("description").map(str::to_owned),
            category: match own("category") {
                Some("trial_welcome") => "trial_welcome",
                Some("subscription_expiring") => "subscription_expiring",
                Some("subscription_activated") => "subscription_activated",
                Some("payment_reminder") => "payment_reminder",
                _ => "custom",
            },
            variables: template::variables(message_template).into(),
            message_template: message_template.to_owned(),
            media_type: match own("media_type") {
                Some("image") => Some("image"),
                Some("document") => Some("document"),
                _ => None,
            },
            media_url: self.layout.get(record, Field::MediaUrl).map(str::to_owned),
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

    pub(super) fn queued(
        &mut self,
        record: &StringRecord,
        external_id: String,
    ) -> Result<NewQueued, Reason> {
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
            Err(_) => raw,
        });
        let own = |column| self.layout.own(record, column);
        let number = |column, usual: i32| {
            let text = own(column);
            text.and_then(|text| text.parse().ok()).unwrap_or(usual)
        };
        let mut error_message = self
            .layout
            .get(record, Field::ErrorMessage)
            .map(str::to_owned);
        let status = match self.layout.get(record, Field::Status) {
            Some("completed") => "completed",
            Some("failed") => "failed",
            Some("cancelled" | "canceled") => "cancelled",
            // The old system may have sent it already.
            Some("processing") => {
                error_message =
                    Some("imported: the old system was sending it; it may have arrived".to_owned());
                "cancelled"
            }
            Some("pending") | None if self.keep_pending => "pending",
            Some("pending") | None => {
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
            message_data.insert("imported_message_id".to_owned(), id.into());
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
            recipient_email: own("recipient_email").map(str::to_owned),
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
