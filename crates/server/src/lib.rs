//! wasel-server
