//! wasel-config
