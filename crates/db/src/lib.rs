//! wasel-db

pub mod cluster;
