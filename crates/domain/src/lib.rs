//! What Wasel knows about messaging, with no I/O: ids, numbers, the message and status model,
//! the customer-service window, opt-out words. Everything else builds on this crate.

pub mod category;
pub mod consent;
pub mod content;
pub mod email;
pub mod event;
pub mod ids;
pub mod limits;
pub mod phone;
pub mod provider_template;
pub mod schedule;
pub mod status;
pub mod storage_path;
pub mod template;
pub mod window;

pub use category::Category;
pub use content::{MediaRef, MessageContent, MessageKind, OutboundContent};
pub use event::{ProviderEvent, RoutedEvent};
pub use ids::{AttemptId, ChannelId, ContactId, ConversationId, EventId, MessageId, OrgId, UserId};
pub use phone::{E164, Region};
pub use status::MessageStatus;
