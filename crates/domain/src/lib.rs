//! wasel-domain
