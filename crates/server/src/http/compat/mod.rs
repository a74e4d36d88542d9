//! The documents' own paths. Each folder or file only translates: shapes in, shapes out, the work is elsewhere.

pub mod live_chat;
pub mod media;
pub mod notification_functions;
pub mod property_maintenance;
pub mod sessions;
pub mod whatsapp_service;
