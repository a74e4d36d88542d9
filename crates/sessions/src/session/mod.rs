//! One linked phone.
