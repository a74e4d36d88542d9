//! rate_limits
