//! One linked phone.

pub(crate) mod transport;
pub(crate) mod version;
