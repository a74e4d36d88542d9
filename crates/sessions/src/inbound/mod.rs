//! From WhatsApp's messages and receipts to events.

use wasel_domain::ProviderEvent;

#[derive(Debug, thiserror::Error)]
#[error("not a linked phone's record: {0}")]
pub struct ReplayError(String);

/// Reads a record of the ledger ([`crate::Host::commit`]'s `raw`) into the events it held.
pub fn replay(_raw: &[u8]) -> Result<Vec<ProviderEvent>, ReplayError> {
    Err(ReplayError("unknown form".to_owned()))
}
