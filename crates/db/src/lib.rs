//! wasel-db
