//! wasel-providers
