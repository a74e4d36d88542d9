//! inbound_kinds
