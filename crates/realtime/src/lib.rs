//! wasel-realtime
