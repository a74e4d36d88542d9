//! The old tables we know: five systems' own, by name and by the columns that tell them apart.

use Field as F;

/// What a column means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Id,
    /// The old tenant.
    Org,
    /// The old conversation of a message.
    Conversation,
    /// `whatsapp`, `sms`, `email`.
    Channel,
    Provider,
    PhoneNumberId,
    Customer,
    /// A number, a JID or an e-mail address; several columns may hold one.
    Address,
    Name,
    Avatar,
    Direction,
    Type,
    Body,
    Caption,
    MediaUrl,
    Status,
    /// The provider's id of the message.
    ProviderId,
    Sender,
    RequestId,
    Trigger,
    RelatedEntity,
    ErrorCode,
    ErrorMessage,
    RetryCount,
    TemplateName,
    TemplateParams,
    Metadata,
    AssignedTo,
    Notes,
    Tags,
    Patient,
    Unread,
    LastMessage,
    LastMessageAt,
    CreatedAt,
    UpdatedAt,
    ScheduledAt,
    SentAt,
    DeliveredAt,
    ReadAt,
    FailedAt,
    /// Goes by its own name into the column of that name.
    Own,
    /// Kept in `metadata.imported`.
    Keep,
    /// Secret or of no use any more: never read.
    Never,
}

impl Field {
    /// Whether it changes while a row lives.
    pub const fn changes(self) -> bool {
        matches!(
            self,
            F::Status
                | F::ErrorCode
                | F::ErrorMessage
                | F::RetryCount
                | F::AssignedTo
                | F::Notes
                | F::Tags
                | F::Unread
                | F::LastMessage
                | F::LastMessageAt
                | F::UpdatedAt
                | F::DeliveredAt
                | F::ReadAt
                | F::FailedAt
        )
    }
}

/// What becomes of a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Tells which number an id means.
    Numbers,
    /// Tells addresses of customers.
    Customers,
    Sessions,
    Templates,
    Conversations,
    Messages,
    Queue,
}

/// How a row says which channel it went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Through its conversation, or not at all.
    Nothing,
    Whatsapp,
    /// A WhatsApp Cloud number, by Meta's id for it.
    CloudNumber,
    TwilioWhatsapp,
    /// By message type and provider.
    Log,
    /// By the channel's name.
    Channel,
}

/// One known table.
#[derive(Debug)]
pub struct Shape {
    /// Short name of the system it belongs to; the first part of the default source.
    pub document: &'static str,
    pub table: &'static str,
    /// Columns that tell it from others of that name.
    pub needs: &'static [&'static str],
    pub kind: Kind,
    pub wants: Wants,
    /// For messages: the table their conversations were in.
    pub conversations: Option<&'static str>,
    columns: &'static [(&'static str, Field)],
}

/// Tables that hold nothing we have a place for yet.
pub const NOTHING_TO_MOVE: [&str; 3] = [
    "whatsapp_settings",
    "whatsapp_scheduled_messages",
    "whatsapp_analytics",
];

const TIMES: [(&str, Field); 6] = [
    ("created_at", F::CreatedAt),
    ("updated_at", F::UpdatedAt),
    ("sent_at", F::SentAt),
    ("delivered_at", F::DeliveredAt),
    ("read_at", F::ReadAt),
    ("failed_at", F::FailedAt),
];

/// The first that fits counts.
pub const SHAPES: [Shape; 16] = [
    Shape {
        document: "live-chat",
        table: "waba_accounts",
        needs: &["waba_id"],
        kind: Kind::Numbers,
        wants: Wants::Nothing,
        conversations: None,
        columns: &[
            ("waba_id", F::Id),
            ("user_id", F::Keep),
            ("owner_business_id", F::Keep),
            ("access_token", F::Never),
            ("created_at", F::CreatedAt),
        ],
    },
    Shape {
        document: "live-chat",
        table: "phone_numbers",
        needs: &["phone_number_id"],
        kind: Kind::Numbers,
        wants: Wants::Nothing,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("phone_number_id", F::PhoneNumberId),
            ("waba_id", F::Keep),
            ("display_phone_number", F::Keep),
            ("verified_name", F::Keep),
            ("is_registered", F::Keep),
        ],
    },
    Shape {
        document: "ai-conversations",
        table: "customers",
        needs: &["id"],
        kind: Kind::Customers,
        wants: Wants::Nothing,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("whatsapp_number", F::Address),
            ("phone", F::Address),
            ("phone_number", F::Address),
            ("mobile", F::Address),
            ("email", F::Address),
            ("name", F::Name),
            ("full_name", F::Name),
            ("customer_name", F::Name),
        ],
    },
    Shape {
        document: "fleet",
        table: "whatsapp_sessions",
        needs: &["id", "status"],
        kind: Kind::Sessions,
        wants: Wants::Nothing,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("phone_number", F::Address),
            ("display_name", F::Name),
            ("created_at", F::CreatedAt),
            ("updated_at", F::UpdatedAt),
            ("whatsapp_id", F::Own),
            ("last_connected_at", F::Own),
            ("last_disconnected_at", F::Own),
            ("auto_reconnect", F::Own),
            ("enabled", F::Own),
            ("status", F::Never),
            ("connection_error", F::Never),
            ("retry_count", F::Never),
            ("auth_state", F::Never),
            ("qr_code", F::Never),
            ("qr_expires_at", F::Never),
        ],
    },
    Shape {
        document: "fleet",
        table: "whatsapp_templates",
        needs: &["name", "message_template"],
        kind: Kind::Templates,
        wants: Wants::Nothing,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("name", F::Name),
            ("message_template", F::Body),
            ("media_url", F::MediaUrl),
            ("created_at", F::CreatedAt),
            ("updated_at", F::UpdatedAt),
            ("description", F::Own),
            ("category", F::Own),
            // Told by the text.
            ("variables", F::Never),
            ("media_type", F::Own),
            ("is_active", F::Own),
            ("is_system", F::Own),
            ("usage_count", F::Own),
            ("last_used_at", F::Own),
            ("created_by", F::Own),
        ],
    },
    Shape {
        document: "fleet",
        table: "notification_queue",
        needs: &["notification_type", "status"],
        kind: Kind::Queue,
        wants: Wants::Nothing,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("notification_type", F::Type),
            ("status", F::Status),
            ("created_at", F::CreatedAt),
            ("updated_at", F::UpdatedAt),
            ("error_message", F::ErrorMessage),
            ("recipient_id", F::Own),
            ("recipient_phone", F::Own),
            ("recipient_email", F::Own),
            ("template_id", F::Own),
            ("message_data", F::Own),
            ("priority", F::Own),
            ("scheduled_for", F::Own),
            ("attempts", F::Own),
            ("max_attempts", F::Own),
            ("last_attempt_at", F::Own),
            ("whatsapp_message_id", F::Own),
            ("completed_at", F::Own),
        ],
    },
    Shape {
        document: "inbox",
        table: "whatsapp_conversations",
        needs: &["phone_number"],
        kind: Kind::Conversations,
        wants: Wants::Whatsapp,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("phone_number", F::Address),
            ("customer_name", F::Name),
            ("status", F::Status),
            ("last_message", F::LastMessage),
            ("last_message_at", F::LastMessageAt),
            ("unread_count", F::Unread),
            ("assigned_to", F::AssignedTo),
            ("notes", F::Notes),
            ("tags", F::Tags),
            ("patient_id", F::Patient),
        ],
    },
    Shape {
        document: "live-chat",
        table: "chat_conversations",
        needs: &["customer_phone"],
        kind: Kind::Conversations,
        wants: Wants::CloudNumber,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("user_id", F::AssignedTo),
            ("waba_id", F::Keep),
            ("phone_number_id", F::PhoneNumberId),
            ("customer_phone", F::Address),
            ("customer_name", F::Name),
            ("customer_profile_pic", F::Avatar),
            ("last_message", F::LastMessage),
            ("last_message_time", F::LastMessageAt),
            ("unread_count", F::Unread),
            ("status", F::Status),
        ],
    },
    Shape {
        document: "ai-conversations",
        table: "conversations",
        needs: &["id", "channel"],
        kind: Kind::Conversations,
        wants: Wants::Channel,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("channel", F::Channel),
            ("customer_id", F::Customer),
            ("customer_phone", F::Address),
            ("phone_number", F::Address),
            ("phone", F::Address),
            ("customer_email", F::Address),
            ("email", F::Address),
            ("customer_name", F::Name),
            ("distributor_id", F::Org),
            ("ai_context_summary", F::Keep),
            ("status", F::Status),
            ("assigned_to", F::AssignedTo),
            ("notes", F::Notes),
            ("tags", F::Tags),
            ("last_message", F::LastMessage),
            ("last_message_at", F::LastMessageAt),
            ("unread_count", F::Unread),
        ],
    },
    Shape {
        document: "twilio",
        table: "whatsapp_messages",
        needs: &["message_sid"],
        kind: Kind::Messages,
        wants: Wants::TwilioWhatsapp,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("sender_id", F::Sender),
            ("recipient_phone", F::Address),
            ("message_content", F::Body),
            ("message_sid", F::ProviderId),
            ("status", F::Status),
            ("error_code", F::ErrorCode),
            ("error_message", F::ErrorMessage),
            ("media_url", F::MediaUrl),
            ("request_id", F::RequestId),
            ("metadata", F::Metadata),
        ],
    },
    Shape {
        document: "fleet",
        table: "whatsapp_messages",
        needs: &["message_body"],
        kind: Kind::Messages,
        wants: Wants::Whatsapp,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("session_id", F::Keep),
            ("recipient_phone", F::Address),
            ("recipient_name", F::Name),
            ("message_type", F::Type),
            ("message_body", F::Body),
            ("template_name", F::TemplateName),
            ("template_params", F::TemplateParams),
            ("media_url", F::MediaUrl),
            ("status", F::Status),
            ("whatsapp_message_id", F::ProviderId),
            ("error_message", F::ErrorMessage),
            ("retry_count", F::RetryCount),
            ("sent_by", F::Sender),
            ("trigger_type", F::Trigger),
            ("related_entity_id", F::RelatedEntity),
            ("scheduled_at", F::ScheduledAt),
        ],
    },
    Shape {
        document: "inbox",
        table: "whatsapp_messages",
        needs: &["conversation_id", "content", "direction"],
        kind: Kind::Messages,
        wants: Wants::Nothing,
        conversations: Some("whatsapp_conversations"),
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("conversation_id", F::Conversation),
            ("content", F::Body),
            ("message_type", F::Type),
            ("direction", F::Direction),
            ("status", F::Status),
            ("media_url", F::MediaUrl),
            ("whatsapp_message_id", F::ProviderId),
        ],
    },
    Shape {
        document: "live-chat",
        table: "chat_messages",
        needs: &["conversation_id", "sender"],
        kind: Kind::Messages,
        wants: Wants::Nothing,
        conversations: Some("chat_conversations"),
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("conversation_id", F::Conversation),
            ("wa_message_id", F::ProviderId),
            ("message_id", F::Keep),
            ("content", F::Body),
            ("message_type", F::Type),
            ("media_url", F::MediaUrl),
            ("media_caption", F::Caption),
            ("sender", F::Direction),
            ("status", F::Status),
            // When it was sent; `created_at` is when the row was written.
            ("timestamp", F::CreatedAt),
            ("metadata", F::Metadata),
        ],
    },
    Shape {
        document: "twilio",
        table: "message_logs",
        needs: &["recipient", "message_type"],
        kind: Kind::Messages,
        wants: Wants::Log,
        conversations: None,
        columns: &[
            ("id", F::Id),
            ("org_id", F::Org),
            ("request_id", F::RequestId),
            ("recipient", F::Address),
            ("message_type", F::Channel),
            ("message_content", F::Body),
            ("provider", F::Provider),
            ("status", F::Status),
            ("external_id", F::ProviderId),
            ("metadata", F::Metadata),
            ("sender_id", F::Sender),
            ("media_url", F::MediaUrl),
            ("error_code", F::ErrorCode),
            ("error_message", F::ErrorMessage),
        ],
    },
    Shape {
        document: "ai-conversations",
        table: "messages",
        needs: &["conversation_id", "message_type"],
        kind: Kind::Messages,
        wants: Wants::Nothing,
        conversations: Some("conversations"),
        columns: AI_MESSAGES,
    },
    Shape {
        document: "ai-conversations",
        table: "messages",
        needs: &["conversation_id", "content"],
        kind: Kind::Messages,
        wants: Wants::Nothing,
        conversations: Some("conversations"),
        columns: AI_MESSAGES,
    },
];

const AI_MESSAGES: &[(&str, Field)] = &[
    ("id", F::Id),
    ("org_id", F::Org),
    ("conversation_id", F::Conversation),
    ("direction", F::Direction),
    ("sender_type", F::Direction),
    ("sender", F::Direction),
    ("message_type", F::Type),
    ("type", F::Type),
    ("content", F::Body),
    ("body", F::Body),
    ("media_url", F::MediaUrl),
    ("file_url", F::MediaUrl),
    ("external_message_id", F::ProviderId),
    ("external_id", F::ProviderId),
    ("status", F::Status),
    ("sender_id", F::Sender),
    ("error_code", F::ErrorCode),
    ("error_message", F::ErrorMessage),
    ("metadata", F::Metadata),
    ("timestamp", F::CreatedAt),
    ("customer_id", F::Keep),
    ("distributor_id", F::Org),
    ("channel", F::Keep),
];

impl Shape {
    /// The known table of this name whose telling columns are all there.
    pub fn recognise(table: &str, columns: &[String]) -> Option<&'static Self> {
        SHAPES.iter().find(|shape| {
            shape.table == table
                && shape
                    .needs
                    .iter()
                    .all(|need| columns.iter().any(|column| column == need))
        })
    }

    /// What a column means, and its place among those of its meaning (less is better); `None` for one we do not know.
    pub fn field(&self, column: &str) -> Option<(usize, Field)> {
        self.columns
            .iter()
            .chain(&TIMES)
            .enumerate()
            .find(|(_, (name, _))| *name == column)
            .map(|(rank, (_, field))| (rank, *field))
    }
}
