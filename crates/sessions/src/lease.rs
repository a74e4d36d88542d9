//! Leases as this process sees them.
