//! wasel-testkit
