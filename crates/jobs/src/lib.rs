//! wasel-jobs
