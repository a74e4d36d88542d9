//! The one log. A message's status moves only through [`status`].

mod insert;
mod read;
pub mod status;

pub use insert::{NewInbound, NewOutbound, insert_inbound, insert_outbound};
pub use read::{
    Message, MessageEvent, Page, find, find_by_provider_id, find_thread, list_events, list_newest,
    list_of_conversation, list_recent_providers_of,
};
pub use status::{StatusUpdate, advance_status, cancel};
